"""The facts of a policy's tests: who asks and what the path leads to, as the kernel and udev would tell them.

What is not said is unknown, and so never widens. These things are said by saying nothing: the socket is the default
one, the client is no embedded program, and its uid is among nobody's subordinate uids. A list says the whole: with
`groups: [lab]` there is no other group; and so does a mapping: a property or attribute that is not in it is absent.

Imported by those who run the tests alone.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import devicefields, fields, pathfields
from .clients import DEFAULT_SOCKET, Peer
from .declarations import Named
from .described import about, described
from .devices import DEVICE_TYPES, SEAT_PROPERTY, Device
from .nodes import Mapping as MappingNode
from .nodes import Node, Scalar, Sequence
from .paths import shape_fault
from .problems import FileReport, shown
from .rules import Object
from .words import FileType

if TYPE_CHECKING:
    from .shapes import Shape, Shapes

_YES = {"true": True, "false": False}

# The value of `unit` for a process that is in none. Names of units have an ending.
_NO_UNIT = "none"

_Facts = dict[str, str]


@described(lambda shapes: shapes.mapping(_CLIENT))
def read_client(node: Node, what: str, report: FileReport) -> tuple[Peer, Named | None] | None:
    """Read who asks; the name is that of the socket, and stands where it was said."""
    values = fields.mapping(_CLIENT, node, what, report)
    if not values or None in values.values():
        return None
    user, names, numbers = values.get("user"), values.get("groups"), values.get("gids")
    groups = None if names is None else frozenset(names)
    gids = None if numbers is None else frozenset(numbers)
    owner_names, owner_uids = _owners(values.get("subordinate_of", ()))
    socket = values.get("socket")
    peer = Peer(
        values.get("uid"),
        None if user is None else frozenset((user,)),
        gids,
        groups,
        gids,
        groups,
        None if user is None else True,
        DEFAULT_SOCKET if socket is None else socket.text,
        values.get("embedded", False),
        user,
        values.get("home"),
        values.get("unit"),
        values.get("exe"),
        values.get("label"),
        owner_names,
        owner_uids,
    )
    return peer, socket


def _owners(owners: tuple[str | int, ...]) -> tuple[frozenset[str] | None, frozenset[int] | None]:
    """The names and the uids of the owners; what was said by name has a uid that is not known, and so the other way."""
    names = frozenset(one for one in owners if isinstance(one, str))
    uids = frozenset(one for one in owners if isinstance(one, int))
    return (names or None, uids or None) if owners else (names, uids)


@described(lambda shapes: shapes.mapping(_OBJECT, required=("path", "type")))
def read_object(node: Node, what: str, report: FileReport) -> tuple[Object, str] | None:
    """Read what the path leads to, and the path that is asked for."""
    values = fields.mapping(_OBJECT, node, what, report)
    if not values:
        return None
    missing = [key for key in ("path", "type") if key not in values]
    for key in missing:
        report.at(node, f"the object has no {key!r}")
    wrong = _contradiction(values)
    if wrong:
        report.at(node, wrong)
    if missing or wrong or None in values.values():
        return None
    path, link = values["path"], values.get("link")
    device = _device(values)
    found = Object(path, values["type"], values.get("names", ()), link is not None, device)
    return found, link or values.get("asked") or path


def _contradiction(values: dict[str, Any]) -> str:
    if "link" in values and "asked" in values:
        return "the object has both 'link' and 'asked', expected one of them"
    if "seat" in values and SEAT_PROPERTY in (values.get("udev") or {}):
        return f"the object has both 'seat' and 'udev' with {SEAT_PROPERTY}, expected one of them"
    kind, facts = values.get("type"), [key for key in _DEVICE_FACTS if key in values]
    if facts and kind is not None and kind not in DEVICE_TYPES:
        return f"the object is of type {kind.value} and has {facts[0]!r}, expected 'type: char' or block"
    return ""


def _device(values: dict[str, Any]) -> Device | None:
    if not any(key in values for key in _DEVICE_FACTS):
        return None
    properties: _Facts | None = values.get("udev")
    if "seat" in values:
        properties = {**(properties or {}), SEAT_PROPERTY: values["seat"]}
    return Device(values.get("device"), values.get("subsystem"), properties, values.get("attrs"))


def _some(field: fields.Field[Any]) -> fields.Field[tuple[Any, ...]]:
    """The field for a list of what `field` reads, of which `[]` has none."""
    some = fields.any_of(field)

    @described(lambda shapes: {"anyOf": [shapes.of(field), {"type": "array", "items": shapes.of(field)}]})
    def read(node: Node, what: str, report: FileReport) -> tuple[Any, ...] | None:
        return () if isinstance(node, Sequence) and not node.items else some(node, what, report)

    return read


@described(lambda shapes: shapes.number(0, fields.LAST_ID))
def _id(node: Node, what: str, report: FileReport) -> int | None:
    bounds = fields.id_range(node, what, report)
    if bounds is not None and bounds[0] != bounds[1]:
        report.at(node, f"{what} is a range, expected one number")
        return None
    return None if bounds is None else bounds[0]


@described(lambda shapes: {"anyOf": [shapes.of(fields.account), shapes.of(_id)]})
def _account_or_id(node: Node, what: str, report: FileReport) -> str | int | None:
    is_id = isinstance(node, Scalar) and node.text[:1].isdigit()
    return _id(node, what, report) if is_id else fields.account(node, what, report)


@described(lambda shapes: {"anyOf": [{"const": _NO_UNIT}, shapes.of(fields.unit)]})
def _unit(node: Node, what: str, report: FileReport) -> str | None:
    is_none = isinstance(node, Scalar) and node.text == _NO_UNIT
    return "" if is_none else fields.unit(node, what, report)


@described(lambda shapes: shapes.of(fields.name))
def _named(node: Node, what: str, report: FileReport) -> Named | None:
    name = fields.name(node, what, report)
    return None if name is None else Named(name, report.position(node))


@described(lambda shapes: shapes.path("^/", pathfields.NO_PATH))
def _path(node: Node, what: str, report: FileReport) -> str | None:
    """A path as a client or a walk has it, where no character means another."""
    found = fields.text(node, what, report)
    fault = "" if found is None else shape_fault(found)
    if fault:
        report.at(node, f"{what} is {shown(found or '')}: {fault}")
        return None
    return found


@described(lambda shapes: shapes.text("[0-9]{1,4}:[0-9]{1,7}", "`MAJOR:MINOR` in decimal."))
def _device_number(node: Node, what: str, report: FileReport) -> tuple[int, int] | None:
    number = devicefields.device_number(node, what, report)
    if number is None:
        return None
    major, minor = number
    if minor is None:
        report.at(
            node, f"{what} is all numbers of a major one, expected the one that the device has, as 188:0"
        )
        return None
    return major, minor


@described(lambda shapes: shapes.keyed(devicefields.UDEV_KEY, fields.text, least=0))
def _properties(node: Node, what: str, report: FileReport) -> _Facts | None:
    """udev's properties, perhaps none; their values are text and no patterns."""
    return _facts(devicefields.UDEV_KEY, "the name of a udev property as ID_SERIAL_SHORT", node, what, report)


def _describe_attributes(shapes: "Shapes") -> "Shape":
    one = shapes.keyed(devicefields.ATTRIBUTE, fields.text, least=0)
    return {"anyOf": [one, {"type": "array", "items": one}]}


@described(_describe_attributes)
def _attributes(node: Node, what: str, report: FileReport) -> tuple[_Facts, ...] | None:
    """The attributes of the device and of each that is above it; a mapping alone is the device's own."""
    chain = [
        _facts(devicefields.ATTRIBUTE, "the name of a sysfs attribute as idVendor", one, what, report)
        for one in (node.items if isinstance(node, Sequence) else [node])
    ]
    known = tuple(one for one in chain if one is not None)
    return known if len(known) == len(chain) else None


def _facts(names: re.Pattern[str], expected: str, node: Node, what: str, report: FileReport) -> _Facts | None:
    if not isinstance(node, MappingNode):
        # What cannot be read was told already, by whoever read it.
        if isinstance(node, Scalar | Sequence):
            found = "empty" if fields.is_empty(node) else fields.kind_of(node)
            report.at(node, f"{what} is {found}, expected a mapping of names to values; {{}} has none")
        return None
    read: _Facts = {}
    for key, value in node.entries:
        fact = fields.text(value, f"{what} {key.text}", report)
        if names.fullmatch(key.text) is None:
            report.at(key, f"{what} has {shown(key.text)}, expected {expected}")
        elif fact is not None:
            read[key.text] = fact
    return read if len(read) == len(node.entries) else None


_CLIENT: Mapping[str, fields.Field[Any]] = {
    "user": about("The name of its account.", fields.account),
    "uid": about("Its number.", _id),
    "groups": about("All of its groups' names.", _some(fields.account)),
    "gids": about("The numbers of all of its groups.", _some(_id)),
    "socket": about("The socket that it came by; the default one if left out.", _named),
    "unit": about("The unit that it runs in, or `none`.", _unit),
    "label": about("What the kernel's security module says of it.", fields.line),
    "exe": about("The program that it runs.", _path),
    "home": about("Its home directory.", _path),
    "subordinate_of": about("Among whose subordinate uids its own is.", fields.any_of(_account_or_id)),
    "embedded": about("Whether it is the program of `fdbroker run --policy`.", fields.word(_YES)),
}

_DEVICE_FACTS: Mapping[str, fields.Field[Any]] = {
    "device": about("Its number: `188:0`.", _device_number),
    "subsystem": about("The kernel's subsystem.", fields.text),
    "udev": about("All of udev's properties; one that is not here is absent.", _properties),
    "attrs": about("Its sysfs attributes; or a list of its own and of each device's above it.", _attributes),
    "seat": about("The seat that it belongs to.", fields.text),
}
_OBJECT: Mapping[str, fields.Field[Any]] = {
    "path": about("The path, without links.", _path),
    "type": about("What kind of object it is.", fields.word({kind.value: kind for kind in FileType})),
    "link": about("The link that is asked for, whose last part leads to it.", _path),
    "asked": about("The path that is asked for, where that is another.", _path),
    "names": about("Other names of it.", fields.any_of(_path)),
    **_DEVICE_FACTS,
}
