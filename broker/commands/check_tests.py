"""The tests of a policy, run for `fdbroker check`, and what is told of those that fail."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from broker.commands.explain_words import near_json, near_rows, peer_words
from broker.commands.progress import tracked
from broker.textlines import printable_line
from policy import Object, PolicySet, Rule, Source, rights_words
from policy.moments import moment_text
from policy.testcases import PolicyTest
from policy.testing import Result, overruled, run, unreached, why

# Failures that are explained: each explanation looks at every rule, and nobody reads more of them at a time.
_EXPLAINED = 20


class Tested(NamedTuple):
    """What came of a policy's tests."""

    total: int
    failed: list[Result]
    overruled: list[Result]
    """Those that a higher tier made fail: told, and no fault of the set."""
    unreached: list[Rule] | None
    """The rules that no test reaches; None: nobody asked."""

    @property
    def is_good(self) -> bool:
        """Whether no test failed, and no rule was in none where that was asked."""
        return not self.failed and not self.unreached


def tested(
    loaded: PolicySet, tests: Sequence[PolicyTest], sources: Sequence[Source], *, coverage: bool
) -> Tested:
    """Run `tests` of the set that `sources` made."""
    results = run(loaded.policy, tracked(tests, "tests"))
    failed = [result for result in results if not result.passed]
    changed = overruled(sources, failed)
    positions = {result.test.position for result in changed}
    return Tested(
        len(results),
        [result for result in failed if result.test.position not in positions],
        changed,
        unreached(loaded.policy, results) if coverage else None,
    )


def failures_text(loaded: PolicySet, failed: Sequence[Result]) -> list[str]:
    """Lines about each failed test: its place, what was expected, what came out, and why in short."""
    lines: list[str] = []
    for number, result in enumerate(failed):
        test = result.test
        lines.append(f"{test.position}: the test failed: expected {result.expected}, came out {result.found}")
        rows = _rows(loaded, test) if number < _EXPLAINED else []
        lines += [f"    {heading:8}{text}" for heading, text in rows]
    if len(failed) > _EXPLAINED:
        lines.append(f"the first {_EXPLAINED} are explained; mend these, and check again")
    return [printable_line(line) for line in lines]


def _rows(loaded: PolicySet, test: PolicyTest) -> list[tuple[str, str]]:
    explanation = why(loaded.policy, test)
    rows = [("reason", f"{explanation.decision}: {explanation.reason}")]
    asked = f"{test.request.path} {' '.join(rights_words(test.request.needed))}"
    optional = rights_words(test.request.optional)
    rows.append(("asked", f"{asked}, would like {' '.join(optional)}" if optional else asked))
    rows.append(("object", _object_words(test.object)))
    rows.append(("client", peer_words(test.peer)))
    if test.now is not None:
        rows.append(("at", moment_text(int(test.now))))
    rows += [
        ("masked", f"{one.id}  {one.place.file}:{one.place.line} by {one.by.file}:{one.by.line}")
        for one in loaded.masked
        if one.id == test.rule
    ]
    return [*rows, *near_rows(explanation)]


def _object_words(found: Object) -> str:
    """All that the test says of it: what it does not is what a failure is often about."""
    words = [found.path, found.type.value if found.type is not None else ""]
    device = found.device
    if device is not None:
        words += [] if device.number is None else [f"{device.number[0]}:{device.number[1]}"]
        words += [] if device.subsystem is None else [device.subsystem]
        words += [f"{name}={value}" for name, value in (device.properties or {}).items()]
        for one in device.attributes or ():
            words += [f"attrs{{{name}}}={value}" for name, value in one.items()]
    return " ".join(words)


def overruled_text(changed: Sequence[Result]) -> list[str]:
    """A line for each test that a higher tier made fail."""
    return [
        printable_line(
            f"{result.test.position}: overruled by a higher tier: expected {result.expected}, came out {result.found}"
        )
        for result in changed
    ]


def unreached_text(rules: Sequence[Rule]) -> list[str]:
    """A line for each rule that no test reaches."""
    return [
        f"{rule.file}:{rule.line}: no test {'is allowed by' if rule.action == 'allow' else 'is refused by'} {rule.id}"
        for rule in sorted(rules, key=lambda rule: (rule.file, rule.line))
    ]


def tested_json(loaded: PolicySet, outcome: Tested) -> dict[str, Any]:
    """What came of the tests, as part of an object."""
    shown: dict[str, Any] = {
        "tests": outcome.total,
        "failed": [
            {**_result_json(result), **(_why_json(loaded, result.test) if number < _EXPLAINED else {})}
            for number, result in enumerate(outcome.failed)
        ],
        "overruled": [_result_json(result) for result in outcome.overruled],
    }
    if outcome.unreached is not None:
        shown["uncovered"] = [
            {"id": rule.id, "file": rule.file, "line": rule.line} for rule in outcome.unreached
        ]
    return shown


def _result_json(result: Result) -> dict[str, Any]:
    return {**result.test.position._asdict(), "expected": result.expected, "found": result.found}


def _why_json(loaded: PolicySet, test: PolicyTest) -> dict[str, Any]:
    explanation = why(loaded.policy, test)
    return {"decision": explanation.decision, "reason": explanation.reason, **near_json(explanation)}
