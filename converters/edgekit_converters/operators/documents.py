"""Pieces of the graph of one document: its characters, its tokens, their n-grams. All are vectors of texts.

`Tokenizer` without a pattern takes a text apart into its characters; two neighbours at a time, `StringConcat` puts them
together again. What is looked up among known terms needs no mask: a text that is none of them is unknown.

Source: `_word_ngrams`, `_char_ngrams` and `_char_wb_ngrams` of sklearn/feature_extraction/text.py; onnxruntime's
docs/ContribOperators.md (Tokenizer); ONNX operator schemas StringConcat-20, RegexFullMatch-20, LabelEncoder-2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from edgekit_converters.graph import MICROSOFT, ML, Dtype, GraphBuilder, Shape
from edgekit_converters.operators.characters import SIGMA, SMALL_SIGMAS, Folding, expression, sigma_context, white

OPSET: Final = 20
"""The first with StringConcat and RegexFullMatch; every release of onnxruntime that we write for loads it."""
END: Final = 2**62
"""As the end of a slice: everything."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A vector in the graph of one document, mostly of texts."""

    graph: GraphBuilder
    name: str

    def apply(self, op: str, *others: Texts | str, domain: str = "", **attributes: Any) -> Texts:
        """The node `op` of this vector and the others."""
        given = [self.name, *(one if isinstance(one, str) else one.name for one in others)]
        return Texts(self.graph, self.graph.node(op, given, 1, domain, **attributes)[0])

    def of(self, *values: Any) -> Texts:
        """A constant vector: texts, whole numbers or truth values."""
        array = np.array(values, dtype=object if isinstance(values[0], str) else None)
        return Texts(self.graph, self.graph.constant(array, "constant"))

    def look_up(self, known: Mapping[str, str | int], default: str | int) -> Texts:
        """For each text what is known of it: all whole numbers, or all texts."""
        keys, values = list(known), list(known.values())
        kind = "int64" if isinstance(default, int) else "string"
        spelled: dict[str, Any] = {f"values_{kind}s": values, f"default_{kind}": default}
        return self.apply("LabelEncoder", domain=ML, keys_strings=keys, **spelled)

    def slice(self, start: int, end: int = END, step: int = 1) -> Texts:
        """A part of it, as Python's slices; nothing where it is too short."""
        return self.apply("Slice", self.of(start), self.of(end), self.of(0), self.of(step))

    def concat(self, *others: Texts) -> Texts:
        """The vectors one after another."""
        return self.apply("Concat", *others, axis=0) if others else self

    def compress(self, keep: Texts) -> Texts:
        """Those of it where `keep` is true."""
        return self.apply("Compress", keep, axis=0)

    def where(self, chosen: Texts, other: Texts) -> Texts:
        """Of truth values: `chosen` where it is true, else `other`."""
        return self.apply("Where", chosen, other)

    def matches(self, pattern: str) -> Texts:
        """Whether each text is, to its end, what an RE2 pattern describes."""
        return self.apply("RegexFullMatch", pattern=pattern)

    def is_in(self, known: Sequence[str]) -> Texts:
        """Whether each text is one of those."""
        return self.look_up(dict.fromkeys(known, 1), 0).apply("Cast", to=TensorProto.BOOL)

    def tokens(self, **how: Any) -> Texts:
        """The tokens of every text, in order."""
        padded = self.apply("Tokenizer", domain=MICROSOFT, mark=0, pad_value="", mincharnum=1, **how)
        self.graph.declare(padded.name, "text", [None, None])
        return padded.apply("Reshape", self.of(-1))

    def each_within(self, pattern: str) -> Texts:
        """The one token of each text."""
        # An empty text beside them, for there is no token in no text; what stands for its token goes again.
        return self.concat(self.of("")).tokens(tokenexp=pattern).slice(0, -1)

    def characters(self) -> Texts:
        """The characters of one text [1]."""
        return self.tokens(separators=[""])


def folded(text: Texts, how: Folding) -> Texts:
    """The characters of a text, folded: none, one or several for each."""
    characters = text.characters()
    if how.sigma:
        characters = _final_sigmas(text, characters)
    if not how.table:
        return characters
    same = "=" * (1 + max(map(len, how.table.values())))  # longer than every entry: none of them
    found = characters.look_up(how.table, "" if how.removes else same)
    return found if how.removes else found.apply("Equal", text.of(same)).where(characters, found)


def split(parts: Texts) -> Texts:
    """The characters of texts that may hold none or several."""
    # One text beside them, for there is no token in no text.
    characters = parts.concat(parts.of("")).tokens(separators=[""])
    return characters.compress(characters.apply("Equal", parts.of("")).apply("Not"))


def joined(parts: Texts) -> Texts:
    """All the texts as one [1], by joining neighbours over and over."""
    outer = parts.graph
    inner = outer.inner()
    inner.argument("turn", "int64", [])
    inner.argument("more", "bool", [])
    given = Texts(inner, inner.argument("parts", "text", [None]))
    pairs = given.slice(0, END, 2).apply("StringConcat", given.concat(given.of("")).slice(1, END, 2))
    several = pairs.apply("Size").apply("Greater", inner.constant(np.array(1, dtype=np.int64), "one"))
    body = inner.body({several.name: ("bool", []), pairs.name: ("text", [None])})
    start = outer.constant(np.array(True), "true")
    return Texts(outer, outer.node("Loop", ["", start, parts.concat(parts.of("")).name], body=body)[0])


def _final_sigmas(text: Texts, characters: Texts) -> Texts:
    """Capital sigmas at the end of words become final ones.

    One is final where the last character before it that is not looked through is a letter with a case, and the first
    such one after it is none.
    """
    graph = characters.graph
    cased, through = sigma_context()
    there, absent = graph.inner(), graph.inner()
    these = Texts(there, characters.name)
    firm = these.matches(expression(through)).apply("Not")
    false = these.of(False)
    beside = false.concat(these.matches(expression(cased)).compress(firm), false)
    place = firm.apply("Cast", to=TensorProto.INT64).apply(
        "CumSum", there.constant(np.array(0, dtype=np.int64), "axis")
    )
    before = beside.apply("Gather", place.apply("Sub", these.of(1)))
    after = beside.apply("Gather", place.apply("Add", these.of(1)))
    final = these.apply("Equal", these.of(SIGMA)).apply("And", before).apply("And", after.apply("Not"))
    found = final.where(these.of(SMALL_SIGMAS[1]), these)
    kept = Texts(absent, characters.name).apply("Identity")
    answers: tuple[Dtype, Shape] = ("text", [None])
    none = text.matches(rf"[^\x{{{ord(SIGMA):x}}}]*")
    same, folded = absent.body({kept.name: answers}), there.body({found.name: answers})
    return Texts(graph, graph.node("If", [none.name], then_branch=same, else_branch=folded)[0])


def word_grams(tokens: Texts, low: int, high: int) -> list[Texts]:
    """Tokens, and `low` to `high` neighbours with a space between them."""
    found, grams = [], tokens
    for size in range(1, high + 1):
        if size > 1:
            spaced = grams.slice(0, -1).apply("StringConcat", tokens.of(" "))
            grams = spaced.apply("StringConcat", tokens.slice(size - 1))
        if size >= low:
            found.append(grams)
    return found


def character_grams(characters: Texts, low: int, high: int) -> list[Texts]:
    """`low` to `high` neighbours, after runs of white space became one space."""
    space = characters.is_in(WHITE)
    after_space = _before(space)
    before_space = space.slice(1).concat(space.of(False))
    kept = space.apply("And", after_space).apply("Not")
    blank = space.apply("And", before_space)
    stream = blank.where(characters.of(" "), characters).compress(kept)
    return _windows(stream, low, high)


def edged_grams(characters: Texts, low: int, high: int, *, masked: bool) -> list[Texts]:
    """`low` to `high` neighbours inside of words, each of which has a space before and after it.

    A word that is shorter than `low` with its spaces is there once, as it is.

    Args:
        characters: Of the text.
        low: At least so many.
        high: At most so many.
        masked: Leave out what no word holds: else there are windows with a space inside, and of fewer than `low`,
            for a table of terms to leave out.
    """
    edge = characters.of(" ")
    padded = edge.concat(characters.is_in(WHITE).where(edge, characters), edge)
    space = padded.apply("Equal", edge)
    kept = space.apply("And", _before(space)).apply("Not")
    stream, space = padded.compress(kept), space.compress(kept)
    found = []
    if low == 1:
        # The space between two words is the last of one and the first of the other.
        single, spaces = stream.slice(1), space.slice(1)
        found += [single, single.compress(spaces)]
    if high == 1:
        return found
    windows = _windows(stream, 2, high)
    if not masked:
        return [*found, *windows[min(3, max(low, 2)) - 2 :]]
    seen = space.apply("Cast", to=TensorProto.INT64).apply(
        "CumSum", characters.graph.constant(np.array(0, dtype=np.int64), "axis")
    )
    for size, window in enumerate(windows, start=2):
        inside = seen.slice(size - 2).slice(0, -1).apply("Equal", seen.slice(0, 1 - size))
        if size < low:
            inside = inside.apply("And", space.slice(0, 1 - size)).apply("And", space.slice(size - 1))
        if size >= min(3, low):
            found.append(window.compress(inside))
    return found


def _before(flags: Texts) -> Texts:
    """Of each place, whether the place before it is true."""
    return flags.of(False).concat(flags.slice(0, -1))


def _windows(stream: Texts, low: int, high: int) -> list[Texts]:
    found, grams = [], stream
    for size in range(1, high + 1):
        if size > 1:
            grams = grams.slice(0, -1).apply("StringConcat", stream.slice(size - 1))
        if size >= low:
            found.append(grams)
    return found


WHITE: Final[Sequence[str]] = tuple(chr(point) for point in np.flatnonzero(white()).tolist())
