"""The worker: one process, one event loop, all clients.

It gets each connection and its identity from the supervisor, never from a client, and ends when the
supervisor does. It has no controlling terminal and hears no signal that is typed at one.
"""

import contextlib
import resource
import select
import socket
import time
import traceback
from collections.abc import Callable

import msgspec

from broker.connection import WATCHED, Connection, Shared, State
from broker.endings import opener_for
from broker.helpers import Helpers
from broker.introduction import (
    ANEW,
    AUDIT_FAILS,
    AUDIT_WORKS,
    DONE,
    FINISH,
    INTRODUCTION_BYTES,
    REFUSED,
    Introduction,
    said_of,
)
from broker.limits import CONNECTIONS, CONNECTIONS_PER_UID, GRANTS_PER_GENERATION, RESERVED_FDS
from broker.opener import Opener
from broker.records import AuditPipe
from broker.service import Service
from policy import Policy
from sandboxed.descriptors import close_all, receive_with_fds

_COUNTED_REFUSALS_SECONDS = 1.0

# Events taken at once from the kernel.
_EVENTS = 1024


class Worker:
    """Serves the clients that the supervisor introduces."""

    def __init__(self, policy: Policy, control: socket.socket, audit: int, generation: int = 0) -> None:
        """Take over `control`, the connection to the supervisor, and `audit`, the writing end of its pipe.

        `generation` counts this supervisor's workers, and keeps the numbers of their grants apart.
        """
        self._control = control
        self._epoll = select.epoll()
        self._opener = opener_for(policy)
        self._helpers = Helpers(self._opener, policy, time.monotonic)
        first_grant = generation * GRANTS_PER_GENERATION + 1
        self._service = Service(policy, self._opener, AuditPipe(audit), first_grant)
        self._shared = Shared(self._service, self._opener, self._helpers, self._watch_helper)
        self._connections: dict[int, Connection] = {}
        self._of_uid: dict[int, int] = {}
        self._handlers: dict[int, Callable[[int], None]] = {control.fileno(): self._introduced}
        self._most, self._most_of_uid = _connection_limits()
        self._running = True
        self._finishing: set[Connection] | None = None  # those that another worker is to go on with
        self._next_count = 0.0
        self._wants_confinement_anew = True  # may say so, once
        self._opener.kept_away = self._kept_away
        self._epoll.register(control, select.EPOLLIN)
        changes = self._opener.mount_changes()
        self._handlers[changes] = lambda events: self._opener.forget_known()
        self._epoll.register(changes, select.EPOLLPRI | select.EPOLLET)

    @property
    def opener(self) -> Opener:
        """What looks and opens for it."""
        return self._opener

    def _kept_away(self) -> None:
        """An object is out of reach that came or changed since this process was confined: the next one reaches it."""
        if self._wants_confinement_anew:
            self._wants_confinement_anew = False
            with contextlib.suppress(OSError):
                self._control.send(ANEW)

    def run(self) -> None:
        """Serve until the supervisor closes the control connection."""
        handlers, poll, changes = self._handlers, self._epoll.poll, self._opener.mount_changes()
        slow_opens, counted = self._helpers.running, self._service.refusals.unwritten
        timeout = None
        while self._running:
            events_of = poll(timeout, _EVENTS)
            if len(events_of) > 1 and (changes in dict(events_of) or len(events_of) == _EVENTS):
                # Whoever asks now may have seen the new mount: it comes first, wherever the kernel lists it.
                self._opener.forget_known()
            ready = [(fd, handlers[fd], events) for fd, events in events_of]
            for fd, handler, events in ready:
                if handlers.get(fd) is not handler:
                    continue  # an earlier event of this round closed it; its number may be another's by now
                try:
                    handler(events)
                except Exception:
                    self._failed(fd)
            if self._finishing is not None:
                self._leave_finished(self._finishing)
            try:
                timeout = self._on_time() if slow_opens or counted else None
            except Exception:
                traceback.print_exc()
                timeout = _COUNTED_REFUSALS_SECONDS
        self._end()

    def _failed(self, fd: int) -> None:
        """A mistake of ours that one client met: it loses its connection, and the others lose nothing."""
        traceback.print_exc()
        connection = self._connections.get(fd)
        if connection is not None:
            connection.close()

    def _on_time(self) -> float | None:
        """Do what is due; the seconds until something else is."""
        self._helpers.give_up_overdue()
        now = time.monotonic()
        if self._service.refusals.unwritten and now >= self._next_count:
            self._service.write_counted_refusals()
            self._next_count = now + _COUNTED_REFUSALS_SECONDS
        deadline = self._helpers.next_deadline()
        if deadline is not None:
            return max(0.0, deadline - now)
        return _COUNTED_REFUSALS_SECONDS

    def _introduced(self, events: int) -> None:
        """The supervisor introduces a client, speaks of the audit, or has ended."""
        data, fds = receive_with_fds(self._control, INTRODUCTION_BYTES, 1)
        if not data:
            self._running = False
            return
        if data == FINISH:
            self._finishing = set(self._connections.values())
            for connection in self._finishing:
                connection.finish()
            return
        if data in (AUDIT_FAILS, AUDIT_WORKS):
            self._service.audit.shut(data == AUDIT_FAILS)
            return
        try:
            introduction = msgspec.json.decode(data, type=Introduction)
        except BaseException:
            close_all(fds)
            raise
        uid = introduction.uid
        if len(self._connections) >= self._most or self._of_uid.get(uid, 0) >= self._most_of_uid or not fds:
            close_all(fds)  # none when this process had no room for it
            self._control.send(said_of(REFUSED, introduction.number))
            return
        self._of_uid[uid] = self._of_uid.get(uid, 0) + 1
        client = self._service.client(introduction.number, introduction.peer, uid, introduction.shown)
        client.grants.update(introduction.grants)
        connection = Connection(
            socket.socket(fileno=fds[0]), client, self._shared, self._changed, introduction.answered
        )
        self._connections[connection.fd] = connection
        self._handlers[connection.fd] = connection.handle
        self._epoll.register(connection.fd, WATCHED[connection.state])

    def _changed(self, connection: Connection) -> None:
        if connection.state is not State.CLOSED:
            self._epoll.modify(connection.fd, WATCHED[connection.state])
            return
        self._forget(connection.fd)
        del self._connections[connection.fd]
        uid = connection.client.uid
        self._of_uid[uid] -= 1
        if not self._of_uid[uid]:
            del self._of_uid[uid]

    def _leave_finished(self, finishing: set[Connection]) -> None:
        """Leave the connections on which nothing is half done to the next worker; end when there are no others."""
        for connection in [one for one in finishing if one.is_at_boundary or one.is_closed]:
            finishing.discard(connection)
            if not connection.is_closed:
                connection.leave()
                self._control.send(said_of(DONE, connection.client.number))
        self._running = bool(finishing)

    def _watch_helper(self, fd: int) -> None:
        self._handlers[fd] = lambda events: self._helper_ended(fd)
        self._epoll.register(fd, select.EPOLLIN)

    def _helper_ended(self, fd: int) -> None:
        self._forget(fd)
        self._helpers.finish(fd)

    def _forget(self, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._handlers[fd]

    def _end(self) -> None:
        self._helpers.end_all()
        for connection in list(self._connections.values()):
            connection.close()
        self._service.write_counted_refusals()
        self._opener.close()
        self._epoll.close()


def _connection_limits() -> tuple[int, int]:
    """How many connections there may be, in all and of one uid. Raises this process's own limit of fds first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(CONNECTIONS, max(2, hard - RESERVED_FDS))
    return most, min(CONNECTIONS_PER_UID, most // 2)
