"""What a rule's devices want and what a device has, in words, for an explanation.

Whether a condition holds is asked of `devices`, one condition at a time.
"""

from collections.abc import Iterable, Iterator

from .clientwords import listed
from .devices import DEVICE_TYPES, FIRST_SEAT, Device, DeviceSelector, Values
from .rules import Object

_NOTHING_KNOWN = Device()


def missed_devices(selectors: Iterable[DeviceSelector], found: Object | None) -> str:
    """What each of the selectors wants that the object does not have."""
    return "; or ".join(dict.fromkeys(_missed(selector, found) for selector in selectors))


def hit_devices(selectors: Iterable[DeviceSelector], found: Object | None, possibly: bool) -> str:
    """Which of the selectors is for the object, or, when `possibly`, may be."""
    for selector in selectors:
        truth = None if found is None else selector.holds(found.type, found.device)
        if truth is True or (truth is None and possibly):
            return f"{selector_words(selector)}{'' if truth else ', not known not to be'}"
    return ""


def selector_words(selector: DeviceSelector) -> str:
    """The selector in one line, as a file might have it."""
    return " and ".join(_wanted(one) for one in _conditions(selector)) or "any device"


def _conditions(selector: DeviceSelector) -> Iterator[DeviceSelector]:
    if selector.types is not None:
        yield DeviceSelector(types=selector.types)
    for _, one in selector.single_conditions():
        yield one


def _missed(selector: DeviceSelector, found: Object | None) -> str:
    if found is None:
        return f"{selector_words(selector)}, not known"
    if found.type is not None and found.type not in DEVICE_TYPES:
        return f"{selector_words(selector)}, is a {found.type.value}"
    missing = [one for one in _conditions(selector) if one.holds(found.type, found.device) is not True]
    return "; and ".join(f"{_wanted(one)}, {_has(one, found)}" for one in missing)


def _wanted(condition: DeviceSelector) -> str:
    if condition.types is not None:
        return f"type {listed(sorted(kind.value for kind in condition.types))}"
    if condition.numbers is not None:
        numbers = [f"{major}:{'*' if minor is None else minor}" for major, minor in condition.numbers]
        return f"device {listed(numbers)}"
    if condition.subsystems is not None:
        return f"subsystem {_values(condition.subsystems)}"
    if condition.seats is not None:
        return f"seat {_values(condition.seats)}"
    return " ".join(
        f"{name}={_values(values)}" for name, values in condition.properties + condition.attributes
    )


def _has(condition: DeviceSelector, found: Object) -> str:
    device = found.device or _NOTHING_KNOWN
    if condition.types is not None:
        return f"is {found.type.value}" if found.type is not None else "not known"
    if condition.numbers is not None:
        return "not known" if device.number is None else f"is {device.number[0]}:{device.number[1]}"
    if condition.subsystems is not None:
        return "not known" if device.subsystem is None else f"is {device.subsystem or 'none'}"
    if condition.attributes:
        return _of_attributes(condition, device)
    if device.properties is None:
        return "not known to udev"
    if condition.seats is not None:
        return f"is {device.properties.get('ID_SEAT') or FIRST_SEAT}"
    return " ".join(
        f"is {device.properties[name]}" if device.properties.get(name) else "has none"
        for name, _ in condition.properties
    )


def _of_attributes(condition: DeviceSelector, device: Device) -> str:
    if device.attributes is None:
        return "not known"
    names = [name for name, _ in condition.attributes]
    having = [
        " ".join(
            "not readable" if one[name] is None else f"{name}={one[name]}" for name in names if name in one
        )
        for one in device.attributes
    ]
    shown = [words for words in having if words]
    return f"has {listed(shown)}" if shown else "has none"


def _values(values: Values) -> str:
    return listed([one if isinstance(one, str) else one.text for one in values])
