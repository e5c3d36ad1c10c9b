"""Finds the patterns that match a path without looking at every pattern.

A trie over the components of paths. Literal components are the keys of a dictionary; those with wildcards are
kept by the literal text that they begin with, so that `ttyUSB*` is compared with nothing but `ttyUSB…`.
"""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from .patterns import Glob, PathPattern

Value = TypeVar("Value")


class _Node(Generic[Value]):
    """A place in the trie: the patterns that end here, and those that go on."""

    __slots__ = ("below", "globs", "here", "literals", "prefix_lengths")

    def __init__(self) -> None:
        # Most nodes need one of these, and a large policy has many nodes: nothing is made before its time.
        self.here: list[Value] | None = None
        self.below: list[Value] | None = None
        self.literals: dict[str, _Node[Value]] | None = None
        self.globs: dict[str, dict[str, tuple[Glob, _Node[Value]]]] | None = None
        self.prefix_lengths: tuple[int, ...] = ()

    def add(self, value: Value, recursive: bool) -> None:
        """Add a value for what ends here, or for what lies below."""
        if recursive:
            self.below = self.below or []
            self.below.append(value)
        else:
            self.here = self.here or []
            self.here.append(value)

    def child(self, component: str | Glob) -> "_Node[Value]":
        """Return the node for `component`, made where there is none yet."""
        if isinstance(component, Glob):
            return self._glob_child(component)
        if self.literals is None:
            self.literals = {}
        node = self.literals.get(component)
        if node is None:
            node = self.literals[component] = _Node()
        return node

    def _glob_child(self, glob: Glob) -> "_Node[Value]":
        if self.globs is None:
            self.globs = {}
        length = len(glob.prefix)
        if length not in self.prefix_lengths:
            self.prefix_lengths = tuple(sorted((*self.prefix_lengths, length)))
        return self.globs.setdefault(glob.prefix, {}).setdefault(glob.text, (glob, _Node()))[1]

    def globs_matching(self, component: str) -> "list[_Node[Value]]":
        """Return the nodes of all wildcards that match `component`."""
        nodes: list[_Node[Value]] = []
        for length in self.prefix_lengths:
            if self.globs is None or length > len(component):
                break
            same_prefix = self.globs.get(component[:length])
            if same_prefix is not None:
                nodes += [node for glob, node in same_prefix.values() if glob.matches(component)]
        return nodes

    def nodes_covering(self, component: str | Glob) -> "list[_Node[Value]]":
        """Return nodes that match whatever `component` matches; there may be more, which are not recognised."""
        if isinstance(component, str):
            same = self.literals.get(component) if self.literals else None
            return [*([same] if same else []), *self.globs_matching(component)]
        if self.globs is None:
            return []
        # The same text, or a shorter beginning with a star behind it.
        wider = {component.text: component.prefix}
        for length in self.prefix_lengths:
            if length <= len(component.prefix):
                wider[f"{component.prefix[:length]}*"] = component.prefix[:length]
        found = [self.globs.get(prefix, {}).get(text) for text, prefix in wider.items()]
        return [one[1] for one in found if one is not None]


class PathIndex(Generic[Value]):
    """Values under path patterns."""

    def __init__(self, entries: Iterable[tuple[PathPattern, Value]]) -> None:
        self._root: _Node[Value] = _Node()
        for pattern, value in entries:
            node = self._root
            for component in pattern.components:
                node = node.child(component)
            node.add(value, pattern.recursive)

    def find(self, components: Sequence[str]) -> list[Value]:
        """Return the values of all patterns that match the path of these components."""
        found: list[Value] = []
        nodes = [self._root]
        for component in components:
            following: list[_Node[Value]] = []
            for node in nodes:
                if node.below:
                    found += node.below
                if node.literals and component in node.literals:
                    following.append(node.literals[component])
                if node.prefix_lengths:
                    following += node.globs_matching(component)
            if not following:
                return found
            nodes = following
        for node in nodes:
            if node.here:
                found += node.here
        return found

    def covering(self, pattern: PathPattern) -> list[Value]:
        """Return values of patterns that match whatever `pattern` matches; there may be more that are not recognised.

        What stands under a pattern with variables is never returned, and for one nothing is.
        """
        found: list[Value] = []
        nodes = [self._root]
        for component in pattern.components:
            found += [value for node in nodes for value in node.below or ()]
            nodes = [one for node in nodes for one in node.nodes_covering(component)]
        for node in nodes:
            found += (node.below if pattern.recursive else node.here) or []
        return found
