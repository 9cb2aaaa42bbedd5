r"""Token patterns: a regular expression of Python becomes one of RE2 that finds the same tokens, or is refused.

onnxruntime's `Tokenizer` takes the leftmost match, and of those the longest; Python takes the first that its order of
trying finds. Both are the same where the pattern is deterministic: after every character that it has read, the next
one can continue it in one way at most, and every repetition is greedy. That is checked on the pattern's position
automaton. Each class of characters is what Python's own compiler makes of it, over all of Unicode, written as ranges.

RE2 knows word boundaries of ASCII only, so `\b` at both ends is resolved: where a pattern holds word characters only,
its tokens are the whole runs of word characters that match it to the end; where it is a run of these and others
(`[\w'-]+`), they reach from the first word character of a run to its last; where it begins and ends with unlimited runs
of word characters (`\w+(?:-\w+)*`), it ends at boundaries by itself. Nor does RE2 look ahead: a run of one class before
another class (`\w+(?=\s)`) is found with the next character, kept where that is there, and taken out of it again.

Source: V. M. Glushkov, The abstract theory of automata, Russian Math. Surveys 16 (1961); A. Brueggemann-Klein, D. Wood,
One-unambiguous regular languages, Information and Computation 140 (1998); CPython's Lib/re/_parser.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from typing import Any, Final

import numpy as np

from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.characters import Points, alphabet, expression, points_of

POSITIONS_MAX: Final = 64
"""Characters that a pattern may name, repetitions counted: RE2 has a limit of memory."""

_parser: Any = import_module("re._parser")
_compiler: Any = import_module("re._compiler")


@dataclass(frozen=True, slots=True)
class TokenPattern:
    """How tokens are found."""

    finds: str
    """The RE2 pattern of which the tokens are the longest matches, from the left."""
    keeps: str | None
    """The RE2 pattern that a token must match to the end; None: all are kept."""
    kinds: tuple[Points, ...]
    """The sets of characters that it tells apart."""
    within: str | None = None
    """The RE2 pattern of the token in what was found and kept; None: that is the token."""
    between: bool = False
    """`finds` is what stands between the tokens."""

    def is_token(self, text: str) -> bool:
        """Whether a text could be a token: false only where it is dropped by `keeps`."""
        if self.between:
            return text != "" and re.search(self.finds, text) is None
        whole = self.keeps if self.within is None else self.within
        return whole is None or re.fullmatch(_python(whole), text) is not None


@dataclass(frozen=True, slots=True)
class _Class:
    """One character of a set."""

    points: Points


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    """At least `low` times, at most `high` (None: without end)."""

    part: _Node
    low: int
    high: int | None


_Node = _Class | _Sequence | _Choice | _Repeat


@cache
def token_pattern(pattern: str) -> TokenPattern:
    """The tokens of `re.findall` with that pattern.

    Raises:
        Unfaithful: It is not proved that RE2 finds the same.
    """
    tree = _parser.parse(pattern)
    items, starts, ends = _stripped(list(tree))
    if items and not starts and _is_look_ahead(items[-1]):
        return _before(items, tree.state)
    word = points_of("".join(re.compile(r"\w", tree.state.flags & re.ASCII).findall(alphabet())))
    node = _merged(_Sequence(tuple(_nodes(items, tree.state))))
    automaton = _Automaton(node)
    if automaton.nullable:
        raise _odd(pattern, "it matches the empty text")
    kinds = tuple(automaton.points)
    finds = _written(node)
    if starts or ends:
        inside = all(not (points & ~word).any() for points in kinds)
        if not _is_run(node, word) and inside and starts and ends:
            return TokenPattern(f"{expression(word)}+", finds, (word, *kinds))
        wider = _wider(node, word) if starts and ends else None
        if wider is not None:
            within = f"{expression(word)}(?:{expression(wider)}*{expression(word)})?"
            return TokenPattern(within, finds, (word, *kinds))
        if not automaton.ends_at_boundaries(word) or not _unlimited(node, word):
            raise _odd(pattern, r"RE2 knows no \b of Unicode, and the pattern does not end at boundaries by itself")
    if not automaton.deterministic:
        raise _odd(pattern, "one text can match it in several ways, of which RE2 takes another than Python")
    return TokenPattern(finds, None, kinds)


def separated(separator: str) -> TokenPattern:
    """The tokens of `str.split` with a separator, but for empty ones."""
    return TokenPattern(re.escape(separator), None, tuple(map(points_of, sorted(set(separator)))), between=True)


def _before(items: list[Any], state: Any) -> TokenPattern:
    """A run of one class before a character of another: then no shorter run, and no later start, matches either."""
    run, after = (
        _counted(_merged(_Sequence(tuple(_nodes(part, state))))) for part in (items[:-1], list(items[-1][1][1]))
    )
    if run is None or after is None or run[1] < 1 or run[2] is not None or after[1] != 1:
        raise _odd(state.str, "it looks ahead, not from a run of one class to a character of another")
    if (run[0].points & after[0].points).any():
        raise _odd(state.str, "it looks ahead to a character that may be its own")
    token, next_one = f"{expression(run[0].points)}{{{run[1]},}}", expression(after[0].points)
    return TokenPattern(f"{token}{next_one}?", token + next_one, (run[0].points, after[0].points), token)


def _is_look_ahead(item: Any) -> bool:
    return str(item[0]) == "ASSERT" and item[1][0] > 0


def _odd(pattern: str, why: str) -> Unfaithful:
    return Unfaithful(
        f"its token_pattern {pattern[:80]!r} has no exact counterpart: {why}",
        r"use a pattern such as (?u)\b\w\w+\b, \w+ or [a-z]+, and fit again",
    )


def _stripped(items: list[Any]) -> tuple[list[Any], bool, bool]:
    r"""The pattern without `\b` at its start and end, and without the group around it."""
    starts = ends = False
    while True:
        if items and _is_boundary(items[0]):
            items, starts = items[1:], True
        elif items and _is_boundary(items[-1]):
            items, ends = items[:-1], True
        elif len(items) == 1 and str(items[0][0]) == "SUBPATTERN" and not (items[0][1][1] or items[0][1][2]):
            items = list(items[0][1][3])
        else:
            return items, starts, ends


def _is_boundary(item: Any) -> bool:
    return str(item[0]) == "AT" and str(item[1]) == "AT_BOUNDARY"


def _nodes(items: Sequence[Any], state: Any) -> Iterator[_Node]:
    for operator, argument in items:
        match str(operator):
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                alone = _parser.State()
                alone.flags, alone.str = state.flags, state.str
                single = _compiler.compile(_parser.SubPattern(alone, [(operator, argument)]), state.flags)
                yield _Class(points_of("".join(single.findall(alphabet()))))
            case "MAX_REPEAT":
                low, high, part = argument
                last = None if high == _parser.MAXREPEAT else int(high)
                yield _Repeat(_Sequence(tuple(_nodes(list(part), state))), int(low), last)
            case "BRANCH":
                yield _Choice(tuple(_Sequence(tuple(_nodes(list(one), state))) for one in argument[1]))
            case "SUBPATTERN" if argument[0] is None and not (argument[1] or argument[2]):
                yield _Sequence(tuple(_nodes(list(argument[3]), state)))
            case other:
                raise _odd(state.str, f"it uses {_NAMES.get(other, other.lower().replace('_', ' '))}")


_NAMES: Final = {
    "ASSERT": "a look-around",
    "ASSERT_NOT": "a look-around",
    "AT": "a position inside of it",
    "MIN_REPEAT": "a repetition that is not greedy",
    "SUBPATTERN": "a group that is not the whole pattern, or has flags of its own",
}


def _merged(node: _Node) -> _Node:
    r"""Nested sequences flat, and neighbours of one class joined: `\w\w+` is `\w{2,}`."""
    if isinstance(node, _Repeat):
        return _Repeat(_merged(node.part), node.low, node.high)
    if isinstance(node, _Choice):
        return _Choice(tuple(map(_merged, node.parts)))
    if isinstance(node, _Class):
        return node
    parts: list[_Node] = []
    for one in map(_merged, node.parts):
        for part in one.parts if isinstance(one, _Sequence) else (one,):
            joined = _joined(parts[-1], part) if parts else None
            if joined is not None:
                parts[-1] = joined
            else:
                parts.append(part)
    return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))


def _joined(one: _Node, other: _Node) -> _Repeat | None:
    first, second = _counted(one), _counted(other)
    if first is None or second is None or not np.array_equal(first[0].points, second[0].points):
        return None
    high = None if first[2] is None or second[2] is None else first[2] + second[2]
    return _Repeat(first[0], first[1] + second[1], high)


def _counted(node: _Node) -> tuple[_Class, int, int | None] | None:
    if isinstance(node, _Class):
        return node, 1, 1
    if isinstance(node, _Repeat) and isinstance(node.part, _Class):
        return node.part, node.low, node.high
    return None


def _is_run(node: _Node, word: Points) -> bool:
    r"""Whether it is `\w{n,}`."""
    counted = _counted(node)
    return counted is not None and counted[2] is None and np.array_equal(counted[0].points, word)


def _wider(node: _Node, word: Points) -> Points | None:
    r"""The class [\w...] of `[\w...]{n,}`, `\w[\w...]*` or `\w[\w...]*\w`, which holds all word characters and others.

    What such a pattern finds between boundaries is the longest part of a run that begins and ends with a word
    character; where that is too short, so is every other part.
    """
    parts: tuple[_Node, ...] = node.parts if isinstance(node, _Sequence) else (node,)
    edges = (*parts[:1], *parts[2:]) if len(parts) > 1 else ()
    run = _counted(parts[min(1, len(parts) - 1)])
    if len(parts) > 3 or run is None or run[2] is not None or (edges and run[1] > 0):
        return None
    if any(not isinstance(one, _Class) or not np.array_equal(one.points, word) for one in edges):
        return None
    return None if (word & ~run[0].points).any() else run[0].points


def _unlimited(node: _Node, word: Points) -> bool:
    r"""Whether word characters come as `\w{n,}` only: then a longer run never stops a match."""
    if _is_run(node, word):
        return True
    if isinstance(node, _Class):
        return not (node.points & word).any()
    if isinstance(node, _Repeat):
        return _unlimited(node.part, word)
    return all(_unlimited(one, word) for one in node.parts)


def _written(node: _Node) -> str:
    if isinstance(node, _Class):
        return expression(node.points)
    if isinstance(node, _Sequence):
        return "".join(map(_written, node.parts))
    if isinstance(node, _Choice):
        return f"(?:{'|'.join(map(_written, node.parts))})"
    return f"(?:{_written(node.part)}){{{node.low},{'' if node.high is None else node.high}}}"


def _python(pattern: str) -> str:
    r"""The same for Python, whose code points are written \UXXXXXXXX."""
    return re.sub(r"\\x\{([0-9a-f]+)\}", lambda found: rf"\U{int(found[1], 16):08x}", pattern)


@dataclass
class _Automaton:
    """The position automaton: one state for each character of the pattern, repetitions written out."""

    node: _Node
    points: list[Points] = field(default_factory=list)
    follow: list[set[int]] = field(default_factory=list)
    greedy: bool = True
    """No choice or repetition can be left empty handed before what it holds was tried."""

    def __post_init__(self) -> None:
        self.nullable, self.first, self.last = self._build(self.node)

    @cached_property
    def deterministic(self) -> bool:
        """Whether every next character leads to one position at most."""
        return self.greedy and all(self._apart(places) for places in (self.first, *self.follow))

    def ends_at_boundaries(self, word: Points) -> bool:
        """Whether every match begins with a word character and takes all that follow its last one."""
        begins = all(not (self.points[place] & ~word).any() for place in self.first | self.last)
        goes_on = all(
            any(after in self.last and np.array_equal(self.points[after], word) for after in self.follow[place])
            for place in self.last
        )
        return begins and goes_on

    def _apart(self, places: set[int]) -> bool:
        seen: Points | None = None
        for place in places:
            if seen is not None and (seen & self.points[place]).any():
                return False
            seen = self.points[place] if seen is None else seen | self.points[place]
        return True

    def _build(self, node: _Node) -> tuple[bool, set[int], set[int]]:
        """Whether it matches nothing, and its first and last positions."""
        if isinstance(node, _Class):
            if len(self.points) == POSITIONS_MAX:
                raise Unfaithful(
                    f"its token_pattern names more than {POSITIONS_MAX} characters", "use a shorter pattern"
                )
            self.points.append(node.points)
            self.follow.append(set())
            return False, {len(self.points) - 1}, {len(self.points) - 1}
        if isinstance(node, _Sequence):
            return self._chain([self._build(one) for one in node.parts])
        if isinstance(node, _Choice):
            found = [self._build(one) for one in node.parts]
            self.greedy &= not any(empty for empty, _, _ in found)
            return (
                any(empty for empty, _, _ in found),
                set().union(*(first for _, first, _ in found)),
                set().union(*(last for _, _, last in found)),
            )
        return self._repeat(node)

    def _repeat(self, node: _Repeat) -> tuple[bool, set[int], set[int]]:
        """`x{2,4}` is x x (x (x)?)?, and `x{2,}` is x x x*."""
        copies = [self._build(node.part) for _ in range(node.low)]
        if node.high is None:
            copies.append(self._build(node.part))
            empty, first, last = copies[-1]
            for place in last:
                self.follow[place] |= first
            copies[-1] = (True, first, last)
            self.greedy &= not empty
            return self._chain(copies)
        optional: list[tuple[bool, set[int], set[int]]] = []
        for _ in range(node.high - node.low):
            optional.append(self._build(node.part))
        self.greedy &= not any(empty for empty, _, _ in (*copies, *optional))
        nested: tuple[bool, set[int], set[int]] = (True, set(), set())
        for one in reversed(optional):
            _, first, last = self._chain([one, nested])
            nested = (True, first, last)
        return self._chain([*copies, nested])

    def _chain(self, parts: list[tuple[bool, set[int], set[int]]]) -> tuple[bool, set[int], set[int]]:
        nullable, first, last = True, set[int](), set[int]()
        for empty, begins, ends in parts:
            for place in last:
                self.follow[place] |= begins
            first = first | begins if nullable else first
            last = last | ends if empty else ends
            nullable = nullable and empty
        return nullable, first, last
