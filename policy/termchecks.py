"""What contradicts itself among the terms of a rule, or between them and what the rule is for.

Enforced here: a term stands where its meaning can be kept, so that no rule says what nobody could do:
- a term is for an allow that lists the right, and is for the type of object, which it is about;
- what excludes each other stands in one rule never: a snapshot never changes, so it cannot be revoked;
- `tun` is /dev/net/tun, and `addresses` are what a rule has that allows to listen: neither has paths beside it.

How each of them is read is the subject of `termfields`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .nodes import Scalar
from .problems import FileReport
from .termfields import ADDRESSES, SPECIAL_KEYS, TERM_FIELDS, terms_of
from .terms import REQUIRED, Terms
from .words import FileType, Rights, rights_words

# Which type an object must be able to have for a right to mean anything on it.
_TYPE_OF_RIGHT = {
    Rights.CREATE: FileType.FILE,
    Rights.LIST: FileType.DIRECTORY,
    Rights.CONNECT: FileType.SOCKET,
}
_SPECIAL_RIGHTS = int(Rights.CREATE | Rights.LIST | Rights.CONNECT | Rights.LISTEN)
# Objects on which nothing else than these rights can be used.
_RIGHT_OF_TYPE = {FileType.DIRECTORY: Rights.LIST, FileType.SOCKET: Rights.CONNECT}

# What nobody can take back from the holder of a descriptor, if the bytes do not go through the broker.
_IRREVOCABLE = (FileType.FILE, FileType.BLOCK, FileType.FIFO)

# What chooses objects in the file system.
_OBJECT_KEYS = (
    "paths",
    "except_paths",
    "type",
    "device",
    "subsystem",
    "udev",
    "attrs",
    "seat",
    "devices",
    "except_devices",
)

_KINDS = {
    FileType.FILE: "a file",
    FileType.DIRECTORY: "a directory",
    FileType.CHAR: "a character device",
    FileType.BLOCK: "a block device",
    FileType.FIFO: "a FIFO",
    FileType.SOCKET: "a socket",
}

Told = Iterator[tuple[str, str]]
"""The key of a rule that is to blame, and the message."""


def needs_no_path(values: Mapping[str, Any]) -> bool:
    """Tell whether what the rule is for is said without paths or devices."""
    return "tun" in values or ADDRESSES in values or values.get("allow") == Rights.LISTEN


def check_deny(values: Mapping[str, Any], place: Callable[[str], Scalar], report: FileReport) -> None:
    """Tell of what a deny cannot have."""
    for key in values:
        if key in TERM_FIELDS:
            report.at(place(key), f"{key!r} is a term of an allow: a deny gives nothing that could have one")
    if ADDRESSES not in values:
        return
    if values.get("deny") is not None and Rights.LISTEN not in values["deny"]:
        report.at(place(ADDRESSES), "'addresses' are for listen, which this rule does not deny")
    _refuse_objects(values, ADDRESSES, "choose what is listened at", (), place, report)


def check_allow(
    values: Mapping[str, Any],
    types: frozenset[FileType],
    place: Callable[[str], Scalar],
    report: FileReport,
) -> None:
    """Tell of what contradicts itself in an allow for objects of these types."""
    rights = values.get("allow")
    if rights is None:
        return  # what is wrong with it has been told
    if (
        SPECIAL_KEYS.isdisjoint(values)
        and not int(rights) & _SPECIAL_RIGHTS
        and not types.issubset(_RIGHT_OF_TYPE)
    ):
        return  # as with most rules, of which a policy may have many
    terms = terms_of(values)
    for key, message in (
        *_listening(rights, values),
        *_of_rights(rights, values, terms),
        *_of_types(rights, types, values, terms),
        *_of_pairs(rights, types, terms),
    ):
        report.at(place(key if key in values else "allow"), message)
    if "tun" in values:
        _refuse_objects(values, "tun", "means /dev/net/tun", ("type",), place, report)
        if values.get("type") and values["type"] != (FileType.CHAR,):
            report.at(place("type"), "'tun' means /dev/net/tun, expected 'type: char' or no type")
    if ADDRESSES in values:
        _refuse_objects(values, ADDRESSES, "choose what is listened at", (), place, report)


def _refuse_objects(
    values: Mapping[str, Any],
    key: str,
    why: str,
    but: tuple[str, ...],
    place: Callable[[str], Scalar],
    report: FileReport,
) -> None:
    for other in _OBJECT_KEYS:
        if other in values and other not in but:
            report.at(place(other), f"{key!r} {why}, expected no {other!r} beside it")


def _listening(rights: Rights, values: Mapping[str, Any]) -> Told:
    if Rights.LISTEN not in rights:
        if ADDRESSES in values:
            yield ADDRESSES, "'addresses' are for listen, which this rule does not allow"
        return
    if rights != Rights.LISTEN:
        others = ", ".join(rights_words(rights & ~Rights.LISTEN))
        yield "allow", f"listen stands alone, expected a rule of its own for {others}"
    elif ADDRESSES not in values:
        yield "allow", 'listen has no \'addresses\', expected some as ["tcp:0.0.0.0:80", "tcp:[::]:80"]'


def _of_rights(rights: Rights, values: Mapping[str, Any], terms: Terms) -> Told:
    """Terms that need a right, and the right that needs its term."""
    if "create" in values and Rights.CREATE not in rights:
        yield "create", "'create' is for files that are made, expected 'create' among the rights too"
    if Rights.CREATE in rights and "create" not in values:
        expected = "expected the term 'create: {owner, group, mode}' beside the right"
        yield "allow", f"it is not said whose the files are that are made, {expected}"
    if terms.temporary and Rights.CREATE not in rights:
        yield "temporary", "'temporary' is for files that are made, expected 'create' among the rights"
    if terms.as_broker and Rights.CONNECT not in rights:
        yield "as", "'as' is about connecting, expected 'connect' among the rights"
    if terms.netns_broker and Rights.LISTEN not in rights and "tun" not in values:
        yield "netns", "'netns' is about 'tun' and listen, and this rule has neither"


def _of_types(rights: Rights, types: frozenset[FileType], values: Mapping[str, Any], terms: Terms) -> Told:
    """Rights and terms on what is not of the type that they are about."""
    if "tun" in values or Rights.LISTEN in rights:
        types = frozenset((FileType.CHAR,)) if "tun" in values else frozenset()
    else:
        for right, kind in _TYPE_OF_RIGHT.items():
            if right in rights and kind not in types:
                word = rights_words(right)[0]
                told = f"{word} is for {_KINDS[kind]}, which this rule is not for"
                yield "type", f"{told}, expected {kind.value!r} among 'type'"
        useless = types and types.issubset(_RIGHT_OF_TYPE)
        if useless and not any(_RIGHT_OF_TYPE[kind] in rights for kind in types):
            first = min(types, key=lambda kind: kind.value)
            needed = rights_words(_RIGHT_OF_TYPE[first])[0]
            told = f"nothing of {_KINDS[first]} can be given but {needed}"
            yield "type", f"{told}, which this rule does not allow"
    for key, said, kind in (
        ("serial", terms.serial, FileType.CHAR),
        ("snapshot", terms.snapshot, FileType.FILE),
    ):
        if said and kind not in types:
            yield key, f"{key!r} is for {_KINDS[kind]}, which this rule is not for"


def _of_pairs(rights: Rights, types: frozenset[FileType], terms: Terms) -> Told:
    """Terms that exclude each other, or need each other."""
    if terms.renewable and terms.lease is None:
        yield "renewable", "'renewable' is about a lease, and this rule has no 'lease'"
    if terms.snapshot:
        more = rights_words(rights & ~Rights.READ)
        if more:
            yield "snapshot", f"a snapshot can only be read, and this rule allows {', '.join(more)}"
        if terms.revoke == REQUIRED:
            yield (
                "snapshot",
                "a snapshot never changes, so it cannot be revoked: 'revoke: required' excludes it",
            )
        if terms.relay:
            yield "snapshot", "a snapshot is the client's own copy: 'relay' excludes it"
    carried = rights_words(rights & (Rights.IOCTL | Rights.TRUNCATE))
    if terms.relay and carried:
        yield "relay", f"a relay carries bytes and nothing else, and this rule allows {', '.join(carried)}"
    if terms.revoke == REQUIRED and not terms.relay and not terms.snapshot and terms.tun is None:
        lasting = [_KINDS[kind] for kind in _IRREVOCABLE if kind in types]
        if lasting and Rights.LISTEN not in rights:
            expected = "expected 'relay: true', or a rule for 'type: char' or socket alone"
            yield "revoke", f"{lasting[0]} that was passed cannot be taken back, {expected}"
