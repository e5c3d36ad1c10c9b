"""Whether the devices that one rule is for are all among those of another, and whether none is: for `within`."""

from collections.abc import Iterable, Sequence

from .devices import DEVICE_TYPES, DeviceNumber, DeviceSelector, Values
from .languages import Language, is_empty, of_value
from .patterns import Glob
from .rules import Rule
from .words import FileType


def device_conditions_met(outer: Rule, both: tuple[Rule, ...]) -> bool:
    """Tell whether what `outer` says of devices holds wherever all of `both` match."""
    return (
        (outer.device is None or any(_is_of(one, (outer.device,)) for one in both))
        and (outer.devices is None or any(_is_of(one, outer.devices) for one in both))
        and all(
            any(_selector_within(one, other) for rule in both for other in rule.except_devices)
            for one in outer.except_devices
        )
    )


def _is_of(rule: Rule, selectors: Sequence[DeviceSelector]) -> bool:
    """Whether each device that `rule` is for is of one of `selectors`."""
    if rule.device is not None and any(_selector_within(rule.device, one) for one in selectors):
        return True
    return rule.devices is not None and all(
        any(_selector_within(one, other) for other in selectors) for one in rule.devices
    )


def _selector_within(inner: DeviceSelector, outer: DeviceSelector) -> bool:
    """Whether `outer` holds wherever `inner` does, and may hold wherever that may."""
    return (
        (outer.types is None or (inner.types is not None and inner.types <= outer.types))
        and (outer.numbers is None or _numbers_within(inner.numbers, outer.numbers))
        and _maybe_values_within(inner.subsystems, outer.subsystems)
        and _maybe_values_within(inner.seats, outer.seats)
        and _keyed_within(inner.properties, outer.properties)
        and _keyed_within(inner.attributes, outer.attributes)
    )


def _numbers_within(inner: tuple[DeviceNumber, ...] | None, outer: tuple[DeviceNumber, ...]) -> bool:
    return inner is not None and all(
        any(major == one[0] and minor in (None, one[1]) for major, minor in outer) for one in inner
    )


def _keyed_within(inner: tuple[tuple[str, Values], ...], outer: tuple[tuple[str, Values], ...]) -> bool:
    return all(
        any(name == key and _values_within(held, wanted) for key, held in inner) for name, wanted in outer
    )


def _maybe_values_within(inner: Values | None, outer: Values | None) -> bool:
    return outer is None or (inner is not None and _values_within(inner, outer))


def _values_within(inner: Values, outer: Values) -> bool:
    missing = [one for one in inner if one not in outer]
    return _nothing_in(missing, outer) if missing else True


def _nothing_in(inner: Iterable[str | Glob], outer: Values) -> bool:
    others = [value_language(one) for one in outer]
    return all(is_empty([value_language(one)], others) for one in inner)


def value_language(value: str | Glob) -> Language:
    """Return the values that `value`, of a selector, stands for."""
    if isinstance(value, Glob):
        return of_value(value.text)
    return of_value("".join(f"[{one}]" if one in "*?[{}" else one for one in value))


def devices_apart(deny: Rule, allow: Rule, types: frozenset[FileType]) -> bool:
    """Tell whether no device that `allow` is for may be one that `deny` is for."""
    selects = deny.device is not None or deny.devices is not None
    if selects and not types & DEVICE_TYPES:
        return True
    if any(_is_of(allow, (one,)) for one in deny.except_devices):
        return True
    excepted = allow.except_devices
    if deny.device is not None and any(_selector_within(deny.device, one) for one in excepted):
        return True
    held: list[tuple[DeviceSelector, ...]] = [(allow.device,)] if allow.device is not None else []
    held += [allow.devices] if allow.devices is not None else []
    wanted: list[tuple[DeviceSelector, ...]] = [(deny.device,)] if deny.device is not None else []
    wanted += [deny.devices] if deny.devices is not None else []
    return any(
        all(_selectors_apart(one, other) for one in some for other in others)
        for some in held
        for others in wanted
    )


def _selectors_apart(one: DeviceSelector, other: DeviceSelector) -> bool:
    """Whether `other` is known to fail wherever `one` is known to hold."""
    if one.types is not None and other.types is not None and not one.types & other.types:
        return True
    if (
        one.numbers is not None
        and other.numbers is not None
        and not _numbers_meet(one.numbers, other.numbers)
    ):
        return True
    for held, wanted in ((one.subsystems, other.subsystems), (one.seats, other.seats)):
        if held is not None and wanted is not None and not _values_meet(held, wanted):
            return True
    return any(
        name == key and not _values_meet(held, wanted)
        for name, held in one.properties
        for key, wanted in other.properties
    )


def _numbers_meet(one: tuple[DeviceNumber, ...], other: tuple[DeviceNumber, ...]) -> bool:
    return any(
        left[0] == right[0] and (None in (left[1], right[1]) or left[1] == right[1])
        for left in one
        for right in other
    )


def _values_meet(one: Values, other: Values) -> bool:
    return any(not is_empty([value_language(left), value_language(right)]) for left in one for right in other)
