"""Finds the rules whose devices may fit an object without asking each of them.

A selector is kept under one of its conditions that names values literally, the one that the fewest selectors share:
of a thousand rules for a thousand serial numbers one is asked. What has no such condition is asked each time.
Whether a rule that was found really fits is the subject of `decide`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from .devices import FIRST_SEAT, SEAT_PROPERTY, Device, DeviceSelector, Values

Value = TypeVar("Value")

Key = tuple[str, str]
"""A condition's word in a policy file, and the name of the property or attribute, if it has one."""

Alternatives = tuple[DeviceSelector, ...]


class _Condition(NamedTuple):
    """A condition that holds for these values of a fact and for no others."""

    key: Key
    values: tuple[object, ...]


class DeviceIndex(Generic[Value]):
    """Values under selectors: each under alternatives, one of which must hold, or under none."""

    def __init__(self, entries: Iterable[tuple[Alternatives, Value]]) -> None:
        # A large group that many rules name is looked at once: it is one object in all of them.
        bundles: dict[int, tuple[Alternatives, list[Value]]] = {}
        for alternatives, value in entries:
            bundles.setdefault(id(alternatives), (alternatives, []))[1].append(value)
        kept = list(bundles.values())
        conditions = [[list(_conditions(one)) for one in alternatives] for alternatives, _ in kept]
        shared = Counter(
            (condition.key, value)
            for alternatives in conditions
            for one in alternatives
            for condition in one
            for value in condition.values
        )
        self._everywhere: list[Value] = []
        self._by_key: dict[Key, dict[object, list[list[Value]]]] = {}
        for (_, bundle), of_bundle in zip(kept, conditions, strict=True):
            if of_bundle and all(of_bundle):
                for one in of_bundle:
                    self._add(min(one, key=lambda condition: _most(condition, shared)), bundle)
            else:
                self._everywhere += bundle

    def _add(self, condition: _Condition, bundle: list[Value]) -> None:
        bundles = self._by_key.setdefault(condition.key, {})
        for one in condition.values:
            bundles.setdefault(one, []).append(bundle)

    def find(self, device: Device, possibly: bool) -> list[Value]:
        """Return the values, some maybe twice, whose selectors are for `device`, or, when `possibly`, may be.

        More than those can be among them.
        """
        found = list(self._everywhere)
        for key, kept in self._by_key.items():
            known, complete = _facts(key, device)
            if possibly and not complete:
                # One bundle may stand under many values.
                bundles = {id(bundle): bundle for under in kept.values() for bundle in under}
                found += [value for bundle in bundles.values() for value in bundle]
                continue
            for one in known:
                for bundle in kept.get(one, ()):
                    found += bundle
        return found


def _most(condition: _Condition, shared: Counter[tuple[Key, object]]) -> int:
    """How many share the condition, where most do."""
    return max(shared[condition.key, value] for value in condition.values)


def _conditions(selector: DeviceSelector) -> Iterator[_Condition]:
    numbers = selector.numbers
    if numbers is not None and all(minor is not None for _, minor in numbers):
        yield _Condition(("device", ""), numbers)
    named = [
        *((("udev", name), values) for name, values in selector.properties),
        *((("attrs", name), values) for name, values in selector.attributes),
    ]
    if selector.subsystems is not None:
        named.append((("subsystem", ""), selector.subsystems))
    if selector.seats is not None:
        named.append((("udev", SEAT_PROPERTY), selector.seats))
    for key, values in named:
        if _are_literal(values):
            yield _Condition(key, values)


def _are_literal(values: Values) -> bool:
    return all(isinstance(value, str) for value in values)


def _facts(key: Key, device: Device) -> tuple[Collection[object], bool]:
    """Return what is known of the fact, and whether that is all there is to know."""
    word, name = key
    if word == "device":
        return _only(device.number)
    if word == "subsystem":
        return _only(device.subsystem)
    if word == "udev":
        if device.properties is None:
            return (), False
        return (device.properties.get(name) or (FIRST_SEAT if name == SEAT_PROPERTY else ""),), True
    if device.attributes is None:
        return (), False
    values = [one[name] for one in device.attributes if name in one]
    known = {value for value in values if value is not None}
    return known, None not in values


def _only(fact: object | None) -> tuple[Collection[object], bool]:
    return ((), False) if fact is None else ((fact,), True)
