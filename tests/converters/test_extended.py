"""Answers beside `predict`: the standard deviation, the nearest rows of training."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, PairwiseKernel, WhiteKernel
from sklearn.linear_model import ARDRegression, BayesianRidge, Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgekit_contracts.errors import ConversionRefused
from edgekit_converters.extended import WithDeviation, WithNeighbours
from tests.converters.frames import assert_same, converted, run, target
from tests.converters.transforms import numbers


def _scaled() -> pd.DataFrame:
    X = numbers().iloc[:60]
    return (X - X.mean()) / X.std()


@pytest.mark.parametrize("regressor", [BayesianRidge(), ARDRegression(threshold_lambda=0.05)], ids=["ridge", "ard"])
def test_a_bayesian_regressor_gives_its_deviation_beside_the_mean(regressor: Any) -> None:
    X = numbers()
    noisy = target("value") + np.random.default_rng(0).normal(size=len(X))
    model = WithDeviation(make_pipeline(StandardScaler(), regressor).fit(X, noisy))
    conversion = assert_same(model, X, exact=True)
    mean, deviation = model.estimator.predict(X, return_std=True)
    np.testing.assert_allclose(run(conversion, model, X)["value"], np.stack([mean, deviation], axis=1), rtol=1e-10)


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize(
    "kernel",
    [
        RBF(2.0) + WhiteKernel(0.1),
        ConstantKernel(2.0) * DotProduct() + WhiteKernel(0.5),
        PairwiseKernel(metric="cosine") + WhiteKernel(0.5),
        PairwiseKernel(metric="polynomial", gamma=0.2, pairwise_kernels_kwargs={"degree": 2}) + WhiteKernel(0.5),
        PairwiseKernel(metric="laplacian", gamma=0.3) + WhiteKernel(0.5),
    ],
    ids=["rbf", "dot product", "cosine", "polynomial", "laplacian"],
)
def test_a_gaussian_process_gives_its_deviation(kernel: Any, targets: int) -> None:
    X = _scaled()
    y = np.stack([X["radius"] ** 2, X["area"] - X["texture"]], axis=1)[:, :targets]
    process = GaussianProcessRegressor(kernel, normalize_y=True, optimizer=None, alpha=1e-6)
    model = WithDeviation(process.fit(X, y))
    rows = pd.concat([X, X + 0.3, X * 5])
    found = run(assert_same(model, X, rows=rows), model, rows)["value"]
    assert found.shape == (len(rows), 2 * targets)
    assert (found[:, targets:] > 0).all()


def test_the_chi2_kernel_of_a_process_converts() -> None:
    X = np.array(numbers().iloc[:40] / 100)  # scikit-learn takes no table of them
    kernel = PairwiseKernel(metric="chi2", gamma=0.5) + WhiteKernel(1.0)
    assert_same(GaussianProcessRegressor(kernel, optimizer=None).fit(X, target("value")[:40]), X)


def test_a_classifier_of_a_pairwise_kernel_converts() -> None:
    X = _scaled()
    model = GaussianProcessClassifier(PairwiseKernel(metric="sigmoid", gamma=0.1), optimizer=None)
    assert_same(model.fit(X, target()[:60]), X)


def test_the_deviation_of_a_process_of_many_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_converters.operators.similarity.BUNDLE_MAX_BYTES", 8 * 59 * 60)
    model = GaussianProcessRegressor(RBF() + WhiteKernel(), optimizer=None).fit(_scaled(), target("value")[:60])
    assert_same(model, _scaled())
    with pytest.raises(ConversionRefused, match="60 x 60 numbers"):
        converted(WithDeviation(model), _scaled())


def test_a_regressor_without_deviation_is_refused() -> None:
    model = WithDeviation(Ridge().fit(numbers(), target("value")))
    model.predict = lambda X: np.zeros((len(X), 2))  # type: ignore[method-assign]
    with pytest.raises(ConversionRefused, match="no standard deviation"):
        converted(model, numbers())


@pytest.mark.parametrize("method", ["brute", "kd_tree"])
def test_the_nearest_rows_of_training_are_an_answer(method: str) -> None:
    X = numbers()
    model = make_pipeline(StandardScaler(), WithNeighbours(NearestNeighbors(n_neighbors=4, algorithm=method))).fit(X)
    assert_same(model, X + 0.01, rows=X + 0.02)
    alone = WithNeighbours(NearestNeighbors(n_neighbors=2, algorithm=method).fit(X))
    assert_same(alone, X, rows=X * 1.25)
