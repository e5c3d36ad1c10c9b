"""Patterns as sets of texts: whether one holds another, whether two meet, and a text that shows it.

A pattern is read as a finite automaton, and several run side by side over one text: `word` looks for a text that all of
some patterns match and none of others does. What it finds is a proof of a difference, and finding nothing is a proof
that there is none: every character that no pattern tells from another is tried once for all of them.

The work is bounded: patterns that would take longer are told apart by TooManyStates, and not by a guess.
Lengths are not looked at: a text may be longer than any path.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from .paths import split
from .patterns import HOME, RECURSIVE, VARIABLE, PathPattern, pattern_ranges, pattern_tokens

# States of all automata together that are visited for one question: some tenths of a second.
STATES = 4_000

_SLASH = ord("/")
_LAST = 0x10FFFF
_KEPT = 16_384

Ranges = tuple[tuple[int, int], ...]
"""Characters by their numbers, first and last."""

_ANY: Ranges = ((1, _LAST),)
_IN_A_NAME: Ranges = ((1, _SLASH - 1), (_SLASH + 1, _LAST))

# What a text is made of where a pattern leaves the choice: what is read and typed with ease.
_PREFERRED = "xyzabcdefghijklmnopqrstuvw0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_"


class TooManyStates(Exception):
    """These patterns are too much for the question that was asked."""


class Step(NamedTuple):
    """One character of these, or with `repeats` any number of them."""

    characters: Ranges
    repeats: bool


class Language(NamedTuple):
    """The texts that a pattern matches."""

    steps: tuple[Step, ...]
    is_path: bool
    """Whether only texts of a path's shape count: no empty name, and no slash at the end."""


@lru_cache(_KEPT)
def of_path(pattern: PathPattern) -> Language:
    """Return the paths that `pattern` matches. With variables: every path that it could match for anybody."""
    text = pattern.text
    steps: list[Step] = []
    if text.startswith(HOME):
        text = text.removeprefix(HOME)
        name = (Step(_IN_A_NAME, False), Step(_IN_A_NAME, True))
        steps = [_literal("/"), *name, _literal("/"), Step(_IN_A_NAME, False), Step(_ANY, True)]
    for part in split(text):
        steps.append(_literal("/"))
        if part == RECURSIVE:
            steps += [Step(_IN_A_NAME, False), Step(_ANY, True)]
        else:
            steps += _component(VARIABLE.sub("*", part))
    return Language(tuple(steps), True)


@lru_cache(_KEPT)
def of_value(text: str) -> Language:
    """Return the values, none of them empty, that a pattern for a device's property matches."""
    return Language(tuple(_steps(text, _ANY)), False)


def word(inside: Iterable[Language], outside: Iterable[Language] = ()) -> str | None:
    """Return a text that all of `inside` hold and none of `outside` does; None when there is none.

    Raises TooManyStates.
    """
    return _Machines(list(inside), list(outside)).shortest()


def some_word(inside: Sequence[Language], outside: Iterable[Language] = ()) -> str | None:
    """Return what word() does, and None also where that was not found out."""
    try:
        return word(inside, outside)
    except TooManyStates:
        return None


def is_empty(inside: Sequence[Language], outside: Iterable[Language] = ()) -> bool:
    """Tell whether no text is in all of `inside` and in none of `outside`; False where that was not found out."""
    try:
        return word(inside, outside) is None
    except TooManyStates:
        return False


def _component(text: str) -> list[Step]:
    return _steps(re.sub(r"\*{2,}", "*", text), _IN_A_NAME)


def _steps(text: str, universe: Ranges) -> list[Step]:
    steps = []
    for token in pattern_tokens(text):
        if token == "*":
            steps.append(Step(universe, True))
        elif token == "?":
            steps.append(Step(universe, False))
        elif len(token) == 1:
            steps.append(_literal(token))
        else:
            steps.append(Step(_bracket(token, universe), False))
    return steps


def _bracket(token: str, universe: Ranges) -> Ranges:
    negated = token[1] == "!"
    listed = [(ord(low), ord(high)) for low, high in pattern_ranges(token[2 if negated else 1 : -1])]
    return _meet(universe, _complement(listed) if negated else tuple(listed))


def _complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    left, kept = 1, []
    for low, high in sorted(ranges):
        if low > left:
            kept.append((left, low - 1))
        left = max(left, high + 1)
    return tuple([*kept, (left, _LAST)] if left <= _LAST else kept)


def _meet(one: Ranges, other: Ranges) -> Ranges:
    pairs = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return tuple((low, high) for low, high in pairs if low <= high)


def _literal(character: str) -> Step:
    return Step(((ord(character), ord(character)),), False)


class _Machines:
    """The automata of several patterns side by side. A state is a number whose bits are places between steps."""

    def __init__(self, inside: list[Language], outside: list[Language]) -> None:
        languages = inside + outside
        self._paths = any(one.is_path for one in languages)
        self._start = 0
        self._repeating = 0
        self._whole: list[int] = []  # the places of each pattern of `inside`
        self._ends: list[int] = []  # the last place of each of them
        self._bad_ends = 0
        # Places by what may stand there: few sets of characters make up many steps.
        singles: dict[Ranges, int] = {}
        repeats: dict[Ranges, int] = {}
        place = 0
        for number, language in enumerate(languages):
            first = place
            self._start |= 1 << place
            for step in language.steps:
                if step.repeats:
                    self._repeating |= 1 << place
                places = repeats if step.repeats else singles
                places[step.characters] = places.get(step.characters, 0) | 1 << place
                place += 1
            if number < len(inside):
                self._ends.append(1 << place)
                self._whole.append(((1 << place + 1) - 1) & ~((1 << first) - 1))
            else:
                self._bad_ends |= 1 << place
            place += 1
        # For each character that stands for all that no pattern tells from it: the places that it leads on from.
        self._moves = [
            (character, _holding(singles, character), _holding(repeats, character))
            for character in _representatives((*singles, *repeats))
        ]

    def shortest(self) -> str | None:
        start = (self._closed(self._start), False)
        seen = {start}
        waiting = deque([(*start, "")])
        while waiting:
            state, after_slash, text = waiting.popleft()
            if not after_slash and text and self._accepts(state):
                return text
            for character, singles, repeats in self._moves:
                is_slash = self._paths and character == _SLASH
                if is_slash and after_slash:
                    continue
                following = self._closed((state & singles) << 1 | state & repeats)
                if not all(following & whole for whole in self._whole) or (following, is_slash) in seen:
                    continue
                if len(seen) >= STATES:
                    raise TooManyStates
                seen.add((following, is_slash))
                waiting.append((following, is_slash, text + chr(character)))
        return None

    def _closed(self, state: int) -> int:
        """`state` with the places behind steps that may repeat no times."""
        while True:
            wider = state | (state & self._repeating) << 1
            if wider == state:
                return state
            state = wider

    def _accepts(self, state: int) -> bool:
        return not state & self._bad_ends and all(state & end for end in self._ends)


def _holding(steps: Mapping[Ranges, int], character: int) -> int:
    mask = 0
    for ranges, places in steps.items():
        if any(low <= character <= high for low, high in ranges):
            mask |= places
    return mask


def _representatives(ranges: Iterable[Ranges]) -> list[int]:
    """One character of each set that the ranges do not tell apart, those that read well before others."""
    cuts = {1, _LAST + 1}
    for one in set(ranges):
        for low, high in one:
            cuts |= {low, high + 1}
    ordered = sorted(cuts)
    chosen = [_readable(low, end - 1) for low, end in pairwise(ordered)]
    return sorted(chosen, key=_rank)


def _rank(character: int) -> int:
    place = _PREFERRED.find(chr(character))
    return place if place >= 0 else len(_PREFERRED) + character


def _readable(low: int, high: int) -> int:
    return next((ord(one) for one in _PREFERRED if low <= ord(one) <= high), _printable(low, high))


def _printable(low: int, high: int) -> int:
    # Of a long range some will do; text of what is left is escaped where it is shown.
    return next((one for one in range(low, min(high, low + 256) + 1) if chr(one).isprintable()), low)
