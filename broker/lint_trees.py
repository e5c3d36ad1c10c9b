"""Directories that a deny or an exception names alone, where rules give whole trees.

Whether what is named is a directory is for whoever can look.
"""

from collections.abc import Iterable, Iterator

from policy import ALLOW, FileType, Rule
from policy.paths import split
from policy.patterns import PathPattern

# A name that stands for any in a directory.
_ANY = "any-name-in-it"


class Trees:
    """The patterns of a set of rules that end in `/**`, by the directory that they name literally."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._given: dict[str, list[tuple[PathPattern, Rule]]] = {}
        self._denied: dict[str, list[tuple[PathPattern, Rule]]] = {}
        for rule in rules:
            trees = self._given if rule.action == ALLOW else self._denied
            for pattern in rule.paths:
                if pattern.recursive and not pattern.variables:
                    trees.setdefault(pattern.literal_root, []).append((pattern, rule))

    def leaves_open(self, rule: Rule) -> list[str]:
        """The literal paths of a deny, or of an allow's exceptions, below which something is given all the same."""
        if rule.action == ALLOW:
            literal = [pattern for pattern in rule.except_paths if pattern.literal]
            return [pattern.text for pattern in literal if _gives(rule, pattern.text)]
        if rule.types is not None and FileType.DIRECTORY not in rule.types:
            return []
        literal = [pattern for pattern in rule.paths if pattern.literal]
        return [pattern.text for pattern in literal if self._is_given_below(pattern.text, rule)]

    def _is_given_below(self, path: str, deny: Rule) -> bool:
        below = (*split(path), _ANY)
        given = any(_gives(rule, path) for _, rule in _above(self._given, path))
        return given and not any(
            pattern.matches(below) and rule.clients in ((), deny.clients)
            for pattern, rule in _above(self._denied, path)
        )


def _above(trees: dict[str, list[tuple[PathPattern, Rule]]], path: str) -> Iterator[tuple[PathPattern, Rule]]:
    """Those whose literal directory is `path` or above it."""
    while path:
        yield from trees.get(path, ())
        path = path.rpartition("/")[0]
    yield from trees.get("/", ())


def _gives(rule: Rule, directory: str) -> bool:
    """Whether an allow gives what lies in the directory."""
    below = (*split(directory), _ANY)
    return any(pattern.recursive and pattern.matches(below) for pattern in rule.paths) and not any(
        pattern.matches(below) for pattern in rule.except_paths
    )
