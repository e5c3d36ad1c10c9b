"""The sections of a policy file, as a table, and the declarations that come out of it.

What a file as a whole can be blamed for is refused here: an unknown section, one of another kind, a missing version, a
name that is a word of the language. What stands in a rule, and in a client or device, is the subject of `rulefields`;
names that lead from one declaration to another, possibly in another file, are for `load` to resolve.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import fields, pathfields, rulefields
from .clients import DEFAULT_SOCKET
from .declarations import ClientDeclaration, Declarations, Named
from .described import about, described
from .document import Section, read_sections
from .nodes import Mapping as MappingNode
from .nodes import Node, Scalar, Sequence, Unreadable
from .problems import Abandoned, FileReport
from .rules import SocketDeclaration, Source

if TYPE_CHECKING:
    from .shapes import Shape, Shapes

_VERSIONS = {"1": 1}

# Permission bits of a socket that says none: its owner and group may connect.
_SOCKET_MODE = 0o660


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
        fields.unknown_key(section.key, _SECTIONS, report)
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


@described(lambda shapes: shapes.words(_VERSIONS))
def _version(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    fields.word(_VERSIONS)(node, key.text, report)


@described(lambda shapes: shapes.of(rulefields.client))
def _named_client(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    named = _declared_name(key, "client", rulefields.ANY, report)
    declared = rulefields.client(node, "client", report)
    if named is not None:
        # Declared even when it is faulty, so that rules that name it are not blamed as well.
        declarations.clients.append((named, declared or ClientDeclaration()))


@described(lambda shapes: shapes.mapping(_SOCKET, required=("path",)))
def _named_socket(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    named = _declared_name(key, "socket", DEFAULT_SOCKET, report)
    values = fields.mapping(_SOCKET, node, "socket", report)
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


@described(lambda shapes: shapes.some(rulefields.selector))
def _named_devices(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    named = _declared_name(key, "device group", "", report)
    selectors = fields.any_of(rulefields.selector)(node, "device group", report)
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


@described(rulefields.describe_rule)
def _rule(key: Scalar, node: Node, declarations: Declarations, report: FileReport) -> None:
    declaration = rulefields.rule(node, report)
    if declaration is not None:
        declarations.rules.append(declaration)


def _declared_name(key: Scalar, what: str, reserved: str, report: FileReport) -> Named | None:
    name = fields.name(key, f"the {what}'s name", report)
    if name == reserved:
        report.at(key, f"{name!r} is a word of the language, expected another name for the {what}")
        return None
    return None if name is None else Named(name, report.position(key))


_SOCKET: Mapping[str, fields.Field[Any]] = {
    "path": about("Where the broker listens.", pathfields.socket_path),
    "owner": about("Whose the socket is; the broker's own if left out.", fields.account),
    "group": about("The socket's group; the broker's own if left out.", fields.account),
    "mode": about("Who may connect, as octal permission bits: `0660`.", fields.mode),
}

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
