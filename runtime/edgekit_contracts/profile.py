"""A device profile: what a board is, what it may be asked for, and how fast it is, each figure with its source."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_toml
from edgekit_contracts.errors import FormatError
from edgekit_contracts.names import ModelName

FORMAT: Final = "edgekit-profile/1.0"

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its origin."""

    value: Positive
    source: Annotated[str, msgspec.Meta(min_length=1)]
    """Who says so: a document, a measurement with its date, or the reasoning of an estimate."""
    kind: Literal["measured", "published", "estimated"]

    @property
    def spread(self) -> float:
        """Factor by which the truth may differ either way; what it stands on decides."""
        return {"measured": 1.25, "published": 1.6, "estimated": 2.5}[self.kind]


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """The hardware and its system."""

    soc: str
    cores: str
    clock_ghz: Figure
    simd: str
    ram_mb: Figure
    architecture: Literal["aarch64", "x86_64", "armv7"]
    os: str


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What can run there."""

    supported: bool
    """False where no onnxruntime wheel exists for the board."""
    onnxruntime: Annotated[str, msgspec.Meta(pattern=r"^([0-9]+\.[0-9]+\.[0-9]+|none)(?!\n)$")]
    """The version that bundles are aimed at; `none` where nothing can run."""
    why: str | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a model may use, unless the owner says otherwise."""

    latency_ms: Positive
    """One row."""
    latency_percentile: Annotated[float, msgspec.Meta(gt=0, lt=100)]
    memory_mb: Positive
    """Resident memory of the whole runtime process."""
    bundle_mb: Positive


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one core is, in the terms that the predictor adds up (edgekit_converters.fit)."""

    call_us: Figure
    """One call of an empty graph from Python."""
    node_us: Figure
    """Each further node of a graph."""
    gflops: Figure
    """float32 multiply-add, counted as two, in a matrix product."""
    element_ns: Figure
    """One element through one element-wise node."""
    tree_node_ns: Figure
    """One comparison on the way from a root to a leaf."""
    tail_ratio: Figure
    """The limit's percentile over the median."""
    runtime_mb: Figure
    """Resident memory of the runtime before a model is loaded."""


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One board."""

    format: str = FORMAT
    name: ModelName
    title: str
    board: Board
    runtime: Runtime
    limits: Limits
    rates: Rates


def decode_profile(data: bytes) -> DeviceProfile:
    """Reads a profile's TOML.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_toml`; also where it does not say why nothing can run.
    """
    profile = decode_toml(data, DeviceProfile, what="device profile", limit=limits.PROFILE_MAX_BYTES, format=FORMAT)
    if profile.runtime.supported == (profile.runtime.onnxruntime == "none"):
        raise FormatError("device profile", "$.runtime.onnxruntime", "a version where supported, else 'none'")
    if not profile.runtime.supported and not profile.runtime.why:
        raise FormatError("device profile", "$.runtime.why", "a board that cannot run must say why")
    return profile
