"""One call over one connection: a message goes out, its reply and its file descriptors come in.

The rules that it enforces:
- a reply belongs to the call before it: threads take turns by a lock, processes that inherited one connection
  by a record lock on it, and a connection that may still hold a reply of an ended call is ended for all;
- a call ends by its deadline, however slowly the broker reads or writes;
- an fd that came with a reply which is not handed out is closed.

What the messages mean is left to `sandboxed.calls`.
"""

from __future__ import annotations

import _thread  # threading and typing would cost every program that imports this 6 ms
import errno
import fcntl
import os
import select
import socket
import time

from sandboxed.descriptors import close_all, receive_with_fds
from sandboxed.errors import ConnectionLost, NoBroker, ProtocolError, TimedOut
from sandboxed.limits import BATCH_REQUESTS, MESSAGE_BYTES, REPLY_BYTES
from sandboxed.wire import NUL, MessageDecoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# Not O_NONBLOCK, which would hold for everybody who inherited the connection.
_SEND_FLAGS = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)

# Seconds between two tries for a record lock: the kernel has no wait for one that ends by itself.
_LOCK_RETRY = 0.005

# Of all inherited connections of this process: its record locks do not keep its own threads apart.
_shared_lock = _thread.allocate_lock()


def inherited_connection(text: str) -> socket.socket:
    """A socket of our own for the connection whose number is `text`. Raises NoBroker when there is none."""
    number = -1
    try:
        number = os.dup(int(text))
        connection = socket.socket(fileno=number)
    except (OSError, ValueError, OverflowError) as error:
        if number >= 0:
            os.close(number)
        raise NoBroker(f"FDBROKER_FD={text!r} is no inherited connection: {error}") from error
    connection.setblocking(True)
    return connection


class Connection:
    """A connection to a broker, with one call at a time. Close it, or use it as a context manager."""

    def __init__(
        self, connection: socket.socket, *, timeout: float | None = None, shared: bool = False
    ) -> None:
        """Take over `connection`, a connected stream socket.

        `timeout` bounds each call as a whole, in seconds, the wait for its turn included. `shared` says that
        other processes hold the same connection: each call then takes a lock on it.
        """
        self._connection = connection
        self._timeout = timeout
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._lock = _shared_lock if shared else _thread.allocate_lock()
        self._shared = shared

    def exchange(self, message: bytes) -> tuple[bytes, list[int]]:
        """Send one call and receive its reply and fds, which belong to the caller.

        Raises TimedOut, ConnectionLost, ProtocolError, or an OSError when this process cannot hold the fds.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        if not self._lock.acquire(timeout=-1 if deadline is None else _remaining(deadline)):
            raise TimedOut("another thread's call did not end in time")
        try:
            if self._connection.fileno() < 0:
                raise ConnectionLost("the connection is closed")
            if self._shared:
                return self._exchange_shared(message, deadline)
            return self._exchange_alone(message, deadline)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection: the broker ends this client's grants. Fds that were received stay open."""
        if not self._shared:
            return self._connection.close()
        # Closing any fd of a file drops the process's record locks on it: not while a thread relies on one.
        with self._lock:
            return self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange_shared(self, message: bytes, deadline: float | None) -> tuple[bytes, list[int]]:
        self._lock_record(deadline)
        try:
            if self._poll.poll(0):
                # Its caller died before it could take it. What comes next would be taken for another's.
                self._spend()
                raise ConnectionLost("the connection holds a reply that nobody took, or has ended")
            return self._exchange_alone(message, deadline)
        finally:
            if self._connection.fileno() >= 0:  # closed: the lock went with it
                fcntl.lockf(self._connection, fcntl.LOCK_UN)

    def _lock_record(self, deadline: float | None) -> None:
        # POSIX record locks belong to a process, so they keep apart processes that share one socket.
        if deadline is None:
            fcntl.lockf(self._connection, fcntl.LOCK_EX)
            return
        while True:
            try:
                fcntl.lockf(self._connection, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(min(_remaining(deadline), _LOCK_RETRY))

    def _exchange_alone(self, message: bytes, deadline: float | None) -> tuple[bytes, list[int]]:
        try:
            self._send(message, deadline)
            return self._receive(deadline)
        except BaseException as error:
            # A reply that nobody waits for would be taken for the next one's: the connection is spent.
            self._spend()
            if isinstance(error, (BrokenPipeError, ConnectionResetError)):
                raise ConnectionLost("the broker closed the connection") from error
            if isinstance(error, OSError) and error.errno == errno.EPROTO:
                raise ProtocolError(f"the broker's reply is unusable: {error.strerror}") from error
            raise

    def _spend(self) -> None:
        """End the connection, for everybody who holds it."""
        if self._shared:
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _send(self, message: bytes, deadline: float | None) -> None:
        sent = self._send_some(message)
        if sent == len(message):
            return
        writable = select.poll()
        writable.register(self._connection, select.POLLOUT)
        while sent < len(message):
            _wait(writable, deadline)
            sent += self._send_some(message[sent:])

    def _send_some(self, data: bytes) -> int:
        try:
            return self._connection.send(data, _SEND_FLAGS)
        except BlockingIOError:
            return 0

    def _receive(self, deadline: float | None) -> tuple[bytes, list[int]]:
        decoder: MessageDecoder | None = None
        fds: list[int] = []
        try:
            while True:
                # A sleeper in recvmsg is also woken when the broker reads the request: poll sleeps through it.
                _wait(self._poll, deadline)
                data, came = receive_with_fds(self._connection, MESSAGE_BYTES, BATCH_REQUESTS)
                fds += came
                if not data:
                    raise ConnectionLost("the broker closed the connection")
                if decoder is None:
                    if data.find(NUL) == len(data) - 1:
                        return data[:-1], fds
                    decoder = MessageDecoder(REPLY_BYTES)
                decoder.feed(data)
                reply = decoder.next_message()
                if reply is not None:
                    if decoder.waiting:
                        raise ProtocolError("the broker sent more than one reply")
                    return reply, fds
        except BaseException:
            close_all(fds)
            raise


def _wait(poll: select.poll, deadline: float | None) -> None:
    """Wait until `poll` has an event. Raises TimedOut at the deadline, also when there is one."""
    if not poll.poll(None if deadline is None else 1000 * _remaining(deadline)):
        raise TimedOut("the broker did not answer in time")


def _remaining(deadline: float) -> float:
    """The seconds until `deadline`, which is one of time.monotonic(). Raises TimedOut when there are none."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimedOut("the broker did not answer in time")
    return remaining
