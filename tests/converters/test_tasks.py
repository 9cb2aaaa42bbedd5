"""Models that are neither classifiers nor regressors, and the decision beside a label."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.cluster import (
    DBSCAN,
    AffinityPropagation,
    Birch,
    BisectingKMeans,
    FeatureAgglomeration,
    KMeans,
    MeanShift,
    MiniBatchKMeans,
)
from sklearn.compose import make_column_transformer
from sklearn.covariance import EllipticEnvelope, LedoitWolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeClassifier, SGDClassifier, SGDOneClassSVM
from sklearn.manifold import TSNE
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier
from sklearn.neighbors import KernelDensity, LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC, OneClassSVM

from edgekit_contracts.errors import ConversionRefused
from edgekit_converters.data import as_frame
from edgekit_converters.draft import draft_manifest
from edgekit_converters.verify import verify
from edgekit_runtime.engine import Engine
from tests.converters.frames import CONVERTER, assert_same, converted


def matrix() -> NDArray[np.float64]:
    random = np.random.default_rng(0)
    centres = random.normal(0, 3, (4, 5))
    return np.concatenate([centre + random.normal(0, 1, (40, 5)) for centre in centres])


X = matrix()
Y = np.repeat([2, 5, 7, 9], 40)

CLUSTERERS = [
    KMeans(4, random_state=0),
    MiniBatchKMeans(3, random_state=0),
    BisectingKMeans(5, random_state=0),
    Birch(threshold=1.0, n_clusters=3),
    Birch(n_clusters=None),
    MeanShift(bandwidth=4.0),
    AffinityPropagation(random_state=0),
    AffinityPropagation(random_state=0, max_iter=1),
    *(GaussianMixture(3, covariance_type=kind, random_state=0) for kind in ("full", "tied", "diag", "spherical")),
    *(
        BayesianGaussianMixture(n_components=3, covariance_type=kind, random_state=0, max_iter=10)
        for kind in ("full", "tied", "diag", "spherical")
    ),
    BayesianGaussianMixture(
        n_components=3, weight_concentration_prior_type="dirichlet_distribution", random_state=0, max_iter=10
    ),
]
DETECTORS = [
    IsolationForest(n_estimators=20, random_state=0),
    IsolationForest(n_estimators=20, contamination=0.1, max_features=2, max_samples=50, random_state=0),
    LocalOutlierFactor(novelty=True),
    LocalOutlierFactor(novelty=True, n_neighbors=50, metric="manhattan", contamination=0.1),
    EllipticEnvelope(random_state=0),
    OneClassSVM(nu=0.1),
    OneClassSVM(nu=0.2, kernel="poly", degree=2),
    SGDOneClassSVM(random_state=0),
]


def proved(model: Any, data: Any) -> Any:
    """Converted, and verified on the data and on mined rows."""
    conversion = converted(model, data)
    engine = Engine(conversion.onnx, draft_manifest("m", "1", conversion, "1.24.1"))
    verify(
        engine, lambda rows: CONVERTER.answers(model, rows), as_frame(data), precision=conversion.precision, model=model
    )
    return conversion


@pytest.mark.filterwarnings("ignore")  # estimators that are stopped early say so
@pytest.mark.parametrize("model", CLUSTERERS, ids=lambda one: type(one).__name__)
def test_a_clusterer_answers_the_number_of_the_cluster(model: Any) -> None:
    conversion = proved(model.fit(X), X)
    assert_same(model, X, rows=X[::3] + 0.1, exact=True)
    assert conversion.task == "clustering"
    assert set(np.unique(model.predict(X))) <= set(conversion.classes)
    assert [output.role for output in conversion.outputs] == ["label", "probabilities"][
        : 1 + hasattr(model, "predict_proba")
    ]


@pytest.mark.parametrize("model", DETECTORS, ids=lambda one: type(one).__name__)
def test_an_outlier_detector_answers_minus_one_or_one_and_its_decision(model: Any) -> None:
    conversion = proved(model.fit(X), X)
    far = np.concatenate([X[::5], X[::5] * 4])
    assert_same(model, X, rows=far)
    assert set(model.predict(far)) == {-1, 1}
    assert (conversion.task, conversion.classes) == ("outlier_detection", (-1, 1))
    assert [output.role for output in conversion.outputs] == ["label", "value"]


def test_an_isolation_forest_knows_missing_values_where_the_original_does() -> None:
    with_gaps = X.copy()
    with_gaps[::7, 0] = np.nan
    model = IsolationForest(n_estimators=10, random_state=0).fit(with_gaps)
    assert all(feature.nullable for feature in proved(model, with_gaps).features)


def test_a_transformer_alone_answers_its_columns() -> None:
    for model in (PCA(3), StandardScaler(), FeatureAgglomeration(2), make_pipeline(StandardScaler(), PCA(2))):
        conversion = proved(model.fit(X), X)
        assert_same(model, X, exact=True)
        assert (conversion.task, conversion.classes) == ("transformation", ())


def test_a_whole_preprocessing_answers_and_hands_missing_values_on() -> None:
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "size": np.where(X[:, 2] > 0, "big", "small")})
    frame.loc[::6, ["a", "b"]] = np.nan
    model = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["a"]),
        (StandardScaler(), ["b"]),
        (OneHotEncoder(handle_unknown="ignore"), ["size"]),
    ).fit(frame)
    conversion = proved(model, frame)
    assert {feature.name for feature in conversion.features if feature.nullable} >= {"a", "b"}
    texts = make_column_transformer(("passthrough", ["size"])).fit(frame)
    with pytest.raises(ConversionRefused, match="only labels may be texts"):
        converted(texts, frame)


def test_clusterers_in_pipelines_searches_and_frozen_answer_alike() -> None:
    pipeline = make_pipeline(StandardScaler(), KMeans(3, random_state=0)).fit(X)
    assert converted(pipeline, X).task == "clustering"
    search = GridSearchCV(KMeans(random_state=0), {"n_clusters": [2, 3]}, cv=2).fit(X)
    for model in (pipeline, search, FrozenEstimator(pipeline), make_pipeline(FrozenEstimator(search))):
        assert_same(model, X, exact=True)


def test_a_classifier_without_probabilities_answers_its_decision_too() -> None:
    for model in (
        LinearSVC(),
        RidgeClassifier(),
        SGDClassifier(random_state=0),
        SVC(),
        SVC(decision_function_shape="ovo"),
        OneVsOneClassifier(LinearSVC()),
        make_pipeline(StandardScaler(), LinearSVC()),
    ):
        conversion = assert_same(model.fit(X, Y), X)
        assert [output.role for output in conversion.outputs] == ["label", "value"]
    two = assert_same(LinearSVC().fit(X, Y > 5), X)
    assert two.outputs[1].role == "value"


def test_what_answers_nothing_of_a_new_row_is_refused_by_name() -> None:
    refusals = [
        (DBSCAN(), "groups the rows that it was fitted on"),
        (LocalOutlierFactor(), "novelty=True"),
        (TSNE(perplexity=5), "places the rows"),
        (LedoitWolf(), "covariance"),
        (KernelDensity(), "density"),
        (NearestNeighbors(), "neither predicts nor transforms"),
        (make_pipeline(StandardScaler(), LedoitWolf()), "covariance"),
    ]
    for model, why in refusals:
        with pytest.raises(ConversionRefused, match=why) as refusal:
            converted(model.fit(X[:60]), X)
        assert len(refusal.value.sentence) < 600


def test_only_what_the_old_format_cannot_say_takes_the_new_number() -> None:
    def number(model: Any) -> str:
        return draft_manifest("m", "1", converted(model, X), "1.24.1").format

    assert number(LinearSVC().fit(X, Y)) == "edgekit-bundle/2.1"
    assert number(KMeans(2, random_state=0).fit(X)) == "edgekit-bundle/2.1"
    assert number(StandardScaler().fit(X)) == "edgekit-bundle/2.1"
    assert number(LinearDiscriminantAnalysis().fit(X, Y)) == "edgekit-bundle/1.1"
