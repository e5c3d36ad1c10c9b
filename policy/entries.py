"""Rules as they are kept for being found: under one of their patterns, and under their clients' group."""

from typing import NamedTuple

from .devices import DEVICE_TYPES, DeviceSelector
from .patterns import PathPattern
from .rules import Rule
from .words import FileType

# What an allow of devices is for that names no paths.
BELOW_DEV = "/dev/**"


class Entry(NamedTuple):
    """A rule under one of its patterns, or under None when it is a deny for every path."""

    rule: Rule
    rights: int
    """Those of the rule as a plain number, for speed."""
    pattern: PathPattern | None
    group: int
    """The place of its clients and their exceptions among those of all allows, or of all denies."""

    @property
    def is_literal(self) -> bool:
        """Whether the pattern names exactly one path, whoever asks."""
        return self.pattern is not None and self.pattern.literal and not self.pattern.expanded


def alternatives(rule: Rule) -> tuple[DeviceSelector, ...]:
    """Return selectors one of which must hold for the rule; none where it is not only for devices."""
    return (rule.device,) if rule.device is not None else rule.devices or ()


def types_in_question(rule: Rule) -> frozenset[FileType]:
    """Return the kinds of devices for which the rule asks for more than their number."""
    if not any(selector.needs_facts for selector in rule.selectors):
        return frozenset()
    kinds = DEVICE_TYPES if rule.types is None else DEVICE_TYPES & rule.types
    if rule.devices and all(selector.types is not None for selector in rule.devices):
        kinds &= frozenset().union(*(selector.types or () for selector in rule.devices))
    return kinds
