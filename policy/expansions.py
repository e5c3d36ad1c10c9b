"""The rules whose paths hold variables, as they read for those for whom the variables stand for the same."""

from collections.abc import Collection

from .entries import Entry
from .index import PathIndex
from .paths import split
from .patterns import PathPattern
from .rules import Object
from .variables import AnyHome, Variables, certainly, possibly


class Expansions:
    """Rules with their variables expanded: those of allows where they are known, of denies as all that they may be."""

    __slots__ = ("_denies", "_denies_below_any_home", "allows")

    def __init__(self, allows: list[Entry], denies: list[Entry], variables: Variables) -> None:
        self.allows = PathIndex(expanded(allows, variables), possibly=False)
        certain: list[tuple[PathPattern, Entry]] = []
        self._denies_below_any_home: list[tuple[AnyHome, Entry]] = []
        for entry in denies:
            assert entry.pattern is not None
            meant = possibly(entry.pattern, variables)
            if isinstance(meant, AnyHome):
                self._denies_below_any_home.append((meant, entry))
            else:
                certain.append((meant, entry._replace(pattern=meant)))
        self._denies = PathIndex(certain, possibly=True)

    def denies_at(self, path: str, groups: Collection[int], object: Object | None) -> list[Entry]:
        """Return the denies that match `path`, as PathIndex.find() does."""
        components = split(path)
        below_any = [entry for home, entry in self._denies_below_any_home if home.matches(components)]
        return self._denies.find(path, groups, object) + below_any


def expanded(entries: list[Entry], variables: Variables) -> list[tuple[PathPattern, Entry]]:
    """Return those of `entries` that can be expanded, by their patterns."""
    patterns = [certainly(entry.pattern, variables) if entry.pattern else None for entry in entries]
    return [
        (pattern, entry._replace(pattern=pattern))
        for pattern, entry in zip(patterns, entries, strict=True)
        if pattern is not None
    ]
