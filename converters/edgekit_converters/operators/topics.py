"""LatentDirichletAllocation: the variational posterior of each document's topics, in an ONNX Loop.

gamma = prior + theta * ((n / (theta B + eps)) B'), theta = exp(psi(gamma) - psi(sum gamma)), from gamma = 1 on until
its mean change is below the tolerance; then each row over its sum. psi is that of scikit-learn: fast, and not exact.

Source: M. Hoffman, D. Blei, F. Bach, Online Learning for LDA, NIPS 2010; J. Bernardo, Algorithm AS 103 (1976);
`_update_doc_distribution` of sklearn/decomposition/_lda.py, `psi` of _online_lda_fast.pyx.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Transform, on_matrix
from edgekit_converters.operators.expression import Expr, rows_of, total
from edgekit_converters.operators.iteration import repeat

EULER: Final = 0.577215664901532860606512090082402431
ASYMPTOTIC: Final = 6
"""From here on psi is its series; below, psi(x) = psi(x + 1) - 1 / x."""


def psi(x: Expr) -> Expr:
    """The digamma function of positive numbers, as scikit-learn computes it."""
    tiny = x <= 1e-6
    near = x.constant(-EULER) - 1.0 / x
    result: Expr | None = None
    for _ in range(ASYMPTOTIC):
        below = x < float(ASYMPTOTIC)
        less = below.where(1.0 / x, 0.0)
        result = -less if result is None else result - less
        x = below.where(x + 1.0, x)
    assert result is not None
    r = 1.0 / x
    result = result + (x.log() - r * 0.5)
    r = r * r
    series = r * (1.0 / 12.0 - r * (1.0 / 120.0 - r * (1.0 / 252.0)))
    return tiny.where(near, result - series)


def latent_dirichlet_allocation(graph: GraphBuilder, step: Any, value: Value) -> Value:
    """LatentDirichletAllocation: the posterior mean of each row's topics."""
    words = np.asarray(step.exp_dirichlet_component_, dtype=np.float64)
    count, prior = len(words), float(step.doc_topic_prior_)
    epsilon = float(np.finfo(np.float64).eps)

    def expectation(topics: Expr) -> Expr:
        return (psi(topics) - psi(total([topics.at(index) for index in range(count)]))).exp()

    def turn(state: list[Expr], given: list[Expr]) -> tuple[Expr, list[Expr]]:
        topics, theta, active = state
        phi = theta @ words + epsilon
        after = theta * ((given[0] / phi) @ words.T) + prior
        changes = abs(topics - after)
        change = total([changes.at(index) for index in range(count)]) / float(count)
        going = active > 0.0
        still = going & ~(change < float(step.mean_change_tol))
        kept = [going.where(after, topics), going.where(expectation(after), theta), still.cast("float64")]
        return still, kept

    ones = rows_of(value, graph, np.ones(count))
    x = Expr(graph, value)
    start = [ones, expectation(ones), rows_of(value, graph, np.ones(1))]
    topics = repeat(int(step.max_doc_update_iter), start, [x], turn)[0]
    return (topics / topics.sum()).value


TRANSFORMERS: Final[Mapping[str, Transform]] = {"LatentDirichletAllocation": on_matrix(latent_dirichlet_allocation)}
