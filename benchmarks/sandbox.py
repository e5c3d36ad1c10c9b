"""What the sandbox costs: a command's start, a program's work inside, and the memory of what stays beside it.

The variants take turns round by round, as those of `opens` do. The start is measured on all cores, because it uses
more than one; work on one core, inside and outside by the same long-running program, so that its start does not
count. bwrap and firejail stand beside us where they are installed: bwrap makes namespaces and a root, and nothing
else, in C; firejail adds a filter of system calls, and no Landlock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

from benchmarks.figures import Figure, Rounds, Target, figure, no_figure
from benchmarks.memory import measure_memory
from benchmarks.opens import POLICY
from benchmarks.programs import (
    SOURCES,
    Failed,
    TimedClient,
    broker_command,
    compiled,
    pinned,
    run_milliseconds,
    serving,
)

# An ordinary uid, without account and group.
ORDINARY_UID = 64998

RUN_TARGET = Target(80, of_floor=False)  # milliseconds: a command that people wait for
COMPUTING_TARGET = Target(1.03, of_floor=True)
CALLING_TARGET = Target(1.15, of_floor=True)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: rounds of starts, rounds of work, and runs whose memory is read."""

    starts: int
    rounds: int
    runs: int


THOROUGH = Effort(starts=30, rounds=30, runs=3)
QUICK = Effort(starts=5, rounds=3, runs=2)


def measure(effort: Effort) -> tuple[list[Figure], list[Figure], list[Figure]]:
    """The figures of the starts, of the work, and of the memory."""
    with tempfile.TemporaryDirectory(prefix="fdbroker-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the ordinary uid reads the policy too
        policy = directory / "policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        return (
            measure_starts(directory, policy, effort.starts),
            measure_work(directory, policy, effort.rounds),
            measure_memory(policy, effort.runs),
        )


# --- other sandboxes -----------------------------------------------------------------------------------------


def bwrap_command(*command: str, shown: Sequence[Path] = ()) -> list[str]:
    """bwrap with a root like ours, showing `shown` read-only."""
    options = ["--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        if os.path.islink(name):
            options += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            options += ["--ro-bind", name, name]
    options += ["--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache", "--proc", "/proc", "--dev", "/dev"]
    options += ["--tmpfs", "/tmp"]
    for path in shown:
        options += ["--ro-bind", str(path), str(path)]
    return ["bwrap", *options, "--", *command]


def firejail_command(*command: str) -> list[str]:
    """firejail without a profile, but with what ours has as well, as far as it can give it."""
    options = ["--quiet", "--noprofile", "--private", "--private-dev", "--net=none"]
    return ["firejail", *options, "--caps.drop=all", "--nonewprivs", "--seccomp", "--", *command]


# --- the start of a command ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """One command whose start and end are timed. `uid` is None for our own."""

    name: str
    title: str
    command: Sequence[str]
    uid: int | None = None
    target: Target | None = None


def starts_of(policy: Path, socket_path: Path, uid: int | None) -> list[Start]:
    """The commands, as one identity starts them."""
    if uid is not None:
        suffix, who = "-ordinary", "ordinary uid"
    else:
        suffix, who = "", "root" if os.getuid() == 0 else "own uid"
    run = broker_command("run")
    plain = ("-I", "-c", "pass")
    commands: list[tuple[str, str, Sequence[str], Target | None]] = [
        ("fork", "true, by fork and exec", ("true",), None),
        ("python-bare", "python3 -I -S -c pass", (sys.executable, "-I", "-S", "-c", "pass"), None),
        ("python", "python3 -I -c pass", (sys.executable, *plain), None),
        (
            "run-policy",
            "fdbroker run --policy ... -- true",
            (*run, "--policy", str(policy), "--", "true"),
            RUN_TARGET,
        ),
        (
            "run-socket",
            "fdbroker run --socket ... -- true",
            (*run, "--socket", str(socket_path), "--", "true"),
            None,
        ),
        ("bwrap", "bwrap ... -- true", bwrap_command("true"), None),
        ("firejail", "firejail ... -- true", firejail_command("true"), None),
    ]
    return [
        Start(f"start-{name}{suffix}", f"{title}; {who}", command, uid, target)
        for name, title, command, target in commands
    ]


def measure_starts(directory: Path, policy: Path, rounds: int) -> list[Figure]:
    """The figures, in milliseconds; ratios are to a plain fork and exec by the same identity."""
    socket_path = directory / "broker.sock"
    serve = broker_command(
        "serve", "--policy", str(policy), "--audit", os.devnull, "--socket", str(socket_path)
    )
    variants = starts_of(policy, socket_path, None)
    if os.getuid() == 0:
        variants += starts_of(policy, socket_path, ORDINARY_UID)
    measured = {variant.name: Rounds() for variant in variants}
    with serving(serve, socket_path, socket.SOCK_STREAM):
        # The first start of all writes what Python compiled, and finds out what there is.
        missing = {variant.name: reason for variant in variants if (reason := _why_missing(variant))}
        for _ in range(rounds):
            for variant in variants:
                if variant.name not in missing:
                    measured[variant.name].add([run_milliseconds(variant.command, variant.uid)])
    figures = []
    for variant in variants:
        if variant.name in missing:
            figures.append(no_figure(variant.name, variant.title, "ms", missing[variant.name]))
            continue
        fork = measured["start-fork" if variant.uid is None else "start-fork-ordinary"]
        figures.append(
            figure(
                variant.name,
                variant.title,
                "ms",
                measured[variant.name],
                floor=fork,
                target=variant.target,
            )
        )
    return figures


def _why_missing(start: Start) -> str | None:
    """Why a command cannot be started by its identity; None where it can."""
    program = start.command[0]
    if shutil.which(program) is None:
        return "not installed"
    try:
        run_milliseconds(start.command, start.uid)
    except Failed as error:
        return f"cannot be started: {error.said}"
    return None


# --- work inside ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work of work.c or python_work.py, and how many iterations make a round of some milliseconds."""

    name: str
    title: str
    iterations: int
    calls: bool = False  # whether it is one of the mix of system calls
    python: bool = False
    target: Target | None = None


WORKS = (
    Work("compute", "computing, C", 5, target=COMPUTING_TARGET),
    Work("python", "computing, Python", 5, python=True, target=COMPUTING_TARGET),
    Work("getppid", "1,000 x getppid", 20, calls=True),
    Work("read-write", "1,000 x read and write of a byte", 10, calls=True),
    Work("open", "200 x open, fstat, close", 20, calls=True),
    Work("stat", "200 x stat", 20, calls=True),
    Work("find", "find /usr/share -type f", 1, calls=True),
    Work("compile", "gcc of a small file", 1, calls=True),
)
MIX = "mix"
ROUNDS_OF_A_PROCESS = 3
PLACES = ("outside", "inside", "bwrap")


def measure_work(directory: Path, policy: Path, rounds: int) -> list[Figure]:
    """The figures, in microseconds for an iteration; ratios are to the same work outside."""
    program = compiled("work", directory)
    (directory / "outside").mkdir()
    measured = {(place, work.name): Rounds() for place in PLACES for work in WORKS}
    with pinned():
        # Where its memory happens to lie makes a process some per cent faster or slower for as long as it lives.
        for start in range(0, rounds, ROUNDS_OF_A_PROCESS):
            _run_rounds(
                measured, _workers(directory, policy, program), min(ROUNDS_OF_A_PROCESS, rounds - start)
            )
    for place in PLACES:
        measured[place, MIX] = _mix([measured[place, work.name] for work in WORKS if work.calls])
    rows = [(work.name, work.title, work.target) for work in WORKS]
    rows.append((MIX, "all of the system calls' (geometric mean)", CALLING_TARGET))
    return [_work_figure(measured, row, place) for row in rows for place in PLACES]


def _run_rounds(
    measured: dict[tuple[str, str], Rounds], workers: Iterable[tuple[str, bool, list[str]]], rounds: int
) -> None:
    """Add rounds of all works at all places, by one set of processes."""
    with contextlib.ExitStack() as stack:
        clients = {
            (place, python): stack.enter_context(TimedClient(command)) for place, python, command in workers
        }
        places = [place for place in PLACES if (place, False) in clients]
        for number in range(rounds):
            # Who comes first after another work finds cold caches: that is each place's turn as often.
            turn = number % len(places)
            for work in WORKS:
                for place in places[turn:] + places[:turn]:
                    client = clients[place, work.python]
                    if work.iterations > 1:
                        client.run_round(1, work.name)  # to warm up
                    nanoseconds = client.run_round(work.iterations, work.name)
                    measured[place, work.name].add([nanosecond / 1000 for nanosecond in nanoseconds])


def _workers(directory: Path, policy: Path, program: Path) -> Iterator[tuple[str, bool, list[str]]]:
    """(place, whether it is the one in Python, command) of each long-running program."""
    script = SOURCES / "python_work.py"
    run = broker_command("run", "--policy", str(policy), "--ro", str(program), "--ro", str(script), "--")
    python = [sys.executable, "-I", str(script)]
    yield "outside", False, [str(program), str(directory / "outside")]
    yield "outside", True, python
    yield "inside", False, [*run, str(program), "/tmp"]
    yield "inside", True, [*run, *python]
    if shutil.which("bwrap") is not None:
        shown = (program, script, Path(sys.prefix))
        yield "bwrap", False, bwrap_command(str(program), "/tmp", shown=shown)
        yield "bwrap", True, bwrap_command(*python, shown=shown)


def _mix(works: Sequence[Rounds]) -> Rounds:
    """The geometric mean of several kinds of work, round by round: each counts the same, whatever it lasts."""
    mix = Rounds()
    for medians in zip(*(work.medians for work in works), strict=True):
        mix.medians.append(exp(sum(map(log, medians)) / len(medians)))
    for means in zip(*(work.means for work in works), strict=True):
        mix.means.append(exp(sum(map(log, means)) / len(means)))
    return mix


def _work_figure(
    measured: dict[tuple[str, str], Rounds], row: tuple[str, str, Target | None], place: str
) -> Figure:
    name, title, target = row
    label, title = f"work-{place}-{name}", f"{title}: {place}"
    rounds = measured.get((place, name), Rounds())
    if not rounds.medians:
        return no_figure(label, title, "µs", "not installed")
    if place == "outside":
        return figure(label, title, "µs", rounds)
    target = target if place == "inside" else None
    return figure(label, title, "µs", rounds, floor=measured["outside", name], target=target)
