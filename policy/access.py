"""What each of many peers can have of an object, whatever it asks for.

Nothing here decides anything: each answer is `Policy.decide`'s own. Peers that no rule about the object tells apart
are one kind, and one of each kind is decided for. Two peers are of a kind when every condition on clients in those
rules, and every path in them that holds a variable, comes out the same for both: a decision depends on nothing else
of a peer.

Imported by those who look at a policy as a whole: a broker that serves never loads it.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import combinations
from operator import or_
from typing import NamedTuple

from .clients import Client, Peer
from .decide import Policy
from .devices import any_holds
from .paths import split
from .patterns import PathPattern
from .rules import ALLOW, DENY, Object, Request, Rule, Verdict
from .variables import Variables, certainly, possibly, variables_of
from .words import NO_RIGHTS, Rights, with_implied, without_implied

_EVERY_BIT = tuple(right.value for right in Rights)
_HIDDEN = Verdict(False, NO_RIGHTS, None, "a pattern may deny it by another of its names")
_ANYBODY = Variables(None, None, None)


class Reach(NamedTuple):
    """What one peer can have of one object."""

    grants: tuple[Verdict, ...]
    """The largest sets of rights that a request gets, each with the rule that gives it; the larger first.

    A request gets its rights when one of them has them all, and else nothing.
    """
    denied_by: Rule | None
    """When nothing is to be had of what allows are for: a deny that refuses it."""
    hidden: bool = False
    """The same: whether the object may have a name that a pattern denies or excepts."""


class Subject(NamedTuple):
    """An object under the path by which it is asked for."""

    path: str
    object: Object
    same: frozenset[str] = frozenset()
    """Those of literals() that are other names of the object."""
    linked_by_others: bool = False
    """It is a file with hard links that others than root could have made."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a rule could know it by."""
        return tuple(dict.fromkeys((self.path, self.object.path, *self.object.names, *self.same)))


def literals(policy: Policy, peers: Iterable[Peer]) -> frozenset[str]:
    """Return all paths that may be other names of an object which a rule means, whoever of `peers` asks."""
    fixed: set[str] = set()
    varying: set[PathPattern] = set()
    for rule in policy.rules:
        for pattern in rule.paths if rule.action == DENY else rule.except_paths:
            if pattern.variables:
                varying.add(pattern)
            elif pattern.literal:
                fixed.add(pattern.text)
    if varying:
        for variables in {variables_of(peer) for peer in peers}:
            expanded = [certainly(pattern, variables) for pattern in varying]
            fixed.update(one.text for one in expanded if one is not None and one.literal)
    return frozenset(fixed)


def reach(
    policy: Policy, subject: Subject, peer: Peer, offers: Iterable[int], now: float | None = None
) -> Reach:
    """Return what `peer` can have of `subject` at that time.

    `offers` are sets of rights, with one among them that has all that any allow can give to the peer there.
    """
    grants: list[Verdict] = []
    refusing: Rule | None = None
    hidden = False
    for offer in sorted(set(offers), key=_size):
        # More rights are never easier: where a part of an offer is refused alone, it is with others.
        obtainable = 0
        for part in (offer, *_single(offer)):
            if _is_in(part, grants):
                continue
            verdict = decided(policy, subject, peer, part, now)
            if verdict.allowed and part == offer:
                grants.append(verdict)
                break
            obtainable |= part if verdict.allowed else 0
            refusing = refusing or verdict.rule
            hidden = hidden or verdict is _HIDDEN
        for part in _parts(obtainable):
            if not _is_in(part, grants):
                verdict = decided(policy, subject, peer, part, now)
                grants += [verdict] if verdict.allowed else []
    largest = [
        one for one in grants if not _is_in(int(one.rights), [other for other in grants if other is not one])
    ]
    return Reach(
        tuple(sorted(largest, key=lambda grant: _size(int(grant.rights)))),
        None if largest else refusing,
        hidden and not largest,
    )


def _is_in(rights: int, grants: Iterable[Verdict]) -> bool:
    return any(not rights & ~int(grant.rights) for grant in grants)


def _single(rights: int) -> list[int]:
    return [with_implied(bit) for bit in _EVERY_BIT if bit & rights]


def _size(rights: int) -> tuple[int, int]:
    """Sorts sets of rights: the largest first; of one size in the order of the words."""
    return -without_implied(rights).bit_count(), rights


def _parts(rights: int) -> list[int]:
    """The sets of some of `rights`, the largest first; of one size in the order of the words."""
    bits = [right for right in _EVERY_BIT if right & rights]
    parts = {
        with_implied(sum(chosen)): None
        for size in range(len(bits), 0, -1)
        for chosen in combinations(bits, size)
    }
    return sorted(parts, key=_size)


def decided(policy: Policy, subject: Subject, peer: Peer, rights: int, now: float | None) -> Verdict:
    """Return the verdict about these rights. As the broker does, it looks at such other names alone as matter."""
    request = Request(subject.path, Rights(rights), NO_RIGHTS)
    found = subject.object
    if subject.same or subject.linked_by_others:
        considered = policy.consider(request, peer, now)
        if considered.refusal is not None:
            return considered.refusal
        if subject.linked_by_others and considered.has_hidden_names:
            return _HIDDEN
        found = considered.named(found, subject.same)
    return policy.decide(request, peer, found, now)


class AccessTable:
    """Finds what each of some peers can have of objects, at one time."""

    def __init__(self, policy: Policy, peers: Sequence[Peer], now: float | None = None) -> None:
        self._policy = policy
        self._peers = peers
        self._now = now
        self._variables = [variables_of(peer) for peer in peers]
        self._masks: dict[tuple[Client, bool], int] = {}
        self._everywhere = [rule for rule in policy.rules if rule.action == DENY and not rule.paths]
        # Whether a file with hard links is given depends on these, whatever its name.
        self._patterns = [
            rule
            for rule in policy.rules
            if rule.action == DENY and not all(pattern.literal for pattern in rule.paths)
        ]
        self._literal: dict[str, list[Rule]] = {}
        self._others: dict[PathPattern, list[Rule]] = {}
        for rule in policy.rules:
            for pattern in rule.paths:
                if pattern.literal:
                    self._literal.setdefault(pattern.text, []).append(rule)
                else:
                    self._others.setdefault(pattern, []).append(rule)

    def reaches(self, subject: Subject) -> list[tuple[tuple[int, ...], Reach]]:
        """Return what the peers can have of `subject`, as numbers of peers; each peer is in one of the entries."""
        found: dict[object, tuple[list[int], Reach]] = {}
        rules = self.rules_about(subject)
        admitting = [
            (int(rule.rights), reduce(or_, (self._matching(one, certainly=True) for one in rule.clients), 0))
            for rule in rules
            if rule.action == ALLOW
        ]
        for kind in self._kinds(subject, rules):
            members = list(_members(kind))
            offers = {rights for rights, admitted in admitting if admitted & kind}
            answer = reach(self._policy, subject, self._peers[members[0]], offers, self._now)
            found.setdefault(_told_apart_by(answer), ([], answer))[0].extend(members)
        return [(tuple(sorted(members)), answer) for members, answer in found.values()]

    def rules_about(self, subject: Subject) -> list[Rule]:
        """Return the rules that may be about `subject`, for some peer or other, by id."""
        found: dict[str, Rule] = {rule.id: rule for rule in self._everywhere}
        for name in subject.names:
            components = split(name)
            naming = [rules for pattern, rules in self._others.items() if _may_name(pattern, components)]
            for rules in (self._literal.get(name, []), *naming):
                found.update((rule.id, rule) for rule in rules)
        return [found[id] for id in sorted(found) if _may_be_about(found[id], subject.object)]

    def _kinds(self, subject: Subject, rules: Iterable[Rule]) -> list[int]:
        """The peers in sets that no rule of these tells apart; a set is a number with one bit for each peer."""
        kinds = [(1 << len(self._peers)) - 1] if self._peers else []
        for mask in self._tellings(subject, rules):
            split_up = [(kind & mask, kind & ~mask) for kind in kinds]
            kinds = [part for parts in split_up for part in parts if part]
        return kinds

    def _tellings(self, subject: Subject, rules: Iterable[Rule]) -> Iterator[int]:
        """Yield all that these rules about `subject` ask of a peer, as the set of those of whom it is true."""
        paths = [split(name) for name in subject.names]
        for rule in rules:
            yield from self._asked_of(rule)
            for pattern in rule.paths + rule.except_paths:
                if pattern.variables:
                    for path in paths:
                        yield from self._naming(pattern, path)

        if subject.linked_by_others:
            for rule in self._patterns:
                yield from self._asked_of(rule)

    def _asked_of(self, rule: Rule) -> Iterator[int]:
        is_allow = rule.action == ALLOW
        for client in rule.clients:
            yield self._matching(client, certainly=is_allow)
        for client in rule.except_clients:
            yield self._matching(client, certainly=not is_allow)

    def _matching(self, client: Client, certainly: bool) -> int:
        mask = self._masks.get((client, certainly))
        if mask is None:
            matches = client.certainly_matches if certainly else client.possibly_matches
            mask = self._masks[client, certainly] = _mask(matches(peer) for peer in self._peers)
        return mask

    def _naming(self, pattern: PathPattern, path: Sequence[str]) -> Iterator[int]:
        expanded = [certainly(pattern, variables) for variables in self._variables]
        yield _mask(one is not None and one.matches(path) for one in expanded)
        yield _mask(possibly(pattern, variables).matches(path) for variables in self._variables)


def _told_apart_by(answer: Reach) -> object:
    grants = tuple((int(grant.rights), grant.rule.id if grant.rule else "") for grant in answer.grants)
    return grants, answer.denied_by.id if answer.denied_by else None, answer.hidden


def _may_name(pattern: PathPattern, path: Sequence[str]) -> bool:
    return (possibly(pattern, _ANYBODY) if pattern.variables else pattern).matches(path)


def _may_be_about(rule: Rule, object: Object) -> bool:
    kind, device = object.type, object.device
    return (
        (rule.types is None or kind is None or kind in rule.types)
        and (rule.device is None or rule.device.holds(kind, device) is not False)
        and (rule.devices is None or any_holds(rule.devices, kind, device) is not False)
    )


def _mask(truths: Iterable[bool]) -> int:
    return int("".join("1" if truth else "0" for truth in truths)[::-1] or "0", 2)


def _members(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
