"""Sparse codes of rows in a fixed dictionary D: thresholds, matching pursuit, least angles, the lasso.

- `threshold`: sign(c) max(|c| - alpha, 0), c = x D'.
- `omp`: one atom after another, always the one that correlates most with what is left; the columns q of the Cholesky
  factor of the chosen atoms' Gram matrix are kept for all atoms, so that what is left is c - sum(y q), and the code is
  found from y once, at the end. A row stops early where nothing is left or its atoms depend on each other.
- `lars`, `lasso_lars`: `least_angle`.
- `lasso_cd`: min |x - w D|^2 / 2 + alpha |w|, one weight after another, in an ONNX Loop with the stopping rule and the
  screening of the original: until the duality gap is below 1e-8 |x|^2.

Source: `sparse_encode` of sklearn/decomposition/_dict_learning.py; `_gram_omp` of sklearn/linear_model/_omp.py;
`enet_coordinate_descent_gram` of _cd_fast.pyx, with the screening of E. Ndiaye et al., arXiv:1802.07481, eq. 11.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Transform, Unfaithful, least_angle, on_matrix
from edgekit_converters.operators.expression import Expr, concat, rows_of, total
from edgekit_converters.operators.iteration import one_hot, pick, repeat

ATOMS_MAX: Final = 32
"""Atoms of a code by matching pursuit: its nodes grow with their square."""
TOLERANCE: Final = 1e-8
"""Of the lasso, set by scikit-learn."""

Rows = NDArray[np.float64]


def sparse_code(graph: GraphBuilder, step: Any, value: Value) -> Value:
    """SparseCoder, DictionaryLearning, MiniBatchDictionaryLearning.

    Raises:
        Unfaithful: Another algorithm, or too many atoms.
    """
    kind = step.transform_algorithm
    if kind not in ALGORITHMS:
        raise Unfaithful(
            f"transform_algorithm='{kind}' has no conversion",
            f"set_params(transform_algorithm=...) on the fitted step to one of {', '.join(ALGORITHMS)}",
        )
    dictionary = step.dictionary if type(step).__name__ == "SparseCoder" else step.components_
    code = ALGORITHMS[kind](step, Expr(graph, value), np.asarray(dictionary, dtype=np.float64))
    if step.split_sign:
        code = concat([code.maximum(0.0), -code.minimum(0.0)])
    return code.value


def _alpha(step: Any) -> float:
    """The penalty: the step's own, that of training, or 1."""
    given = step.transform_alpha if step.transform_alpha is not None else getattr(step, "alpha", None)
    return 1.0 if given is None else float(given)


def _sign(x: Expr) -> Expr:
    return x.apply("Sign")


def _threshold(step: Any, x: Expr, dictionary: Rows) -> Expr:
    covariance = x @ dictionary.T
    code = _sign(covariance) * (abs(covariance) - _alpha(step)).maximum(0.0)
    return code.maximum(0.0) if step.positive_code else code


def _atoms(step: Any, x: Expr, dictionary: Rows) -> int:
    """Atoms of a code: the step's own number, or a tenth of the features."""
    wanted = step.transform_n_nonzero_coefs
    return int(min(max(x.width / 10, 1), len(dictionary)) if wanted is None else wanted)


def _matched(step: Any, x: Expr, dictionary: Rows) -> Expr:
    count, atoms = len(dictionary), _atoms(step, x, dictionary)
    if atoms > ATOMS_MAX:
        raise Unfaithful(
            f"a code of {atoms} atoms by matching pursuit is too long",
            f"set_params(transform_n_nonzero_coefs=...) on the fitted step to at most {ATOMS_MAX}",
        )
    gram, epsilon = dictionary @ dictionary.T, float(np.finfo(np.float64).eps)
    left = correlation = x @ dictionary.T
    active = x.ones() * np.zeros(count) > 0.5
    going = x.ones() > 0.5
    chosen: list[Expr] = []
    columns: list[Expr] = []
    solved: list[Expr] = []
    for _ in range(atoms):
        place = abs(left).argmax().reshape(-1, 1)
        best = pick(left, place)
        again = pick(active.cast("float64"), place) > 0.5
        going = going & ~again & ~(best * best < epsilon)
        before = [pick(column, place) for column in columns]
        column = place.flat().look_up(gram)
        square = pick(column, place)
        if before:
            # The original squares a norm here.
            square = square - total([one * one for one in before]).sqrt().square()
            going = going & ~(square <= epsilon)
            column = total([column, *(-(one * known) for one, known in zip(before, columns, strict=True))])
        pivot = going.where(square, 1.0).sqrt()
        column = going.where(column / pivot, 0.0)
        own = total([pick(correlation, place), *(-(one * y) for one, y in zip(before, solved, strict=True))])
        solved.append(going.where(own / pivot, 0.0))
        left = left - solved[-1] * column
        active = active | one_hot(place, count)
        chosen.append(place)
        columns.append(column)
    return _back(chosen, columns, solved, count)


def _back(chosen: list[Expr], columns: list[Expr], solved: list[Expr], count: int) -> Expr:
    """The code of L' code = y: backwards, one atom after another; an atom that was not taken has column and y 0."""
    weights: list[Expr] = []
    for number in reversed(range(len(chosen))):
        later = [
            -(pick(columns[number], place) * weight)
            for place, weight in zip(chosen[number + 1 :], weights, strict=True)
        ]
        pivot = pick(columns[number], chosen[number])
        none = pivot.equals(0.0)
        weights.insert(0, none.where(0.0, total([solved[number], *later]) / none.where(1.0, pivot)))
    return total([one_hot(place, count).where(weight, 0.0) for place, weight in zip(chosen, weights, strict=True)])


def _lasso(step: Any, x: Expr, dictionary: Rows) -> Expr:
    # Divided by the features, then multiplied by their number, as there.
    alpha = _alpha(step) / x.width * x.width
    if alpha == 0:
        raise Unfaithful("a lasso without penalty has no conversion", "set_params(transform_alpha=...) above 0")
    gram, count, positive = dictionary @ dictionary.T, len(dictionary), bool(step.positive_code)
    atoms = [int(one) for one in np.flatnonzero(np.diag(gram))]
    lengths = np.sqrt(np.where(np.diag(gram) == 0, 1.0, np.diag(gram)))
    most = int(step.transform_max_iter)

    def gap(w: Expr, product: Expr, q: Expr, norm: Expr) -> tuple[Expr, Expr, Expr]:
        """The duality gap, the dual norm, and X'R."""
        fit = (w * q).sum()
        residual = norm + (w * product).sum() - fit * 2.0
        rest = q - product
        dual = (rest if positive else abs(rest)).max()
        scale = (dual > alpha).where(alpha / dual, 1.0)
        primal = residual * 0.5 + abs(w).sum() * alpha
        return primal - (scale.square() * residual * -0.5 + scale * (norm - fit)), dual, rest

    def reached(found: Expr, dual: Expr, rest: Expr) -> Expr:
        """Atoms that the screening keeps."""
        return (1.0 - abs(rest / dual.maximum(alpha))) / lengths <= (abs(found) * 2.0).sqrt() / alpha

    def turn(state: list[Expr], given: list[Expr]) -> tuple[Expr, list[Expr]]:
        (w, product, kept, active, number), (q, norm) = state, given
        going, weights = active > 0.5, [w.at(index) for index in range(count)]
        largest, change = w.at(0) * 0.0, w.at(0) * 0.0
        for j in atoms:
            old, own = weights[j], float(gram[j, j])
            step_to = q.at(j) - product.at(j) + old * own
            new = _sign(step_to) * (abs(step_to) - alpha).maximum(0.0) / own
            if positive:
                new = (step_to < 0.0).where(0.0, new)
            taken = going & (kept.at(j) > 0.5)
            new = taken.where(new, old)
            product = product + (new - old) * gram[j]
            change = change.maximum(abs(new - old))
            largest = largest.maximum(taken.where(abs(new), 0.0))
            weights[j] = new
        w, none = concat(weights), largest.equals(0.0)
        settled = none | (change / none.where(1.0, largest) <= TOLERANCE) | (number >= float(most - 1))
        found, dual, rest = gap(w, product, q, norm)
        done = settled & (found <= norm * TOLERANCE)
        screened = going & settled & ~done
        leaving = screened & (kept > 0.5) & ~reached(found, dual, rest)
        product = product - leaving.where(w, 0.0) @ gram
        still = going & ~done
        after = [leaving.where(0.0, w), product, leaving.where(0.0, kept), still.cast("float64"), number + 1.0]
        return still, after

    q, norm = x @ dictionary.T, x.square().sum()
    zero = rows_of(x.value, x.graph, np.zeros(count))
    found, dual, rest = gap(zero, zero, q, norm)
    start = ~((found >= 0.0) & (found <= norm * TOLERANCE))
    kept = reached(found, dual, rest).cast("float64") * (np.diag(gram) != 0).astype(np.float64)
    state = [zero, zero, kept, start.cast("float64"), zero.at(0)]
    return repeat(most, state, [q, norm], turn)[0]


def _lasso_path(step: Any, x: Expr, dictionary: Rows) -> Expr:
    return least_angle.walked(
        x @ dictionary.T,
        least_angle.Path(
            gram=dictionary @ dictionary.T,
            features=x.width,
            alpha=_alpha(step) / x.width,
            most=int(step.transform_max_iter),
            lasso=True,
            positive=bool(step.positive_code),
        ),
    )


def _least_angle(step: Any, x: Expr, dictionary: Rows) -> Expr:
    return least_angle.walked(
        x @ dictionary.T,
        least_angle.Path(
            gram=dictionary @ dictionary.T,
            features=x.width,
            alpha=0.0,
            most=_atoms(step, x, dictionary),
            lasso=False,
            positive=False,
        ),
    )


ALGORITHMS: Final[Mapping[str, Callable[[Any, Expr, Rows], Expr]]] = {
    "omp": _matched,
    "lars": _least_angle,
    "lasso_lars": _lasso_path,
    "lasso_cd": _lasso,
    "threshold": _threshold,
}

TRANSFORMERS: Final[Mapping[str, Transform]] = dict.fromkeys(
    ("DictionaryLearning", "MiniBatchDictionaryLearning", "SparseCoder"), on_matrix(sparse_code)
)
