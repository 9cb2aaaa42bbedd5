"""A start's signatures, checked by another process while this one imports ONNX Runtime.

cryptography takes 8 MiB and 15 ms, and a service needs it when it loads a bundle, most of them never again. A child is
forked while there is neither much memory nor a second thread. It verifies the bundles that the settings name, says who
signed them, and ends; it is believed for just these bytes under just these key files. Of what it does not vouch for (it
is refused, it is large, or there is no child) nothing is said here: it is verified where it is loaded, which also says
what is wrong with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from edgekit_contracts.errors import EdgekitError
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.digests import file_sha256
from edgekit_runtime.lean import is_large
from edgekit_runtime.signature import PublicKey, load_public_keys
from edgekit_runtime.slots import SlotStore


class Vouched(msgspec.Struct, frozen=True):
    """What the child says."""

    keys: str = ""
    """SHA-256 of the key files that it trusted."""
    signers: dict[str, PublicKey] = {}
    """SHA-256 of a bundle -> who signed it."""


class Vouching:
    """The child, and what it says. It is waited for when that is first asked.

    Args:
        config: The device's settings.
    """

    def __init__(self, config: DeviceConfig) -> None:
        self._vouched: Vouched | None = None
        self._child, self._pipe = 0, -1
        try:
            self._pipe, answer = os.pipe()
            self._child = os.fork()
        except OSError:  # no memory, or no more processes
            self._vouched = Vouched()
            return
        if not self._child:
            with contextlib.suppress(BaseException):
                os.write(answer, msgspec.msgpack.encode(vouch(config)))
            os._exit(0)
        os.close(answer)

    def signers(self, keys: Sequence[str]) -> Mapping[str, PublicKey]:
        """SHA-256 of a bundle -> who signed it; nothing where these key files are not those that the child trusted."""
        if self._vouched is None:
            self._vouched = self._heard()
        return self._vouched.signers if self._vouched.keys == _digest(keys) else {}

    def _heard(self) -> Vouched:
        with open(self._pipe, "rb") as pipe:
            said = pipe.read()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._child, 0)
        try:
            return msgspec.msgpack.decode(said, type=Vouched)
        except msgspec.MsgspecError:  # it died
            return Vouched()


def vouch(config: DeviceConfig) -> Vouched:
    """Verifies the bundles that a service of these settings begins with; what the child does.

    Raises:
        EdgekitError: The keys cannot be read.
    """
    before = _digest(config.keys)
    keys = load_public_keys(config.keys)
    signers = {}
    for path in _bundles(config):
        with contextlib.suppress(EdgekitError, OSError):
            if not is_large(path):
                bundle = open_bundle(path, keys=keys)
                assert bundle.signer is not None
                signers[bundle.sha256] = bundle.signer
    # Keys that are exchanged meanwhile may have been read before or after.
    return Vouched(before, signers) if before == _digest(config.keys) else Vouched()


def _bundles(config: DeviceConfig) -> Iterator[Path]:
    for model in config.served:
        yield Path(model.bundle)
        if model.candidate is not None:
            yield Path(model.candidate.bundle)
    store = SlotStore(Path(config.state_dir))
    for kept in store.read():
        candidate = None if kept.candidate is None else kept.candidate.slot
        for slot in (kept.live, candidate, kept.former):
            if slot is not None:
                yield store.path(slot.sha256)


def _digest(keys: Sequence[str]) -> str:
    return " ".join(filter(None, (file_sha256(Path(path)) for path in keys)))
