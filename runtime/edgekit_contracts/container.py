"""The `.edge` file: a canonical, stored zip that ordinary tools unpack.

One tree of files has exactly one archive: sorted names, no compression, date 1980-01-01, mode 0644, no extra fields and
no comments. The reader accepts an archive only if writing its contents again gives the same bytes; that one rule
refuses duplicate names, case twins, prefixed or appended data, compression bombs and whatever a lenient reader and a
strict one would see differently. Stored, because weights barely compress (docs/adr/0002). Python's `zipfile` writes the
same bytes; it is not asked, as it brings every compressor along, and what an archive may be here is less than it reads.
"""

from __future__ import annotations

import re
import struct
from binascii import crc32
from collections.abc import Iterator, Mapping
from typing import Final

from edgekit_contracts.errors import BundleDamaged, TooLarge
from edgekit_contracts.limits import BUNDLE_MAX_BYTES, BUNDLE_MAX_ENTRIES

_SEGMENT: Final = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}"
NAME: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{0,3}}")
"""A path inside a bundle: ASCII, at most four levels, no segment that starts with a dot."""

_FILE, _ENTRY, _LAST = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_END: Final = struct.Struct("<4s4H2LH")
_VERSION, _UNIX, _STORED, _MIDNIGHT, _EPOCH = 20, 3 << 8, 0, 0, 0x21
"""Of zip 2.0; written on Unix; not compressed; 1980-01-01 00:00."""
_MODE: Final = 0o100644 << 16


def pack(files: Mapping[str, bytes]) -> bytes:
    """Writes the canonical archive of `files` (path -> content).

    Raises:
        ValueError: A path, or the number of entries, that the format does not allow.
    """
    return b"".join(_pieces(files))


def unpack(data: bytes, *, bundle: str) -> dict[str, bytes]:
    """Reads a canonical archive.

    Args:
        data: The whole file.
        bundle: The file's name, for errors.

    Returns:
        path -> content, in the order of the archive (sorted).

    Raises:
        TooLarge: More bytes than a bundle may have.
        BundleDamaged: Cut short, changed, or not canonical.
    """
    if len(data) > BUNDLE_MAX_BYTES:
        raise TooLarge(bundle, len(data), BUNDLE_MAX_BYTES)
    if not data.startswith(_FILE[:2]):
        raise BundleDamaged(bundle, "it does not begin as a .edge file does; perhaps another file was meant")
    files = _entries(data, bundle)
    at = 0
    try:
        # Piece by piece: another copy of a large model would be the most that a device holds at one time.
        for piece in _pieces(files):
            if not data.startswith(piece, at):
                raise BundleDamaged(bundle, "its bytes are not the canonical archive of its contents")
            at += len(piece)
    except ValueError as error:
        raise BundleDamaged(bundle, str(error)) from error
    if at != len(data):
        raise BundleDamaged(bundle, "its bytes are not the canonical archive of its contents")
    return files


def _entries(data: bytes, bundle: str) -> dict[str, bytes]:
    """What a canonical archive holds; of others anything, or nothing."""
    files: dict[str, bytes] = {}
    at = 0
    try:
        while data[at : at + 4] == _FILE:
            *_, method, _time, _date, _crc, stored, size, name_bytes, extra_bytes = _LOCAL.unpack_from(data, at)
            if method != _STORED or stored != size:
                raise BundleDamaged(bundle, "it has a compressed entry, which the format does not allow")
            if len(files) == BUNDLE_MAX_ENTRIES:
                raise BundleDamaged(bundle, f"it has more than {BUNDLE_MAX_ENTRIES} entries")
            name_at = at + _LOCAL.size
            at = name_at + name_bytes + extra_bytes + size
            files[data[name_at : name_at + name_bytes].decode("ascii")] = data[at - size : at]
    except (struct.error, UnicodeDecodeError) as error:
        raise BundleDamaged(bundle, f"it is not a whole archive ({error})") from error
    if at >= len(data) or data[-_END.size :][:4] != _LAST:
        raise BundleDamaged(bundle, "it is not a whole archive")
    return files


def _pieces(files: Mapping[str, bytes]) -> Iterator[bytes]:
    """The canonical archive, from its beginning to its end.

    Source: PKWARE, APPNOTE.TXT, sections 4.3.7 (local file header), 4.3.12 (central directory) and 4.3.16 (its end).

    Raises:
        ValueError: As `pack`.
    """
    if len(files) > BUNDLE_MAX_ENTRIES:
        raise ValueError(f"{len(files)} entries; at most {BUNDLE_MAX_ENTRIES}")
    if len({name.lower() for name in files}) != len(files):
        raise ValueError("two names differ in case only")
    central, at = b"", 0
    for name in sorted(files):
        if NAME.fullmatch(name) is None:
            raise ValueError(f"'{name}' is not a path for a bundle")
        content, path = files[name], name.encode("ascii")
        facts = (_STORED, _MIDNIGHT, _EPOCH, crc32(content), len(content), len(content), len(path), 0)
        central += _CENTRAL.pack(_ENTRY, _VERSION | _UNIX, _VERSION, 0, *facts, 0, 0, 0, _MODE, at) + path
        yield _LOCAL.pack(_FILE, _VERSION, 0, *facts) + path
        yield content
        at += _LOCAL.size + len(path) + len(content)
    yield central
    yield _END.pack(_LAST, 0, 0, len(files), len(files), len(central), at, 0)
