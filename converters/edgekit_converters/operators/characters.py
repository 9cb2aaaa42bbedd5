"""What Python itself makes of single characters, as tables: the converted model asks no locale and no other Unicode.

`str.lower` looks at one character alone, but for the capital sigma: at the end of a word it becomes a final one. NFKD
reorders combining marks, which `strip_accents` then removes, so that it too is a table. Whatever release of Unicode
the Python that converts has is the one that the model keeps: the tables are read from it, not from the device's.

Source: `do_lower` and `handle_capital_sigma` of CPython's Objects/unicodeobject.c (Unicode, section 3.13, Final_Sigma);
`strip_accents_unicode` and `strip_accents_ascii` of sklearn/feature_extraction/text.py.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

SIGMA: Final = "\u03a3"
SMALL_SIGMAS: Final = "\u03c3\u03c2"
"""In a word, and at its end."""
POINTS: Final = 0x110000
BLOCK: Final = 256
"""Characters that are asked at once whether any of them changes."""
_SURROGATES: Final = range(0xD800, 0xE000)

Accents = Literal["ascii", "unicode"] | None
Points = NDArray[np.bool_]
"""[POINTS]: a set of characters, by code point."""


@dataclass(frozen=True, slots=True)
class Folding:
    """What becomes of each character before the text is taken apart."""

    table: Mapping[str, str]
    removes: bool
    """A character that is not in the table goes; else it stays as it is."""
    sigma: bool
    """The capital sigma's place in its word counts."""

    @property
    def resizes(self) -> bool:
        """Whether one character may become none or several."""
        return self.removes or any(len(text) != 1 for text in self.table.values())


@cache
def alphabet() -> str:
    """Every character that UTF-8 can hold, in order."""
    return "".join(chr(point) for point in range(POINTS) if point not in _SURROGATES)


def points_of(characters: str) -> Points:
    """The set of the characters."""
    found = np.zeros(POINTS, dtype=bool)
    found[np.frombuffer(characters.encode("utf-32-le"), dtype="<u4")] = True
    return found


@cache
def white() -> Points:
    r"""What `str.isspace` and the `\s` of a text pattern take for white space."""
    return points_of("".join(one for one in alphabet() if one.isspace()))


@cache
def folding(lowercase: bool, accents: Accents) -> Folding:
    """The whole table of scikit-learn's preprocessing."""
    removes = accents == "ascii"

    def fold(text: str) -> str:
        return _STRIP[accents](text.lower() if lowercase else text)

    table = {}
    whole = alphabet()
    for start in range(0, len(whole), BLOCK):
        block = whole[start : start + BLOCK]
        if fold(block) != ("" if removes else block):
            found = {one: fold(one) for one in block}
            table.update({one: text for one, text in found.items() if text != ("" if removes else one)})
    return Folding(table, removes, lowercase and not removes)


def needed(whole: Folding, known: frozenset[str], kinds: tuple[Points, ...]) -> Folding:
    """The part of the table that counts where every result is looked up among known terms.

    A character may stay as it is where neither it nor what becomes of it is in a known term, and both are of the same
    kind everywhere: the term that holds it is unknown either way.

    Args:
        whole: The table.
        known: All characters of the known terms.
        kinds: The sets of characters by which texts are taken apart.
    """
    if whole.removes:
        return whole

    def counts(one: str, text: str) -> bool:
        if one in known or not known.isdisjoint(text) or len(text) != 1:
            return True
        return any(bool(kind[ord(one)]) != bool(kind[ord(text)]) for kind in kinds)

    table = {one: text for one, text in whole.table.items() if counts(one, text)}
    middle, last = map(ord, SMALL_SIGMAS)
    apart = any(bool(kind[middle]) != bool(kind[last]) for kind in kinds)
    return Folding(table, False, whole.sigma and (apart or not known.isdisjoint(SMALL_SIGMAS)))


@cache
def sigma_context() -> tuple[Points, Points]:
    """Characters on which a capital sigma ends a word, and those that it looks through; by asking `str.lower`."""
    others = alphabet().replace(" ", "")  # a space is neither; it keeps the questions apart
    ends = _before_final(others, "")
    return points_of(ends), points_of(_before_final(others, "A")) & ~points_of(ends)


def _before_final(characters: str, first: str) -> str:
    """Those between `first` and a capital sigma that becomes a final one."""
    answers = " ".join(first + one + SIGMA for one in characters).lower().split(" ")
    return "".join(one for one, answer in zip(characters, answers, strict=True) if answer[-1] == SMALL_SIGMAS[1])


def expression(points: Points) -> str:
    """The set as a class of RE2, which knows no Unicode but what is written there."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], points, [False]]).astype(np.int8)))
    pairs = edges.reshape(-1, 2)
    return "[" + "".join(rf"\x{{{start:x}}}-\x{{{stop - 1:x}}}" for start, stop in pairs.tolist()) + "]"


def _without_marks(text: str) -> str:
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))


def _only_ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _same(text: str) -> str:
    return text


_STRIP: Final[Mapping[Accents, Callable[[str], str]]] = {
    None: _same,
    "unicode": _without_marks,
    "ascii": _only_ascii,
}
