"""The meaning of a policy, read once more from its description: slow, plain, and sharing no code with the real
one but the words. It works on the text of rules; the property tests hold the real one against it.
"""

import fnmatch
import re
from collections.abc import Sequence
from typing import Any

from policy import FileType, Object, Peer, Request, Rights, parse_rights
from policy.devices import Device
from tests.policy.strategies import GROUPS

# The moments that the strategies use, written out here once more.
SECONDS = {"1970-01-01T00:01Z": 60, "1970-01-01T01:02+01:00": 120, "1969-12-31T23:00:59-01:01": 119}
LEASES = {None: 10**9, "90s": 90, "2m": 120, "1h": 3600}
OWN = ("/dev/tty", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def path_matches(pattern: str, path: str, peer: Peer, narrows: bool) -> bool:
    """A pattern with variables is read as a regular expression, any other by fnmatch."""
    if "${" in pattern:
        return re.fullmatch(with_variables(pattern, peer, narrows), path, re.DOTALL) is not None
    wanted, parts = pattern.split("/"), path.split("/")
    if wanted[-1] == "**":
        wanted, parts = wanted[:-1], parts[: len(wanted) - 1] if len(parts) >= len(wanted) else [""]
    return len(wanted) == len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted))


def is_name(text: str | None) -> bool:
    return bool(text) and text not in (".", "..") and not set(text or "") & set("/\\")


def with_variables(pattern: str, peer: Peer, narrows: bool) -> str:
    """Whole words are replaced, so that nothing but `*`, `?`, `[…]` and a last `/**` is left to translate."""
    home = peer.home or ""
    is_home = home.count("/") >= 2 and all(map(is_name, home[1:].split("/")))
    values = {
        "${user}": re.escape(peer.account_name or "") if is_name(peer.account_name) else None,
        "${uid}": None if peer.uid is None else str(peer.uid),
        "${home}": re.escape(home) if is_home else None,
    }
    if any(word in pattern and value is None for word, value in values.items()):
        if not narrows:
            return "(?!)"
        values = {"${user}": "[^/]*", "${uid}": "[^/]*", "${home}": "/[^/]+(?:/[^/]+)+"}
    words = re.split(r"(\$\{\w+\}|/\*\*$|\*|\?|\[[^]]+\])", pattern)
    globs = {"*": "[^/]*", "?": "[^/]", "/**": "/.+"}
    return "".join(
        values.get(word) or globs.get(word) or (word if word.startswith("[") else re.escape(word))
        for word in words
    )


def in_ranges(number: int, ranges: Any) -> bool:
    bounds = [str(one).split("-") for one in listed(ranges)]
    return any(int(bound[0]) <= number <= int(bound[-1]) for bound in bounds)


def overlap(wanted: Any, known: Sequence[frozenset[str] | None]) -> bool | None:
    if any(names is not None and names & set(listed(wanted)) for names in known):
        return True
    return None if None in known else False


def overlap_ids(wanted: Any, known: Sequence[frozenset[int] | None]) -> bool | None:
    if any(ids is not None and any(in_ranges(one, wanted) for one in ids) for ids in known):
        return True
    return None if None in known else False


def client_holds(client: Any, peer: Peer, narrows: bool) -> bool:
    truths: list[bool | None]
    if client == "any":
        truths = [True if peer.embedded else peer.has_account]
    else:
        uids = None if peer.uid is None else frozenset([peer.uid])
        user_names = [peer.user_names] + ([peer.owner_names] if narrows else [])
        all_uids = [uids] + ([peer.owner_uids] if narrows else [])
        names = [peer.group_names] + ([peer.account_group_names] if narrows else [])
        gids = [peer.gids] + ([peer.account_gids] if narrows else [])
        truths = [
            overlap(client["user"], user_names) if "user" in client else True,
            overlap_ids(client["uid"], all_uids) if "uid" in client else True,
            overlap(client["group"], names) if "group" in client else True,
            overlap_ids(client["gid"], gids) if "gid" in client else True,
            peer.socket in listed(client["socket"]) if "socket" in client else True,
            *(
                None if known is None else known in listed(client[word])
                for word, known in (("unit", peer.unit), ("exe", peer.exe), ("label", peer.label))
                if word in client
            ),
        ]
    return all(narrows if truth is None else truth for truth in truths)


def clients_hold(clients: list[Any], peer: Peer, narrows: bool) -> bool:
    return any(client_holds(client, peer, narrows) for client in clients)


def any_path(patterns: Sequence[str], path: str, peer: Peer, narrows: bool) -> bool:
    return any(path_matches(pattern, path, peer, narrows) for pattern in patterns)


def names(patterns: Sequence[str], path: str, peer: Peer) -> list[str]:
    """Which of an allow's patterns match: only literal ones for what is each process's own."""
    literal = path in OWN or path.startswith("/dev/fd/")
    return [
        one
        for one in patterns
        if path_matches(one, path, peer, False) and not (literal and set(one) & set("*?[$"))
    ]


def one_of(values: Any, known: str | None) -> bool | None:
    if known is None:
        return None
    return known != "" and any(fnmatch.fnmatchcase(known, str(one)) for one in listed(values))


def everything(truths: list[bool | None]) -> bool | None:
    return False if False in truths else None if None in truths else True


def something(truths: list[bool | None]) -> bool | None:
    return True if True in truths else None if None in truths else False


def selector_holds(selector: dict[str, Any], found: Object) -> bool | None:
    if found.type is not None and found.type not in (FileType.CHAR, FileType.BLOCK):
        return False
    device = found.device or Device()
    truths: list[bool | None] = [None if found.type is None else True]
    if "type" in selector and found.type is not None:
        truths.append(found.type.value in listed(selector["type"]))
    if "device" in selector:
        number = None if device.number is None else ":".join(map(str, device.number))
        truths.append(one_of(selector["device"], number))
    if "subsystem" in selector:
        truths.append(one_of(selector["subsystem"], device.subsystem))
    known = device.properties
    if "seat" in selector:
        truths.append(one_of(selector["seat"], None if known is None else known.get("ID_SEAT") or "seat0"))
    for name, values in selector.get("udev", {}).items():
        truths.append(one_of(values, None if known is None else known.get(name, "")))
    if "attrs" in selector:
        wanted = selector["attrs"].items()
        chain = device.attributes
        truths.append(
            None
            if chain is None
            else something(
                [everything([one_of(values, one.get(name, "")) for name, values in wanted]) for one in chain]
            )
        )
    return everything(truths)


def group_holds(names: list[Any], found: Object) -> bool | None:
    groups = [listed(GROUPS[one]) if isinstance(one, str) else [one] for one in names]
    return something([selector_holds(one, found) for group in groups for one in group])


def devices_hold(rule: dict[str, Any], found: Object) -> bool | None:
    truths: list[bool | None] = []
    own = {key: rule[key] for key in ("device", "subsystem", "udev", "attrs", "seat") if key in rule}
    if own:
        truths.append(selector_holds(own, found))
    if "devices" in rule:
        truths.append(group_holds(rule["devices"], found))
    if "except_devices" in rule:
        excepted = group_holds(rule["except_devices"], found)
        truths.append(None if excepted is None else not excepted)
    return everything(truths)


def paths_of(rule: dict[str, Any]) -> list[str]:
    return list(rule.get("paths", ["/dev/**"]))


def is_excepted_itself(rule: dict[str, Any], peer: Peer, found: Object) -> bool:
    """Whether an exception names the object literally by another of its names."""
    literal = [
        one for one in rule.get("except_paths", []) if not set(re.sub(r"\$\{\w+\}", "", one)) & set("*?[")
    ]
    return any(path_matches(one, name, peer, narrows=False) for one in literal for name in found.excepted_as)


def allow_matches(rule: dict[str, Any], request: Request, peer: Peer, found: Object) -> bool:
    types = [FileType(word) for word in rule.get("type", ["file"] if "paths" in rule else ["char", "block"])]
    asked = names(paths_of(rule), request.path, peer)
    is_own = found.path in OWN or found.path.startswith("/dev/fd/")
    link = (
        found.last_link
        and found.type in (FileType.CHAR, FileType.BLOCK)
        and set(types) == {found.type}
        and found.path.startswith("/dev/")
        and not is_own
        and any(not pattern.endswith("/**") for pattern in asked)
    )
    return (
        bool(asked)
        and found.type in types
        and devices_hold(rule, found) is True
        and (bool(names(paths_of(rule), found.path, peer)) or link)
        and not any(
            any_path(rule.get("except_paths", []), one, peer, narrows=True)
            for one in (request.path, found.path, *found.names)
        )
        and not is_excepted_itself(rule, peer, found)
        and clients_hold(rule["clients"], peer, narrows=False)
        and not clients_hold(rule.get("except_clients", []), peer, narrows=True)
    )


def deny_matches(rule: dict[str, Any], request: Request, peer: Peer, found: Object) -> bool:
    types = [FileType(word) for word in rule.get("type", [])]
    return (
        any(
            ("paths" not in rule or any_path(rule["paths"], one, peer, narrows=True))
            and not any_path(rule.get("except_paths", []), one, peer, narrows=False)
            for one in (request.path, found.path, *found.names)
        )
        and (not types or found.type is None or found.type in types)
        and devices_hold(rule, found) is not False
        and ("clients" not in rule or clients_hold(rule["clients"], peer, narrows=True))
        and not clients_hold(rule.get("except_clients", []), peer, narrows=False)
    )


def still_holds(rule: dict[str, Any], now: float | None) -> bool:
    return "until" not in rule or ("deny" in rule if now is None else now < SECONDS[rule["until"]])


def decide(
    texts: Sequence[dict[str, Any]], request: Request, peer: Peer, found: Object, now: float | None
) -> tuple[Rights, str] | None:
    """The rights that are granted and the name of the rule, or None."""
    rules = [rule for rule in texts if still_holds(rule, now)]
    denied = Rights(0)
    for rule in rules:
        if "deny" in rule and deny_matches(rule, request, peer, found):
            denied |= parse_rights(rule["deny"])
    if denied & request.needed:
        return None
    if Rights.APPEND in denied:
        denied |= Rights.WRITE
    choices = []
    for rule in rules:
        rights = parse_rights(rule.get("allow", []))
        if request.needed in rights and "allow" in rule and allow_matches(rule, request, peer, found):
            extra = request.optional & rights & ~denied & ~request.needed
            count = len([one for one in extra if not (one is Rights.APPEND and Rights.WRITE in extra)])
            lease = LEASES[rule.get("lease")]
            order = (-count, rule.get("exclusive", False), -lease, rule["name"])
            choices.append((order, request.needed | extra))
    return (min(choices)[1], min(choices)[0][-1]) if choices else None
