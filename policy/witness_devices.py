"""A device made up to be just what some selectors want, and what others do not: for the search in `witnesses`.

What is returned holds for each of the selectors that want something; where it cannot avoid the others, it does not.
"""

from collections.abc import Iterable, Sequence
from itertools import count, islice, product

from .devices import SEAT_PROPERTY, Device, DeviceSelector, Values
from .languages import some_word
from .within_devices import value_language

# Alternatives of one property that are tried.
_CHOICES = 64

# A major number that no rule is likely to name.
_FREE_MAJOR = 4_000


def device_of(selectors: Sequence[DeviceSelector], avoided: Sequence[DeviceSelector]) -> Device | None:
    """A device with what all of `selectors` want, and if that can be, not what `avoided` do; None if none was found."""
    wanted, unwanted = _values_by_key(selectors), _values_by_key(avoided)
    texts: dict[tuple[str, str], str] = {}
    for key, values in wanted.items():
        text = _value(values, unwanted.get(key, []))
        if text is None:
            return None
        texts[key] = text
    return Device(
        _device_number(selectors, avoided),
        texts.get(_SUBSYSTEM, "none"),
        {name: text for (sort, name), text in texts.items() if sort == "udev"},
        ({name: text for (sort, name), text in texts.items() if sort == "attrs"},),
    )


_SUBSYSTEM = ("subsystem", "")


def _values_by_key(selectors: Iterable[DeviceSelector]) -> dict[tuple[str, str], list[Values]]:
    found: dict[tuple[str, str], list[Values]] = {}
    for one in selectors:
        pairs = [(("udev", name), values) for name, values in one.properties]
        pairs += [(("attrs", name), values) for name, values in one.attributes]
        pairs += [(("udev", SEAT_PROPERTY), one.seats)] if one.seats is not None else []
        pairs += [(_SUBSYSTEM, one.subsystems)] if one.subsystems is not None else []
        for key, values in pairs:
            found.setdefault(key, []).append(values)
    return found


def _device_number(selectors: Sequence[DeviceSelector], avoided: Sequence[DeviceSelector]) -> tuple[int, int]:
    numbers = next((one.numbers for one in selectors if one.numbers is not None), ((_FREE_MAJOR, 0),))
    taken = {number for one in avoided for number in one.numbers or ()}
    for major, minor in numbers:
        if minor is None:
            return major, next(free for free in count() if (major, free) not in taken)
        if (major, minor) not in taken and (major, None) not in taken:
            return major, minor
    major, minor = numbers[0]
    return major, minor or 0


def _value(wanted: Sequence[Values], unwanted: Sequence[Values]) -> str | None:
    """A value that each of `wanted` holds, and none of `unwanted` if that can be."""
    first, *others = wanted
    outside = [value_language(value) for values in unwanted for value in values]
    for avoided in (outside, []):
        for chosen in islice(product(first, *others), _CHOICES):
            text = some_word([value_language(one) for one in chosen], avoided)
            if text is not None:
                return text
    return None
