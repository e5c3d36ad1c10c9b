"""What policies of many rules cost: a decision beside one among ten rules, loading, checking, and memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import Figure, Rounds, Target, figure
from benchmarks.programs import PROJECT, Unusable, broker_command
from benchmarks.rules import large_policy, questions
from policy import Object, Peer, Policy, Request, load

MANY = 100_000
SITE = 10_000
FEW = 10

# A process that loads so many rules, and tells its resident memory in MiB.
_LOADER = """
from benchmarks.rules import large_policy
from policy import load
policy = load(large_policy({count}))
lines = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))
"""

Question = tuple[Request, Peer, Object]


class Effort(NamedTuple):
    """How much is measured."""

    rounds: int
    decisions: int  # of each question in a round
    loads: int


THOROUGH = Effort(rounds=60, decisions=100, loads=5)
QUICK = Effort(rounds=12, decisions=50, loads=2)


def measure(effort: Effort) -> tuple[list[Figure], list[Figure]]:
    """The decisions, in µs beside those among few rules; and the rest."""
    return _decisions(effort), _sizes(effort)


def _decisions(effort: Effort) -> list[Figure]:
    policies = {count: load(large_policy(count)) for count in (FEW, SITE, MANY)}
    asked = {count: _answered(policies[count], count) for count in policies}
    rounds = {count: Rounds() for count in policies}
    for _ in range(effort.rounds):
        for count, policy in policies.items():
            rounds[count].add([_decision(policy, question, effort.decisions) for question in asked[count]])
    figures = [
        figure(f"decision-{FEW}", f"a decision among {FEW} rules", "µs", rounds[FEW], floor=rounds[FEW])
    ]
    for count in (SITE, MANY):
        target = Target(2.0, of_floor=True) if count == MANY else None
        title = f"a decision among {count:,} rules"
        figures.append(
            figure(f"decision-{count}", title, "µs", rounds[count], floor=rounds[FEW], target=target)
        )
    return figures


def _answered(policy: Policy, count: int) -> list[Question]:
    """The questions for a policy, whose answers are known: half are given, half refused."""
    asked = list(questions(count))
    allowed = [policy.decide(*question, 0.0).allowed for question in asked]
    if allowed != [True, False] * (len(asked) // 2):
        raise Unusable(f"among {count} rules the answers are {allowed}")
    return asked


def _decision(policy: Policy, question: Question, times: int) -> float:
    """The µs of one decision as the broker makes it: before anything is touched, and with the object."""
    request, peer, found = question
    consider, decide = policy.consider, policy.decide
    start = time.perf_counter()
    for _ in range(times):
        consider(request, peer, 0.0)
        decide(request, peer, found, 0.0)
    return (time.perf_counter() - start) / times * 1e6


def _sizes(effort: Effort) -> list[Figure]:
    loading, checking, memory = Rounds(), Rounds(), Rounds()
    sources = large_policy(SITE)
    with tempfile.TemporaryDirectory(prefix="fdbroker-bench-") as directory:
        Path(directory).chmod(0o755)
        for source in sources:
            Path(directory, source.name).write_text(str(source.text), encoding="utf-8")
        for _ in range(effort.loads):
            loading.add([_seconds(lambda: load(sources))])
            checking.add([_seconds(lambda: _check(directory))])
            memory.add([_resident_mebibytes(MANY)])
    return [
        figure("load", f"loading {SITE:,} rules", "s", loading, target=Target(2.0, of_floor=False)),
        figure(
            "check", f"fdbroker check, {SITE:,} rules", "s", checking, target=Target(10.0, of_floor=False)
        ),
        figure(
            "rules-memory", f"memory of {MANY:,} rules", "MiB", memory, target=Target(200.0, of_floor=False)
        ),
    ]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _check(directory: str) -> None:
    ran = subprocess.run([*broker_command("check"), directory], capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 1) or not ran.stdout:
        raise Unusable(f"fdbroker check ended with {ran.returncode}: {ran.stderr}")


def _resident_mebibytes(count: int) -> float:
    ran = subprocess.run(
        [sys.executable, "-c", _LOADER.format(count=count)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(ran.stdout) / 1024
