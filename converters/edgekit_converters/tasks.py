"""What a scikit-learn model answers, and why some can answer nothing of a new row.

The last step decides. Its `predict` is the answer of a classifier, regressor, clusterer, mixture or outlier detector;
the `transform` of everything else.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BiclusterMixin, RegressorMixin, is_clusterer, is_outlier_detector, is_regressor
from sklearn.utils import get_tags

from edgekit_contracts.manifest import Task
from edgekit_converters.operators.scores import known_classes, label_count
from edgekit_converters.walk import answers_classes, last_step

_COVARIANCE: Final = "it estimates a covariance, and neither predicts nor transforms", "use EllipticEnvelope or PCA"
_WHY_NOT: Final = {
    "EmpiricalCovariance": _COVARIANCE,
    "GraphicalLasso": _COVARIANCE,
    "GraphicalLassoCV": _COVARIANCE,
    "LedoitWolf": _COVARIANCE,
    "MinCovDet": _COVARIANCE,
    "OAS": _COVARIANCE,
    "ShrunkCovariance": _COVARIANCE,
    "KernelDensity": (
        "it estimates a density (score_samples), and neither predicts nor transforms",
        "use GaussianMixture, or an outlier detector such as IsolationForest",
    ),
    "MultiLabelBinarizer": (
        "it reads lists of labels, and a table has columns",
        "leave it out: the model's answers are columns already",
    ),
    "LocalOutlierFactor": (
        "without novelty=True it judges only the rows that it was fitted on",
        "fit it with novelty=True",
    ),
    "NearestNeighbors": (
        "it finds rows of its own, and neither predicts nor transforms",
        "wrap it in edgekit_converters.extended.WithNeighbours, or use KNeighborsClassifier or KNeighborsRegressor",
    ),
    "PatchExtractor": ("it cuts images to pieces: one row becomes several", "cut them before the model"),
}


RANKERS: Final = frozenset({"CatBoostRanker", "LGBMRanker", "XGBRanker"})
"""They answer a number a row, as regressors do; scikit-learn knows no such kind."""


def task_of(model: Any) -> Task | None:
    """What the model answers; None where it answers nothing of a new row. Fitted or not."""
    last = last_step(model)
    try:
        if answers_classes(last):
            # With an objective of the user's own, LightGBM's predict answers raw scores.
            own = type(last).__name__ == "LGBMClassifier" and callable(last.objective)
            return "regression" if own else "classification"
        if is_regressor(last) or isinstance(last, RegressorMixin) or type(last).__name__ in RANKERS:
            return "regression"
        if hasattr(last, "predict"):
            if is_outlier_detector(last):
                return "outlier_detection"
            if is_clusterer(last) or get_tags(last).estimator_type == "density_estimator":
                return "clustering"
        if hasattr(last, "transform") and type(last).__name__ not in _WHY_NOT:
            return "transformation"
    except (AttributeError, TypeError, ValueError):  # get_tags of what is no estimator
        pass
    return "transformation" if last is None or (isinstance(last, str) and last == "passthrough") else None


def why_not(model: Any) -> tuple[str, str]:
    """Why `task_of` found nothing: a clause, and what to do about it."""
    last = last_step(model)
    kind = type(last).__name__
    if kind in _WHY_NOT:
        return _WHY_NOT[kind]
    if hasattr(last, "fit_predict") or isinstance(last, BiclusterMixin):
        return (
            "it groups the rows that it was fitted on, and has no predict for others",
            "use KMeans or Birch, or train a classifier on its groups",
        )
    if hasattr(last, "fit_transform"):
        return (
            "it places the rows that it was fitted on, and has no transform for others",
            "use PCA, KernelPCA or Isomap, or train a regressor on its places",
        )
    return "it neither predicts nor transforms", "convert the model that answers"


def classes_of(model: Any) -> NDArray[Any] | None:
    """What the labels may be, in the order of the probabilities; None where there is no label, or several a row."""
    last, task = last_step(model), task_of(model)
    if task == "outlier_detection":
        return np.array([-1, 1])
    if task == "clustering":
        return _clusters(last)
    if task != "classification" or targets_of(model) is not None:
        return None
    found = _said(model, last)
    return None if found is None else np.asarray(found)


def targets_of(model: Any) -> list[NDArray[Any]] | None:
    """The classes of each target of a classifier that answers several labels a row; None of any other model.

    Of labels that are each there or not (multilabel), the classes are 0 and 1.
    """
    if task_of(model) != "classification":
        return None
    last = last_step(model)
    found = _said(model, last)
    if isinstance(found, list):
        return [np.asarray(one) for one in found]
    count = 0 if found is None else label_count(last)
    return [np.array([0, 1])] * count if count else None


def _said(model: Any, last: Any) -> Any:
    return model.classes_ if hasattr(model, "classes_") else known_classes(last)


def _clusters(step: Any) -> NDArray[Any]:
    if hasattr(step, "subcluster_labels_"):
        return np.unique(step.subcluster_labels_)
    if hasattr(step, "weights_"):
        return np.arange(len(step.weights_))
    # Affinity propagation that found no centre answers -1.
    return np.arange(len(step.cluster_centers_)) if len(step.cluster_centers_) else np.array([-1])
