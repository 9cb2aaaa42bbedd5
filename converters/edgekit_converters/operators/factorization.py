"""NMF by coordinate descent: each row's weights for fixed components, in an ONNX Loop.

In each turn, one component after another: w_t = max(w_t - (sum_r G_tr w_r - (x H')_t + l1) / G_tt, 0) with
G = H H' + l2 I, from w = 0 on. scikit-learn stops when the whole batch has settled, so that a row's weights depend on
the rows beside it; with tol=0 it does all its turns, and they depend on the row alone. Where nothing changes any more,
nothing will.

Source: A. Cichocki, A.-H. Phan, IEICE Trans. Fundamentals E92-A (2009), doi:10.1587/transfun.E92.A.708;
`_update_cdnmf_fast` of sklearn/decomposition/_cdnmf_fast.pyx, `_fit_coordinate_descent` of _nmf.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Transform, Unfaithful, on_matrix
from edgekit_converters.operators.expression import Expr, concat, rows_of, total
from edgekit_converters.operators.iteration import repeat

NEXT_STEP: Final = "use NMF with solver='cd', and set_params(tol=0) on the fitted step, which needs no new training"


def nmf(graph: GraphBuilder, step: Any, value: Value) -> Value:
    """NMF: coordinate descent on the weights.

    Raises:
        Unfaithful: A row's weights depend on the rows beside it, or on chance.
    """
    if step.solver != "cd":
        raise Unfaithful("its multiplicative updates start from the mean of all rows asked at once", NEXT_STEP)
    if step.tol > 0:
        raise Unfaithful(
            "it stops when all rows asked at once have settled, so that each depends on the others", NEXT_STEP
        )
    if step.shuffle:
        raise Unfaithful("it visits the components in random order", "set_params(shuffle=False) on the fitted step")
    x, components = Expr(graph, value), np.asarray(step.components_, dtype=np.float64)
    count = len(components)
    penalty = step.n_features_in_ * step.alpha_W
    gram = components @ components.T
    gram.flat[:: count + 1] += penalty * (1.0 - step.l1_ratio)
    projected = x @ components.T - penalty * step.l1_ratio
    start = rows_of(value, graph, np.zeros(count))

    def turn(state: list[Expr], given: list[Expr]) -> tuple[Expr, list[Expr]]:
        weights = [state[0].at(index) for index in range(count)]
        for t in np.flatnonzero(np.diag(gram)):
            gradient = total([-given[0].at(int(t)), *(one * float(gram[t, r]) for r, one in enumerate(weights))])
            weights[t] = (weights[t] - gradient / float(gram[t, t])).maximum(0.0)
        after = concat(weights)
        return ~after.equals(state[0]), [after]

    return repeat(int(step.max_iter), [start], [projected], turn)[0].value


def mini_batch_nmf(_graph: GraphBuilder, _step: Any, _value: Value) -> Value:
    """MiniBatchNMF.

    Raises:
        Unfaithful: Always.
    """
    raise Unfaithful("its multiplicative updates start from the mean of all rows asked at once", NEXT_STEP)


TRANSFORMERS: Final[Mapping[str, Transform]] = {"MiniBatchNMF": on_matrix(mini_batch_nmf), "NMF": on_matrix(nmf)}
