"""What one policy gives that another does not, rule by rule, as far as the rules alone can tell.

`gains(before, after)` is what a change gives; with the two exchanged it is what the change takes away. Rules enforced:
- an allow that is not among the gains gives nothing that `before` did not give, to anybody, for any object, ever:
  it lies within one allow of `before` with all its rights, and each deny of `before` that could refuse some of it still
  does;
- a gain BY_RULES comes with a request that `after` allows and `before` refuses, as both decided it;
- of every other gain it was shown neither way: NOT_DECIDED. Who knows a machine's users and nodes may know more.

Terms are compared only between an allow and those that gave the same before.
Imported by commands alone: a broker that serves never loads it.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from .decide import Policy
from .languages import of_path, some_word
from .loosening import looser
from .paths import split
from .patterns import PathPattern
from .rules import ALLOW, DENY, Rule, SocketDeclaration
from .within import (
    allow_within,
    deny_misses_allow,
    deny_stops_allow,
    gives_nothing,
    narrowed,
    parts_of,
    paths_apart,
    same_conditions,
    without_distant_exceptions,
)
from .within_clients import NO_NAMES, Names
from .witnesses import Search, Witness, find_witness
from .words import NO_RIGHTS, Rights, with_implying

BY_RULES = "by rules"
NOT_DECIDED = "not decided"

RIGHTS = "rights"
TERMS = "terms"
SOCKET = "socket"

# Allows of the other policy that a search for a request that shows the difference looks at.
_COMPARED = 64
_OTHERS = 8  # of those that do not lie near it

# Who may connect to a socket may write it (unix(7)).
_CONNECT_BITS = 0o222


class Gain(NamedTuple):
    """What an allow, or a socket, gives more than before."""

    kind: str
    """RIGHTS; TERMS, when the same rights are given under looser ones; SOCKET, when more may reach it."""
    rule: Rule | None
    rights: Rights
    """All that the rule gives."""
    before: tuple[Rule, ...]
    """The allows that gave some of it before, to whomever the rule is for."""
    denies: tuple[Rule, ...]
    """The denies that may have refused it before, and do not any more."""
    terms: tuple[str, ...]
    """What is looser."""
    basis: str
    """BY_RULES or NOT_DECIDED."""
    example: Witness | None
    socket: str = ""
    """The name of the socket."""
    by_names_alone: bool = False
    """Whether what is left are denies and exceptions of paths that the rule does not name: they matter only where
    such a path is another name of what it gives."""


def gains(before: Policy, after: Policy, names: Names = NO_NAMES, now: float | None = None) -> list[Gain]:
    """Return what `after` gives that `before` does not, by the ids of the rules.

    From `now` on, in seconds since 1970: rules that are over by then count on neither side. None: at any time.
    """
    comparison = _Comparison(before, after, names, now)
    found = [comparison.of(rule) for rule in after.rules if rule.action == ALLOW]
    return [gain for gain in found if gain is not None] + _socket_gains(before, after)


class _ByPath:
    """Finds the rules that may be for every path that another one is for: those that are for one of them at least."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._everywhere = [rule for rule in rules if not rule.paths]
        # By the text that a pattern begins with literally; those with variables by all of theirs.
        self._fixed: dict[str, list[tuple[PathPattern, Rule]]] = {}
        self._varying: dict[str, list[Rule]] = {}
        for rule in rules:
            for pattern in rule.paths:
                if pattern.variables:
                    self._varying.setdefault(pattern.text, []).append(rule)
                else:
                    self._fixed.setdefault(pattern.literal_start, []).append((pattern, rule))
        self._lengths = sorted({len(start) for start in self._fixed})

    def like(self, rule: Rule) -> list[Rule]:
        """Return the candidates, each once, by id."""
        found = list(self._everywhere)
        for pattern in rule.paths[:1]:
            found += self._varying.get(pattern.text, [])
            found += self._matching(_sample(pattern))
        return sorted({one.id: one for one in found}.values(), key=lambda one: one.id)

    def _matching(self, path: str) -> list[Rule]:
        components = split(path)
        return [
            rule
            for length in self._lengths
            for pattern, rule in self._fixed.get(path[:length], [])
            if pattern.matches(components)
        ]


def _sample(pattern: PathPattern) -> str:
    """A path that the pattern matches, for somebody."""
    if pattern.literal:
        return pattern.text
    return (
        some_word([of_path(pattern)]) or ""
    )  # where it is too much, nothing would be found to lie around it


class _Comparison:
    """Two policies, without what they have in common where that says nothing."""

    def __init__(self, before: Policy, after: Policy, names: Names, now: float | None) -> None:
        self._before, self._after = before, after
        self._names, self._now = names, now
        self._allows = list(self._lasting(before, ALLOW))
        self._denies_after = list(self._lasting(after, DENY))
        self._allows_by_path = _ByPath(self._allows)
        self._denies_after_by_path = _ByPath(self._denies_after)
        self._same_allows = _by_conditions(self._allows)
        same = _by_conditions(self._denies_after)
        # A deny that is in both refuses the same in both.
        self._denies_gone = [rule for rule in self._lasting(before, DENY) if not _is_one_of(rule, same)]

    def _lasting(self, policy: Policy, action: str) -> Iterable[Rule]:
        for rule in policy.rules:
            if rule.action == action and (self._now is None or not rule.is_over(self._now)):
                yield rule

    def of(self, rule: Rule) -> Gain | None:
        """Return what the allow `rule` of `after` gives more."""
        if self._now is not None and rule.is_over(self._now):
            return None
        whole_rule = rule
        is_same = _is_one_of(rule, self._same_allows)
        if is_same and not self._denies_gone:
            return None
        if is_same and not any(
            int(deny.rights) & int(rule.rights) and not deny_misses_allow(deny, rule, self._names)
            for deny in self._denies_gone
        ):
            return None
        rule = narrowed(rule)
        rights = 0 if gives_nothing(rule) else self._left_by_denies(rule)
        if not rights:
            return None
        gone = [deny for deny in self._denies_gone if self._refused_more(deny, rule, rights)]
        if is_same and not gone:
            return None
        candidates = [one for one in self._allows_by_path.like(rule) if rights & int(one.rights)]
        covers = [one for one in candidates if allow_within(rule, one, self._names)]
        whole = [one for one in covers if not rights & ~int(one.rights)]
        if not gone and not whole:
            whole = self._together(rule, rights, candidates)
        if whole and not gone:
            return self._terms_gain(whole_rule, rights, whole)
        nearest = dict.fromkeys((*whole, *candidates, *self._allows[:_OTHERS]))
        compared = list(islice(nearest, _COMPARED))
        search = Search(self._before, self._after, rule, rights, compared, gone, self._names, self._now)
        witness = find_witness(search)
        return Gain(
            RIGHTS,
            whole_rule,
            Rights(rights),
            tuple(covers),
            tuple(gone if witness is None else (one for one in gone if not paths_apart(one, rule))),
            (),
            NOT_DECIDED if witness is None else BY_RULES,
            witness,
            by_names_alone=witness is None and self._by_names_alone(rule, rights, candidates, gone),
        )

    def _together(self, rule: Rule, rights: int, candidates: list[Rule]) -> list[Rule]:
        """Several allows that give all the rights to some of the clients each, and to all together; or none."""
        able = [one for one in candidates if not rights & ~int(one.rights)]
        others = tuple(client for one in able for client in one.clients + one.except_clients)
        found: dict[str, Rule] = {}
        for part in parts_of(rule, others, self._names):
            cover = next((one for one in able if allow_within(part, one, self._names)), None)
            if cover is None:
                return []
            found[cover.id] = cover
        return list(found.values())

    def _by_names_alone(self, rule: Rule, rights: int, allows: list[Rule], gone: list[Rule]) -> bool:
        return all(paths_apart(deny, rule) for deny in gone) and any(
            not rights & ~int(one.rights)
            and allow_within(rule, without_distant_exceptions(one, rule), self._names)
            for one in allows
        )

    def _left_by_denies(self, rule: Rule) -> int:
        """The rights of the allow but those that denies of `after` always refuse."""
        left = int(rule.rights)
        for deny in self._denies_after_by_path.like(rule):
            if left & deny.rights and deny_stops_allow(deny, rule, self._names):
                left &= ~with_implying(int(deny.rights))
        return left

    def _refused_more(self, deny: Rule, rule: Rule, rights: int) -> bool:
        """Whether `deny`, of `before`, may have refused some of `rights` that nothing refuses any more."""
        listed = int(deny.rights) & rights
        if not listed or deny_misses_allow(deny, rule, self._names):
            return False
        return not any(
            not listed & ~int(one.rights) and deny_stops_allow(one, rule, self._names, deny)
            for one in (*self._denies_after_by_path.like(rule), *self._denies_after_by_path.like(deny))
        )

    def _terms_gain(self, rule: Rule, rights: int, whole: list[Rule]) -> Gain | None:
        differences = [(looser(rule.terms, one.terms), one) for one in whole]
        least, nearest = min(differences, key=lambda one: (len(one[0]), one[1].id))
        if not least:
            return None
        return Gain(TERMS, rule, Rights(rights), (nearest,), (), least, BY_RULES, None)


def _by_conditions(rules: Iterable[Rule]) -> dict[tuple[object, ...], list[Rule]]:
    found: dict[tuple[object, ...], list[Rule]] = {}
    for rule in rules:
        found.setdefault(_likely_key(rule), []).append(rule)
    return found


def _likely_key(rule: Rule) -> tuple[object, ...]:
    """Equal for rules that say the same; quick to make."""
    return rule.action, int(rule.rights), tuple(pattern.text for pattern in rule.paths), rule.until


def _is_one_of(rule: Rule, known: dict[tuple[object, ...], list[Rule]]) -> bool:
    return any(same_conditions(rule, one) for one in known.get(_likely_key(rule), ()))


def _socket_gains(before: Policy, after: Policy) -> list[Gain]:
    """Sockets that somebody else may reach than before, and that an allow asks for."""
    asked_for = {
        name
        for rule in after.rules
        if rule.action == ALLOW
        for client in rule.clients
        for name in client.sockets or ()
    }
    found = []
    for name in sorted(asked_for & before.sockets.keys() & after.sockets.keys()):
        old, new = before.sockets[name], after.sockets[name]
        if (old.path, old.owner, old.group) != (new.path, new.owner, new.group):
            basis = NOT_DECIDED
        elif new.mode & ~old.mode & _CONNECT_BITS:
            basis = BY_RULES
        else:
            continue
        words = (f"{socket_words(new)}, was {socket_words(old)}",)
        found.append(Gain(SOCKET, None, NO_RIGHTS, (), (), words, basis, None, name))
    return found


def socket_words(socket: SocketDeclaration) -> str:
    """A socket's path and whom it lets in."""
    return f"{socket.path} {socket.mode:04o} {socket.owner or 'the broker'}:{socket.group or 'the broker'}"
