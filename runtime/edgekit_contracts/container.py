"""The `.edge` file: a canonical, stored zip that ordinary tools unpack.

One tree of files has exactly one archive: sorted names, no compression, date 1980-01-01, mode 0644, no extra fields and
no comments. The reader accepts an archive only if writing its contents again gives the same bytes; that one rule
refuses duplicate names, case twins, prefixed or appended data, compression bombs and whatever a lenient reader and a
strict one would see differently. Stored, because weights barely compress (docs/adr/0002).
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Final

from edgekit_contracts.errors import BundleDamaged, TooLarge
from edgekit_contracts.limits import BUNDLE_MAX_BYTES, BUNDLE_MAX_ENTRIES

_SEGMENT: Final = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}"
NAME: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{0,3}}")
"""A path inside a bundle: ASCII, at most four levels, no segment that starts with a dot."""

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o100644 << 16
_UNIX: Final = 3


def pack(files: Mapping[str, bytes]) -> bytes:
    """Writes the canonical archive of `files` (path -> content).

    Raises:
        ValueError: A path, or the number of entries, that the format does not allow.
    """
    if len(files) > BUNDLE_MAX_ENTRIES:
        raise ValueError(f"{len(files)} entries; at most {BUNDLE_MAX_ENTRIES}")
    if len({name.lower() for name in files}) != len(files):
        raise ValueError("two names differ in case only")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in sorted(files):
            if NAME.fullmatch(name) is None:
                raise ValueError(f"'{name}' is not a path for a bundle")
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = _UNIX, _MODE
            archive.writestr(info, files[name])
    return buffer.getvalue()


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
    if not data.startswith(b"PK"):
        raise BundleDamaged(bundle, "it does not begin as a .edge file does; perhaps another file was meant")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > BUNDLE_MAX_ENTRIES:
                raise BundleDamaged(bundle, f"{len(entries)} entries; at most {BUNDLE_MAX_ENTRIES}")
            # Before any read: a stored entry cannot be larger than the archive that holds it.
            if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
                raise BundleDamaged(bundle, "it has a compressed entry, which the format does not allow")
            if sum(e.file_size for e in entries) > len(data):
                raise BundleDamaged(bundle, "its entries overlap")
            files = {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleDamaged(
            bundle, f"it is not a whole archive ({str(error).rstrip('.') or type(error).__name__})"
        ) from error
    try:
        canonical = pack(files) == data
    except ValueError as error:
        raise BundleDamaged(bundle, str(error)) from error
    if not canonical:
        raise BundleDamaged(bundle, "its bytes are not the canonical archive of its contents")
    return files
