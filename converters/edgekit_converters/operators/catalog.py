"""Which class goes to which emitter.

A family is a module with `TRANSFORMERS`, `PREDICTORS` or both (class name -> emitter), and a place in `FAMILIES`. An
emitter takes the walk, the fitted step, its columns and its path, so that a wrapper can walk on into what it wraps;
`on_matrix` and `from_matrix` make one of a function that wants a graph and one float64 matrix. A family whose classes
are not scikit-learn's own names their package as `PACKAGE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

from edgekit_converters.operators import (
    Predict,
    Transform,
    affine,
    bayes,
    calibration,
    catboosted,
    categories,
    clusters,
    dictionaries,
    encoders,
    ensembles,
    expansion,
    extended,
    factorization,
    functions,
    imputers,
    inheritance,
    isotonic,
    kernels,
    labels,
    laplace,
    lightgbm_boosters,
    lightgbm_models,
    linear,
    manifold,
    missing,
    multiclass,
    neighbours,
    networks,
    numeric,
    outliers,
    scaling,
    similarity,
    sparse_coding,
    svm,
    targets,
    text,
    topics,
    trees,
    wrappers,
    xgboost_models,
)

FAMILIES: Final[tuple[ModuleType, ...]] = (
    affine,
    bayes,
    calibration,
    catboosted,
    categories,
    clusters,
    dictionaries,
    encoders,
    ensembles,
    expansion,
    extended,
    factorization,
    functions,
    imputers,
    isotonic,
    kernels,
    labels,
    laplace,
    lightgbm_boosters,
    lightgbm_models,
    linear,
    manifold,
    missing,
    multiclass,
    neighbours,
    networks,
    numeric,
    outliers,
    scaling,
    similarity,
    sparse_coding,
    svm,
    targets,
    text,
    topics,
    trees,
    wrappers,
    xgboost_models,
)


def _merged(name: str) -> dict[str, object]:
    merged: dict[str, object] = {}
    for family in FAMILIES:
        for kind, emitter in getattr(family, name, {}).items():
            if kind in merged:
                raise RuntimeError(f"{kind} has two emitters in {name}")
            merged[kind] = emitter
    return merged


TRANSFORMERS: Final[Mapping[str, Transform]] = _merged("TRANSFORMERS")  # type: ignore[assignment]
PREDICTORS: Final[Mapping[str, Predict]] = _merged("PREDICTORS")  # type: ignore[assignment]
PACKAGES: Final[Mapping[str, str]] = {
    kind: getattr(family, "PACKAGE", "sklearn")
    for family in FAMILIES
    for name in ("TRANSFORMERS", "PREDICTORS")
    for kind in getattr(family, name, {})
}
"""Class name -> the package that the class must come from."""


def plain(step: Any) -> Any:
    """The step, as an object of the class that an emitter was written for where its own class inherits the answers."""
    return inheritance.as_base(step, PACKAGES)


def is_original(step: Any) -> bool:
    """Whether the class is the one that an emitter was written for: a subclass may compute something else."""
    kind = type(step)
    return kind.__module__.partition(".")[0] == PACKAGES.get(kind.__name__, "sklearn")
