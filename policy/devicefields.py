"""What chooses devices in a policy file: numbers, and the values of udev's properties and sysfs' attributes.

Enforced here: numbers are decimal and within the kernel's bounds; names are such as udev and sysfs have. What a
selector of them is for is the subject of `devices`.
"""

import re

from . import fields
from .described import described
from .devices import DeviceNumber, Values
from .nodes import Mapping as MappingNode
from .nodes import Node, Unreadable
from .patterns import Glob, PatternError, has_wildcards
from .problems import FileReport, shown

_DEVICE_NUMBER = re.compile(r"(0|[1-9][0-9]{0,3}):(0|[1-9][0-9]{0,6}|\*)")
UDEV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
ATTRIBUTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.:-]*)*")

# The kernel's device numbers: 12 bits of a major one, 20 of a minor one (makedev(3)).
_LAST_MAJOR = 2**12 - 1
_LAST_MINOR = 2**20 - 1


@described(
    lambda shapes: shapes.text(_DEVICE_NUMBER, "`MAJOR:MINOR` in decimal; `MAJOR:*` is all of a major one.")
)
def device_number(node: Node, what: str, report: FileReport) -> DeviceNumber | None:
    """Read a device's number; a minor one of `*` is all of them."""
    found = fields.text(node, what, report)
    if found is None:
        return None
    match = _DEVICE_NUMBER.fullmatch(found)
    minor = None if match is None or match[2] == "*" else int(match[2])
    if match is None or int(match[1]) > _LAST_MAJOR or (minor or 0) > _LAST_MINOR:
        report.at(node, f"{what} is {shown(found)}, expected MAJOR:MINOR in decimal as 188:0, or 188:*")
        return None
    return int(match[1]), minor


@described(lambda shapes: shapes.text(meaning="The whole value; `*`, `?` and `[…]` make it a pattern."))
def _value_pattern(node: Node, what: str, report: FileReport) -> str | Glob | None:
    found = fields.text(node, what, report)
    if found is None:
        return None
    fault = fields.value_fault(found)
    if not fault and has_wildcards(found):
        try:
            return Glob(found)
        except PatternError as error:
            fault = str(error)
    if fault:
        report.at(node, f"{what} is {shown(found)}: {fault}")
        return None
    return found


@described(lambda shapes: shapes.some(_value_pattern))
def value_patterns(node: Node, what: str, report: FileReport) -> Values | None:
    """Read values any of which will do; each may be a pattern."""
    return _VALUE_PATTERNS(node, what, report)


_VALUE_PATTERNS: fields.Field[Values] = fields.any_of(_value_pattern)


@described(lambda shapes: shapes.keyed(UDEV_KEY, value_patterns))
def properties(node: Node, what: str, report: FileReport) -> tuple[tuple[str, Values], ...] | None:
    """Read udev properties with what each may be."""
    return _keyed(UDEV_KEY, "the name of a udev property as ID_SERIAL_SHORT", node, what, report)


@described(lambda shapes: shapes.keyed(ATTRIBUTE, value_patterns))
def attributes(node: Node, what: str, report: FileReport) -> tuple[tuple[str, Values], ...] | None:
    """Read sysfs attributes with what each may be."""
    return _keyed(ATTRIBUTE, "the name of a sysfs attribute as idVendor", node, what, report)


def _keyed(
    names: re.Pattern[str], expected: str, node: Node, what: str, report: FileReport
) -> tuple[tuple[str, Values], ...] | None:
    if not isinstance(node, MappingNode) or not node.entries:
        if not isinstance(node, Unreadable):
            found = (
                "empty" if fields.is_empty(node) or isinstance(node, MappingNode) else fields.kind_of(node)
            )
            report.at(node, f"{what} is {found}, expected a mapping of names to values")
        return None
    read = []
    for key, value in node.entries:
        if names.fullmatch(key.text) is None:
            report.at(key, f"{what} has {shown(key.text)}, expected {expected}")
        values = value_patterns(value, f"{what} {key.text}", report)
        if values is not None:
            read.append((key.text, values))
    return tuple(sorted(read, key=lambda one: one[0]))
