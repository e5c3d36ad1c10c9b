"""The processes between a sandbox's caller and its program: starter, init, and the program's own until it is one.

`launch` says what each is, and the rules. This module and all that it needs is loaded by the starter, while the caller
does something else.
"""

import gc
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

from sandboxed import syscalls
from sandboxed.child import execute, reset_signals
from sandboxed.confinement import namespaces, terminal
from sandboxed.confinement.chain_messages import GO, INIT, PROGRAM, TERMINAL, run_or_report
from sandboxed.confinement.init import Init, hide_arguments
from sandboxed.confinement.layers import check_layers, enter_domain, give_up_privileges, keep_signals_inside
from sandboxed.confinement.newroot import enter_new_root
from sandboxed.confinement.sandbox import NAMESPACES, Sandbox, StartError


class Chain:
    """What each process of the chain does."""

    def __init__(
        self,
        sandbox: Sandbox,
        caller: socket.socket,
        control: socket.socket,
        in_child: Callable[[], None] | None,
        *,
        new_program: bool,
        mask: Iterable[int],
        cwd: str,
        procs: int | None,
        terminal: int | None,
        in_front: bool,
    ) -> None:
        """`caller` leads to the caller, and `control` from the init to it. `mask` is the program's signal mask.

        `cwd` is where the caller stood, `procs` the cgroup's, and `terminal` the one that the program's is made
        after; `in_front`: the program may read from it before it asks for input.
        """
        self._sandbox = sandbox
        self._caller = caller
        self._control = control
        self._in_child = in_child
        self._new_program = new_program
        self._program_mask = mask
        self._cwd = cwd
        self._procs = procs
        self._terminal = terminal
        self._in_front = in_front

    def start(self) -> None:
        """Make the namespaces, and the init, whose child the program's process is; only that one returns."""
        check_layers(self._sandbox)
        if self._procs is not None:
            os.write(self._procs, b"0")
        if self._sandbox.has(NAMESPACES):
            # The maps of ids belong to the caller only as long as its memory may be read.
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
            namespaces.enter(self._sandbox)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if os.fork() != 0:
            os._exit(0)
        self._caller.send(INIT)
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
        has_own_signals = keep_signals_inside(self._sandbox)
        init = os.getpid()
        if self._new_program:
            hide_arguments()
        program = os.fork()
        if program == 0:
            self._program(init, slave)
            return
        for fd in (0, 1, 2):
            _open_null_as(fd)
        kept = {0, 1, 2, self._control.fileno()} | ({slave} if slave is not None else set())
        syscalls.close_all_but(kept)
        Init(program, self._control, slave, self._sandbox.has(NAMESPACES), has_own_signals).run()

    def _enter_sandbox(self) -> None:
        if self._sandbox.has(NAMESPACES):
            namespaces.settle(self._sandbox)
            enter_new_root(self._sandbox)
        else:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)

    def _make_terminal(self) -> int | None:
        if self._terminal is None:
            return None
        master, slave = terminal.make(self._terminal, self._sandbox.uid, self._sandbox.gid)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", master))
        self._caller.sendmsg((TERMINAL,), (rights,))
        os.close(master)
        return slave

    def _program(self, init: int, slave: int | None) -> None:
        # A group of its own, in the init's session: an orphaned group could not be stopped from its terminal.
        os.setpgid(0, 0)
        if slave is not None:
            terminal.take(slave, self._in_front)
            os.close(slave)
        if self._new_program:
            _prepare_fds(self._sandbox.keep, self._caller.fileno())
            reset_signals(self._program_mask)
        else:
            self._control.close()
        enter_domain(self._sandbox, init, self._cwd, self._in_child)
        self._caller.send(PROGRAM)
        if self._caller.recv(len(GO)) != GO:
            os._exit(StartError.exit_status)  # the caller has given up, or is gone

    def become(self, command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
        """In the program's process: be the program from now on."""
        run_or_report(self._caller, lambda: execute(command, environment))

    def leave(self) -> None:
        """In the confined half: it is on its way."""
        self._caller.close()
        gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._program_mask)


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
