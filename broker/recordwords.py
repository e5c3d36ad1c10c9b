"""An audit record in one line for people. It may be anybody's: nothing in it is trusted to be of its type."""

import re
from typing import Any

from broker.textlines import printable_line

# What the supervisor writes before each record, at the front of the line. A record that a worker made up could say
# "seq" and "time" once more behind it: this is the one that counts.
FRONT = re.compile(rb'\{"seq":([0-9]{1,19}),"time":"([0-9TZ:.-]{20,32})",')


def peer_words(record: dict[str, Any], name_of: Any = None) -> str:
    """Who asked; `name_of` gives a uid's name or the number as text."""
    peer = record.get("peer")
    uid = peer.get("uid") if isinstance(peer, dict) else record.get("uid")
    if type(uid) is not int:
        return "-"
    name = str(uid) if name_of is None else name_of(uid)
    return name if name == str(uid) else f"{name}({uid})"


def verdict_words(record: dict[str, Any]) -> str:
    """The verdict, and of a record without one its event."""
    verdict, event = record.get("verdict"), _text(record.get("event"))
    if not isinstance(verdict, str):
        return event
    return verdict if event == "open" else f"{verdict} ({event})"


def rights_words_of(record: dict[str, Any]) -> str:
    """The rights that were given, or else those that were asked for."""
    for key in ("rights", "access"):
        words = record.get(key)
        if isinstance(words, list) and words:
            return "+".join(map(_text, words))
    return "-"


def path_words(record: dict[str, Any]) -> str:
    """What was asked for, and what it led to."""
    path, resolved = record.get("path"), record.get("resolved")
    if path is None:
        return "-"
    return _text(path) if resolved in (None, path) else f"{_text(path)} -> {_text(resolved)}"


def why_words(record: dict[str, Any]) -> str:
    """The rule that decided, the reason, the grant, and what else there is to say of its event."""
    said = []
    if record.get("rule") is not None:
        said.append(f"rule {_text(record['rule'])} ({_text(record.get('at'))})")
    if record.get("good") is not None:
        said.append("taken into use" if record["good"] is True else "NOT taken into use")
    said += [_text(record[key]) for key in ("errno", "reason", "error") if record.get(key) not in (None, "")]
    said += [
        f"{key} {_text(record[key])}"
        for key in ("grant", "policy", "rules", "status", "clients", "count", "first", "last")
        if record.get(key) is not None
    ]
    return ", ".join(said)


def message_of(record: dict[str, Any]) -> str:
    """All of it but the time."""
    words = (
        verdict_words(record),
        peer_words(record),
        rights_words_of(record),
        path_words(record),
        why_words(record),
    )
    return printable_line("  ".join(words))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
