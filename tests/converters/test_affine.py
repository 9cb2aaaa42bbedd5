"""Projections of the breast cancer, wine and cancer-frame data, directly and before a last step."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import FeatureAgglomeration
from sklearn.cross_decomposition import CCA, PLSSVD, PLSCanonical, PLSRegression
from sklearn.datasets import load_wine
from sklearn.decomposition import (
    PCA,
    FactorAnalysis,
    FastICA,
    IncrementalPCA,
    MiniBatchSparsePCA,
    SparsePCA,
    TruncatedSVD,
)
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import assert_same
from tests.converters.transforms import assert_transforms, far, transformed

STEPS = [
    PCA(4),
    PCA(0.9, whiten=True),
    PCA(3, svd_solver="randomized", random_state=0),
    IncrementalPCA(3, whiten=True),
    TruncatedSVD(3, random_state=0),
    FactorAnalysis(3, random_state=0),
    FactorAnalysis(2, rotation="varimax", svd_method="lapack"),
    FastICA(3, random_state=0, whiten="unit-variance", max_iter=1000),
    FastICA(3, random_state=0, whiten="arbitrary-variance", max_iter=1000),
    SparsePCA(3, random_state=0, max_iter=20, ridge_alpha=0.5),
    MiniBatchSparsePCA(3, random_state=0, max_iter=20),
    NeighborhoodComponentsAnalysis(3, random_state=0, max_iter=10),
    GaussianRandomProjection(5, random_state=0),
    SparseRandomProjection(5, random_state=0),
    SparseRandomProjection(5, random_state=0, dense_output=True),
    FeatureAgglomeration(4),
    FeatureAgglomeration(4, pooling_func=np.max),
    FeatureAgglomeration(4, pooling_func=np.min),
    FeatureAgglomeration(1, pooling_func=np.sum),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(n_components=1, solver="eigen"),
    PLSRegression(3),
    PLSRegression(2, scale=False),
    PLSCanonical(1),
    CCA(1),
    PLSSVD(1),
]


def wine() -> tuple[pd.DataFrame, pd.Series[Any]]:
    data: pd.DataFrame = load_wine(as_frame=True).frame
    return data.drop(columns="target"), data["target"]


@pytest.mark.parametrize("step", STEPS, ids=lambda one: "".join(str(one).split())[:60])
def test_projections_are_the_same_products(step: Any) -> None:
    X, y = wine()
    scaled = pd.DataFrame(StandardScaler().fit_transform(X), columns=X.columns)
    step = step.fit(scaled, y)
    assert_transforms(step, scaled, far(scaled), rtol=1e-11, atol=1e-12 * np.abs(step.transform(far(scaled))).max())


# A Pipeline of scikit-learn cannot fit partial least squares before another step: its fit_transform gives two matrices.
IN_PIPELINES = [one for one in STEPS if type(one).__module__ != "sklearn.cross_decomposition._pls"]


@pytest.mark.parametrize("step", IN_PIPELINES, ids=lambda one: "".join(str(one).split())[:60])
def test_a_pipeline_over_projections_answers_in_float64(step: Any) -> None:
    X, y = wine()
    assert_same(make_pipeline(StandardScaler(), step, LogisticRegression()).fit(X, y), X, exact=True)
    assert_same(make_pipeline(StandardScaler(), step, Ridge()).fit(X, y), X, exact=True)


def test_columns_pooled_with_a_function_of_ones_own_are_refused() -> None:
    X, _ = wine()
    with pytest.raises(ConversionRefused, match="pools columns with median"):
        transformed(FeatureAgglomeration(4, pooling_func=np.median).fit(X), X, X)
