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
import json
import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from sandboxed import namespaces, syscalls, terminal
from sandboxed.cgroup import Cgroup
from sandboxed.child import Child, CommandNotExecutable, CommandNotFound, execute, reset_signals
from sandboxed.confinement import check_layers, enter_domain, give_up_privileges
from sandboxed.init import Init, hide_arguments
from sandboxed.newroot import enter_new_root
from sandboxed.sandbox import LIMITS, NAMESPACES, TERMINAL, LayerMissing, Sandbox, StartError

# Bytes of one message of the chain.
_MESSAGE_BYTES = 4096

# What the chain says to the caller. The kernel adds whose words they are (SCM_CREDENTIALS).
_INIT = b"init"
_TERMINAL = b"terminal"
_PROGRAM = b"program"

# And the caller to the program's process: go on.
_GO = b"go"

_UCRED = struct.Struct("iII")
_REPORTED = {kind.__name__: kind for kind in (StartError, CommandNotExecutable, CommandNotFound)}


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
    chain = _Chain(sandbox, in_child, new_program=True, mask=mask)
    child = chain.begin(meanwhile)
    if child is None:
        chain.run_or_report(lambda: execute(command, environment))
    assert child is not None  # the program's process has become the program
    return child


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
    chain = _Chain(sandbox, in_child, new_program=False, mask=None)
    child = chain.begin(meanwhile)
    if child is None:
        chain.leave()
    return child


class _Chain:
    """One start: the ends of both connections, and what each process of the chain does."""

    def __init__(
        self,
        sandbox: Sandbox,
        in_child: Callable[[], None] | None,
        *,
        new_program: bool,
        mask: Iterable[int] | None,
    ) -> None:
        check_layers(sandbox)
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

    # --- the caller --------------------------------------------------------------------------------------

    def begin(self, meanwhile: Callable[[], None] | None) -> Child | None:
        """Fork the chain: None in the program's process, confined and told to go; the Child in the caller."""
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            # Inherited: the kernel would throw our children's exit statuses away.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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
                self.run_or_report(self._starter)
                return None
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
            self._caller_end.send(_GO)
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
            if message == _TERMINAL and not fds:
                raise StartError("cannot take the program's terminal: too many open files")
            if message == _INIT:
                heard.init = pid
            elif message == _PROGRAM:
                heard.program = pid
                return
            elif message != _TERMINAL:
                if message:
                    heard.error = _reported(message)
                return

    def _receive(self) -> tuple[bytes, int, list[int]]:
        room = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(4)
        data, control, _, _ = self._caller_end.recvmsg(_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
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
            heard.init = pid if message == _INIT else None
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
                # It ends what it started when it has no parent; killed, it would leave that to us.
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

    # --- the chain ---------------------------------------------------------------------------------------

    def run_or_report(self, step: Callable[[], None]) -> None:
        """In the chain: what goes wrong must reach the caller, and never the code that called fork."""
        try:
            step()
        except BaseException as error:
            try:
                self._chain_end.send(_report(error))
            finally:
                os._exit(StartError.exit_status)

    def _starter(self) -> None:
        """Make the namespaces, and the init, whose child the program's process is; only that one returns."""
        # An object of the caller's that is garbage here must not close a number that is ours by now.
        gc.disable()
        self._close(self._caller_end, self._control)
        if self._cgroup is not None:
            os.write(self._cgroup.procs, b"0")
        if self._sandbox.has(NAMESPACES):
            # The maps of ids belong to the caller only as long as its memory may be read.
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
            namespaces.enter(self._sandbox)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if os.fork() != 0:
            os._exit(0)
        self._chain_end.send(_INIT)
        self._init()

    def _init(self) -> None:
        os.setsid()
        try:
            self._enter_sandbox()
        except OSError as error:
            if self._sandbox.has(NAMESPACES):
                raise namespaces.missing(error) from error
            raise
        slave = self._make_terminal()
        give_up_privileges(self._sandbox)
        init = os.getpid()
        if self._new_program:
            hide_arguments()
        program = os.fork()
        if program == 0:
            self._program(init, slave)
            return
        for fd in (0, 1, 2):
            _open_null_as(fd)
        kept = {0, 1, 2, self._init_control.fileno()} | ({slave} if slave is not None else set())
        syscalls.close_all_but(kept)
        Init(program, self._init_control, slave, self._sandbox.has(NAMESPACES)).run()

    def _enter_sandbox(self) -> None:
        if self._sandbox.has(NAMESPACES):
            namespaces.settle(self._sandbox)
            enter_new_root(self._sandbox)
        else:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)

    def _make_terminal(self) -> int | None:
        if self._outer_terminal is None:
            return None
        master, slave = terminal.make(self._outer_terminal, self._sandbox.uid, self._sandbox.gid)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", master))
        self._chain_end.sendmsg((_TERMINAL,), (rights,))
        os.close(master)
        return slave

    def _program(self, init: int, slave: int | None) -> None:
        # A group of its own, in the init's session: an orphaned group could not be stopped from its terminal.
        os.setpgid(0, 0)
        if slave is not None:
            terminal.take(slave)
            os.close(slave)
        if self._new_program:
            _prepare_fds(self._sandbox.keep, self._chain_end.fileno())
            reset_signals(self._mask if self._wanted_mask is None else self._wanted_mask)
        else:
            self._init_control.close()
        enter_domain(self._sandbox, init, self._cwd, self._in_child)
        self._chain_end.send(_PROGRAM)
        if self._chain_end.recv(len(_GO)) != _GO:
            os._exit(StartError.exit_status)  # the caller has given up, or is gone

    def leave(self) -> None:
        """In the confined half: it is on its way."""
        self._chain_end.close()
        gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


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


def _prepare_fds(keep: Iterable[int], report: int) -> None:
    """Close every fd but 0 to 2, `keep` and `report`, and make 0 to 2 and `keep` survive exec.

    Of 0 to 2 what is closed or close-on-exec becomes /dev/null: otherwise the program's first open would be
    taken for its standard output.
    """
    for fd in keep:
        os.set_inheritable(fd, True)
    syscalls.close_all_but((0, 1, 2, *keep, report))
    for fd in (0, 1, 2):
        if not _survives_exec(fd):
            _open_null_as(fd)


def _survives_exec(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _open_null_as(fd: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)
    os.set_inheritable(fd, True)


def _report(error: BaseException) -> bytes:
    kind = type(error).__name__
    if isinstance(error, LayerMissing):
        content = {"kind": kind, "layer": error.layer, "reason": error.reason, "help": error.help}
    else:
        message = str(error) if isinstance(error, (StartError, RuntimeError)) else f"{kind}: {error}"
        # Cut before it is encoded: escapes make up to twelve bytes of a character.
        content = {"kind": kind, "message": message[: _MESSAGE_BYTES // 16]}
    return json.dumps(content).encode("ascii")


def _reported(report: bytes) -> StartError:
    content = json.loads(report)
    if content["kind"] == LayerMissing.__name__:
        return LayerMissing(content["layer"], content["reason"], content["help"])
    return _REPORTED.get(content["kind"], StartError)(content["message"])
