"""Finds the few rules that a decision has to look at, by path, peer and device, however many there are.

What is kept between calls are facts about peers, to save time; they change no answer.
Whether a rule that was found matches is the subject of `decide`.
"""

from collections.abc import Collection, Iterable

from .clientindex import ClientIndex, Group
from .clients import Peer
from .devicerules import DeviceRules
from .devices import DEVICE_TYPES
from .entries import Entry, alternatives, types_in_question
from .expansions import Expansions, expanded
from .index import PathIndex
from .rules import ALLOW, Object, Rule
from .variables import Variables, variables_of
from .words import FileType

# Peers about which facts are kept: more than a broker serves at a time, and each costs a few hundred bytes.
_KEPT_PEERS = 1_024

# Expanded patterns that are kept, of all peers together.
_KEPT_EXPANDED = 65_536

# What others than root make hard links to, and then is asked for by another name.
_LINKED = frozenset((FileType.FILE, FileType.FIFO))


class _Denies:
    """The denies for the same clients that are not found by the asked path."""

    __slots__ = ("by_device", "everywhere", "literals", "patterns", "varying")

    def __init__(self) -> None:
        self.everywhere: list[Entry] = []
        # The first of those that differ in nothing but their paths, and the literal ones of all of these.
        self.literals: dict[tuple[int, int | None], tuple[Rule, list[str]]] = {}
        # The same for those that deny files by patterns.
        self.patterns: dict[tuple[int, int | None], Rule] = {}
        self.varying: list[Entry] = []
        self.by_device: DeviceRules | None = None

    def add(self, rule: Rule, rights: int) -> None:
        alike = (rights, rule.until)
        literals = [pattern.text for pattern in rule.paths if pattern.literal]
        if literals:
            self.literals.setdefault(alike, (rule, []))[1].extend(literals)
        # What selects devices is about no file.
        for_files = (rule.types is None or not _LINKED.isdisjoint(rule.types)) and not alternatives(rule)
        if len(literals) < len(rule.paths) and for_files:
            self.patterns.setdefault(alike, rule)


class _PeerFacts:
    """What concerns one peer: groups of rules, and those rules that are not found by the asked path."""

    __slots__ = (
        "_ending",
        "_lasting",
        "_merged",
        "admitting",
        "concerning",
        "device_denies",
        "everywhere",
        "patterns",
    )

    def __init__(
        self,
        peer: Peer,
        admitting: frozenset[int],
        concerning: frozenset[int],
        denies: list[_Denies],
    ) -> None:
        self.admitting = admitting
        self.concerning = concerning
        concerned = [denies[group] for group in sorted(concerning)]
        self.everywhere = [entry for one in concerned for entry in one.everywhere]
        self.patterns = [rule for one in concerned for rule in one.patterns.values()]
        self.device_denies = [one.by_device for one in concerned if one.by_device is not None]
        literals = [found for one in concerned for found in one.literals.values()]
        varying = [entry for one in concerned for entry in one.varying]
        literals += [
            (entry.rule, [pattern.text])
            for pattern, entry in (expanded(varying, variables_of(peer)) if varying else ())
            if pattern.literal
        ]
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

    def __init__(self, rules: Collection[Rule]) -> None:
        arranged = _Arranged(rules)
        self._allows_of_groups = arranged.allows_of_groups
        self._deny_groups = arranged.deny_groups
        self._allow_clients = ClientIndex(list(arranged.allow_places))
        self._deny_clients = ClientIndex(list(arranged.deny_places))
        self._allows = PathIndex(((entry.pattern, entry) for entry in arranged.allows), possibly=False)
        self._denies = PathIndex(((entry.pattern, entry) for entry in arranged.denies), possibly=True)
        self._varying_allows = arranged.varying_allows
        self._varying_denies = [entry for one in self._deny_groups for entry in one.varying]
        self._mentions_devices = any(rule.selectors for rule in rules)
        self._facts: dict[Peer, _PeerFacts] = {}
        self._expansions: dict[Variables, Expansions] = {}

    def allows_at(self, path: str, peer: Peer, object: Object | None = None) -> list[Entry]:
        """Return the allows for `peer` one of whose patterns matches `path`, once for each such pattern.

        Where many share a pattern those whose devices are not `object` may be missing; without an object, those that
        differ from one that is there in nothing but their devices.
        """
        admitting = self._facts_about(peer).admitting
        if not admitting:
            return []
        found = self._allows.find(path, admitting, object)
        if self._varying_allows:
            found += self._expanded_for(peer).allows.find(path, admitting, object)
        return [entry for entry in found if entry.group in admitting]

    def is_named(self, path: str, peer: Peer) -> bool:
        """Tell whether an allow, for whomever it is, has a pattern that matches `path` as it reads for `peer`."""
        return self._allows.has(path) or (
            bool(self._varying_allows) and self._expanded_for(peer).allows.has(path)
        )

    def denies_at(self, path: str, peer: Peer, object: Object | None) -> list[Entry]:
        """Return the denies that are for every path or match `path`, and may concern `peer`.

        Where many share a pattern those whose devices cannot be `object` may be missing. Those that name devices and
        no path are the subject of device_denies().
        """
        facts = self._facts_about(peer)
        concerning = facts.concerning
        if not concerning:
            return []
        found = self._denies.find(path, concerning, object)
        if self._varying_denies:
            found += self._expanded_for(peer).denies_at(path, concerning, object)
        return facts.everywhere + [entry for entry in found if entry.group in concerning]

    def device_denies(self, object: Object, peer: Peer) -> list[Entry]:
        """Return the denies that name devices and no path, may fit `object`, and may concern `peer`."""
        groups = self._facts_about(peer).device_denies
        return [entry for rules in groups for entry in rules.find(object, possibly=True)]

    def asks_for_facts(self, object: Object, path: str, peer: Peer) -> bool:
        """Tell whether a rule that may decide asks more of the device than its kind and number."""
        if not self._mentions_devices or (object.type is not None and object.type not in DEVICE_TYPES):
            return False
        if any(_is_among(object.type, one.types) for one in self._facts_about(peer).device_denies):
            return True
        names = dict.fromkeys((path, object.path, *object.names))
        by_path = self.allows_at(path, peer)
        by_path += [entry for name in names for entry in self.denies_at(name, peer, None)]
        return any(_is_among(object.type, types_in_question(entry.rule)) for entry in by_path)

    def deny_literals(self, peer: Peer, rights: int, now: float | None) -> tuple[str, ...]:
        """Return the literal paths of the denies that list one of `rights`, may concern `peer` and are not over."""
        return self._facts_about(peer).literals(rights, now)

    def denies_by_pattern(self, peer: Peer, rights: int, now: float | None) -> bool:
        """Tell whether a deny of files by a pattern lists one of `rights`, may concern `peer` and is not over."""
        patterns = self._facts_about(peer).patterns
        return any(int(rule.rights) & rights and not rule.is_over(now) for rule in patterns)

    def allows_for(self, peer: Peer) -> list[Rule]:
        """Return the allows that are for `peer`, by id."""
        admitting = self._facts_about(peer).admitting
        admitted = [rule for group in admitting for rule in self._allows_of_groups[group]]
        return sorted(admitted, key=lambda rule: rule.id)

    def _facts_about(self, peer: Peer) -> _PeerFacts:
        facts = self._facts.get(peer)
        if facts is None:
            if len(self._facts) >= _KEPT_PEERS:
                self._facts.clear()
            admitting, concerning = self._allow_clients.admitting(peer), self._deny_clients.concerning(peer)
            facts = _PeerFacts(peer, admitting, concerning, self._deny_groups)
            self._facts[peer] = facts
        return facts

    def _expanded_for(self, peer: Peer) -> Expansions:
        variables = variables_of(peer)
        found = self._expansions.get(variables)
        if found is None:
            count = len(self._varying_allows) + len(self._varying_denies)
            if count * (len(self._expansions) + 1) > _KEPT_EXPANDED:
                self._expansions.clear()
            found = Expansions(self._varying_allows, self._varying_denies, variables)
            self._expansions[variables] = found
        return found


class _Arranged:
    """Rules by what they are found by."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.allows: list[Entry] = []
        self.denies: list[Entry] = []
        self.varying_allows: list[Entry] = []
        self.allow_places: dict[Group, int] = {}
        self.deny_places: dict[Group, int] = {}
        self.allows_of_groups: list[list[Rule]] = []
        self.deny_groups: list[_Denies] = []
        of_devices: dict[int, list[Entry]] = {}
        for rule in rules:
            if rule.action == ALLOW:
                self._add_allow(rule)
            elif not rule.terms.addresses:  # those are for no path
                self._add_deny(rule, of_devices)
        for place, entries in of_devices.items():
            self.deny_groups[place].by_device = DeviceRules(entries)

    def _add_allow(self, rule: Rule) -> None:
        place = self.allow_places.setdefault((rule.clients, rule.except_clients), len(self.allow_places))
        if place == len(self.allows_of_groups):
            self.allows_of_groups.append([])
        self.allows_of_groups[place].append(rule)
        for pattern in rule.paths:
            entry = Entry(rule, int(rule.rights), pattern, place)
            (self.varying_allows if pattern.variables else self.allows).append(entry)

    def _add_deny(self, rule: Rule, of_devices: dict[int, list[Entry]]) -> None:
        place = self.deny_places.setdefault((rule.clients, rule.except_clients), len(self.deny_places))
        if place == len(self.deny_groups):
            self.deny_groups.append(_Denies())
        group = self.deny_groups[place]
        rights = int(rule.rights)
        if not rule.paths:
            entry = Entry(rule, rights, None, place)
            if alternatives(rule):
                of_devices.setdefault(place, []).append(entry)
            else:
                group.everywhere.append(entry)
            return
        group.add(rule, rights)
        for pattern in rule.paths:
            entry = Entry(rule, rights, pattern, place)
            (group.varying if pattern.variables else self.denies).append(entry)


def _is_among(kind: FileType | None, kinds: frozenset[FileType]) -> bool:
    """Tell whether `kind` may be one of `kinds`."""
    return bool(kinds) if kind is None else kind in kinds
