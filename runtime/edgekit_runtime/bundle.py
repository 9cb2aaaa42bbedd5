"""A bundle, opened: signature first, then every byte against the manifest, then the documents."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.container import unpack
from edgekit_contracts.errors import BundleDamaged, MissingFile, TooLarge
from edgekit_contracts.golden import GoldenSet, decode_golden
from edgekit_contracts.manifest import (
    GOLDEN_PATH,
    MANIFEST_PATH,
    REFERENCE_PATH,
    SIGNATURE_PATH,
    Manifest,
    decode_manifest,
)
from edgekit_contracts.reference import Reference, decode_reference
from edgekit_runtime.digests import sha256
from edgekit_runtime.signature import PublicKey, check_signature, digests_of
from edgekit_runtime.yielding import rest


class Bundle(msgspec.Struct, frozen=True, dict=True):
    """A bundle whose bytes were checked."""

    name: str
    """The file's name."""
    sha256: str
    size: int
    files: dict[str, bytes]
    manifest: Manifest
    signer: PublicKey | None
    """The trusted key that signed it; None where no key was asked for."""

    @property
    def model(self) -> bytes:
        """The ONNX file that the runtime loads."""
        return self.files[self.manifest.variant.file]

    @cached_property
    def golden(self) -> GoldenSet:
        """Inputs and the original's answers."""
        return decode_golden(self._document(GOLDEN_PATH))

    @cached_property
    def reference(self) -> Reference:
        """Bins and the reference data's counts."""
        reference = decode_reference(self._document(REFERENCE_PATH))
        if reference.bins_id.hex() != self.manifest.bins_id:
            raise BundleDamaged(self.name, "its reference is not the one that the manifest names")
        counted = [feature.name for feature in reference.bins.features]
        if counted != [feature.name for feature in self.manifest.features] or (
            reference.bins.classes != self.manifest.classes
        ):
            raise BundleDamaged(self.name, "its reference speaks of other features or classes than its manifest")
        return reference

    def _document(self, path: str) -> bytes:
        if path not in self.files:
            raise BundleDamaged(self.name, f"it has no {path}")
        return self.files[path]


def open_bundle(path: str | Path, *, keys: Sequence[PublicKey] | None) -> Bundle:
    """Reads and checks a `.edge` file.

    Args:
        path: The file.
        keys: Trusted keys; None only to look at a bundle without running it.

    Raises:
        MissingFile: It cannot be read.
        TooLarge, BundleDamaged: It is not a whole, canonical archive, or a file differs from the manifest.
        SignatureRefused: None of `keys` signed it.
        UnsupportedFormat, FormatError: Its manifest is of a newer major format or is wrong.
    """
    path = Path(path)
    return read_bundle(read_file(path), path.name, keys=keys)


def read_file(path: Path) -> bytes:
    """A bundle's bytes, not yet checked.

    Raises:
        MissingFile: It cannot be read.
        TooLarge: It is larger than a bundle may be.
    """
    try:
        size = path.stat().st_size
        if size > limits.BUNDLE_MAX_BYTES:
            raise TooLarge(path.name, size, limits.BUNDLE_MAX_BYTES)
        return path.read_bytes()
    except OSError as error:
        raise MissingFile("bundle", str(path), error.strerror or str(error)) from error


def read_bundle(data: bytes, name: str, *, keys: Sequence[PublicKey] | None, digest: str | None = None) -> Bundle:
    """Checks a bundle's bytes; arguments and errors as `open_bundle`.

    Args:
        data: Its bytes.
        name: The file's name.
        keys: Trusted keys.
        digest: SHA-256 of `data`, where the caller has it.
    """
    files = unpack(data, bundle=name)
    rest()
    digests = digests_of(files)
    signer = None if keys is None else check_signature(files.get(SIGNATURE_PATH), digests, keys, bundle=name)
    rest()
    if MANIFEST_PATH not in files:
        raise BundleDamaged(name, "it has no manifest.json")
    manifest = decode_manifest(files[MANIFEST_PATH])
    rest()
    _check_files(files, digests, manifest, name)
    return Bundle(name, digest or sha256(data).hexdigest(), len(data), files, manifest, signer)


def vouched_bundle(data: bytes, name: str, *, sha256: str, signer: PublicKey) -> Bundle:
    """A bundle that was checked already.

    Args:
        data: Its bytes.
        name: The file's name.
        sha256: Of its bytes.
        signer: Whose signature `read_bundle` found on just these bytes.
    """
    files = unpack(data, bundle=name)
    return Bundle(name, sha256, len(data), files, decode_manifest(files[MANIFEST_PATH]), signer)


def _check_files(files: dict[str, bytes], digests: dict[str, str], manifest: Manifest, bundle: str) -> None:
    listed = {entry.path: entry for entry in manifest.files}
    present = set(files) - {MANIFEST_PATH, SIGNATURE_PATH}
    if present != set(listed):
        odd = sorted(present ^ set(listed))[0]
        raise BundleDamaged(bundle, f"'{odd}' is {'not in the manifest' if odd in present else 'missing'}")
    for path, entry in listed.items():
        if len(files[path]) != entry.size or digests[path] != entry.sha256:
            raise BundleDamaged(bundle, f"'{path}' is not the file that the manifest names")
