"""The parts of a YAML file as the schema sees them: text, lists and mappings, each with its place.

A scalar is nothing but its text: what it means (a number, a mode, a name) is decided by the field it stands
in, so none of YAML 1.1's octals, sexagesimals, booleans or dates exists here.
"""

from typing import NamedTuple


class Scalar(NamedTuple):
    """Text. `plain` says that it was not quoted, so that `~` can be told from text."""

    text: str
    plain: bool
    line: int
    column: int


class Sequence(NamedTuple):
    """A list."""

    items: list["Node"]
    line: int
    column: int


class Mapping(NamedTuple):
    """Keys and values in the order of the file; the keys are unique."""

    entries: list[tuple[Scalar, "Node"]]
    line: int
    column: int


class Unreadable(NamedTuple):
    """A place whose problem has been told already; whoever meets it stays silent."""

    line: int
    column: int


Node = Scalar | Sequence | Mapping | Unreadable
