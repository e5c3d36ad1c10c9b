"""What stands in profiles alone: environment variables, and sizes in bytes.

Enforced here: a variable has a name that shells can set, and a value that is text; a size has its one unit. Which
variables a profile may have is the subject of `profile`.
"""

import re

from . import fields
from .nodes import Node, Scalar
from .problems import FileReport, shown

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")

# Factors of a size's last letter.
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_SIZE = re.compile(r"(0|[1-9][0-9]{0,17})([KMG]?)")


def variable_name(node: Node, what: str, report: FileReport) -> str | None:
    """Read the name of an environment variable."""
    return fields.matching(
        _VARIABLE, "letters, digits and '_', no digit first, no pattern", node, what, report
    )


def variable_value(node: Node, what: str, report: FileReport) -> str | None:
    """Read what an environment variable is set to. Nothing at all must be quoted, so that it is meant."""
    if isinstance(node, Scalar) and not node.text and not node.plain:
        return ""
    if fields.is_empty(node):
        report.at(node, f"{what} is empty, expected text; '' sets it to nothing")
        return None
    found = fields.text(node, what, report)
    fault = "" if found is None else fields.value_fault(found)
    if fault:
        report.at(node, f"{what} is {shown(found or '')}: {fault}")
        return None
    return found


def size(least: str, most: str) -> fields.Field[int]:
    """Return the field for a size from `least` to `most`, in bytes; K, M and G are powers of 1024."""
    bounds = range(_bytes(least) or 0, (_bytes(most) or 0) + 1)

    def read(node: Node, what: str, report: FileReport) -> int | None:
        found = fields.text(node, what, report)
        if found is None:
            return None
        value = _bytes(found)
        if value is not None and value in bounds:
            return value
        # What others write: 512m, 512MB, 512MiB; or the unit was forgotten.
        stripped = found.upper().removesuffix("B").removesuffix("I")
        meant = next((near for near in (stripped, f"{found}M") if (_bytes(near) or 0) in bounds), "")
        hint = f"; did you mean {meant!r}?" if meant else ""
        expected = f"a size from {least} to {most}, as 512M (K, M, G are powers of 1024, no letter is bytes)"
        report.at(node, f"{what} is {shown(found)}, expected {expected}{hint}")
        return None

    return read


def _bytes(size: str) -> int | None:
    match = _SIZE.fullmatch(size)
    return int(match[1]) * _UNITS[match[2]] if match else None
