"""Devices: how a policy names them by what they are, and whether a selector is for one.

- A selector's conditions must all hold; a list of values means any of them.
- Values may be patterns: `*`, `?` and `[…]`, over the whole value. A property or attribute that is empty is none.
- `attrs` must all be those of one sysfs device: the node's own or one above it, as udev's ATTRS.
- What is no device is for no selector. What is not known of a device makes a condition unknown, and so neither true
  nor false: whether that counts for or against is for whoever asks.

Finding the facts (sysfs, udev's database) is the broker's task.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .patterns import Glob
from .words import FileType

DEVICE_TYPES = frozenset((FileType.CHAR, FileType.BLOCK))

# Where a device is that was attached to none: sd-login(3).
FIRST_SEAT = "seat0"
SEAT_PROPERTY = "ID_SEAT"

DeviceNumber = tuple[int, int | None]
"""A major number, and a minor one or None for all of them."""

Values = tuple[str | Glob, ...]
"""What a value may be: any of these."""


class Device(NamedTuple):
    """What a device node stands for; None is what could not be determined."""

    number: tuple[int, int] | None = None
    """Major and minor."""
    subsystem: str | None = None
    properties: Mapping[str, str] | None = None
    """udev's, of this very device. None also when the database knows only one that had the node before."""
    attributes: tuple[Mapping[str, str | None], ...] | None = None
    """Of the device and of each one above it, those that the policy mentions; a value of None could not be read."""


class DeviceSelector(NamedTuple):
    """Conditions on a device, all of which must hold; None means that there is no such condition."""

    types: frozenset[FileType] | None = None
    numbers: tuple[DeviceNumber, ...] | None = None
    subsystems: Values | None = None
    properties: tuple[tuple[str, Values], ...] = ()
    attributes: tuple[tuple[str, Values], ...] = ()
    seats: Values | None = None

    def single_conditions(self) -> Iterable[tuple[str, "DeviceSelector"]]:
        """Yield each of the conditions but the type, alone, with its key in a policy file."""
        if self.numbers is not None:
            yield "device", DeviceSelector(numbers=self.numbers)
        if self.subsystems is not None:
            yield "subsystem", DeviceSelector(subsystems=self.subsystems)
        for one in self.properties:
            yield "udev", DeviceSelector(properties=(one,))
        if self.attributes:
            yield "attrs", DeviceSelector(attributes=self.attributes)
        if self.seats is not None:
            yield "seat", DeviceSelector(seats=self.seats)

    @property
    def needs_facts(self) -> bool:
        """Whether more than a device's kind and number is asked for."""
        return bool(
            self.properties or self.attributes or self.subsystems is not None or self.seats is not None
        )

    def holds(self, kind: FileType | None, device: Device | None) -> bool | None:
        """Tell whether it is for the object of that kind; None where that depends on what is not known."""
        if kind is not None and kind not in DEVICE_TYPES:
            return False
        if self.types is not None and kind is not None and kind not in self.types:
            return False
        known = device or _NOTHING_KNOWN
        # Which kind of device, or whether it is one at all.
        unknown = kind is None
        for truth in self._truths(known):
            if truth is False:
                return False
            unknown = unknown or truth is None
        return None if unknown else True

    def _truths(self, device: Device) -> Iterable[bool | None]:
        if self.numbers is not None:
            yield None if device.number is None else _numbered(self.numbers, device.number)
        if self.subsystems is not None:
            yield None if device.subsystem is None else _is_one(self.subsystems, device.subsystem)
        if self.properties or self.seats is not None:
            properties = device.properties
            if properties is None:
                yield None
            else:
                if self.seats is not None:
                    yield _is_one(self.seats, properties.get(SEAT_PROPERTY) or FIRST_SEAT)
                for name, values in self.properties:
                    yield _is_one(values, properties.get(name, ""))
        if self.attributes:
            chain = device.attributes
            yield None if chain is None else _any_truth(_all_hold(self.attributes, one) for one in chain)


_NOTHING_KNOWN = Device()


def any_holds(
    selectors: Iterable[DeviceSelector], kind: FileType | None, device: Device | None
) -> bool | None:
    """Tell whether one of `selectors` is for the object; None where that depends on what is not known."""
    return _any_truth(selector.holds(kind, device) for selector in selectors)


def _any_truth(truths: Iterable[bool | None]) -> bool | None:
    found: bool | None = False
    for truth in truths:
        if truth is True:
            return True
        if truth is None:
            found = None
    return found


def _all_hold(wanted: Iterable[tuple[str, Values]], known: Mapping[str, str | None]) -> bool | None:
    found: bool | None = True
    for name, values in wanted:
        value = known.get(name, "")
        if value is None:
            found = None
        elif not _is_one(values, value):
            return False
    return found


def _numbered(wanted: Iterable[DeviceNumber], number: tuple[int, int]) -> bool:
    return any(major == number[0] and minor in (None, number[1]) for major, minor in wanted)


def _is_one(values: Values, value: str) -> bool:
    if not value:
        return False
    return any(one == value if isinstance(one, str) else one.matches(value) for one in values)
