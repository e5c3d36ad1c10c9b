"""Clients taken apart: into such of one value in each condition, any of which matches just when the whole does.

`{user: [mia, tom]}` is `{user: mia}` and `{user: tom}`: lint finds rules by these, and policies are compared by them.
Enforced here: the parts are neither more nor less than the whole; where they would be too many, it stays whole.
"""

from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import product
from typing import Any

from .clients import Client, IdRange

RANGES = ("uids", "gids")
"""Conditions on a number; those of the others are on a name."""

Cuts = Mapping[str, Collection[int]]
"""Where ranges are cut, by the field of the condition: each number begins a piece."""

_NO_CUTS: Cuts = {}

# Parts of one client that atoms() makes at most, and clients whose parts are remembered.
_MOST_ATOMS = 64
_KEPT_ATOMS = 16_384

_EVERYBODY = Client()


def taken_apart(client: Client, most: int, cuts: Cuts = _NO_CUTS) -> list[Client]:
    """Return the clients that together are `client`; itself alone, where they are more than `most`."""
    conditions: list[list[tuple[str, Any]]] = []
    count = 1
    for field, value in client._asdict().items():
        if isinstance(value, frozenset):
            conditions.append([(field, frozenset((one,))) for one in sorted(value)])
        elif field in RANGES and value is not None:
            pieces = [piece for one in value for piece in _cut(one, cuts.get(field, ()))]
            conditions.append([(field, (piece,)) for piece in pieces])
        else:
            continue
        count *= len(conditions[-1])
    if count > most:
        return [client]
    return [client._replace(**dict(chosen)) for chosen in product(*conditions)]


def _cut(whole: IdRange, cuts: Collection[int]) -> list[IdRange]:
    low, high = whole
    starts = [low, *sorted(cut for cut in cuts if low < cut <= high)]
    return [(start, end - 1) for start, end in zip(starts, [*starts[1:], high + 1], strict=True)]


@lru_cache(_KEPT_ATOMS)
def atoms(client: Client) -> tuple[Client, ...]:
    """Return what taken_apart() does, with ranges as they were written."""
    return tuple(taken_apart(client, _MOST_ATOMS))


@lru_cache(_KEPT_ATOMS)
def wider_than(atom: Client) -> tuple[Client, ...]:
    """Return clients that match whenever `atom` does: itself, and each of its conditions alone."""
    single = [
        _EVERYBODY._replace(**{field: value})
        for field, value in atom._asdict().items()
        if value != getattr(_EVERYBODY, field)
    ]
    return (atom, *single) if len(single) > 1 else (atom,)
