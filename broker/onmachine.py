"""Decides about one machine what rules alone leave open: whether anybody here gains anything by a change.

Everybody who has an account asks, as after a login, and the uids that rules name besides; for every node below /dev
that a rule's patterns reach, and every file that they name literally, as the broker's own walk finds them. Nothing is
opened. What cannot be looked at, or would be too much, is not decided; and neither is what depends on the unit, program
or label of a process, which nobody has who does not run.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from broker.account_database import AccountDatabase
from broker.devicefacts import DeviceFacts
from broker.peers import PeerFinder
from broker.population import unmarked
from broker.subordinates import Subordinates
from broker.survey import UNKNOWN, Seen, Survey
from policy import DEFAULT_SOCKET, PathPattern, Peer, Policy, Request, Rights, Rule
from policy.access import Subject, decided, literals
from policy.clients import Client, allow_admits
from policy.diff import NOT_DECIDED, RIGHTS, Gain
from policy.paths import split
from policy.variables import certainly, variables_of
from policy.within import may_meet
from policy.within_clients import Names
from policy.witnesses import Witness, parts

# Names below /dev that are read, and decisions for one rule: some seconds.
NAMES = 20_000
DECISIONS = 200_000

# Uids without an account that stand for a range that a rule names.
_UIDS = 64

_DEV = "/dev"


class Settled(NamedTuple):
    """What a machine says of a gain that rules leave open."""

    differs: bool | None
    """None: it was not decided."""
    users: tuple[str, ...] = ()
    """Who gains something."""
    objects: tuple[str, ...] = ()
    """What they gain it of."""
    example: Witness | None = None
    why: str = ""
    """Why it was not decided."""


class _Undecided(Exception):
    """It cannot be decided here; the message says why."""


class _Somebody(NamedTuple):
    """One user, as either policy sees them."""

    before: Peer
    after: Peer
    name: str


class _Thing(NamedTuple):
    """What a path leads to, as either policy sees it."""

    before: Subject
    after: Subject


def known_names(*policies: Policy) -> Names:
    """The numbers of the accounts and groups that the policies name and this machine has."""
    database = AccountDatabase()
    users = {name: database.uid(name) for policy in policies for name in policy.user_names}
    groups = {name: database.gid(name) for policy in policies for name in policy.group_names}
    return Names(_known(users), _known(groups))


def _known(numbers: Mapping[str, int | None]) -> dict[str, int]:
    return {name: number for name, number in numbers.items() if number is not None}


class Machine:
    """This machine, for the comparison of two policies at one time."""

    def __init__(self, before: Policy, after: Policy, now: float) -> None:
        """Raises OSError where /proc is not mounted."""
        self._before, self._after, self._now = before, after, now
        names = literals(before, ()) | literals(after, ())
        self._surveys = [Survey(DeviceFacts(policy, shows=True), names) for policy in (before, after)]
        self._finders = PeerFinder(before), PeerFinder(after)
        self._accounts = {uid for finder in self._finders for uid in finder.account_uids()}
        self._things: dict[str, _Thing | None] = {}
        self._below_dev: list[str] | None = None
        self._users: list[_Somebody] | None = None

    def close(self) -> None:
        """Close what is held for looking."""
        for survey in self._surveys:
            survey.close()

    def settle(self, gain: Gain) -> Settled:
        """Decide a gain that is NOT_DECIDED by the rules."""
        assert gain.basis == NOT_DECIDED
        try:
            if gain.kind != RIGHTS or gain.rule is None:
                raise _Undecided("who can reach a socket is not looked at")
            return self._settled(gain, gain.rule)
        except _Undecided as why:
            return Settled(None, why=str(why))

    def _settled(self, gain: Gain, rule: Rule) -> Settled:
        if any(_has_marks(client) for client in self._clients_of_interest(gain, rule)):
            raise _Undecided("it depends on the unit, program or label of a process")
        if gain.by_names_alone and self._no_such_names(gain, rule):
            return Settled(False)
        users: dict[str, None] = {}
        objects: dict[str, None] = {}
        example: Witness | None = None
        people = [
            one for one in self._everybody(rule) if allow_admits(rule.clients, rule.except_clients, one.after)
        ]
        left = DECISIONS
        for somebody in people:
            for thing in self._things_of(rule, somebody.after):
                path = thing.after.path
                for rights in parts(int(gain.rights)):
                    left -= 1
                    if left < 0:
                        raise _Undecided(f"it takes more than {DECISIONS} decisions")
                    if self._gains(rights, somebody, thing):
                        users[somebody.name] = None
                        objects[path] = None
                        request = Request(path, rights)
                        example = example or Witness(request, somebody.after, thing.after.object, self._now)
                        break
        return Settled(
            bool(users),
            tuple(users),
            tuple(objects),
            example,
        )

    def _clients_of_interest(self, gain: Gain, rule: Rule) -> Iterator[Client]:
        yield from rule.clients
        for deny in gain.denies:
            yield from deny.clients + deny.except_clients
        for allow in self._before.rules:
            if allow.paths and allow.rights & gain.rights:
                yield from allow.except_clients

    def _gains(self, rights: Rights, somebody: _Somebody, thing: _Thing) -> bool:
        after = decided(self._after, thing.after, somebody.after, rights, self._now)
        return (
            after.allowed
            and not decided(self._before, thing.before, somebody.before, rights, self._now).allowed
        )

    # Users

    def _everybody(self, rule: Rule) -> list[_Somebody]:
        if self._users is None:
            self._users = [self._somebody(uid) for uid in sorted(self._accounts)]
        more = [self._somebody(uid) for uid in self._uids_besides(rule)]
        sockets = {name for client in rule.clients for name in client.sockets or ()} | {DEFAULT_SOCKET}
        return [
            one._replace(before=one.before._replace(socket=name), after=one.after._replace(socket=name))
            for one in self._users + more
            for name in sorted(sockets)
        ]

    def _somebody(self, uid: int) -> _Somebody:
        before, after = (finder.user(str(uid), None) for finder in self._finders)
        name = min(after.user_names or (), default=f"uid {uid}")
        return _Somebody(unmarked(before), unmarked(after), name)

    def _uids_besides(self, rule: Rule) -> list[int]:
        """Uids without an account, at least one of each sort that the rules tell apart."""
        ranges = [
            one
            for policy in (self._before, self._after)
            for other in policy.rules
            for client in other.clients + other.except_clients
            for one in client.uids or ()
        ]
        owned = list(Subordinates().ranges())
        starts = {start for low, high in [*ranges, *owned] for start in (low, high + 1)}
        wanted = [one for client in rule.clients for one in client.uids or ((0, 2**32 - 2),)]
        free = sorted(
            start
            for start in starts | {low for low, _ in wanted}
            if start not in self._accounts and any(low <= start <= high for low, high in wanted)
        )
        if len(free) > _UIDS:
            raise _Undecided("too many ranges of uids")
        return free

    # Objects

    def _things_of(self, rule: Rule, peer: Peer) -> Iterator[_Thing]:
        variables = variables_of(peer)
        for pattern in rule.paths:
            meant = certainly(pattern, variables) if pattern.variables else pattern
            for path in self._paths(meant) if meant is not None else ():
                thing = self._thing(path)
                if thing is not None and thing.after.object.type in (rule.types or ()):
                    yield thing

    def _paths(self, pattern: PathPattern) -> Iterable[str]:
        if pattern.literal:
            return (pattern.text,)
        if f"{pattern.literal_root}/".startswith(f"{_DEV}/"):
            return (name for name in self._names_below_dev() if pattern.matches(split(name)))
        raise _Undecided(f"what lies below {pattern.literal_root} is not looked at")

    def _names_below_dev(self) -> list[str]:
        if self._below_dev is None:
            found: list[str] = []
            waiting = [_DEV]
            while waiting:
                directory = waiting.pop()
                try:
                    with os.scandir(directory) as entries:
                        names = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
                except OSError as error:
                    if os.geteuid() != 0:
                        raise _Undecided(
                            f"{directory}: {error.strerror}, for you, uid {os.geteuid()}"
                        ) from None
                    continue
                found += [name for name, is_directory in names if not is_directory]
                waiting += [name for name, is_directory in names if is_directory]
                if len(found) > NAMES:
                    raise _Undecided(f"there are more than {NAMES} names below {_DEV}")
            self._below_dev = sorted(found)
        return self._below_dev

    def _thing(self, path: str) -> _Thing | None:
        """What `path` leads to; None for nothing that anybody could have."""
        if path not in self._things:
            self._things[path] = self._looked_at(path)
        return self._things[path]

    def _looked_at(self, path: str) -> _Thing | None:
        subjects = []
        for survey in self._surveys:
            seen = _found(survey, path)
            if seen is None or seen.refusal:
                return None
            if survey.unknown:
                raise _Undecided(survey.unknown[0])
            subjects.append(seen.subject)
        return _Thing(*subjects)

    def _no_such_names(self, gain: Gain, rule: Rule) -> bool:
        """Whether the paths that denies stopped are here no other names of anything that the rule is for."""
        if not gain.denies or any(not one.literal for deny in gain.denies for one in deny.paths):
            return False
        for deny in gain.denies:
            for pattern in deny.paths:
                seen = _found(self._surveys[0], pattern.text)
                if seen is None:
                    continue
                found = seen.subject.object
                alone = found.path == pattern.text and seen.links == 1
                if found.type in (rule.types or ()) and not (alone and seen.number is None):
                    return False
        return not any(
            may_meet(one, other) for deny in gain.denies for one in deny.paths for other in rule.paths
        )


def _has_marks(client: Client) -> bool:
    return any(mark is not None for mark in (client.units, client.exes, client.labels))


def _found(survey: Survey, path: str) -> Seen | None:
    """What `path` leads to; None for nothing that a request could be for."""
    seen = survey.look(path)
    if isinstance(seen, Seen):
        return seen
    if seen.what == UNKNOWN:
        raise _Undecided(f"{path}: {seen.why}")
    return None
