"""The keys of a rule, and of the clients and devices that it has, as tables; and what one rule can be blamed for.

Enforced here: a rule has a name and either allows or denies; an allow says for whom and for what. That paths and
devices go together, and that a deny has no terms, is told with the key that is in the way. What contradicts itself
among terms is the subject of `termchecks`, what the names in a rule mean, that of `load`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import devicefields, fields, pathfields, termchecks, termfields
from .declarations import ClientDeclaration, ClientReference, DeviceReference, Named, RuleDeclaration
from .described import about, described
from .devices import DEVICE_TYPES, DeviceSelector
from .nodes import Mapping as MappingNode
from .nodes import Node, Scalar, Sequence
from .patterns import parse_pattern
from .problems import FileReport
from .rules import ALLOW, DENY
from .words import ALL_RIGHTS, NO_RIGHTS, RIGHT_WORDS, FileType, Rights

if TYPE_CHECKING:
    from .shapes import Shape, Shapes

ANY = "any"
_ALL = "all"

# What a rule with `tun` is for.
_TUN_PATHS = (parse_pattern("/dev/net/tun"),)
_TUN_TYPES = frozenset((FileType.CHAR,))


@described(lambda shapes: shapes.of(fields.name))
def reference(node: Node, what: str, report: FileReport) -> Named | None:
    """Read a name that stands for what is declared elsewhere, with its place."""
    name = fields.name(node, what, report)
    return None if name is None else Named(name, report.position(node))


@described(lambda shapes: shapes.mapping(_CLIENT))
def client(node: Node, what: str, report: FileReport) -> ClientDeclaration | None:
    """Read the conditions of a client."""
    values = fields.mapping(_CLIENT, node, what, report)
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
def selector(node: Node, what: str, report: FileReport) -> DeviceSelector | None:
    """Read what chooses devices."""
    values = fields.mapping(_DEVICE, node, what, report)
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


@described(lambda shapes: {"anyOf": [shapes.of(reference), shapes.of(selector)]})
def _device_reference(node: Node, what: str, report: FileReport) -> DeviceReference | None:
    if isinstance(node, MappingNode):
        return selector(node, "device group", report)
    return reference(node, what, report)


@described(lambda shapes: {"anyOf": [{"const": ANY}, shapes.of(reference), shapes.of(client)]})
def _client_reference(node: Node, what: str, report: FileReport) -> ClientReference | None:
    if isinstance(node, MappingNode):
        return client(node, "client", report)
    named = reference(node, what, report)
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


def describe_rule(shapes: "Shapes") -> "Shape":
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


def rule(node: Node, report: FileReport) -> RuleDeclaration | None:
    """Read a rule, possibly a faulty one, whose problems were told; None when it is no mapping."""
    values = fields.mapping(_RULE, node, "rule", report)
    if values is None or not isinstance(node, MappingNode):
        return None
    named = values.get("name")
    action = DENY if DENY in values else ALLOW
    has_device = any(key in values for key in _OWN_DEVICE_KEYS)
    types = frozenset(values.get("type") or ())
    if action == ALLOW and not types and termfields.ADDRESSES not in values:
        types = DEVICE_TYPES if has_device or "devices" in values else frozenset((FileType.FILE,))
    _check_keys(values, node, f"rule {named.text!r}" if named else "a rule", types, report)
    is_tun = action == ALLOW and "tun" in values
    return RuleDeclaration(
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
        termchecks.check_deny(values, place, report)
        return
    selects = [key for key in (*_OWN_DEVICE_KEYS, "devices") if key in values]
    if "clients" not in values:
        report.at(node, f"{shown} has no 'clients', which an allow needs")
    if not termchecks.needs_no_path(values):
        if "paths" not in values and not selects:
            report.at(node, f"{shown} has no 'paths', which an allow needs, or 'devices'")
        if "paths" in values and selects and "type" not in values:
            # With paths and no type a rule is for regular files, which no device is.
            report.at(
                node, f"{shown} has 'paths' and {selects[0]!r} and no 'type', expected 'type: char' or block"
            )
    termchecks.check_allow(values, types, place, report)


_RIGHT: fields.Field[Rights] = fields.word(RIGHT_WORDS)
_ALLOW_RIGHTS = fields.any_of(_allow_right)
_DENY_RIGHTS: fields.Field[tuple[Rights, ...]] = fields.any_of(fields.word({**RIGHT_WORDS, _ALL: ALL_RIGHTS}))

_CLIENT: Mapping[str, fields.Field[Any]] = {
    "user": about("Its account's name, or a list of them.", fields.any_of(fields.account)),
    "uid": about("Its number, a range `100000-165535`, or a list.", fields.any_of(fields.id_range)),
    "group": about("A group of its, primary or supplementary.", fields.any_of(fields.account)),
    "gid": about("The number of a group of its, a range, or a list.", fields.any_of(fields.id_range)),
    "socket": about(
        "The socket that it connected to: one of `sockets`, or `default`.", fields.any_of(reference)
    ),
    "unit": about(
        "The unit of the system manager that it runs in: `web.service`.", fields.any_of(fields.unit)
    ),
    "exe": about(
        "The program that it runs; never alone where that gives something.",
        fields.any_of(pathfields.literal_path),
    ),
    "label": about("What the kernel's security module says of it, whole.", fields.any_of(fields.line)),
}

_OWN_DEVICE_KEYS = ("device", "subsystem", "udev", "attrs", "seat")
_SELECTORS: Mapping[str, fields.Field[Any]] = {
    "device": about("Its number: `188:0`, or `188:*`.", fields.any_of(devicefields.device_number)),
    "subsystem": about(
        "The kernel's subsystem: `tty`, `hidraw`, `video4linux`.", devicefields.value_patterns
    ),
    "udev": about("udev's properties; all must hold: `{ID_VENDOR_ID: 0403}`.", devicefields.properties),
    "attrs": about("sysfs attributes, all of one device: its own or one above it.", devicefields.attributes),
    "seat": about("The seat that it belongs to: `seat0`.", devicefields.value_patterns),
}
_DEVICE: Mapping[str, fields.Field[Any]] = {
    "type": about(
        "`char` or `block`; both if left out.",
        fields.any_of(fields.word({kind.value: kind for kind in (FileType.CHAR, FileType.BLOCK)})),
    ),
    **_SELECTORS,
}

_RULE: Mapping[str, fields.Field[Any]] = {
    "name": about("The rule's own name; its id is the file's name, `/`, and this.", reference),
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
    "paths": about("What it is for; quote patterns.", fields.any_of(pathfields.path_pattern)),
    "except_paths": about("What it is not for.", fields.any_of(pathfields.path_pattern)),
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

# Of equal sets of types one is kept; there are 63.
_TYPE_SETS: dict[frozenset[FileType], frozenset[FileType]] = {}
