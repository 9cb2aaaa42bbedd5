"""`edgekit-runtime review`: a person lists, answers and takes away what waits in the review queue."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgekit_contracts.errors import StorageFault, UsageError
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.oversight.item import FILE, Item
from edgekit_runtime.oversight.review import ReviewQueue


def show(config: DeviceConfig, *, everything: bool, as_json: bool) -> None:
    """Prints what waits for an answer.

    Args:
        config: The device's settings.
        everything: The answered items too.
        as_json: One JSON object.

    Raises:
        StorageFault: The queue cannot be read.
    """
    with _queue(config) as queue:
        items = [] if queue is None else list(queue.items(answered=None if everything else False))
        counts = {"waiting": 0, "answered": 0, "dropped": 0} if queue is None else queue.counts
    if as_json:
        print(msgspec.json.encode({"schema": 1, **counts, "items": items}).decode())
        return
    for item in items:
        print(line(item))
    print(
        f"{counts['waiting']} wait, {counts['answered']} answered"
        + (f", {counts['dropped']} gave way to others" if counts["dropped"] else ""),
        file=sys.stderr,
    )


def export(config: DeviceConfig, output: Path | None) -> None:
    """Writes every item as a line of JSON.

    Args:
        config: The device's settings.
        output: The file; by default standard output.

    Raises:
        StorageFault: The queue cannot be read, or the file not be written.
    """
    with _queue(config) as queue:
        items = iter(()) if queue is None else queue.items()
        if output is None:
            _write(sys.stdout.buffer, items)
            return
        try:
            with output.open("wb") as file:
                _write(file, items)
        except OSError as error:
            raise StorageFault(str(output), error.strerror or str(error)) from error


def answer(config: DeviceConfig, number: int, label: str, *, as_json: bool) -> None:
    """Stores what a person says of an item.

    Raises:
        UsageError: There is no such item, or the model has no such class.
        StorageFault: It was not stored.
    """
    with _queue(config) as queue:
        if queue is None:
            raise UsageError(f"the review queue has no item {number}", "see 'edgekit-runtime review list'")
        item = queue.answer(number, label)
    print(msgspec.json.encode({"schema": 1, "item": item}).decode() if as_json else line(item))


def line(item: Item) -> str:
    """One item for people."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.at_ms / 1000))
    fields = ", ".join(f"{name}={'missing' if value is None else value}" for name, value in item.fields.items())
    return (
        f"{item.id:>6}  {when}  {item.model} {item.version}  {item.reason:<7}  said {item.answer}"
        + ("" if item.score is None else f" ({item.score:.3f})")
        + ("" if item.label is None else f", is {item.label}")
        + ("" if item.request is None else f"  request {item.request}")
        + (f"  {fields}" if fields else "")
    )


def _write(file: BinaryIO, items: Iterator[Item]) -> None:
    for item in items:
        file.write(msgspec.json.encode(item) + b"\n")


@contextmanager
def _queue(config: DeviceConfig) -> Iterator[ReviewQueue | None]:
    """The device's queue; None where nothing was ever put into one."""
    path = Path(config.state_dir) / FILE
    if not path.exists():
        yield None
        return
    with ReviewQueue(path) as queue:
        yield queue
