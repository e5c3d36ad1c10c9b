"""Which clients and patterns take in others: what one rule says for all whom another one means.

Everything here errs on one side: what is said to be covered is, and what is covered may not be recognised.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any

from .clients import Client
from .index import PathIndex, Value
from .patterns import PathPattern
from .variables import AnyHome, Variables, possibly

# Single clients that one with several conditions is taken apart into; one that makes more stays whole.
_MOST_ATOMS = 64
_KEPT_ATOMS = 16_384

_MEMBERS = ("users", "uids", "groups", "gids", "sockets", "units", "exes", "labels")
_EVERYBODY = Client()
_NO_VARIABLES = Variables(None, None, None)
_ANYTHING = PathPattern("/**", (), True)


@lru_cache(_KEPT_ATOMS)
def atoms(client: Client) -> tuple[Client, ...]:
    """Return clients with one member in each condition, any of which matches whenever `client` does, and only then."""
    conditions = [(field, getattr(client, field)) for field in _MEMBERS]
    listed = [
        [(field, _one_of(members, member)) for member in members]
        for field, members in conditions
        if members is not None
    ]
    count = 1
    for choices in listed:
        count *= len(choices)
    if count > _MOST_ATOMS:
        return (client,)
    return tuple(client._replace(**dict(chosen)) for chosen in product(*listed))


def _one_of(members: Any, member: Any) -> Any:
    return (member,) if isinstance(members, tuple) else frozenset((member,))


@lru_cache(_KEPT_ATOMS)
def wider_than(atom: Client) -> tuple[Client, ...]:
    """Return clients that match whenever `atom` does: itself, and each of its conditions alone."""
    single = [
        _EVERYBODY._replace(**{field: getattr(atom, field)})
        for field in (*_MEMBERS, "any_account")
        if getattr(atom, field) != getattr(_EVERYBODY, field)
    ]
    return (atom, *single) if len(single) > 1 else (atom,)


def covering(index: PathIndex[Value], pattern: PathPattern) -> Iterator[Value]:
    """Yield values of patterns in `index` that match whatever `pattern` means, for whoever asks."""
    if pattern.variables:
        meant = possibly(pattern, _NO_VARIABLES)
        yield from index.covering(_ANYTHING if isinstance(meant, AnyHome) else meant)
    else:
        yield from index.covering(pattern)
