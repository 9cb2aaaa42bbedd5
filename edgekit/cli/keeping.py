"""Lengths of time on the command line: how long a store keeps what it holds, and how far back a command looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

import click

from edgekit.collector.keep import Keep, said, span_ms

HOURS_MAX: Final = 24 * 366 * 100


class _Hours(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        hours = super().convert(value, param, ctx)
        return hours if hours == hours else self.fail("nan is no length of time", param, ctx)  # NaN is in every range


HOURS: Final = _Hours(0, HOURS_MAX, min_open=True)
"""How far back a command looks."""

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
