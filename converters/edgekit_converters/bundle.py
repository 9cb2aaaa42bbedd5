"""Makes the bundle: documents, manifest, signature, canonical archive. The same inputs give the same bytes."""

from __future__ import annotations

import hashlib

import msgspec

from edgekit_contracts.container import pack
from edgekit_contracts.decode import encode_json
from edgekit_contracts.golden import GoldenSet
from edgekit_contracts.manifest import (
    GOLDEN_PATH,
    MANIFEST_PATH,
    REFERENCE_PATH,
    SIGNATURE_PATH,
    FileEntry,
    Manifest,
)
from edgekit_contracts.reference import Reference
from edgekit_converters.signing import SigningKey


def assemble(manifest: Manifest, model: bytes, reference: Reference, golden: GoldenSet, key: SigningKey) -> bytes:
    """The bytes of the `.edge` file.

    Args:
        manifest: Complete but for `files` and `bins_id`, which are filled in here.
        model: The ONNX file of the manifest's variant.
        reference: Bins and counts.
        golden: Rows and the original's answers.
        key: Signs.
    """
    files = {
        manifest.variant.file: model,
        REFERENCE_PATH: encode_json(reference),
        GOLDEN_PATH: encode_json(golden),
    }
    entries = tuple(
        FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in sorted(files.items())
    )
    complete = msgspec.structs.replace(manifest, files=entries, bins_id=reference.bins_id.hex())
    files[MANIFEST_PATH] = encode_json(complete, indent=2)
    files[SIGNATURE_PATH] = key.sign(files, name=f"{manifest.name}-{manifest.version}")
    return pack(files)
