from __future__ import annotations

import msgspec
import pytest

from edgekit_contracts import golden, manifest, profile, reference, state
from edgekit_contracts.decode import check_format, decode_json, decode_msgpack, decode_toml, is_deeper
from edgekit_contracts.errors import FormatError, TooLarge, UnsupportedFormat

FORMATS = [manifest.FORMAT, reference.FORMAT, golden.FORMAT, profile.FORMAT, state.STATUS_FORMAT, state.WANT_FORMAT]


class Inner(msgspec.Struct):
    count: int


class Document(msgspec.Struct):
    format: str
    items: list[Inner] = []


def read(text: str) -> Document:
    return decode_json(text.encode(), Document, what="document", limit=1000, format="edgekit-test/2.3")


def test_an_error_names_the_path_to_the_fault() -> None:
    with pytest.raises(FormatError, match=r"document is not valid at \$\.items\[1\]\.count: expected `int`, got `str`"):
        read('{"format": "edgekit-test/2.0", "items": [{"count": 1}, {"count": "x"}]}')


def test_a_newer_minor_is_read_and_its_unknown_fields_ignored() -> None:
    assert read('{"format": "edgekit-test/2.9", "new": {"deep": [1]}}').items == []


@pytest.mark.parametrize("found", ["edgekit-test/3.0", "edgekit-test/1.9"])
def test_another_major_is_refused(found: str) -> None:
    with pytest.raises(UnsupportedFormat, match=rf"document has format {found}; this release reads edgekit-test/2.x"):
        read(f'{{"format": "{found}"}}')


def test_an_older_major_is_read_where_the_type_still_knows_it() -> None:
    check_format("edgekit-test/1.3", "edgekit-test/2.0", what="document", older=("edgekit-test/1.0",))
    with pytest.raises(UnsupportedFormat):
        check_format("edgekit-test/3.0", "edgekit-test/2.0", what="document", older=("edgekit-test/1.0",))


@pytest.mark.parametrize("found", ["edgekit-bundle/2.0", "edgekit-test", "2.0", "edgekit-test/2", ""])
def test_another_name_is_refused(found: str) -> None:
    with pytest.raises(FormatError, match=r"at \$\.format"):
        read(f'{{"format": "{found}"}}')


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_a_name_and_a_number(format: str) -> None:
    check_format(format, format, what="document")


def test_a_document_over_its_limit_is_not_parsed() -> None:
    with pytest.raises(TooLarge, match="document has 1,001 bytes; the limit is 1,000"):
        read("{" + " " * 1000)


@pytest.mark.parametrize("deep", ["[" * 32 + "]" * 32, '{"a":' * 40 + "1" + "}" * 40, "[" * 100_000, '{"a":' * 50_000])
def test_a_deep_document_is_not_read(deep: str) -> None:
    text = f'{{"format": "edgekit-test/2.3", "new": {deep}}}'
    with pytest.raises(FormatError, match="nested deeper than 32 levels"):
        decode_json(text.encode(), Document, what="document", limit=1_000_000, format="edgekit-test/2.3")


def test_brackets_inside_strings_are_no_depth() -> None:
    text = rb'["[[[[", "\"[[", {"a": 1}]'
    assert is_deeper(text, 1)
    assert not is_deeper(text, 2)


@pytest.mark.parametrize(
    ("text", "depth"),
    [(b"1", 0), (b"[]", 1), (b"[[], {}, [1], [{}]]", 3), (b'{"a": [{"b": []}], "c": [[[[]]]]}', 5), (b"[" * 40, 40)],
)
def test_depth_is_that_of_the_deepest_place(text: bytes, depth: int) -> None:
    assert not is_deeper(text, depth)
    assert all(is_deeper(text, levels) for levels in range(depth))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"null", b'{"format": 1}'])
def test_garbage_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_json(data, Document, what="document", limit=1000, format="edgekit-test/2.3")


def test_toml_errors_name_their_path_too() -> None:
    with pytest.raises(FormatError, match=r"at \$\.items\[0\]\.count"):
        decode_toml(b'format = "edgekit-test/1.0"\n[[items]]\ncount = "x"', Document, what="file", limit=1000)
    with pytest.raises(FormatError, match="file is not valid: "):
        decode_toml(b"= 1", Document, what="file", limit=1000)


@pytest.mark.parametrize("data", [b"", b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xc1", b"\xa3abc"])
def test_hostile_messagepack_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_msgpack(data, Document, what="message", limit=10_000)


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ('"' + '\\"' * 500_000, False),
        ('"' + "a" * 1_000_000, False),
        ('"\\' * 300_000, False),
        ("[" * 33 + '"' + "]" * 99, True),
    ],
)
def test_an_unfinished_string_is_read_once(text: str, deep: bool) -> None:
    # Quadratic time here would be hours, and a test that never ends.
    assert is_deeper(text.encode(), 32) == deep


def test_a_name_with_a_newline_at_its_end_is_no_name() -> None:
    with pytest.raises(FormatError, match=r"\$\.device"):
        state.decode_status(b'{"format": "edgekit-status/1.0", "device": "pump-1\\n", "session": 1}')
