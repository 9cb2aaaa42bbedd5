"""Imports of libraries without what this process has no use for.

Some import for other programs what costs a small device more than all that it needs of them. What is left out here is
left out in the service alone: a program that imports edgekit_runtime has numpy as it is.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

from edgekit_contracts.limits import MIB

LARGE_BYTES: Final = 16 * MIB


def is_large(bundle: Path) -> bool:
    """Whether a bundle takes so much that what is spared here is little beside it, and speed is not."""
    with contextlib.suppress(OSError):
        return bundle.stat().st_size > LARGE_BYTES
    return False


class _Unused(Exception):
    """A type that nothing is of, and an error that nobody raises."""

    def __class_getitem__(cls, parameters: object) -> type[_Unused]:
        return cls


class _StandIn(ModuleType):
    """A module that has any name, for whoever names in an annotation or an `except` what never comes."""

    def __getattr__(self, name: str) -> type[_Unused]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Unused


@contextmanager
def without(*modules: str) -> Iterator[None]:
    """What is imported inside does without these modules, as it would on a Python that was built without them."""
    absent = [name for name in modules if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # Python: "a ModuleNotFoundError is raised"
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def standing_in(*modules: str) -> Iterator[None]:
    """What is imported inside gets these modules empty; from then on they are what they are."""
    empty = {name: _StandIn(name) for name in modules if name not in sys.modules}
    sys.modules.update(empty)
    try:
        yield
    finally:
        for name, module in empty.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def import_hashlib() -> None:
    """Imports Python's own digests, and not OpenSSL's: 4 MiB; they take 5 ms for a MiB, and OpenSSL's 1."""
    with without("_hashlib"):
        import hashlib  # noqa: F401
        import hmac  # noqa: F401


def import_numpy() -> None:
    """Imports numpy without its types for type checkers and its documentation: a quarter of its time, 1 MiB.

    Both are modules of their own, which nothing reads while it runs. Where another release has none of these names,
    nothing is left out.
    """
    with standing_in("numpy._typing", "numpy._core._add_newdocs", "numpy._core._add_newdocs_scalars"):
        import numpy  # noqa: F401


def import_paho(*, tls: bool) -> None:
    """Imports paho-mqtt without Python's HTTP client, and without OpenSSL where nothing speaks TLS: 1 MiB, and 5.

    The client is for proxies, of which paho knows with another library alone: where there is PySocks, it gets both.
    """
    with standing_in("urllib.request", *(() if tls else ("ssl",))):
        import paho.mqtt.client as paho
    if getattr(paho, "socks", None) is not None:
        import urllib.request  # noqa: F401
