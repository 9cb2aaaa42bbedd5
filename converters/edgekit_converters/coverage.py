"""Which scikit-learn estimators convert, and how: measured over all of them, never written by hand.

Every estimator of `sklearn.utils.all_estimators` is fitted on data that suits it, converted and compared with the
original through `edgekit_converters.verify` on the data and at its thresholds: alone with float64 and with float32
input, and inside a Pipeline. `docs/coverage.md` is made by `edgekit convert --coverage`, and a test compares it with a
run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import msgspec
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils import all_estimators, get_tags

from edgekit_contracts.errors import EdgekitError, ParityBroken
from edgekit_contracts.manifest import Task
from edgekit_converters.draft import draft_manifest
from edgekit_converters.registry import Answers, Conversion
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.suited import Suited, fit, instance, suited
from edgekit_converters.target import target_for
from edgekit_converters.tasks import task_of, why_not
from edgekit_converters.verify import verify
from edgekit_converters.walk import takes_labels
from edgekit_runtime.engine import Engine

Outcome = Literal["exact", "close", "rounded", "by nature", "refused", "wrong"]

RUNTIME: Final = "1.32.0"
EXACT: Final = 1e-9
OTHER_ROWS: Final = frozenset({"MiniBatchNMF", "NMF"})
"""What they answer to a row depends on the others that are asked with it."""
ROUNDED: Final = "in float32 the original magnifies its rounding; the conversion answers as it does in float64"
CONVERTS: Final = frozenset({"exact", "close", "rounded"})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One estimator's line."""

    estimator: str
    task: Task | Literal["none"]
    """What it answers of a new row."""
    float64: Outcome
    float32: Outcome
    piped: Outcome
    """In a Pipeline, with float64."""
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
    outcomes = [{row.float64, row.float32, row.piped} for row in rows]
    good = sum(found <= CONVERTS for found in outcomes)
    nature, wrong = sum("by nature" in found for found in outcomes), sum("wrong" in found for found in outcomes)
    lines = [
        "# Which scikit-learn estimators convert",
        "",
        "Made by `edgekit convert --coverage`; do not edit. Each is fitted on small data that suits it, converted, and",
        "compared with the original on that data and at the model's thresholds, in every answer that it gives: alone",
        "with float64 and with float32 input, and in a Pipeline (a transformer before a ridge regression, others after",
        "a scaler). Settings are those of scikit-learn's own tests; of others some are refused, and the converter says",
        "which. *exact*: within 1e-9; *close*: within 1e-4, since a part computes in float32 or the input is float32;",
        "*rounded*: within 1e-6 of the original asked in float64, and within 2e-3 of it in float32, the rounding of",
        "which it magnifies ([ADR-0041](adr/0041-rounding-that-the-original-magnifies.md)); *by nature*: it has no",
        "answer of its own to a new row, or reads no table; *refused*: the converter says why; *wrong*: the",
        "verification finds a difference, so the build refuses. *own*: by edgekit's emitters alone.",
        "",
        f"{good} of {len(rows)} convert, {nature} are refused by nature, "
        f"{len(rows) - good - nature - wrong} are refused, {wrong} are wrong.",
        "",
        "| estimator | answers | float64 | float32 | in a Pipeline | how | why not |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.estimator} | {row.task.replace('_', ' ')} | {row.float64} | {row.float32} | {row.piped} | {row.how} "
        f"| {row.why.replace('|', '/')} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _rows(progress: Callable[[str], None]) -> Iterator[Row]:
    from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401

    for name, kind in all_estimators():
        progress(name)
        made = instance(name, kind)
        task = task_of(made) if made is not None else None
        if task is None:
            why = "cannot be made" if made is None else why_not(made)[0]
            outcome: Outcome = "refused" if made is None else "by nature"
            yield Row(estimator=name, task="none", float64=outcome, float32=outcome, piped=outcome, how="", why=why)
            continue
        wide = suited(made, task, np.float64)
        alone, conversion, why = _try(made, wide)
        narrow, _, second = _try(made, suited(made, task, np.float32))
        piped, _, third = _try(_pipeline(made, task, wide), wide)
        if alone == "refused" and name in OTHER_ROWS:
            alone = narrow = piped = "by nature"
        if takes_labels(made):
            piped, third = "by nature", "it transforms the target, and is no step of a Pipeline"
        yield Row(
            estimator=name,
            task=task,
            float64=alone,
            float32=narrow,
            piped=piped,
            how="" if conversion is None else "skl2onnx" if conversion.delegated else "own",
            why=why or second or third,
        )


def _pipeline(estimator: Any, task: Task, data: Suited) -> Any:
    """The estimator as a step: a transformer before a linear model, others after a scaler."""
    if data.rows is not data.frame and "text" in data.frame:
        return make_pipeline(ColumnTransformer([("text", estimator, "text")]), Ridge())
    if task == "transformation" and type(estimator).__name__ != "PLSSVD":  # its fit_transform gives two matrices
        return make_pipeline(estimator, Ridge())
    return make_pipeline(MaxAbsScaler() if not get_tags(estimator).input_tags.pairwise else "passthrough", estimator)


def _try(model: Any, data: Suited) -> tuple[Outcome, Conversion | None, str]:
    """How it went, the conversion where there is one, and why not."""
    rows = data.frame if hasattr(model, "steps") and "text" in data.frame else data.rows
    converter = SklearnConverter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit(model, rows, data.target)
        except Exception as error:  # whatever an estimator makes of such data
            return "refused", None, f"cannot be fitted on such data: {_first_line(error)}"
        try:
            conversion = converter.convert(model, data.frame, target_for(RUNTIME))
        except EdgekitError as error:
            return "refused", None, error.sentence[:200]
        try:
            outcome = _compare(converter, model, conversion, data.frame)
        except ParityBroken:
            return "wrong", conversion, "the build's verification refuses it"
    return outcome, conversion, ROUNDED if outcome == "rounded" else ""


def _compare(converter: SklearnConverter, model: Any, conversion: Conversion, frame: pd.DataFrame) -> Outcome:
    """Verifies against the original.

    Raises:
        ParityBroken: They differ.
    """

    def original(rows: pd.DataFrame) -> Answers:
        return converter.answers(model, rows)

    engine = Engine(conversion.onnx, draft_manifest("coverage", "1.0", conversion, RUNTIME))
    verified = verify(
        engine, original, frame, precision=conversion.precision, model=model, magnifying=conversion.magnifying
    )
    if verified.magnified:
        return "rounded"
    return "exact" if verified.parity.max_difference <= EXACT else "close"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
