"""SHA-256 of what is large, while requests are answered.

Python's own digest (`lean`) keeps the interpreter's lock for as long as one call takes, 5 ms for a MiB; between two
pieces a request may go on.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from edgekit_runtime.yielding import rest

PIECE_BYTES: Final = 32 * 1024


def sha256(data: bytes) -> hashlib._Hash:
    """As `hashlib.sha256`, in pieces."""
    digest, view = hashlib.sha256(), memoryview(data)
    for start in range(0, len(data), PIECE_BYTES):
        digest.update(view[start : start + PIECE_BYTES])
        rest()
    return digest


def file_sha256(path: Path) -> str | None:
    """Of a file, in hexadecimal; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                rest()
    except OSError:
        return None
    return digest.hexdigest()
