"""Lint: what a policy that loads may have wrong with it, and which of that its rules accept.

What can be said of the policy alone is found here. The broker adds what its machine says, and judges all together.
"""

from collections.abc import Iterable, Iterator

from .decide import Policy
from .findings import CODES, Finding, finding
from .lint_dead import NEVER_DECIDES, never_deciding
from .lint_paths import PathLint
from .lint_rules import of_rule
from .rules import Rule

_SILENCING = NEVER_DECIDES - {"repeated"} | {"deny-spares-all"}
_UNACCEPTED = "accept-of-nothing"


def lint(policy: Policy, now: float | None) -> list[Finding]:
    """Return what is found about the rules of `policy`, by file and line; none is accepted yet.

    `now` is in seconds since 1970; at an unknown time no rule is over.
    """
    dead = list(never_deciding(policy.rules, now))
    paths = PathLint(policy)
    return dead + [one for rule in living(policy, dead) for one in (*paths.findings(rule), *of_rule(rule))]


def living(policy: Policy, findings: Iterable[Finding]) -> list[Rule]:
    """Return the rules that may decide: of one that never does it does not matter what else it says."""
    silent = {one.rule for one in findings if one.code in _SILENCING}
    return [rule for rule in policy.rules if rule.id not in silent]


def judged(policy: Policy, findings: Iterable[Finding], machine_asked: bool) -> list[Finding]:
    """Return the findings with those accepted that their rules accept, by file and line.

    A rule that accepts what was not found is one more finding, except for what only the machine could have said
    and was not asked.
    """
    rules = {rule.id: rule for rule in policy.rules}
    found = [one._replace(accepted=one.code in rules[one.rule].accept) for one in findings]
    had: dict[str, set[str]] = {}
    for one in found:
        had.setdefault(one.rule, set()).add(one.code)
    for rule in policy.rules:
        # Of a rule that never decides nothing else was looked for.
        if rule.accept and _SILENCING.isdisjoint(had.get(rule.id, ())):
            found += _not_had(rule, had.get(rule.id, set()), machine_asked)
    return sorted(found, key=lambda one: (one.file, one.line, one.rule, one.code))


def _not_had(rule: Rule, had: set[str], machine_asked: bool) -> Iterator[Finding]:
    idle = [
        code
        for code in sorted(rule.accept - had)
        if code != _UNACCEPTED and (machine_asked or not CODES[code].of_machine)
    ]
    if idle:
        told = finding(
            rule, _UNACCEPTED, f"it accepts {', '.join(idle)}, and there is no such finding about it"
        )
        yield told._replace(accepted=_UNACCEPTED in rule.accept)
