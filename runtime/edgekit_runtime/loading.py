"""From a bundle whose bytes were checked to one that may answer: ONNX Runtime, golden set, reference."""

from __future__ import annotations

import msgspec

from edgekit_contracts.manifest import REFERENCE_PATH, Manifest
from edgekit_contracts.reference import Bins, Distance
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.encoding import Batch
from edgekit_runtime.engine import Engine
from edgekit_runtime.selftest import GoldenResult, check_golden
from edgekit_runtime.session import SessionSettings
from edgekit_runtime.signature import PublicKey
from edgekit_runtime.yielding import rest


class Loaded(msgspec.Struct, frozen=True):
    """A bundle that was verified, loaded and tested here. Its other bytes are not kept in memory."""

    engine: Engine
    bins: Bins
    distance: Distance | None
    bins_id: bytes
    reference: bytes
    """`reference.json`, for the centre."""
    sha256: str
    """Of the bundle."""
    signer: PublicKey
    golden: GoldenResult
    sample: Batch
    """A row of the golden set, as the engine takes it."""

    @property
    def manifest(self) -> Manifest:
        """Of the bundle."""
        return self.engine.manifest


def load_bundle(bundle: Bundle, *, threads: int = 1) -> Loaded:
    """Loads and tests a bundle.

    Args:
        bundle: Opened with keys, so that it has a signer.
        threads: Threads that ONNX Runtime uses inside one call.

    Raises:
        EdgekitError: It is damaged, does not run here, or answers wrongly.
    """
    assert bundle.signer is not None
    engine = Engine(bundle.model, bundle.manifest, settings=SessionSettings(threads=threads))
    rest()
    golden = bundle.golden
    rest()
    tested = check_golden(engine, golden)
    sample = engine.encode({name: column[:1] for name, column in zip(golden.features, golden.columns, strict=True)})
    rest()
    # Read here, so that a fault in it is found before anything is served.
    reference = bundle.reference
    rest()
    return Loaded(
        engine=engine,
        bins=reference.bins,
        distance=reference.distance,
        bins_id=reference.bins_id,
        reference=bundle.files[REFERENCE_PATH],
        sha256=bundle.sha256,
        signer=bundle.signer,
        golden=tested,
        sample=sample,
    )
