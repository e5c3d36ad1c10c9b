"""Finds the rules whose patterns match a path without looking at every pattern.

Literal paths are the keys of a dictionary. The others make a trie over the components of paths: those of its keys
that have wildcards are kept by the literal text that they begin with, so that `ttyUSB*` is compared with nothing but
`ttyUSB…`. Where many rules share a pattern they are kept by the groups of their clients, and where many of these do,
by their devices.
"""

from collections.abc import Collection, Iterable, Iterator

from .devicerules import DeviceRules
from .entries import Entry, alternatives
from .paths import split
from .patterns import Glob, PathPattern
from .rules import Object

# Rules under one pattern from which on they are kept by their groups, and of one group by their devices.
_CROWD = 16


class _Node:
    """A place in the trie: the patterns that end here, and those that go on."""

    __slots__ = ("below", "globs", "here", "literals", "prefix_lengths")

    def __init__(self) -> None:
        # Most nodes need one of these, and a large policy has many nodes: nothing is made before its time.
        self.here: list[Entry] | None = None
        self.below: list[Entry] | None = None
        self.literals: dict[str, _Node] | None = None
        self.globs: dict[str, dict[str, tuple[Glob, _Node]]] | None = None
        self.prefix_lengths: tuple[int, ...] = ()

    def add(self, entry: Entry, recursive: bool) -> None:
        """Add an entry for what ends here, or for what lies below."""
        if recursive:
            self.below = self.below or []
            self.below.append(entry)
        else:
            self.here = self.here or []
            self.here.append(entry)

    def child(self, component: str | Glob) -> "_Node":
        """Return the node for `component`, made where there is none yet."""
        if isinstance(component, Glob):
            return self._glob_child(component)
        if self.literals is None:
            self.literals = {}
        node = self.literals.get(component)
        if node is None:
            node = self.literals[component] = _Node()
        return node

    def _glob_child(self, glob: Glob) -> "_Node":
        if self.globs is None:
            self.globs = {}
        length = len(glob.prefix)
        if length not in self.prefix_lengths:
            self.prefix_lengths = tuple(sorted((*self.prefix_lengths, length)))
        return self.globs.setdefault(glob.prefix, {}).setdefault(glob.text, (glob, _Node()))[1]

    def everywhere(self) -> "Iterator[_Node]":
        """Yield this node and all below it."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += (node.literals or {}).values()
            waiting += [child for same in (node.globs or {}).values() for _, child in same.values()]

    def globs_matching(self, component: str) -> "list[_Node]":
        """Return the nodes of all wildcards that match `component`."""
        nodes: list[_Node] = []
        for length in self.prefix_lengths:
            if self.globs is None or length > len(component):
                break
            same_prefix = self.globs.get(component[:length])
            if same_prefix is not None:
                nodes += [node for glob, node in same_prefix.values() if glob.matches(component)]
        return nodes


class PathIndex:
    """Entries under their path patterns."""

    def __init__(self, entries: Iterable[tuple[PathPattern | None, Entry]], possibly: bool) -> None:
        """`possibly` says that rules are wanted which may be for a device, and not those alone that certainly are."""
        self._possibly = possibly
        self._root = _Node()
        # Most literal paths have one rule, and a large policy many such paths: an entry, and no list of one.
        self._literals: dict[str, Entry | list[Entry]] = {}
        for pattern, entry in entries:
            assert pattern is not None
            if pattern.literal:
                self._add_literal(pattern.text, entry)
                continue
            node = self._root
            for component in pattern.components:
                node = node.child(component)
            node.add(entry, pattern.recursive)
        self._has_patterns = bool(self._root.literals or self._root.globs or self._root.below)
        self._crowds = {id(here): _by_group(here) for here in self._lists() if len(here) > _CROWD}

    def _add_literal(self, text: str, entry: Entry) -> None:
        here = self._literals.get(text)
        if here is None:
            self._literals[text] = entry
        elif isinstance(here, list):
            here.append(entry)
        else:
            self._literals[text] = [here, entry]

    def _lists(self) -> Iterator[list[Entry]]:
        for here in self._literals.values():
            if isinstance(here, list):
                yield here
        for node in self._root.everywhere():
            yield from filter(None, (node.here, node.below))

    def find(self, path: str, groups: Collection[int], object: Object | None = None) -> list[Entry]:
        """Return the entries whose patterns match `path`: all that are of one of `groups`, and maybe others.

        Those whose devices are not `object` may be missing; without an object, those that differ from one that is
        there in nothing but their devices.
        """
        found: list[Entry] = []
        for here in self._matching(path):
            crowd = self._crowds.get(id(here)) if len(here) > _CROWD else None
            if crowd is None:
                found += here
                continue
            for group in groups if len(groups) < len(crowd) else crowd:
                if group in groups and group in crowd:
                    found += self._of_group(crowd[group], object)
        return found

    def _of_group(self, entries: list[Entry] | DeviceRules, object: Object | None) -> list[Entry]:
        if isinstance(entries, list):
            return entries
        return entries.representatives if object is None else entries.find(object, self._possibly)

    def has(self, path: str) -> bool:
        """Tell whether a pattern matches `path`."""
        return bool(self._matching(path))

    def _matching(self, path: str) -> list[list[Entry]]:
        here = self._literals.get(path)
        found = [] if here is None else [here if isinstance(here, list) else [here]]
        if not self._has_patterns:
            return found
        nodes = [self._root]
        for component in split(path):
            following: list[_Node] = []
            for node in nodes:
                if node.below:
                    found.append(node.below)
                if node.literals and component in node.literals:
                    following.append(node.literals[component])
                if node.prefix_lengths:
                    following += node.globs_matching(component)
            if not following:
                return found
            nodes = following
        found += [node.here for node in nodes if node.here]
        return found


def _by_group(entries: list[Entry]) -> dict[int, list[Entry] | DeviceRules]:
    groups: dict[int, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    return {
        group: DeviceRules(found) if len(found) > _CROWD and any(map(_is_for_devices, found)) else found
        for group, found in groups.items()
    }


def _is_for_devices(entry: Entry) -> bool:
    return bool(alternatives(entry.rule))
