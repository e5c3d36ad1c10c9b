"""Rules for the same clients, of which those that may be for a device are found without asking each."""

from .deviceindex import DeviceIndex
from .devices import Device
from .entries import Entry, alternatives, types_in_question
from .rules import Object

_NO_FACTS = Device()


class DeviceRules:
    """Entries that differ in their devices more than in anything else."""

    __slots__ = ("_index", "representatives", "types")

    def __init__(self, entries: list[Entry]) -> None:
        self._index: DeviceIndex[Entry] = DeviceIndex((alternatives(entry.rule), entry) for entry in entries)
        alike: dict[object, Entry] = {}
        for entry in sorted(entries, key=lambda one: one.rule.id):
            rule = entry.rule
            kinds = types_in_question(rule)
            # A rule that selects no device holds for each, and none that does may stand for it.
            rest = (
                *(rule.rights, rule.types, rule.until, rule.except_paths, rule.terms, entry.pattern),
                *(kinds, bool(rule.selectors)),
            )
            alike.setdefault(rest, entry)
        self.representatives = list(alike.values())
        """The first, by id, of those that differ in nothing but which devices they are for."""
        self.types = frozenset(
            kind for entry in self.representatives for kind in types_in_question(entry.rule)
        )
        """Kinds of devices of which more than the number is asked for."""

    def find(self, object: Object, possibly: bool) -> list[Entry]:
        """Return those that may fit: certainly all that do, or, when `possibly`, all that are not known not to."""
        device = object.device or _NO_FACTS
        return list({entry.rule.id: entry for entry in self._index.find(device, possibly)}.values())
