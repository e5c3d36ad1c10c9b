"""Finds a request that one policy allows and another refuses: the proof that an allow gives more than was given.

Requests are made for one allow: a peer that is just one of its clients and nothing besides, a path of each pattern, a
device with what its selectors want, and each of these once more with what the other policy's rules look at. What is
returned was decided by both policies themselves. Where nothing is found there may still be something: the search ends
after a number of decisions, and it gives an object no names but its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product
from typing import NamedTuple

from .clients import DEFAULT_SOCKET, Client, Clients, Peer
from .decide import Policy
from .devices import DEVICE_TYPES, Device, DeviceSelector
from .languages import Language, of_path, some_word
from .patterns import PathPattern, parse_pattern
from .rules import DENY, Object, Request, Rule
from .variables import Variables, certainly, variables_of
from .within_clients import Names, single_clients
from .witness_devices import device_of
from .words import Rights, with_implied

# Decisions by both policies for one allow: some tenths of a second.
DECISIONS = 6_000

# Values of each fact that are tried, and rules of the other policy that are looked at for what they want.
_PATHS = 48
_PEERS = 48
_DEVICES = 16
_TIMES = 12
_RULES = 64

# Of nobody that a rule is likely to name.
_FREE_ID = 54_321
_FREE_NAME = "someone"
_BELOW_DEV = parse_pattern("/dev/*")


class Witness(NamedTuple):
    """A request that the one policy allows and the other does not."""

    request: Request
    peer: Peer
    object: Object
    now: float


class Search(NamedTuple):
    """What is looked for: a request for some of `rights` by the allow `rule` of `after` that `before` refuses."""

    before: Policy
    after: Policy
    rule: Rule
    rights: int
    allows: Sequence[Rule]
    """Those of `before` that are compared with the rule."""
    denies: Sequence[Rule]
    """Those of `before` that may refuse what the rule gives."""
    names: Names
    now: float | None


def find_witness(search: Search) -> Witness | None:
    """Return a request that shows the difference, or None when none was found."""
    search = search._replace(allows=search.allows[:_RULES], denies=search.denies[:_RULES])
    things = _Things(search)
    times = _times(search)
    wanted = parts(search.rights)
    left = DECISIONS
    for peer in _peers(search):
        for path, thing in things.for_peer(peer):
            for now in times:
                for rights in wanted:
                    request = Request(path, rights)
                    left -= 1
                    if left < 0:
                        return None
                    if (
                        search.after.decide(request, peer, thing, now).allowed
                        and not search.before.decide(request, peer, thing, now).allowed
                    ):
                        return Witness(request, peer, thing, now)
    return None


def parts(rights: int) -> list[Rights]:
    """Return the rights as a whole, each alone, and pairs of them: what may be needed of them."""
    single = [with_implied(int(right)) for right in Rights if rights & right]
    pairs = [one | other for one in single for other in single]
    return [Rights(part) for part in dict.fromkeys((rights, *single, *pairs))]


def _times(search: Search) -> list[float]:
    rules = (search.rule, *search.allows, *search.denies, *_stopping(search))
    ends = sorted({rule.until for rule in rules if rule.until is not None})
    least = float("-inf") if search.now is None else search.now
    moments = [search.now if search.now is not None else float(ends[0] - 1 if ends else 0)]
    moments += [float(end + shift) for end in ends for shift in (-1, 0) if end + shift >= least]
    return list(dict.fromkeys(moments))[:_TIMES]


def _stopping(search: Search) -> list[Rule]:
    """Denies of the policy that allows, which a request must stay clear of."""
    return list(islice((rule for rule in search.after.rules if rule.action == DENY), _RULES))


# Peers


def _peers(search: Search) -> Iterator[Peer]:
    """Peers that the rule is for: just so, then each with what the other policy's rules look for besides."""
    rules = (*search.allows, *search.denies)
    others: Clients = tuple(client for rule in rules for client in rule.clients + rule.except_clients)
    singles = single_clients(search.rule.clients, others, search.names)
    more = [client for rule in search.denies for client in rule.clients]
    more += [client for rule in search.allows for client in rule.except_clients]
    more += [client for rule in _stopping(search) for client in rule.except_clients]
    also = single_clients(tuple(dict.fromkeys(more)), search.rule.clients, search.names)
    pairs = [(client, None) for client in singles] + [(client, one) for one in also for client in singles]
    seen: set[Peer] = set()
    for (client, one), socket in product(pairs, _sockets(search)):
        # What a deny asks for, it finds in facts too that no allow looks at.
        for more_facts, wider in ((one, None), (None, one)) if one else ((None, None),):
            peer = _peer(client, more_facts, wider, socket, search)
            if peer is not None and peer not in seen and len(seen) < _PEERS:
                seen.add(peer)
                yield peer


def _sockets(search: Search) -> list[str]:
    """Sockets to come by: the default one, one that both policies have, and one that no rule speaks of."""
    common = sorted(search.before.sockets.keys() & search.after.sockets.keys())
    return [DEFAULT_SOCKET, *(common or ["another"])[:2]]


def _peer(
    client: Client, also: Client | None, wider: Client | None, socket: str, search: Search
) -> Peer | None:
    """A peer that is `client`, and `also` that; possibly `wider` too, as denies see it. None when nobody can be.

    Each of them has one value for each condition.
    """
    clients = (client, also) if also else (client,)
    names = search.names
    users = {name for one in clients for name in one.users or ()}
    groups = {name for one in clients for name in one.groups or ()}
    uids = {one.uids[0][0] for one in clients if one.uids}
    uids |= {names.users[name] for name in users if name in names.users}
    gids = {one.gids[0][0] for one in clients if one.gids}
    gids |= {names.groups[name] for name in groups if name in names.groups}
    alone = [
        {value for one in (*clients, *([wider] if wider else [])) for value in getattr(one, field) or ()}
        for field in ("sockets", "units", "exes", "labels")
    ]
    if len(uids) > 1 or any(len(values) > 1 for values in alone):
        return None
    sockets, units, exes, labels = ("".join(values) for values in alone)
    uid = next(iter(uids), _FREE_ID)
    users |= {name for name, number in names.users.items() if number == uid}
    groups |= {name for name, number in names.groups.items() if number in gids}
    name = min(users, default=_FREE_NAME)
    varies = search.before.variables | search.after.variables
    owners = wider or Client()
    return Peer(
        uid,
        frozenset(users),
        frozenset(gids),
        frozenset(groups),
        frozenset(gids | {low for low, _ in owners.gids or ()}),
        frozenset(groups) | (owners.groups or frozenset()),
        bool(users) or any(one.any_account for one in clients),
        sockets or socket,
        account_name=name if varies else None,
        home=f"/home/{name}" if varies else None,
        unit=units,
        exe=exes or f"/usr/bin/{_FREE_NAME}",
        label=labels or _FREE_NAME,
        owner_names=owners.users or frozenset(),
        owner_uids=frozenset(low for low, _ in owners.uids or ()),
    )


# Objects


class _Things:
    """Paths to ask for, each with what it leads to; found when needed, and once for all who read them alike."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._devices = _devices(search) if DEVICE_TYPES & (search.rule.types or frozenset()) else []
        self._paths: dict[Variables, tuple[list[str], Iterator[str]]] = {}

    def for_peer(self, peer: Peer) -> Iterator[tuple[str, Object]]:
        """Yield what the rule gives the peer, or would but for other rules."""
        types = sorted(self._search.rule.types or (), key=lambda kind: kind.value)
        elsewhere = None
        for path in self._paths_for(peer):
            for kind in types:
                for device in self._devices if kind in DEVICE_TYPES else [None]:
                    yield path, Object(path, kind, device=device)
        if self._devices:
            elsewhere = some_word(
                [of_path(_BELOW_DEV)], _languages(self._search.rule.paths, variables_of(peer))
            )
        for path in self._paths_for(peer) if elsewhere is not None else ():
            for kind in types:
                for device in self._devices:
                    yield path, Object(elsewhere or "", kind, last_link=True, device=device)

    def _paths_for(self, peer: Peer) -> Iterator[str]:
        variables = variables_of(peer)
        if variables not in self._paths:
            self._paths[variables] = [], _paths(self._search, variables)
        known, more = self._paths[variables]
        yield from known
        while len(known) < _PATHS and (path := next(more, None)) is not None:
            if path not in known:
                known.append(path)
                yield path


def _paths(search: Search, variables: Variables) -> Iterator[str]:
    own = _languages(search.rule.paths, variables)
    excepted = _languages(search.rule.except_paths, variables)
    stopped = [one for rule in _stopping(search) for one in rule.paths]
    unwanted = [*excepted, *_languages(stopped, variables)]
    given = [_languages(rule.paths, variables) for rule in search.allows]
    all_given = [language for languages in given for language in languages]
    sparing = (*search.allows, *_stopping(search))
    spared = [one for rule in sparing for one in _languages(rule.except_paths, variables)]
    refused = [
        (one, _languages(rule.except_paths, variables))
        for rule in search.denies
        for one in _languages(rule.paths, variables)
    ]
    for outside in (unwanted, excepted) if len(unwanted) > len(excepted) else (excepted,):
        for pattern in own:
            questions = (
                *(([pattern, deny], [*outside, *exceptions]) for deny, exceptions in refused),
                ([pattern], [*outside, *all_given]),
                *(([pattern], [*outside, *languages]) for languages in given),
                *(([pattern, exception], outside) for exception in spared),
                ([pattern], outside),
            )
            for inside, others in questions:
                text = some_word(inside, others)
                if text is not None:
                    yield text


def _languages(patterns: Iterable[PathPattern], variables: Variables) -> list[Language]:
    meant = (certainly(one, variables) if one.variables else one for one in patterns)
    return [of_path(one) for one in meant if one is not None]


# Devices


def _devices(search: Search) -> list[Device]:
    wanted = [(), *(one for rule in search.denies for one in _alternatives(rule))]
    wanted += [(one,) for rule in (*search.allows, *_stopping(search)) for one in rule.except_devices]
    avoided = [one for rule in search.allows for some in _alternatives(rule) for one in some]
    devices = (
        device_of((*own, *more), avoid)
        for more in dict.fromkeys(wanted)
        for own in _alternatives(search.rule)
        for avoid in (avoided, [])
    )
    found: list[Device] = []
    for device in devices:
        if device is not None and device not in found and len(found) < _DEVICES:
            found.append(device)
    return found


def _alternatives(rule: Rule) -> list[tuple[DeviceSelector, ...]]:
    """Selectors that hold together for a device that the rule is for: one of the lists must."""
    own = (rule.device,) if rule.device is not None else ()
    return [own] if rule.devices is None else [(*own, one) for one in rule.devices]
