"""What a rule's clients want and what a peer has, in words, for an explanation.

Whether a condition holds is asked of `clients`, one condition at a time.
"""

from collections.abc import Sequence
from typing import Any

from .clients import Client, Clients, Peer

# Members of a list that are shown of it.
_SHOWN_MEMBERS = 4

_KEYS = {
    "users": "user",
    "uids": "uid",
    "groups": "group",
    "gids": "gid",
    "sockets": "socket",
    "units": "unit",
    "exes": "exe",
    "labels": "label",
}
_FACTS = {
    "users": "user_names",
    "uids": "uid",
    "groups": "group_names",
    "gids": "gids",
    "units": "unit",
    "exes": "exe",
    "labels": "label",
}
_HAD = ("groups", "gids")
# Facts that count as these where a match narrows.
_WIDER_FACTS = {
    "users": ("owner_names", "by whose subordinate uid it is"),
    "uids": ("owner_uids", "by whose subordinate uid it is"),
    "groups": ("account_group_names", "by the account database"),
    "gids": ("account_gids", "by the account database"),
}


def client_words(client: Client) -> str:
    """What a client wants, as the file has it: "group lab and unit web.service"."""
    return " and ".join(_wanted(one) for one in _single_conditions(client)) or "everybody"


def missed_clients(clients: Clients, peer: Peer, narrows: bool) -> str:
    """What each of the clients wants that the peer does not have."""
    return "; or ".join(dict.fromkeys(_which_client(client, peer, narrows) for client in clients))


def _which_client(client: Client, peer: Peer, narrows: bool) -> str:
    missing = [one for one in _single_conditions(client) if not _matches(one, peer, certainly=not narrows)]
    return "; and ".join(f"{_wanted(one)}, {_has(one, peer)}" for one in missing)


def hit_exceptions(clients: Clients, peer: Peer, narrows: bool) -> str:
    """Which of the exceptions is for the peer."""
    hits = [client for client in clients if _matches(client, peer, certainly=not narrows)]
    certain = [client for client in hits if client.certainly_matches(peer)]
    for client in (certain or hits)[:1]:
        return " and ".join(_wanted(one) + _how_it_holds(one, peer) for one in _single_conditions(client))
    return ""


def _how_it_holds(condition: Client, peer: Peer) -> str:
    """Why a single condition may hold that is not known to."""
    if condition.certainly_matches(peer):
        return ""
    for field, (fact, how) in _WIDER_FACTS.items():
        wanted, known = getattr(condition, field), getattr(peer, fact)
        if wanted is not None and known is not None:
            own = peer._replace(user_names=known) if field == "users" else peer
            own = peer._replace(group_names=known) if field == "groups" else own
            own = peer._replace(gids=known) if field == "gids" else own
            owners = [own._replace(uid=uid) for uid in known] if field == "uids" else [own]
            if any(condition.certainly_matches(one) for one in owners):
                return f", {how}"
    return ", not known not to be"


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
            return f"{'has' if field in _HAD else 'is'} {shown or 'none'}"
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
