"""Finds the few rules that a decision has to look at, by path and by peer, however many there are.

What is kept between calls are facts about peers, to save time; they change no answer.
Whether a rule that was found matches is the subject of `decide`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .clients import Clients, Peer, allow_admits, deny_concerns
from .deviceindex import Alternatives, DeviceIndex
from .devices import DEVICE_TYPES, Device
from .index import PathIndex
from .paths import split
from .patterns import PathPattern
from .rules import ALLOW, Object, Rule
from .variables import AnyHome, Variables, certainly, possibly, variables_of
from .words import FileType

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


# What an allow of devices is for that names no paths.
BELOW_DEV = "/dev/**"
_DEV = "/dev/"
_NO_FACTS = Device()


class _DeviceRules:
    """The rules for the same clients that are found by their devices and not by a path."""

    __slots__ = ("_index", "representatives", "types")

    def __init__(self, rules: list[Entry]) -> None:
        self._index: DeviceIndex[Entry] = DeviceIndex((_alternatives(entry.rule), entry) for entry in rules)
        alike: dict[object, Entry] = {}
        for entry in sorted(rules, key=lambda one: one.rule.id):
            rule = entry.rule
            alike.setdefault((rule.rights, rule.types, rule.until, rule.except_paths, rule.terms), entry)
        self.representatives = list(alike.values())
        """The first, by id, of those that differ in nothing but their devices."""
        self.types = frozenset(kind for entry in rules for kind in _types_in_question(entry.rule))
        """Kinds of devices of which more than the number is asked for."""

    def find(self, object: Object, possibly: bool) -> list[Entry]:
        """Return those that may fit: certainly all that do, or, when `possibly`, all that are not known not to."""
        device = object.device or _NO_FACTS
        return list({entry.rule.id: entry for entry in self._index.find(device, possibly)}.values())


def _alternatives(rule: Rule) -> Alternatives:
    """Selectors one of which must hold for the rule."""
    if rule.device is not None:
        return (rule.device,)
    return rule.devices or ()


def _types_in_question(rule: Rule) -> frozenset[FileType]:
    """The kinds of devices for which the rule asks for more than the number."""
    if not any(selector.needs_facts for selector in rule.selectors):
        return frozenset()
    kinds = DEVICE_TYPES if rule.types is None else DEVICE_TYPES & rule.types
    named = (() if rule.device is None else (rule.device,), rule.devices or ())
    for selectors in named:
        if selectors and all(selector.types is not None for selector in selectors):
            kinds &= frozenset().union(*(selector.types or () for selector in selectors))
    return kinds


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
    """The rules that concern one peer and are not found by the asked path."""

    __slots__ = ("_ending", "_lasting", "_merged", "device_allows", "device_denies", "everywhere", "patterns")

    def __init__(
        self,
        everywhere: list[Entry],
        literals: list[tuple[Rule, list[str]]],
        device_allows: list[_DeviceRules],
        device_denies: list[_DeviceRules],
        patterns: list[Rule],
    ) -> None:
        self.everywhere = everywhere
        self.patterns = patterns
        self.device_allows = device_allows
        self.device_denies = device_denies
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
        # The first of the denies of files by patterns that differ in nothing but their paths.
        self._deny_patterns: dict[tuple[int, Clients, Clients, int | None], Rule] = {}
        self._allows_by_clients: dict[tuple[Clients, Clients], list[Rule]] = {}
        device_allows: dict[tuple[Clients, Clients], list[Entry]] = {}
        device_denies: dict[tuple[Clients, Clients], list[Entry]] = {}
        listed = list(rules)
        for rule in listed:
            rights = int(rule.rights)
            group = (rule.clients, rule.except_clients)
            entries = [
                (pattern, Entry(rule, rights, pattern)) for pattern in rule.paths if not pattern.variables
            ]
            varying = [Entry(rule, rights, pattern) for pattern in rule.paths if pattern.variables]
            if rule.action == ALLOW:
                if _alternatives(rule):
                    below_dev = [entry for pattern, entry in entries if pattern.text == BELOW_DEV]
                    device_allows.setdefault(group, []).extend(below_dev)
                    entries = [entry for entry in entries if entry[0].text != BELOW_DEV]
                allows += entries
                self._varying_allows += varying
                self._allows_by_clients.setdefault(group, []).append(rule)
                continue
            if not rule.paths and _alternatives(rule):
                device_denies.setdefault(group, []).append(Entry(rule, rights, None))
                continue
            denies += entries
            self._varying_denies += varying
            if not rule.paths:
                self._denies_everywhere.append(Entry(rule, rights, None))
            alike = (rights, rule.clients, rule.except_clients, rule.until)
            literals = [pattern.text for pattern in rule.paths if pattern.literal]
            if len(literals) < len(rule.paths) and (rule.types is None or FileType.FILE in rule.types):
                self._deny_patterns.setdefault(alike, rule)
            if literals:
                self._deny_literals.setdefault(alike, (rule, []))[1].extend(literals)
        self._allows = PathIndex(allows)
        self._denies = PathIndex(denies)
        self._device_allows = {group: _DeviceRules(found) for group, found in device_allows.items() if found}
        self._device_denies = {group: _DeviceRules(found) for group, found in device_denies.items()}
        self._mentions_devices = any(rule.selectors for rule in listed)
        self._facts: dict[Peer, _PeerFacts] = {}
        self._expansions: dict[Variables, _Expansions] = {}

    def allows_at(self, path: str, peer: Peer, object: Object | None = None) -> list[Entry]:
        """Return the allows one of whose patterns matches `path`, once for each such pattern.

        They need not be for `peer`, who is what the variables stand for. Those that are found by their devices are:
        all that fit `object`, and without one the first of those that differ in nothing but their devices.
        """
        found = self._allows.find(split(path))
        if self._varying_allows:
            found = found + self._expanded_for(peer).allows.find(split(path))
        if self._device_allows and path.startswith(_DEV):
            for rules in self._facts_about(peer).device_allows:
                found = found + (
                    rules.representatives if object is None else rules.find(object, possibly=False)
                )
        return found

    def denies_at(self, path: str, peer: Peer) -> list[Entry]:
        """Return the denies that are for every path or match `path`, and may concern `peer`.

        Those that name devices and no path are the subject of device_denies().
        """
        found = self._denies.find(split(path))
        if self._varying_denies:
            found = found + self._expanded_for(peer).denies_at(split(path))
        by_path = [entry for entry in found if entry.concerns(peer)]
        return self._facts_about(peer).everywhere + by_path

    def device_denies(self, object: Object, peer: Peer) -> list[Entry]:
        """Return the denies that name devices and no path, may fit `object`, and may concern `peer`."""
        if not self._device_denies:
            return []
        groups = self._facts_about(peer).device_denies
        return [entry for rules in groups for entry in rules.find(object, possibly=True)]

    def asks_for_facts(self, object: Object, path: str, peer: Peer) -> bool:
        """Tell whether a rule that may decide asks more of the device than its kind and number."""
        if not self._mentions_devices or (object.type is not None and object.type not in DEVICE_TYPES):
            return False
        facts = self._facts_about(peer)
        if any(object.type in rules.types for rules in (*facts.device_allows, *facts.device_denies)):
            return True
        names = dict.fromkeys((path, object.path, *object.names))
        by_path = [
            *self._allows.find(split(path)),
            *(one for name in names for one in self.denies_at(name, peer)),
        ]
        if self._varying_allows:
            by_path += self._expanded_for(peer).allows.find(split(path))
        return any(object.type in _types_in_question(entry.rule) for entry in by_path)

    def deny_literals(self, peer: Peer, rights: int, now: float | None) -> tuple[str, ...]:
        """Return the literal paths of the denies that list one of `rights`, may concern `peer` and are not over."""
        return self._facts_about(peer).literals(rights, now)

    def denies_by_pattern(self, peer: Peer, rights: int, now: float | None) -> bool:
        """Tell whether a deny of files by a pattern lists one of `rights`, may concern `peer` and is not over."""
        patterns = self._facts_about(peer).patterns
        return any(int(rule.rights) & rights and not rule.is_over(now) for rule in patterns)

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
                [rules for group, rules in self._device_allows.items() if allow_admits(*group, peer)],
                [rules for group, rules in self._device_denies.items() if deny_concerns(*group, peer)],
                [
                    rule
                    for rule in self._deny_patterns.values()
                    if deny_concerns(rule.clients, rule.except_clients, peer)
                ],
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
