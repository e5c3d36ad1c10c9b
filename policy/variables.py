"""Variables in path patterns: `${user}`, `${uid}` and `${home}`, which stand for facts about the peer.

Rules enforced here:
- What a variable stands for is text and never a pattern: a user name `*` means a star, and one with a slash in it,
  or with what no pattern may hold, is not expanded at all.
- `${home}` stands for a directory that is at least two levels deep, or for nothing.
- A pattern that cannot be expanded matches nothing where that would widen. Where it would narrow it matches all that
  it could mean: `${user}` and `${uid}` are any name then, and `${home}` is any directory two levels deep or deeper.

Whether a directory is a home (whose it is, that no link leads there) is the broker's to find out.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from .clients import Peer
from .paths import split
from .patterns import HOME, RECURSIVE, VARIABLE, PathPattern, PatternError, parse_pattern

# Levels of a directory that may be a home: system accounts "live" in /, /dev or /bin.
HOME_LEVELS = 2

# Expansions that are kept: a few patterns for each of many peers. Each costs some hundred bytes.
_KEPT_EXPANSIONS = 16_384

_SPECIAL = re.compile(r"[*?\[{}]")
_STARS = re.compile(r"\*{2,}")


class Variables(NamedTuple):
    """What the variables stand for; None for what is not known, or may not be used."""

    user: str | None
    uid: str | None
    home: str | None


class AnyHome(NamedTuple):
    """A pattern below a home that is not known: it matches below every directory that could be it."""

    below: PathPattern | None
    """What follows `${home}`; None for nothing."""

    def matches(self, components: Sequence[str]) -> bool:
        """Tell whether the path of these components matches for some home."""
        if self.below is None:
            return len(components) >= HOME_LEVELS
        return any(self.below.matches(components[home:]) for home in range(HOME_LEVELS, len(components)))


def variables_of(peer: Peer) -> Variables:
    """Return what the variables stand for when `peer` asks."""
    user, home = peer.account_name, peer.home
    return Variables(
        user if user and "/" not in user and user not in (".", "..") else None,
        None if peer.uid is None else str(peer.uid),
        home if home is not None and len(split(home)) >= HOME_LEVELS else None,
    )


@lru_cache(_KEPT_EXPANSIONS)
def certainly(pattern: PathPattern, variables: Variables) -> PathPattern | None:
    """Return `pattern` with its variables expanded, for where a match widens; None if it cannot be."""
    values = variables._asdict()
    if any(values[name] is None for name in pattern.variables):
        return None
    try:
        text = VARIABLE.sub(lambda match: literally(values[match[1]]), pattern.text)
        return parse_pattern(text)._replace(expanded=True)
    except PatternError:  # the name that it would make is none: "..", a control character, too long
        return None


@lru_cache(_KEPT_EXPANSIONS)
def possibly(pattern: PathPattern, variables: Variables) -> PathPattern | AnyHome:
    """Return what matches all that `pattern` could mean, for where a match narrows."""
    known = certainly(pattern, variables)
    if known is not None:
        return known
    if not pattern.text.startswith(HOME):
        return _with_any_names(pattern.text)
    below = pattern.text.removeprefix(HOME)
    return AnyHome(_with_any_names(below) if below else None)


def _with_any_names(text: str) -> PathPattern:
    parts = [
        part if part == RECURSIVE else _STARS.sub("*", VARIABLE.sub("*", part)) for part in text.split("/")
    ]
    return parse_pattern("/".join(parts))._replace(expanded=True)


def literally(text: str) -> str:
    """Return the pattern that means `text` and nothing else; text with a backslash has none."""
    return _SPECIAL.sub(lambda match: f"[{match[0]}]", text)
