"""What a policy would have said of a request of which only some facts were written down.

`judged` answers ALLOWED or DENIED when every way to fill in the missing facts leads to that, as far as it can tell rule
by rule, and NOT_KNOWN otherwise: never a guess. Each condition of a rule is true, false, or open for want of a fact.

Missing is what is None: in the peer and in the object as everywhere, and in Facts what only a record lacks.
"""

from collections.abc import Iterable
from typing import NamedTuple

from .clients import Client, Clients, Peer
from .decide import device_holds, is_own_to_each_process
from .devices import DEVICE_TYPES
from .paths import shape_fault, split
from .patterns import PathPattern
from .rules import ALLOW, DENY, Object, Request, Rule
from .variables import certainly, possibly, variables_of
from .words import Rights, with_implied, with_implying

ALLOWED = "allowed"
DENIED = "denied"
NOT_KNOWN = "not known"

_NO_FACT = "\0"  # what no unit, program or label is


class Facts(NamedTuple):
    """A request, and what is known of it."""

    request: Request
    peer: Peer
    object: Object | None
    """None: nobody looked. Of one that was found, `names` and `last_link` count as far as the next two say."""
    names_known: bool = True
    link_known: bool = True
    lexical: bool = False
    """Whether it was asked by name alone, so that no object belongs to it."""
    now: float | None = None


class Judgement(NamedTuple):
    """What would have been answered."""

    answer: str
    """ALLOWED, DENIED or NOT_KNOWN."""
    rule: Rule | None
    """The allow that gives it, or a deny that refuses it, where that is known."""
    rights: Rights | None
    """What the descriptor would carry; None where that is not known."""
    open_rules: tuple[Rule, ...] = ()
    """Of what is not known: the rules on which it depends."""


def judged(rules: Iterable[Rule], facts: Facts) -> Judgement:
    """Return what a policy of these rules would have answered, as far as the facts tell."""
    needed = with_implied(int(facts.request.needed))
    optional = with_implied(int(facts.request.optional)) & ~needed
    if shape_fault(facts.request.path) or not needed:
        return Judgement(DENIED, None, Rights(0))
    denies: list[tuple[Rule, bool | None]] = []
    allows: list[tuple[Rule, bool | None]] = []
    for rule in rules:
        if rule.action == DENY and int(rule.rights) & (needed | optional):
            denies.append((rule, _deny_holds(rule, facts)))
        elif rule.action == ALLOW and not needed & ~int(rule.rights):
            allows.append((rule, _allow_holds(rule, facts)))
    for rule, holds in denies:
        if holds is True and int(rule.rights) & needed:
            return Judgement(DENIED, rule, Rights(0))
    giving = [rule for rule, holds in allows if holds is True]
    maybe_giving = [rule for rule, holds in allows if holds is None]
    if not giving and not maybe_giving:
        return Judgement(DENIED, None, Rights(0))
    maybe_refusing = [rule for rule, holds in denies if holds is None and int(rule.rights) & needed]
    if not giving or maybe_refusing:
        open_rules = maybe_refusing if giving else [*maybe_refusing, *maybe_giving]
        return Judgement(NOT_KNOWN, None, None, tuple(open_rules))
    return _granted(giving, bool(maybe_giving), needed, optional, denies)


def _granted(
    giving: list[Rule],
    maybe_more: bool,
    needed: int,
    optional: int,
    denies: list[tuple[Rule, bool | None]],
) -> Judgement:
    """The answer where something is given for certain; what else is, is told where that is certain too."""
    if maybe_more or (optional and any(holds is None for _, holds in denies)):
        return Judgement(ALLOWED, None, None)
    taken = 0
    for rule, holds in denies:
        if holds is True:
            taken |= int(rule.rights)
    wanted = optional & ~with_implying(taken)
    if len(giving) > 1:
        # Which one is taken depends on their terms too; the rights do not, when all give the same.
        parts = {int(rule.rights) & wanted for rule in giving}
        most = max(parts, key=lambda rights: rights.bit_count())
        if any(part & ~most for part in parts):
            return Judgement(ALLOWED, None, None)
        return Judgement(ALLOWED, None, Rights(needed | most))
    return Judgement(ALLOWED, giving[0], Rights(needed | int(giving[0].rights) & wanted))


def _allow_holds(rule: Rule, facts: Facts) -> bool | None:
    return _all(
        _lasts(rule, facts),
        _widening(rule.clients, facts.peer),
        _not(_narrowing(rule.except_clients, facts.peer)),
        _allow_names(rule, facts),
        _not(_any_name(rule.except_paths, facts)),
        True if facts.lexical else _type_holds(rule, facts),
        True if facts.lexical else _device_holds(rule, facts),
    )


def _deny_holds(rule: Rule, facts: Facts) -> bool | None:
    if facts.lexical and (
        rule.types is not None or rule.device is not None or rule.devices is not None or rule.except_devices
    ):
        return False  # a denial by name alone must hold for whatever is there
    return _all(
        _lasts(rule, facts),
        _narrowing(rule.clients, facts.peer) if rule.clients else True,
        _not(_widening(rule.except_clients, facts.peer)),
        _deny_names(rule, facts),
        True if rule.types is None else _type_holds(rule, facts),
        _device_holds(rule, facts),
    )


def _lasts(rule: Rule, facts: Facts) -> bool | None:
    if rule.until is None:
        return True
    return None if facts.now is None else not rule.is_over(facts.now)


# Clients


def _widening(clients: Clients, peer: Peer) -> bool | None:
    """Whether one of the clients is for the peer, where only what is known counts to the broker."""
    if any(client.certainly_matches(peer) for client in clients):
        return True
    # What counts where a match narrows alone is left out: nothing but missing facts may make it possible.
    own = peer._replace(
        owner_names=frozenset(),
        owner_uids=frozenset(),
        account_gids=peer.gids,
        account_group_names=peer.group_names,
    )
    return None if any(client.possibly_matches(own) for client in clients) else False


def _narrowing(clients: Clients, peer: Peer) -> bool | None:
    """Whether one of the clients is for the peer, where what may be counts to the broker."""
    known = Peer(
        -1 if peer.uid is None else peer.uid,
        peer.user_names or frozenset(),
        peer.gids or frozenset(),
        peer.group_names or frozenset(),
        peer.account_gids or frozenset(),
        peer.account_group_names or frozenset(),
        bool(peer.has_account),
        peer.socket,
        peer.embedded,
        unit=_NO_FACT if peer.unit is None else peer.unit,
        exe=_NO_FACT if peer.exe is None else peer.exe,
        label=_NO_FACT if peer.label is None else peer.label,
        owner_names=peer.owner_names or frozenset(),
        owner_uids=peer.owner_uids or frozenset(),
    )
    return _truth(clients, known, peer)


def _truth(clients: Iterable[Client], known: Peer, peer: Peer) -> bool | None:
    found: bool | None = False
    for client in clients:
        if client.possibly_matches(known):
            return True
        if client.possibly_matches(peer):
            found = None
    return found


# Paths


def _allow_names(rule: Rule, facts: Facts) -> bool | None:
    """Whether the allow names what was asked for and what that leads to."""
    asked = _names(rule.paths, facts.request.path, facts.peer)
    if facts.lexical or asked is False:
        return asked
    if facts.object is None:
        return None
    found = facts.object
    leads = _names(rule.paths, found.path, facts.peer)
    if leads is True or not _may_be_link(rule, found):
        return _all(asked, leads)
    direct = _names([one for one in rule.paths if not one.recursive], facts.request.path, facts.peer)
    link: bool | None = found.last_link if facts.link_known else None
    if found.type is None:
        link = None if link is not False else False
    return _all(asked, _any(leads, _all(direct, link)))


def _names(patterns: Iterable[PathPattern], path: str, peer: Peer) -> bool | None:
    """Whether one of an allow's patterns names `path`."""
    own = is_own_to_each_process(path)
    truths = (_pattern_holds(one, path, peer) for one in patterns if one.literal or not own)
    return _any(*truths)


def _may_be_link(rule: Rule, found: Object) -> bool:
    """Whether the allow may give a link to a device by its name alone."""
    types = rule.types or frozenset()
    return (
        len(types) == 1
        and types <= DEVICE_TYPES
        and (found.type is None or found.type in types)
        and found.path.startswith("/dev/")
        and not is_own_to_each_process(found.path)
    )


def _deny_names(rule: Rule, facts: Facts) -> bool | None:
    """Whether one name of the object is among the deny's paths and not among its exceptions."""
    if rule.terms.addresses:
        return False  # it is for what is listened at, and for no path
    truths = [
        _all(
            True if not rule.paths else _any(*(_pattern_may(one, name, facts.peer) for one in rule.paths)),
            _not(_any(*(_pattern_holds(one, name, facts.peer) for one in rule.except_paths))),
        )
        for name in _known_names(facts)
    ]
    return _any(*truths, *([] if _all_names_known(facts) else [None]))


def _any_name(exceptions: Iterable[PathPattern], facts: Facts) -> bool | None:
    """Whether one name of the object is among an allow's exceptions."""
    patterns = list(exceptions)
    if not patterns:
        return False
    truths = [_pattern_may(one, name, facts.peer) for name in _known_names(facts) for one in patterns]
    return _any(*truths, *([] if _all_names_known(facts) else [None]))


def _known_names(facts: Facts) -> list[str]:
    found = facts.object
    if facts.lexical or found is None:
        return [facts.request.path]
    return list(dict.fromkeys((facts.request.path, found.path, *found.names)))


def _all_names_known(facts: Facts) -> bool:
    return facts.lexical or (facts.object is not None and facts.names_known)


def _pattern_holds(pattern: PathPattern, path: str, peer: Peer) -> bool | None:
    """Whether the pattern matches where that widens; None where it depends on what its variables stand for."""
    return _matches(pattern, path, peer, widens=True)


def _pattern_may(pattern: PathPattern, path: str, peer: Peer) -> bool | None:
    """The same where a match narrows, so that a pattern that cannot be expanded is for all that it could mean."""
    return _matches(pattern, path, peer, widens=False)


def _matches(pattern: PathPattern, path: str, peer: Peer, widens: bool) -> bool | None:
    if not pattern.variables:
        return pattern.matches(split(path))
    variables = variables_of(peer)
    meant = certainly(pattern, variables)
    if meant is not None:
        return meant.matches(split(path))
    if not possibly(pattern, variables).matches(split(path)):
        return False
    held = {"user": peer.account_name, "uid": peer.uid, "home": peer.home}
    if any(held[name] is None for name in pattern.variables):
        return None
    return not widens  # what they stand for is known, and no path can have it


# Objects


def _type_holds(rule: Rule, facts: Facts) -> bool | None:
    found = None if facts.object is None else facts.object.type
    return None if found is None else found in (rule.types or ())


def _device_holds(rule: Rule, facts: Facts) -> bool | None:
    return device_holds(rule, facts.object if facts.object is not None else Object("", None))


def _not(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


def _all(*truths: bool | None) -> bool | None:
    return False if False in truths else None if None in truths else True


def _any(*truths: bool | None) -> bool | None:
    return True if True in truths else None if None in truths else False
