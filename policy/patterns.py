"""Path patterns: how a policy names objects by their paths.

- A literal means itself.
- `*`, `?` and `[…]` stay inside one component; a leading dot is a character like any other; `[!…]` negates.
- A last `/**` means one or more components below; `**` stands nowhere else.
- There are no escapes: `[*]` matches a star. What other languages of patterns would read differently
  (a backslash, `[^…]`, `[:class:]`, `{a,b}`) is an error and never a literal, since a deny that silently
  matches nothing is a hole.
- `${user}`, `${uid}` and `${home}` stand for facts about the peer: see `variables`. A pattern with one of them
  matches nothing until it is expanded.
- Matching never backtracks over more than one `*`: the path is a client's, and must not cost the broker time.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from .paths import shape_fault, split
from .problems import shown

RECURSIVE = "**"
VARIABLE = re.compile(r"\$\{(user|uid|home)\}")
HOME = "${home}"
_VARIABLES = "${user}, ${uid} and ${home}"

# Distinct components of patterns that are kept, so that rules which share one share its compiled form.
_KEPT_COMPONENTS = 65_536

_WILD = re.compile(r"[*?\[]")
_OPEN = re.compile(r"[*?\[]|\$\{")  # where a pattern ceases to be literal

# No path has an empty component, so this matches none.
_NOTHING = ("",)


class PatternError(ValueError):
    """Text that is no path pattern; the message says why."""


class Glob:
    """One component of a pattern with wildcards in it. It is compiled when it is first compared."""

    __slots__ = ("_match", "prefix", "text")

    def __init__(self, text: str) -> None:
        """Raises PatternError when `text` is malformed."""
        for _ in pattern_tokens(text):
            pass
        self.text = text
        self.prefix = _WILD.split(text, maxsplit=1)[0]
        self._match: Callable[[str], object] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Glob) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def matches(self, component: str) -> bool:
        """Tell whether `component`, which holds no slash, matches."""
        if self._match is None:
            self._match = re.compile(_expression(self.text), re.DOTALL).fullmatch
        return self._match(component) is not None


def has_wildcards(text: str) -> bool:
    """Tell whether `text` holds what a Glob reads as more than itself."""
    return _WILD.search(text) is not None


class PathPattern(NamedTuple):
    """A pattern for absolute paths; made by parse_pattern. Two are equal when their text is."""

    text: str
    components: tuple[str | Glob, ...]
    """Without a last `**`: literals as text, the others as Glob."""
    recursive: bool
    """Whether it ends with `/**`."""
    variables: frozenset[str] = frozenset()
    """The names of those that are still to be expanded."""
    expanded: bool = False
    """Whether there were variables in it."""

    @property
    def literal(self) -> bool:
        """Whether it means exactly one path."""
        return not self.variables and _WILD.search(self.text) is None

    @property
    def literal_start(self) -> str:
        """The text that every path that it matches begins with; of one with variables, what precedes the first."""
        end = _OPEN.search(self.text)
        return self.text[: end.start()] if end else self.text

    @property
    def literal_root(self) -> str:
        """The deepest directory that it names literally: "/srv" for "/srv/**" and for "/srv/x"."""
        end = _OPEN.search(self.text)
        slash = self.text.rfind("/", 0, end.start() if end else None)
        return self.text[:slash] if slash > 0 else "/"

    def matches(self, components: Sequence[str]) -> bool:
        """Tell whether the path of these components matches."""
        below = len(components) - len(self.components)
        if below < 1 if self.recursive else below != 0:
            return False
        return all(
            part == component if isinstance(part, str) else part.matches(component)
            for part, component in zip(self.components, components, strict=False)
        )


def parse_pattern(text: str) -> PathPattern:
    """Return the pattern that `text` is. Raises PatternError with what is wrong about it."""
    if "${" in text:
        return _parse_with_variables(text)
    fault = shape_fault(text)
    if fault:
        raise PatternError(fault)
    if "\\" in text:
        raise PatternError("a backslash is not allowed: there are no escapes, '[*]' matches a star")
    if not text.isprintable():
        hidden = next(character for character in text if not character.isprintable())
        raise PatternError(f"the character {hidden!r} does not show: write '?' for it")
    if " /" in text or text.endswith(" "):
        raise PatternError("white space before '/' or at the end: several paths are a list, [/a, /b]")
    parts = split(text)
    recursive = parts[-1] == RECURSIVE
    return PathPattern(text, tuple(map(_component, parts[:-1] if recursive else parts)), recursive)


def _parse_with_variables(text: str) -> PathPattern:
    """Return the pattern, which matches nothing yet. What it can be blamed for is told whoever will ask."""
    for start in re.finditer(r"\$\{[^/}]*\}?", text):
        if not VARIABLE.fullmatch(start.group()):
            raise PatternError(f"unknown variable {shown(start.group())}, expected one of {_VARIABLES}")
    below = text.removeprefix(HOME)
    if HOME in below or (below != text and below and below[0] != "/"):
        raise PatternError("'${home}' stands only at the start, as '${home}/…'")
    for part in below.split("/"):
        if any(len(token) > 1 and "\0" in token for token in pattern_tokens(VARIABLE.sub("\0", part))):
            raise PatternError(f"a variable inside '[…]' is not allowed, in {shown(part)}")
    example = VARIABLE.sub("x", below)
    parsed = parse_pattern(example if below == text else f"/x/x{example}")
    return PathPattern(text, _NOTHING, parsed.recursive, frozenset(VARIABLE.findall(text)))


@lru_cache(_KEPT_COMPONENTS)
def _component(text: str) -> str | Glob:
    if RECURSIVE in text:
        raise PatternError(f"'**' stands only at the end, as '/**', not in {shown(text)}")
    if _WILD.search(text):
        return Glob(text)
    _refuse_brace(text)
    return text


def pattern_tokens(text: str) -> Iterator[str]:
    """Split a component into `*`, `?`, whole `[…]` and single characters."""
    place = 0
    while place < len(text):
        token = text[place]
        if token == "[":
            token = _bracket(text, place)
        else:
            _refuse_brace(token)
        yield token
        place += len(token)


def _refuse_brace(text: str) -> None:
    for brace in "{}":
        if brace in text:
            raise PatternError(f"{brace!r} is not allowed: list each path; '[{brace}]' matches a brace")


def _bracket(text: str, start: int) -> str:
    first = start + 2 if text[start + 1 : start + 2] == "!" else start + 1
    end = text.find("]", first + 1)  # a "]" in the first place is one of the characters
    if end < 0:
        raise PatternError(f"'[' without ']' in {shown(text)}")
    if text[first] == "^":
        raise PatternError("'[^' is not allowed: '[!…]' negates")
    for opening in ("[:", "[.", "[="):
        if opening in text[first:end]:
            raise PatternError(f"{opening!r} inside '[…]' is not allowed: list the characters")
    for low, high in pattern_ranges(text[first:end]):
        if low > high:
            raise PatternError(f"the range '{low}-{high}' runs backwards")
    return text[start : end + 1]


def pattern_ranges(characters: str) -> Iterator[tuple[str, str]]:
    """Yield the ranges of what stands between brackets; a single character is a range of its own."""
    place = 0
    while place < len(characters):
        is_range = characters[place + 1 : place + 2] == "-" and place + 2 < len(characters)
        last = place + 2 if is_range else place
        yield characters[place], characters[last]
        place = last + 1


def _expression(text: str) -> str:
    """Return the regular expression for a component.

    Between two stars the first place that fits is always right, so it is taken once and for all: that is
    what the atomic groups say.
    """
    chunks = [""]
    for token in pattern_tokens(text):
        if token == "*":
            chunks.append("")
        else:
            chunks[-1] += _single(token)
    first, *others = chunks
    if not others:
        return first
    return first + "".join(f"(?>.*?{chunk})" for chunk in others[:-1]) + ".*" + others[-1]


def _single(token: str) -> str:
    if token == "?":
        return "."
    if len(token) == 1:
        return re.escape(token)
    negated = token[1] == "!"
    ranges = pattern_ranges(token[2 if negated else 1 : -1])
    listed = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges)
    return f"[{'^' if negated else ''}{listed}]"
