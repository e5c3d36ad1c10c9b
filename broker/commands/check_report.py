"""What `fdbroker check` found of a set that loads, for people and as one JSON object."""

import json
import sys
from typing import Any, NamedTuple

from broker.commands.check_findings import findings_counts, findings_json, findings_text
from broker.commands.check_tests import Tested, failures_text, overruled_text, tested_json, unreached_text
from broker.linting import Linted
from broker.textlines import counted
from policy import PolicySet


class Checked(NamedTuple):
    """A set without mistakes, and what was found of it."""

    loaded: PolicySet
    files: int
    tests: Tested
    not_looked_at: tuple[str, ...]
    linted: Linted

    @property
    def is_good(self) -> bool:
        """Whether nothing was found that must be mended."""
        return self.tests.is_good and not self.linted.fails


def as_json(checked: Checked) -> str:
    """Everything that was found."""
    policy = checked.loaded.policy
    shown: dict[str, Any] = {
        "good": checked.is_good,
        "problems": [],
        **findings_json(checked.linted),
        "files": checked.files,
        "rules": len(policy.rules),
        "policy": policy.digest,
        **tested_json(checked.loaded, checked.tests),
    }
    if checked.not_looked_at:
        shown["not_looked_at"] = list(checked.not_looked_at)
    return json.dumps(shown)


def print_text(checked: Checked, *, with_notes: bool) -> None:
    """Print what was found, with notes or without, and to standard error how much of it there is."""
    policy, tests = checked.loaded.policy, checked.tests
    lines = [
        *findings_text(checked.linted, with_notes=with_notes),
        *failures_text(checked.loaded, tests.failed),
        *overruled_text(tests.overruled),
        *unreached_text(tests.unreached or ()),
    ]
    if checked.is_good:
        passed = tests.total - len(tests.overruled)
        told = f", {counted(passed, 'test')} passed" if tests.total else ""
        files = counted(checked.files, "file")
        lines.append(f"good: {counted(len(policy.rules), 'rule')} in {files}, policy {policy.digest}{told}")
    for line in lines:
        print(line)
    counts = findings_counts(checked.linted, with_notes=with_notes)
    if tests.failed:
        counts.append(f"{len(tests.failed)} of {counted(tests.total, 'test')} failed")
    if tests.unreached:
        counts.append(f"{len(tests.unreached)} of {counted(len(policy.rules), 'rule')} in no test")
    for count in counts:
        print(count, file=sys.stderr)
