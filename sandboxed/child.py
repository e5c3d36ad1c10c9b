"""A child process, known by its pidfds; becoming a command; and how a command ended.

Rules that this module enforces:
- A started child is known by its pidfds: a signal can never reach another process that got its number.
- A command starts with the signal mask that it is given and with default dispositions, except for signals that
  were ignored already when the caller was started (nohup).

Out of scope: confinement, see `sandboxed.confinement.launch`.
"""

import fcntl
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import NoReturn

from sandboxed.confinement.cgroup import Cgroup
from sandboxed.confinement.environment import DEFAULT_PATH
from sandboxed.confinement.sandbox import StartError

# Python ignores these two for itself when it starts.
_IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})

# Bytes of a report of failure; a pipe takes as much in one piece (PIPE_BUF, pipe(7)).
_REPORT_BYTES = 4096

# Added to the number of the signal that ended a program, as shells do.
SIGNAL_STATUS = 128


class CommandNotExecutable(StartError):
    """The command is there, but it cannot be run."""

    exit_status = 126


class CommandNotFound(StartError):
    """There is no such command where the program's PATH leads."""

    exit_status = 127


class Child:
    """A child process and its pidfd. Closing it leaves the process alone.

    A program in a sandbox is not our own child: its init is, and gives the program's exit status as its own. Then
    `pid` is the program's, and what is waited for is the init's end, with which every process of the sandbox ends.
    """

    def __init__(self, pid: int, init: int | None = None, control: socket.socket | None = None) -> None:
        """`control` leads to the init; with `terminal` the program's terminal is to be relayed."""
        self.pid = pid
        self._program = os.pidfd_open(pid)
        try:
            self.pidfd = self._program if init is None else os.pidfd_open(init)
        except OSError:
            os.close(self._program)
            raise
        self.control = control
        self.terminal: int | None = None
        self.cgroup: Cgroup | None = None
        self._status: int | None = None

    def fileno(self) -> int:
        """The pidfd of what is waited for: readable when it has ended."""
        return self.pidfd

    def signal(self, number: int) -> None:
        """Send the program a signal; one that has ended takes it as the kernel does, without complaint."""
        try:
            signal.pidfd_send_signal(self._program, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """End the program and everything in its sandbox.

        The init is told, not killed: it knows what the program left behind, which else nobody would end where there
        is no namespace of pids.
        """
        self.signal(signal.SIGKILL)
        if self.control is not None:
            self.control.shutdown(socket.SHUT_RDWR)

    def wait(self) -> int:
        """Wait for the end and return the exit status as a shell has it: 128 + n for signal n."""
        if self._status is None:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            assert result is not None  # only WNOHANG gives None
            exited = result.si_code == os.CLD_EXITED
            self._status = result.si_status if exited else SIGNAL_STATUS + result.si_status
        return self._status

    def close(self) -> None:
        """Close what is held of the process."""
        for fd in {self._program, self.pidfd, -1 if self.terminal is None else self.terminal} - {-1}:
            os.close(fd)
        self._program = self.pidfd = -1
        self.terminal = None
        if self.control is not None:
            self.control.close()
        if self.cgroup is not None:
            self.cgroup.close()
            self.cgroup = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def keep_exit_statuses() -> None:
    """Undo an inherited SIG_IGN of SIGCHLD: the kernel would throw our children's exit statuses away."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def reset_signals(mask: Iterable[int]) -> None:
    """Undo what this Python program did to signals, then set the mask."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)) or number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def find_command(name: str, path: str) -> list[str]:
    """The files that `name` may mean, as a shell looks for it in `path`."""
    if "/" in name:
        return [name]
    return [os.path.join(directory, name) for directory in path.split(":") if directory and name]


def execute(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become `command`, looked for in the environment's PATH as a shell does.

    os.execvpe would call a command that is nowhere "not executable" if a directory of PATH is closed to us.
    """
    name = command[0]
    refusal: CommandNotExecutable | None = None
    for candidate in find_command(name, environment.get("PATH", DEFAULT_PATH)):
        try:
            os.execve(candidate, list(command), environment)
        except OSError as error:
            # The file may be there although exec says ENOENT: then its interpreter is missing.
            if refusal is None and os.path.lexists(candidate):
                refusal = CommandNotExecutable(f"{candidate}: cannot be run: {error.strerror}")
    raise refusal or CommandNotFound(f"{name}: command not found")


def spawn(command: Sequence[str], prepare: Callable[[dict[str, str]], None], mask: Iterable[int]) -> Child:
    """Run `command` unconfined, as this process is, and return once it runs.

    `prepare` runs in the child and may change the environment that it is given, a copy of ours. Raises
    CommandNotFound, CommandNotExecutable, or StartError for everything else.
    """
    keep_exit_statuses()
    reader, writer = os.pipe()
    # No signal handler of ours may run in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become(command, prepare, mask, writer)
    except OSError as error:
        os.close(reader)
        raise StartError(f"cannot fork: {error.strerror}") from error
    finally:
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with open(reader, "rb") as reports:
        report = reports.read()
    if not report:
        return Child(pid)
    os.waitpid(pid, 0)
    kind, _, message = report.decode("utf-8", "replace").partition("\n")
    raise _REPORTED.get(kind, StartError)(message)


_REPORTED = {kind.__name__: kind for kind in (CommandNotExecutable, CommandNotFound)}


def _become(
    command: Sequence[str], prepare: Callable[[dict[str, str]], None], mask: Iterable[int], report: int
) -> NoReturn:
    """In the child of spawn(): the command, or a report of why not."""
    gc.disable()  # garbage of the parent's must not close a number that is ours by now
    try:
        report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, 10)  # `prepare` may want any low number
        reset_signals(mask)
        environment = dict(os.environ)
        prepare(environment)
        execute(command, environment)
    except BaseException as error:
        os.write(report, f"{type(error).__name__}\n{error}".encode("utf-8", "replace")[:_REPORT_BYTES])
    finally:
        os._exit(StartError.exit_status)
