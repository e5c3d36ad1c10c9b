"""Paths in a policy file or profile: patterns, paths that mean themselves alone, and where sockets are.

Enforced here: each is absolute and has one spelling; what looks like a pattern where there are none is refused, and not
taken literally, as is a character there that does not show. What a pattern matches is the subject of `patterns`.
"""

import re

from . import fields
from .described import described
from .nodes import Node
from .paths import shape_fault
from .patterns import PathPattern, PatternError, parse_pattern
from .problems import FileReport, shown

# Bytes of a socket's path without its NUL, from unix(7).
_SOCKET_PATH_BYTES = 107

# As much of the form of paths as a schema can tell.
NO_PATH = r"//|/\.\.?(?:/|$)|/$"
_NO_LITERAL_PATH = rf"{NO_PATH}|[*?\[\\{{}}]| /| $"
_NO_PATTERN = rf"{NO_PATH}|\\| /| $|\*\*.|[^/]\*\*|\$\{{(?!(?:user|uid|home)\}})"
_ABOUT_PATTERNS = (
    "Absolute. `*`, `?` and `[…]` stay inside one component; a last `/**` is all that lies below. "
    "`${user}`, `${uid}` and, at the start, `${home}` are the client's."
)
_PATTERN_START = r"^(?:/|\$\{home\}(?:/|$))"

# What a path pattern, or another language of patterns, would not take for itself.
_PATTERN = re.compile(r"[*?\[\\{}]|\$\{")


@described(lambda shapes: shapes.path("^/", NO_PATH, maxLength=_SOCKET_PATH_BYTES))
def socket_path(node: Node, what: str, report: FileReport) -> str | None:
    """Read the absolute path of a socket."""
    found = fields.text(node, what, report)
    if found is None:
        return None
    fault = shape_fault(found)
    if not fault and len(found.encode()) > _SOCKET_PATH_BYTES:
        fault = f"a socket's path has at most {_SOCKET_PATH_BYTES} bytes"
    if fault:
        report.at(node, f"{what} is {shown(found)}: {fault}")
        return None
    return found


@described(lambda shapes: shapes.path(_PATTERN_START, _NO_PATTERN, _ABOUT_PATTERNS))
def path_pattern(node: Node, what: str, report: FileReport) -> PathPattern | None:
    """Read a path pattern."""
    found = fields.text(node, what, report)
    if found is None:
        return None
    try:
        return parse_pattern(found)
    except PatternError as error:
        report.at(node, f"{what} has {shown(found)}: {error}")
        return None


@described(lambda shapes: shapes.path("^/", _NO_LITERAL_PATH))
def literal_path(node: Node, what: str, report: FileReport) -> str | None:
    """Read an absolute path that means itself alone.

    What a pattern would make of `*` is refused and not taken literally: whoever writes it means the pattern.
    """
    found = fields.text(node, what, report)
    if found is None:
        return None
    fault = _literal_fault(found)
    if fault:
        report.at(node, f"{what} has {shown(found)}: {fault}")
        return None
    return found


def _literal_fault(path: str) -> str:
    fault = shape_fault(path)
    if fault:
        return fault
    if not path.isprintable():
        hidden = next(character for character in path if not character.isprintable())
        return f"the character {hidden!r} does not show"
    wild = _PATTERN.search(path)
    if wild:
        return f"{wild.group()!r} is not allowed: there are no patterns here, name the directory itself"
    try:
        parse_pattern(path)
    except PatternError as error:
        return str(error)
    return ""
