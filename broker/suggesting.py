"""From refusals that an audit holds to rules for review: which can be written, and why the others are left out.

Only what was refused for want of a rule is suggested; what a deny refused was meant to be. What an object is, where the
record does not say, is looked at on this machine with O_PATH, as it is now.
"""

import os
import pwd
from collections.abc import Callable, Iterable
from typing import NamedTuple

from broker.found import DEVICES, device_systems, never_given, object_of
from broker.recorded import DENY, Decision, Recall
from broker.records import printable
from broker.walk import MayBlock, Walker, WalkFailed, WalkRefused
from policy import DEFAULT_SOCKET, FileType, Object, Policy, Rights
from policy import DENY as POLICY_DENY
from policy.decide import is_own_to_each_process
from policy.paths import shape_fault
from policy.replaying import ALLOWED, DENIED, Facts, judged
from policy.suggesting import Asked, Unwritable, rule_text

# Different refusals that are kept.
GROUPS = 10_000

# Programs that are named of those that asked.
_PROGRAMS = 3


class Refusal(NamedTuple):
    """Like refusals."""

    sample: Decision
    times: int
    first: float | None
    last: float | None
    optional: Rights
    """What would have been nice, of any of them."""
    programs: tuple[str, ...]


class Suggestion(NamedTuple):
    """A rule for a refusal."""

    refusal: Refusal
    name: str
    text: str
    type: FileType
    notes: tuple[str, ...]


class LeftOut(NamedTuple):
    """A refusal that no rule is suggested for."""

    refusal: Refusal
    why: str


class Suggestions(NamedTuple):
    """What came of an audit."""

    made: tuple[Suggestion, ...]
    left_out: tuple[LeftOut, ...]
    dropped: int
    """Refusals beyond GROUPS different ones."""


class _LeftOut(Exception):
    """No rule for this one; the message says why."""


def suggest(
    decisions: Iterable[Decision],
    policy: Policy | None,
    recall: Recall | None,
    look: Callable[[str], Object] | None,
) -> Suggestions:
    """Return rules for what was refused.

    `policy` is the one that they are to join, with the `recall` for it; `look` finds what a path leads to, and raises
    Unseen. Without one, what the records do not hold is left out.
    """
    refusals, dropped = _grouped(decisions)
    made: list[Suggestion] = []
    left_out: list[LeftOut] = []
    for refusal in refusals:
        try:
            made.append(_suggested(refusal, f"suggested-{len(made) + 1}", policy, recall, look))
        except (_LeftOut, Unwritable, Unseen) as why:
            left_out.append(LeftOut(refusal, str(why)))
    return Suggestions(tuple(made), tuple(left_out), dropped)


def _grouped(decisions: Iterable[Decision]) -> tuple[list[Refusal], int]:
    groups: dict[object, Refusal] = {}
    dropped = 0
    for one in decisions:
        if one.verdict != DENY:
            continue
        why = one.rule, one.by_broker, one.by_default or one.lexical, "" if one.by_default else one.reason
        key = (one.uid, one.unit, one.socket, one.path, one.needed, one.type, one.resolved, why)
        group = groups.get(key)
        if group is None and len(groups) >= GROUPS:
            dropped += 1
        else:
            groups[key] = _with(group or Refusal(one, 0, None, None, Rights(0), ()), one)
    return sorted(groups.values(), key=lambda one: (-one.times, one.sample.line)), dropped


def _with(group: Refusal, one: Decision) -> Refusal:
    times = [time for time in (group.first, group.last, one.time) if time is not None]
    programs = dict.fromkeys((*group.programs, *([one.exe] if one.exe else [])))
    return Refusal(
        group.sample,
        group.times + 1,
        min(times, default=None),
        max(times, default=None),
        group.optional | one.optional & ~one.needed,
        tuple(programs)[:_PROGRAMS],
    )


def _suggested(
    refusal: Refusal,
    name: str,
    policy: Policy | None,
    recall: Recall | None,
    look: Callable[[str], Object] | None,
) -> Suggestion:
    one = refusal.sample
    _refuse_what_was_meant(one)
    if one.uid is None or not 0 <= one.uid < 2**32 - 1:
        raise _LeftOut("the uid is not known")
    if one.socket != DEFAULT_SOCKET:
        raise _LeftOut(
            f"it came by the socket {one.socket!r}: a rule for it belongs into the set that declares that socket"
        )
    notes: list[str] = []
    found = _object(one, look, notes)
    if found.type is None:
        raise _LeftOut("the record does not say what it is")
    if found.path != one.path and not (found.last_link and found.type in DEVICES):
        raise _LeftOut(f"a link leads to {found.path}: a rule would have to name both, and so give more")
    text = _text(name, Asked(_account(one.uid), one.uid, one.unit, one.path, one.needed, found.type))
    if found.type in DEVICES:
        notes.append(
            "a node's name may be another device's tomorrow: `fdbroker device NODE` writes what stays"
        )
    if refusal.optional:
        notes.append("rights that it would have liked are not in the rule")
    if policy is not None and recall is not None:
        notes += _within(policy, recall.facts(one), found)
    return Suggestion(refusal, name, text, found.type, tuple(notes))


def _text(name: str, asked: Asked) -> str:
    try:
        return rule_text(name, asked)
    except Unwritable:
        # It may be for the account's name: the number says the same.
        return rule_text(name, asked._replace(user=None))


def _refuse_what_was_meant(one: Decision) -> None:
    if one.rule is not None:
        raise _LeftOut(f"the deny {one.rule} refused it")
    if one.by_broker:
        raise _LeftOut(f"the broker gives it to nobody: {one.reason}")
    fault = shape_fault(one.path)
    if fault:
        raise _LeftOut(f"no request for such a path is ever allowed: {fault}")
    if is_own_to_each_process(one.path):
        raise _LeftOut("each process has its own: the broker's is another one")
    if not one.by_default:
        raise _LeftOut(f"it was not refused for want of a rule: {one.reason}")


def _object(one: Decision, look: Callable[[str], Object] | None, notes: list[str]) -> Object:
    if one.resolved is not None and one.type is not None:
        return Object(one.resolved, one.type, one.names, bool(one.link))
    if look is None:
        raise _LeftOut("the record does not say what it is; without --offline it would be looked at here")
    notes.append("its type is what lies there now: the request went no further than its name")
    return look(one.path)


def _within(policy: Policy, facts: Facts, found: Object) -> list[str]:
    """What is to be said of the request under the policy that the rule is to join; raises _LeftOut."""
    known = facts._replace(
        object=found._replace(device=facts.object.device if facts.object else None), lexical=False
    )
    now = judged(policy.rules, known)
    if now.answer == ALLOWED:
        by = f": {now.rule.id}" if now.rule is not None else ""
        raise _LeftOut(f"the policy gives it by now{by}")
    if now.answer == DENIED and now.rule is not None:
        raise _LeftOut(f"the deny {now.rule.id} of the policy refuses it")
    denies = [rule.id for rule in now.open_rules if rule.action == POLICY_DENY]
    return [f"it is not known whether this deny refuses it all the same: {one}" for one in denies[:3]]


def _account(uid: int) -> str | None:
    """The name of the account, if that name is this uid and no other."""
    try:
        name = pwd.getpwuid(uid).pw_name
        return name if pwd.getpwnam(name).pw_uid == uid else None
    except (KeyError, OSError, ValueError):
        return None


class Unseen(Exception):
    """It cannot be told what a path leads to; the message says why."""


class Looker:
    """Finds what paths lead to now, by the broker's own walk."""

    def __init__(self) -> None:
        """Raises OSError where /proc is not mounted."""
        self._walker = Walker()
        self._systems = device_systems()

    def close(self) -> None:
        """Close what is held for looking."""
        self._walker.close()

    def look(self, path: str) -> Object:
        """What `path` leads to. Raises Unseen."""
        try:
            walked = self._walker.walk(path)
        except WalkRefused as refusal:
            raise Unseen(f"the broker gives it to nobody: {refusal}") from None
        except MayBlock:
            raise Unseen("it lies on a mount that may not answer, and was not looked at") from None
        except WalkFailed as failure:
            why = f"{printable(failure.name)}: {os.strerror(failure.errno)}"
            raise Unseen(f"it cannot be told what it is: {why}") from None
        try:
            found = object_of(walked, walked.names)
            never = never_given(walked, found.type, self._systems)
        finally:
            os.close(walked.fd)
        if never:
            raise Unseen(f"the broker gives it to nobody: {never}")
        return found
