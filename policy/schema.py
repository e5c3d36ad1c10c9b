"""The keys of a policy file, as tables, and the declarations that come out of it.

What a file alone can be blamed for is refused here: unknown keys and words, missing and contradicting ones,
and what this version of the language cannot give. Names that lead from one declaration to another, possibly
in another file, are kept with their places for `load` to resolve.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from . import fields
from .clients import DEFAULT_SOCKET, IdRange
from .devices import DEVICE_TYPES, DeviceSelector
from .document import Section, read_sections
from .nodes import Mapping as MappingNode
from .nodes import Node, Scalar, Sequence, Unreadable
from .patterns import PathPattern
from .problems import Abandoned, FileReport, Position
from .rules import ALLOW, DENY, SocketDeclaration, Source
from .words import ALL_RIGHTS, NO_RIGHTS, RIGHT_WORDS, FileType, Rights

ANY = "any"
_ALL = "all"

# Rights of the language that no allow can give in this version, and types that nothing else could be used on.
_RIGHTS_LATER = int(Rights.CREATE | Rights.LIST | Rights.CONNECT | Rights.LISTEN)
_TYPES_LATER = frozenset((FileType.DIRECTORY, FileType.SOCKET))

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


def _version(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    fields.word({"1": 1})(node, key.text, report)


def _named_client(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    named = _declared_name(key, "client", ANY, report)
    client = _client(node, "client", report)
    if named is not None:
        # Declared even when it is faulty, so that rules that name it are not blamed as well.
        declarations.clients.append((named, client or ClientDeclaration()))


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


def _named_devices(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    named = _declared_name(key, "device group", "", report)
    selectors = fields.any_of(_selector)(node, "device group", report)
    if named is not None:
        declarations.devices.append((named, selectors or ()))


def _mask(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    rule = fields.rule_id(node, key.text, report)
    if rule is not None:
        declarations.masks.append(Named(rule, report.position(node)))


def _test(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    if declarations.read_test is not None:
        declarations.read_test(node, report)


def _declared_name(key: Scalar, what: str, reserved: str, report: FileReport) -> Named | None:
    name = fields.name(key, f"the {what}'s name", report)
    if name == reserved:
        report.at(key, f"{name!r} is a word of the language, expected another name for the {what}")
        return None
    return None if name is None else Named(name, report.position(key))


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


def _selector(node: Node, what: str, report: FileReport) -> DeviceSelector | None:
    values = fields.mapping(_DEVICE, frozenset(), node, what, report)
    return None if values is None else _selector_of(values, values.get("type"))


def _selector_of(values: dict[str, Any], types: tuple[FileType, ...] | None) -> DeviceSelector:
    return DeviceSelector(
        _TYPE_SETS.setdefault(frozenset(types), frozenset(types)) if types else None,
        values.get("device"),
        values.get("subsystem"),
        values.get("udev") or (),
        values.get("attrs") or (),
        values.get("seat"),
    )


def _device_reference(node: Node, what: str, report: FileReport) -> DeviceReference | None:
    if isinstance(node, MappingNode):
        return _selector(node, "device group", report)
    return _reference(node, what, report)


def _client_reference(node: Node, what: str, report: FileReport) -> ClientReference | None:
    if isinstance(node, MappingNode):
        return _client(node, "client", report)
    named = _reference(node, what, report)
    return ClientDeclaration(any_account=True) if named is not None and named.text == ANY else named


def _reference(node: Node, what: str, report: FileReport) -> Named | None:
    name = fields.name(node, what, report)
    return None if name is None else Named(name, report.position(node))


def _allow_rights(node: Node, what: str, report: FileReport) -> Rights | None:
    words = _ALLOW_RIGHTS(node, what, report)
    if words is None:
        return None
    rights = _united(words)
    if Rights.APPEND in rights and Rights.WRITE not in rights:
        report.at(node, "append without write is not available in this version")
    return rights


def _allow_right(node: Node, what: str, report: FileReport) -> Rights | None:
    if isinstance(node, Scalar) and node.text == _ALL:
        report.at(node, f"'all' is for deny only, expected some of {', '.join(_ALLOWED_WORDS)}")
        return None
    right = _RIGHT(node, "right", report)
    if right is not None and right.value & _RIGHTS_LATER and isinstance(node, Scalar):
        report.at(
            node,
            f"the right {node.text!r} is not available in this version, expected some of "
            f"{', '.join(_ALLOWED_WORDS)}",
        )
        return None
    return right


def _deny_rights(node: Node, what: str, report: FileReport) -> Rights | None:
    words = _DENY_RIGHTS(node, "right", report)
    return None if words is None else _united(words)


def _united(words: tuple[Rights, ...]) -> Rights:
    united = 0
    for right in words:
        united |= right.value
    return Rights(united)


def _rule(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    values = fields.mapping(_RULE, _RULE_LATER, node, "rule", report)
    if values is None or not isinstance(node, MappingNode):
        return
    named = values.get("name")
    shown = f"rule {named.text!r}" if named else "a rule"
    _check_keys(values, node, shown, report)
    action = DENY if DENY in values else ALLOW
    has_device = any(key in values for key in _OWN_DEVICE_KEYS)
    types = values.get("type")
    if action == ALLOW:
        _refuse_types_later(types or (), node, report)
        types = types or (DEVICE_TYPES if has_device or "devices" in values else (FileType.FILE,))
    declarations.rules.append(
        RuleDeclaration(
            report.position(node),
            named,
            action,
            values.get(action) or NO_RIGHTS,
            _TYPE_SETS.setdefault(frozenset(types), frozenset(types)) if types else None,
            values.get("paths") or (),
            values.get("except_paths") or (),
            values.get("clients") or (),
            values.get("except_clients") or (),
            values.get("until"),
            _selector_of(values, None) if has_device else None,
            (values["devices"] or ()) if "devices" in values else None,
            values.get("except_devices") or (),
        )
    )


def _check_keys(values: dict[str, Any], node: Node, shown: str, report: FileReport) -> None:
    if "name" not in values:
        report.at(node, "the rule has no 'name'")
    if ALLOW in values and DENY in values:
        report.at(node, f"{shown} has both 'allow' and 'deny', expected one of them")
    elif ALLOW not in values and DENY not in values:
        report.at(node, f"{shown} has neither 'allow' nor 'deny', expected one of them")
    elif ALLOW in values:
        selects = [key for key in (*_OWN_DEVICE_KEYS, "devices") if key in values]
        if "clients" not in values:
            report.at(node, f"{shown} has no 'clients', which an allow needs")
        if "paths" not in values and not selects:
            report.at(node, f"{shown} has no 'paths', which an allow needs, or 'devices'")
        if "paths" in values and selects and "type" not in values:
            # With paths and no type a rule is for regular files, which no device is.
            report.at(
                node, f"{shown} has 'paths' and {selects[0]!r} and no 'type', expected 'type: char' or block"
            )


def _refuse_types_later(types: tuple[FileType, ...], rule: MappingNode, report: FileReport) -> None:
    """Refuse an allow of nothing but what only rights of later versions could be used on."""
    if types and _TYPES_LATER.issuperset(types):
        place = next(value for key, value in rule.entries if key.text == "type")
        report.at(place, f"an allow of type {types[0].value!r} alone is not available in this version")


_RIGHT = fields.word(RIGHT_WORDS)
_ALLOW_RIGHTS = fields.any_of(_allow_right)
_DENY_RIGHTS = fields.any_of(fields.word({**RIGHT_WORDS, _ALL: ALL_RIGHTS}))
_ALLOWED_WORDS = tuple(
    word for word, right in RIGHT_WORDS.items() if not right & _RIGHTS_LATER and right != Rights.APPEND
)

_CLIENT: Mapping[str, fields.Field[Any]] = {
    "user": fields.any_of(fields.account),
    "uid": fields.any_of(fields.id_range),
    "group": fields.any_of(fields.account),
    "gid": fields.any_of(fields.id_range),
    "socket": fields.any_of(_reference),
    "unit": fields.any_of(fields.unit),
    "exe": fields.any_of(fields.literal_path),
    "label": fields.any_of(fields.line),
}

_SOCKET: Mapping[str, fields.Field[Any]] = {
    "path": fields.socket_path,
    "owner": fields.account,
    "group": fields.account,
    "mode": fields.mode,
}

_OWN_DEVICE_KEYS = ("device", "subsystem", "udev", "attrs", "seat")
_SELECTORS: Mapping[str, fields.Field[Any]] = {
    "device": fields.any_of(fields.device_number),
    "subsystem": fields.value_patterns,
    "udev": fields.properties,
    "attrs": fields.attributes,
    "seat": fields.value_patterns,
}
_DEVICE: Mapping[str, fields.Field[Any]] = {
    "type": fields.any_of(fields.word({kind.value: kind for kind in (FileType.CHAR, FileType.BLOCK)})),
    **_SELECTORS,
}

_RULE: Mapping[str, fields.Field[Any]] = {
    "name": _reference,
    "clients": fields.any_of(_client_reference),
    "except_clients": fields.any_of(_client_reference),
    ALLOW: _allow_rights,
    DENY: _deny_rights,
    "type": fields.any_of(fields.word({kind.value: kind for kind in FileType})),
    "paths": fields.any_of(fields.path_pattern),
    "except_paths": fields.any_of(fields.path_pattern),
    "until": fields.moment,
    **_SELECTORS,
    "devices": fields.any_of(_device_reference),
    "except_devices": fields.any_of(_device_reference),
}
_RULE_LATER = frozenset(
    (
        "addresses",
        *("lease", "renewable", "exclusive", "preempt", "limits", "revoke", "relay", "snapshot"),
        *("serial", "tun", "create", "temporary", "flags", "as", "netns", "accept"),
    )
)

# Of equal sets of types one is kept; there are 63.
_TYPE_SETS: dict[frozenset[FileType], frozenset[FileType]] = {}

_EntryReader = Callable[[Scalar, Node, Declarations, FileReport], None]
_SECTIONS: Mapping[str, tuple[type[Node], _EntryReader]] = {
    "version": (Scalar, _version),
    "mask": (Sequence, _mask),
    "clients": (MappingNode, _named_client),
    "sockets": (MappingNode, _named_socket),
    "devices": (MappingNode, _named_devices),
    "rules": (Sequence, _rule),
    "tests": (Sequence, _test),
}
_TOP = "'version', 'mask', 'clients', 'sockets', 'devices', 'rules' and 'tests'"
_TESTS = frozenset(("tests",))
