"""Everybody whom a policy can give something: all accounts, and those whom its rules know by other marks.

An account is taken as a process of a login that no rule knows by its unit, program or label: who runs as such a unit
is a row of its own. So what is told of an account is the most that it can have.
"""

import grp
from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

from broker.peers import PeerFinder, user_name
from broker.subordinates import Subordinates
from policy import ALLOW, DEFAULT_SOCKET, Client, Peer, Policy
from policy.clients import IdRange
from policy.clientwords import client_words

_LAST_UID = 2**32 - 2
# Where a uid is looked for that nobody has: below the first of systemd's dynamic users.
_UNUSED_UIDS = range(61_183, 1_000, -1)


class Somebody(NamedTuple):
    """One whom decisions are made for."""

    peer: Peer
    account: str | None
    """The name of the account that it is, or that runs it."""
    client: Client | None = None
    """The client of a rule that it stands for, besides what its account is anyway; None: the account itself."""
    words: str = ""
    """What such a client is called."""


def everybody(policy: Policy, finder: PeerFinder) -> list[Somebody]:
    """The accounts of this machine, and after them whom the policy's allows know by other marks."""
    accounts = finder.accounts()
    people = [Somebody(unmarked(peer), _name(peer)) for peer in accounts]
    clients = dict.fromkeys(
        client for rule in policy.rules if rule.action == ALLOW for client in rule.clients
    )
    marked = _Marked(policy, finder, [one for one in people if one.peer.uid is not None])
    return people + [one for client in clients for one in marked.by(client)]


def _name(peer: Peer) -> str:
    return "?" if peer.uid is None else user_name(peer.uid)


def unmarked(peer: Peer) -> Peer:
    """`peer` as a process that no rule means by its unit, program or label."""
    return peer._replace(unit="", exe="", label="")


def _unknown_marks(peer: Peer) -> Peer:
    return peer._replace(unit=None, exe=None, label=None)


def of_unknown_marks(people: Iterable[Somebody]) -> list[Peer]:
    """The same peers, but of accounts it is not known what their processes run in, and what they run."""
    return [_unknown_marks(one.peer) if one.client is None else one.peer for one in people]


class _Marked:
    """Finds those whom a client means and who are no account alone."""

    def __init__(self, policy: Policy, finder: PeerFinder, accounts: list[Somebody]) -> None:
        self._finder = finder
        self._accounts = accounts
        self._uids = frozenset(one.peer.uid for one in accounts)
        ranges = {
            wanted
            for rule in policy.rules
            for client in rule.clients + rule.except_clients
            for wanted in client.uids or ()
        }
        if policy.needs_owners:
            ranges |= set(Subordinates().ranges())
        self._bounds = sorted({bound for low, high in ranges for bound in (low, high + 1)})
        self._ranges = ranges

    def by(self, client: Client) -> Iterator[Somebody]:
        """Those whom `client` means and who are no account alone."""
        own_sockets = client.sockets is None or DEFAULT_SOCKET in client.sockets
        is_marked = any((client.units, client.exes, client.labels)) or not own_sockets
        rest = client._replace(units=None, exes=None, labels=None, sockets=None)
        bases = list(self._without_account(rest, client))
        if is_marked:
            if rest == Client():
                bases.append(Somebody(self._nobody(), None, client))
            else:
                bases += [one for one in self._accounts if rest.certainly_matches(one.peer)]
        for base in bases:
            for unit, exe, label, socket in product(
                sorted(client.units or ("",)),
                sorted(client.exes or ("",)),
                sorted(client.labels or ("",)),
                [DEFAULT_SOCKET] if own_sockets else sorted(client.sockets or ()),
            ):
                peer = base.peer._replace(unit=unit, exe=exe, label=label, socket=socket)
                yield Somebody(peer, base.account, client, base.words or client_words(client))

    def _without_account(self, rest: Client, client: Client) -> Iterator[Somebody]:
        """Peers without an account whom the client's users and groups can mean; nobody has a name without one."""
        if rest.users is not None or rest.any_account:
            return
        if rest.uids is not None:
            if rest.groups is None and rest.gids is None:
                for low, high, uid in self._segments(rest.uids):
                    words = client_words(client._replace(uids=((low, high),)))
                    yield Somebody(unmarked(self._finder.uids([uid])[0]), None, client, words)
        elif rest != Client() and not any(rest.certainly_matches(one.peer) for one in self._accounts):
            # A group that no account is in: a service may have it all the same.
            gids = {low for low, _ in (rest.gids or ())[:1]} | {
                found.gr_gid for found in grp.getgrall() if found.gr_name in (rest.groups or ())
            }
            names = frozenset(found.gr_name for found in grp.getgrall() if found.gr_gid in gids)
            if gids:
                yield Somebody(self._nobody()._replace(gids=frozenset(gids), group_names=names), None, client)

    def _segments(self, ranges: Iterable[IdRange]) -> Iterator[tuple[int, int, int]]:
        """The ranges in pieces that no rule tells apart, each with a uid in it that no account has."""
        for low, high in ranges:
            starts = [low, *(bound for bound in self._bounds if low < bound <= high)]
            for first, after in zip(starts, [*starts[1:], high + 1], strict=True):
                free = next(
                    (uid for uid in range(first, min(after, _LAST_UID + 1)) if uid not in self._uids), None
                )
                if free is not None:
                    yield first, after - 1, free

    def _nobody(self) -> Peer:
        """A peer with no mark at all: no account, no group, and a uid that no rule means."""
        taken = self._uids
        uid = next(
            (
                uid
                for uid in _UNUSED_UIDS
                if uid not in taken and not any(low <= uid <= high for low, high in self._ranges)
            ),
            None,
        )
        empty: frozenset[str] = frozenset()
        return Peer(
            uid,
            empty,
            frozenset(),
            empty,
            frozenset(),
            empty,
            False,
            DEFAULT_SOCKET,
            unit="",
            exe="",
            label="",
        )
