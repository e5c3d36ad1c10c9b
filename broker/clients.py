"""The supervisor's own hold on each client's connection: a duplicate, which no worker can forge or lose.

Rules that this module enforces:
- a connection is introduced to one worker at a time, by who the kernel says made it, read by the supervisor;
- nothing is ever received from a connection here.
"""

import contextlib
import socket
from typing import NamedTuple


class Kept(NamedTuple):
    """A connection that is not over."""

    number: int
    socket: socket.socket
    listener: str
    """The name of the socket that it came by."""


class Clients:
    """All connections that are not over, by their numbers and by the fds that hold them."""

    def __init__(self) -> None:
        self._by_number: dict[int, Kept] = {}
        self._by_fd: dict[int, Kept] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def keep(self, connection: socket.socket, listener: str) -> Kept:
        """Take over a connection that was accepted."""
        self._last += 1
        kept = Kept(self._last, connection, listener)
        self._by_number[kept.number] = self._by_fd[connection.fileno()] = kept
        return kept

    def numbered(self, number: int) -> Kept | None:
        """The connection of that number, unless it is over."""
        return self._by_number.get(number)

    def numbers(self) -> set[int]:
        """The numbers of all."""
        return set(self._by_number)

    def on(self, fd: int) -> Kept | None:
        """The connection that `fd` holds."""
        return self._by_fd.get(fd)

    def forget(self, kept: Kept) -> None:
        """It is over: close it."""
        del self._by_number[kept.number]
        del self._by_fd[kept.socket.fileno()]
        kept.socket.close()

    @staticmethod
    def end(kept: Kept) -> None:
        """End it for its client and for whichever worker has it."""
        with contextlib.suppress(OSError):
            kept.socket.shutdown(socket.SHUT_RDWR)
