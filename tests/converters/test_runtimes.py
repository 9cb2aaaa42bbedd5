"""Real wheels of other releases of onnxruntime: the oldest one in every run, more with `make runtimes`."""

# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.utils import all_estimators

from edgekit import building
from edgekit.steps import Step
from edgekit_contracts.errors import EdgekitError, RuntimeDiffers, RuntimeMissing, UnsupportedRuntime
from edgekit_converters import other_runtime, runtimes, target
from edgekit_converters.data import frame_for
from edgekit_converters.registry import Conversion
from edgekit_converters.runtimes import OtherRuntime
from edgekit_converters.schema import tensors_of
from edgekit_converters.suited import fit, instance, suited
from edgekit_converters.target import target_for
from edgekit_converters.tasks import task_of
from tests.converters.frames import CONVERTER, features, textbook
from tests.converters.frames import target as wanted

OLDEST = "1.20.1"
SEVERAL = (OLDEST, "1.22.1", "1.24.4", "1.28.0", "1.32.0")
WRONG = "1.26.0"


@cache
def other(version: str) -> OtherRuntime:
    """Its environment is kept from run to run; where no package index answers, the test is skipped (in CI it fails)."""
    try:
        return OtherRuntime(version)
    except RuntimeMissing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.sentence)


def differences(model: Any, X: pd.DataFrame, conversion: Conversion, found: Mapping[str, NDArray[Any]] | str) -> str:
    """What is wrong with the answers of another runtime; empty where nothing is."""
    if isinstance(found, str):
        return found
    theirs = CONVERTER.answers(model, X)
    tolerance = 1e-9 if conversion.precision == "float64" else 1e-4
    for name, expected in (("probabilities", theirs.probabilities), ("value", theirs.values)):
        if expected is None:
            continue
        gap = np.abs(found[name] - expected) / np.maximum(1.0, np.abs(expected))
        if not (gap <= tolerance).all():
            return f"{name} differ by up to {gap.max():.3g}"
    if theirs.labels is not None and theirs.labels.tolist() != list(found["label"].tolist()):
        return "labels differ"
    return ""


MODELS: dict[str, Any] = {
    "forest": (RandomForestClassifier(20, random_state=0), "text"),
    "forest of values": (RandomForestRegressor(10, random_state=0), "value"),
    "boosting": (GradientBoostingRegressor(n_estimators=15, random_state=0), "value"),
    "boosting on histograms": (HistGradientBoostingClassifier(max_iter=8), "three"),
    "logistic": (LogisticRegression(), "three"),
    "ridge": (Ridge(), "value"),
    "neighbours": (KNeighborsClassifier(), "int"),
    "support vectors": (SVC(), "text"),
    "network": (MLPClassifier((5,), max_iter=20, random_state=0), "int"),
}


@pytest.mark.parametrize("version", [OLDEST, *(pytest.param(one, marks=pytest.mark.runtimes) for one in SEVERAL[1:])])
def test_pipelines_over_tables_answer_on_real_releases(version: str) -> None:
    runtime = other(version)
    X, made = features(), []
    for last, kind in MODELS.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = textbook(last).fit(X, wanted(kind))
        conversion = CONVERTER.convert(model, X, target_for(version))
        made.append((model, conversion, (conversion.onnx, tensors_of(frame_for(model, X), conversion.inputs))))
    found = runtime.run([job for _, _, job in made])
    wrong = {
        name: differences(model, X, conversion, answers)
        for name, (model, conversion, _), answers in zip(MODELS, made, found, strict=True)
    }
    assert not any(wrong.values()), wrong


def catalogue(version: str) -> Iterator[tuple[str, Any, pd.DataFrame, Conversion]]:
    """Every estimator that converts, fitted as for docs/coverage.md."""
    from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401

    for name, kind in all_estimators():
        model = instance(name, kind)
        task = task_of(model) if model is not None else None
        if task is None:
            continue
        data = suited(model, task, np.float64)
        try:
            fit(model, data.rows, data.target)
            yield name, model, data.frame, CONVERTER.convert(model, data.frame, target_for(version))
        except (EdgekitError, ValueError, TypeError, AttributeError):
            continue


@pytest.mark.runtimes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", SEVERAL)
def test_every_estimator_that_converts_answers_on_real_releases(version: str) -> None:
    runtime = other(version)
    made = list(catalogue(version))
    found = runtime.run([(one.onnx, tensors_of(frame_for(model, X), one.inputs)) for _, model, X, one in made])
    wrong = {
        name: fault
        for (name, model, X, conversion), answers in zip(made, found, strict=True)
        if (fault := differences(model, X, conversion, answers))
    }
    assert len(made) > 140
    assert not wrong


def test_a_build_verifies_on_a_release_that_is_named(tmp_path: Path) -> None:
    other(OLDEST)
    X = features()
    steps: list[Step] = []
    conversion, _ = building.convert(
        textbook(RandomForestClassifier(5, random_state=0)).fit(X, wanted("text")),
        X,
        onnxruntime.__version__,
        check_runtimes=[OLDEST],
        on_step=steps.append,
    )
    assert conversion.ml_opset == 3, "written for the older of the two"
    assert [step.result for step in steps if step.name == "runtime"] == [
        f"onnxruntime {OLDEST} answers the same rows (largest difference 0)"
    ]


def test_other_answers_of_a_release_refuse_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    X = features()
    model = textbook(RandomForestClassifier(5, random_state=0)).fit(X, wanted())

    class Backwards:
        def __init__(self, version: str) -> None:
            self.version = version

        def run(self, jobs: Any) -> list[dict[str, NDArray[Any]] | str]:
            (onnx, feed) = jobs[0]
            session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            outputs: Any = session.run(names, feed)
            found: dict[str, Any] = dict(zip(names, outputs, strict=True))
            return [{**found, "label": 1 - found["label"]}]

        engine = OtherRuntime.engine

    monkeypatch.setattr(runtimes, "OtherRuntime", Backwards)
    with pytest.raises(RuntimeDiffers, match=r"onnxruntime 1\.31\.0 does not answer .* another label") as refusal:
        building.convert(model, X, "1.31.0")
    assert "1.31.0" in refusal.value.next_step
    building.convert(model, X, "1.31.0", check_runtimes=None)


@pytest.mark.parametrize("version", ["1.26.0", "1.27.0", "1.19.2", "newest"])
def test_a_release_that_is_known_to_be_wrong_or_too_old_is_refused_by_name(version: str) -> None:
    X = features()
    model = textbook(LogisticRegression()).fit(X, wanted())
    with pytest.raises(UnsupportedRuntime, match=version):
        building.convert(model, X, onnxruntime.__version__, check_runtimes=[version])


@pytest.mark.runtimes
def test_a_wrong_release_that_nobody_knew_is_caught_by_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType

    monkeypatch.setattr(target, "WRONG_RUNTIMES", frozenset())
    X = features()[["area", "visits"]].astype(float)
    model = RandomForestClassifier(20, random_state=0).fit(X, wanted())
    conversion = CONVERTER.convert(model, X, target_for(WRONG))
    feed = tensors_of(frame_for(model, X), conversion.inputs)
    theirs: Any = convert_sklearn(
        model,
        initial_types=[("numbers", DoubleTensorType([None, 2]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    ours, foreign = other(WRONG).run([(conversion.onnx, feed), (theirs.SerializeToString(), feed)])
    assert differences(model, X, conversion, ours) == ""
    assert not isinstance(foreign, str)
    assert (foreign["label"] != model.predict(X)).mean() > 0.1


def test_without_a_package_index_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_RUNTIMES", str(tmp_path / "kept"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(RuntimeMissing, match=r"^onnxruntime 1\.20\.1 cannot be installed for Python 3\.\d") as refusal:
        OtherRuntime(OLDEST)
    assert refusal.value.exit_code == 3
    assert str(tmp_path / "kept") in refusal.value.next_step
    assert "\n" not in refusal.value.sentence


def test_tables_travel_to_another_process_as_they_are(tmp_path: Path) -> None:
    texts = np.array([["a", "\u2400"], ["", "ü\ud800\0"], ["a", "z" * 5000]], dtype=object)
    numbers = np.array([[1.5, np.nan], [-0.0, np.inf]])
    other_runtime.save(tmp_path / "x.npz", {"text": texts, "numbers": numbers, "labels": np.array([True, False])})
    found = other_runtime.load(tmp_path / "x.npz")
    assert found["text"].tolist() == texts.tolist()
    assert found["numbers"].tobytes() == numbers.tobytes()
    assert found["labels"].tolist() == [True, False]
