"""Classifiers and regressors with emitters of their own, compared with scikit-learn on real data, in float64."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from scipy import special
from sklearn.cross_decomposition import CCA, PLSCanonical, PLSRegression
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from sklearn.kernel_ridge import KernelRidge
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.semi_supervised import LabelPropagation, LabelSpreading
from sklearn.svm import SVC, SVR, NuSVC, NuSVR

from edgekit_contracts.errors import ConversionRefused
from edgekit_converters.graph import GraphBuilder
from edgekit_converters.nodes import serialize
from edgekit_converters.operators.expression import Expr
from edgekit_converters.operators.laplace import erf
from tests.converters.frames import CONVERTER, TARGET, assert_same, converted, run, short

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:.*probability.*:FutureWarning", "ignore:lbfgs failed"
)

Matrix = NDArray[np.float64]


def bundled(load: Any) -> tuple[Matrix, NDArray[Any]]:
    data, target = load(return_X_y=True)
    return np.asarray(data), np.asarray(target)


def two() -> tuple[Matrix, NDArray[Any]]:
    """110 rows of two classes, True and False."""
    data, target = bundled(load_breast_cancer)
    return data[:110, :6], target[:110] == 1


def three() -> tuple[Matrix, NDArray[Any]]:
    """Wine: three classes, named by texts."""
    data, target = bundled(load_wine)
    return data[::2], np.array(["ä", "b", "c"])[target[::2]].astype(object)


def values() -> tuple[Matrix, Matrix]:
    """Diabetes, standardized columns."""
    data, target = bundled(load_diabetes)
    return data[:150] * 20, target[:150]


def scaled(X: Matrix) -> Matrix:
    return np.asarray(StandardScaler().fit_transform(X))


def nearby(X: Matrix) -> Matrix:
    """Rows that training has not seen."""
    return np.asarray(X + np.random.default_rng(0).normal(size=X.shape) * X.std(axis=0) * 0.2)


CLASSIFIERS: list[Any] = [
    GaussianNB(),
    GaussianNB(priors=None, var_smoothing=1e-3),
    BernoulliNB(binarize=0.1),
    QuadraticDiscriminantAnalysis(reg_param=0.1),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto"),
    LinearDiscriminantAnalysis(solver="lsqr"),
    MLPClassifier((6, 5), activation="logistic", max_iter=30, random_state=0),
    MLPClassifier((6,), activation="tanh", max_iter=30, random_state=0),
    MLPClassifier((6,), activation="identity", max_iter=30, random_state=0),
    MLPClassifier((6, 4), activation="relu", max_iter=30, random_state=0),
    SVC(),
    SVC(kernel="linear"),
    SVC(kernel="poly", degree=2, coef0=1.0),
    SVC(kernel="sigmoid", gamma=0.05),
    SVC(break_ties=True),
    SVC(decision_function_shape="ovo"),
    SVC(probability=True, random_state=0),
    NuSVC(nu=0.3),
    NuSVC(nu=0.3, probability=True, random_state=0),
    LabelSpreading(kernel="knn", n_neighbors=5),
    LabelPropagation(gamma=2.0),
    NearestCentroid(),
    NearestCentroid(metric="manhattan"),
    NearestCentroid(shrink_threshold=0.1),
    NearestCentroid(priors="empirical"),
    RadiusNeighborsClassifier(4.0, outlier_label="most_frequent"),
    RadiusNeighborsClassifier(2.0, weights="distance", outlier_label="most_frequent", metric="chebyshev"),
]


@pytest.mark.parametrize("data", [two, three])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
def test_a_classifier_answers_like_the_original(model: Any, data: Any) -> None:
    X, y = data()
    X = scaled(X)
    if "Label" in type(model).__name__:
        y = np.unique(y, return_inverse=True)[1]
    model.fit(X, y)
    assert_same(model, X, exact=True)
    assert_same(model, X, rows=nearby(X), exact=True)
    assert_same(model, X, rows=X[:1], exact=True)


@pytest.mark.parametrize("data", [two, three])
@pytest.mark.parametrize(
    "model",
    [MultinomialNB(), ComplementNB(), ComplementNB(norm=True), CategoricalNB(), BernoulliNB(binarize=None)],
    ids=short,
)
def test_naive_bayes_of_counts_answers_like_the_original(model: Any, data: Any) -> None:
    X, y = data()
    codes = KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf").fit_transform(X)
    if isinstance(model, BernoulliNB):
        codes = (codes > 1).astype(float)
    assert_same(model.fit(codes, y), codes, exact=True)


def test_a_category_that_training_lacked_gets_no_answer_rather_than_a_wrong_one() -> None:
    codes = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 0.0]] * 4)
    model = CategoricalNB().fit(codes, [0, 1, 0] * 4)
    rows = np.array([[0.0, 7.0], [1.0, 1.0]])
    shares = run(converted(model, codes), model, rows)["probabilities"]
    assert np.isnan(shares[0]).all()
    np.testing.assert_allclose(shares[1], model.predict_proba(rows[1:])[0], atol=1e-12)


NEIGHBOURS: list[dict[str, Any]] = [
    {},
    {"n_neighbors": 1},
    {"n_neighbors": 7, "weights": "distance", "algorithm": "kd_tree"},
    {"p": 1, "weights": "distance"},
    {"p": 3},
    {"weights": lambda distance: 1 / (1 + distance) ** 2},
    {"metric": "cosine"},
    {"metric": "chebyshev", "algorithm": "ball_tree"},
    {"algorithm": "brute"},
    {"algorithm": "kd_tree", "n_neighbors": 4},
]


@pytest.mark.parametrize("data", [two, three])
@pytest.mark.parametrize("options", NEIGHBOURS, ids=short)
def test_neighbours_vote_like_the_original(options: dict[str, Any], data: Any) -> None:
    X, y = data()
    model = KNeighborsClassifier(**options).fit(X, y)
    assert_same(model, X, rows=nearby(X), exact=True)
    assert_same(model, X, rows=nearby(X)[:1], exact=True)


@pytest.mark.parametrize(
    ("algorithm", "k"), [("brute", 1), ("brute", 2), ("brute", 6), ("kd_tree", 1), ("ball_tree", 1)]
)
def test_rows_that_training_holds_twice_are_told_apart_as_the_original_does(algorithm: Any, k: int) -> None:
    X, y = two()
    X, y = np.concatenate([X, X[:10]]), np.concatenate([y, ~y[:10]])
    assert_same(KNeighborsClassifier(k, algorithm=algorithm).fit(X, y), X, exact=True)


@pytest.mark.parametrize("algorithm", ["brute", "kd_tree"])
def test_votes_that_tie_go_to_the_first_class(algorithm: Any) -> None:
    X, y = two()
    for k in (2, 4):
        model = KNeighborsClassifier(k, algorithm=algorithm).fit(X, y)
        assert (model.predict_proba(X) == 0.5).any()
        assert_same(model, X, exact=True)


def test_weights_of_brute_force_are_as_exact_as_its_own_rounding() -> None:
    X, y = values()
    model = KNeighborsRegressor(weights="distance", algorithm="brute").fit(X, y)
    assert_same(model, X, exact=False)


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize(
    "model",
    [
        KNeighborsRegressor(),
        KNeighborsRegressor(weights="distance"),
        KNeighborsRegressor(3, p=1),
        RadiusNeighborsRegressor(4.0),
        RadiusNeighborsRegressor(4.0, weights="distance", metric="manhattan"),
        MLPRegressor((5,), max_iter=30, random_state=0),
        MLPRegressor((5,), activation="tanh", max_iter=30, random_state=0),
        KernelRidge(kernel="rbf", gamma=0.1),
        KernelRidge(kernel="poly", degree=2),
        KernelRidge(kernel="sigmoid", gamma=0.01),
        KernelRidge(kernel="laplacian"),
        KernelRidge(),
        PLSRegression(3),
        PLSRegression(1, scale=False),
        CCA(1),
        PLSCanonical(1),
        GaussianProcessRegressor(RBF() + WhiteKernel(), normalize_y=True),
    ],
    ids=short,
)
def test_a_regression_answers_like_the_original(model: Any, targets: int) -> None:
    if isinstance(model, MLPRegressor):
        model.set_params(hidden_layer_sizes=(5,), loss="squared_error")
    X, y = values()
    model.fit(X, y if targets == 1 else np.stack([y, y**0.5], axis=1))
    conversion = assert_same(model, X, rows=X + 0.01, exact=True)
    assert run(conversion, model, X[:1])["value"].shape == (1, targets)


@pytest.mark.parametrize("model", [SVR(), SVR(kernel="linear"), NuSVR(kernel="poly"), NuSVR(C=50.0)], ids=short)
def test_support_vector_regression_answers_like_the_original(model: Any) -> None:
    X, y = values()
    assert_same(model.fit(X, y), X, rows=nearby(X), exact=True)


@pytest.mark.parametrize(
    "kernel",
    [
        ConstantKernel() * RBF([1.0] * 10),
        Matern(nu=0.5) + WhiteKernel(),
        Matern(nu=1.5),
        Matern(nu=2.5),
        Matern(nu=np.inf),
        RationalQuadratic(alpha=0.5),
        DotProduct() + WhiteKernel(),
        ExpSineSquared() * RBF(),
        RBF() ** 2 + ConstantKernel(3.0),
    ],
    ids=short,
)
def test_a_gaussian_process_answers_like_the_original(kernel: Any) -> None:
    X, y = values()
    model = GaussianProcessRegressor(kernel, alpha=0.1, optimizer=None).fit(X[:60], y[:60])
    assert_same(model, X[:60], rows=X, exact=True)


def test_a_row_without_neighbours_gets_the_outlier_label_or_no_answer() -> None:
    X, y = three()
    far = np.concatenate([X[:3], X[:3] + 1e6])
    assert_same(RadiusNeighborsClassifier(300.0, outlier_label="b").fit(X, y), X, rows=far, exact=True)
    model = RadiusNeighborsClassifier(300.0).fit(X, y)
    assert np.isnan(run(converted(model, X), model, far)["probabilities"][3:]).all()
    lonely = RadiusNeighborsRegressor(1.0).fit(X, np.arange(len(X)))
    assert np.isnan(run(converted(lonely, X), lonely, far)["value"][3:]).all()


def test_options_without_a_conversion_are_refused_with_what_to_do() -> None:
    X, y = values()
    Xc, yc = three()
    refusals = [
        (KNeighborsClassifier(metric="canberra").fit(Xc, yc), Xc, "canberra"),
        (KNeighborsRegressor(weights=lambda d: np.sort(d)).fit(X, y), X, "sort"),
        (RadiusNeighborsRegressor(9.0, weights=lambda d: [1 / (1 + one) for one in d]).fit(X, y), X, "of its own"),
        (KNeighborsRegressor(metric="hamming", algorithm="brute").fit(X, y), X, "equally near"),
        (RadiusNeighborsClassifier(300.0, outlier_label="other").fit(Xc, yc), Xc, "outlier label"),
        (KernelRidge(kernel="cosine").fit(X, y), X, "cosine"),
        (SVC(kernel=lambda a, b: a @ b.T).fit(Xc, yc), Xc, "kernel"),
        (GaussianProcessRegressor(Matern(nu=0.7), optimizer=None, alpha=0.1).fit(X, y), X, "nu=0.7"),
    ]
    for model, rows, why in refusals:
        with pytest.raises(ConversionRefused, match=why):
            converted(model, rows)


def test_support_vectors_decide_ties_of_votes_as_libsvm_does() -> None:
    # Three points of three classes, and rows in their middle: every class wins one pair.
    X = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    rows = np.array([[0.5, np.sqrt(0.75) / 3], [0.5, 0.3], [0.5, 0.28], [0.25, 0.2]])
    for options in ({}, {"break_ties": True}):
        model = SVC(kernel="rbf", gamma=1.0, **options).fit(X, ["a", "b", "c"])
        theirs = CONVERTER.answers(model, rows).labels
        assert theirs is not None
        assert run(converted(model, X), model, rows)["label"].tolist()[1:] == theirs.tolist()[1:]


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid"])
@pytest.mark.parametrize(("seed", "C"), [(32, 10.0), (54, 0.1)])
def test_support_vectors_of_whole_numbers_cancel_as_in_libsvm(seed: int, C: float, kernel: str) -> None:
    random = np.random.default_rng(seed)
    X = np.hstack([np.eye(4)[random.integers(0, 4, 30)], np.eye(3)[random.integers(0, 3, 30)]])
    assert_same(SVC(kernel=kernel, C=C).fit(X, random.integers(0, 4, 30)), X, exact=True)


def test_a_support_vector_machine_without_vectors_answers_its_intercept() -> None:
    X, y = two()
    model = SVR(epsilon=1e3).fit(X, y)
    assert len(model.support_vectors_) == 0
    assert_same(model, X)


@pytest.mark.parametrize("data", [two, three])
@pytest.mark.parametrize(
    "kernel", [None, RBF(2.0) + WhiteKernel(0.1), Matern(3.0, nu=1.5) * ConstantKernel(2.0)], ids=str
)
def test_gaussian_process_classification_answers_like_the_original(kernel: Any, data: Any) -> None:
    X, y = data()
    X = scaled(X)
    model = GaussianProcessClassifier(kernel, optimizer=None).fit(X, y)
    assert_same(model, X, rows=np.concatenate([X, nearby(X), X * 40]), exact=True)


def test_the_error_function_is_exact_in_all_its_parts() -> None:
    x = np.concatenate([np.linspace(-7, 7, 20001), [0.0, 0.84375, 1.25, 1 / 0.35, 6.0, 1e-300, -1e9]])
    graph = GraphBuilder(TARGET)
    given = Expr(graph, graph.input("x", "float64", 1))
    graph.output("y", erf(given).value)
    session = ort.InferenceSession(serialize(graph.build()), providers=["CPUExecutionProvider"])
    found: Any = session.run(None, {"x": x.reshape(-1, 1)})[0]
    np.testing.assert_allclose(found[:, 0], special.erf(x), rtol=4e-16, atol=0)
