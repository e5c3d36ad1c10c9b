"""Rules that never decide: over, excepted by themselves, refused by denies, or said already by another rule.

A rule that is called so here is the rule of no verdict about an object, whatever is asked, by whom and when (from the
given moment on). The other way round nothing is promised: patterns are compared by their components, and clients,
devices and exceptions by being the same.

Nothing compares each rule with each other one: denies are found by pattern and client.
"""

from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from .atoms import atoms, wider_than
from .clients import Client
from .covering import Patterns
from .devices import DEVICE_TYPES, DeviceSelector
from .findings import Finding, finding, texts
from .moments import moment_text
from .patterns import PathPattern
from .rules import ALLOW, DENY, Rule
from .words import FileType, Rights, with_implied

NEVER_DECIDES = frozenset(
    (
        *("rule-is-over", "shadowed", "repeated", "paths-all-excepted"),
        *("clients-all-excepted", "devices-all-excepted", "no-device-type"),
    )
)
"""The codes of rules that are the rule of no verdict."""

# Kinds of denies that are looked at under one pattern and client; sets with more are made by no hand.
_MOST_KINDS = 64

_ANY_DEVICE = DeviceSelector()


def never_deciding(rules: Iterable[Rule], now: float | None) -> Iterator[Finding]:
    """Yield a finding for each rule that never decides from `now` (seconds since 1970) on, and for near misses."""
    living = []
    for rule in rules:
        found = _by_itself(rule, now)
        if found is None:
            living.append(rule)
        else:
            yield finding(rule, *found)
    denies = _Denies(rule for rule in living if rule.action == DENY and not rule.terms.addresses)
    said = _Said(living)
    for rule in living:
        if rule.action == ALLOW:
            by = denies.refusing(rule)
            if by:
                yield finding(rule, "shadowed", f"all that it gives is refused by {' and '.join(by)}")
                continue
        other = said.before(rule)
        if other:
            yield finding(rule, "repeated", f"{other} says the same or more, and goes before it")


def _by_itself(rule: Rule, now: float | None) -> tuple[str, str] | None:
    """The code and message for a rule that its own words make void; None for others."""
    is_allow = rule.action == ALLOW
    if rule.until is not None and now is not None and rule.until <= now:
        return "rule-is-over", f"it is over since {moment_text(rule.until)}"
    if _excepts_all_paths(rule):
        return (
            "paths-all-excepted",
            f"{texts(one.text for one in rule.paths)}: all of it is in 'except_paths'",
        )
    if not _has_device_type(rule):
        what = f"type {' and '.join(sorted(kind.value for kind in rule.types or ()))}"
        if not is_allow:
            return "deny-spares-all", f"{what}: no device that it selects is of that type"
        return "no-device-type", f"{what}: no device that it selects is of that type"
    for excepts, code, key in (
        (_excepts_all_clients(rule), "clients-all-excepted", "except_clients"),
        (_excepts_all_devices(rule), "devices-all-excepted", "except_devices"),
    ):
        if excepts:
            return code if is_allow else "deny-spares-all", f"'{key}' has all that the rule is for"
    return None


def _excepts_all_paths(rule: Rule) -> bool:
    if not rule.paths or not rule.except_paths:
        return False
    # An exception counts for an allow where it may be meant, and for a deny where it is known to be.
    is_allow = rule.action == ALLOW
    same = {pattern.text for pattern in rule.except_paths if is_allow or not pattern.variables}
    excepted = Patterns((pattern, True) for pattern in rule.except_paths)
    return all(pattern.text in same or excepted.covering(pattern) for pattern in rule.paths)


def _excepts_all_clients(rule: Rule) -> bool:
    excepted = {atom for client in rule.except_clients for atom in atoms(client)}
    if not excepted:
        return False
    if not rule.clients:
        return Client() in excepted
    wanted = {atom for client in rule.clients for atom in atoms(client)}
    return all(not excepted.isdisjoint(wider_than(atom)) for atom in wanted)


def _excepts_all_devices(rule: Rule) -> bool:
    excepted = frozenset(rule.except_devices)
    if not excepted:
        return False
    if _ANY_DEVICE in excepted:
        return rule.types is not None and DEVICE_TYPES.issuperset(rule.types)
    if rule.device is not None and rule.device in excepted:
        return True
    return rule.devices is not None and excepted.issuperset(rule.devices)


def _has_device_type(rule: Rule) -> bool:
    """Whether some type of device fits the rule and what it selects; a rule that selects none needs none."""
    if rule.device is None and rule.devices is None:
        return True
    kinds = DEVICE_TYPES if rule.types is None else DEVICE_TYPES & rule.types
    own = rule.device or _ANY_DEVICE
    chosen = (_ANY_DEVICE,) if rule.devices is None else rule.devices
    return any(kinds & _types(own) & _types(one) for one in chosen)


def _types(selector: DeviceSelector) -> frozenset[FileType]:
    return DEVICE_TYPES if selector.types is None else selector.types


class _Kind(NamedTuple):
    """What tells denies of one pattern and client apart, besides their rights."""

    types: frozenset[FileType] | None
    device: DeviceSelector | None
    devices: frozenset[DeviceSelector] | None
    except_devices: frozenset[DeviceSelector]
    except_paths: frozenset[str]
    except_clients: frozenset[Client]
    until: int | None

    @classmethod
    def of(cls, rule: Rule) -> "_Kind":
        return cls(
            rule.types,
            rule.device,
            None if rule.devices is None else frozenset(rule.devices),
            frozenset(rule.except_devices),
            frozenset(pattern.text for pattern in rule.except_paths),
            frozenset(rule.except_clients),
            rule.until,
        )

    def refuses_all_that(self, allow: "_Kind") -> bool:
        """Whether a deny of this kind matches whatever an allow of that kind does, on a path and for a client."""
        return (
            (self.types is None or (allow.types is not None and allow.types <= self.types))
            and (self.device is None or self.device == allow.device)
            and (self.devices is None or (allow.devices is not None and allow.devices <= self.devices))
            and self.except_devices <= allow.except_devices
            and self.except_paths <= allow.except_paths
            and self.except_clients <= allow.except_clients
            and (self.until is None or (allow.until is not None and self.until >= allow.until))
        )


class _Refused(NamedTuple):
    """What denies of one kind refuse."""

    rights: int
    by: str
    """The id of the first."""


_Bucket = dict[Client | None, dict[_Kind, _Refused]]
"""Denies under one pattern, by client (None: everybody) and kind."""


class _Denies:
    """The denies of a set, found by what they take in."""

    def __init__(self, denies: Iterable[Rule]) -> None:
        buckets: dict[PathPattern | None, _Bucket] = {}
        for rule in denies:
            kind = _Kind.of(rule)
            for pattern in rule.paths or (None,):
                bucket = buckets.setdefault(pattern, {})
                for client in _clients_of(rule):
                    kinds = bucket.setdefault(client, {})
                    known = kinds.get(kind, _Refused(0, rule.id))
                    kinds[kind] = _Refused(known.rights | int(rule.rights), known.by)
        self._everywhere = buckets.pop(None, {})
        self._by_text = {pattern.text: bucket for pattern, bucket in buckets.items() if pattern is not None}
        self._index = Patterns(
            (pattern, bucket) for pattern, bucket in buckets.items() if pattern is not None
        )

    def refusing(self, allow: Rule) -> list[str]:
        """Return the ids of denies which together refuse all that `allow` would give, or none."""
        by: dict[str, bool] = {}
        kind = _Kind.of(allow)
        wanted = {atom for client in allow.clients for atom in atoms(client)}
        each = [with_implied(right) for right in Rights if right & allow.rights]
        for pattern in allow.paths:
            buckets = [self._everywhere, *self._index.covering(pattern)]
            if pattern.variables:
                buckets.append(self._by_text.get(pattern.text, {}))
            for atom in wanted:
                refused = 0
                for one in self._concerning(buckets, atom, kind):
                    if one.rights & ~refused & allow.rights:
                        by[one.by] = True
                    refused |= one.rights
                if not all(right & refused for right in each):
                    return []
        return list(by)

    @staticmethod
    def _concerning(buckets: list[_Bucket], atom: Client, kind: _Kind) -> Iterator[_Refused]:
        clients = (None, Client(), *wider_than(atom))
        for bucket in buckets:
            for client in clients:
                for one, refused in islice(bucket.get(client, {}).items(), _MOST_KINDS):
                    if one.refuses_all_that(kind):
                        yield refused


class _Said:
    """What rules say that differ in their rights alone, by client, so that one that adds nothing is found."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._said: dict[tuple[Hashable, Client | None], list[tuple[str, int]]] = {}
        for rule in rules:
            said = _sayings(rule)
            for client in said.clients:
                self._said.setdefault((said.what, client), []).append((rule.id, int(rule.rights)))
        # Of rules with the same rights only the first goes before others.
        for key, known in self._said.items():
            first: dict[int, str] = {}
            for id, rights in sorted(known):
                first.setdefault(rights, id)
            self._said[key] = [(id, rights) for rights, id in first.items()]

    def before(self, rule: Rule) -> str | None:
        """Return the id of a rule that goes before `rule` wherever it matches; with others for other clients."""
        said = _sayings(rule)
        if rule.terms.open_limit is not None or rule.terms.rate_limit is not None:
            return None  # when the first one's are used up, it is the second's turn
        found: str | None = None
        for client in said.clients:
            earlier = (
                id
                for one in ((client, None) if rule.action == DENY else (client,))
                for id, rights in self._said.get((said.what, one), ())
                if id < rule.id and not int(rule.rights) & ~rights
            )
            found = next(earlier, None)
            if found is None:
                return None
        return found


class _Sayings(NamedTuple):
    what: Hashable
    clients: frozenset[Client | None]


def _sayings(rule: Rule) -> _Sayings:
    paths = frozenset(pattern.text for pattern in rule.paths)
    return _Sayings((rule.action, paths, _Kind.of(rule), rule.terms), _clients_of(rule))


def _clients_of(rule: Rule) -> frozenset[Client | None]:
    """The single clients of the rule; None for everybody."""
    return frozenset(atom for client in rule.clients for atom in atoms(client)) or frozenset((None,))
