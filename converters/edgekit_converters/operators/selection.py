"""Steps that only choose columns: no node at all.

Source: `SelectorMixin.transform` of sklearn/feature_selection/_base.py.
"""

from __future__ import annotations

from typing import Any

from edgekit_converters.graph import Table


def is_selector(step: Any) -> bool:
    """Whether the step keeps some of its columns as they are."""
    from sklearn.feature_selection import SelectorMixin

    return isinstance(step, SelectorMixin)


def select(step: Any, table: Table) -> Table:
    """The columns that the fitted selector keeps."""
    return tuple(column for column, kept in zip(table, step.get_support(), strict=True) if kept)
