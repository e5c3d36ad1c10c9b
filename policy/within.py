"""Whether one rule is for all that another is for, by their conditions alone: the algebra of a difference.

Each answer is a proof or none: True is certain for every request, peer, object and time that there could be, False says
only that it was not shown. Conditions that this module does not know must be equal.

- A path pattern is compared with several at once: `/dev/[ab]` lies in /dev/a and /dev/b.
- A deny's literal path, and a literal exception of an allow, also mean the object by its other names (hard links): a
  pattern that matches the same path does not, and so only the same literal takes its place.
"""

from collections.abc import Iterable, Sequence

from .clients import Clients
from .decide import is_own_to_each_process
from .devices import DEVICE_TYPES
from .languages import is_empty, of_path
from .paths import split
from .patterns import PathPattern, parse_pattern
from .rules import Rule
from .within_clients import NO_NAMES, Names, client_apart, clients_within, single_clients
from .within_devices import device_conditions_met, devices_apart
from .words import FileType

# Parts of one rule that are compared each for itself; past that only the whole rule is.
_PARTS = 256

_BELOW_DEV = parse_pattern("/dev/**")
_ALL_TYPES = frozenset(FileType)

# Conditions that have their own comparison here, and what is no condition. Others of a rule must be equal.
_COMPARED = frozenset(
    (
        *("rights", "types", "paths", "except_paths", "clients", "except_clients", "until"),
        *("device", "devices", "except_devices"),
    )
)
_NO_CONDITION = frozenset(("id", "file", "line", "name", "action", "terms", "accept"))


def same_conditions(one: Rule, other: Rule) -> bool:
    """Tell whether two rules say the same, wherever they stand."""
    return all(getattr(one, field) == getattr(other, field) for field in _ALIKE)


_ALIKE = tuple(field for field in Rule._fields if field not in ("id", "file", "line", "name", "accept"))


def gives_nothing(rule: Rule) -> bool:
    """Tell whether the allow, narrowed(), never matches: its own conditions leave nothing."""
    selects = rule.device is not None or rule.devices is not None
    return (
        not rule.types
        or (selects and not rule.types & DEVICE_TYPES)
        or not rule.clients
        or not (rule.paths or _addresses(rule))
    )


def narrowed(rule: Rule) -> Rule:
    """Return the allow without those of its clients and paths that its exceptions take back whole."""
    clients = single_clients(rule.clients, rule.except_clients)
    left = tuple(one for one in clients if not clients_within((one,), rule.except_clients))
    paths = tuple(one for one in rule.paths if not pattern_within(one, rule.except_paths))
    return rule._replace(clients=rule.clients if len(left) == len(clients) else left, paths=paths)


def parts_of(rule: Rule, others: Clients, names: Names = NO_NAMES) -> list[Rule]:
    """Return allows of one client and one device selector each that together are the allow.

    Its paths stay together, for what a path leads to may match another of them.
    """
    clients = single_clients(rule.clients, others, names)
    selectors = [None] if rule.devices is None else [(one,) for one in rule.devices]
    if len(clients) * len(selectors) > _PARTS:
        return [rule]
    return [rule._replace(clients=(one,), devices=some) for one in clients for some in selectors]


def without_distant_exceptions(rule: Rule, allow: Rule) -> Rule:
    """Return `rule` without exceptions of paths that `allow` does not name."""
    near = (one for one in rule.except_paths if any(may_meet(one, path) for path in allow.paths))
    return rule._replace(except_paths=tuple(near))


def allow_within(inner: Rule, outer: Rule, names: Names = NO_NAMES) -> bool:
    """Tell whether the allow `outer` matches whenever the allow `inner` does. Rights and terms are not looked at."""
    return (
        _others_equal(inner, outer)
        and (outer.until is None or (inner.until is not None and inner.until <= outer.until))
        and (inner.types or _ALL_TYPES) <= (outer.types or _ALL_TYPES)
        and device_conditions_met(outer, (inner,))
        and clients_within(inner.clients, outer.clients, names)
        and clients_within(outer.except_clients, inner.except_clients, names, possibly=True)
        and _paths_within(inner, outer)
        and _literally_within(outer.except_paths, inner.except_paths)
    )


def deny_stops_allow(deny: Rule, allow: Rule, names: Names = NO_NAMES, also: Rule | None = None) -> bool:
    """Tell whether `deny` matches whenever `allow` does, or, with a deny `also`, whenever both of these do.

    Rights are not looked at.
    """
    both = (allow,) if also is None else (allow, also)
    return bool(
        (_others_absent(deny) or (also is not None and _others_equal(deny, also)))
        and (deny.until is None or any(one.until is not None and one.until <= deny.until for one in both))
        and (deny.types is None or any(one.types is not None and one.types <= deny.types for one in both))
        and device_conditions_met(deny, both)
        and (
            not deny.clients
            or clients_within(allow.clients, deny.clients, names)
            or (also and also.clients and clients_within(also.clients, deny.clients, names, possibly=True))
        )
        and _exceptions_spare_nobody(deny, both, names)
        and _paths_stopped(deny, allow, also)
    )


def deny_misses_allow(deny: Rule, allow: Rule, names: Names = NO_NAMES) -> bool:
    """Tell whether `deny` never matches where `allow` does, whatever names an object has."""
    types = allow.types or _ALL_TYPES
    return (
        (bool(deny.terms.addresses) and not allow.terms.addresses)
        or (deny.types is not None and not types & deny.types)
        or devices_apart(deny, allow, types)
        or _clients_apart(deny, allow, names)
    )


def paths_apart(deny: Rule, allow: Rule) -> bool:
    """Tell whether no path that `allow` matches is one that `deny` matches. Other names of an object may be."""
    left = [one for one in allow.paths if not pattern_within(one, deny.except_paths)]
    if not deny.paths:
        return not left
    return not any(may_meet(one, other) for one in left for other in deny.paths)


def _exceptions_spare_nobody(deny: Rule, both: tuple[Rule, ...], names: Names) -> bool:
    """Whether no peer that all of `both` are for is one of the deny's exceptions."""
    return all(
        any(clients_within((one,), rule.except_clients, names) for rule in both)
        for one in deny.except_clients
    )


def _clients_apart(deny: Rule, allow: Rule, names: Names) -> bool:
    if clients_within(allow.clients, deny.except_clients, names):
        return True
    if not deny.clients:
        return False
    return clients_within(deny.clients, allow.except_clients, names, possibly=True) or all(
        client_apart(one, other) for one in allow.clients for other in deny.clients
    )


def may_meet(one: PathPattern, other: PathPattern) -> bool:
    """Tell whether a path may match both patterns; of patterns with variables, for anybody."""
    return not is_empty([of_path(one), of_path(other)])


def pattern_within(inner: PathPattern, outer: Iterable[PathPattern]) -> bool:
    """Tell whether each path that `inner` matches, one of `outer` does, as whoever asks reads their variables."""
    others = list(outer)
    if any(one.text == inner.text for one in others):
        return True
    fixed = [one for one in others if not one.variables]
    if inner.literal:
        return any(one.matches(split(inner.text)) for one in fixed)
    return bool(fixed) and is_empty([of_path(inner)], [of_path(one) for one in fixed])


def _paths_within(inner: Rule, outer: Rule) -> bool:
    """Whether an allow's paths, asked for and led to, are all another's."""
    for pattern in inner.paths:
        if pattern.literal and is_own_to_each_process(pattern.text):
            # Each process has its own: only a rule that names it literally gives it.
            if not any(one.text == pattern.text for one in outer.paths):
                return False
        elif not pattern_within(pattern, outer.paths):
            return False
    return _links_within(inner, outer)


def _links_within(inner: Rule, outer: Rule) -> bool:
    """Whether a link to a device below /dev that `inner` takes by its name alone is one for `outer` too."""
    types = inner.types or _ALL_TYPES
    asked = [pattern for pattern in inner.paths if not pattern.recursive]
    if len(types) != 1 or not types <= DEVICE_TYPES or not asked:
        return True
    if pattern_within(_BELOW_DEV, outer.paths):
        return True  # what such a link leads to lies below /dev
    direct = [one for one in outer.paths if not one.recursive]
    return outer.types == types and all(pattern_within(pattern, direct) for pattern in asked)


def _literally_within(inner: Sequence[PathPattern], outer: Sequence[PathPattern]) -> bool:
    """Whether each name that `inner` matches `outer` does, and what literals name besides by other names."""
    everything = any(one.text == "/**" for one in outer)
    texts = {one.text for one in outer}
    return everything or all(
        one.text in texts or (not _is_tried_by_name(one) and pattern_within(one, outer)) for one in inner
    )


def _is_tried_by_name(pattern: PathPattern) -> bool:
    """Whether the broker tries if it is another name of an object: a literal, and what may be one for somebody."""
    return pattern.literal or bool(pattern.variables)


def _paths_stopped(deny: Rule, allow: Rule, also: Rule | None) -> bool:
    """Whether the path that `allow` needs, or a name that `also` needs, is one that `deny` stops."""
    if also is not None and _names_within(also, deny):
        return True
    spared = any(may_meet(one, other) for one in deny.except_paths for other in allow.paths)
    return not spared and (not deny.paths or all(pattern_within(one, deny.paths) for one in allow.paths))


def _names_within(inner: Rule, outer: Rule) -> bool:
    """Whether each name that the deny `inner` stops is one that the deny `outer` does."""
    if outer.paths and (not inner.paths or not _literally_within(inner.paths, outer.paths)):
        return False
    return all(pattern_within(one, inner.except_paths) for one in outer.except_paths)


def _others_equal(one: Rule, other: Rule) -> bool:
    return _addresses(one) == _addresses(other) and all(
        getattr(one, field) == getattr(other, field) for field in _UNKNOWN
    )


def _others_absent(rule: Rule) -> bool:
    return not _addresses(rule) and all(
        getattr(rule, field) == Rule._field_defaults.get(field) for field in _UNKNOWN
    )


def _addresses(rule: Rule) -> object:
    """What the rule listens at: one that does is for no path."""
    return rule.terms.addresses


_UNKNOWN = tuple(field for field in Rule._fields if field not in _COMPARED | _NO_CONDITION)
