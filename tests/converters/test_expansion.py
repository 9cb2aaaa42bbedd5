"""PolynomialFeatures, SplineTransformer, KBinsDiscretizer: bit for bit, at knots and edges and beyond them."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, PolynomialFeatures, SplineTransformer, StandardScaler

from tests.converters.frames import assert_same, target
from tests.converters.transforms import around, assert_transforms, far, numbers

# The quantiles of few values fall together; scikit-learn says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Bins whose width", "ignore:Feature .* is constant", "ignore:Number of distinct clusters"
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("only", [True, False])
@pytest.mark.parametrize("degree", [1, 2, 3, 5, (0, 1), (2, 3), (3, 4), (0, 2)], ids=str)
def test_polynomials_are_the_same_products(degree: Any, only: bool, bias: bool) -> None:
    X = numbers()
    step = PolynomialFeatures(degree, interaction_only=only, include_bias=bias).fit(X)
    if step.n_output_features_:
        assert_transforms(step, X, far(X), rtol=0)


def test_polynomials_of_one_column_and_of_nothing_but_the_bias() -> None:
    X = numbers()[["area"]]
    assert_transforms(PolynomialFeatures(4).fit(X), X, rtol=0)
    assert_transforms(PolynomialFeatures(0).fit(X), X, rtol=0)
    assert_transforms(PolynomialFeatures(2, interaction_only=True).fit(X), X, rtol=0)


@pytest.mark.parametrize("strategy", ["uniform", "quantile", "kmeans"])
@pytest.mark.parametrize("encode", ["onehot", "onehot-dense", "ordinal"])
@pytest.mark.parametrize("dtype", [None, np.float64, np.float32])
def test_bins_are_the_same_at_their_edges(encode: str, strategy: str, dtype: Any) -> None:
    X = numbers().assign(constant=3.0, few=[0.0, 0.0, 1.0] * 80)
    options = {"quantile_method": "averaged_inverted_cdf"} if strategy == "quantile" else {}
    step = KBinsDiscretizer([4, 7, 2, 3, 3], encode=encode, strategy=strategy, dtype=dtype, **options).fit(X)
    deepest = max(map(len, step.bin_edges_))
    edges = np.nan_to_num(np.stack([np.resize(one, deepest) for one in step.bin_edges_], axis=1), posinf=3, neginf=3)
    assert_transforms(step, X, pd.concat([far(X), around(edges, X)], ignore_index=True), rtol=0)


@pytest.mark.parametrize("extrapolation", ["constant", "linear", "continue", "periodic", "error"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("options", [{}, {"knots": "quantile", "n_knots": 8, "include_bias": False}], ids=str)
def test_splines_are_the_same_at_their_knots_and_beyond(
    extrapolation: Any, degree: int, options: dict[str, Any]
) -> None:
    X = numbers()
    step = SplineTransformer(degree=degree, extrapolation=extrapolation, **({"n_knots": 6} | options)).fit(X)
    knots = np.stack([one.t for one in step.bsplines_], axis=1)
    rows = pd.concat([X, around(knots, X), far(X)], ignore_index=True)
    if extrapolation == "error" or (extrapolation, degree) == ("constant", 0):  # there it raises outside
        inner = knots[degree:][: -degree or None]
        rows = pd.concat([X, around(inner, X).clip(inner[0], inner[-1], axis=1)], ignore_index=True)
    # Powers of what lies far outside grow; so does the rounding of their differences.
    scale = np.abs(step.transform(rows)).max()
    walk = assert_transforms(step, X, rows, atol=1e-14 * max(1.0, scale))
    assert len(walk.notes) == (extrapolation == "error")


@pytest.mark.parametrize("extrapolation", ["constant", "linear", "continue", "periodic"])
def test_splines_of_missing_values_are_zeros(extrapolation: Any) -> None:
    X = numbers()
    X.loc[::5, "radius"] = np.nan
    step = SplineTransformer(extrapolation=extrapolation, handle_missing="zeros").fit(X)
    assert_transforms(step, X, far(X), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("extrapolation", ["constant", "linear", "continue", "periodic"])
def test_sparse_splines_and_repeated_knots(extrapolation: Any) -> None:
    X = numbers().assign(few=[0.0, 0.0, 0.0, 1.0, 2.0] * 48)
    for degree in (1, 3):
        step = SplineTransformer(5, degree=degree, knots="quantile", extrapolation=extrapolation).fit(X)
        assert_transforms(step, X, far(X), rtol=1e-11, atol=1e-9)
        step = SplineTransformer(5, degree=degree, extrapolation=extrapolation, sparse_output=True).fit(X)
        assert_transforms(step, X, far(X), rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize(
    "step",
    [
        PolynomialFeatures(2),
        make_pipeline(PolynomialFeatures(2, interaction_only=True, include_bias=False), StandardScaler()),
        SplineTransformer(),
        KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_pipeline_over_expanded_columns_answers_in_float64(step: Any) -> None:
    X = numbers()
    assert_same(make_pipeline(step, StandardScaler(with_mean=False), Ridge()).fit(X, target("value")), X, exact=True)
    last = LogisticRegression(max_iter=5000)
    model = make_pipeline(StandardScaler(), step, StandardScaler(with_mean=False), last)
    assert_same(model.fit(X, target("three")), X, exact=True)
