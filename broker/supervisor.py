"""The supervisor: it accepts, reads who is asking, hands clients to a worker, and writes the audit.

Rules that this module enforces:
- it parses nothing that a client sent: it never receives from a client's connection. Of a worker it takes audit
  records, which it only cuts at line ends, and two words about connections;
- each connection is held here too. What a new worker gets is this process's own duplicate, and an identity that it read
  itself: nothing that another worker hands over;
- a worker that died takes its connections with it, for nobody knows how far it came, and another one is started.
"""

import collections
import contextlib
import errno
import functools
import gc
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence

from broker.audit import AuditLog
from broker.clients import Clients, Kept
from broker.confinement_report import AS_IT_COMES, Confinement, Setting, missing_layers
from broker.grants import Grants
from broker.introduction import AUDIT_FAILS, AUDIT_WORKS, DONE, FINISH, Introduction
from broker.limits import (
    ACCEPT_BURST,
    AUDIT_GATHER_SECONDS,
    CONFINE_ANEW_SECONDS,
    FORK_RETRY_SECONDS,
    HANDOVER_SECONDS,
    RESTART_FORGET_SECONDS,
    RESTART_MOST_SECONDS,
    RESTART_SECONDS,
)
from broker.listeners import Listener
from broker.workers import Worker, WorkerBroken
from policy import Policy

_END_SECONDS = 5.0

Introducer = Callable[[socket.socket, str], Introduction]
"""Reads who is at the other end of a connection that came by the socket of that name. Raises OSError."""


def _nobody_asked(good: bool) -> None:
    pass


_NOTHING_NEXT = (None, _nobody_asked)


def complain(message: str) -> None:
    """Tell the administrator, on standard error."""
    if sys.stderr is not None:  # None would be standard output
        print(f"fdbroker: {message}", file=sys.stderr, flush=True)


class WorkerDied(Exception):
    """The worker ended though nobody had asked it to."""


class Supervisor:
    """Workers and what they need; `run` serves until something ends it.

    Several events can end it, so each source of events is an fd with a handler: `watch` adds more.
    """

    def __init__(
        self,
        policy: Policy,
        audit: AuditLog,
        listeners: Sequence[Listener] = (),
        introduce: Introducer | None = None,
        clock: Callable[[], float] = time.monotonic,
        setting: Setting = AS_IT_COMES,
    ) -> None:
        """Start the worker. Without `introduce` there is one client, whom introduce() introduces, and no second worker.

        `setting` is how workers are to be confined. Raises OSError, and LayerMissing where that is not possible.
        """
        self.missing = missing_layers(setting.without)
        self._setting = setting._replace(without=frozenset(one.layer for one in self.missing))
        self._audit = audit
        self._introduce = introduce
        self._clock = clock
        self._running = True
        self._clients = Clients()
        self.grants = Grants()
        if introduce is not None:  # an embedded broker has nobody to tell, and no second worker
            audit.observe = self.grants.note
        self._waiting: collections.deque[tuple[bytes, Kept]] = collections.deque()
        self._listeners: dict[int, Listener] = {}
        self._generation = 0
        self._serving = Worker(policy, 0, self._setting)
        self._starting: Worker | None = None  # the next one, until it says that it serves
        self._next: tuple[Introducer | None, Callable[[bool], None]] = _NOTHING_NEXT
        self._finishing: list[Worker] = []  # those that bring their connections to an end
        # The generation that has a connection, by the connection's number.
        self._of_worker: dict[int, int] = {}
        self._deadline: float | None = None  # when those that finish are ended
        self._restart_at: float | None = None
        self._anew_at: float | None = None  # when a worker is started for the sake of its confinement
        self._last_anew = float("-inf")
        self.confine_anew: Callable[[], None] = lambda: None
        """Called when another worker would reach what the one that serves is kept from: replace() it by its like."""
        self.may_fork: Callable[[], bool] = lambda: True
        """Asked before a worker is started again: not while another thread runs, whose locks it would inherit."""
        self._restart_after = RESTART_SECONDS
        self._last_death = float("-inf")
        self.restarts = 0
        self.reloads = 0
        self._next_write = 0.0
        self._audit_watched = True
        self._told_failing = False
        self.lost_records = False  # at the end some could not be written
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._watch_worker(self._serving)
        for listener in listeners:
            self.listen_at(listener)

    # --- the event loop ----------------------------------------------------------------------------------

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
        """Serve until stop() is called. Raises WorkerDied where there is no second worker."""
        gc.freeze()  # what is loaded by now stays: the collector need not look at it again
        gc.enable()
        while self._running:
            for fd, _ in self._epoll.poll(self._timeout()):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler()
                else:
                    self._client_ended(fd)
            self._on_time()

    def _timeout(self) -> float | None:
        if self._audit.blocked:
            return self._audit.retry_seconds()
        if self._waiting:
            return 0.01
        if not self._audit_watched:
            return AUDIT_GATHER_SECONDS
        moments = (self._deadline, self._restart_at, self._anew_at)
        due = [moment - self._clock() for moment in moments if moment is not None]
        if self._audit.pending:
            due.append(self._audit.retry_seconds())
        return max(0.0, min(due)) if due else None

    def _on_time(self) -> None:
        if self._waiting:
            self._send_waiting()
        if self._audit.pending:
            self._audit.flush()
        self._tell_workers()
        if not self._audit.blocked and not self._audit_watched and self._clock() >= self._next_write:
            self._watch_records(True)
        if self._restart_at is not None and self._clock() >= self._restart_at:
            self._restart()
        if self._anew_at is not None and self._clock() >= self._anew_at:
            self._anew_at, self._last_anew = None, self._clock()
            self.confine_anew()
        if self._deadline is not None and self._clock() >= self._deadline:
            self._end_finishing()
        if self.grants.is_full:
            self.grants.sweep(self._clients.numbers())

    # --- workers -----------------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """The policy that is served."""
        return self._serving.policy

    @property
    def confinement(self) -> Confinement | None:
        """How the worker that serves is confined, once it said so."""
        return self._serving.confinement

    def replace(self, policy: Policy, introduce: Introducer, done: Callable[[bool], None]) -> None:
        """Serve by another policy: start a worker for it, which takes over when it says that it serves.

        A call is answered by one policy, whichever worker read it. `done` is told whether it has taken over; if not,
        the one before goes on. One replacement at a time: one that was for the same policy gives way. Raises OSError
        when no worker can be started.
        """
        self._discard_starting()
        self._generation += 1
        self._starting = Worker(policy, self._generation, self._setting)
        self._next = introduce, done
        self._watch_worker(self._starting)

    def _watch_worker(self, worker: Worker) -> None:
        self.watch(worker.records, functools.partial(self._records_waiting, worker))
        self.watch(worker.pidfd, functools.partial(self._worker_ended, worker))
        self.watch(worker.fileno(), functools.partial(self._worker_says, worker))

    def _worker_says(self, worker: Worker) -> None:
        was_ready = worker.ready
        try:
            said = worker.said()
        except WorkerBroken as error:
            complain(f"the worker is ended: {error}")
            worker.kill()
            self.unwatch(worker.fileno())
            return
        if worker.confinement is not None and not was_ready:
            self.note("worker", generation=worker.generation, confinement=worker.confinement.fields())
        if worker is self._serving and worker.wants_confinement_anew:
            worker.wants_confinement_anew = False
            self._anew_at = max(self._clock(), self._last_anew + CONFINE_ANEW_SECONDS)
        if worker is self._starting and worker.ready:
            self._take_over(worker)
        for what, number in said:
            self._left(worker, what, number)

    def _take_over(self, worker: Worker) -> None:
        """The new worker serves: let the one before it finish, and give its connections to this one."""
        before, self._serving, self._starting = self._serving, worker, None
        (self._introduce, done), self._next = self._next, _NOTHING_NEXT
        self.reloads += 1
        if self._audit.failing:
            worker.tell(AUDIT_FAILS)
        if self._restart_at is None:
            before.finishing = True
            self._finishing.append(before)
            self._deadline = self._clock() + HANDOVER_SECONDS
            before.tell(FINISH)  # one that is too far behind to hear it is ended with its time
        self._restart_at = None
        self._watch_listeners(True)
        done(True)
        # Those who wait were to be introduced to the one before, by its policy's names.
        for _, kept in list(self._waiting):
            self._hand_over(kept, answered=False)

    def _left(self, worker: Worker, what: bytes, number: int) -> None:
        """The worker has left a connection, to the next one or because it cannot serve it."""
        kept = self._clients.numbered(number)
        if kept is None or self._of_worker.get(number) != worker.generation:
            return
        if what == DONE and worker.finishing:
            self._hand_over(kept, answered=True)
        else:
            self._clients.end(kept)

    def _hand_over(self, kept: Kept, answered: bool) -> None:
        assert self._introduce is not None
        self._waiting = collections.deque(one for one in self._waiting if one[1] is not kept)
        try:
            introduction = self._introduce(kept.socket, kept.listener)
        except OSError as error:
            complain(f"a client could not be identified again, so it was turned away: {error}")
            self._clients.end(kept)
            return
        grants = self.grants.of(kept.number) if answered else ()
        self._send(introduction._replace(number=kept.number, answered=answered, grants=grants), kept)

    def _worker_ended(self, worker: Worker) -> None:
        """Its process has ended: as it was asked to, or not."""
        if worker.fileno() in self._handlers:
            self._worker_says(worker)  # which connections it left before
        status = self._reap(worker)
        if worker in self._finishing:
            self._finishing.remove(worker)
            self._end_clients_of(worker)
            if not self._finishing:
                self._deadline = None
        elif worker is self._starting:
            complain(
                "the worker of the new policy ended before it served: the policy before it stays in force"
            )
            self.note("worker-ended", status=status)
            self._starting_failed()
        else:
            if self._introduce is None:
                raise WorkerDied("the worker ended unexpectedly")
            self._serving_died(worker, status)

    def _serving_died(self, worker: Worker, status: int) -> None:
        now = self._clock()
        if now - self._last_death > RESTART_FORGET_SECONDS:
            self._restart_after = 0.0
        self._last_death = now
        self._restart_at = now + self._restart_after
        complain(
            f"the worker ended unexpectedly (status {status}): its clients were turned away, another one is started"
        )
        self.note("worker-ended", status=status, clients=len(self._clients))
        self._end_clients_of(worker)
        self._waiting.clear()
        self._watch_listeners(False)
        if not self._restart_after:
            self._restart()
        self._restart_after = min(max(RESTART_SECONDS, 2 * self._restart_after), RESTART_MOST_SECONDS)

    def _restart(self) -> None:
        if not self.may_fork():
            self._restart_at = self._clock() + FORK_RETRY_SECONDS
            return
        self._restart_at = None
        self._generation += 1
        try:
            worker = Worker(self._serving.policy, self._generation, self._setting)
        except OSError as error:
            complain(f"no worker can be started: {error.strerror}")
            self._restart_at = self._clock() + RESTART_MOST_SECONDS
            return
        self.restarts += 1
        self._serving = worker
        self._watch_worker(worker)
        if self._audit.failing:
            worker.tell(AUDIT_FAILS)
        self._watch_listeners(True)

    def _discard_starting(self) -> None:
        """End a worker that has not served yet: another is to take its place."""
        if self._starting is None:
            return
        self._starting.kill()
        self._reap(self._starting)
        self._starting_failed()

    def _starting_failed(self) -> None:
        """The worker that was started has ended: say so to who asked for it."""
        self._starting = None
        (_, done), self._next = self._next, _NOTHING_NEXT
        done(False)

    def _end_finishing(self) -> None:
        """Their time is up: the clients that they still have lose their connections."""
        self._deadline = None
        for worker in self._finishing:
            worker.kill()

    def _end_clients_of(self, worker: Worker) -> None:
        for number in [one for one, generation in self._of_worker.items() if generation == worker.generation]:
            kept = self._clients.numbered(number)
            if kept is not None:
                self._clients.end(kept)

    def _reap(self, worker: Worker) -> int:
        """Take what it still had to say, and free what was held for it; its status."""
        for fd in (worker.records, worker.pidfd, worker.fileno()):
            if fd in self._handlers:
                self.unwatch(fd)
        status = worker.wait()
        self._drain(worker.records)  # all of it, also what cannot be written yet: the pipe is its bound
        self._audit.forget(worker.records)
        worker.close()
        return status

    # --- clients -----------------------------------------------------------------------------------------

    def listen_at(self, listener: Listener) -> None:
        """Accept connections at another socket."""
        self._listeners[listener.socket.fileno()] = listener
        self.watch(listener.socket.fileno(), functools.partial(self._accept, listener.socket.fileno()))

    def listen_no_more(self, listener: Listener) -> None:
        """Accept no more there, and take the socket away."""
        fd = listener.socket.fileno()
        del self._listeners[fd]
        if fd in self._handlers:
            self.unwatch(fd)
        listener.close()

    def introduce(self, introduction: Introduction, connection: socket.socket) -> None:
        """Hand a connection that came by no socket of ours to the worker."""
        kept = self._keep(connection, "")
        self._send(introduction._replace(number=kept.number), kept)

    def _keep(self, connection: socket.socket, listener: str) -> Kept:
        kept = self._clients.keep(connection, listener)
        # Of nothing but its end: what it says is the worker's.
        self._epoll.register(connection.fileno(), 0)
        return kept

    def _client_ended(self, fd: int) -> None:
        kept = self._clients.on(fd)
        if kept is None:
            return
        self._epoll.unregister(fd)
        self._of_worker.pop(kept.number, None)
        self._waiting = collections.deque(one for one in self._waiting if one[1] is not kept)
        self._clients.forget(kept)

    def _watch_listeners(self, wanted: bool) -> None:
        for fd in self._listeners:
            if wanted and fd not in self._handlers:
                self.watch(fd, functools.partial(self._accept, fd))
            elif not wanted and fd in self._handlers:
                self.unwatch(fd)

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
        kept = self._keep(connection, name)
        self._send(introduction._replace(number=kept.number), kept)

    def _send(self, introduction: Introduction, kept: Kept) -> None:
        self._of_worker[kept.number] = self._serving.generation
        self._waiting.append((introduction.encoded(), kept))
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Introduce those who wait; one that does not fit now waits on, and nobody else is accepted."""
        while self._waiting:
            message, kept = self._waiting[0]
            try:
                self._serving.introduce(message, kept.socket)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    return
                if error.errno != errno.EPIPE:  # as its end is told elsewhere
                    complain(f"a client could not be introduced to the worker: {error}")
                self._clients.end(kept)
            self._waiting.popleft()

    # --- for administrators ------------------------------------------------------------------------------

    def sockets(self) -> list[str]:
        """The paths of the sockets that clients connect to."""
        return sorted(listener.path for listener in self._listeners.values())

    def workers(self) -> list[dict[str, object]]:
        """The workers that there are: their processes, and what each does."""
        doing = {True: "finishing", False: "serving"}
        found: list[dict[str, object]] = [
            {"pid": one.pid, "policy": one.policy.digest, "does": doing[one.finishing]}
            for one in self._workers()
        ]
        for worker in found:
            if self._starting is not None and worker["pid"] == self._starting.pid:
                worker["does"] = "starting"
        return found

    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def granted(self) -> list[dict[str, object]]:
        """The grants that are in force: the record of each."""
        return self.grants.listed(self._clients.numbers())

    def grant_count(self) -> int:
        """How many there are."""
        return self.grants.count(self._clients.numbers())

    def end_grant(self, grant: str) -> tuple[str, int] | None:
        """End a grant: its path and its connection's number; None where there is no such one.

        The fd lives on in its holder.
        """
        for record in self.granted():
            if record.get("grant") == grant:
                path, number = str(record.get("path")), int(str(record.get("connection")))
                self.grants.end(grant)
                self.note("revoke", grant=grant, path=path, connection=number, fd="lives on")
                return path, number
        return None

    # --- the audit ---------------------------------------------------------------------------------------

    def note(self, event: str, **fields: object) -> None:
        """Write an audit record of the supervisor's own."""
        self._audit.note(event, **fields)

    def reopen_audit(self) -> None:
        """Go on in the file that has the audit's name now."""
        self._audit.reopen()

    def _records_waiting(self, worker: Worker) -> None:
        """Write what came; then let more gather, so that a busy worker costs few wake-ups."""
        if not worker.ready:
            self._worker_says(worker)  # how it is confined comes before what it did
        self._audit.take(worker.records)
        self._tell_workers()
        self._next_write = self._clock() + AUDIT_GATHER_SECONDS
        self._watch_records(False)

    def _workers(self) -> list[Worker]:
        starting = [] if self._starting is None else [self._starting]
        return [one for one in (self._serving, *starting, *self._finishing) if one.records in self._handlers]

    def _tell_workers(self) -> None:
        """Tell the workers when the audit can no longer be written, and when it can again."""
        if self._told_failing is not self._audit.failing:
            told = [one.tell(AUDIT_FAILS if self._audit.failing else AUDIT_WORKS) for one in self._workers()]
            if all(told):
                self._told_failing = self._audit.failing

    def _watch_records(self, wanted: bool) -> None:
        if wanted is not self._audit_watched:
            self._audit_watched = wanted
            for worker in self._workers():
                self._epoll.modify(worker.records, select.EPOLLIN if wanted else 0)

    # --- the end -----------------------------------------------------------------------------------------

    def end(self) -> None:
        """End the workers, write what they still had to say, and close all."""
        for listener in self._listeners.values():
            listener.close()
        if self._starting is not None:
            self._starting.kill()
        for worker in self._workers():
            self._end_worker(worker)
        self.lost_records = not self._audit.finish(_END_SECONDS)
        for number in self._clients.numbers():
            kept = self._clients.numbered(number)
            if kept is not None:
                self._clients.forget(kept)
        self._epoll.close()

    def _end_worker(self, worker: Worker) -> None:
        with contextlib.suppress(WorkerBroken):
            worker.said()
        if not worker.ready:
            worker.kill()  # it has nothing to say, and could be a while at it
        worker.let_go()
        if not self._drain(worker.records):
            worker.kill()
            self._drain(worker.records)
        worker.wait()
        for fd in (worker.records, worker.pidfd):
            os.close(fd)

    def _drain(self, records: int) -> bool:
        """Write what the worker says until it ends; False when it does not end in time."""
        ended = select.poll()
        ended.register(records, select.POLLIN)
        deadline = time.monotonic() + _END_SECONDS
        while time.monotonic() < deadline:
            if ended.poll(100) and not self._audit.take(records):
                return True
            if self._audit.pending:
                self._audit.flush()
        return False
