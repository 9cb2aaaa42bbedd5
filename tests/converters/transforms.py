"""One fitted transformer as a graph of its own, compared with its `transform` on any rows."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from edgekit_converters import schema
from edgekit_converters.graph import GraphBuilder
from edgekit_converters.nodes import serialize
from edgekit_converters.nulls import knows_none
from edgekit_converters.walk import Walk
from tests.converters.frames import NUMBERS, TARGET, features


def numbers() -> pd.DataFrame:
    """Three columns of real measurements, nothing missing."""
    return features()[NUMBERS].fillna(13.25)


def transformed(step: Any, X: pd.DataFrame, rows: pd.DataFrame) -> tuple[NDArray[Any], Walk]:
    """What the converted step gives for `rows`, and the walk; `X` shows the columns' types."""
    graph = GraphBuilder(TARGET)
    tensors, table = schema.inputs(graph, schema.dtypes(X))
    walk = Walk(graph, none=knows_none(step))
    found = walk.transform(step, table, ("step",))
    graph.output("out", graph.matrix(found, "float64"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(serialize(graph.build()), options, providers=["CPUExecutionProvider"])
    result: Any = session.run(None, schema.tensors_of(rows, tensors))[0]
    return result, walk


def assert_transforms(
    step: Any, X: pd.DataFrame, rows: pd.DataFrame | None = None, *, rtol: float = 1e-12, atol: float = 0.0
) -> Walk:
    """The converted step gives what the original gives, for all rows at once and for the first one alone."""
    rows = X if rows is None else rows
    for part in (rows, rows.head(1)):
        theirs = step.transform(part)
        # SparsePCA answers a single row without its axis.
        theirs = np.atleast_2d(np.asarray(theirs.toarray() if sparse.issparse(theirs) else theirs, dtype=np.float64))
        ours, walk = transformed(step, X, part)
        assert not walk.delegated
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)
    return transformed(step, X, rows)[1]


def around(values: NDArray[Any], like: pd.DataFrame) -> pd.DataFrame:
    """Rows at the values [n, columns] and one ulp to each side of them."""
    values = np.asarray(values, dtype=np.float64)
    return pd.DataFrame(
        np.concatenate([values, np.nextafter(values, -np.inf), np.nextafter(values, np.inf)]), columns=like.columns
    )


def far(X: pd.DataFrame) -> pd.DataFrame:
    """The rows, and others far outside the range of training."""
    return pd.concat([X, X * 3, -X, X * 0, X * 1e-3], ignore_index=True)
