"""What of a rule this version of the broker cannot keep.

The language has terms and rights whose meaning needs more than an open. A rule that has one gives more than it says,
or gives nothing of it; so a policy with such a rule is not served, unless the rule accepts just that by its code.

Enforced here:
- each term that narrows what a rule gives, and each right that cannot be given, has a code of its own, or is kept;
- a rule that accepts its codes is in force as it stands, but for the rights that cannot be given.

`revoke: try` is kept: nothing is promised. `as` and `netns` have no code: they give leave to what only a rule with
connect, listen or `tun` could do, which have theirs.
"""

from collections.abc import Iterator
from typing import NamedTuple

from .decide import Policy
from .problems import PolicyError, Problem
from .rules import ALLOW, Rule
from .terms import KILL, NO_TERMS, REQUIRED, Terms
from .words import Rights, rights_words

CODE = "unkept-"
"""What every code begins with; the rest is the term's or the right's own word."""

UNKEPT = {
    "unkept-lease": "a grant lasts as long as its connection",
    "unkept-exclusive": "others may have the object open at the same time",
    "unkept-preempt": "nobody's grant is ended for another's",
    "unkept-limits": "grants and opens are not counted",
    "unkept-revoke": "what was passed is never taken back",
    "unkept-relay": "the object's own descriptor is passed",
    "unkept-snapshot": "the file itself is passed, and what is written to it later can be read",
    "unkept-serial": "the line is passed as it happens to be set",
    "unkept-tun": "/dev/net/tun is passed without an interface, whatever network the client is in",
    "unkept-create": "no file is made, and who needs the right is refused",
    "unkept-temporary": "no file is made",
    "unkept-flags": "nothing but the flags of the request is set",
    "unkept-append": "who may append but not write is refused, for the holder of a descriptor could do both",
    "unkept-list": "who needs the right is refused",
    "unkept-connect": "who needs the right is refused",
    "unkept-listen": "who needs the right is refused",
}
"""What is true of a rule that accepts the code, by code."""

_NEVER_GIVEN = {
    Rights.CREATE: "unkept-create",
    Rights.LIST: "unkept-list",
    Rights.CONNECT: "unkept-connect",
    Rights.LISTEN: "unkept-listen",
}
_NEVER_GIVEN_RIGHTS = int(Rights.CREATE | Rights.LIST | Rights.CONNECT | Rights.LISTEN)
_APPEND = int(Rights.APPEND)
_WRITE = int(Rights.WRITE)


class Unkept(NamedTuple):
    """A term or right of a rule that is not kept."""

    code: str
    what: str
    """As the file has it: a key, or "allow: list"."""

    @property
    def instead(self) -> str:
        """What is true in its place."""
        return UNKEPT[self.code]


def unkept(rule: Rule) -> tuple[Unkept, ...]:
    """Return what of `rule` is not kept, accepted or not."""
    if rule.action != ALLOW:
        return ()
    lost = _lost(rule)
    if rule.terms is NO_TERMS and not lost:
        return ()
    return (*_rights(lost), *(Unkept(CODE + key, key) for key in _terms(rule.terms)))


def _rights(lost: int) -> Iterator[Unkept]:
    for right, code in _NEVER_GIVEN.items():
        if lost & right:
            yield Unkept(code, f"allow: {rights_words(right)[0]}")
    if lost & _APPEND:
        yield Unkept("unkept-append", "allow: append, without write")


def _terms(terms: Terms) -> Iterator[str]:
    # The term `create` has no place here: the right has its code, and one is not without the other.
    said = {
        "lease": terms.lease is not None,
        "exclusive": terms.exclusive,
        "preempt": terms.preempt,
        "limits": terms.open_limit is not None or terms.rate_limit is not None,
        "revoke": terms.revoke in (REQUIRED, KILL),
        "relay": terms.relay,
        "snapshot": terms.snapshot,
        "serial": terms.serial is not None,
        "tun": terms.tun is not None,
        "temporary": terms.temporary,
        "flags": bool(terms.flags),
    }
    return (key for key, is_said in said.items() if is_said)


def given_rights(rule: Rule) -> Rights:
    """Return those rights of `rule`, an allow, that this version can give."""
    return Rights(int(rule.rights) & ~_lost(rule))


def _lost(rule: Rule) -> int:
    rights = int(rule.rights)
    return rights & (_NEVER_GIVEN_RIGHTS if rights & _WRITE else _NEVER_GIVEN_RIGHTS | _APPEND)


def refusals(policy: Policy) -> list[Problem]:
    """Return a problem for each thing that a rule does not keep and does not accept."""
    return sorted(
        Problem(rule.file, rule.line, 0, refusal(rule, one))
        for rule in policy.rules
        for one in unkept(rule)
        if one.code not in rule.accept
    )


def refusal(rule: Rule, found: Unkept) -> str:
    """What to tell of `found`, and what to do."""
    accepting = f"'accept: [{found.code}]' in the rule has it in force like that"
    return f"rule {rule.name!r}: this version does not keep '{found.what}': {found.instead}; {accepting}"


def kept(policy: Policy) -> Policy:
    """Return `policy` as it can be served. Raises PolicyError with all refusals()."""
    problems = refusals(policy)
    if problems:
        raise PolicyError(problems)
    return given(policy)


def given(policy: Policy) -> Policy:
    """Return `policy` without the rights that no open gives, whatever else its rules do not keep."""
    if not any(rule.action == ALLOW and _lost(rule) for rule in policy.rules):
        return policy
    rules = [
        rule._replace(rights=given_rights(rule)) if rule.action == ALLOW else rule for rule in policy.rules
    ]
    left = [rule for rule in rules if rule.rights]
    return Policy(left, policy.sockets, policy.digest, policy.device_groups)
