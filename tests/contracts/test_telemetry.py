"""Messages, read in one step where all is right, and record by record where it is not."""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit_contracts import limits
from edgekit_contracts.counts import encode_varints
from edgekit_contracts.errors import FormatError, TooLarge, UnsupportedFormat
from edgekit_contracts.telemetry import (
    Event,
    Kind,
    decode_body,
    decode_envelope,
    decode_message,
    encode,
    encode_message,
    pack_message,
    plain_envelopes,
    unpack_message,
)
from tests.telemetry_samples import envelope, window

WINDOW, ROWS = window()
RECORDS = [encode(envelope(WINDOW, sequence=number, n=ROWS)) for number in range(1, 9)]


@pytest.mark.parametrize("count", [1, 8])
def test_a_message_is_read_as_its_records_are_one_by_one(count: int) -> None:
    message = encode_message(RECORDS[:count])
    found = decode_message(pack_message(message))
    assert found == decode_message(message) == [decode_envelope(record) for record in RECORDS[:count]]
    assert [decode_body(one) for one in found] == [WINDOW] * count


def test_a_message_is_packed_by_the_strategy_that_leaves_less_of_it() -> None:
    counts = np.random.default_rng(0).poisson(3.0, (8, 600)).tolist()
    alike = msgspec.msgpack.encode([encode_varints(window) for window in counts])
    mixed = Path(__file__).parents[1].joinpath("corpus", "telemetry-1", "message.msgpack").read_bytes()

    def filtered(message: bytes) -> bytes:
        stream = zlib.compressobj(strategy=zlib.Z_FILTERED)
        return stream.compress(message) + stream.flush()

    assert len(pack_message(alike)) == len(filtered(alike)) < len(zlib.compress(alike))
    assert len(pack_message(mixed)) == len(zlib.compress(mixed)) < len(filtered(mixed))
    for message in (alike, mixed, b"\x90"):
        assert unpack_message(pack_message(message)) == message


def test_one_newer_record_makes_a_message_of_a_newer_version() -> None:
    newer = msgspec.structs.replace(envelope(Event("started", "")), version=2)
    message = encode_message([RECORDS[0], encode(newer)])
    assert plain_envelopes(message) is None
    with pytest.raises(UnsupportedFormat, match="version 2"):
        decode_message(message)


@pytest.mark.parametrize(
    ("message", "error", "fault"),
    [
        (msgspec.msgpack.encode([]), FormatError, "0 records; 1 to 8 allowed"),
        (msgspec.msgpack.encode([msgspec.Raw(RECORDS[0])] * 9), FormatError, "9 records; 1 to 8 allowed"),
        (msgspec.msgpack.encode([msgspec.Raw(RECORDS[0]), 7]), FormatError, "expected `array`"),
        (b"\xc1", FormatError, "telemetry message"),
        (bytes(limits.MESSAGE_MAX_BYTES + 1), TooLarge, "telemetry message"),
    ],
)
def test_a_message_that_is_none_says_what_is_wrong(message: bytes, error: type[Exception], fault: str) -> None:
    assert plain_envelopes(message) is None
    with pytest.raises(error, match=fault):
        decode_message(message)


@pytest.mark.parametrize(
    ("field", "number"), [("calls", limits.RECORD_MAX_ROWS + 1), ("cpu_ms", 2**63), ("failed", -1)]
)
def test_a_number_that_no_window_can_hold_is_refused(field: str, number: int) -> None:
    wild = msgspec.structs.replace(WINDOW, software=msgspec.structs.replace(WINDOW.software, **{field: number}))
    with pytest.raises(FormatError, match=r"\$\[4\]"):
        decode_body(envelope(wild, n=ROWS))


def test_a_body_that_is_not_of_its_kind_is_refused() -> None:
    with pytest.raises(FormatError, match="telemetry body"):
        decode_body(envelope(Event("started", ""), kind=Kind.WINDOW))
