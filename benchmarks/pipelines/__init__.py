"""More than 200 pipelines as people write them: what `benchmarks/coverage.py` measures conversion by.

Each is one that somebody has, not a product of two lists: the tables are those of `tables`, and the steps are what one
does to such a table. Models of other packages (`boosted`) are left out where the package is not installed.
"""

from __future__ import annotations

from benchmarks.pipelines import boosted, encoded, frames, matrices, nature, texts, wrapped
from benchmarks.pipelines.case import Case


def cases() -> list[Case]:
    """All of them, each with new models that are not fitted."""
    found = [case for module in (frames, encoded, matrices, wrapped, texts, boosted, nature) for case in module.cases()]
    names = [case.name for case in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two have one name: {max(names, key=names.count)}")
    return found


__all__ = ["Case", "cases"]
