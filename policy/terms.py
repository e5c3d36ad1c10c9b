"""Terms: what an allow gives its rights under.

Values only. Which of them this version of the broker keeps is the subject of `keeping`.
"""

from typing import NamedTuple

# What `revoke` may say.
TRY = "try"
REQUIRED = "required"
KILL = "kill"

# Open flags that change how a descriptor behaves, and no right; in lower case, as on the wire.
FLAG_WORDS = ("direct", "directory", "dsync", "excl", "nofollow", "nonblock", "sync")


class Address(NamedTuple):
    """Where a TCP socket listens."""

    host: str
    """Of IPv4 or IPv6, in the one usual spelling (RFC 5952)."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


class Serial(NamedTuple):
    """How the broker sets a serial line before it hands it over; None leaves a setting as it is."""

    baud: int | None = None
    """Bits per second."""
    frame: str | None = None
    """Data bits, parity and stop bits, as "8N1"."""
    raw: bool = False


class Creation(NamedTuple):
    """What a file that is created belongs to; None leaves owner or group to the broker."""

    owner: str | None = None
    group: str | None = None
    mode: int | None = None


class Terms(NamedTuple):
    """The terms of an allow; the defaults are those of a rule that says nothing."""

    lease: int | None = None
    """Seconds that a grant lasts; None: as long as its connection."""
    renewable: bool = False
    exclusive: bool = False
    preempt: bool = False
    open_limit: int | None = None
    """Grants of the rule that one peer may hold at a time."""
    rate_limit: int | None = None
    """Opens by the rule that one peer may make each second."""
    revoke: str | None = None
    """TRY, REQUIRED or KILL; None: nothing was said."""
    relay: bool = False
    snapshot: bool = False
    serial: Serial | None = None
    tun: str | None = None
    """The name of the TUN or TAP interface."""
    create: Creation | None = None
    temporary: bool = False
    flags: frozenset[str] = frozenset()
    """Names of open flags that are set for every open."""
    as_broker: bool = False
    """Whether the broker connects as itself, and not as the peer."""
    netns_broker: bool = False
    """Whether a peer in another network namespace than the broker's may have it."""
    addresses: tuple[Address, ...] = ()
    """What may be listened at. A rule that has some, a deny too, is for nothing else: for no path, that is."""


NO_TERMS = Terms()
