"""The terms of a rule as a file has them, and in few words for a column. Imported by those who show policies alone."""

from typing import Any

from .terms import Creation, Serial, Terms

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def duration_text(seconds: int) -> str:
    """Return `seconds` as a file has them: in the largest unit that needs no fraction."""
    unit = next(unit for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


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
    """Return each term in as few words as tell it: "30m", "exclusive", "tun vpn0"."""
    return [_short(key, value) for key, value in written(terms).items() if key != "addresses"]


def _short(key: str, value: Any) -> str:
    if value is True:
        return key
    if key == "lease":
        return str(value)
    if isinstance(value, dict):
        inner = " ".join(str(one) if key == "tun" else f"{name} {_flow(one)}" for name, one in value.items())
        return f"{key} {inner}"
    return f"{key} {','.join(value) if isinstance(value, list) else value}"


def _flow(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        # An address holds what YAML reads as its own.
        return "[" + ", ".join(f'"{one}"' if ":" in one else one for one in value) + "]"
    return str(value)
