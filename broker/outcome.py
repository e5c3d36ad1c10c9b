"""What became of one request to open, and what the audit says of it."""

import errno
import os
from typing import NamedTuple

from broker.records import fields, printable
from policy import Rights, Rule, Verdict, rights_words


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
    if outcome.device is not None:
        values["device"] = f"{os.major(outcome.device)}:{os.minor(outcome.device)}"
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
