"""What became of one request to open, and what the audit says of it."""

import errno
import os
from typing import NamedTuple

from broker.limits import NAMES_SHOWN
from broker.records import fields, printable
from policy import FileType, Rights, Rule, Verdict, rights_words


class Outcome(NamedTuple):
    """What became of one request. Of an allowed one the receiver owns `fd`."""

    verdict: str  # allow; deny; failed: allowed, but the open failed; busy: at a limit
    fd: int = -1
    rights: Rights = Rights(0)
    rule: Rule | None = None
    reason: str = ""  # for the administrator's eyes only; of busy: the limit
    errno: int = 0  # of a failed open
    path: str | None = None  # the object's, where one was found
    device: int | None = None  # its number, where it is one
    kind: FileType | None = None
    names: tuple[str | None, ...] = ()  # its other names that the decision looked at, by shown_names()
    link: bool = False  # the asked path is a link to a device that its name alone may give
    by_broker: bool = False  # refused whatever the policy says


# Instead of an open that needs a process of its own, when there are enough of them.
TOO_MANY_SLOW = Outcome("busy", reason="slow opens")


def refused(verdict: Verdict) -> Outcome:
    """The outcome of what the policy refused."""
    return Outcome("deny", rule=verdict.rule, reason=verdict.reason)


def outcome_fields(outcome: Outcome) -> bytes:
    """What the audit says of `outcome`; see docs/audit.md."""
    values: dict[str, object] = {"verdict": outcome.verdict}
    if outcome.path is not None:
        values["resolved"] = printable(outcome.path)
    if outcome.kind is not None:
        values["type"] = outcome.kind.value
    if outcome.device is not None:
        values["device"] = f"{os.major(outcome.device)}:{os.minor(outcome.device)}"
    if outcome.names:
        values["names"] = outcome.names
    if outcome.link:
        values["link"] = True
    if outcome.by_broker:
        values["by"] = "broker"
    if outcome.rights:
        values["rights"] = rights_words(outcome.rights)
    if outcome.rule is not None:
        values["rule"] = outcome.rule.id
        values["at"] = f"{outcome.rule.file}:{outcome.rule.line}"
    if outcome.errno:
        values["errno"] = errno.errorcode.get(outcome.errno, str(outcome.errno))
    if outcome.verdict != "allow":
        values["reason"] = outcome.reason
    return fields(values)


def shown_names(names: tuple[str, ...]) -> tuple[str | None, ...]:
    """The names as a record has them; None at the end stands for those that would make it too long."""
    shown: list[str | None] = []
    left = NAMES_SHOWN
    for name in map(printable, names):
        left -= len(name)
        if left < 0:
            return (*shown, None)
        shown.append(name)
    return tuple(shown)
