r"""Tokenizers that are functions: those of which a token pattern does the same.

`str.split` is `\S+`, and with a separator whatever is between two of them; a compiled pattern's `findall` is that
pattern. A function is asked with a stand-in for the text, of which nothing can be had but a split: what it does else,
by character, by length or by iteration, ends in a refusal. Then function and pattern are compared on some texts.

Source: `str.split` of CPython's Objects/stringlib/split.h, which takes for white space what `\s` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, SupportsIndex

WORDS: Final = r"\S+"
SAMPLES: Final = ("", "a", " ", "One, two,,three  four\tfive\n", "ÄÖ\u2003x-y/z|1;2:3_4", "AND the, of", "a" * 300)
"""Texts on which a tokenizer and its pattern are compared."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """How a tokenizer finds its tokens."""

    pattern: str = ""
    """Of a token, where there is no separator."""
    separator: str = ""
    """What it takes a text apart at: then it gives empty tokens too."""

    def of(self, text: str) -> list[str]:
        """The tokens of a text."""
        return text.split(self.separator) if self.separator else re.findall(self.pattern, text)


class _Text:
    """Stands in for a text."""

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> Tokens:
        found = _split(sep, maxsplit)
        if found is None:
            raise TypeError("a split that is no pattern")
        return found

    def __eq__(self, other: object) -> bool:
        raise TypeError("it looks at the text")

    def __bool__(self) -> bool:
        raise TypeError("it looks at the text")

    __hash__ = None  # type: ignore[assignment]


def tokens_of(tokenizer: Any) -> Tokens | None:
    """What a tokenizer does, as a pattern; None where that is not known."""
    found = _found(tokenizer)
    if found is None:
        return None
    try:
        same = all(list(tokenizer(text)) == found.of(text) for text in SAMPLES)
    except Exception:  # whatever a function raises
        return None
    return found if same else None


def _found(tokenizer: Any) -> Tokens | None:
    if tokenizer is str.split:
        return Tokens(WORDS)
    if isinstance(tokenizer, partial) and tokenizer.func is str.split and not tokenizer.args:
        return _split(**tokenizer.keywords)
    compiled = getattr(tokenizer, "__self__", None)
    if isinstance(compiled, re.Pattern):
        plain = compiled.flags == re.UNICODE and isinstance(compiled.pattern, str) and not compiled.groups
        return Tokens(compiled.pattern) if plain and tokenizer == compiled.findall else None
    try:
        found = tokenizer(_Text())
    except Exception:  # whatever a function raises that is given no text
        return None
    return found if isinstance(found, Tokens) else None


def _split(sep: Any = None, maxsplit: Any = -1) -> Tokens | None:
    if maxsplit != -1:
        return None
    if sep is None:
        return Tokens(WORDS)
    return Tokens(separator=sep) if isinstance(sep, str) and sep else None
