"""How long an answer is worth anything: as long as the settings say, or less where the client says so.

What has waited too long is not computed, and what took too long is not sent: both are 504, so that a client never takes
a late answer for a fresh one. A call of the model is not interrupted. HTTP knows 504 for a gateway; for a server that
was too slow itself it is what the status of gRPC means too.

Source: RFC 9110, section 15.6.5; google/rpc/code.proto (DEADLINE_EXCEEDED: 504). For the client's parameter: Triton
Inference Server, docs/protocol/extension_schedule_policy.md, which `tritonclient` writes (`timeout=`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from edgekit_contracts.errors import BadInput, Refused
from edgekit_runtime.serving.message import Request

TIMEOUT: Final = "timeout"
"""A request's parameter: whole microseconds, from its last byte to its answer; 0 is what the settings say."""


class Late(Refused):
    """The answer would come later than it is worth anything."""

    def __init__(self, within_s: float, what: str, age_s: float) -> None:
        super().__init__(f"no answer within {within_s:g} s: {what} {age_s:.3g} s", "ask again, or allow more time")


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """When an answer is due."""

    begun: float
    """When the request was whole, as `time.perf_counter()` says it."""
    within_s: float

    def check(self, what: Literal["the request waited", "the answer took"]) -> None:
        """Nothing, in time.

        Raises:
            Late: It has passed.
        """
        age_s = time.perf_counter() - self.begun
        if age_s > self.within_s:
            raise Late(self.within_s, what, age_s)


def deadline_of(request: Request, parameters: Mapping[str, Any], most_s: float | None) -> Deadline | None:
    """When a request is to be answered; None where it may take any time.

    Args:
        request: The request.
        parameters: Its own, of the protocol.
        most_s: What the settings allow; None for any time.

    Raises:
        BadInput: The client's parameter is no number of microseconds.
    """
    asked = parameters.get(TIMEOUT) if parameters else None
    if asked is not None:
        if type(asked) is not int or not 0 <= asked < 2**63:
            raise BadInput("", f"the parameter '{TIMEOUT}' is not a whole number of microseconds")
        if asked:
            most_s = min(asked / 1e6, most_s or asked / 1e6)
    return None if most_s is None else Deadline(request.started if request.whole is None else request.whole, most_s)
