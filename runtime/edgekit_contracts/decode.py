"""From bytes to a typed value, or an error that names the path to the fault.

The rule for format numbers: a JSON or TOML document carries `format = "edgekit-NAME/MAJOR.MINOR"`. An unknown name or a
newer major is refused; a newer minor is read, its unknown fields ignored in the value (and kept in the bytes, which no
reader rewrites). Size is limited before anything is parsed. Python's own limit on recursion bounds what a parser does
with depth; JSON that was read is held to 32 levels besides, for those who walk through it.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final, TypeVar

import msgspec

from edgekit_contracts.errors import FormatError, TooLarge, UnsupportedFormat
from edgekit_contracts.limits import DOCUMENT_MAX_DEPTH
from edgekit_contracts.names import RULES

T = TypeVar("T")

_FORMAT: Final = re.compile(r"(?P<name>[a-z][a-z-]{0,62})/(?P<major>[0-9]{1,4})\.(?P<minor>[0-9]{1,4})")
# Possessive, and closed by a quote or by the end: one pass over any text, an unfinished string among them.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKET: Final = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")


class _Header(msgspec.Struct):
    format: str


def is_deeper(data: bytes, levels: int) -> bool:
    """Whether arrays and objects of a JSON text are nested deeper than so many levels, without parsing it.

    Of a text whose brackets do not match, which is no JSON, it says so where as many are never closed.
    """
    brackets = _STRING.sub(b"", data).translate(_ONE_KIND, _NO_BRACKET)
    for _ in range(levels):
        # The innermost pairs go, all of them at once: the nesting is one level less deep.
        without = brackets.replace(b"[]", b"")
        if len(without) == len(brackets):
            return without.count(b"[") > levels
        brackets = without
    return b"[" in brackets


def decode_json(
    data: bytes, kind: type[T], *, what: str, limit: int, format: str | None = None, older: tuple[str, ...] = ()
) -> T:
    """Reads a JSON document.

    Args:
        data: UTF-8 text.
        kind: The type to make of it.
        what: The document's name for errors, such as `"manifest"`.
        limit: Bytes that are accepted.
        format: `"edgekit-NAME/MAJOR.MINOR"` that this release writes; None where the document carries none.
        older: Formats of older majors that `kind` reads too.

    Raises:
        TooLarge: More bytes than `limit`.
        UnsupportedFormat: Another major format.
        FormatError: Not JSON, nested too deeply, or a field is missing or wrong.
    """
    _check_size(data, what, limit)
    try:
        if format is not None:
            check_format(msgspec.json.decode(data, type=_Header).format, format, what=what, older=older)
        found = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise _format_error(what, error) from error
    except UnicodeDecodeError as error:
        raise FormatError(what, "$", "not UTF-8") from error
    except RecursionError as error:
        raise _too_deep(what) from error
    # Behind the types, which refuse most of what is deep at its first bracket.
    if is_deeper(data, DOCUMENT_MAX_DEPTH):
        raise _too_deep(what)
    return found


def decode_toml(data: bytes, kind: type[T], *, what: str, limit: int, format: str | None = None) -> T:
    """Reads a TOML document; arguments and errors as `decode_json`."""
    tree = decode_tree(data, what=what, limit=limit)
    if format is not None:
        check_format(convert(tree, _Header, what=what).format, format, what=what)
    return convert(tree, kind, what=what)


def decode_tree(data: bytes, *, what: str, limit: int) -> dict[str, Any]:
    """Reads a TOML document as it stands, for a reader who adds to it before `convert`.

    Raises:
        TooLarge: More bytes than `limit`.
        FormatError: Not TOML.
    """
    _check_size(data, what, limit)
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FormatError(what, "$", str(error)) from error
    except RecursionError as error:
        raise _too_deep(what) from error


def convert(value: object, kind: type[T], *, what: str, path: str | None = None, strict: bool = True) -> T:
    """Makes a typed value of plain ones.

    Args:
        value: Dictionaries, lists, texts, numbers.
        kind: The type to make of it.
        what: The document's name for errors.
        path: Where the value stands, for errors; None: where in `value` the fault is.
        strict: False reads numbers out of texts too.

    Raises:
        FormatError: A field is missing or wrong.
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.MsgspecError as error:
        raise _format_error(what, error, path, kind) from error


def decode_msgpack(data: bytes | msgspec.Raw, kind: type[T], *, what: str, limit: int) -> T:
    """Reads a MessagePack value; the types bound its depth.

    Raises:
        TooLarge: More bytes than `limit`.
        FormatError: Not MessagePack of that type.
    """
    _check_size(data, what, limit)
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise _format_error(what, error) from error
    except (RecursionError, UnicodeDecodeError) as error:
        raise FormatError(what, "$", type(error).__name__) from error


def check_format(found: str, supported: str, *, what: str, older: tuple[str, ...] = ()) -> None:
    """Applies the rule for format numbers.

    Args:
        found: The document's number.
        supported: What this release writes.
        what: The document's name for errors.
        older: Numbers of older majors that are read too.

    Raises:
        FormatError: `found` is no format of this name.
        UnsupportedFormat: `found` is of another major.
    """
    ours, theirs = _FORMAT.fullmatch(supported), _FORMAT.fullmatch(found)
    assert ours is not None
    if theirs is None or theirs["name"] != ours["name"]:
        raise FormatError(what, "$.format", f"expected '{ours['name']}/MAJOR.MINOR', found '{found[:80]}'")
    majors = {ours["major"], *(one.rpartition("/")[2].partition(".")[0] for one in older)}
    if theirs["major"] not in majors:
        raise UnsupportedFormat(what, found, f"{ours['name']}/{ours['major']}.x")


def encode_json(value: object, *, indent: int = 0) -> bytes:
    """Writes the one canonical JSON text of a value: fields in declared order, a final newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=indent or -1) + b"\n"


def _too_deep(what: str) -> FormatError:
    return FormatError(what, "$", f"nested deeper than {DOCUMENT_MAX_DEPTH} levels")


def _check_size(data: bytes | msgspec.Raw, what: str, limit: int) -> None:
    size = memoryview(data).nbytes
    if size > limit:
        raise TooLarge(what, size, limit)


def _format_error(what: str, error: msgspec.MsgspecError, path: str | None = None, kind: Any = None) -> FormatError:
    # msgspec ends its messages with " - at `$.path`".
    fault, _, found = str(error).partition(" - at `")
    found = found.rstrip("`")
    if kind is not None:
        from edgekit_contracts.choices import explained  # takes a while, which what is right need not pay

        fault = explained(fault, kind, found)
    for pattern, rule in RULES.items():
        fault = fault.replace(f"`str` matching regex {pattern!r}", rule)
    fault = fault[0].lower() + fault[1:] if fault[1:2].islower() else fault
    return FormatError(what, path or found or "$", fault)
