"""The terms of a rule as a file has them, and in few words for a column. Imported by those who show policies alone."""

from collections.abc import Callable
from typing import Any

from .durations import duration_text
from .moments import moment_text
from .rules import Rule
from .terms import Creation, Serial, Terms


def written(terms: Terms) -> dict[str, Any]:
    """Return what a file says to mean `terms`: keys and values, without those that say nothing."""
    limits = {"open": terms.open_limit, "per_second": terms.rate_limit}
    said: dict[str, Any] = {
        "lease": None if terms.lease is None else duration_text(terms.lease),
        "renewable": terms.renewable,
        "exclusive": terms.exclusive,
        "preempt": terms.preempt,
        "limits": {key: value for key, value in limits.items() if value is not None},
        "revoke": terms.revoke,
        "relay": terms.relay,
        "snapshot": terms.snapshot,
        "serial": _serial(terms.serial),
        "tun": {"name": terms.tun} if terms.tun else None,
        "create": _creation(terms.create),
        "temporary": terms.temporary,
        "flags": sorted(terms.flags),
        "as": "broker" if terms.as_broker else None,
        "netns": "broker" if terms.netns_broker else None,
        "addresses": list(map(str, terms.addresses)),
    }
    return {key: value for key, value in said.items() if value}


def _serial(serial: Serial | None) -> dict[str, Any]:
    if serial is None:
        return {}
    said = {"baud": serial.baud, "frame": serial.frame, "raw": serial.raw or None}
    return {key: value for key, value in said.items() if value is not None} or {"raw": False}


def _creation(create: Creation | None) -> dict[str, Any]:
    if create is None:
        return {}
    mode = None if create.mode is None else f"{create.mode:04o}"
    said = {"owner": create.owner, "group": create.group, "mode": mode}
    return {key: value for key, value in said.items() if value is not None}


def as_written(terms: Terms) -> list[str]:
    """Return each term as a file has it: "lease: 30m", "serial: {baud: 9600}"."""
    return [f"{key}: {_flow(value)}" for key, value in written(terms).items()]


def in_words(terms: Terms) -> list[str]:
    """Return each term but the addresses in a word or two: "30m", "exclusive", "tun vpn0"."""
    said = written(terms)
    said.pop("addresses", None)
    return [_WORDS[key](value) if key in _WORDS else key for key, value in said.items()]


def rule_terms(rule: Rule) -> list[str]:
    """Return what a rule gives under, its end too, each in a word or two."""
    words = in_words(rule.terms)
    return [*words, f"until {moment_text(rule.until)}"] if rule.until is not None else words


def _limits(limits: dict[str, int]) -> str:
    each = {"open": "open {}", "per_second": "{} a second"}
    return ", ".join(each[key].format(value) for key, value in limits.items())


def _line(serial: dict[str, Any]) -> str:
    parts = [serial.get("baud"), serial.get("frame"), "raw" if serial.get("raw") else None]
    return " ".join(["serial", *(str(part) for part in parts if part is not None)])


def _created(create: dict[str, str]) -> str:
    whose = f"{create.get('owner', '')}:{create.get('group', '')}".strip(":")
    return " ".join(filter(None, ["created", whose, create.get("mode")]))


# How a term is told whose key alone would not do.
_WORDS: dict[str, Callable[[Any], str]] = {
    "lease": str,
    "limits": _limits,
    "revoke": "revoke {}".format,
    "serial": _line,
    "tun": lambda tun: f"tun {tun['name']}",
    "create": _created,
    "flags": lambda flags: f"flags {' '.join(flags)}",
    "as": "as {}".format,
    "netns": "netns {}".format,
}


def _flow(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        # An address holds what YAML reads as its own.
        return "[" + ", ".join(f'"{one}"' if ":" in one else one for one in value) + "]"
    return str(value)
