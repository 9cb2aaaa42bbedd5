"""HistGradientBoosting: baseline + leaf, tree by tree, through the loss's link; x is compared in float64.

Categories: scikit-learn turns each category into its place among the sorted ones (the encoder inside the model), an
unknown or missing one into NaN, which goes where training sent missing values; a split by category is a set of places.

Source: `_raw_predict`, `_preprocess_X` and `predict` of sklearn/ensemble/_hist_gradient_boosting/gradient_boosting.py;
`_predict_one_from_raw_data` of _predictor.pyx and `in_bitset` of _bitset.pyx there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Table, Value
from edgekit_converters.operators import Predict, Predicted, Unfaithful
from edgekit_converters.operators.boosting import classified
from edgekit_converters.operators.tree_ensemble import constant, sums
from edgekit_converters.operators.tree_nodes import Tree

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def histogram(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """HistGradientBoostingClassifier and -Regressor.

    Raises:
        Unfaithful: A link that is not known.
    """
    graph = walk.graph
    link = type(step._loss.link).__name__
    raw = sums(graph, stages(step), step.n_trees_per_iteration_, _coded(walk, step, table, path), "float64")
    if hasattr(step, "classes_"):
        return classified(graph, raw, step.classes_, at_zero=False)
    if link == "LogLink":
        raw = graph.value("Exp", [raw], raw)
    elif link != "IdentityLink":
        raise Unfaithful(f"the link {link} has no conversion", "train with another loss")
    return Predicted(value=raw)


def stages(step: Any) -> list[Tree]:
    """The trees; the first ones are the start of each score."""
    start = np.asarray(step._baseline_prediction, dtype=np.float64).ravel()
    return [*map(constant, start.tolist()), *(_tree(one) for stage in step._predictors for one in stage)]


def _coded(walk: Walk, step: Any, table: Table, path: Path) -> Value:
    """The columns in the order in which the trees number them: coded categories first, then numbers."""
    inside = step._preprocessor
    if inside is None:
        return walk.matrix(table)
    indices = inside._transformer_to_input_indices
    coded = walk.transform(
        inside.named_transformers_["encoder"],
        tuple(table[index] for index in indices["encoder"]),
        (*path, "categorical_features"),
    )
    return walk.matrix((*coded, *(table[index] for index in indices["numerical"])))


def _tree(predictor: Any) -> Tree:
    nodes = predictor.nodes
    sets = np.asarray(predictor.raw_left_cat_bitsets, dtype="<u4").reshape(-1, 8)
    categorical = np.flatnonzero(nodes["is_categorical"].astype(bool) & ~nodes["is_leaf"].astype(bool))
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        leaf=nodes["is_leaf"].astype(bool),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        values=nodes["value"].astype(np.float64).reshape(-1, 1),
        members={
            int(node): np.flatnonzero(
                np.unpackbits(sets[nodes["bitset_idx"][node]].view(np.uint8), bitorder="little")
            ).astype(np.float64)
            for node in categorical
        },
    )


PREDICTORS: Final[Mapping[str, Predict]] = dict.fromkeys(
    ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), histogram
)
