"""Starting a confined program, passing signals to it, and learning how it ended.

Rules that this module enforces:
- What fails between fork and the program is raised in the parent, and the child is gone by then: a program
  never runs half confined.
- A started child is known by its pidfd: a signal can never reach another process that got its number.
- The program starts with the signal mask that it is given and with default dispositions, except for signals
  that were ignored already when the caller was started (nohup).
- What the terminal sends reaches the program from the terminal, once.

Out of scope: descendants that outlive the program, and a terminal of its own; see `confinement`.
Fork from a process with one thread: the kernel ties the child's death to the thread that forked it.
"""

import fcntl
import gc
import json
import os
import select
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import NoReturn

from sandboxed import syscalls
from sandboxed.confinement import DEFAULT_PATH, Confinement

# What a parent passes on. Stop signals are not here: a stopped parent is what its user asked for.
FORWARDED_SIGNALS = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)

# Of those, the ones that a terminal sends to its whole foreground group, so to the program as well.
_TERMINAL_SIGNALS = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})

# Python ignores these two for itself when it starts.
_IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})

# Added to the number of the signal that ended a program, as shells do.
_SIGNAL_STATUS = 128

# asm-generic/siginfo.h: sent by the kernel itself
_SI_KERNEL = 0x80

# struct signalfd_siginfo, signalfd(2): ssi_signo, ssi_errno, ssi_code, and what nobody needs here
_SIGNAL_INFO = struct.Struct("Iii116x")
_SIGNAL_INFOS_AT_ONCE = 32

# Bytes of a report of failure; a pipe takes as much in one piece (PIPE_BUF, pipe(7)).
_REPORT_BYTES = 4096


class StartError(Exception):
    """The program was not started. `exit_status` is what a command line tool should exit with."""

    exit_status = 125


class CommandNotExecutable(StartError):
    """The command is there, but it cannot be run."""

    exit_status = 126


class CommandNotFound(StartError):
    """There is no such command where the confined program's PATH leads."""

    exit_status = 127


_REPORTED = {kind.__name__: kind for kind in (StartError, CommandNotExecutable, CommandNotFound)}


def terminal_can_be_injected() -> bool:
    """Whether a program with our terminal could type into it, for whoever reads it next (TIOCSTI, tty_ioctl(4)).

    It can't without a controlling terminal, nor where the kernel has it switched off (dev.tty.legacy_tiocsti).
    """
    if not any(os.isatty(fd) for fd in (0, 1, 2)):
        return False
    try:
        with open("/proc/sys/dev/tty/legacy_tiocsti") as file:
            return file.read().strip() != "0"
    except OSError:
        return True


class Child:
    """A child process and its pidfd. Closing it leaves the process alone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._status: int | None = None

    def fileno(self) -> int:
        """The pidfd: readable when the process has ended."""
        return self.pidfd

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended takes it as the kernel does, without complaint."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def wait(self) -> int:
        """Wait for the end and return the exit status as a shell has it: 128 + n for signal n."""
        if self._status is None:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            assert result is not None  # only WNOHANG gives None
            exited = result.si_code == os.CLD_EXITED
            self._status = result.si_status if exited else _SIGNAL_STATUS + result.si_status
        return self._status

    def close(self) -> None:
        """Close the pidfd."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(
    command: Sequence[str],
    confinement: Confinement,
    environment: Mapping[str, str],
    in_child: Callable[[], None] | None = None,
    *,
    mask: Iterable[int] | None = None,
    new_session: bool = False,
) -> Child:
    """Run `command` confined, with exactly `environment`, and return once it runs.

    `in_child` runs in the child with the new identity, after the fds were closed and before the Landlock
    domain: a socket that it connects there names the new uid to its peer. It may change `environment`,
    and must not wait for an answer of this process, which waits for it. `mask` is the program's signal
    mask, by default the caller's (see `SignalForwarder.original_mask`). `new_session` takes the controlling
    terminal from it: see `terminal_can_be_injected`.

    Raises CommandNotFound, CommandNotExecutable, or StartError for everything else.
    """
    if not command:
        raise ValueError("there is no command to start")
    parent = os.getpid()

    def become_program(report: int, original_mask: set[int]) -> NoReturn:
        # An object of the parent's that is garbage here must not close a number that is ours by now.
        gc.disable()
        _reset_signals(original_mask if mask is None else mask)
        if new_session:
            os.setsid()
        confinement.close_fds(also_keep=(report,))
        confinement.apply(parent, in_child)
        _execute(command, environment)

    child = _fork(become_program)
    assert child is not None  # the child of this fork never returns
    return child


def spawn(command: Sequence[str], prepare: Callable[[dict[str, str]], None], mask: Iterable[int]) -> Child:
    """Run `command` unconfined, as this process is, and return once it runs.

    `prepare` runs in the child and may change the environment that it is given, a copy of ours. Raises as
    `start` does.
    """

    def become_program(_report: int, _original_mask: set[int]) -> NoReturn:
        gc.disable()
        _reset_signals(mask)
        environment = dict(os.environ)
        prepare(environment)
        _execute(command, environment)

    child = _fork(become_program)
    assert child is not None  # the child of this fork never returns
    return child


def fork_confined(
    confinement: Confinement, in_child: Callable[[], None] | None = None, *, new_session: bool = False
) -> Child | None:
    """Fork this program: None in the child, which goes on confined; the Child in the parent.

    The child keeps its fds, its environment and its signal handlers, and whatever is in its memory.
    `in_child` is as for `start`. Raises StartError in the parent; the child does not return then.
    """
    parent = os.getpid()

    def become_confined(_report: int, original_mask: set[int]) -> None:
        if new_session:
            os.setsid()
        confinement.apply(parent, in_child)
        signal.pthread_sigmask(signal.SIG_SETMASK, original_mask)

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # where Python was started without it
            stream.flush()  # what is buffered would be written by both
    return _fork(become_confined)


def _fork(in_child: Callable[[int, set[int]], None]) -> Child | None:
    """Fork and run `in_child` with the fd for reports and the signal mask of before; None in the child."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # Inherited: the kernel would throw our children's exit statuses away.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reader, writer = _pipe_above_standard_fds()
    # No signal handler of the caller's may run in the child.
    original_mask = set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())))
    try:
        pid = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, original_mask)
        raise StartError(f"cannot fork: {error.strerror}") from error
    if pid == 0:
        os.close(reader)
        _run_or_report(in_child, writer, original_mask)
        os.close(writer)
        return None
    os.close(writer)
    return _await_start(pid, reader, original_mask)


def _pipe_above_standard_fds() -> tuple[int, int]:
    """A close-on-exec pipe that is never 0, 1 or 2, even where those are closed."""
    low = os.pipe()
    try:
        reader = fcntl.fcntl(low[0], fcntl.F_DUPFD_CLOEXEC, 3)
        writer = fcntl.fcntl(low[1], fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(low[0])
        os.close(low[1])
    return reader, writer


def _run_or_report(in_child: Callable[[int, set[int]], None], report: int, original_mask: set[int]) -> None:
    """In the child: what goes wrong must reach the parent, and never the code that called fork."""
    try:
        in_child(report, original_mask)
    except BaseException as error:
        try:
            kind = type(error).__name__
            message = str(error) if isinstance(error, (StartError, RuntimeError)) else f"{kind}: {error}"
            # Cut before it is encoded: escapes make up to six bytes of a character.
            text = json.dumps({"kind": kind, "message": message[: _REPORT_BYTES // 8]})
            os.write(report, text.encode("ascii"))
        finally:
            os._exit(StartError.exit_status)


def _await_start(pid: int, reader: int, original_mask: set[int]) -> Child:
    """In the parent: wait until the child has become what it should, or raise what it reports."""
    try:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, original_mask)
            report = b"".join(iter(lambda: os.read(reader, _REPORT_BYTES), b""))
        finally:
            os.close(reader)
        if not report:
            return Child(pid)
    except BaseException:  # KeyboardInterrupt is one
        # Not reaped yet, so the number is still this child's.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    os.waitpid(pid, 0)
    content = json.loads(report)
    raise _REPORTED.get(content["kind"], StartError)(content["message"])


def _reset_signals(mask: Iterable[int]) -> None:
    """Undo what this Python program did to signals, then set the mask."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)) or number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _execute(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become `command`, looked for in the environment's PATH as a shell does.

    os.execvpe would call a command that is nowhere "not executable" if a directory of PATH is closed to us.
    """
    name = command[0]
    if "/" in name:
        candidates = [name]
    else:
        path = environment.get("PATH", DEFAULT_PATH)
        candidates = [os.path.join(directory, name) for directory in path.split(":") if directory]
    refusal: CommandNotExecutable | None = None
    for candidate in candidates if name else ():
        try:
            os.execve(candidate, list(command), environment)
        except OSError as error:
            # The file may be there although exec says ENOENT: then its interpreter is missing.
            if refusal is None and os.path.lexists(candidate):
                refusal = CommandNotExecutable(f"{candidate}: cannot be run: {error.strerror}")
    raise refusal or CommandNotFound(f"{name}: command not found")


class SignalForwarder:
    """Takes FORWARDED_SIGNALS of this process and passes them to a child.

    Make it before the child, and before any other thread, so that no signal is lost; give its
    `original_mask` to `start`. Wait until its fd is readable, then call `forward`. Closing it gives the
    signals back to this process.
    """

    def __init__(self, *, typed: bool = False) -> None:
        """`typed`: the child is not in the terminal's foreground, so what is typed there is passed on too."""
        self._not_passed = frozenset() if typed else _TERMINAL_SIGNALS
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED_SIGNALS)
        self.original_mask = frozenset(map(int, blocked))
        try:
            self.fd = syscalls.signalfd(FORWARDED_SIGNALS)
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.original_mask)
            raise

    def fileno(self) -> int:
        """A non-blocking fd that is readable when a signal has come."""
        return self.fd

    def forward(self, child: Child) -> None:
        """Pass on every signal that has come, except those that the terminal sent to the child too."""
        for number, code in self._read():
            if not (code == _SI_KERNEL and number in self._not_passed):
                child.signal(number)

    def _read(self) -> Iterator[tuple[int, int]]:
        """The number and si_code of each signal that has come."""
        while True:
            try:
                data = os.read(self.fd, _SIGNAL_INFOS_AT_ONCE * _SIGNAL_INFO.size)
            except BlockingIOError:
                return
            for number, _, code in _SIGNAL_INFO.iter_unpack(data):
                yield number, code

    def close(self) -> None:
        """Give the signals back; one that came in between takes its usual effect now."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            signal.pthread_sigmask(signal.SIG_SETMASK, self.original_mask)

    def __enter__(self) -> "SignalForwarder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def wait_with_signals(child: Child, forwarder: SignalForwarder | None = None) -> int:
    """Pass signals to `child` until it ends; return its exit status as `Child.wait` does."""
    if forwarder is None:
        with SignalForwarder() as own:
            return wait_with_signals(child, own)
    poll = select.poll()
    poll.register(child, select.POLLIN)
    poll.register(forwarder, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if child.pidfd in ready:
            return child.wait()
        forwarder.forward(child)
