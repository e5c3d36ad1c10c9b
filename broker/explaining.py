"""The facts that an explanation needs: what a path leads to, found by the broker's own walk and by nothing else.

Everything is looked at with O_PATH. What the one who asks may not see is told as not known, and never guessed.
"""

import errno
import os
from typing import NamedTuple

from broker.devicefacts import DeviceFacts
from broker.found import device_systems, hidden_name, never_given, object_of, other_names
from broker.outside import Outside, outside
from broker.records import printable
from broker.walk import MayBlock, Walked, Walker, WalkFailed, WalkRefused
from policy import Object, Peer, Policy, Request, Verdict, rights_words
from policy.devices import any_holds
from policy.explain import Explanation, explain, literals_to_try
from policy.keeping import given, given_rights
from policy.paths import shape_fault
from policy.words import with_implied

YES = "allowed"
NO = "denied"
NOT_KNOWN = "not known"


class Sight(NamedTuple):
    """What could be seen of the object of a request."""

    object: Object | None
    device: int | None  # the number, of a device node
    same: tuple[str, ...]  # those of the policy's literal paths that are other names of it
    refusal: str  # why the broker gives it to nobody, whatever the policy says; or nothing
    failure: str  # why there is nothing to open; or nothing
    unseen: str  # why the one who looks cannot know what it is; or nothing
    unknown: tuple[str, ...]  # what else could not be determined
    outside: Outside | None
    linked: Walked | None = None  # what was found, where its hard links may matter
    groups: tuple[str, ...] = ()  # the policy's groups of devices that are for it


class Explained(NamedTuple):
    """An explanation, and what the broker would answer in the end."""

    answer: str  # YES, NO or NOT_KNOWN
    explanation: Explanation
    sight: Sight


_NOTHING = Sight(None, None, (), "", "", "", (), None)


def explained(policy: Policy, request: Request, peer: Peer, now: float | None = None) -> Explained:
    """What the broker would answer to `request` of `peer` at that time, and why.

    Raises OSError where /proc is not mounted.
    """
    sight = _NOTHING if shape_fault(request.path) else _look(policy, request, peer, now)
    considered = policy.consider(request, peer, now)
    if sight.linked is not None and not sight.refusal:
        sight = sight._replace(refusal=hidden_name(sight.linked, considered))
    explanation = _explanation(policy, request, peer, sight, now)
    lost = _lost(int(request.needed), explanation.verdict)
    if lost:
        sight = sight._replace(refusal=f"this version cannot give {', '.join(lost)}")
    if not explanation.verdict.allowed or sight.refusal:
        return Explained(NO, explanation, sight)
    return Explained(NOT_KNOWN if sight.unseen else YES, explanation, sight)


def _explanation(
    policy: Policy, request: Request, peer: Peer, sight: Sight, now: float | None
) -> Explanation:
    """The explanation by the rules as they stand, or as far as they are kept where only that tells what is given."""
    told = explain(policy, request, peer, sight.object, now, sight.same)
    asked = int(request.needed | request.optional)
    if not _lost(asked, told.verdict) and not _lost(asked, told.instead):
        return told
    served = explain(given(policy), request, peer, sight.object, now, sight.same)
    if told.verdict.allowed:
        # Where nothing is left the rule that would have given it says more.
        return served if served.verdict.allowed else told
    return told._replace(instead=served.instead)


def _lost(asked: int, verdict: Verdict | None) -> list[str]:
    """Those of the rights that the verdict's rule lists, but that no open gives; none when it refuses."""
    if verdict is None or not verdict.allowed or verdict.rule is None:
        return []
    return rights_words(with_implied(asked) & int(verdict.rule.rights) & ~int(given_rights(verdict.rule)))


def _look(policy: Policy, request: Request, peer: Peer, now: float | None) -> Sight:
    walker = Walker()
    try:
        walked = walker.walk(request.path)
    except WalkRefused as refusal:
        return _NOTHING._replace(refusal=str(refusal))
    except MayBlock as block:
        return _NOTHING._replace(
            unseen=f"{printable(str(block))} is a mount that may keep whoever enters it waiting"
        )
    except WalkFailed as failure:
        return _not_found(failure)
    else:
        try:
            return _seen(policy, walker, walked, peer, request, literals_to_try(policy, request, peer, now))
        finally:
            os.close(walked.fd)
    finally:
        walker.close()


def _not_found(failure: WalkFailed) -> Sight:
    told = f"{printable(failure.name)}: {os.strerror(failure.errno)}"
    if _is_for_want_of_rights(failure):
        return _NOTHING._replace(unseen=f"{told}, for you, uid {os.geteuid()}")
    if failure.links:
        return _NOTHING._replace(refusal=f"a link leads to nothing: {told}")
    return _NOTHING._replace(failure=told)


def _is_for_want_of_rights(failure: WalkFailed) -> bool:
    return failure.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0


def _seen(
    policy: Policy,
    walker: Walker,
    walked: Walked,
    peer: Peer,
    request: Request,
    literals: tuple[str, ...],
) -> Sight:
    same: list[str] = []
    unknown: list[str] = []
    for name in literals:
        try:
            others = other_names(walker, (name,), walked, may_block=False)
        except MayBlock:
            unknown.append(
                f"{name} may be another name of it: a mount there may keep whoever enters it waiting"
            )
            continue
        same += others.same
        unknown += [
            f"{name} may be another name of it: {os.strerror(failure.errno)}, for you, uid {os.geteuid()}"
            for failure in others.unseen
            if _is_for_want_of_rights(failure)
        ]
    found = DeviceFacts(policy, shows=True).all_of(object_of(walked, walked.names), walked)
    return Sight(
        found,
        walked.status.st_rdev or None,
        tuple(same),
        never_given(walked, found.type, device_systems()),
        "",
        "",
        tuple(unknown),
        outside(walker, walked, peer, request.needed),
        walked if walked.linked_by_others else None,
        tuple(
            name
            for name, selectors in sorted(policy.device_groups.items())
            if any_holds(selectors, found.type, found.device)
        ),
    )
