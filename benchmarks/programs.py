"""The programs that a measurement needs: compiled, started, pinned to one core, and ended.

Whatever makes a measurement unusable is raised as Unusable, with a message for the person at the terminal.
A program inherits the driver's affinity, and so do the processes that it forks: whoever measures pins the
driver first (`pinned`), and then neither side can be anywhere else.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
PROJECT = SOURCES.parent

_COMPILER_FLAGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-O2")

# Seconds for a server to answer its socket, and for any program to end after it was told to.
_START_DEADLINE = 20.0
_END_DEADLINE = 10.0
_RETRY_INTERVAL = 0.01


class Unusable(Exception):
    """There is no measurement, and why."""


class Failed(Unusable):
    """A command failed; `said` is the last line of what it said."""

    def __init__(self, status: int, command: Sequence[str], said: str) -> None:
        super().__init__(f"status {status} from: {shlex.join(command)}: {said}")
        self.said = said


def compiled(name: str, directory: Path) -> Path:
    """Compile benchmarks/NAME.c into `directory` with $CC, or cc, and return the program's path."""
    program = directory / name
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, *_COMPILER_FLAGS, "-o", str(program), str(SOURCES / f"{name}.c")]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError as error:
        raise Unusable(f"no C compiler {compiler[0]!r}: install one, or name one in CC") from error
    except subprocess.CalledProcessError as error:
        raise Unusable(f"{name}.c does not compile: {shlex.join(command)}") from error
    return program


@contextmanager
def pinned() -> Iterator[int]:
    """Confine this process, and what it starts meanwhile, to one core; gives the core's number.

    It is the last one that is allowed, because interrupts are most often served by the first.
    """
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(command: Sequence[str], socket_path: Path, kind: socket.SocketKind) -> Iterator[None]:
    """Run a server until the block is left; it starts when the server accepts connections of that kind."""
    words = shlex.join(command)
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL) as process:
        try:
            _await_listener(process, words, socket_path, kind)
            yield
            if process.poll() is not None:
                raise Unusable(f"the server ended during the measurement: {words}")
        finally:
            _end(process)


def _await_listener(
    process: subprocess.Popen[bytes], words: str, socket_path: Path, kind: socket.SocketKind
) -> None:
    deadline = time.monotonic() + _START_DEADLINE
    while not _accepts(socket_path, kind):
        if process.poll() is not None:
            raise Unusable(f"the server did not start (status {process.returncode}): {words}")
        if time.monotonic() > deadline:
            raise Unusable(f"the server does not answer at {socket_path}: {words}")
        time.sleep(_RETRY_INTERVAL)


def _accepts(socket_path: Path, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.connect(str(socket_path))
        except OSError:
            return False
        return True


def _end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_END_DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class TimedClient:
    """A client process that runs a round whenever it is told to; use it as a context manager."""

    def __init__(self, command: Sequence[str]) -> None:
        self._words = shlex.join(command)
        self._process = subprocess.Popen(
            command, cwd=PROJECT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run_round(self, iterations: int, what: str = "") -> list[int]:
        """The nanoseconds of each iteration of `what`, where the client knows more than one thing.

        Raises Unusable if the client gave up (it says why itself).
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{what} {iterations}\n".lstrip())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure() from error
        nanoseconds = [int(word) for word in self._process.stdout.readline().split()]
        if len(nanoseconds) != iterations:
            raise self._failure()
        return nanoseconds

    def _failure(self) -> Unusable:
        return Unusable(f"a client failed: {self._words}")

    def __enter__(self) -> TimedClient:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            _end(self._process)


def run_milliseconds(command: Sequence[str], uid: int | None = None) -> float:
    """How long `command` takes from its start until it has ended; `uid` is whose process it is (root only).

    Raises Failed if it fails.
    """
    null = subprocess.DEVNULL
    groups = None if uid is None else ()
    start = time.perf_counter_ns()
    with subprocess.Popen(
        command, stdin=null, stdout=null, stderr=subprocess.PIPE, user=uid, group=uid, extra_groups=groups
    ) as process:
        status = process.wait()
        milliseconds = (time.perf_counter_ns() - start) / 1e6
        if status != 0:
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise Failed(status, command, said)
    return milliseconds


def broker_command(*arguments: str) -> list[str]:
    """The command line of this tree's fdbroker, as people start it where it was installed beside Python."""
    script = Path(sys.executable).with_name("fdbroker")
    return [*([str(script)] if script.exists() else [sys.executable, "-m", "broker.main"]), *arguments]
