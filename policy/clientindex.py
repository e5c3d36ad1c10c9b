"""Finds the groups of clients that a peer may belong to without asking each of them.

A client is kept under one of its conditions that names single values: a user, a uid, a unit, a group. Which groups
are for a peer is asked of `clients` in the end, of the few that were found.
"""

from collections.abc import Collection, Iterator, Sequence

from .clients import Client, Clients, Peer, allow_admits, deny_concerns

Group = tuple[Clients, Clients]
"""The clients of rules that share them, and their exceptions."""

# Conditions in the order of how few they are for.
_FIELDS = ("users", "uids", "units", "groups", "gids")


class ClientIndex:
    """Groups of clients by their place in a list."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._asked_always: list[int] = []
        self._by_field: dict[str, dict[object, list[int]]] = {field: {} for field in _FIELDS}
        for place, (clients, _) in enumerate(groups):
            keys = [_key(client) for client in clients]
            if not keys or None in keys:
                self._asked_always.append(place)
                continue
            for field, value in {one for key in keys if key is not None for one in key}:
                self._by_field[field].setdefault(value, []).append(place)

    def admitting(self, peer: Peer) -> frozenset[int]:
        """Return the places of those that are certainly for `peer`: of allows."""
        return frozenset(
            place for place in self._found(peer, possibly=False) if allow_admits(*self._groups[place], peer)
        )

    def concerning(self, peer: Peer) -> frozenset[int]:
        """Return the places of those that may be for `peer`: of denies."""
        return frozenset(
            place for place in self._found(peer, possibly=True) if deny_concerns(*self._groups[place], peer)
        )

    def _found(self, peer: Peer, possibly: bool) -> Iterator[int]:
        yield from self._asked_always
        for field, places in self._by_field.items():
            if not places:
                continue
            facts = _facts(field, peer, possibly)
            for value in places if facts is None else facts:
                yield from places.get(value, ())


def _key(client: Client) -> tuple[tuple[str, object], ...] | None:
    """The values of one condition, of which a peer that matches has one; None where no condition names values."""
    for field in _FIELDS:
        wanted = getattr(client, field)
        if wanted is None:
            continue
        if field not in ("uids", "gids"):
            return tuple((field, name) for name in wanted)
        if all(low == high for low, high in wanted):
            return tuple((field, low) for low, _ in wanted)
    return None


def _facts(field: str, peer: Peer, possibly: bool) -> Collection[object] | None:
    """Return what is known of `peer`, and what counts besides where a match narrows; None for all that there is."""
    if field == "users":
        known, more = peer.user_names, peer.owner_names
    elif field == "groups":
        known, more = peer.group_names, peer.account_group_names
    elif field == "uids":
        return _united(_only(peer.uid), peer.owner_uids, possibly)
    elif field == "gids":
        return _united(peer.gids, peer.account_gids, possibly)
    else:
        return _united(_only(peer.unit), (), possibly)
    return _united(known, more, possibly)


def _united(
    known: Collection[object] | None, more: Collection[object] | None, possibly: bool
) -> Collection[object] | None:
    if not possibly:
        return () if known is None else known
    return None if known is None or more is None else {*known, *more}


def _only(fact: object | None) -> Collection[object] | None:
    return None if fact is None else (fact,)
