"""The keys of a policy file, as tables, and the declarations that come out of it.

What a file alone can be blamed for is refused here: unknown keys and words, missing and contradicting ones (those
of terms in `termfields`). Names that lead from one declaration to another, possibly in another file, are kept with
their places for `load` to resolve.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import fields, termfields
from .clients import DEFAULT_SOCKET, IdRange
from .described import about, described
from .devices import DEVICE_TYPES, DeviceSelector
from .document import Section, read_sections
from .nodes import Mapping as MappingNode
from .nodes import Node, Scalar, Sequence, Unreadable
from .patterns import PathPattern, parse_pattern
from .problems import Abandoned, FileReport, Position
from .rules import ALLOW, DENY, SocketDeclaration, Source
from .terms import NO_TERMS, Terms
from .words import ALL_RIGHTS, NO_RIGHTS, RIGHT_WORDS, FileType, Rights

if TYPE_CHECKING:
    from .shapes import Shape, Shapes

ANY = "any"
_VERSIONS = {"1": 1}
_ALL = "all"

# What a rule with `tun` is for.
_TUN_PATHS = (parse_pattern("/dev/net/tun"),)
_TUN_TYPES = frozenset((FileType.CHAR,))

# Permission bits of a socket that says none: its owner and group may connect.
_SOCKET_MODE = 0o660


class Named(NamedTuple):
    """A name in a file, and where it stands."""

    text: str
    position: Position


class ClientDeclaration(NamedTuple):
    """The conditions of a client; None where there is no such condition."""

    users: tuple[str, ...] | None = None
    uids: tuple[IdRange, ...] | None = None
    groups: tuple[str, ...] | None = None
    gids: tuple[IdRange, ...] | None = None
    sockets: tuple[Named, ...] | None = None
    any_account: bool = False
    units: tuple[str, ...] | None = None
    exes: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None


ClientReference = Named | ClientDeclaration
"""A client in a rule: the name of a declared one, or one that is written inline."""


DeviceReference = Named | DeviceSelector
"""Devices in a rule: the name of a declared group, or a selector that is written inline."""


class RuleDeclaration(NamedTuple):
    """A rule whose clients and devices are not resolved yet."""

    position: Position
    name: Named | None
    action: str
    rights: Rights
    types: frozenset[FileType] | None
    paths: tuple[PathPattern, ...]
    except_paths: tuple[PathPattern, ...]
    clients: tuple[ClientReference, ...]
    except_clients: tuple[ClientReference, ...]
    until: int | None = None
    device: DeviceSelector | None = None
    devices: tuple[DeviceReference, ...] | None = None
    except_devices: tuple[DeviceReference, ...] = ()
    terms: Terms = NO_TERMS
    accept: tuple[str, ...] = ()


Watch = Callable[[str, Iterator[tuple[Scalar | None, Node]]], Iterator[tuple[Scalar | None, Node]]]
"""Hands on the entries of a section of the named file, and sees them come."""


class Declarations:
    """What a file declares, or a set of files."""

    def __init__(self) -> None:
        self.clients: list[tuple[Named, ClientDeclaration]] = []
        self.sockets: list[tuple[Named, SocketDeclaration]] = []
        self.devices: list[tuple[Named, tuple[DeviceSelector, ...]]] = []
        self.rules: list[RuleDeclaration] = []
        self.masks: list[Named] = []
        self.read_test: Callable[[Node, FileReport], None] | None = None
        """What takes each of the tests; None passes over them."""
        self.watch: Watch | None = None
        """Who wants to see how far the reading is."""


def read_source(source: Source, declarations: Declarations, report: FileReport) -> None:
    """Add what `source` declares to `declarations`, and what is wrong with it to `report`."""
    first: Scalar | None = None
    has_version = False
    try:
        passed_over = _TESTS if declarations.read_test is None else frozenset[str]()
        for section in read_sections(source.text, _TOP, report, passed_over):
            first = first or section.key
            has_version = has_version or section.key.text == "version"
            _read_section(section, declarations, report)
        if first is not None and not has_version:
            report.at(first, "the file has no 'version', expected 'version: 1'")
    except Abandoned:
        pass


def _read_section(section: Section, declarations: Declarations, report: FileReport) -> None:
    known = _SECTIONS.get(section.key.text)
    if known is None:
        fields.unknown_key(section.key, _SECTIONS, frozenset(), report)
        return
    kind, read_entry = known
    if section.kind is not kind:
        _refuse_kind(section, kind, report)
        return
    entries = section.entries
    for key, node in entries if declarations.watch is None else declarations.watch(report.file, entries):
        read_entry(key or section.key, node, declarations, report)


def _refuse_kind(section: Section, expected: type[Node], report: FileReport) -> None:
    words = {Scalar: "a value", Sequence: "a list", MappingNode: "a mapping"}
    if section.kind is Unreadable:
        return
    what = section.key.text
    if section.kind is Scalar and all(fields.is_empty(node) for _, node in section.entries):
        report.at(section.key, f"{what} is empty, expected {words[expected]}")
    else:
        report.at(section.key, f"{what} is {words[section.kind]}, expected {words[expected]}")


@described(lambda shapes: shapes.of(fields.name))
def _reference(node: Node, what: str, report: FileReport) -> Named | None:
    name = fields.name(node, what, report)
    return None if name is None else Named(name, report.position(node))


@described(lambda shapes: shapes.mapping(_CLIENT))
def _client(node: Node, what: str, report: FileReport) -> ClientDeclaration | None:
    values = fields.mapping(_CLIENT, frozenset(), node, what, report)
    if values is None:
        return None
    return ClientDeclaration(
        values.get("user"),
        values.get("uid"),
        values.get("group"),
        values.get("gid"),
        values.get("socket"),
        units=values.get("unit"),
        exes=values.get("exe"),
        labels=values.get("label"),
    )


@described(lambda shapes: shapes.mapping(_DEVICE))
def _selector(node: Node, what: str, report: FileReport) -> DeviceSelector | None:
    values = fields.mapping(_DEVICE, frozenset(), node, what, report)
    return None if values is None else _selector_of(values, values.get("type"))


@described(lambda shapes: shapes.words(_VERSIONS))
def _version(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    fields.word(_VERSIONS)(node, key.text, report)


@described(lambda shapes: shapes.of(_client))
def _named_client(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    named = _declared_name(key, "client", ANY, report)
    client = _client(node, "client", report)
    if named is not None:
        # Declared even when it is faulty, so that rules that name it are not blamed as well.
        declarations.clients.append((named, client or ClientDeclaration()))


@described(lambda shapes: shapes.mapping(_SOCKET, required=("path",)))
def _named_socket(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    named = _declared_name(key, "socket", DEFAULT_SOCKET, report)
    values = fields.mapping(_SOCKET, frozenset(), node, "socket", report)
    if values is not None and "path" not in values:
        report.at(key, f"socket {key.text!r} has no 'path'")
    if named is not None:
        values = values or {}
        socket = SocketDeclaration(
            named.text,
            values.get("path") or "",
            values.get("owner"),
            values.get("group"),
            values.get("mode", _SOCKET_MODE),
        )
        declarations.sockets.append((named, socket))


@described(lambda shapes: shapes.some(_selector))
def _named_devices(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    named = _declared_name(key, "device group", "", report)
    selectors = fields.any_of(_selector)(node, "device group", report)
    if named is not None:
        declarations.devices.append((named, selectors or ()))


@described(lambda shapes: shapes.of(fields.rule_id))
def _mask(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    rule = fields.rule_id(node, key.text, report)
    if rule is not None:
        declarations.masks.append(Named(rule, report.position(node)))


def _describe_test(shapes: "Shapes") -> "Shape":
    from .testcases import TEST_FIELDS, TEST_NEEDS  # a broker that serves never loads it

    return shapes.mapping(TEST_FIELDS, required=TEST_NEEDS)


@described(_describe_test)
def _test(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    if declarations.read_test is not None:
        declarations.read_test(node, report)


def _declared_name(key: Scalar, what: str, reserved: str, report: FileReport) -> Named | None:
    name = fields.name(key, f"the {what}'s name", report)
    if name == reserved:
        report.at(key, f"{name!r} is a word of the language, expected another name for the {what}")
        return None
    return None if name is None else Named(name, report.position(key))


def _selector_of(values: dict[str, Any], types: tuple[FileType, ...] | None) -> DeviceSelector:
    return DeviceSelector(
        _TYPE_SETS.setdefault(frozenset(types), frozenset(types)) if types else None,
        values.get("device"),
        values.get("subsystem"),
        values.get("udev") or (),
        values.get("attrs") or (),
        values.get("seat"),
    )


@described(lambda shapes: {"anyOf": [shapes.of(_reference), shapes.of(_selector)]})
def _device_reference(node: Node, what: str, report: FileReport) -> DeviceReference | None:
    if isinstance(node, MappingNode):
        return _selector(node, "device group", report)
    return _reference(node, what, report)


@described(lambda shapes: {"anyOf": [{"const": ANY}, shapes.of(_reference), shapes.of(_client)]})
def _client_reference(node: Node, what: str, report: FileReport) -> ClientReference | None:
    if isinstance(node, MappingNode):
        return _client(node, "client", report)
    named = _reference(node, what, report)
    return ClientDeclaration(any_account=True) if named is not None and named.text == ANY else named


@described(lambda shapes: shapes.some(_RIGHT))
def _allow_rights(node: Node, what: str, report: FileReport) -> Rights | None:
    words = _ALLOW_RIGHTS(node, what, report)
    count = len(node.items) if isinstance(node, Sequence) else 1
    # Of rights some of which are faulty nothing can be said, as that a term has none.
    return _united(words) if words is not None and len(words) == count else None


def _allow_right(node: Node, what: str, report: FileReport) -> Rights | None:
    if isinstance(node, Scalar) and node.text == _ALL:
        report.at(node, f"'all' is for deny only, expected some of {', '.join(RIGHT_WORDS)}")
        return None
    return _RIGHT(node, "right", report)


@described(lambda shapes: shapes.of(_DENY_RIGHTS))
def _deny_rights(node: Node, what: str, report: FileReport) -> Rights | None:
    words = _DENY_RIGHTS(node, "right", report)
    return None if words is None else _united(words)


def _united(words: tuple[Rights, ...]) -> Rights:
    united = 0
    for right in words:
        united |= right.value
    return Rights(united)


def _describe_rule(shapes: "Shapes") -> "Shape":
    """What every rule has, what an allow needs, and what a deny cannot have."""
    objects = ("paths", *_OWN_DEVICE_KEYS, "devices", "tun", termfields.ADDRESSES)
    allow = {
        "required": ["clients"],
        "anyOf": [{"required": [key]} for key in objects],
        "properties": {DENY: False},
    }
    deny = {"required": [DENY], "properties": dict.fromkeys(termfields.TERM_FIELDS, False)}
    return {
        **shapes.mapping(_RULE, required=("name",)),
        "if": {"required": [ALLOW]},
        "then": allow,
        "else": deny,
    }


@described(_describe_rule)
def _rule(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    values = fields.mapping(_RULE, _RULE_LATER, node, "rule", report)
    if values is None or not isinstance(node, MappingNode):
        return
    named = values.get("name")
    action = DENY if DENY in values else ALLOW
    has_device = any(key in values for key in _OWN_DEVICE_KEYS)
    types = frozenset(values.get("type") or ())
    if action == ALLOW and not types and termfields.ADDRESSES not in values:
        types = DEVICE_TYPES if has_device or "devices" in values else frozenset((FileType.FILE,))
    _check_keys(values, node, f"rule {named.text!r}" if named else "a rule", types, report)
    is_tun = action == ALLOW and "tun" in values
    declarations.rules.append(
        RuleDeclaration(
            report.position(node),
            named,
            action,
            values.get(action) or NO_RIGHTS,
            _TUN_TYPES if is_tun else _TYPE_SETS.setdefault(types, types) if types else None,
            _TUN_PATHS if is_tun else values.get("paths") or (),
            values.get("except_paths") or (),
            values.get("clients") or (),
            values.get("except_clients") or (),
            values.get("until"),
            _selector_of(values, None) if has_device else None,
            (values["devices"] or ()) if "devices" in values else None,
            values.get("except_devices") or (),
            termfields.terms_of(values),
            values.get("accept") or (),
        )
    )


def _check_keys(
    values: dict[str, Any], node: MappingNode, shown: str, types: frozenset[FileType], report: FileReport
) -> None:
    if "name" not in values:
        report.at(node, "the rule has no 'name'")
    if ALLOW in values and DENY in values:
        report.at(node, f"{shown} has both 'allow' and 'deny', expected one of them")
        return
    if ALLOW not in values and DENY not in values:
        report.at(node, f"{shown} has neither 'allow' nor 'deny', expected one of them")
        return

    def place(key: str) -> Scalar:
        return next(one for one, _ in node.entries if one.text == key)

    if DENY in values:
        termfields.check_deny(values, place, report)
        return
    selects = [key for key in (*_OWN_DEVICE_KEYS, "devices") if key in values]
    if "clients" not in values:
        report.at(node, f"{shown} has no 'clients', which an allow needs")
    if not termfields.needs_no_path(values):
        if "paths" not in values and not selects:
            report.at(node, f"{shown} has no 'paths', which an allow needs, or 'devices'")
        if "paths" in values and selects and "type" not in values:
            # With paths and no type a rule is for regular files, which no device is.
            report.at(
                node, f"{shown} has 'paths' and {selects[0]!r} and no 'type', expected 'type: char' or block"
            )
    termfields.check_allow(values, types, place, report)


_RIGHT: fields.Field[Rights] = fields.word(RIGHT_WORDS)
_ALLOW_RIGHTS = fields.any_of(_allow_right)
_DENY_RIGHTS: fields.Field[tuple[Rights, ...]] = fields.any_of(fields.word({**RIGHT_WORDS, _ALL: ALL_RIGHTS}))

_CLIENT: Mapping[str, fields.Field[Any]] = {
    "user": about("Its account's name, or a list of them.", fields.any_of(fields.account)),
    "uid": about("Its number, a range `100000-165535`, or a list.", fields.any_of(fields.id_range)),
    "group": about("A group of its, primary or supplementary.", fields.any_of(fields.account)),
    "gid": about("The number of a group of its, a range, or a list.", fields.any_of(fields.id_range)),
    "socket": about(
        "The socket that it connected to: one of `sockets`, or `default`.", fields.any_of(_reference)
    ),
    "unit": about(
        "The unit of the system manager that it runs in: `web.service`.", fields.any_of(fields.unit)
    ),
    "exe": about(
        "The program that it runs; never alone where that gives something.",
        fields.any_of(fields.literal_path),
    ),
    "label": about("What the kernel's security module says of it, whole.", fields.any_of(fields.line)),
}

_SOCKET: Mapping[str, fields.Field[Any]] = {
    "path": about("Where the broker listens.", fields.socket_path),
    "owner": about("Whose the socket is; the broker's own if left out.", fields.account),
    "group": about("The socket's group; the broker's own if left out.", fields.account),
    "mode": about("Who may connect, as octal permission bits: `0660`.", fields.mode),
}

_OWN_DEVICE_KEYS = ("device", "subsystem", "udev", "attrs", "seat")
_SELECTORS: Mapping[str, fields.Field[Any]] = {
    "device": about("Its number: `188:0`, or `188:*`.", fields.any_of(fields.device_number)),
    "subsystem": about("The kernel's subsystem: `tty`, `hidraw`, `video4linux`.", fields.value_patterns),
    "udev": about("udev's properties; all must hold: `{ID_VENDOR_ID: 0403}`.", fields.properties),
    "attrs": about("sysfs attributes, all of one device: its own or one above it.", fields.attributes),
    "seat": about("The seat that it belongs to: `seat0`.", fields.value_patterns),
}
_DEVICE: Mapping[str, fields.Field[Any]] = {
    "type": about(
        "`char` or `block`; both if left out.",
        fields.any_of(fields.word({kind.value: kind for kind in (FileType.CHAR, FileType.BLOCK)})),
    ),
    **_SELECTORS,
}

_RULE: Mapping[str, fields.Field[Any]] = {
    "name": about("The rule's own name; its id is the file's name, `/`, and this.", _reference),
    "clients": about(
        "Whom it is for: names from `clients`, conditions written out, or `any`. A deny without is for everybody.",
        fields.any_of(_client_reference),
    ),
    "except_clients": about("Whom it is not for.", fields.any_of(_client_reference)),
    ALLOW: about(
        "The rights that it gives. `use` is read, write, ioctl; `edit` is read, write, truncate.",
        _allow_rights,
    ),
    DENY: about("The rights that it refuses; `all` is every one.", _deny_rights),
    "type": about(
        "What kind of object; if left out, `file` in an allow with paths, and anything in a deny.",
        fields.any_of(fields.word({kind.value: kind for kind in FileType})),
    ),
    "paths": about("What it is for; quote patterns.", fields.any_of(fields.path_pattern)),
    "except_paths": about("What it is not for.", fields.any_of(fields.path_pattern)),
    "until": about("When it ends: a date, a time and a zone, `2026-12-01T18:00+01:00`.", fields.moment),
    **_SELECTORS,
    "devices": about(
        "Devices that it is for: names from `devices`, or selectors written out.",
        fields.any_of(_device_reference),
    ),
    "except_devices": about("Devices that it is not for.", fields.any_of(_device_reference)),
    **termfields.ADDRESS_FIELDS,
    **termfields.TERM_FIELDS,
    "accept": about(
        "Codes of what `fdbroker check` finds about the rule, and that is taken on.",
        fields.any_of(fields.finding_code),
    ),
}
_RULE_LATER: frozenset[str] = frozenset()

# Of equal sets of types one is kept; there are 63.
_TYPE_SETS: dict[frozenset[FileType], frozenset[FileType]] = {}

_EntryReader = Callable[[Scalar, Node, Declarations, FileReport], None]
_SECTIONS: Mapping[str, tuple[type[Node], _EntryReader]] = {
    "version": (Scalar, about("The version of the language: `1`.", _version)),
    "mask": (Sequence, about("Ids of rules of lower tiers that are switched off: `10-base/disks`.", _mask)),
    "clients": (MappingNode, about("Named clients: all keys of one must hold.", _named_client)),
    "sockets": (MappingNode, about("Sockets of their own: who can reach one is its client.", _named_socket)),
    "devices": (
        MappingNode,
        about("Named groups of devices: one selector, or a list of them.", _named_devices),
    ),
    "rules": (Sequence, about("Allows and denies; their order means nothing.", _rule)),
    "tests": (Sequence, about("What shall come of requests; `fdbroker check` runs them.", _test)),
}
_TOP = "'version', 'mask', 'clients', 'sockets', 'devices', 'rules' and 'tests'"
_TESTS = frozenset(("tests",))


def describe_file(shapes: "Shapes") -> "Shape":
    """What a whole file has: its sections."""
    return {
        "type": "object",
        "properties": {key: _describe_section(shapes, *one) for key, one in _SECTIONS.items()},
        "additionalProperties": False,
        "required": ["version"],
    }


def _describe_section(shapes: "Shapes", kind: type[Node], read_entry: _EntryReader) -> "Shape":
    entry = shapes.of(read_entry)
    if kind is Scalar:
        return entry
    shape: Shape = {
        "description": entry.pop("description"),
        "type": "array" if kind is Sequence else "object",
    }
    if kind is Sequence:
        return {**shape, "items": entry}
    return {**shape, "propertyNames": shapes.of(fields.name), "additionalProperties": entry}
