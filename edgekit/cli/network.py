"""What `build` and `convert` ask of a network: it does not say itself what its scores and its rows are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgekit_contracts.errors import UsageError
from edgekit_contracts.manifest import ClassLabel

F = TypeVar("F", bound=Callable[..., Any])


def network_options(command: F) -> F:
    """Adds `--classes` and `--shape` to a command."""
    shape = click.option(
        "--shape", callback=lambda _context, _option, text: _shape(text), help="One row of a network, such as 1x28x28."
    )
    classes = click.option(
        "--classes",
        callback=lambda _context, _option, text: _classes(text),
        help="The classes of a network's scores, in their order, with commas between.",
    )
    return classes(shape(command))


def _classes(text: str | None) -> tuple[ClassLabel, ...] | None:
    """Whole numbers where all are."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise UsageError(f"--classes {text!r} has an empty name", "name the classes with commas between: no,yes")
    return tuple(map(int, names)) if all(re.fullmatch("-?[0-9]{1,18}", name) for name in names) else tuple(names)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,9}([x,][0-9]{1,9})*", text):
        raise UsageError(f"--shape {text!r} is not a shape", "write it as 1x28x28")
    return tuple(int(size) for size in re.split("[x,]", text))
