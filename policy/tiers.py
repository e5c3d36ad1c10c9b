"""What counts where several tiers say something: a higher one replaces files, masks rules and redefines names.

Enforced here: of two files with one name the higher tier's counts; a name is declared once in a tier, and the
highest tier's declaration counts; a mask switches off a rule of a lower tier, which must be there. A tier is a
number, and the higher one wins. Which directories the tiers are is the broker's subject.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from .declarations import Named, RuleDeclaration
from .problems import Position, Report, did_you_mean


class Tiered(Protocol):
    """A file: what it is called, with or without its directory, and the number of its tier."""

    @property
    def name(self) -> str: ...
    @property
    def tier(self) -> int: ...


File = TypeVar("File", bound=Tiered)
Declared = TypeVar("Declared")


class MaskedRule(NamedTuple):
    """A rule that a higher tier switched off."""

    id: str
    place: Position
    by: Position


class Redefinition(NamedTuple):
    """A declaration that does not count, since a higher tier declares the same name."""

    what: str
    """"client" or "socket"."""
    name: str
    place: Position
    by: Position


def counting(files: Iterable[File]) -> tuple[list[File], list[tuple[File, File]]]:
    """Return the files that count, by tier and name, and those that do not, each with what replaces it."""
    ordered = sorted(files, key=lambda file: (file.tier, file.name))
    highest = {_file_name(file.name): file for file in ordered}
    pairs = [(file, highest[_file_name(file.name)]) for file in ordered]
    return (
        [file for file, winner in pairs if file.tier == winner.tier],
        [(file, winner) for file, winner in pairs if file.tier < winner.tier],
    )


def rule_id(named: Named) -> str:
    """Return the id of the rule of that name: its file without the ending, and the name."""
    return f"{_file_name(named.position.file).removesuffix('.yaml')}/{named.text}"


class Tiers:
    """Decides which declarations of a set of files are in force, and keeps those that are not."""

    def __init__(self, tiers: Mapping[str, int], report: Report) -> None:
        """`tiers` has the tier of each file by its name."""
        self._tiers = tiers
        self._is_one_tier = not any(tiers.values())
        self._report = report
        self.masked: list[MaskedRule] = []
        self.redefined: list[Redefinition] = []

    def by_name(self, what: str, declared: Iterable[tuple[Named, Declared]]) -> dict[str, Declared]:
        """Return what is in force under each name. Tells of those that one tier declares twice."""
        first: dict[tuple[str, int], Position] = {}
        highest: dict[str, tuple[Named, Declared]] = {}
        for named, value in sorted(declared, key=lambda one: self._tier(one[0])):
            place = first.setdefault((named.text, self._tier(named)), named.position)
            if place is not named.position:
                self._report.add(named.position, f"{what} {named.text!r} is declared twice, first at {place}")
                continue
            lower = highest.get(named.text)
            if lower is not None:
                self.redefined.append(Redefinition(what, named.text, lower[0].position, named.position))
            highest[named.text] = named, value
        return {name: value for name, (_, value) in highest.items()}

    def unmasked(self, rules: Iterable[RuleDeclaration], masks: Iterable[Named]) -> list[RuleDeclaration]:
        """Return the rules that no mask switches off. Tells of masks that mask nothing."""
        declared = list(rules)
        waiting = list(masks)
        if not waiting:
            return declared
        named = {rule_id(rule.name): rule.name for rule in declared if rule.name is not None}
        masked: dict[str, MaskedRule] = {}
        for mask in waiting:
            rule = named.get(mask.text)
            if rule is not None and self._tier(rule) < self._tier(mask):
                masked.setdefault(mask.text, MaskedRule(mask.text, rule.position, mask.position))
            elif rule is None and self._is_one_tier:
                continue  # of the tiers below nothing is in this set, as in a check of one file
            elif not self._report.is_full(mask.position.file):
                self._report.add(mask.position, self._fault(mask, rule, named))
        self.masked += sorted(masked.values())
        return [rule for rule in declared if rule.name is None or rule_id(rule.name) not in masked]

    def _fault(self, mask: Named, rule: Named | None, named: Mapping[str, Named]) -> str:
        # An error, and not a mask for nothing: when a package renames a rule, the mask would let it come back.
        if rule is None:
            lower = [one for one, place in named.items() if self._tier(place) < self._tier(mask)]
            near = did_you_mean(lower, mask.text)
            return f"unknown rule {mask.text!r}, expected the id of a rule of a lower tier{near}"
        which = "the same" if self._tier(rule) == self._tier(mask) else "a higher"
        return f"rule {mask.text!r} is one of {which} tier, at {rule.position}: only one of a lower tier can be masked"

    def _tier(self, named: Named) -> int:
        return self._tiers[named.position.file]


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
