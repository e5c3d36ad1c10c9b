"""Who asks: the facts about a peer, and the conditions that a policy puts on them.

Each condition is true, false, or unknown where the fact could not be determined. Unknown counts as false
where a match would widen what a peer may do (an allow's clients, a deny's exception), and as true where it
would narrow it (a deny's clients, an allow's exception). A process can drop groups to escape a deny, so a
group counts as the kernel tells it where that widens, and as the kernel or the account database tells it
where it narrows. Likewise a user's subordinate uids count as that user where it narrows, and nowhere else.

Finding the facts is the broker's task.
"""

from collections.abc import Collection
from typing import NamedTuple

IdRange = tuple[int, int]
"""The first and the last of a range of uids or gids."""

DEFAULT_SOCKET = "default"


class Peer(NamedTuple):
    """The facts about a connector; None means that a fact could not be determined."""

    uid: int | None
    """None also for an overflow id outside the initial user namespace."""
    user_names: frozenset[str] | None
    """The account names of that uid."""
    gids: frozenset[int] | None
    """The kernel's: primary and supplementary."""
    group_names: frozenset[str] | None
    """The names of those."""
    account_gids: frozenset[int] | None = None
    """The account database's, for that uid."""
    account_group_names: frozenset[str] | None = None
    """The names of those."""
    has_account: bool | None = None
    """Whether that uid is one of the account database's."""
    socket: str = DEFAULT_SOCKET
    """The name of the socket it came by."""
    embedded: bool = False
    """Whether it is the one program of an embedded broker."""
    account_name: str | None = None
    """What the account database calls that uid: `${user}`."""
    home: str | None = None
    """The home directory of that account, if it belongs to that uid and no link leads there: `${home}`."""
    unit: str | None = None
    """The system manager's unit that it belongs to; "" for none."""
    exe: str | None = None
    """The path of the file that it ran when it was accepted."""
    label: str | None = None
    """Its label, by the kernel's security module."""
    owner_names: frozenset[str] | None = frozenset()
    """The account names of the users among whose subordinate uids that uid is."""
    owner_uids: frozenset[int] | None = frozenset()
    """The uids of those."""


class Client(NamedTuple):
    """Conditions on a peer, all of which must hold; None means that there is no such condition."""

    users: frozenset[str] | None = None
    uids: tuple[IdRange, ...] | None = None
    groups: frozenset[str] | None = None
    gids: tuple[IdRange, ...] | None = None
    sockets: frozenset[str] | None = None
    any_account: bool = False
    """The word `any`: every uid that has an account, and the program of an embedded broker."""
    units: frozenset[str] | None = None
    exes: frozenset[str] | None = None
    labels: frozenset[str] | None = None

    @property
    def is_exe_alone(self) -> bool:
        """Whether nothing but the program is asked for: any process can run that, and others later."""
        rest = self._replace(exes=None)
        if rest.sockets is not None and DEFAULT_SOCKET in rest.sockets:
            rest = rest._replace(sockets=None)  # everybody reaches that one
        return self.exes is not None and rest == Client()

    def certainly_matches(self, peer: Peer) -> bool:
        """Tell whether every condition is known to hold: for where a match widens."""
        return (
            (self.users is None or _named(self.users, peer.user_names) is True)
            and (self.uids is None or _numbered(self.uids, _only(peer.uid)) is True)
            and (self.groups is None or _named(self.groups, peer.group_names) is True)
            and (self.gids is None or _numbered(self.gids, peer.gids) is True)
            and (self.sockets is None or peer.socket in self.sockets)
            and (not self.any_account or peer.embedded or peer.has_account is True)
            and (self.units is None or _is_among(self.units, peer.unit) is True)
            and (self.exes is None or _is_among(self.exes, peer.exe) is True)
            and (self.labels is None or _is_among(self.labels, peer.label) is True)
        )

    def possibly_matches(self, peer: Peer) -> bool:
        """Tell whether no condition is known to fail: for where a match narrows."""
        return (
            (
                self.users is None
                or _named(self.users, peer.user_names) is not False
                or _named(self.users, peer.owner_names) is not False
            )
            and (
                self.uids is None
                or _numbered(self.uids, _only(peer.uid)) is not False
                or _numbered(self.uids, peer.owner_uids) is not False
            )
            and (
                self.groups is None
                or _named(self.groups, peer.group_names) is not False
                or _named(self.groups, peer.account_group_names) is not False
            )
            and (
                self.gids is None
                or _numbered(self.gids, peer.gids) is not False
                or _numbered(self.gids, peer.account_gids) is not False
            )
            and (self.sockets is None or peer.socket in self.sockets)
            and (not self.any_account or peer.embedded or peer.has_account is not False)
            and (self.units is None or _is_among(self.units, peer.unit) is not False)
            and (self.exes is None or _is_among(self.exes, peer.exe) is not False)
            and (self.labels is None or _is_among(self.labels, peer.label) is not False)
        )


Clients = tuple[Client, ...]
"""Clients any of which will do."""


def any_certainly(clients: Clients, peer: Peer) -> bool:
    """Tell whether one of `clients` is known to match."""
    for client in clients:  # noqa: SIM110 - a generator would cost as much as the comparison
        if client.certainly_matches(peer):
            return True
    return False


def any_possibly(clients: Clients, peer: Peer) -> bool:
    """Tell whether one of `clients` may match."""
    return any(client.possibly_matches(peer) for client in clients)


def allow_admits(clients: Clients, exceptions: Clients, peer: Peer) -> bool:
    """Tell whether an allow with these clients and exceptions is for `peer`, to the best of our knowledge."""
    return any_certainly(clients, peer) and not any_possibly(exceptions, peer)


def deny_concerns(clients: Clients, exceptions: Clients, peer: Peer) -> bool:
    """Tell whether a deny with these clients and exceptions may concern `peer`. No clients: everybody."""
    return (not clients or any_possibly(clients, peer)) and not any_certainly(exceptions, peer)


def _only(number: int | None) -> tuple[int, ...] | None:
    return None if number is None else (number,)


def _is_among(wanted: frozenset[str], known: str | None) -> bool | None:
    return None if known is None else known in wanted


def _named(wanted: frozenset[str], known: frozenset[str] | None) -> bool | None:
    return None if known is None else not wanted.isdisjoint(known)


def _numbered(wanted: tuple[IdRange, ...], known: Collection[int] | None) -> bool | None:
    if known is None:
        return None
    for low, high in wanted:
        for number in known:
            if low <= number <= high:
                return True
    return False
