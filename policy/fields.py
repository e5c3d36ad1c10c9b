"""Fields: how one value of a policy file or profile is read. A field turns a node into a value, or tells what is wrong.

A field is a function of the node, of what the value is called in messages, and of the report; it returns
None when it has told a problem. Everything in a file is text until its field converts it, so `0660` is a mode where a
mode stands and `no` is a name where a name stands. The fields of policies are `described`: each says what it takes, for
editors.

Here are those that others are made of, and names, ids and moments; `pathfields` and `devicefields` read what a rule is
for, `termfields` what it is given under.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from .clients import IdRange
from .described import described
from .moments import MOMENT, MomentError, parse_moment
from .nodes import Mapping as MappingNode
from .nodes import Node, Scalar, Sequence, Unreadable
from .problems import FileReport, did_you_mean, one_of, shown

Value = TypeVar("Value")
Field = Callable[[Node, str, FileReport], Value | None]

# The last uid and gid: (uid_t) -1 means "none" to the kernel.
LAST_ID = 2**32 - 2

# Bytes of an environment variable's value. The kernel takes 128 KiB with the name (execve(2)), and all of them
# share the room of the arguments; more than this is a file's content, not a setting.
VALUE_BYTES = 4_096

# Characters of what is shown in one line of a list.
LINE_CHARACTERS = 100

# YAML's sign for nothing. Its words for that (null, Null) are text here like any other: a name, say.
_NOTHING = "~"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RULE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,249}/[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")
# Words of the language: whoever writes them as an account means the word.
_NOT_AN_ACCOUNT = frozenset(("any", "all"))
_ID_RANGE = re.compile(r"(0|[1-9][0-9]{0,9})(?:-(0|[1-9][0-9]{0,9}))?")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|scope|socket|mount|swap)")
_MODE = re.compile(r"0?[0-7]{3}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


def kind_of(node: Node) -> str:
    """Return what `node` is, for a message."""
    kinds = {Scalar: "text", Sequence: "a list", MappingNode: "a mapping", Unreadable: "unreadable"}
    return kinds[type(node)]


def is_empty(node: Node) -> bool:
    """Tell whether nothing stands here: no text, a plain `~`, or no item."""
    if isinstance(node, Scalar):
        return not node.text or (node.plain and node.text == _NOTHING)
    return isinstance(node, Sequence) and not node.items


@described(lambda shapes: shapes.text())
def text(node: Node, what: str, report: FileReport) -> str | None:
    """Read any text but none."""
    if isinstance(node, Scalar) and not is_empty(node):
        return node.text
    if is_empty(node):
        report.at(node, f"{what} is empty")
    elif not isinstance(node, Unreadable):
        report.at(node, f"{what} is {kind_of(node)}, expected text")
    return None


def any_of(field: Field[Value]) -> Field[tuple[Value, ...]]:
    """Return the field for a list of what `field` reads; a value may stand alone for a list of one."""

    @described(lambda shapes: shapes.some(field))
    def read(node: Node, what: str, report: FileReport) -> tuple[Value, ...] | None:
        if is_empty(node):
            report.at(node, f"{what} is empty")
            return None
        items = node.items if isinstance(node, Sequence) else [node]
        values = [field(item, what, report) for item in items]
        return tuple([value for value in values if value is not None])

    return read


def word(words: Mapping[str, Value]) -> Field[Value]:
    """Return the field for one of `words`, each of which stands for a value."""

    @described(lambda shapes: shapes.words(words))
    def read(node: Node, what: str, report: FileReport) -> Value | None:
        found = text(node, what, report)
        if found is not None and found not in words:
            report.at(node, f"unknown {what} {shown(found)}, {one_of(words, found)}")
        return None if found is None else words.get(found)

    return read


def mapping(
    fields: Mapping[str, Field[Any]], node: Node, what: str, report: FileReport
) -> dict[str, Any] | None:
    """Read a mapping with `fields`.

    Returns a value for each key that was there, None for those with a problem; None when it is no mapping.
    """
    if is_empty(node):
        report.at(node, f"{what} is empty")
        return None
    if not isinstance(node, MappingNode):
        if not isinstance(node, Unreadable):
            report.at(node, f"{what} is {kind_of(node)}, expected a mapping with {', '.join(fields)}")
        return None
    if not node.entries:
        report.at(node, f"{what} is empty, expected {', '.join(fields)}")
    values: dict[str, Any] = {}
    for key, value in node.entries:
        field = fields.get(key.text)
        if field is None:
            unknown_key(key, fields, report)
        else:
            values[key.text] = field(value, key.text, report)
    return values


def unknown_key(key: Scalar, known: Mapping[str, object], report: FileReport) -> None:
    """Tell that a key is none of `known`."""
    near = did_you_mean(known, key.text)
    report.at(key, f"unknown key {shown(key.text)}, expected one of {', '.join(known)}{near}")


@described(lambda shapes: shapes.text(_NAME, "Letters, digits, `.`, `_` and `-`, at most 64."))
def name(node: Node, what: str, report: FileReport) -> str | None:
    """Read the name of a rule, client or socket."""
    return matching(_NAME, "letters, digits, '.', '_' and '-', at most 64", node, what, report)


@described(lambda shapes: shapes.text(_RULE_ID, "A file's name without its ending, `/`, a rule's name."))
def rule_id(node: Node, what: str, report: FileReport) -> str | None:
    """Read the id of a rule, possibly of another file."""
    expected = "the id of a rule as 10-base/disks (an empty file of the same name masks a whole file)"
    return matching(_RULE_ID, expected, node, what, report)


@described(
    lambda shapes: {**shapes.text(_ACCOUNT, "An account's name."), "not": {"enum": sorted(_NOT_AN_ACCOUNT)}}
)
def account(node: Node, what: str, report: FileReport) -> str | None:
    """Read the name of a user or group; numbers have fields of their own."""
    if isinstance(node, Scalar) and node.text in _NOT_AN_ACCOUNT:
        report.at(
            node,
            f"{what} is {node.text!r}: the word stands alone, as in 'clients: any', and is no account here",
        )
        return None
    return matching(_ACCOUNT, "an account's name (numbers belong under uid or gid)", node, what, report)


@described(
    lambda shapes: shapes.text(_ID_RANGE, "A number, or a range: `1000-1999`.", minimum=0, maximum=LAST_ID)
)
def id_range(node: Node, what: str, report: FileReport) -> IdRange | None:
    """Read a uid or gid, or a range of them."""
    found = text(node, what, report)
    if found is None:
        return None
    match = _ID_RANGE.fullmatch(found)
    first = int(match[1]) if match else 0
    last = int(match[2] or match[1]) if match else 0
    if match is None or last > LAST_ID or first > LAST_ID:
        expected = f"a decimal number up to {LAST_ID} without leading zeros, or a range as 1000-1999"
        report.at(node, f"{what} is {shown(found)}, expected {expected}")
        return None
    if first > last:
        report.at(node, f"{what} is {shown(found)}, expected the smaller number first")
        return None
    return first, last


@described(lambda shapes: shapes.text(_UNIT, "A unit of the system manager: `web.service`."))
def unit(node: Node, what: str, report: FileReport) -> str | None:
    """Read the name of a unit that processes belong to: slices hold units, and other types hold none."""
    return matching(_UNIT, "a unit's whole name as in web.service, no slice", node, what, report)


@described(lambda shapes: shapes.text(_MODE, "Permission bits in octal: `0660`.", minimum=0, maximum=777))
def mode(node: Node, what: str, report: FileReport) -> int | None:
    """Read the permission bits of a socket, always octal."""
    found = matching(_MODE, "three octal digits as in 0660", node, what, report)
    return None if found is None else int(found, 8)


@described(lambda shapes: shapes.text(MOMENT, "A date, a time of day and a zone: `2026-12-01T18:00+01:00`."))
def moment(node: Node, what: str, report: FileReport) -> int | None:
    """Read a moment, in seconds since 1970."""
    found = text(node, what, report)
    if found is None:
        return None
    try:
        return parse_moment(found)
    except MomentError as error:
        report.at(node, f"{what} is {shown(found)}: {error}")
        return None


def _codes() -> Collection[str]:
    from .findings import CODES  # only a rule that accepts one pays for it

    return CODES.keys()


@described(lambda shapes: shapes.words(_codes()))
def finding_code(node: Node, what: str, report: FileReport) -> str | None:
    """Read the code of a finding, as `fdbroker check` prints it."""
    found = text(node, what, report)
    if found is None:
        return None
    codes = _codes()
    if found not in codes:
        expected = f"the code of a finding, as `fdbroker check` prints it{did_you_mean(codes, found)}"
        report.at(node, f"{what} has {shown(found)}, expected {expected}")
        return None
    return found


def value_fault(value: str) -> str:
    """What is wrong with a variable's value, or a property's; nothing when it is text that is not too long."""
    if "\0" in value:
        return "a NUL is not allowed"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "it is no text that encodes to UTF-8"
    return f"it is longer than {VALUE_BYTES} bytes" if size > VALUE_BYTES else ""


@described(lambda shapes: shapes.text(maxLength=LINE_CHARACTERS))
def line(node: Node, what: str, report: FileReport) -> str | None:
    """Read text that is shown in one line, on a terminal too."""
    found = text(node, what, report)
    if found is None or (found.isprintable() and len(found) <= LINE_CHARACTERS):
        return found
    report.at(node, f"{what} is {shown(found)}, expected one line of at most {LINE_CHARACTERS} characters")
    return None


def number(least: int, most: int) -> Field[int]:
    """Return the field for a decimal number from `least` to `most`."""

    @described(lambda shapes: shapes.number(least, most))
    def read(node: Node, what: str, report: FileReport) -> int | None:
        found = text(node, what, report)
        if found is None:
            return None
        value = int(found) if _NUMBER.fullmatch(found) else None
        if value is not None and least <= value <= most:
            return value
        report.at(node, f"{what} is {shown(found)}, expected a whole number from {least} to {most}")
        return None

    return read


def matching(
    pattern: re.Pattern[str], expected: str, node: Node, what: str, report: FileReport
) -> str | None:
    """Read text that the whole of `pattern` matches; `expected` is that in words."""
    found = text(node, what, report)
    if found is None or pattern.fullmatch(found):
        return found
    report.at(node, f"{what} is {shown(found)}, expected {expected}")
    return None
