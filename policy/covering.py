"""Values under path patterns, found by a path that the patterns match, or by a pattern that they take in whole.

Nothing compares each pattern with each other one. What is found does take the other in; that all which do are found is
not promised: patterns are compared by their components. For a proof of either see `within`, which takes longer.
"""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from .patterns import Glob, PathPattern
from .variables import AnyHome, Variables, possibly

Value = TypeVar("Value")

_NO_VARIABLES = Variables(None, None, None)
_ANYTHING = PathPattern("/**", (), True)


class _Node(Generic[Value]):
    """A place in the trie: the values of patterns that end here, and the patterns that go on."""

    __slots__ = ("below", "globs", "here", "literals", "prefix_lengths")

    def __init__(self) -> None:
        self.here: list[Value] = []
        self.below: list[Value] = []
        self.literals: dict[str, _Node[Value]] = {}
        # By the literal text that they begin with, and by their whole text.
        self.globs: dict[str, dict[str, tuple[Glob, _Node[Value]]]] = {}
        self.prefix_lengths: tuple[int, ...] = ()

    def child(self, component: str | Glob) -> "_Node[Value]":
        if isinstance(component, str):
            node = self.literals.get(component)
            if node is None:
                node = self.literals[component] = _Node()
            return node
        length = len(component.prefix)
        if length not in self.prefix_lengths:
            self.prefix_lengths = tuple(sorted((*self.prefix_lengths, length)))
        same_prefix = self.globs.setdefault(component.prefix, {})
        return same_prefix.setdefault(component.text, (component, _Node()))[1]

    def matching(self, component: str) -> "list[_Node[Value]]":
        """Return the nodes of what matches a component of a path."""
        same = self.literals.get(component)
        nodes = [] if same is None else [same]
        for length in self.prefix_lengths:
            same_prefix = self.globs.get(component[:length])
            if same_prefix is not None and length <= len(component):
                nodes += [node for glob, node in same_prefix.values() if glob.matches(component)]
        return nodes

    def covering(self, component: str | Glob) -> "list[_Node[Value]]":
        """Return the nodes of what matches whatever `component` does."""
        if isinstance(component, str):
            return self.matching(component)
        # The same text, or a shorter beginning with a star behind it.
        wider = {component.text: component.prefix}
        for length in self.prefix_lengths:
            if length <= len(component.prefix):
                wider[f"{component.prefix[:length]}*"] = component.prefix[:length]
        found = [self.globs.get(prefix, {}).get(text) for text, prefix in wider.items()]
        return [one[1] for one in found if one is not None]


class Patterns(Generic[Value]):
    """Values under patterns without variables, found by the patterns that they take in."""

    def __init__(self, entries: Iterable[tuple[PathPattern, Value]]) -> None:
        """Those of patterns with variables are left out."""
        self._root: _Node[Value] = _Node()
        for pattern, value in entries:
            if pattern.variables:
                continue
            node = self._root
            for component in pattern.components:
                node = node.child(component)
            (node.below if pattern.recursive else node.here).append(value)

    def matching(self, path: Sequence[str]) -> list[Value]:
        """Return the values of all patterns that match the path of these components."""
        return self._found(path, recursive=False)

    def covering(self, pattern: PathPattern) -> list[Value]:
        """Return values of patterns that match whatever `pattern` means, for whoever asks."""
        if pattern.variables:
            meant = possibly(pattern, _NO_VARIABLES)
            pattern = _ANYTHING if isinstance(meant, AnyHome) else meant
        return self._found(pattern.components, pattern.recursive)

    def _found(self, components: Sequence[str | Glob], recursive: bool) -> list[Value]:
        found: list[Value] = []
        nodes = [self._root]
        for component in components:
            found += [value for node in nodes for value in node.below]
            nodes = [one for node in nodes for one in node.covering(component)]
        for node in nodes:
            found += node.below if recursive else node.here
        return found
