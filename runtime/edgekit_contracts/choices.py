"""What may stand at a place in a document, in words: msgspec says what it found there, and no more."""

from __future__ import annotations

import difflib
import re
from typing import Any, Final

from msgspec import inspect

_STEP: Final = re.compile(r"\.(\w+)|\[(?:\d+|\.\.\.)\]")
_NO_CHOICE: Final = re.compile(r"Invalid enum value (.*)", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_NUMBERS: Final = {inspect.IntType: "a whole number", inspect.FloatType: "a number"}


def explained(fault: str, kind: Any, path: str) -> str:
    """The fault, and what may stand there instead, such as `expected a whole number or "off", found the text '80'`.

    Args:
        fault: As msgspec says it.
        kind: The type of the whole document.
        path: As msgspec names it: `$.serve.port`, `$.models[0].automation`; empty for `kind` itself.
    """
    if found := _NO_CHOICE.fullmatch(fault):
        return f"expected {_choices(kind, path)}, found {'the text ' if found[1].startswith(chr(39)) else ''}{found[1]}"
    if found := _UNKNOWN.fullmatch(fault):
        names = [
            field.encode_name for one in _at(kind, path) if isinstance(one, inspect.StructType) for field in one.fields
        ]
        return f"{fault}; there is {', '.join(difflib.get_close_matches(found[1], names, n=3) or sorted(names))}"
    return fault


def _choices(kind: Any, path: str) -> str:
    """The numbers and words that may stand there; empty where there are none."""
    at = _at(kind, path)
    words = [_NUMBERS[type(one)] for one in at if type(one) in _NUMBERS]
    for one in at:
        if isinstance(one, inspect.LiteralType):
            words += [f'"{value}"' if isinstance(value, str) else str(value) for value in one.values]
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _at(kind: Any, path: str) -> tuple[inspect.Type, ...]:
    """The types that may stand at a path."""
    at = _members(inspect.type_info(kind))
    for step in _STEP.finditer(path):
        inner = [one.item_type for one in at if isinstance(one, (inspect.VarTupleType, inspect.ListType))]
        fields = [field for one in at if isinstance(one, inspect.StructType) for field in one.fields]
        named = [field.type for field in fields if field.encode_name == step[1]]
        at = tuple(one for found in (named if step[1] else inner) for one in _members(found))
    return at


def _members(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    kind = kind.type if isinstance(kind, inspect.Metadata) else kind
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)
