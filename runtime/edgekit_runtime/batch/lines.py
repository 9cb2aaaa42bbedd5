"""The lines of a text file of any size, and where each of them ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgekit_contracts import limits
from edgekit_contracts.errors import UsageError

BLOCK_BYTES: Final = 1 << 20
LINE_MAX_BYTES: Final = 64 * limits.MIB
BOM: Final = b"\xef\xbb\xbf"


class Lines:
    r"""Iterates over the lines from a byte on, each with its end.

    Args:
        path: The file.
        offset: Where a line begins.
        returns: Whether a lone `\r` ends a line, as it does in CSV.

    Attributes:
        offset: Bytes of the file before the next line.

    Raises:
        UsageError: A line is longer than 64 MiB.
    """

    def __init__(self, path: Path, offset: int, *, returns: bool) -> None:
        self.offset = offset
        self._path, self._returns = path, returns

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            if self.offset == 0 and file.read(len(BOM)) == BOM:
                self.offset = len(BOM)
            file.seek(self.offset)
            rest = b""
            while block := file.read(BLOCK_BYTES):
                lines = (rest + block).splitlines(keepends=True) if self._returns else _split(rest + block)
                # The last line may go on; so may an end "\r", in a "\n".
                rest = lines.pop() if not lines[-1].endswith(b"\n") else b""
                if len(rest) > LINE_MAX_BYTES:
                    raise UsageError(f"{self._path} has a line of more than 64 MiB", "break it into rows")
                for line in lines:
                    self.offset += len(line)
                    yield line
            if rest:
                self.offset += len(rest)
                yield rest


def _split(block: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in block.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines
