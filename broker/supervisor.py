"""The supervisor: it accepts, reads who is asking, introduces clients to the worker, and writes the audit.

It parses nothing that a client sent: it never receives from a client's connection. What it reads of the
worker's are audit records, which it only cuts at line ends.
"""

import collections
import contextlib
import errno
import functools
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

from broker.audit import AuditLog, audit_pipe
from broker.introduction import AUDIT_FAILS, AUDIT_WORKS, READY, Introduction
from broker.limits import (
    ACCEPT_BURST,
    AUDIT_GATHER_SECONDS,
)
from broker.listeners import Listener
from broker.worker_process import run_worker
from policy import Policy
from sandboxed.descriptors import send_with_fds

_END_SECONDS = 5.0


def complain(message: str) -> None:
    """Tell the administrator, on standard error."""
    if sys.stderr is not None:  # None would be standard output
        print(f"fdbroker: {message}", file=sys.stderr, flush=True)


class WorkerDied(Exception):
    """The worker ended though nobody had asked it to."""


class Supervisor:
    """One worker and what it needs; `run` serves until something ends it.

    Several events can end it, so each source of events is an fd with a handler: `watch` adds more.
    """

    def __init__(
        self,
        policy: Policy,
        audit: AuditLog,
        listeners: Sequence[Listener] = (),
        introduce: Callable[[socket.socket, str], Introduction] | None = None,
    ) -> None:
        """Start the worker. `introduce` reads who is at the other end of an accepted connection."""
        self._audit = audit
        self._listeners = {listener.socket.fileno(): listener for listener in listeners}
        self._introduce = introduce
        self._waiting: collections.deque[tuple[bytes, socket.socket]] = collections.deque()
        self._running = True
        self._next_write = 0.0
        self._audit_watched = True
        self._told_failing = False
        self.lost_records = False  # at the end some could not be written
        self._pid, self._control, self._records = self._start_worker(policy)
        self._pidfd = os.pidfd_open(self._pid)
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self.watch(self._records, self._records_waiting)
        self.watch(self._pidfd, self._worker_died)
        for fd in self._listeners:
            self.watch(fd, functools.partial(self._accept, fd))

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call `handler` whenever `fd` can be read."""
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """End what watch() began."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def stop(self) -> None:
        """Let run() return."""
        self._running = False

    def run(self) -> None:
        """Serve until stop() is called. Raises WorkerDied."""
        gc.freeze()  # what is loaded by now stays: the collector need not look at it again
        gc.enable()
        while self._running:
            for fd, _ in self._epoll.poll(self._timeout()):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler()
            self._on_time()

    def introduce(self, introduction: Introduction, connection: socket.socket) -> None:
        """Hand `connection` to the worker and close it here."""
        self._waiting.append((introduction.encoded(), connection))
        self._send_waiting()

    def note(self, event: str, **fields: object) -> None:
        """Write an audit record of the supervisor's own."""
        self._audit.note(event, **fields)

    def reopen_audit(self) -> None:
        """Go on in the file that has the audit's name now."""
        self._audit.reopen()

    def end(self) -> None:
        """End the worker, write what it still had to say, and close all."""
        for listener in self._listeners.values():
            listener.close()
        if not self._serves():
            self._kill()  # it has nothing to say, and could be a while at it
        self._control.close()
        if not self._drain():
            self._kill()
            self._drain()
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        self.lost_records = not self._audit.finish(_END_SECONDS)
        for _, connection in self._waiting:
            connection.close()
        self._epoll.close()
        for fd in (self._records, self._pidfd):
            os.close(fd)

    # --- the worker --------------------------------------------------------------------------------------

    def _start_worker(self, policy: Policy) -> tuple[int, socket.socket, int]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        records, record_end = audit_pipe()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # where Python was started without it
                stream.flush()
        pid = os.fork()
        if pid == 0:
            run_worker(policy, theirs, record_end)
        theirs.close()
        os.close(record_end)
        ours.setblocking(False)
        return pid, ours, records

    def _serves(self) -> bool:
        """Whether the worker has come so far that it may have served somebody."""
        try:
            return self._control.recv(len(READY)) == READY
        except OSError:
            return False

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _worker_died(self) -> None:
        raise WorkerDied("the worker ended unexpectedly")

    # --- clients -----------------------------------------------------------------------------------------

    def _accept(self, fd: int) -> None:
        listener = self._listeners[fd]
        for _ in range(ACCEPT_BURST):
            if self._waiting:
                return
            try:
                connection, _ = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # ECONNABORTED and the like concern one client; without fds nobody can be accepted for now.
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    time.sleep(0.01)
                return
            self._accepted(connection, listener.name)

    def _accepted(self, connection: socket.socket, name: str) -> None:
        assert self._introduce is not None
        try:
            connection.setblocking(False)
            introduction = self._introduce(connection, name)
        except OSError as error:
            complain(f"a client could not be identified, so it was turned away: {error}")
            connection.close()
            return
        self.introduce(introduction, connection)

    def _send_waiting(self) -> None:
        """Introduce those who wait; one that does not fit now waits on, and nobody else is accepted."""
        while self._waiting:
            message, connection = self._waiting[0]
            try:
                send_with_fds(self._control, message, [connection.fileno()])
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    return
                complain(f"a client could not be introduced to the worker: {error}")
            self._waiting.popleft()
            connection.close()

    # --- the audit ---------------------------------------------------------------------------------------

    def _records_waiting(self) -> None:
        """Write what came; then let more gather, so that a busy worker costs few wake-ups."""
        self._audit.take(self._records)
        self._tell_worker()
        self._next_write = time.monotonic() + AUDIT_GATHER_SECONDS
        self._watch_records(False)

    def _tell_worker(self) -> None:
        """Tell the worker when the audit can no longer be written, and when it can again."""
        if self._told_failing is not self._audit.failing:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                self._control.send(AUDIT_FAILS if self._audit.failing else AUDIT_WORKS)
                self._told_failing = self._audit.failing

    def _watch_records(self, wanted: bool) -> None:
        if wanted is not self._audit_watched:
            self._audit_watched = wanted
            self._epoll.modify(self._records, select.EPOLLIN if wanted else 0)

    def _timeout(self) -> float | None:
        if self._audit.blocked:
            return self._audit.retry_seconds()
        if self._waiting:
            return 0.01
        if not self._audit_watched:
            return AUDIT_GATHER_SECONDS
        return self._audit.retry_seconds() if self._audit.pending else None

    def _on_time(self) -> None:
        if self._waiting:
            self._send_waiting()
        if self._audit.pending:
            self._audit.flush()
        self._tell_worker()
        if not self._audit.blocked and time.monotonic() >= self._next_write:
            self._watch_records(True)

    def _drain(self) -> bool:
        """Write what the worker says until it ends; False when it does not end in time."""
        ended = select.poll()
        ended.register(self._records, select.POLLIN)
        deadline = time.monotonic() + _END_SECONDS
        while time.monotonic() < deadline:
            if ended.poll(100) and not self._audit.take(self._records):
                return True
            if self._audit.pending:
                self._audit.flush()
        return False
