"""Findings: what a policy that loads may have wrong with it, each under a code that never changes.

The table is the one place that knows the codes: which there are, how grave each is, what it means and what to do.
"""

from collections.abc import Mapping
from typing import NamedTuple

from .keeping import UNKEPT

ERROR = "error"
"""The rule does something else than it says, to somebody's harm."""


class Code(NamedTuple):
    """What findings of one code have in common."""

    code: str
    severity: str
    meaning: str
    remedy: str
    of_machine: bool = False
    """Whether it depends on the machine, and not on the policy alone."""


_UNKEPT = tuple(
    Code(
        code,
        ERROR,
        f"The rule says what this version of the broker does not keep: {instead}.",
        f"Leave it out, or write 'accept: [{code}]' into the rule when it will do without.",
    )
    for code, instead in UNKEPT.items()
)

_ALL = (*_UNKEPT,)

CODES: Mapping[str, Code] = {one.code: one for one in _ALL}
"""Every code, in the order in which the documentation has them."""
