"""Steps that magnify the rounding of float32: what is compared then, and what is still refused."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.decomposition import KernelPCA
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, PowerTransformer
from sklearn.svm import LinearSVC

import edgekit
from edgekit_contracts.errors import ParityBroken
from edgekit_converters import magnified
from edgekit_converters.draft import draft_manifest
from edgekit_converters.golden import golden
from edgekit_converters.registry import Answers
from edgekit_converters.steadiness import widened
from edgekit_converters.suited import suited
from edgekit_converters.verify import TOLERANCE, Verified, verify
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engine import Engine
from tests.converters.frames import CONVERTER, converted, run

STEPS = [Nystroem(random_state=0), KernelPCA(random_state=0), PowerTransformer()]
names = pytest.mark.parametrize("step", STEPS, ids=lambda one: type(one).__name__)


def rows(dtype: type = np.float32) -> pd.DataFrame:
    """Five columns of the diabetes data, of which one hardly varies: each of the steps magnifies what is left of it."""
    return suited(PowerTransformer(), "transformation", dtype).frame


def target() -> NDArray[np.float64]:
    return np.asarray(suited(PowerTransformer(), "transformation", np.float64).target)


def verified(model: Any, X: pd.DataFrame, original: Callable[[pd.DataFrame], Answers] | None = None) -> Verified:
    conversion = converted(model, X)
    return verify(
        Engine(conversion.onnx, draft_manifest("m", "1", conversion, "1.24.1")),
        original or (lambda frame: CONVERTER.answers(model, frame)),
        X,
        precision=conversion.precision,
        model=model,
        magnifying=conversion.magnifying,
    )


def models(step: Any) -> list[Any]:
    """The step alone, and in pipelines."""
    return [
        step,
        make_pipeline(step, Ridge()),
        make_pipeline(MaxAbsScaler(), step, Ridge()),
        make_pipeline(step, LogisticRegression()),
        make_pipeline(step, LinearSVC()),
    ]


def fitted(model: Any, X: pd.DataFrame) -> Any:
    y = target()
    return clone(model).fit(X, y > np.median(y) if is_classifier(model) else y)


@names
@pytest.mark.parametrize("place", range(5), ids=["alone", "ridge", "scaled", "logistic", "svc"])
def test_float32_answers_are_those_of_the_original_in_float64(step: Any, place: int) -> None:
    X = rows()
    model = fitted(models(step)[place], X)
    found = verified(model, X)
    assert found.parity.rows > len(X)
    assert found.parity.max_difference <= magnified.ROUNDING_MAX
    conversion = converted(model, X)
    assert len(conversion.magnifying) == 1
    assert type(step).__name__ in conversion.magnifying[0]
    ours, theirs = run(conversion, model, X), CONVERTER.answers(model, widened(X))
    numbers = theirs.values if theirs.probabilities is None else theirs.probabilities
    given = ours["value" if theirs.probabilities is None else "probabilities"]
    assert numbers is not None
    np.testing.assert_allclose(given, numbers, rtol=magnified.TOLERANCE, atol=magnified.TOLERANCE)
    labels = CONVERTER.answers(model, X).labels
    if labels is not None:
        assert ours["label"].tolist() == labels.tolist()


@names
def test_float64_is_compared_as_ever(step: Any) -> None:
    X = rows(np.float64)
    model = fitted(step, X)
    assert converted(model, X).magnifying == ()
    found = verified(model, X)
    assert not found.magnified
    assert found.parity.tolerance == TOLERANCE["float64"]


def values(model: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    found = CONVERTER.answers(model, frame).values
    assert found is not None
    return found


def off(model: Any, narrow: float, wide: float = 0.0) -> Callable[[pd.DataFrame], Answers]:
    """The original in float64, its values off by so much where it is asked in float32, and in float64."""

    def original(frame: pd.DataFrame) -> Answers:
        asked = widened(frame)
        return Answers(None, None, values(model, asked) + (wide if asked is frame else narrow))

    return original


def test_rounding_that_the_original_magnifies_is_told_and_kept_out_of_the_golden_set() -> None:
    X = rows()
    model = fitted(Nystroem(random_state=0), X)
    found = verified(model, X, off(model, 5e-4))
    parity = found.parity
    assert found.magnified
    assert parity.max_difference == pytest.approx(5e-4, rel=1e-3)
    assert parity.tolerance == pytest.approx(6e-4, rel=1e-3)
    assert parity.differs is not None
    assert "nystroem (Nystroem) magnifies the rounding of float32" in parity.differs
    assert "in float64 by up to 0.0005" in parity.differs
    assert found.tolerance == TOLERANCE["mixed"]
    conversion = converted(model, X)
    chosen = golden(draft_manifest("m", "1", conversion, "1.24.1"), found)
    assert chosen.tolerance == TOLERANCE["mixed"]
    asked = pd.DataFrame(dict(zip(chosen.features, map(list, chosen.columns), strict=True)))
    np.testing.assert_allclose(np.array(chosen.values), values(model, asked), atol=1e-12)


@pytest.mark.parametrize(
    ("step", "narrow", "wide"),
    [
        (Nystroem(random_state=0), 3e-3, 0.0),  # it rounds too much
        (Nystroem(random_state=0), 5e-4, 5e-4),  # in float64 it is off as well: the conversion is wrong
        (Nystroem(random_state=0), 5e-4, 2e-6),
        (Nystroem(random_state=0), np.nan, 0.0),
        (MaxAbsScaler(), 5e-4, 0.0),  # no step that magnifies
    ],
)
def test_what_rounding_does_not_explain_is_refused(step: Any, narrow: float, wide: float) -> None:
    X = rows()
    model = fitted(step, X)
    with pytest.raises(ParityBroken):
        verified(model, X, off(model, narrow, wide))


@pytest.mark.parametrize(("margin", "refused"), [(5e-5, False), (3e-4, True)])
def test_a_label_that_differs_must_be_a_tie_of_the_ordinary_tolerance(margin: float, refused: bool) -> None:
    """The original's decision on the first row moves to the margin, its label is the other one in float32."""
    X = rows()
    model = fitted(make_pipeline(Nystroem(random_state=0), LinearSVC()), X)
    model[-1].intercept_ += margin / 2 - values(model, widened(X.iloc[[0]]))[0, 0]

    def original(frame: pd.DataFrame) -> Answers:
        asked = widened(frame)
        if asked is frame:
            return CONVERTER.answers(model, frame)
        found = values(model, asked)
        found = np.where(np.abs(found) < margin, -margin, found + 4e-4)
        return Answers(np.where(found[:, 0] > 0, model.classes_[1], model.classes_[0]), None, found)

    if refused:
        with pytest.raises(ParityBroken, match="another label"):
            verified(model, X, original)
    else:
        found = verified(model, X, original)
        assert found.magnified
        assert found.parity.ties > 0
        assert found.undecided[0]


def test_a_bundle_says_so_and_tests_itself(tmp_path: Path) -> None:
    X = rows()
    said = {}
    built = edgekit.build(
        fitted(KernelPCA(random_state=0), X),
        X,
        device="raspberry-pi-5",
        out=tmp_path / "places-1.0.edge",
        check_runtimes=None,
        on_step=lambda step: said.update({step.name: step.result}),
    )
    assert "kernelpca (KernelPCA) magnifies the rounding of float32" in said["verify"]
    assert str(built.manifest.parity.differs) in said["verify"]
    assert open_bundle(built.path, keys=None).golden.tolerance == TOLERANCE["mixed"]
