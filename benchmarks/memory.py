"""The memory of what stays beside a program in a sandbox: supervisor, worker and init of an idle `fdbroker run`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.figures import Figure, Rounds, figure, no_figure
from benchmarks.programs import PROJECT, Unusable, broker_command

# Seconds that a process must have done nothing to be called idle, and until it is given up.
_IDLE_SECONDS = 0.3
_IDLE_DEADLINE = 10.0

PARTS = ("supervisor", "worker", "init")


def measure_memory(policy: Path, runs: int) -> list[Figure]:
    """The figures, in KiB. Only root reads them: the processes of a run are closed to their own user."""
    kinds = {"share": "proportional share", "own": "private"}
    if os.getuid() != 0:
        reason = "only root can read it"
        return [
            no_figure(f"memory-{part}-{kind}", f"{part}, {title}", "KiB", reason)
            for part in PARTS
            for kind, title in kinds.items()
        ]
    measured = {(part, kind): Rounds() for part in (*PARTS, "all") for kind in kinds}
    for _ in range(runs):
        found = _memory_of_a_run(policy)
        for part in PARTS:
            for kind in kinds:
                measured[part, kind].add([found[part][kind]])
        for kind in kinds:
            measured["all", kind].add([sum(found[part][kind] for part in PARTS)])
    return [
        figure(f"memory-{part}-{kind}", f"{part}, {kinds[kind]}", "KiB", rounds)
        for (part, kind), rounds in measured.items()
    ]


def _memory_of_a_run(policy: Path) -> dict[str, dict[str, float]]:
    command = broker_command("run", "--policy", str(policy), "--", "sleep", "60")
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL) as process:
        try:
            pids = _parts(process.pid)
            _await_idle(list(pids.values()))
            return {part: _memory(pid) for part, pid in pids.items()}
        finally:
            process.terminate()


def _parts(supervisor: int) -> dict[str, int]:
    """The processes of a run, by what they are. The init is the one with a number in more than one namespace."""
    deadline = time.monotonic() + _IDLE_DEADLINE
    while time.monotonic() < deadline:
        found = {"supervisor": supervisor}
        for pid in _children(supervisor):
            if _status(pid, "State")[:1] == ["Z"]:
                continue  # the starter, which has done its work
            found["init" if len(_status(pid, "NSpid")) > 1 else "worker"] = pid
        if set(found) == set(PARTS) and _children(found["init"]):
            return found
        time.sleep(0.01)
    raise Unusable("fdbroker run --policy did not start its parts")


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _status(pid: int, field: str) -> list[str]:
    """The words of one line of /proc/PID/status (proc_pid_status(5)); none where there is no such process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, words = line.partition(":")
            if name == field:
                return words.split()
    return []


def _await_idle(pids: Iterable[int]) -> None:
    """Wait until none of the processes uses the processor any more."""
    deadline = time.monotonic() + _IDLE_DEADLINE
    before: list[str] = []
    while time.monotonic() < deadline:
        # Nanoseconds on the processor, and waited for it (proc_pid_schedstat(5)).
        now = [Path(f"/proc/{pid}/schedstat").read_text() for pid in pids]
        if now == before:
            return
        before = now
        time.sleep(_IDLE_SECONDS)
    raise Unusable("fdbroker run --policy does not come to rest")


def _memory(pid: int) -> dict[str, float]:
    """KiB of a process: its share of what it maps, and what nobody else maps (proc_pid_smaps(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    values = {name: float(words.split()[0]) for name, _, words in (line.partition(":") for line in lines)}
    return {"share": values["Pss"], "own": values["Private_Clean"] + values["Private_Dirty"]}
