"""The terms of an allow as a file has them: the fields that read them.

Enforced here: each value has its one spelling, its unit and its bounds, so that what was written can be compared and
kept. Whether terms contradict each other, or the rule that they stand in, is the subject of `termchecks`; which of them
a version of the broker keeps, that of `keeping`.
"""

import re
from collections.abc import Mapping
from typing import Any

from . import fields
from .described import about, described
from .durations import DURATION, UNITS, duration_text, parse_duration
from .nodes import Node
from .problems import FileReport, shown
from .terms import FLAG_WORDS, KILL, NO_TERMS, REQUIRED, TRY, Address, Creation, Serial, Terms

# The expressions below are text: few policies need one, and to compile them all would delay every start.

_DURATION_PARTS = r"(?:[0-9]{1,9}[smhd])+"
LEASE_SECONDS = 366 * 86_400

# Bits per second; drivers take any number that their hardware can divide down to (termios(3), BOTHER).
_BAUD = (50, 12_000_000)

# Data bits, parity (none, even, odd, mark, space) and stop bits.
_FRAME = r"[5-8][NEOMS][12]"

# IFNAMSIZ is 16 with the NUL; the kernel refuses "/", ":" and white space, and reads "%d" as a template.
_INTERFACE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}"

_ADDRESS = r"tcp:(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9.]{7,15})):([1-9][0-9]{0,4})"
_LAST_PORT = 2**16 - 1

# Grants at a time and opens a second that a limit may name: beyond, it is none.
_LIMIT = (1, 1_000_000)


@described(lambda shapes: shapes.words(("true", "false")))
def truth(node: Node, what: str, report: FileReport) -> bool | None:
    """Read `true` or `false`; YAML 1.1's other words for them are not words of the language."""
    found = fields.text(node, what, report)
    if found is None or found in ("true", "false"):
        return None if found is None else found == "true"
    meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(found.lower(), found.lower())
    hint = f"; did you mean {meant!r}?" if meant in ("true", "false") else ""
    report.at(node, f"{what} is {shown(found)}, expected true or false{hint}")
    return None


@described(lambda shapes: shapes.text(DURATION, "A number and a unit, `s`, `m`, `h` or `d`: `30m`."))
def duration(node: Node, what: str, report: FileReport) -> int | None:
    """Read how long something lasts, in seconds."""
    found = fields.text(node, what, report)
    if found is None:
        return None
    seconds = parse_duration(found)
    if seconds is not None and seconds <= LEASE_SECONDS:
        return seconds
    expected = f"a number and a unit, s, m, h or d, as 30m, at most {LEASE_SECONDS // 86_400}d"
    report.at(node, f"{what} is {shown(found)}, expected {expected}{_duration_meant(found)}")
    return None


def _duration_meant(found: str) -> str:
    """What others write: 1h30m, 90 (seconds), 30M, 30 min, 030m."""
    short = re.sub(r"(?<=[smhd])[a-z]+", "", re.sub(r"[ _]", "", found[:40]).lower())
    short = f"{short}s" if short.isascii() and short.isdigit() else short
    if not re.fullmatch(_DURATION_PARTS, short):
        return ""
    seconds = sum(int(part[:-1]) * UNITS[part[-1]] for part in re.findall("[0-9]+[smhd]", short))
    return f"; did you mean {duration_text(seconds)!r}?" if 0 < seconds <= LEASE_SECONDS else ""


@described(lambda shapes: shapes.text(_FRAME, "Data bits, parity and stop bits: `8N1`."))
def frame(node: Node, what: str, report: FileReport) -> str | None:
    """Read the shape of a serial line's characters."""
    found = fields.text(node, what, report)
    if found is None or re.fullmatch(_FRAME, found):
        return found
    meant = re.sub("[^0-9A-Z]", "", found[:20].upper())
    hint = f"; did you mean {meant!r}?" if re.fullmatch(_FRAME, meant) else ""
    expected = "data bits, parity (N, E, O, M, S) and stop bits as 8N1"
    report.at(node, f"{what} is {shown(found)}, expected {expected}{hint}")
    return None


@described(lambda shapes: shapes.text(_INTERFACE, "The name of a network interface: `vpn0`."))
def interface(node: Node, what: str, report: FileReport) -> str | None:
    """Read the name of a network interface."""
    found = fields.text(node, what, report)
    if found is None or re.fullmatch(_INTERFACE, found):
        return found
    expected = "the name of an interface as vpn0: letters, digits, '.', '_' and '-', at most 15"
    report.at(node, f"{what} is {shown(found)}, expected {expected}")
    return None


@described(lambda shapes: shapes.text(_ADDRESS, "`tcp:0.0.0.0:80` or `tcp:[::]:80`; needs quotes."))
def address(node: Node, what: str, report: FileReport) -> Address | None:
    """Read an address to listen at, in the one way in which it is written."""
    found = fields.text(node, what, report)
    if found is None:
        return None
    match = re.fullmatch(_ADDRESS, found)
    if match is None or int(match[3]) > _LAST_PORT:
        expected = f"tcp:0.0.0.0:80 or tcp:[::]:80, with a port from 1 to {_LAST_PORT}"
        report.at(node, f"{what} has {shown(found)}, expected {expected}")
        return None
    import ipaddress  # a policy without addresses does not pay for it

    try:
        host = ipaddress.ip_address(match[1] or match[2])
    except ValueError:
        report.at(node, f"{what} has {shown(found)}: there is no such address")
        return None
    read = Address(str(host), int(match[3]))
    if str(read) != found:
        # One spelling for each, so that what is asked for can be compared with it.
        report.at(node, f"{what} has {shown(found)}, expected its usual spelling; did you mean '{read}'?")
        return None
    return read


@described(lambda shapes: shapes.mapping(_LIMITS))
def _limits(node: Node, what: str, report: FileReport) -> dict[str, int] | None:
    return fields.mapping(_LIMITS, node, what, report)


@described(lambda shapes: shapes.mapping(_SERIAL))
def _serial(node: Node, what: str, report: FileReport) -> Serial | None:
    values = fields.mapping(_SERIAL, node, what, report)
    if values is None:
        return None
    return Serial(values.get("baud"), values.get("frame"), values.get("raw") or False)


@described(lambda shapes: shapes.mapping(_TUN, required=("name",)))
def _tun(node: Node, what: str, report: FileReport) -> str | None:
    values = fields.mapping(_TUN, node, what, report)
    if values is not None and "name" not in values:
        report.at(node, f"{what} has no 'name', expected the interface's, as {{name: vpn0}}")
    return None if values is None else values.get("name")


@described(lambda shapes: shapes.mapping(_CREATE))
def _create(node: Node, what: str, report: FileReport) -> Creation | None:
    values = fields.mapping(_CREATE, node, what, report)
    return None if values is None else Creation(values.get("owner"), values.get("group"), values.get("mode"))


_LIMITS: Mapping[str, fields.Field[Any]] = {
    "open": about("Grants of the rule that one client may hold at a time.", fields.number(*_LIMIT)),
    "per_second": about("Opens by the rule that one client may make each second.", fields.number(*_LIMIT)),
}
_SERIAL: Mapping[str, fields.Field[Any]] = {
    "baud": about("Bits per second.", fields.number(*_BAUD)),
    "frame": about("Data bits, parity (`N`, `E`, `O`, `M`, `S`) and stop bits: `8N1`.", frame),
    "raw": about("Whether bytes pass as they are, without echo, line editing and signals.", truth),
}
_TUN: Mapping[str, fields.Field[Any]] = {"name": about("The interface's name: `vpn0`.", interface)}
_CREATE: Mapping[str, fields.Field[Any]] = {
    "owner": about("The user whose the file is; the broker's own if left out.", fields.account),
    "group": about("The file's group; the broker's own if left out.", fields.account),
    "mode": about("The file's permission bits, in octal: `0640`.", fields.mode),
}

TERM_FIELDS: Mapping[str, fields.Field[Any]] = {
    "lease": about("How long a grant lasts at most: `90s`, `30m`, `2h`, `1d`.", duration),
    "renewable": about("Whether the client may have its lease again before it is over.", truth),
    "exclusive": about("Whether nobody else has the object from the broker at the same time.", truth),
    "preempt": about("Whether it ends others' grants of the object, where it would have to wait.", truth),
    "limits": about("How many grants one client may hold, and how many opens it may make.", _limits),
    "revoke": about(
        "When a grant ends: `try` takes back what can be, `required` refuses what cannot be, `kill` ends the client.",
        fields.word({word: word for word in (TRY, REQUIRED, KILL)}),
    ),
    "relay": about("Whether the broker passes the bytes on, and the object's descriptor to nobody.", truth),
    "snapshot": about("Whether the client gets a copy of the file that never changes.", truth),
    "serial": about("How the line is set before it is passed.", _serial),
    "tun": about("/dev/net/tun with that interface; such a rule has no `paths`.", _tun),
    "create": about("Whose a file is that is made; with the right `create`.", _create),
    "temporary": about("Whether a file that is made has no name.", truth),
    "flags": about(
        "Open flags that are always set.", fields.any_of(fields.word({word: word for word in FLAG_WORDS}))
    ),
    "as": about("`broker`: connect as the broker, and not as the client.", fields.word({"broker": True})),
    "netns": about(
        "`broker`: `tun` and `listen` also for a client in another network namespace.",
        fields.word({"broker": True}),
    ),
}
ADDRESSES = "addresses"
ADDRESS_FIELDS: Mapping[str, fields.Field[Any]] = {
    ADDRESSES: about('What `listen` is for: `"tcp:0.0.0.0:80"`, `"tcp:[::]:443"`.', fields.any_of(address))
}

SPECIAL_KEYS = frozenset((*TERM_FIELDS, ADDRESSES))
"""Keys that few rules have: terms, and what a rule listens at."""


def terms_of(values: Mapping[str, Any]) -> Terms:
    """Return the terms among the values of a rule."""
    if SPECIAL_KEYS.isdisjoint(values):
        return NO_TERMS
    limits = values.get("limits") or {}
    return Terms(
        lease=values.get("lease"),
        renewable=values.get("renewable") or False,
        exclusive=values.get("exclusive") or False,
        preempt=values.get("preempt") or False,
        open_limit=limits.get("open"),
        rate_limit=limits.get("per_second"),
        revoke=values.get("revoke"),
        relay=values.get("relay") or False,
        snapshot=values.get("snapshot") or False,
        serial=values.get("serial"),
        tun=values.get("tun"),
        create=values.get("create"),
        temporary=values.get("temporary") or False,
        flags=frozenset(values.get("flags") or ()),
        as_broker=values.get("as") or False,
        netns_broker=values.get("netns") or False,
        addresses=values.get(ADDRESSES) or (),
    )
