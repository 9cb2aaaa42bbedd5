from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_contracts.container import pack, unpack
from edgekit_contracts.errors import BundleDamaged

FILES = {"manifest.json": b"{}\n", "model.onnx": bytes(range(256)), "docs/a.txt": b""}


def zipped(entries: list[tuple[zipfile.ZipInfo | str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def test_what_is_packed_is_unpacked() -> None:
    assert unpack(pack(FILES), bundle="b") == FILES


def test_the_order_of_the_files_does_not_matter() -> None:
    assert pack(FILES) == pack(dict(reversed(FILES.items())))


def test_ordinary_tools_read_it() -> None:
    with zipfile.ZipFile(io.BytesIO(pack(FILES))) as archive:
        assert archive.testzip() is None
        assert archive.read("model.onnx") == FILES["model.onnx"]


def test_it_is_what_python_s_own_library_writes() -> None:
    entries: list[tuple[zipfile.ZipInfo | str, bytes]] = []
    for name in sorted(FILES):
        info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        info.create_system, info.external_attr = 3, 0o100644 << 16
        entries.append((info, FILES[name]))
    assert pack(FILES) == zipped(entries)


def test_every_flipped_bit_is_refused() -> None:
    data = pack({"a": b"content", "b/c": b"more"})
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BundleDamaged):
            unpack(bytes(flipped), bundle="b")


def test_every_truncation_is_refused() -> None:
    data = pack({"a": b"content", "b/c": b"more"})
    for end in range(len(data)):
        with pytest.raises(BundleDamaged):
            unpack(data[:end], bundle="b")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"#!/bin/sh\n" + pack(FILES), id="prefixed"),
        pytest.param(pack(FILES) + b"\0", id="appended"),
        pytest.param(zipped([("a", b"0" * 100_000)], zipfile.ZIP_DEFLATED), id="compressed"),
        pytest.param(zipped([("b", b""), ("a", b"")]), id="unsorted"),
        pytest.param(zipped([(zipfile.ZipInfo("../a", (1980, 1, 1, 0, 0, 0)), b"")]), id="slip"),
        pytest.param(zipped([(zipfile.ZipInfo("/etc/a", (1980, 1, 1, 0, 0, 0)), b"")]), id="absolute"),
        pytest.param(zipped([(zipfile.ZipInfo("A", (1980, 1, 1, 0, 0, 0)), b""), ("a", b"")]), id="case twins"),
        pytest.param(zipped([(".hidden", b"")]), id="dot file"),
        pytest.param(zipped([("a/", b"")]), id="folder"),
        pytest.param(b"", id="empty"),
    ],
)
def test_what_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(BundleDamaged):
        unpack(data, bundle="b")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_refused() -> None:
    with pytest.raises(BundleDamaged):
        unpack(zipped([("a", b"1"), ("a", b"2")]), bundle="b")


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z0-9_-][a-z0-9._-]{0,8}(/[a-z0-9]{1,4}){0,2}", fullmatch=True), st.binary()))
def test_any_tree_comes_back(files: dict[str, bytes]) -> None:
    assert unpack(pack(files), bundle="b") == files


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_garbage_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(BundleDamaged):
        unpack(data, bundle="b")
