from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgekit_runtime.digests import PIECE_BYTES, file_sha256, sha256


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_pieces_have_the_digest_of_the_whole(tmp_path: Path, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(data)
    assert sha256(data).hexdigest() == file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_what_cannot_be_read_has_none(tmp_path: Path) -> None:
    assert file_sha256(tmp_path) is None
    assert file_sha256(tmp_path / "nothing") is None
