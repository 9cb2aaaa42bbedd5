# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false

"""Pipelines over matrices of numbers: scale, reduce, select, then a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.cluster import FeatureAgglomeration, KMeans, MiniBatchKMeans
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, FactorAnalysis, FastICA, IncrementalPCA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import RFE, RFECV, SelectFromModel, SequentialFeatureSelector, VarianceThreshold
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_approximation import AdditiveChi2Sampler, Nystroem, PolynomialCountSketch, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ARDRegression,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RANSACRegressor,
    Ridge,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
    TheilSenRegressor,
)
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import ComplementNB, GaussianNB
from sklearn.neighbors import (
    KNeighborsClassifier,
    LocalOutlierFactor,
    NearestCentroid,
    NeighborhoodComponentsAnalysis,
    RadiusNeighborsRegressor,
)
from sklearn.neural_network import BernoulliRBM, MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from benchmarks.pipelines import tables
from benchmarks.pipelines.case import Case


def cases() -> Iterator[Case]:
    """The pipelines."""
    for data, found in (
        (tables.cancer, _cancer()),
        (tables.wine, _wine()),
        (tables.iris, _iris()),
        (tables.digits, _digits()),
        (tables.diabetes, _diabetes()),
        (tables.gaps, _gaps()),
        (tables.named, _named()),
    ):
        yield from (Case(f"{data.__name__}: {name}", data, model) for name, model in found)
    yield from _unsupervised()
    yield Case("alone: isotonic regression", tables.alone, IsotonicRegression(out_of_bounds="clip"))


Named = Iterator[tuple[str, Any]]


def _cancer() -> Named:
    scaled: Callable[..., Any] = lambda *steps: make_pipeline(StandardScaler(), *steps)  # noqa: E731
    yield "scaler, logistic regression", scaled(LogisticRegression())
    yield "scaler, sparse logistic regression", scaled(LogisticRegression(l1_ratio=1, solver="liblinear"))
    yield "scaler, logistic regression over a path", scaled(LogisticRegressionCV(Cs=3, cv=2, max_iter=300))
    yield "scaler, SVC", scaled(SVC())
    yield "scaler, SVC with probabilities", scaled(SVC(probability=True, random_state=0))
    yield "scaler, linear SVC", scaled(LinearSVC())
    yield "scaler, nu-SVC of sigmoids", scaled(NuSVC(kernel="sigmoid", gamma=0.01))
    yield "scaler, perceptron", scaled(Perceptron())
    yield (
        "scaler, passive-aggressive",
        scaled(SGDClassifier(loss="hinge", penalty=None, learning_rate="pa1", eta0=1.0, random_state=0)),
    )
    yield "scaler, network of two layers", scaled(MLPClassifier((12, 6), max_iter=40, random_state=0))
    yield "scaler, neighbours by distance", scaled(KNeighborsClassifier(9, weights="distance"))
    yield "scaler, forest", scaled(RandomForestClassifier(40, random_state=0))
    yield "min and max, forest of even votes", make_pipeline(MinMaxScaler(), RandomForestClassifier(20, random_state=1))
    yield "power, extra trees", make_pipeline(PowerTransformer(), ExtraTreesClassifier(30, random_state=0))
    yield (
        "quantiles, gradient boosting",
        make_pipeline(QuantileTransformer(n_quantiles=60), GradientBoostingClassifier(n_estimators=25, random_state=0)),
    )
    yield "histogram boosting", HistGradientBoostingClassifier(max_iter=25)
    yield "linear discriminant", LinearDiscriminantAnalysis()
    yield "shrunk linear discriminant", LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    yield "scaler, PCA, logistic regression", scaled(PCA(8), LogisticRegression())
    yield "scaler, PCA by variance, SVC", scaled(PCA(0.95, whiten=True), SVC())
    yield (
        "PCA beside the best columns",
        make_pipeline(
            make_union(PCA(3), SelectFromModel(DecisionTreeClassifier(random_state=0))),
            LogisticRegression(max_iter=3000),
        ),
    )
    yield (
        "scaler, random Fourier features, stochastic gradient",
        scaled(RBFSampler(gamma=0.02, n_components=60, random_state=0), SGDClassifier(random_state=0)),
    )
    yield "scaler, Nystroem, linear SVC", scaled(Nystroem(gamma=0.02, n_components=40, random_state=0), LinearSVC())
    yield (
        "scaler, sketched polynomials",
        scaled(PolynomialCountSketch(n_components=64, random_state=0), LogisticRegression()),
    )
    yield "boosted stumps", AdaBoostClassifier(n_estimators=30, random_state=0)
    yield (
        "recursive elimination",
        make_pipeline(StandardScaler(), RFE(LogisticRegression(), n_features_to_select=6), LogisticRegression()),
    )
    yield "scaler, Gaussian process", scaled(PCA(4), GaussianProcessClassifier(ConstantKernel() * RBF(2.0)))


def _wine() -> Named:
    yield "scaler, logistic regression", make_pipeline(StandardScaler(), LogisticRegression())
    yield "scaler, neighbours", make_pipeline(StandardScaler(), KNeighborsClassifier(5))
    yield (
        "scaler, neighbours of Manhattan",
        make_pipeline(StandardScaler(), KNeighborsClassifier(3, metric="manhattan")),
    )
    yield "quadratic discriminant", QuadraticDiscriminantAnalysis(reg_param=0.1)
    yield "robust scaler, SVC", make_pipeline(RobustScaler(), SVC(C=3, decision_function_shape="ovo"))
    yield "Gaussian naive Bayes", GaussianNB()
    yield "one tree", DecisionTreeClassifier(random_state=0)
    yield "one random tree", make_pipeline(StandardScaler(), ExtraTreeClassifier(max_depth=5, random_state=0))
    yield "histogram boosting of three classes", HistGradientBoostingClassifier(max_iter=10)
    yield "gradient boosting of three classes", GradientBoostingClassifier(n_estimators=10, random_state=0)
    yield (
        "discriminant as reduction, then neighbours",
        make_pipeline(LinearDiscriminantAnalysis(n_components=2), KNeighborsClassifier(3)),
    )
    yield (
        "learned metric, then neighbours",
        make_pipeline(
            StandardScaler(), NeighborhoodComponentsAnalysis(2, max_iter=10, random_state=0), KNeighborsClassifier(3)
        ),
    )
    yield (
        "squares and products, scaler, ridge",
        make_pipeline(PolynomialFeatures(2), StandardScaler(), LogisticRegression(C=0.1, max_iter=500)),
    )
    yield (
        "bins, logistic regression",
        make_pipeline(KBinsDiscretizer(5, quantile_method="averaged_inverted_cdf"), LogisticRegression()),
    )
    yield "factors, logistic regression", make_pipeline(StandardScaler(), FactorAnalysis(4), LogisticRegression())
    yield (
        "independent components",
        make_pipeline(FastICA(5, whiten="unit-variance", random_state=0), LogisticRegression()),
    )
    yield "agglomerated columns", make_pipeline(StandardScaler(), FeatureAgglomeration(5), LogisticRegression())
    yield "nearest centroid", make_pipeline(StandardScaler(), NearestCentroid())
    yield "row norms, complement Bayes", make_pipeline(Normalizer(), ComplementNB())
    yield (
        "random projection",
        make_pipeline(StandardScaler(), GaussianRandomProjection(6, random_state=0), LogisticRegression()),
    )
    yield (
        "Gaussian process of three classes",
        make_pipeline(StandardScaler(), PCA(3), GaussianProcessClassifier(RBF(1.0), optimizer=None)),
    )
    yield (
        "distances to clusters as features",
        make_pipeline(StandardScaler(), KMeans(6, n_init=1, random_state=0), LogisticRegression()),
    )


def _iris() -> Named:
    yield "raw, logistic regression", LogisticRegression(max_iter=500)
    yield "forest", RandomForestClassifier(50, random_state=0)
    yield "splines, logistic regression", make_pipeline(SplineTransformer(4), LogisticRegression(max_iter=1000))
    yield "kernel PCA", make_pipeline(StandardScaler(), KernelPCA(3, kernel="rbf", gamma=0.2), LogisticRegression())
    yield "logarithms", make_pipeline(FunctionTransformer(np.log), GaussianNB())
    yield (
        "tree embedding",
        make_pipeline(RandomTreesEmbedding(10, max_depth=3, random_state=0), LogisticRegression(max_iter=500)),
    )
    yield (
        "sequential selection",
        make_pipeline(
            SequentialFeatureSelector(KNeighborsClassifier(3), n_features_to_select=2, cv=2), KNeighborsClassifier(3)
        ),
    )
    yield (
        "elimination with folds",
        make_pipeline(RFECV(DecisionTreeClassifier(random_state=0), cv=2), DecisionTreeClassifier(random_state=0)),
    )
    yield (
        "four features by ratios, traced",
        make_pipeline(
            FunctionTransformer(lambda X: np.hstack([X, X[:, :1] / X[:, 1:2], np.where(X[:, 2:3] > 2, 1.0, 0.0)])),
            LogisticRegression(max_iter=500),
        ),
    )


def _digits() -> Named:
    yield "scaled pixels, PCA, SVC", make_pipeline(MinMaxScaler(), PCA(20), SVC(C=3))
    yield "pixels, forest", RandomForestClassifier(30, random_state=0)
    yield "pixels, boosted histogram", HistGradientBoostingClassifier(max_iter=4)
    yield (
        "no constant pixels, network",
        make_pipeline(VarianceThreshold(), MinMaxScaler(), MLPClassifier((24,), max_iter=30, random_state=0)),
    )
    yield (
        "truncated SVD, logistic regression",
        make_pipeline(TruncatedSVD(15, random_state=0), StandardScaler(), LogisticRegression()),
    )
    yield "PCA in batches, neighbours", make_pipeline(IncrementalPCA(12), KNeighborsClassifier(3))
    yield "chi2 features, linear SVC", make_pipeline(MinMaxScaler((0.01, 1)), AdditiveChi2Sampler(), LinearSVC())
    yield (
        "sparse projection, ridge",
        make_pipeline(SparseRandomProjection(30, random_state=0), StandardScaler(), LogisticRegression()),
    )
    yield (
        "restricted Boltzmann machine",
        make_pipeline(MinMaxScaler(), BernoulliRBM(20, n_iter=3, random_state=0), LogisticRegression()),
    )


def _diabetes() -> Named:
    yield "linear regression", LinearRegression()
    yield "scaler, ridge by folds", make_pipeline(StandardScaler(), RidgeCV())
    yield "squares, lasso by folds", make_pipeline(PolynomialFeatures(2), LassoCV(cv=3, max_iter=3000))
    yield "kernel ridge", make_pipeline(StandardScaler(), KernelRidge(kernel="rbf", gamma=0.1))
    yield "kernel ridge of polynomials", make_pipeline(StandardScaler(), KernelRidge(kernel="poly", degree=2))
    yield "SVR", make_pipeline(StandardScaler(), SVR(C=20))
    yield "linear SVR", make_pipeline(StandardScaler(), LinearSVR(C=10, random_state=0))
    yield (
        "network",
        make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(10,), max_iter=100, random_state=0)),
    )
    yield (
        "Gaussian process",
        GaussianProcessRegressor(ConstantKernel() * Matern(1.0) + WhiteKernel(0.5), normalize_y=True, optimizer=None),
    )
    yield "forest", RandomForestRegressor(40, random_state=0)
    yield "scaler, tree", make_pipeline(StandardScaler(), DecisionTreeRegressor(max_depth=7, random_state=0))
    yield "histogram boosting of absolute errors", HistGradientBoostingRegressor(loss="absolute_error", max_iter=20)
    yield "boosted trees by the weighted median", AdaBoostRegressor(n_estimators=15, random_state=0)
    yield "consensus of random samples", RANSACRegressor(random_state=0)
    yield "medians of many lines", TheilSenRegressor(max_subpopulation=200, random_state=0)
    yield "stochastic gradient", make_pipeline(StandardScaler(), SGDRegressor(random_state=0))
    yield "automatic relevance", ARDRegression()
    yield "partial least squares", PLSRegression(3)
    yield "neighbours in a radius", make_pipeline(MinMaxScaler(), RadiusNeighborsRegressor(1.5))
    yield (
        "splines and products",
        make_pipeline(
            SplineTransformer(n_knots=4), PolynomialFeatures(interaction_only=True), StandardScaler(), Ridge(100)
        ),
    )


def _gaps() -> Named:
    yield "forest that knows NaN", RandomForestClassifier(30, random_state=0)
    yield "extra trees that know NaN", ExtraTreesClassifier(30, random_state=0)
    yield "one tree that knows NaN", DecisionTreeClassifier(random_state=0)
    yield "histogram boosting that knows NaN", HistGradientBoostingClassifier(max_iter=20)
    yield (
        "scaler keeps NaN, histogram boosting",
        make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=20)),
    )
    yield "imputed by neighbours", make_pipeline(KNNImputer(), StandardScaler(), LogisticRegression())
    yield (
        "imputed by neighbours by distance, forest",
        make_pipeline(
            KNNImputer(n_neighbors=3, weights="distance", add_indicator=True),
            RandomForestClassifier(20, random_state=0),
        ),
    )
    yield (
        "imputed by regressions",
        make_pipeline(IterativeImputer(max_iter=4, random_state=0), StandardScaler(), LogisticRegression()),
    )
    yield (
        "means beside an indicator",
        make_pipeline(
            make_union(SimpleImputer(), MissingIndicator(error_on_new=False)), LogisticRegression(max_iter=3000)
        ),
    )
    yield (
        "medians and an indicator, forest",
        make_pipeline(SimpleImputer(strategy="median", add_indicator=True), RandomForestClassifier(20, random_state=0)),
    )


def _named() -> Named:
    yield "a frame of floats straight into a forest", RandomForestClassifier(20, random_state=0)
    yield "a frame of floats, scaler, SVC", make_pipeline(StandardScaler(), SVC())
    yield (
        "frames between the steps",
        make_pipeline(StandardScaler(), PCA(4), LogisticRegression()).set_output(transform="pandas"),
    )


def _unsupervised() -> Iterator[Case]:
    yield Case(
        "wine: scaler, clusters", tables.wine, make_pipeline(StandardScaler(), KMeans(3, n_init=1, random_state=0))
    )
    yield Case(
        "digits: PCA, clusters in batches",
        tables.digits,
        make_pipeline(PCA(10), MiniBatchKMeans(10, n_init=1, random_state=0)),
    )
    yield Case(
        "iris: mixture of Gaussians", tables.iris, make_pipeline(StandardScaler(), GaussianMixture(3, random_state=0))
    )
    yield Case(
        "sensors: imputed, isolation forest",
        tables.sensors,
        make_pipeline(SimpleImputer(), IsolationForest(n_estimators=30, random_state=0)),
    )
    yield Case("cancer: scaler, one-class SVM", tables.cancer, make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)))
    yield Case(
        "cancer: scaler, PCA, local outliers",
        tables.cancer,
        make_pipeline(StandardScaler(), PCA(5), LocalOutlierFactor(15, novelty=True)),
    )
    yield Case("wine: scaler and PCA alone", tables.wine, make_pipeline(StandardScaler(), PCA(3)))
