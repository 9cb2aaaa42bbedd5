"""Which scikit-learn estimators convert, and how: measured over all of them, never written by hand.

Every estimator of `sklearn.utils.all_estimators` is fitted on small data of its kind, converted and compared with the
original through `edgekit_converters.verify`, with float64 and with float32 input. Transformers are measured as a step
before a linear model. `docs/coverage.md` is made by `edgekit convert --coverage`, and a test compares it with a run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal
from unittest import SkipTest

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_regressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import all_estimators

from edgekit_contracts.errors import EdgekitError, ParityBroken
from edgekit_converters.data import as_frame
from edgekit_converters.draft import draft_manifest
from edgekit_converters.operators import catalog
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import target_for
from edgekit_converters.verify import verify
from edgekit_runtime.engine import Engine

Outcome = Literal["exact", "close", "refused", "wrong"]

RUNTIME: Final = "1.32.0"
EXACT: Final = 1e-9
BINARY: Final = frozenset({"FixedThresholdClassifier", "TunedThresholdClassifierCV"})
SEVERAL_TARGETS: Final = frozenset(
    {"ClassifierChain", "MultiOutputClassifier", "MultiOutputRegressor", "MultiTaskElasticNet", "MultiTaskElasticNetCV"}
    | {"MultiTaskLasso", "MultiTaskLassoCV", "RegressorChain"}
)
ONE_COLUMN: Final = frozenset({"IsotonicRegression"})
WITH_GAPS: Final = frozenset({"IterativeImputer", "KNNImputer", "MissingIndicator", "SimpleImputer"})
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "DummyClassifier": {"strategy": "prior"},
    "SelectFdr": {"alpha": 0.9},
    "SelectFpr": {"alpha": 0.9},
    "SelectFwe": {"alpha": 0.9},
}
"""Where scikit-learn's own test instance fits no plain table, or answers at random."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One estimator's line."""

    estimator: str
    kind: Literal["classifier", "regressor", "transformer", "other"]
    float64: Outcome
    float32: Outcome
    how: Literal["own", "skl2onnx", ""]
    why: str
    """Of a refusal, its sentence."""


def measure(progress: Callable[[str], None] = lambda name: None) -> list[Row]:
    """The line of every estimator, by name.

    Args:
        progress: Called with each estimator's name before it is tried.
    """
    return list(_rows(progress))


def markdown(rows: list[Row]) -> str:
    """The page docs/coverage.md."""
    good = sum(row.float64 in {"exact", "close"} for row in rows)
    lines = [
        "# Which scikit-learn estimators convert",
        "",
        "Made by `edgekit convert --coverage`; do not edit. Each is fitted on small data of its kind, converted, and",
        "compared with the original; transformers as a step before a linear model. *exact*: within 1e-9; *close*:",
        "within 1e-4, since a part computes in float32 or the input is float32; *refused*: the converter says why;",
        "*wrong*: the verification finds a difference, and the build refuses. *own*: by an emitter of edgekit's.",
        "",
        f"{good} of {len(rows)} convert.",
        "",
        "| estimator | kind | float64 | float32 | how | why not |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.estimator} | {row.kind} | {row.float64} | {row.float32} | {row.how} | {row.why.replace('|', '/')} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _rows(progress: Callable[[str], None]) -> Iterator[Row]:
    from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401

    for name, kind in all_estimators():
        progress(name)
        made = instance(name, kind)
        if made is None:
            yield Row(estimator=name, kind="other", float64="refused", float32="refused", how="", why="cannot be made")
            continue
        kin = group(made)
        if kin == "other":
            why = "it neither classifies, regresses nor transforms"
            yield Row(estimator=name, kind=kin, float64="refused", float32="refused", how="", why=why)
            continue
        wide, why = _try(made, kin, np.float64)
        narrow, _ = _try(made, kin, np.float32)
        catalogued = name in (catalog.TRANSFORMERS if kin == "transformer" else catalog.PREDICTORS)
        how: Literal["own", "skl2onnx", ""] = "" if wide == "refused" else "own" if catalogued else "skl2onnx"
        yield Row(estimator=name, kind=kin, float64=wide, float32=narrow, how=how, why=why)


def instance(name: str, kind: Any) -> Any:
    """A legal instance, as scikit-learn's own tests make it."""
    from sklearn.utils._test_common.instance_generator import _construct_instances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = next(iter(_construct_instances(kind))).set_params(**SETTINGS.get(name, {}))
            seeds = [key for key in made.get_params() if key.rpartition("__")[2] == "random_state"]
            return made.set_params(**dict.fromkeys(seeds, 0))
        except (Exception, SkipTest):  # whatever a constructor raises
            return None


def group(estimator: Any) -> Literal["classifier", "regressor", "transformer", "other"]:
    """What an estimator is measured as."""
    if is_classifier(estimator):
        return "classifier"
    if is_regressor(estimator):
        return "regressor"
    return "transformer" if hasattr(estimator, "transform") else "other"


def _try(estimator: Any, kin: str, dtype: type) -> tuple[Outcome, str]:
    frame, target = data(type(estimator).__name__, kin, dtype)
    model = estimator if kin != "transformer" else make_pipeline(estimator, LinearRegression())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.fit(frame, target)
        except Exception as error:  # whatever an estimator makes of a plain table
            return "refused", f"cannot be fitted on a plain table: {_first_line(error)}"
        converter = SklearnConverter()
        try:
            conversion = converter.convert(model, frame, target_for(RUNTIME))
            engine = Engine(conversion.onnx, draft_manifest("coverage", "1.0", conversion, RUNTIME))
            verified = verify(
                engine, lambda rows: converter.answers(model, rows), frame, precision=conversion.precision
            )
        except ParityBroken:
            return "wrong", "the build's verification refuses it"
        except EdgekitError as error:
            return "refused", error.sentence[:200]
    return ("exact" if verified.parity.max_difference <= EXACT else "close"), ""


def data(name: str, kin: str, dtype: type) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Rows and target that suit an estimator: positive numbers, with gaps for imputers."""
    source: Any = load_iris() if kin == "classifier" else load_diabetes()
    rows = np.random.default_rng(0).permutation(len(source.data))[:120]
    X = np.abs(source.data[rows]) + 0.01  # some estimators take positive numbers only
    target = source.target[rows]
    if name in WITH_GAPS:
        X[::7, 0] = np.nan
    if name in ONE_COLUMN:
        X = X[:, :1]
    if name in BINARY:
        target = (target > 0).astype(int)
    if name in SEVERAL_TARGETS:
        target = np.stack([target, target[::-1]], axis=1)
    return as_frame(X.astype(dtype)).rename(columns=str), target


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
