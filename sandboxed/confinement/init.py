"""The init of a sandbox: its first process, with which all of it ends.

Rules that this module enforces:
- When the program ends, or the parent outside does, every process of the sandbox is ended: by the kernel where
  the init is one of a namespace of pids; else by one signal to all that its Landlock domain holds, or, where that
  has no scopes, one by one, each of them being a descendant of the init's.
- Its exit status is the program's, as a shell has it.
- It tells the parent when the program was stopped, and sends the program's group the signals that the parent
  names; it understands nothing else, and nothing that the program says.

It has the program's uid, no privileges, no files but the connection to its parent, and cannot be looked into.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import time
from typing import NoReturn

from sandboxed import syscalls
from sandboxed.child import SIGNAL_STATUS

# Of the fields of /proc/PID/stat, those behind the name: arg_start is the 48th of all.
_ARG_START = 48 - 3
_ARG_END = 49 - 3

# What goes over the connection between parent and init, one byte each: what, and a signal's number.
_MESSAGE = struct.Struct("cB")
STOPPED = b"t"  # to the parent: the program was stopped by this signal
IN_FRONT = b"r"  # to the parent: the program's group has the terminal, and goes on: it hears its keys again
SIGNAL = b"s"  # to the init: send this to the program's process group
FOREGROUND = b"f"  # to the init: give the program's group the terminal, and let it go on
BACKGROUND = b"b"  # to the init: take it away; one that waits for input asks for it again

# Rounds of looking for descendants that are left, where there is no namespace of pids. Each kills all that it finds;
# a new round finds what they made meanwhile.
_ROUNDS = 1000
_ROUND_SECONDS = 0.002


def pack(what: bytes, number: int = 0) -> bytes:
    """One message."""
    return _MESSAGE.pack(what, number)


def unpack(message: bytes) -> tuple[bytes, int]:
    """What a message says."""
    what, number = _MESSAGE.unpack(message)
    return what, number


def hide_arguments() -> None:
    """Take the caller's command line, which may name its secrets, from where the program could read it.

    /proc/1/cmdline reads the memory between arg_start and arg_end (proc(5)); nobody else needs it.
    """
    with open("/proc/self/stat", "rb") as file:
        numbers = file.read().rpartition(b")")[2].split()
    start, end = int(numbers[_ARG_START]), int(numbers[_ARG_END])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


class Init:
    """The loop of the init. `terminal` is the program's, of which the init leads the session.

    `own_pids`: all of the sandbox ends with this process. `has_own_signals` is as for end_descendants().
    """

    def __init__(
        self,
        program: int,
        control: socket.socket,
        terminal: int | None,
        own_pids: bool,
        has_own_signals: bool,
    ) -> None:
        self._program = program
        self._control = control
        self._terminal = terminal
        self._own_pids = own_pids
        self._has_own_signals = has_own_signals

    def run(self) -> NoReturn:
        """Serve until the program or the parent ends. All signals are blocked."""
        children = syscalls.signalfd([signal.SIGCHLD])
        poll = select.poll()
        poll.register(children, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            self._reap()
            ready = {fd for fd, _ in poll.poll()}
            if children in ready:
                os.read(children, 4096)
            if self._control.fileno() in ready:
                self._obey()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                self._end(0)
            if pid == 0:
                return
            if pid != self._program:
                continue
            if os.WIFSTOPPED(status):
                self._tell(pack(STOPPED, os.WSTOPSIG(status)))
            elif os.WIFSIGNALED(status):
                self._end(SIGNAL_STATUS + os.WTERMSIG(status))
            else:
                self._end(os.WEXITSTATUS(status))

    def _tell(self, message: bytes) -> None:
        try:
            self._control.send(message, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return

    def _obey(self) -> None:
        try:
            message = self._control.recv(_MESSAGE.size)
        except (BlockingIOError, ConnectionResetError):
            message = b""
        if len(message) != _MESSAGE.size:
            self._end(SIGNAL_STATUS + signal.SIGKILL)  # the parent is gone
        what, number = unpack(message)
        if what in (FOREGROUND, BACKGROUND) and self._terminal is not None:
            with contextlib.suppress(OSError):  # it was hung up
                os.tcsetpgrp(self._terminal, self._program if what == FOREGROUND else os.getpgrp())
        with contextlib.suppress(OSError):  # the group has gone; the end of the program is on its way here
            if what == SIGNAL:
                os.killpg(self._program, number)
            if what == BACKGROUND:
                os.killpg(self._program, signal.SIGSTOP)  # a read that waits is begun again by that
            if what in (FOREGROUND, BACKGROUND):
                os.killpg(self._program, signal.SIGCONT)
        if what == FOREGROUND:
            self._tell(pack(IN_FRONT))

    def _end(self, status: int) -> NoReturn:
        if not self._own_pids:
            end_descendants(self._has_own_signals)
        os._exit(status)


def end_descendants(has_own_signals: bool) -> None:
    """Kill and reap all descendants of this process, which is their subreaper (PR_SET_CHILD_SUBREAPER).

    `has_own_signals`: a signal to every process reaches those of the sandbox alone; else they are looked for.
    """
    for _ in range(_ROUNDS):
        for pid in (-1,) if has_own_signals else _descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_ROUND_SECONDS)


def _descendants() -> list[int]:
    """All descendants, by /proc/PID/task/TID/children; see proc(5)."""
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        try:
            tasks = os.listdir(f"/proc/{waiting[-1]}/task")
        except OSError:
            waiting.pop()
            continue
        parent = waiting.pop()
        for task in tasks:
            try:
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    children = [int(word) for word in file.read().split()]
            except OSError:
                continue
            found += children
            waiting += children
    return found
