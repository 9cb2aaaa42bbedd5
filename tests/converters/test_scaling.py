"""PowerTransformer, QuantileTransformer, Normalizer, KernelCenterer, on rows that training has not seen."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KernelCenterer, Normalizer, PowerTransformer, QuantileTransformer, StandardScaler

from tests.converters.frames import assert_same, target
from tests.converters.transforms import around, assert_transforms, far, numbers


def with_gaps() -> pd.DataFrame:
    X = numbers()
    X.loc[::7, "radius"] = np.nan
    return X


@pytest.mark.parametrize("standardize", [True, False])
def test_yeo_johnson_is_the_same_at_both_signs(standardize: bool) -> None:
    X = with_gaps().assign(large=lambda one: np.expm1(one["texture"] - 20), negative=lambda one: -one["area"])
    step = PowerTransformer(standardize=standardize).fit(X)
    assert_transforms(step, X, far(X), rtol=1e-11, atol=1e-11)


def test_powers_whose_exponent_is_a_special_case() -> None:
    X = pd.DataFrame(np.array([-3.0, -1e-9, -0.0, 0.0, 1e-300, 1e-9, 0.5, 4.0]).repeat(4).reshape(8, 4))
    X.columns = [f"x{i}" for i in range(4)]
    step = PowerTransformer(standardize=False).fit(X)
    step.lambdas_ = np.array([0.0, 2.0, 1e-17, 1.0])
    assert_transforms(step, X, rtol=1e-14)
    step = PowerTransformer("box-cox", standardize=False).fit(X.abs() + 1)
    step.lambdas_ = np.array([0.0, 2.0, -0.5, 300.0])
    assert_transforms(step, X, pd.DataFrame(np.abs(X) + 0.5), rtol=1e-13)


@pytest.mark.parametrize("standardize", [True, False])
def test_box_cox_is_the_same(standardize: bool) -> None:
    X = with_gaps()
    step = PowerTransformer("box-cox", standardize=standardize).fit(X)
    assert_transforms(step, X, pd.concat([X, X * 3, X * 1e-3], ignore_index=True), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("quantiles", [5, 30, 200])
def test_quantiles_are_the_same_on_repeated_ones_and_beside_them(distribution: Any, quantiles: int) -> None:
    X = with_gaps().assign(few=[0.0, 0.0, 1.0, 2.0] * 60, constant=1.5)
    step = QuantileTransformer(n_quantiles=quantiles, output_distribution=distribution).fit(X)
    rows = pd.concat(
        [far(X), around(step.quantiles_, X), around(np.asarray(step.quantiles_) + 1e-7, X)], ignore_index=True
    )
    assert_transforms(step, X, rows, rtol=1e-13, atol=1e-15)


def test_the_normal_quantile_is_that_of_scipy_down_to_the_clipped_ends() -> None:
    X = pd.DataFrame({"share": np.linspace(0, 1, 101)})
    step = QuantileTransformer(n_quantiles=2, output_distribution="normal").fit(X)
    small = np.geomspace(1e-9, 0.5, 4000)
    rows = pd.DataFrame({"share": np.concatenate([small, 1 - small, [0.0, 1.0, 0.5, np.nan]])})
    assert_transforms(step, X, rows, rtol=2e-15, atol=1e-16)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_rows_are_brought_to_unit_norm(norm: Any) -> None:
    X = numbers()
    assert_transforms(Normalizer(norm).fit(X), X, pd.concat([far(X), X * 1e-20], ignore_index=True), rtol=1e-15)


def test_a_kernel_is_centred() -> None:
    X = StandardScaler().fit_transform(numbers())
    kernel = pd.DataFrame(rbf_kernel(X, X[:30])).rename(columns=str)
    step = KernelCenterer().fit(kernel.head(30))
    assert_transforms(step, kernel, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "step",
    [
        PowerTransformer(),
        PowerTransformer("box-cox"),
        QuantileTransformer(n_quantiles=50),
        QuantileTransformer(n_quantiles=100, output_distribution="normal"),
        Normalizer("l1"),
        Normalizer("max"),
    ],
    ids=str,
)
def test_a_pipeline_over_reshaped_columns_answers_in_float64(step: Any) -> None:
    X = numbers()
    assert_same(make_pipeline(step, Ridge()).fit(X, target("value")), X, exact=True)
    model = make_pipeline(step, StandardScaler(), LogisticRegression())
    assert_same(model.fit(X, target("three")), X, exact=True)
