"""Runs the tests that a policy's files hold, and tells which rules none of them reaches.

A test is decided by the code that the broker decides with, at the time that the test names and at no other.

Imported by those who run the tests alone.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .decide import Policy
from .explain import Explanation, explain
from .problems import PolicyError
from .rules import ALLOW, DENY, Rule, Source, Verdict
from .testcases import PolicyTest, load_with_tests
from .words import rights_words, with_implied


class Result(NamedTuple):
    """What came of one test."""

    test: PolicyTest
    verdict: Verdict
    denies: tuple[Rule, ...]
    """Those that match and list a right that is asked for."""
    expected: str
    found: str
    """Each in words, and of no more than the test expects something of."""

    @property
    def passed(self) -> bool:
        """Whether what was expected came out."""
        return self.expected == self.found


def run(policy: Policy, tests: Iterable[PolicyTest]) -> list[Result]:
    """Run `tests` in their order."""
    return [_run(policy, test) for test in tests]


def _run(policy: Policy, test: PolicyTest) -> Result:
    verdict = policy.decide(test.request, test.peer, test.object, test.now)
    denies: tuple[Rule, ...] = ()
    if not verdict.allowed or test.request.optional:
        denies = tuple(policy.denies_of(test.request, test.peer, test.object, test.now))
    expected, found = _words(test.allowed), _words(verdict.allowed)
    if test.rule is not None:
        expected += f" by {test.rule}"
        found += f" by {_decider(test, verdict, denies)}"
    if test.rights is not None:
        expected += f" of {'+'.join(rights_words(with_implied(int(test.rights))))}"
        found += f" of {'+'.join(rights_words(verdict.rights)) or 'nothing'}"
    return Result(test, verdict, denies, expected, found)


def _decider(test: PolicyTest, verdict: Verdict, denies: Iterable[Rule]) -> str:
    if not verdict.allowed:
        needed = with_implied(int(test.request.needed))
        # Whichever of several denies is told of, each of them refuses.
        if any(rule.id == test.rule and int(rule.rights) & needed for rule in denies):
            return str(test.rule)
    return verdict.rule.id if verdict.rule is not None else "default"


def _words(allowed: bool) -> str:
    return ALLOW if allowed else DENY


def why(policy: Policy, test: PolicyTest) -> Explanation:
    """Return the explanation of what comes of `test`. It looks at every rule, where a decision looks at few."""
    return explain(policy, test.request, test.peer, test.object, test.now)


def unreached(policy: Policy, results: Iterable[Result]) -> list[Rule]:
    """Return the rules, by id, that no test reaches: allows that never decide, denies that take nothing away."""
    reached: set[str] = set()
    for result in results:
        if result.verdict.rule is not None:
            reached.add(result.verdict.rule.id)
        reached.update(rule.id for rule in result.denies)
    return [rule for rule in policy.rules if rule.id not in reached]


def overruled(sources: Sequence[Source], failed: Sequence[Result]) -> list[Result]:
    """Return those of `failed` that pass without the tiers above their own: what their authors meant was changed there.

    `sources` are the files that count. Where those of the lower tiers do not load alone, none is returned.
    """
    found: list[Result] = []
    top = max((source.tier for source in sources), default=0)
    for tier in sorted({result.test.tier for result in failed if result.test.tier < top}):
        try:
            below, tests = load_with_tests(source for source in sources if source.tier <= tier)
        except PolicyError:
            continue
        passed = {result.test.position for result in run(below.policy, tests) if result.passed}
        found += [result for result in failed if result.test.tier == tier and result.test.position in passed]
    return found
