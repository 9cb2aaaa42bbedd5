"""The commands beside `run`; each file holds one group. What is heavy is imported inside the functions.

The start of a service imports what all commands share, which stands here, and no group.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from edgekit_runtime.settings import Settings, find_file, load_settings


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of a command with `--config` and, in `run`, a bundle and keys."""
    given: dict[str, tuple[object, str]] = {}
    if getattr(options, "bundle", None) is not None:
        given["bundle"] = str(options.bundle), "the command line"
    if getattr(options, "key", None):
        given["keys"] = options.key, "--key"
    # A bundle that is named is served with the defaults, unless a file is named too.
    path = options.config if "bundle" in given else find_file(options.config)
    if path is None and "bundle" in given and "keys" not in given:
        from edgekit_runtime.trust import own_key

        if (own := own_key()).exists():
            given["keys"] = [str(own)], "your own key"
    return load_settings(path, given=given)


def settings_of_the_service(options: argparse.Namespace) -> Settings:
    """The settings of a command that asks the service."""
    path = find_file(options.config)
    # A service that was started with nothing but a bundle has no file, and answers where the defaults say.
    given = {"bundle": ("", "default"), "keys": ([""], "default")} if path is None else None
    return load_settings(path, given=given)


def say(line: str) -> None:
    """A line for a person, on standard error."""
    # One write: two would let a line of the log in between.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def echo_columns(rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on standard output."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def echo_hanging(line: str, indent: int) -> None:
    """A line on standard output; where a terminal shows it, in as many as it takes there, the further ones indented."""
    columns = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
    if len(line) > columns > 2 * indent:
        import textwrap

        line = textwrap.fill(line, columns, subsequent_indent=" " * indent, break_long_words=False)
    print(line, flush=True)


def echo_json(value: Any, indent: int | None = None) -> None:
    """One JSON value on standard output."""
    import json

    print(json.dumps(value, indent=indent))
