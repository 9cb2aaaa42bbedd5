"""What may stand at a place in a document, in words: msgspec says what it found there, and no more."""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import inspect

_STEP: Final = re.compile(r"\.(\w+)|\[(?:\d+|\.\.\.)\]")
_NUMBERS: Final = {inspect.IntType: "a whole number", inspect.FloatType: "a number"}


def choices(kind: Any, path: str) -> str:
    """The numbers and words of a type's field, such as `a whole number or "off"`.

    Args:
        kind: The type of the whole document.
        path: As msgspec names it: `$.serve.port`, `$.models[0].automation`; empty for `kind` itself.

    Returns:
        Empty where there are none.
    """
    at = _members(inspect.type_info(kind))
    for step in _STEP.finditer(path):
        inner = [one.item_type for one in at if isinstance(one, (inspect.VarTupleType, inspect.ListType))]
        fields = [field for one in at if isinstance(one, inspect.StructType) for field in one.fields]
        named = [field.type for field in fields if field.encode_name == step[1]]
        at = tuple(one for found in (named if step[1] else inner) for one in _members(found))
    words = [_NUMBERS[type(one)] for one in at if type(one) in _NUMBERS]
    for one in at:
        if isinstance(one, inspect.LiteralType):
            words += [f'"{value}"' if isinstance(value, str) else str(value) for value in one.values]
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _members(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    kind = kind.type if isinstance(kind, inspect.Metadata) else kind
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)
