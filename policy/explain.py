"""Why a request was decided as it was: the rules that came near, and the condition that each of them missed.

Nothing here decides anything. The verdict is `Policy.decide`'s own, and so is each answer to "does this condition
hold": a rule is put alone into a policy, with all its other conditions opened wide, and that policy decides. So an
explanation cannot say other than the broker does.

Imported by those who explain alone: a broker that serves never loads it.
"""

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any, NamedTuple

from .clients import Client, Clients, Peer
from .clientwords import hit_exceptions, listed, missed_clients
from .decide import Policy
from .devicewords import hit_devices, missed_devices
from .moments import moment_text
from .paths import shape_fault, split
from .patterns import PathPattern
from .rules import ALLOW, DENY, Object, Request, Rule, Verdict
from .variables import AnyHome, certainly, possibly, variables_of
from .words import ALL_RIGHTS, NO_RIGHTS, FileType, Rights, rights_words, with_implied, without_implied

ALLOWED = "allowed by rule"
DENIED_BY_RULE = "denied by rule"
DENIED_BY_DEFAULT = "denied by default"
MALFORMED = "denied as malformed"

_EVERYBODY: Clients = (Client(),)


class Miss(NamedTuple):
    """A condition of a rule that does not hold."""

    condition: str
    """The key in the file; for rights that an allow does not list, "lacks"."""
    how: str
    """What it wants, and what was there: "group teachers, has lab"."""


class Near(NamedTuple):
    """A rule that does not match, and what it misses, in the order of the keys in the documentation."""

    rule: Rule
    misses: tuple[Miss, ...]


class Explanation(NamedTuple):
    """A verdict and the reasons for it."""

    request: Request
    peer: Peer
    object: Object | None
    """As the verdict saw it, with the names that counted; None: nothing was found, the verdict is lexical."""
    verdict: Verdict
    decision: str
    """ALLOWED, DENIED_BY_RULE, DENIED_BY_DEFAULT or MALFORMED."""
    reason: str
    """The decision in words."""
    near: tuple[Near, ...]
    """Allows that name the path, or that miss nothing but one condition; the nearest first. None when the request
    got all that it asks for."""
    overruled: tuple[Rule, ...]
    """Allows that would give it but for the denies, by id."""
    denies: tuple[Rule, ...]
    """Denies that match and list a right that was asked for, by id."""
    nearest_deny: Near | None
    """When no deny matches: the one that misses least."""
    instead: Verdict | None
    """When it was denied: the grant of the largest part of the needed rights that would be allowed."""


def literals_to_try(
    policy: Policy, request: Request, peer: Peer, now: float | None = None
) -> tuple[str, ...]:
    """Paths that may be other names of the object: those that are, are explain()'s `same`."""
    found: dict[str, None] = {}
    for part in _parts(request):
        found.update(dict.fromkeys(policy.consider(part, peer, now).literals))
    return tuple(found)


def explain(
    policy: Policy,
    request: Request,
    peer: Peer,
    object: Object | None,
    now: float | None = None,
    same: Iterable[str] = (),
) -> Explanation:
    """Return the verdict for `object`, which the asked path led to, and why.

    `same` are other names of the object among literals_to_try(); each counts where the broker would have tried it.
    Without an object the verdict is lexical, and without a time none that ends grants, as in Policy.decide.
    """
    other_names = frozenset(same)
    seen = _as_seen(policy, request, peer, object, now, other_names)
    verdict = policy.decide(request, peer, seen, now)
    decision, reason = _in_words(request, verdict)
    if decision is MALFORMED:
        return Explanation(request, peer, seen, verdict, decision, reason, (), (), (), None, None)
    misses = _Misses(request if not verdict.allowed else _of_all_rights(request), peer, seen, now)
    # Those with addresses are for no path, whatever else of them would hold.
    rules = [rule for rule in policy.rules if not rule.terms.addresses]
    allows = [rule for rule in rules if rule.action == ALLOW]
    complete = verdict.allowed and verdict.rights == with_implied(int(request.needed | request.optional))
    near = [] if complete else list(filter(None, map(misses.near_allow, allows)))
    denies = [misses.near_deny(rule) for rule in rules if rule.action == DENY]
    matching = tuple(found.rule for found in denies if not found.misses)
    return Explanation(
        request,
        peer,
        seen,
        verdict,
        decision,
        reason,
        tuple(sorted((found for found in near if found.misses), key=_distance)),
        () if verdict.allowed else tuple(found.rule for found in near if not found.misses),
        matching,
        min(denies, key=_distance) if denies and not matching else None,
        None if verdict.allowed else _instead(policy, request, peer, object, now, other_names),
    )


def _as_seen(
    policy: Policy,
    request: Request,
    peer: Peer,
    object: Object | None,
    now: float | None,
    same: frozenset[str],
) -> Object | None:
    """`object` with those other names that the broker would have found for this request."""
    if object is None or not same:
        return object
    considered = policy.consider(request, peer, now)
    if considered.refusal is None:
        return considered.named(object, same)
    # A refusal before any name is tried stays one whatever names there are: adding names never grants.
    more = [name for name in sorted(same) if name not in object.names]
    return object._replace(names=(*object.names, *more))


def _in_words(request: Request, verdict: Verdict) -> tuple[str, str]:
    asked = "+".join(rights_words(with_implied(int(request.needed))))
    if verdict.allowed and verdict.rule is not None:
        withheld = int(request.optional) & ~int(verdict.rights)
        without = f", without {'+'.join(rights_words(withheld))}" if withheld else ""
        return ALLOWED, f"{verdict.rule.id} gives {'+'.join(rights_words(verdict.rights))}{without}"
    if verdict.rule is not None:
        refused = int(verdict.rule.rights) & with_implied(int(request.needed))
        return DENIED_BY_RULE, f"{verdict.rule.id} refuses {'+'.join(rights_words(refused))}"
    if shape_fault(request.path) or not request.needed:
        return MALFORMED, verdict.reason
    return DENIED_BY_DEFAULT, f"no one rule gives {asked}"


def _of_all_rights(request: Request) -> Request:
    return request._replace(needed=request.needed | request.optional, optional=NO_RIGHTS)


def _parts(request: Request) -> list[Request]:
    """Requests for parts of the needed rights, the largest first; of one size in the order of the words."""
    needed = with_implied(int(request.needed))
    bits = [right for right in Rights if needed & right]
    parts: dict[int, int] = {}
    for size in range(len(bits), 0, -1):
        for chosen in combinations(bits, size):
            rights = with_implied(sum(right.value for right in chosen))
            parts.setdefault(rights, without_implied(rights).bit_count())
    in_order = sorted(parts, key=lambda rights: -parts[rights])
    return [request._replace(needed=Rights(rights)) for rights in in_order]


def _instead(
    policy: Policy,
    request: Request,
    peer: Peer,
    object: Object | None,
    now: float | None,
    same: frozenset[str],
) -> Verdict | None:
    for part in _parts(request._replace(optional=NO_RIGHTS)):
        verdict = policy.decide(part, peer, _as_seen(policy, part, peer, object, now, same), now)
        if verdict.allowed:
            return verdict
    return None


def _distance(near: Near) -> tuple[int, bool, str]:
    """How far a rule is from matching: fewer misses are nearer, and the path weighs most."""
    return len(near.misses), any(miss.condition == "paths" for miss in near.misses), near.rule.id


class _Misses:
    """Finds what a rule misses, for one request."""

    def __init__(self, request: Request, peer: Peer, object: Object | None, now: float | None) -> None:
        self._request = request
        self._peer = peer
        self._object = object
        self._now = now
        self._variables = variables_of(peer)
        # A type that is unknown is a miss of `type`, and must not be one of all other keys.
        self._typed = object
        if object is not None and object.type is None:
            self._typed = object._replace(type=FileType.FILE)
        paths = dict.fromkeys((request.path, object.path) if object else (request.path,))
        self._here = tuple(PathPattern(path, tuple(split(path)), False) for path in paths)

    def near_allow(self, rule: Rule) -> Near | None:
        """The rule with what it misses, which may be nothing; None when it is nowhere near."""
        open_wide = self._open_allow(rule)
        misses = []
        if not self._allows(open_wide._replace(types=self._types_for_paths(rule), paths=rule.paths)):
            misses.append(Miss("paths", self._which_paths(rule)))
        is_far = bool(misses) and not self._names_asked_path(rule)
        for miss in self._other_misses_of_allow(rule, open_wide):
            misses.append(miss)
            if is_far and len(misses) > 1:
                return None
        return Near(rule, tuple(misses))

    def _other_misses_of_allow(self, rule: Rule, open_wide: Rule) -> Iterable[Miss]:
        if not self._allows(open_wide._replace(until=rule.until)):
            yield Miss("until", self._since_when(rule))
        if rule.except_paths and not self._allows(open_wide._replace(except_paths=rule.except_paths)):
            yield Miss("except_paths", self._which_exception(rule, allow=True))
        if not self._allows(open_wide._replace(types=rule.types), self._object):
            yield Miss("type", self._which_type(rule))
        yield from self._device_misses(
            rule, lambda devices: self._allows(open_wide._replace(**devices)), True
        )
        if not self._allows(open_wide._replace(clients=rule.clients)):
            yield Miss("clients", missed_clients(rule.clients, self._peer, narrows=False))
        if rule.except_clients and not self._allows(open_wide._replace(except_clients=rule.except_clients)):
            yield Miss("except_clients", hit_exceptions(rule.except_clients, self._peer, narrows=True))
        if not self._allows(open_wide._replace(rights=rule.rights)):
            lacking = with_implied(int(self._request.needed)) & ~int(rule.rights)
            yield Miss("lacks", " ".join(rights_words(lacking)))

    def near_deny(self, rule: Rule) -> Near:
        """The deny with what it misses; nothing when it matches and lists a right that was asked for."""
        open_wide = rule._replace(
            rights=ALL_RIGHTS,
            types=None,
            paths=(),
            except_paths=(),
            clients=(),
            except_clients=(),
            until=None,
            device=None,
            devices=None,
            except_devices=(),
        )
        misses = []
        paths = open_wide._replace(paths=rule.paths)
        if not self._denies(paths):
            misses.append(Miss("paths", self._which_paths(rule)))
        elif rule.except_paths and not self._denies(paths._replace(except_paths=rule.except_paths)):
            # One name must be among the paths and not among the exceptions.
            misses.append(Miss("except_paths", self._which_exception(rule, allow=False)))
        if not self._denies(open_wide._replace(until=rule.until)):
            misses.append(Miss("until", self._since_when(rule)))
        if not self._denies(open_wide._replace(types=rule.types)):
            misses.append(Miss("type", self._which_type(rule)))
        misses += self._device_misses(
            rule, lambda devices: self._denies(open_wide._replace(**devices)), False
        )
        if not self._denies(open_wide._replace(clients=rule.clients)):
            misses.append(Miss("clients", missed_clients(rule.clients, self._peer, narrows=True)))
        if rule.except_clients and not self._denies(open_wide._replace(except_clients=rule.except_clients)):
            misses.append(
                Miss("except_clients", hit_exceptions(rule.except_clients, self._peer, narrows=False))
            )
        if not self._denies(open_wide._replace(rights=rule.rights)):
            misses.append(Miss(DENY, f"{' '.join(rights_words(rule.rights))}, not what is asked for"))
        return Near(rule, tuple(misses))

    def _open_allow(self, rule: Rule) -> Rule:
        """`rule` as an allow of everything to everybody."""
        return rule._replace(
            rights=ALL_RIGHTS,
            types=self._type_found(),
            paths=self._here,
            except_paths=(),
            clients=_EVERYBODY,
            except_clients=(),
            until=None,
            device=None,
            devices=None,
            except_devices=(),
        )

    def _device_misses(
        self, rule: Rule, holds: Callable[[dict[str, Any]], bool], widens: bool
    ) -> Iterable[Miss]:
        found = self._object
        if rule.device is not None:
            for key, one in rule.device.single_conditions():
                if not holds({"device": one}):
                    yield Miss(key, missed_devices((one,), found))
        if rule.devices is not None and not holds({"devices": rule.devices}):
            yield Miss("devices", missed_devices(rule.devices, found))
        if rule.except_devices and not holds({"except_devices": rule.except_devices}):
            yield Miss("except_devices", hit_devices(rule.except_devices, found, possibly=widens))

    def _type_found(self) -> frozenset[FileType]:
        kind = self._typed.type if self._typed is not None else None
        return frozenset(() if kind is None else (kind,))

    def _types_for_paths(self, rule: Rule) -> frozenset[FileType]:
        """The rule's types where they fit: a link to a device counts only for a rule of that one type."""
        found = self._type_found()
        return rule.types if rule.types is not None and found <= rule.types else found

    def _allows(self, rule: Rule, object: Object | None = None) -> bool:
        return _alone(rule).decide(self._request, self._peer, object or self._typed, self._now).allowed

    def _denies(self, rule: Rule) -> bool:
        every_right = _of_all_rights(self._request)
        return _alone(rule).decide(every_right, self._peer, self._object, self._now).rule is not None

    def _names_asked_path(self, rule: Rule) -> bool:
        # One that cannot be expanded is near when it may mean the path: whoever wrote it may have meant that.
        return self._names(rule.paths, self._request.path, certain=False)

    def _since_when(self, rule: Rule) -> str:
        moment = moment_text(rule.until or 0)
        return f"{moment}, the time is not known" if self._now is None else f"over since {moment}"

    def _which_paths(self, rule: Rule) -> str:
        wanted = listed([self._as_read(pattern) for pattern in rule.paths])
        if rule.action == DENY or self._object is None or not self._names_asked_path(rule):
            return f"{wanted}, asked for {self._request.path}"
        if not self._names(rule.paths, self._request.path, certain=True):
            return wanted  # it could not be expanded, and says so
        if self._names(rule.paths, self._object.path, certain=True):
            return f"{wanted}, each process has a {self._object.path} of its own: it counts named literally alone"
        return f"{wanted}, leads to {self._object.path}"

    def _which_exception(self, rule: Rule, allow: bool) -> str:
        names = dict.fromkeys((self._request.path, *self._object_names()))
        hits = [
            self._as_read(pattern)
            for name in names
            for pattern in rule.except_paths
            if self._names([pattern], name, certain=not allow)
        ]
        excepted = [name for name in names if self._names(rule.except_paths, name, certain=not allow)]
        return f"{listed(list(dict.fromkeys(hits)))}, is {listed(excepted[:1])}"

    def _object_names(self) -> tuple[str, ...]:
        return () if self._object is None else (self._object.path, *self._object.names)

    def _names(self, patterns: Iterable[PathPattern], name: str, certain: bool) -> bool:
        """Whether one of `patterns` is known to match `name`; unless `certain`, whether one may."""
        meant = [self._meant(pattern, certain) for pattern in patterns]
        return any(pattern is not None and pattern.matches(split(name)) for pattern in meant)

    def _meant(self, pattern: PathPattern, certain: bool) -> PathPattern | AnyHome | None:
        if not pattern.variables:
            return pattern
        return certainly(pattern, self._variables) if certain else possibly(pattern, self._variables)

    def _as_read(self, pattern: PathPattern) -> str:
        """The pattern as the file has it, and what it means for the peer."""
        if not pattern.variables:
            return pattern.text
        expanded = certainly(pattern, self._variables)
        if expanded is not None:
            return f"{pattern.text} (here {expanded.text})"
        values = self._variables._asdict()
        unknown = [f"${{{name}}}" for name in sorted(pattern.variables) if values[name] is None]
        why = f": {' and '.join(unknown)} not known" if unknown else ""
        return f"{pattern.text} (cannot be expanded{why})"

    def _which_type(self, rule: Rule) -> str:
        wanted = listed(sorted(kind.value for kind in rule.types or ()))
        if self._object is None:
            return f"{wanted}, not known"
        return f"{wanted}, is {self._object.type.value if self._object.type else 'not known'}"


def _alone(rule: Rule) -> Policy:
    return Policy((rule,), {}, "")
