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
        self.here: list[Value] = []
        self.below: list[Value] = []
        self.literals: dict[str, _Node[Value]] = {}
        self.globs: dict[str, dict[str, tuple[Glob, _Node[Value]]]] = {}
        self.prefix_lengths: tuple[int, ...] = ()

    def child(self, component: str | Glob) -> "_Node[Value]":
        """Return the node for `component`, made where there is none yet."""
        if isinstance(component, str):
            node = self.literals.get(component)
            if node is None:
                node = self.literals[component] = _Node()
            return node
        same_prefix = self.globs.setdefault(component.prefix, {})
        self.prefix_lengths = tuple(sorted({*self.prefix_lengths, len(component.prefix)}))
        return same_prefix.setdefault(component.text, (component, _Node()))[1]

    def children_matching(self, component: str) -> "list[_Node[Value]]":
        """Return the nodes of all patterns that `component` leads to."""
        literal = self.literals.get(component)
        nodes = [] if literal is None else [literal]
        for length in self.prefix_lengths:
            if length > len(component):
                break
            same_prefix = self.globs.get(component[:length])
            if same_prefix is not None:
                nodes += [node for glob, node in same_prefix.values() if glob.matches(component)]
        return nodes


class PathIndex(Generic[Value]):
    """Values under path patterns."""

    def __init__(self, entries: Iterable[tuple[PathPattern, Value]]) -> None:
        self._root: _Node[Value] = _Node()
        for pattern, value in entries:
            node = self._root
            for component in pattern.components:
                node = node.child(component)
            (node.below if pattern.recursive else node.here).append(value)

    def find(self, components: Sequence[str]) -> list[Value]:
        """Return the values of all patterns that match the path of these components."""
        found: list[Value] = []
        nodes = [self._root]
        for component in components:
            following: list[_Node[Value]] = []
            for node in nodes:
                found += node.below
                following += node.children_matching(component)
            nodes = following
            if not nodes:
                return found
        for node in nodes:
            found += node.here
        return found
