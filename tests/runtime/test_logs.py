from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from edgekit_runtime.config import Log
from edgekit_runtime.logs import (
    BURST,
    KEYS_MAX,
    LINE_MAX_CHARS,
    PERIOD_S,
    SENTENCES,
    TRACE_MAX_CHARS,
    JsonLines,
    Rate,
    TextLines,
    configure,
)

log = logging.getLogger("edgekit.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # A command that another test ran in this process has left its own behind.
    root.handlers[:] = [one for one in handlers if not isinstance(one.formatter, JsonLines | TextLines)]
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_json_says_when_who_and_what(stream: io.StringIO) -> None:
    configure(Log(format="json"), stream)
    log.warning("%d windows wait", 3)
    log.debug("not at this level")
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "edgekit.test", "message": "3 windows wait"}


def test_a_request_cannot_write_lines_of_its_own(stream: io.StringIO) -> None:
    configure(Log(), stream)
    log.error("bad name: %s", "x\n2026-01-01 00:00:00 INFO edgekit: all is well\x1b[2J\r\x9b")
    assert stream.getvalue().count("\n") == 1
    assert "x | 2026-01-01 00:00:00 INFO edgekit: all is well?[2J??" in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_and_traces_are_bounded(stream: io.StringIO, form: str) -> None:
    configure(Log(format=form), stream)  # type: ignore[arg-type]
    try:
        raise ValueError("y" * 100_000)
    except ValueError:
        log.exception("%s", "x" * 100_000)
    assert len(stream.getvalue()) < LINE_MAX_CHARS + TRACE_MAX_CHARS + 500
    assert "98000 more characters" in stream.getvalue()
    assert stream.getvalue().rstrip('"}\n').endswith("y")


def test_a_message_that_repeats_is_counted_instead_of_written() -> None:
    now = [0.0]
    rate = Rate(lambda: now[0])

    def passes(text: str, *arguments: object) -> logging.LogRecord | None:
        record = log.makeRecord(log.name, logging.ERROR, "f", 1, text, arguments, None)
        return record if rate.filter(record) else None

    # The message before its arguments are put in: each request has others.
    passed = [passes("request %d failed", number) for number in range(1000)]
    assert sum(record is not None for record in passed) == BURST
    last = passed[BURST - 1]
    assert last is not None
    assert last.last_of_burst  # type: ignore[attr-defined]
    assert passes("another message") is not None
    now[0] = PERIOD_S
    first = passes("request %d failed", 1000)
    assert first is not None
    assert first.suppressed == 1000 - BURST  # type: ignore[attr-defined]


def test_sentences_are_told_apart_and_bounded_together() -> None:
    rate = Rate(lambda: 0.0)

    def passed(sentence: str) -> bool:
        return rate.filter(log.makeRecord(log.name, logging.INFO, "f", 1, "%s", (sentence,), None))

    assert sum(passed("one sentence") for _ in range(100)) == BURST
    assert sum(passed(f"sentence {number}") for number in range(1000)) == SENTENCES - BURST
    assert rate.filter(log.makeRecord("another", logging.INFO, "f", 1, "%s", ("one sentence",), None))


def test_what_is_known_of_messages_is_bounded() -> None:
    rate = Rate(lambda: 0.0)
    for number in range(3 * KEYS_MAX):
        assert rate.filter(log.makeRecord(log.name, logging.ERROR, "f", 1, f"text {number}", (), None))
    assert len(rate._seen) == KEYS_MAX


def test_level_and_format_change_while_it_runs(stream: io.StringIO) -> None:
    configure(Log(level="error"), stream)
    log.warning("unheard")
    configure(Log(level="debug", format="json"))
    log.debug("heard")
    (line,) = lines(stream)
    assert line["message"] == "heard"
    assert sum(type(one).__name__ == "_Handler" for one in logging.getLogger().handlers) == 1


def test_what_was_suppressed_is_said() -> None:
    record = log.makeRecord(log.name, logging.ERROR, "f", 1, "text", (), None)
    record.suppressed = 7
    assert TextLines().format(record).endswith("edgekit.test: text (and 7 more like it before, suppressed)")
    assert json.loads(JsonLines().format(record))["suppressed"] == 7
