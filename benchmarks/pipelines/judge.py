"""What edgekit makes of a fitted model: the steps of `edgekit build` up to the verification, and nothing written."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from benchmarks.pipelines.case import Case
from edgekit_contracts.errors import EdgekitError, ParityBroken
from edgekit_converters.certificate import certify
from edgekit_converters.data import frame_for
from edgekit_converters.draft import draft_manifest
from edgekit_converters.registry import find
from edgekit_converters.target import target_for
from edgekit_converters.verify import is_exact, verify
from edgekit_runtime.engine import Engine

RUNTIME: Final = "1.32.0"

Outcome = Literal["right", "wrong", "refused"]


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of one conversion."""

    outcome: Outcome
    """Wrong: the conversion succeeded and the verification found a difference (a build refuses it)."""
    why: str = ""
    """Of a refusal or a difference, its sentence."""
    rows: int = 0
    """Rows that were compared, those that were mined among them."""
    mined: int = 0
    difference: float = 0.0
    """The largest: of probabilities absolute, of values relative to max(1, |value|)."""
    precision: str = ""


def fitted(case: Case) -> tuple[Any, Any]:
    """The case's model, fitted, and the data that it was fitted on."""
    X, y = case.data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return case.model.fit(X, y), X


def judge(model: Any, X: Any) -> Judged:
    """Converts, and compares the answers on the data's rows, their variations and mined rows.

    Args:
        model: Fitted.
        X: The data that it was fitted on.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            converter = find(model)
            conversion = converter.convert(model, X, target_for(RUNTIME))
            certificate = certify(conversion.onnx, model)
            if is_exact(certificate, conversion.features):
                conversion = replace(conversion, precision="float64")
            engine = Engine(conversion.onnx, draft_manifest("pipeline", "1.0", conversion, RUNTIME))
            verified = verify(
                engine,
                lambda rows: converter.answers(model, rows),
                frame_for(model, X),
                precision=conversion.precision,
                model=model,
                certificate=certificate,
                magnifying=conversion.magnifying,
            )
        except ParityBroken as error:
            return Judged("wrong", error.sentence)
        except EdgekitError as error:
            return Judged("refused", error.sentence)
    parity = verified.parity
    return Judged(
        "right",
        rows=parity.rows,
        mined=parity.mined_rows,
        difference=parity.max_difference,
        precision=conversion.precision,
    )
