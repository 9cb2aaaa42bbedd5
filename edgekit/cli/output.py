"""What people and programs read: aligned tables, JSON, steps."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import click
import msgspec

SCHEMA: Final = 1
"""The `"schema"` of every `--json` object."""

_BACK: Final = "\r\x1b[K"
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")
# Names and sentences from devices and bundles: what steers a terminal is shown instead of sent. Our own colours pass.
_CONTROL: Final = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")

_WORD: Final = re.compile(r"\S+\s*")
_ROOM: Final = 20
"""Characters that a column needs to be worth breaking its text."""

_BREAK: Final = re.compile(r"[\n\t\u2028\u2029]")
"""What would break a row of a table."""


def echo_json(value: dict[str, object]) -> None:
    """One JSON object on standard output."""
    click.echo(msgspec.json.format(msgspec.json.encode({"schema": SCHEMA, **value}), indent=2))


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on standard output; the last column takes what is left of the line, on a terminal of several."""
    shown = [[_BREAK.sub("?", printable(cell)) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(header, *shown, strict=True)]
    indent = sum(widths[:-1]) + 2 * len(widths[:-1])
    click.echo(click.style(_line(header, widths), bold=True))
    for row in shown:
        click.echo(_hanging(_line(row, widths), indent, sys.stdout))


def echo_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Aligned name and value on standard output, long values wrapped."""
    width = max(len(name) for name, _ in facts)
    room = max(40, shutil.get_terminal_size((120, 24)).columns)
    for name, value in facts:
        text = click.formatting.wrap_text(
            value, room, initial_indent=f"{name:<{width}}  ", subsequent_indent=" " * (width + 2)
        )
        click.echo(printable(text))


def printable(text: str) -> str:
    """The text with control characters as `?`."""
    return _CONTROL.sub("?", text)


def echo_progress(name: str, text: str) -> None:
    """What runs, on a line of standard error that the next one overwrites; nothing where no terminal shows it."""
    if sys.stderr.isatty():
        click.echo(f"{_BACK}..  {name:<10} {text}", err=True, nl=False)


def end_progress() -> None:
    """Clears the line of `echo_progress`."""
    if sys.stderr.isatty():
        click.echo(_BACK, err=True, nl=False)


def echo_step(name: str, result: str, seconds: float) -> None:
    """One finished step on standard error."""
    end_progress()
    line = f"{click.style('ok', fg='green')}  {name:<10} {result}  {click.style(f'{seconds:.1f} s', dim=True)}"
    click.echo(_hanging(line, 15, sys.stderr), err=True)


def ago(seconds: float) -> str:
    """`5 s`, `3 min`, `2 h`, `4 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _hanging(line: str, indent: int, stream: TextIO) -> str:
    """The line; where a terminal shows it, in as many as it takes there, the further ones indented."""
    columns = os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    if _width(line) <= columns or columns - indent < _ROOM:
        return line
    rows, width = [""], 0
    for word in _WORD.findall(line):
        if width + _width(word.rstrip()) > columns and width > indent:
            rows.append(" " * indent)
            width = indent
        rows[-1] += word
        width += _width(word)
    return "\n".join(map(str.rstrip, rows))


def _width(cell: str) -> int:
    return len(_ESCAPE.sub("", cell))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join(padded).rstrip()
