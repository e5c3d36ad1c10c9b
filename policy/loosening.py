"""Which terms of a rule are looser than those of another: what the same rights are given under.

A term that says how a thing is done, and not how much (a serial line's settings, the owner of a new file), is neither
looser nor stricter: it is told as changed.
"""

from collections.abc import Callable
from typing import Any

from .durations import duration_text
from .terms import Terms


def looser(new: Terms, old: Terms) -> tuple[str, ...]:
    """Return what `new` says that leaves more than `old` does, or is another thing; nothing when it leaves no more."""
    return tuple(
        f"{_key(field)} {_value(field, getattr(new, field))}, was {_value(field, getattr(old, field))}"
        for field in Terms._fields
        if getattr(new, field) != getattr(old, field)
        and _LEAVES_MORE.get(field, _changed)(getattr(new, field), getattr(old, field))
    )


def _changed(new: object, old: object) -> bool:
    return True


def _more(new: int | None, old: int | None) -> bool:
    return new is None or (old is not None and new > old)


def _said(new: bool, old: bool) -> bool:
    return new and not old


def _unsaid(new: bool, old: bool) -> bool:
    return old and not new


_REVOKE = (None, "try", "required", "kill")


def _weaker_revoke(new: str | None, old: str | None) -> bool:
    return new not in _REVOKE or old not in _REVOKE or _REVOKE.index(new) < _REVOKE.index(old)


_LEAVES_MORE: dict[str, Callable[[Any, Any], bool]] = {
    "lease": _more,
    "renewable": _said,
    "exclusive": _unsaid,
    "preempt": _said,
    "open_limit": _more,
    "rate_limit": _more,
    "revoke": _weaker_revoke,
    "relay": _unsaid,
    "as_broker": _said,
    "netns_broker": _said,
}

_KEYS = {
    "open_limit": "limits.open",
    "rate_limit": "limits.per_second",
    "as_broker": "as broker",
    "netns_broker": "netns broker",
}


def _key(field: str) -> str:
    return _KEYS.get(field, field)


def _value(field: str, value: object) -> str:
    if value is None or value is False or value == frozenset():
        return "none"
    if value is True:
        return "yes"
    if field == "lease" and isinstance(value, int):
        return duration_text(value)
    if isinstance(value, frozenset):
        return ",".join(sorted(map(str, value)))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        said = {key: one for key, one in value._asdict().items() if one not in (None, False)}
        return ",".join(f"{key}={one}" for key, one in said.items()) or "nothing"
    return str(value)
