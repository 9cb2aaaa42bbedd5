"""Gaussian process classification: the Laplace approximation and the integral of its sigmoid by five error functions.

ONNX has no float64 `Erf`, so that it is composed of the rational approximations of FreeBSD's s_erf.c (below 1 ulp).

Source: `_BinaryGaussianProcessClassifierLaplace.predict_proba` and `predict` of sklearn/gaussian_process/_gpc.py;
Rasmussen, Williams: Gaussian Processes for Machine Learning, algorithm 3.2; Sun Microsystems 1993, s_erf.c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.gaussian_process._gpc import COEFS, LAMBDAS

from edgekit_converters.graph import GraphBuilder, Table, Value
from edgekit_converters.operators import Predict, Predicted, from_matrix, kernel_functions, scores
from edgekit_converters.operators.expression import Expr, concat

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

# fmt: off
_SMALL: Final = (
    (1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02,
     -5.77027029648944159157e-03, -2.37630166566501626084e-05),
    (1.0, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03,
     1.32494738004321644526e-04, -3.96022827877536812320e-06),
)
"""|x| < 0.84375, in x^2."""
_MIDDLE: Final = (
    (-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01,
     3.18346619901161753674e-01, -1.10894694282396677476e-01, 3.54783043256182359371e-02,
     -2.16637559486879084300e-03),
    (1.0, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02,
     1.26171219808761642112e-01, 1.36370839120290507362e-02, 1.19844998467991074170e-02),
)
"""0.84375 <= |x| < 1.25, in |x| - 1."""
_LARGE: Final = (
    (-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e+01,
     -6.23753324503260060396e+01, -1.62396669462573470355e+02, -1.84605092906711035994e+02,
     -8.12874355063065934246e+01, -9.81432934416914548592e+00),
    (1.0, 1.96512716674392571292e+01, 1.37657754143519042600e+02, 4.34565877475229228821e+02,
     6.45387271733267880336e+02, 4.29008140027567833386e+02, 1.08635005541779435134e+02,
     6.57024977031928170135e+00, -6.04244152148580987438e-02),
)
"""1.25 <= |x| < 1 / 0.35, in 1 / x^2."""
_LARGEST: Final = (
    (-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e+01,
     -1.60636384855821916062e+02, -6.37566443368389627722e+02, -1.02509513161107724954e+03,
     -4.83519191608651397019e+02),
    (1.0, 3.03380607434824582924e+01, 3.25792512996573918826e+02, 1.53672958608443695994e+03,
     3.19985821950859553908e+03, 2.55305040643316442583e+03, 4.74528541206955367215e+02,
     -2.24409524465858183362e+01),
)
"""Up to 6, in 1 / x^2."""
# fmt: on
_AT_ONE: Final = 8.45062911510467529297e-01


def _ratio(x: Expr, parts: tuple[Sequence[float], Sequence[float]]) -> Expr:
    """A quotient of polynomials by Horner's rule."""
    found = []
    for coefficients in parts:
        value = x * coefficients[-1] + coefficients[-2]
        for one in coefficients[-3::-1]:
            value = value * x + one
        found.append(value)
    return found[0] / found[1]


def erf(x: Expr) -> Expr:
    """The error function."""
    size = abs(x).at_most(6.0)
    small = x + x * _ratio(size.square(), _SMALL)
    middle = _ratio(size - 1.0, _MIDDLE) + _AT_ONE
    beyond = size.at_least(1.25)
    inverse = 1.0 / beyond.square()
    tail = (beyond < 1.0 / 0.35).where(_ratio(inverse, _LARGE), _ratio(inverse, _LARGEST))
    large = 1.0 - (tail - beyond.square() - 0.5625).exp() / beyond
    right = (size < 1.25).where(middle, large)
    return (size < 0.84375).where(small, (x < 0.0).where(-right, right))


def _binary(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The second class where the latent mean is above 0; its probability is the mean sigmoid over the latent normal."""
    given = Expr(graph, x)
    rows = np.asarray(step.X_train_, dtype=np.float64)
    kernel = kernel_functions.process(step.kernel_, given, rows)
    mean = kernel @ np.asarray(step.y_train_ - step.pi_).reshape(-1, 1)
    # v = L^-1 (W_sr * K), the triangular system solved here once.
    solved = np.asarray(solve_triangular(step.L_, np.diag(step.W_sr_), lower=True))
    variance = kernel_functions.diagonal(step.kernel_, given) - (kernel @ solved.T).square().sum()
    alpha = 0.5 / variance
    scales = np.ravel(LAMBDAS)
    inside = erf(mean * scales * (alpha / (alpha + scales**2)).sqrt())
    integrals = (np.pi / alpha).sqrt() * inside / ((variance * (2.0 * np.pi)).sqrt() * 2.0)
    share = integrals @ np.reshape(COEFS, (-1, 1)) + float(0.5 * np.sum(COEFS))
    label = scores.positive(graph, mean.value, step.classes_)
    return Predicted(label=label, probabilities=concat([1.0 - share, share]).value)


def _classifier(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """GaussianProcessClassifier: two classes, or one against the rest or against each other."""
    return walk.predict(step.base_estimator_, table, (*path, "base_estimator"))


PREDICTORS: Final[Mapping[str, Predict]] = {
    "_BinaryGaussianProcessClassifierLaplace": from_matrix(_binary),
    "GaussianProcessClassifier": _classifier,
}
