"""Finds the few rules that a decision has to look at, by path and by peer, however many there are.

What is kept between calls are facts about peers, to save time; they change no answer.
Whether a rule that was found matches is the subject of `decide`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .clients import Clients, Peer, allow_admits, deny_concerns
from .index import PathIndex
from .paths import split
from .patterns import PathPattern
from .rules import ALLOW, Rule
from .variables import AnyHome, Variables, certainly, possibly, variables_of

# Peers about which facts are kept: more than a broker serves at a time, and each costs a few hundred bytes.
_KEPT_PEERS = 1_024

# Expanded patterns that are kept, of all peers together.
_KEPT_EXPANDED = 65_536


class Entry(NamedTuple):
    """A rule under one of its patterns, or under None when it is a deny for every path."""

    rule: Rule
    rights: int
    """Those of the rule as a plain number, for speed."""
    pattern: PathPattern | None

    @property
    def is_literal(self) -> bool:
        """Whether the pattern names exactly one path, whoever asks."""
        return self.pattern is not None and self.pattern.literal and not self.pattern.expanded

    def admits(self, peer: Peer) -> bool:
        """Tell whether the rule, an allow, is certainly for `peer`."""
        return allow_admits(self.rule.clients, self.rule.except_clients, peer)

    def concerns(self, peer: Peer) -> bool:
        """Tell whether the rule, a deny, is possibly for `peer`."""
        return deny_concerns(self.rule.clients, self.rule.except_clients, peer)


class _Expansions:
    """The rules whose paths hold variables, as they read for whom the variables stand for the same."""

    __slots__ = ("allows", "denies", "denies_below_any_home")

    def __init__(self, allows: list[Entry], denies: list[Entry], variables: Variables) -> None:
        self.allows: PathIndex[Entry] = PathIndex(_expanded(allows, variables))
        certain: list[tuple[PathPattern, Entry]] = []
        self.denies_below_any_home: list[tuple[AnyHome, Entry]] = []
        for entry in denies:
            assert entry.pattern is not None
            meant = possibly(entry.pattern, variables)
            if isinstance(meant, AnyHome):
                self.denies_below_any_home.append((meant, entry))
            else:
                certain.append((meant, entry._replace(pattern=meant)))
        self.denies: PathIndex[Entry] = PathIndex(certain)

    def denies_at(self, components: Sequence[str]) -> list[Entry]:
        found = self.denies.find(components)
        return found + [entry for home, entry in self.denies_below_any_home if home.matches(components)]


def _expanded(entries: list[Entry], variables: Variables) -> list[tuple[PathPattern, Entry]]:
    """Return those of `entries` that can be expanded, by their patterns."""
    patterns = [certainly(entry.pattern, variables) if entry.pattern else None for entry in entries]
    return [
        (pattern, entry._replace(pattern=pattern))
        for pattern, entry in zip(patterns, entries, strict=True)
        if pattern is not None
    ]


class _PeerFacts:
    """The denies that concern one peer and are not found by the asked path."""

    __slots__ = ("_ending", "_lasting", "_merged", "everywhere")

    def __init__(self, everywhere: list[Entry], literals: list[tuple[Rule, list[str]]]) -> None:
        self.everywhere = everywhere
        self._lasting = [(int(rule.rights), paths) for rule, paths in literals if rule.until is None]
        self._ending = [(int(rule.rights), rule, paths) for rule, paths in literals if rule.until is not None]
        self._merged: dict[int, tuple[str, ...]] = {}

    def literals(self, rights: int, now: float | None) -> tuple[str, ...]:
        merged = self._merged.get(rights)
        if merged is None:
            paths = [path for listed, paths in self._lasting if listed & rights for path in paths]
            merged = self._merged[rights] = tuple(dict.fromkeys(paths))
        if not self._ending:
            return merged
        ending = [
            path
            for listed, rule, paths in self._ending
            if listed & rights and not rule.is_over(now)
            for path in paths
        ]
        return tuple(dict.fromkeys((*merged, *ending)))


class RuleLookup:
    """The rules of a policy, arranged for finding them."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        allows: list[tuple[PathPattern, Entry]] = []
        denies: list[tuple[PathPattern, Entry]] = []
        self._varying_allows: list[Entry] = []
        self._varying_denies: list[Entry] = []
        self._denies_everywhere: list[Entry] = []
        # The first of the denies that differ in nothing but their paths, and the literal ones of all of these.
        self._deny_literals: dict[tuple[int, Clients, Clients, int | None], tuple[Rule, list[str]]] = {}
        self._allows_by_clients: dict[tuple[Clients, Clients], list[Rule]] = {}
        for rule in rules:
            rights = int(rule.rights)
            entries = [
                (pattern, Entry(rule, rights, pattern)) for pattern in rule.paths if not pattern.variables
            ]
            varying = [Entry(rule, rights, pattern) for pattern in rule.paths if pattern.variables]
            if rule.action == ALLOW:
                allows += entries
                self._varying_allows += varying
                self._allows_by_clients.setdefault((rule.clients, rule.except_clients), []).append(rule)
                continue
            denies += entries
            self._varying_denies += varying
            if not rule.paths and not rule.terms.addresses:
                self._denies_everywhere.append(Entry(rule, rights, None))
            literals = [pattern.text for pattern in rule.paths if pattern.literal]
            if literals:
                group = (rights, rule.clients, rule.except_clients, rule.until)
                self._deny_literals.setdefault(group, (rule, []))[1].extend(literals)
        self._allows = PathIndex(allows)
        self._denies = PathIndex(denies)
        self._facts: dict[Peer, _PeerFacts] = {}
        self._expansions: dict[Variables, _Expansions] = {}

    def allows_at(self, path: str, peer: Peer) -> list[Entry]:
        """Return the allows one of whose patterns matches `path`, once for each such pattern.

        They need not be for `peer`, who is what the variables stand for.
        """
        found = self._allows.find(split(path))
        return found + self._expanded_for(peer).allows.find(split(path)) if self._varying_allows else found

    def denies_at(self, path: str, peer: Peer) -> list[Entry]:
        """Return the denies that are for every path or match `path`, and may concern `peer`."""
        found = self._denies.find(split(path))
        if self._varying_denies:
            found = found + self._expanded_for(peer).denies_at(split(path))
        by_path = [entry for entry in found if entry.concerns(peer)]
        return self._facts_about(peer).everywhere + by_path

    def deny_literals(self, peer: Peer, rights: int, now: float | None) -> tuple[str, ...]:
        """Return the literal paths of the denies that list one of `rights`, may concern `peer` and are not over."""
        return self._facts_about(peer).literals(rights, now)

    def allows_for(self, peer: Peer) -> list[Rule]:
        """Return the allows that are for `peer`, by id."""
        admitted = [
            rule
            for (clients, exceptions), rules in self._allows_by_clients.items()
            if allow_admits(clients, exceptions, peer)
            for rule in rules
        ]
        return sorted(admitted, key=lambda rule: rule.id)

    def _facts_about(self, peer: Peer) -> _PeerFacts:
        facts = self._facts.get(peer)
        if facts is None:
            if len(self._facts) >= _KEPT_PEERS:
                self._facts.clear()
            facts = self._facts[peer] = _PeerFacts(
                [entry for entry in self._denies_everywhere if entry.concerns(peer)],
                [
                    (rule, paths)
                    for rule, paths in self._deny_literals.values()
                    if deny_concerns(rule.clients, rule.except_clients, peer)
                ]
                + self._expanded_literals(peer),
            )
        return facts

    def _expanded_literals(self, peer: Peer) -> list[tuple[Rule, list[str]]]:
        concerning = [entry for entry in self._varying_denies if entry.concerns(peer)]
        expanded = _expanded(concerning, variables_of(peer)) if concerning else []
        return [(entry.rule, [pattern.text]) for pattern, entry in expanded if pattern.literal]

    def _expanded_for(self, peer: Peer) -> _Expansions:
        variables = variables_of(peer)
        found = self._expansions.get(variables)
        if found is None:
            count = len(self._varying_allows) + len(self._varying_denies)
            if count * (len(self._expansions) + 1) > _KEPT_EXPANDED:
                self._expansions.clear()
            found = _Expansions(self._varying_allows, self._varying_denies, variables)
            self._expansions[variables] = found
        return found
