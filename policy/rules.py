"""The values that go into a decision and come out of it. They hold next to no logic; `decide` has it."""

from collections.abc import Collection
from typing import NamedTuple

from .clients import Clients
from .devices import Device, DeviceSelector
from .patterns import PathPattern
from .terms import NO_TERMS, Terms
from .words import NO_RIGHTS, FileType, Rights

ALLOW = "allow"
DENY = "deny"


class Source(NamedTuple):
    """The text of one policy file; `name` is the file's name as it is shown in messages."""

    name: str
    text: str | bytes
    tier: int = 0
    """Higher tiers replace, mask and redefine what lower ones say."""


class SocketDeclaration(NamedTuple):
    """A socket of its own that the broker shall listen on. None leaves owner or group to the broker."""

    name: str
    path: str
    owner: str | None
    group: str | None
    mode: int


class Rule(NamedTuple):
    """One allow or deny, with every name in it resolved."""

    id: str
    """The file's name without its ending, and the rule's name: "30-site/kvm"."""
    file: str
    line: int
    name: str
    action: str
    """ALLOW or DENY."""
    rights: Rights
    types: frozenset[FileType] | None
    """None is any; an allow that names none has {FILE}."""
    paths: tuple[PathPattern, ...]
    """None in a deny is every path."""
    except_paths: tuple[PathPattern, ...]
    clients: Clients
    """None in a deny is everybody."""
    except_clients: Clients
    until: int | None = None
    """The moment, in seconds since 1970, from which on the rule is as if it were not there."""
    device: DeviceSelector | None = None
    """What the rule's own keys say of the device; None: nothing."""
    devices: tuple[DeviceSelector, ...] | None = None
    """Devices any of which will do; None: no such condition."""
    except_devices: tuple[DeviceSelector, ...] = ()
    terms: Terms = NO_TERMS
    """What an allow gives the rights under."""
    accept: frozenset[str] = frozenset()
    """Codes of findings that the administrator takes on for this rule."""

    @property
    def selectors(self) -> tuple[DeviceSelector, ...]:
        """Every selector that the rule mentions."""
        own = () if self.device is None else (self.device,)
        return (*own, *(self.devices or ()), *self.except_devices)

    def is_over(self, now: float | None) -> bool:
        """Tell whether the rule ended. At an unknown time an allow did and a deny did not."""
        if self.until is None:
            return False
        return self.action == ALLOW if now is None else now >= self.until


class Request(NamedTuple):
    """What a peer asks for: a path, the rights that it needs, and those that it would like."""

    path: str
    needed: Rights
    optional: Rights = NO_RIGHTS


class Object(NamedTuple):
    """What the walk to the asked path found."""

    path: str
    """Resolved: absolute, no link left in it."""
    type: FileType | None
    """None: could not be determined."""
    names: tuple[str, ...] = ()
    """Every other full name that was met on the walk, and those deny literals that denote this object."""
    last_link: bool = False
    """The last component of the asked path was a link, and no component before it was one."""
    device: Device | None = None
    """What is known of the device, where the object is a node of one."""
    excepted_as: tuple[str, ...] = ()
    """Those literal exceptions of allows that denote it. Each counts for the rule that has it and for no other: else
    taking a rule away could grant what another one denies by a pattern."""


class Verdict(NamedTuple):
    """The answer to a request."""

    allowed: bool
    rights: Rights
    """What the fd may carry: the needed rights and the granted optional ones; none when refused."""
    rule: Rule | None
    """The rule that decided; None is the default, which refuses."""
    reason: str
    """One line for the administrator's log. Never for the client."""


class Consideration(NamedTuple):
    """What can be said of a request before any system call is made for it."""

    refusal: Verdict | None
    """When set it is final: the request is refused and its path must not be touched."""
    literal_root: str = ""
    """The deepest directory that an allow which may match names literally."""
    deny_literals: tuple[str, ...] = ()
    """Paths of denies that may be names of the same object, whatever path was asked for."""
    exception_literals: tuple[str, ...] = ()
    """The same of exceptions from the allows that may match."""
    has_hidden_names: bool = False
    """Whether the object may have a name that is denied or excepted by a pattern, so that it cannot be looked for."""

    @property
    def literals(self) -> tuple[str, ...]:
        """All those paths: the broker finds out which of them denote the object."""
        return tuple(dict.fromkeys((*self.deny_literals, *self.exception_literals)))

    def named(self, object: Object, same: Collection[str]) -> Object:
        """Return `object` with those of the paths that denote it, where `same` are some that do."""
        more = [name for name in self.deny_literals if name in same and name not in object.names]
        excepted = [name for name in self.exception_literals if name in same]
        return object._replace(
            names=(*object.names, *more), excepted_as=tuple(dict.fromkeys((*object.excepted_as, *excepted)))
        )
