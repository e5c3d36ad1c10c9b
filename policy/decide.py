"""From a request, a peer and an object to a verdict.

The laws that are enforced here:
- A request whose path has the wrong shape, or that needs no right, is refused before anything else.
- One matching allow must list every needed right; rights of several rules never add up. Of several such the one
  with most of the optional rights is taken, then one that is not exclusive, then that of the longest lease.
- A rule that has addresses is for no path.
- A deny that may match and lists a needed right refuses; one that lists an optional right takes it away.
- An allow must match the asked path and the resolved one. The one exception is a last component that is a
  link to a device below /dev of the one type that the rule names, asked for by a pattern without `**`.
- An allow is off as soon as one name of the object is among its exceptions. A deny matches as soon as one
  name of the object is among its paths and not among its exceptions.
- /dev/tty, /dev/fd and /dev/std* mean something else for the broker than for the peer: an allow must name
  them literally.
- A rule that is over is as if it were not there.
- What is unknown never widens, the time included.

Verdicts depend on nothing but the arguments. Out of scope: walking paths, and whether the object that is
opened is the one that was described.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping

from .clients import Client, Peer
from .devices import DEVICE_TYPES, DeviceSelector, any_holds
from .entries import Entry
from .lookup import RuleLookup
from .paths import shape_fault, split
from .patterns import PathPattern
from .problems import shown
from .rules import ALLOW, DENY, Consideration, Object, Request, Rule, SocketDeclaration, Verdict
from .variables import certainly, possibly, variables_of
from .words import NO_RIGHTS, Rights, rights_words, with_implied, with_implying, without_implied

_OWN_TO_EACH_PROCESS = frozenset(("/dev/tty", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"))
_OWN_DIRECTORY = "/dev/fd/"
_DEVICES = "/dev/"


class Policy:
    """A set of rules that loaded. It never changes; the order of its sources left no trace in it."""

    def __init__(
        self,
        rules: Iterable[Rule],
        sockets: Mapping[str, SocketDeclaration],
        digest: str,
        device_groups: Mapping[str, tuple[DeviceSelector, ...]] | None = None,
    ) -> None:
        self.rules: tuple[Rule, ...] = tuple(sorted(rules, key=lambda rule: rule.id))
        """Every rule, by id."""
        self.sockets: Mapping[str, SocketDeclaration] = dict(sockets)
        """The declared sockets by name."""
        self.device_groups = dict(device_groups or {})
        """The declared groups of devices by name: of each, selectors any of which will do."""
        self.digest = digest
        """A short hexadecimal name of the sources."""
        mentioned = [client for rule in self.rules for client in rule.clients + rule.except_clients]
        self.user_names = frozenset(name for client in mentioned for name in client.users or ())
        """Every user name that a rule mentions."""
        self.group_names = frozenset(name for client in mentioned for name in client.groups or ())
        """Every group name that a rule mentions."""
        self.variables = frozenset(
            name
            for rule in self.rules
            for pattern in rule.paths + rule.except_paths
            for name in pattern.variables
        )
        """The names of the variables that a rule's paths hold."""
        self.needs_units = any(client.units is not None for client in mentioned)
        """Whether a rule says `unit`, so that Peer.unit is looked at; the same for the next two."""
        self.needs_exes = any(client.exes is not None for client in mentioned)
        self.needs_labels = any(client.labels is not None for client in mentioned)
        self.needs_accounts = any(client.any_account for client in mentioned)
        """Whether a rule says `any`, so that Peer.has_account is looked at."""
        self.needs_owners = any(
            client.users is not None or client.uids is not None
            for rule in self.rules
            for client in _narrowing(rule)
        )
        """Whether a rule narrows by user, so that it is looked at whose subordinate a uid is."""
        self.needs_account_groups = any(
            _has_groups(client) for rule in self.rules for client in _narrowing(rule)
        )
        """Whether a rule narrows by group, so that the account database's groups are looked at."""
        selectors = [selector for rule in self.rules for selector in rule.selectors]
        self.needs_devices = any(selector.needs_facts for selector in selectors)
        """Whether a rule asks more of a device than its kind and number, so that Object.device is looked at."""
        self.attributes = frozenset(name for selector in selectors for name, _ in selector.attributes)
        """The names of the sysfs attributes that a rule mentions."""
        self.ends: tuple[int, ...] = tuple(
            sorted({rule.until for rule in self.rules if rule.until is not None})
        )
        """Every moment at which a rule ends, in seconds since 1970."""
        self._lookup = RuleLookup(self.rules)

    def same_around(self, now: float) -> tuple[float, float]:
        """Return the span around `now` in which the time changes no verdict: its first moment, and the next span's."""
        place = bisect_right(self.ends, now)
        return (
            self.ends[place - 1] if place else float("-inf"),
            self.ends[place] if place < len(self.ends) else float("inf"),
        )

    def consider(self, request: Request, peer: Peer, now: float | None = None) -> Consideration:
        """Judge by the asked path alone, so that nothing is touched for a request that cannot be allowed.

        `now` is in seconds since 1970, here and below; None is an unknown time, which never grants.
        """
        needed, optional = _wanted(request)
        refusal = _malformed(request.path, needed)
        if refusal is not None:
            return Consideration(refusal)
        denies = self._matching_denies(request.path, peer, None, needed, now)
        if denies:
            return Consideration(_denied_by(denies[0]))
        candidates = self._candidates(request.path, peer, needed, now)
        if not candidates:
            return Consideration(self._default(request.path, peer, needed, now))
        roots = [entry.pattern.literal_root for entry in candidates if entry.pattern is not None]
        literals = self._lookup.deny_literals(peer, needed | optional, now)
        excepts = [pattern for entry in candidates for pattern in entry.rule.except_paths]
        return Consideration(
            None,
            max(roots, key=len),
            literals,
            _literal_exceptions(candidates, peer),
            not all(pattern.literal for pattern in excepts)
            or self._lookup.denies_by_pattern(peer, needed | optional, now),
        )

    def decide(
        self, request: Request, peer: Peer, object: Object | None, now: float | None = None
    ) -> Verdict:
        """Return the verdict for `object`, which the asked path led to.

        Without an object the verdict is lexical, for a client that wants to know what it may ask for: a deny
        counts only when it matches whatever the object turns out to be. Open nothing on such a verdict.
        """
        needed, optional = _wanted(request)
        refusal = _malformed(request.path, needed)
        if refusal is not None:
            return refusal
        denied = 0
        for rule in self._matching_denies(request.path, peer, object, needed | optional, now):
            denied |= int(rule.rights)
            if denied & needed:
                return _denied_by(rule)
        allows = self._candidates(request.path, peer, needed, now, object)
        if object is not None:
            allows = self._matching_object(allows, object, peer)
        if not allows and object is not None and self._candidates(request.path, peer, needed, now):
            return _lacking(needed, f"none matches what the path leads to, {_seen(object)}")
        if not allows:
            return self._default(request.path, peer, needed, now)
        return _granted(allows, needed, optional & ~with_implying(denied))

    def denies_of(
        self, request: Request, peer: Peer, object: Object | None, now: float | None = None
    ) -> list[Rule]:
        """Return the denies that match and list a right that is asked for, by id: each alone takes that away."""
        needed, optional = _wanted(request)
        if _malformed(request.path, needed) is not None:
            return []
        return self._matching_denies(request.path, peer, object, needed | optional, now)

    def describe(self, peer: Peer, now: float | None = None) -> list[Rule]:
        """Return the allows that are for `peer`, by id; whether one of them gives depends on the object."""
        allows = [_as_read_by(peer, rule) for rule in self._lookup.allows_for(peer) if not rule.is_over(now)]
        return [rule for rule in allows if rule.paths]

    def needs_device_facts(self, request: Request, peer: Peer, object: Object) -> bool:
        """Tell whether decide() may come to another verdict when `object` has its Device, beyond its number."""
        return self._lookup.asks_for_facts(object, request.path, peer)

    def _candidates(
        self, path: str, peer: Peer, needed: int, now: float | None, object: Object | None = None
    ) -> list[Entry]:
        """Return the allows for `peer` that give the needed rights for the asked path.

        With an object those that name devices are for it; without one they are for some.
        """
        return [
            entry
            for entry in self._allows_naming(path, peer, object)
            if not needed & ~entry.rights
            and not entry.rule.is_over(now)
            and not _is_excepted(entry.rule, (path,), peer)
        ]

    def _allows_naming(self, path: str, peer: Peer, object: Object | None) -> list[Entry]:
        entries = self._lookup.allows_at(path, peer, object)
        return [entry for entry in entries if entry.is_literal] if is_own_to_each_process(path) else entries

    def _matching_denies(
        self, path: str, peer: Peer, object: Object | None, rights: int, now: float | None
    ) -> list[Rule]:
        """Return the denies that list one of `rights` and match, by id; without an object those that must."""
        found: dict[str, Rule] = {}
        names = (path,) if object is None else dict.fromkeys((path, object.path, *object.names))
        for name in names:
            for rule, listed, _, _ in self._lookup.denies_at(name, peer, object):
                if (
                    listed & rights
                    and not rule.is_over(now)
                    and _denies_type(rule, object)
                    and device_holds(rule, object) is not False
                    and not _is_excepted(rule, (name,), peer)
                ):
                    found[rule.id] = rule
        for rule, listed, _, _ in self._lookup.device_denies(object, peer) if object is not None else ():
            if (
                listed & rights
                and not rule.is_over(now)
                and _denies_type(rule, object)
                and device_holds(rule, object) is not False
                and not all(_is_excepted(rule, (name,), peer) for name in names)
            ):
                found[rule.id] = rule
        return [found[id] for id in sorted(found)]

    def _matching_object(self, candidates: list[Entry], object: Object, peer: Peer) -> list[Entry]:
        """Return those of `candidates` that match what the asked path led to as well."""
        by_resolved_path = {entry.rule.id for entry in self._allows_naming(object.path, peer, object)}
        return [
            entry
            for entry in candidates
            if object.type in (entry.rule.types or ())
            and device_holds(entry.rule, object) is True
            and (entry.rule.id in by_resolved_path or _is_link_to_device(entry, object))
            and not _is_excepted(entry.rule, (object.path, *object.names), peer, object.excepted_as)
        ]

    def _default(self, path: str, peer: Peer, needed: int, now: float | None) -> Verdict:
        """Return the refusal for want of an allow, and say how far the nearest ones came."""
        named = self._allows_naming(path, peer, None)
        if not named and not is_own_to_each_process(path) and self._lookup.is_named(path, peer):
            return _lacking(needed, "none that names this path is for this client")
        if not named:
            return _lacking(needed, "none names this path")
        if all(entry.rule.is_over(now) for entry in named):
            return _lacking(needed, "those that name this path are over")
        return _lacking(needed)


def _wanted(request: Request) -> tuple[int, int]:
    """Return the needed rights and the optional ones that are not needed anyway, closed under implication."""
    needed = with_implied(int(request.needed))
    return needed, with_implied(int(request.optional)) & ~needed


def _malformed(path: str, needed: int) -> Verdict | None:
    fault = shape_fault(path)
    if fault:
        return _refused(f"path: {fault}")
    return None if needed else _refused("the request needs no right")


def _narrowing(rule: Rule) -> tuple[Client, ...]:
    return rule.clients if rule.action == DENY else rule.except_clients


def _has_groups(client: Client) -> bool:
    return client.groups is not None or client.gids is not None


def is_own_to_each_process(path: str) -> bool:
    return path in _OWN_TO_EACH_PROCESS or path.startswith(_OWN_DIRECTORY)


def _is_excepted(rule: Rule, names: Iterable[str], peer: Peer, excepted_as: Collection[str] = ()) -> bool:
    """Tell whether one of `names` is among the exceptions of `rule`: an allow's may be, a deny's must be.

    `excepted_as` are names that count where an exception names them literally.
    """
    if not rule.except_paths:
        return False
    paths = [split(name) for name in names]
    for pattern in rule.except_paths:
        if pattern.variables:
            expand = possibly if rule.action == ALLOW else certainly
            meant = expand(pattern, variables_of(peer))
        else:
            meant = pattern
        if meant is None:
            continue
        if any(meant.matches(path) for path in paths):
            return True
        if excepted_as and isinstance(meant, PathPattern) and meant.literal and meant.text in excepted_as:
            return True
    return False


def _as_read_by(peer: Peer, rule: Rule) -> Rule:
    """Return `rule`, an allow, with the variables in its paths expanded; what cannot be is left out."""
    variables = variables_of(peer)
    paths = [certainly(one, variables) if one.variables else one for one in rule.paths]
    exceptions = [certainly(one, variables) or one if one.variables else one for one in rule.except_paths]
    return rule._replace(paths=tuple(one for one in paths if one is not None), except_paths=tuple(exceptions))


def _denies_type(rule: Rule, object: Object | None) -> bool:
    """Tell whether a deny's type may hold; without an object, whether it holds for every type."""
    if rule.types is None:
        return True
    return object is not None and (object.type is None or object.type in rule.types)


def device_holds(rule: Rule, object: Object | None) -> bool | None:
    """Tell whether the rule's devices and their exceptions hold; without an object, whether they do for every one."""
    if rule.device is None and rule.devices is None and not rule.except_devices:
        return True
    if object is None:
        # Of a request without an object nobody knows yet, and a lexical denial must hold for every one.
        return False
    kind, device = object.type, object.device
    truths = (
        True if rule.device is None else rule.device.holds(kind, device),
        True if rule.devices is None else any_holds(rule.devices, kind, device),
        _not(any_holds(rule.except_devices, kind, device)),
    )
    return False if False in truths else None if None in truths else True


def _not(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


def _is_link_to_device(entry: Entry, object: Object) -> bool:
    """Tell whether the one exception from "the resolved path must match too" holds: udev's by-id links."""
    return (
        object.last_link
        and object.type in DEVICE_TYPES
        and entry.rule.types == frozenset((object.type,))
        and entry.pattern is not None
        and not entry.pattern.recursive
        and object.path.startswith(_DEVICES)
        and not is_own_to_each_process(object.path)
    )


def _literal_exceptions(candidates: list[Entry], peer: Peer) -> tuple[str, ...]:
    """The literal exceptions of the candidates: an object stays excepted under another name."""
    patterns = [
        certainly(pattern, variables_of(peer)) if pattern.variables else pattern
        for entry in candidates
        for pattern in entry.rule.except_paths
    ]
    return tuple(
        dict.fromkeys(pattern.text for pattern in patterns if pattern is not None and pattern.literal)
    )


def _granted(allows: list[Entry], needed: int, optional: int) -> Verdict:
    """Choose among the allows that would do, as law 8 of the language has it."""

    def preference(entry: Entry) -> tuple[int, bool, float, str]:
        terms = entry.rule.terms
        lease = float("inf") if terms.lease is None else terms.lease
        return (
            -without_implied(entry.rights & optional).bit_count(),
            terms.exclusive,
            -lease,
            entry.rule.id,
        )

    chosen = min(allows, key=preference) if len(allows) > 1 else allows[0]
    rule = chosen.rule
    return Verdict(True, Rights(needed | chosen.rights & optional), rule, f"allowed by {rule.id}")


def _refused(reason: str) -> Verdict:
    return Verdict(False, NO_RIGHTS, None, reason)


def _denied_by(rule: Rule) -> Verdict:
    return Verdict(False, NO_RIGHTS, rule, f"denied by {rule.id}")


def _lacking(needed: int, nearest: str = "") -> Verdict:
    rights = "+".join(rights_words(needed))
    return _refused(f"no rule gives {rights}: {nearest}" if nearest else f"no rule gives {rights}")


def _seen(object: Object) -> str:
    return f"{shown(object.path)}, {object.type.value if object.type else 'of unknown type'}"
