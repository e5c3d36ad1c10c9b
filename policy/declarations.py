"""What policy files declare, as it stands in them: names that lead from one declaration to another are not resolved.

Each name is kept with its place, so that `load`, which resolves them over all files, can say where a wrong one stands.
Nothing is refused here: what a file alone can be blamed for is the subject of `schema` and `rulefields`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .clients import IdRange
from .devices import DeviceSelector
from .nodes import Node, Scalar
from .patterns import PathPattern
from .problems import FileReport, Position
from .rules import SocketDeclaration
from .terms import NO_TERMS, Terms
from .words import FileType, Rights


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
    terms: Terms = NO_TERMS
    accept: tuple[str, ...] = ()


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
