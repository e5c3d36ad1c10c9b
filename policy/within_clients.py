"""Whether clients are all among other clients, and whether none is: for the comparison of rules in `within`.

Clients are compared value by value: `{user: [mia, tom]}` is what `{user: mia}` and `{user: tom}` are together. An
account's name and its number are the same only where `Names` says so. What is shown holds for conditions that are
known to hold, and for those that may hold, alike; but that a user whose name is known has an account holds for what is
known alone: a subordinate uid, which may count as its owner's, has none.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .atoms import RANGES, taken_apart
from .clients import Client, Clients, IdRange

# Values of one client that are compared each for itself; past that only the whole client is.
_SPLIT_VALUES = 256


class Names(NamedTuple):
    """The numbers of accounts and groups, where they are known. A name that is missing is like no number."""

    users: Mapping[str, int] = {}
    groups: Mapping[str, int] = {}


NO_NAMES = Names()


def clients_within(inner: Clients, outer: Clients, names: Names = NO_NAMES, possibly: bool = False) -> bool:
    """Tell whether each peer that is certainly one of `inner` is one of `outer`.

    With `possibly`: whether each that is possibly one of `inner` is possibly one of `outer`.
    """
    cuts = {field: _cuts(inner + outer, field, names) for field in RANGES}
    wider = (
        *outer,
        *(_numbered(one, names) for client in outer for one in taken_apart(client, _SPLIT_VALUES)),
    )
    return all(
        any(_client_within(atom, one, possibly) for one in wider)
        for client in inner
        for named in taken_apart(client, _SPLIT_VALUES)
        if not any(_client_within(named, one, possibly) for one in wider)
        for atom in taken_apart(_numbered(named, names), _SPLIT_VALUES, cuts)
    )


def single_clients(clients: Clients, others: Clients, names: Names = NO_NAMES) -> list[Client]:
    """Return clients of one value each that together are `clients`, none of which is half one of `others`."""
    cuts = {field: _cuts(clients + others, field, names) for field in RANGES}
    return [atom for client in clients for atom in taken_apart(client, _SPLIT_VALUES, cuts)]


def _client_within(inner: Client, outer: Client, possibly: bool) -> bool:
    """Whether each condition of `outer` follows from one of `inner`."""
    for field, wanted in outer._asdict().items():
        held = getattr(inner, field)
        if wanted is None or wanted is False:
            continue
        if field == "any_account" and inner.users is not None and not possibly:
            continue
        if held is None or held is False:
            return False
        if field in RANGES:
            merged = _merged(wanted)
            if not all(any(low <= one[0] and one[1] <= high for low, high in merged) for one in held):
                return False
        elif isinstance(wanted, frozenset):
            if not held <= wanted:
                return False
        elif held != wanted:
            return False
    return True


def _numbered(client: Client, names: Names) -> Client:
    """`client`, of one value for each condition, with numbers for the names that have one."""
    for named, numbered, known in (("users", "uids", names.users), ("groups", "gids", names.groups)):
        wanted = getattr(client, named)
        if wanted is None or len(wanted) != 1 or getattr(client, numbered) is not None:
            continue
        number = known.get(next(iter(wanted)))
        if number is not None:
            changes: dict[str, Any] = {named: None, numbered: ((number, number),)}
            client = client._replace(**changes)
    return client


def _cuts(clients: Clients, field: str, names: Names) -> set[int]:
    """Where the ranges of `clients` begin and end."""
    known = (names.users if field == "uids" else names.groups).values()
    ranges = [one for client in clients for one in getattr(client, field) or ()]
    return {cut for low, high in [*ranges, *((one, one) for one in known)] for cut in (low, high + 1)}


def _merged(ranges: Iterable[IdRange]) -> list[IdRange]:
    merged: list[IdRange] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], high)
        else:
            merged.append((low, high))
    return merged


def client_apart(one: Client, other: Client) -> bool:
    """Tell whether a peer that is certainly `one` is not possibly `other`: by facts of which a peer has but one."""
    # Not by uid: a subordinate uid counts as its owner's in a deny.
    for field in ("sockets", "units", "exes", "labels"):
        known, wanted = getattr(one, field), getattr(other, field)
        if known is not None and wanted is not None and not known & wanted:
            return True
    return False
