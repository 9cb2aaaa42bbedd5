"""Kernels, their approximations and distances to centres, directly and before a last step."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import Birch, BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.decomposition import KernelPCA
from sklearn.kernel_approximation import (
    AdditiveChi2Sampler,
    Nystroem,
    PolynomialCountSketch,
    RBFSampler,
    SkewedChi2Sampler,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import assert_same, target
from tests.converters.transforms import assert_transforms, numbers, transformed

STEPS = [
    *(Nystroem(kernel, n_components=20, random_state=0) for kernel in ("rbf", "linear", "cosine", "laplacian", "chi2")),
    Nystroem("rbf", gamma=0.3, n_components=20, random_state=0),
    Nystroem("polynomial", degree=2, coef0=0.5, n_components=8, random_state=0),
    Nystroem("sigmoid", gamma=0.1, n_components=8, random_state=0),
    Nystroem("chi2", gamma=0.7, n_components=20, random_state=0),
    RBFSampler(n_components=50, random_state=0),
    RBFSampler(gamma="scale", n_components=50, random_state=0),
    SkewedChi2Sampler(skewedness=0.5, n_components=30, random_state=0),
    AdditiveChi2Sampler(),
    AdditiveChi2Sampler(sample_steps=1),
    AdditiveChi2Sampler(sample_steps=4, sample_interval=0.3),
    PolynomialCountSketch(n_components=30, random_state=0),
    PolynomialCountSketch(degree=3, gamma=0.5, coef0=1.5, n_components=25, random_state=0),
    *(KernelPCA(3, kernel=kernel) for kernel in ("linear", "poly", "rbf", "sigmoid", "cosine")),
    KernelPCA(2, kernel="poly", gamma=0.5, degree=2, coef0=0.1),
    KMeans(4, n_init=1, random_state=0),
    MiniBatchKMeans(4, n_init=1, random_state=0),
    BisectingKMeans(4, random_state=0),
    Birch(n_clusters=None, threshold=0.2),
]


def positive() -> pd.DataFrame:
    """Measurements in [0, 1], zeros among them."""
    X = numbers()
    return pd.DataFrame(MinMaxScaler().fit_transform(X), columns=X.columns)


@pytest.mark.parametrize("step", STEPS, ids=lambda one: "".join(str(one).split())[:60])
def test_kernels_and_distances_are_the_same(step: Any) -> None:
    X = positive()
    # The scaler gives the writable matrix that scikit-learn's chi2 wants.
    step = make_pipeline(MinMaxScaler(), step).fit(X)
    rows = pd.concat([X, X * 3, X * 0], ignore_index=True)
    assert_transforms(step, X, rows, rtol=1e-9, atol=1e-9 * np.abs(step.transform(rows)).max())


@pytest.mark.parametrize("step", STEPS, ids=lambda one: "".join(str(one).split())[:60])
def test_a_pipeline_over_kernels_answers_in_float64(step: Any) -> None:
    X = positive()
    # The empty buckets of a count sketch hold nothing but rounding, which a scaler would blow up.
    scale = "passthrough" if isinstance(step, PolynomialCountSketch) else StandardScaler()
    model = make_pipeline(MinMaxScaler(), step, scale, Ridge()).fit(X, target("value"))
    assert_same(model, X, exact=True)
    model = make_pipeline(MinMaxScaler(), step, scale, LogisticRegression()).fit(X, target("three"))
    assert_same(model, X, exact=True)


def test_a_kernel_of_ones_own_is_refused() -> None:
    X = positive()
    step = Nystroem(lambda one, two: float(one @ two), n_components=5).fit(X)
    with pytest.raises(ConversionRefused, match="kernel '<lambda>' has no conversion"):
        transformed(step, X, X)
