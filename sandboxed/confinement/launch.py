"""Starting a program in a sandbox: the chain of processes from the caller to the program.

    caller ── starter ── init ── program

The starter makes the namespaces and is gone at once; the init is the first process in them, builds the root and
gives up what it could do with it; the program's process adds the Landlock domain and becomes the program. The
caller then is the init's parent. Rules that this module enforces:
- What fails anywhere on the way is raised in the caller, and all of the chain is gone by then: a program never
  runs half confined. A layer that the machine cannot give is LayerMissing.
- None of the chain can be looked into by others of its uid while it changes.
- The program starts only when the caller says so, and ends when the caller does.
- Nothing of the caller's is left in a new program but what it was to keep.

Start from a process with one thread: the chain's processes are forks of it.
"""

import fcntl
import gc
import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sandboxed import syscalls
from sandboxed.child import Child, keep_exit_statuses
from sandboxed.confinement import chain_messages, terminal
from sandboxed.confinement.cgroup import Cgroup
from sandboxed.confinement.chain_messages import MESSAGE_BYTES, reported, run_or_report
from sandboxed.confinement.sandbox import LIMITS, NAMESPACES, TERMINAL, Sandbox, StartError

if TYPE_CHECKING:
    from sandboxed.confinement.chain import Chain

_UCRED = struct.Struct("iII")


def start(
    command: Sequence[str],
    sandbox: Sandbox,
    environment: Mapping[str, str],
    in_child: Callable[[], None] | None = None,
    *,
    mask: Iterable[int] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Child:
    """Run `command` in `sandbox`, with exactly `environment`, and return once it runs.

    `in_child` runs in the program's process with the new identity, before the Landlock domain: a socket that it
    connects there names the new uid to its peer. It may change `environment`, and must not wait for an answer of
    this process. `meanwhile` runs here while the chain works, and what it raises ends the start. `mask` is the
    program's signal mask, by default the caller's.

    Raises LayerMissing, CommandNotFound, CommandNotExecutable, or StartError for everything else.
    """
    if not command:
        raise ValueError("there is no command to start")
    begun = _Start(sandbox, in_child, new_program=True, mask=mask).begin(meanwhile)
    if not isinstance(begun, Child):
        begun.become(command, environment)
    return begun


def fork_confined(
    sandbox: Sandbox,
    in_child: Callable[[], None] | None = None,
    *,
    meanwhile: Callable[[], None] | None = None,
) -> Child | None:
    """Fork this program: None in the confined half, which goes on in `sandbox`; the Child in the caller.

    The confined half keeps its fds, its environment and its signal handlers, and whatever is in its memory.
    `in_child` and `meanwhile` are as for `start`. Raises as `start` does, in the caller.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # where Python was started without it
            stream.flush()  # what is buffered would be written by both
    begun = _Start(sandbox, in_child, new_program=False, mask=None).begin(meanwhile)
    if isinstance(begun, Child):
        return begun
    begun.leave()
    return None


class _Start:
    """One start, as the caller sees it."""

    def __init__(
        self,
        sandbox: Sandbox,
        in_child: Callable[[], None] | None,
        *,
        new_program: bool,
        mask: Iterable[int] | None,
    ) -> None:
        if not sandbox.has(NAMESPACES) and sandbox.work is None:
            raise ValueError("without namespaces the program needs a directory on the disk")
        _refuse_directories()
        self._sandbox = sandbox
        self._in_child = in_child
        self._new_program = new_program
        self._wanted_mask = mask
        self._mask: set[int] = set()
        self._cwd = _working_directory()
        self._caller_end, self._chain_end, self._control, self._init_control = _pairs_above_standard_fds()
        self._caller_end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._cgroup = Cgroup.make(sandbox.limits) if sandbox.has(LIMITS) else None
        self._outer_terminal = terminal.outer() if sandbox.has(TERMINAL) else None
        self._in_front = terminal.is_in_front()  # asked here: the chain is in another session

    def begin(self, meanwhile: Callable[[], None] | None) -> "Child | Chain":
        """Fork the chain: the Child in the caller; in the program's process, confined and told to go, the Chain."""
        keep_exit_statuses()
        with _Subreaper():
            # No signal handler of the caller's may run in the chain.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._mask = set(map(int, blocked))
            try:
                starter = os.fork()
            except OSError as error:
                signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
                self._close(self._caller_end, self._chain_end, self._control, self._init_control)
                if self._cgroup is not None:
                    self._cgroup.close()
                raise StartError(f"cannot fork: {error.strerror}") from error
            if starter == 0:
                return run_or_report(self._chain_end, self._run_chain)
            return self._await_program(starter, meanwhile)

    def _await_program(self, starter: int, meanwhile: Callable[[], None] | None) -> Child:
        self._close(self._chain_end, self._init_control)
        heard = _Heard()
        child: Child | None = None
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            # The program may have our uid: what /proc tells of us is not for it.
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
            if meanwhile is not None:
                meanwhile()
            self._listen(heard)
            if heard.program is None or heard.init is None:
                raise heard.error or StartError("the sandbox ended before its program began")
            os.waitpid(starter, 0)
            starter = 0
            child = self._hold(heard.program, heard.init)
            child.terminal, heard.terminal = heard.terminal, None
            child.cgroup, self._cgroup = self._cgroup, None
            self._caller_end.send(chain_messages.GO)
            self._listen(heard)
            if heard.error is not None:
                raise heard.error
            return child
        except BaseException:  # KeyboardInterrupt is one
            self._abandon(starter, heard, child)
            raise
        finally:
            self._caller_end.close()

    def _hold(self, program: int, init: int) -> Child:
        try:
            return Child(program, init, self._control)
        except OSError as error:
            raise StartError(f"cannot hold on to the program's process: {error.strerror}") from error

    def _listen(self, heard: "_Heard") -> None:
        """Hear the chain until the program's process waits for the word to go, or nobody is left who could speak."""
        while True:
            message, pid, fds = self._receive()
            if fds:
                heard.terminal = fds[0]
            if message == chain_messages.TERMINAL and not fds:
                raise StartError("cannot take the program's terminal: too many open files")
            if message == chain_messages.INIT:
                heard.init = pid
            elif message == chain_messages.PROGRAM:
                heard.program = pid
                return
            elif message != chain_messages.TERMINAL:
                if message:
                    heard.error = reported(message)
                return

    def _receive(self) -> tuple[bytes, int, list[int]]:
        room = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(4)
        data, control, _, _ = self._caller_end.recvmsg(MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        pid = 0
        fds: list[int] = []
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid = _UCRED.unpack(content[: _UCRED.size])[0]
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4])
        return data, pid, fds

    def _abandon(self, starter: int, heard: "_Heard", child: Child | None) -> None:
        """End all of the chain, whatever it does at the moment."""
        while heard.init is None and heard.error is None:
            message, pid, fds = self._receive()
            heard.init = pid if message == chain_messages.INIT else None
            for fd in fds:
                os.close(fd)
            if not message:
                break
        if starter:
            os.waitpid(starter, 0)
        if heard.init is not None:
            if self._sandbox.has(NAMESPACES):
                # Our child by now, and not waited for yet, so the number is still its own.
                os.kill(heard.init, signal.SIGKILL)
            else:
                # It alone knows its descendants, and ends them when it has no parent: killed, it would leave them.
                self._close(self._caller_end, self._control)
            os.waitpid(heard.init, 0)
        if heard.terminal is not None:
            os.close(heard.terminal)
        if child is not None:
            child.close()
        if self._cgroup is not None:
            self._cgroup.close()
        self._control.close()

    @staticmethod
    def _close(*ends: socket.socket) -> None:
        for end in ends:
            end.close()

    def _run_chain(self) -> "Chain":
        """In the starter and what comes of it; it returns in the program's process."""
        # An object of the caller's that is garbage here must not close a number that is ours by now.
        gc.disable()
        self._close(self._caller_end, self._control)
        from sandboxed.confinement.chain import Chain

        chain = Chain(
            self._sandbox,
            self._chain_end,
            self._init_control,
            self._in_child,
            new_program=self._new_program,
            mask=self._mask if self._wanted_mask is None else self._wanted_mask,
            cwd=self._cwd,
            procs=None if self._cgroup is None else self._cgroup.procs,
            terminal=self._outer_terminal,
            in_front=self._in_front,
        )
        chain.start()
        return chain


class _Heard:
    """What the caller knows of the chain so far."""

    def __init__(self) -> None:
        self.init: int | None = None
        self.program: int | None = None
        self.terminal: int | None = None
        self.error: StartError | None = None


class _Subreaper:
    """While it is entered, children whose parent ends become this process's (PR_SET_CHILD_SUBREAPER, prctl(2))."""

    def __enter__(self) -> None:
        self._caller = os.getpid()
        self._before = syscalls.get_child_subreaper()
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)

    def __exit__(self, *_: object) -> None:
        if os.getpid() == self._caller:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, int(self._before))


def _refuse_directories() -> None:
    """A directory that is inherited leads everywhere from there, whatever the root."""
    for fd, name in enumerate(("input", "output", "error")):
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise StartError(f"standard {name} is a directory: the program could leave its sandbox by it")
        except OSError:
            continue


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _pairs_above_standard_fds() -> list[socket.socket]:
    """The ends of two close-on-exec pairs, of which none is 0, 1 or 2, even where those are closed."""
    ends: list[socket.socket] = []
    try:
        for _ in range(2):
            low = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with low[0], low[1]:
                for end in low:
                    ends.append(socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)))
    except OSError as error:
        for end in ends:
            end.close()
        raise StartError(f"cannot make the connections to a sandbox: {error.strerror}") from error
    return ends
