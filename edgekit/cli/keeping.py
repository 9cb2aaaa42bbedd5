"""The options that say how long a store keeps what it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from edgekit.collector.keep import Keep, said, span_ms

_WHAT = {
    "windows": "Windows; the sums of their hours and days stay.",
    "hours": "Sums of hours.",
    "days": "Sums of days.",
    "events": "Events.",
    "gaps": "Gaps; the number of lost records stays.",
    "refused": "Heads of refused messages; their numbers stay.",
    "quarantine": "Windows whose reference has not come.",
}


def keep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--keep-windows` and the others; the command is given them by name, for `keep_of`."""
    for field in reversed(fields(Keep)):
        command = click.option(
            f"--keep-{field.name}",
            default=said(getattr(Keep(), field.name)),
            show_default=True,
            metavar="TIME",
            help=_WHAT[field.name],
        )(command)
    return command


def keep_of(options: dict[str, str]) -> Keep:
    """What the options say.

    Raises:
        UsageError: One is no time.
    """
    return Keep(**{name.removeprefix("keep_"): span_ms(text) for name, text in options.items()})
