"""Which ONNX an onnxruntime release loads, and which one we write for it.

Source: the table of https://onnxruntime.ai/docs/reference/compatibility.html joined with `onnx.helper.VERSION_TABLE`
(ONNX release -> IR, opset, ai.onnx.ml). A release that is not in the table is newer than it, and onnxruntime loads
every older opset ("Newer versions of ONNX Runtime support all models that worked with prior versions"): it is treated
as the newest one that is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edgekit_contracts.errors import UnsupportedRuntime
from edgekit_contracts.limits import WRONG_RUNTIMES


@dataclass(frozen=True, kw_only=True, slots=True)
class Loads:
    """The newest of each that one onnxruntime release loads."""

    opset: int
    ml_opset: int
    ir: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The ONNX to write for one onnxruntime release."""

    onnxruntime: str
    opset: int
    """Of the domain `ai.onnx`."""
    ml_opset: int
    """Of the domain `ai.onnx.ml`."""
    ir: int


RELEASES: Final = {
    (1, 20): Loads(opset=21, ml_opset=5, ir=10),
    (1, 21): Loads(opset=22, ml_opset=5, ir=10),
    (1, 22): Loads(opset=23, ml_opset=5, ir=11),
    (1, 23): Loads(opset=24, ml_opset=5, ir=12),
    (1, 24): Loads(opset=25, ml_opset=5, ir=13),
}
"""onnxruntime release -> what it loads. The first is the oldest that `edgekit-runtime` installs with."""

WRITTEN: Final = Loads(opset=18, ml_opset=3, ir=8)
"""What we write: old enough for every release above and for other runtimes, new enough for float64 everywhere."""

TREES: Final = (1, 24)
"""The first release for which we write ai.onnx.ml 5, whose `TreeEnsemble` has float64 leaves and sets of categories.

Earlier ones load that opset too, but float64 trees fail before 1.22.1, and sets of 40 categories and more before 1.24
(microsoft/onnxruntime#25400). IR 8 may import it: the versions of the IR and of operator sets are independent
(onnx/docs/Versioning.md)."""

_VERSION: Final = re.compile(r"(?P<major>[0-9]{1,4})\.(?P<minor>[0-9]{1,4})(?:\.[0-9A-Za-z.+-]{1,32})?")


def loads(onnxruntime_version: str) -> Loads:
    """What that release of onnxruntime loads.

    Raises:
        UnsupportedRuntime: Not a version, too old, or known to answer wrongly.
    """
    oldest = ".".join(map(str, min(RELEASES)))
    release = _release(onnxruntime_version)
    if release < min(RELEASES):
        raise UnsupportedRuntime(onnxruntime_version, f"releases before {oldest} are too old", oldest)
    # 1.26 without a patch number means the release that is known to be wrong.
    if onnxruntime_version in WRONG_RUNTIMES or f"{onnxruntime_version}.0" in WRONG_RUNTIMES:
        raise UnsupportedRuntime(
            onnxruntime_version, "it answers wrongly for tree ensembles (microsoft/onnxruntime#28557)", oldest
        )
    return RELEASES[max(known for known in RELEASES if known <= release)]


def target_for(onnxruntime_version: str) -> Target:
    """The ONNX that we write for a release of onnxruntime: the conservative choice, with the trees of newer ones.

    Args:
        onnxruntime_version: `"1.24.1"` or `"1.24"`.

    Raises:
        UnsupportedRuntime: Not a version, too old, or known to answer wrongly.
    """
    newest = loads(onnxruntime_version)
    return Target(
        onnxruntime=onnxruntime_version,
        opset=min(WRITTEN.opset, newest.opset),
        ml_opset=newest.ml_opset if _release(onnxruntime_version) >= TREES else WRITTEN.ml_opset,
        ir=min(WRITTEN.ir, newest.ir),
    )


def _release(version: str) -> tuple[int, int]:
    match = _VERSION.fullmatch(version)
    if match is None:
        oldest = ".".join(map(str, min(RELEASES)))
        raise UnsupportedRuntime(version[:40], "it is not a version such as 1.24.1", oldest)
    return int(match["major"]), int(match["minor"])
