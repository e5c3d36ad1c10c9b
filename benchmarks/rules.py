"""Large policies as a site with many users and devices has them, and requests that they are asked.

Four kinds of rules in turn: literal paths, patterns, one path for many users, devices by their serial numbers; and one
deny among ten. Pure: numbers in, text and values out.
"""

from __future__ import annotations

from collections.abc import Iterator

from policy import FileType, Object, Peer, Request, Source, parse_rights
from policy.devices import Device

# Rules of one file: what a tool would generate, not what anybody would write.
_RULES_PER_FILE = 5_000


def large_policy(count: int) -> list[Source]:
    """The files of a policy of `count` rules."""
    sources = []
    for first in range(0, count, _RULES_PER_FILE):
        lines = ["version: 1", "rules:"]
        lines += [
            f"  - {{name: r{number}, {_rule(number)}}}"
            for number in range(first, min(first + _RULES_PER_FILE, count))
        ]
        sources.append(Source(f"{first // _RULES_PER_FILE:02}-site.yaml", "\n".join([*lines, ""])))
    return sources


def _rule(number: int) -> str:
    user = f"u{number // 8}"
    if number % 10 == 9:
        return f"deny: all, clients: [{{user: {user}}}], paths: [/srv/closed/{number}]"
    allow = f"clients: [{{user: {user}}}], allow: [read, write]"
    return (
        f"{allow}, paths: [/srv/data/{user}/file{number}]",
        f"{allow}, paths: ['/srv/spool/{user}/job-{number}-*']",
        f"{allow}, paths: ['/srv/common/*']",
        f"{allow}, devices: [{{subsystem: tty, udev: {{ID_SERIAL_SHORT: S{number}}}}}]",
    )[number % 4]


def questions(count: int) -> Iterator[tuple[Request, Peer, Object]]:
    """Requests for a policy of `count` rules, each kind once: what it gives, and what it refuses."""
    wanted = parse_rights(["read"])
    for kind in range(4):
        number = count // 8 // 2 * 8 + kind
        user = f"u{number // 8}"
        peer = Peer(
            1000 + number,
            frozenset([user]),
            frozenset([1000 + number]),
            frozenset(["users"]),
            frozenset([1000 + number]),
            frozenset(["users"]),
            has_account=True,
        )
        path = (
            f"/srv/data/{user}/file{number}",
            f"/srv/spool/{user}/job-{number}-1",
            "/srv/common/file",
            "/dev/ttyUSB0",
        )[kind]
        device = Device((188, 0), "tty", {"ID_SERIAL_SHORT": f"S{number}", "ID_BUS": "usb"}, ())
        found = Object(
            path, FileType.FILE if kind < 3 else FileType.CHAR, device=device if kind == 3 else None
        )
        yield Request(path, wanted), peer, found
        yield Request("/srv/other", wanted), peer, Object("/srv/other", FileType.FILE)
