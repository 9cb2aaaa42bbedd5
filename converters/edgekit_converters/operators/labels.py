"""LabelEncoder and LabelBinarizer alone, as models of one column of labels.

LabelEncoder: the place of a label among the sorted classes; of others it raises, and a text's manifest says so.
LabelBinarizer: `pos_label` in the column of a label's class and `neg_label` in the others, one column where there are
two classes or fewer: that of the second one. Of labels that are each there or not it gives the same columns again.

Source: `LabelEncoder.transform` and `label_binarize` of sklearn/preprocessing/_label.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from edgekit_converters.graph import Table, columns
from edgekit_converters.operators import Transform, Unfaithful
from edgekit_converters.operators.encoders import NOWHERE, Codes, coded, indicators
from edgekit_converters.operators.expression import Expr
from edgekit_converters.schema import Encoding

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

OF_LABELS: Final = frozenset({"LabelBinarizer", "LabelEncoder"})
"""What reads a sequence of labels, no table."""


def _label_encoder(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    table = _of_own_type(walk, step, table)
    classes = step.classes_.tolist()
    _learn(walk, table, classes)
    return coded(walk.graph, table, [Codes(classes, [*range(len(classes))], -1.0, 1)])


def _label_binarizer(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    high, low = float(step.pos_label), float(step.neg_label)
    if step.y_type_.startswith("multilabel"):
        x = Expr(walk.graph, walk.matrix(table))
        return columns(x.equals(0.0).where(low, high).value)
    classes = step.classes_.tolist()
    if len(classes) > 2:
        codes = Codes(classes, [*range(len(classes))], NOWHERE, len(classes))
    else:
        codes = Codes(classes, [float(NOWHERE), 0.0][: len(classes)], NOWHERE, 1)
    _one(table)
    found = Expr(walk.graph, walk.graph.matrix(indicators(walk.graph, table, [codes])))
    return columns((found * (high - low) + low).value)


def _of_own_type(walk: Walk, step: Any, table: Table) -> Table:
    """The labels as the type of the classes, which LabelEncoder makes of them: numbers are cut or rounded."""
    _one(table)
    if table[0].dtype == "text" or step.classes_.dtype.kind not in "iuf":
        return table
    x = walk.matrix(table)
    if step.classes_.dtype.kind == "f":
        return columns(walk.graph.rounded(x) if step.classes_.dtype.itemsize == 4 else x)
    return columns(walk.graph.cast(walk.graph.cast(x, "int64"), "float64"))


def _one(table: Table) -> None:
    if len(table) != 1:
        raise Unfaithful("it reads one column of labels", "give that column alone")


def _learn(walk: Walk, table: Table, classes: list[Any]) -> None:
    source = table[0].source
    if table[0].dtype == "text" and source is not None:
        texts = tuple(str(one) for one in classes)
        walk.encodings.setdefault(source, []).append(Encoding(categories=texts, closed=True))
    elif table[0].dtype != "text":
        walk.notes.append(
            "for a number that is none of its classes, the original raises an error, and the converted model answers"
        )


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "LabelBinarizer": _label_binarizer,
    "LabelEncoder": _label_encoder,
}
