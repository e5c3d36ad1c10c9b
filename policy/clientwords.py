"""What a rule's clients want and what a peer has, in words, for an explanation.

Whether a condition holds is asked of `clients`, one condition at a time.
"""

from collections.abc import Sequence
from typing import Any

from .clients import Client, Clients, Peer

# Members of a list that are shown of it.
_SHOWN_MEMBERS = 4

_KEYS = {"users": "user", "uids": "uid", "groups": "group", "gids": "gid", "sockets": "socket"}
_FACTS = {"users": "user_names", "uids": "uid", "groups": "group_names", "gids": "gids"}


def missed_clients(clients: Clients, peer: Peer, narrows: bool) -> str:
    """What each of the clients wants that the peer does not have."""
    return "; or ".join(dict.fromkeys(_which_client(client, peer, narrows) for client in clients))


def _which_client(client: Client, peer: Peer, narrows: bool) -> str:
    missing = [one for one in _single_conditions(client) if not _matches(one, peer, certainly=not narrows)]
    return "; and ".join(f"{_wanted(one)}, {_has(one, peer)}" for one in missing)


def hit_exceptions(clients: Clients, peer: Peer, narrows: bool) -> str:
    """Which of the exceptions is for the peer."""
    hits = [client for client in clients if _matches(client, peer, certainly=not narrows)]
    unsure = "" if any(client.certainly_matches(peer) for client in hits) else ", not known not to be"
    return " and ".join(_wanted(one) for one in _single_conditions(hits[0])) + unsure if hits else ""


def _matches(client: Client, peer: Peer, certainly: bool) -> bool:
    return client.certainly_matches(peer) if certainly else client.possibly_matches(peer)


def _single_conditions(client: Client) -> list[Client]:
    """The conditions of a client, each alone."""
    nothing: dict[str, Any] = Client()._asdict()
    held = client._asdict()
    return [Client(**{**nothing, field: value}) for field, value in held.items() if value != nothing[field]]


def _wanted(condition: Client) -> str:
    """A single condition, as the file has it."""
    if condition.any_account:
        return "any account"
    words = []
    for field, key in _KEYS.items():
        value = getattr(condition, field)
        if value is not None:
            words.append(f"{key} {listed(_members(value))}")
    return " and ".join(words) or "another condition"


def _has(condition: Client, peer: Peer) -> str:
    """What the peer has where `condition` wants something else."""
    if condition.any_account:
        return "has none" if peer.has_account is False else "not known"
    if condition.sockets is not None:
        return f"came by {peer.socket}"
    for field, fact in _FACTS.items():
        if getattr(condition, field) is not None:
            known = getattr(peer, fact)
            if known is None:
                return "not known"
            shown = listed(sorted(known) if isinstance(known, frozenset) else [known])
            return f"{'is' if field in ('users', 'uids') else 'has'} {shown or 'none'}"
    return "which does not hold"


def _members(value: frozenset[str] | tuple[tuple[int, int], ...]) -> list[str]:
    if isinstance(value, frozenset):
        return sorted(value)
    return [f"{low}" if low == high else f"{low}-{high}" for low, high in value]


def listed(members: Sequence[object]) -> str:
    """Some of `members`, and how many more there are."""
    more = len(members) - _SHOWN_MEMBERS
    shown = ",".join(map(str, members[:_SHOWN_MEMBERS]))
    return f"{shown} and {more} more" if more > 0 else shown
