"""The client: asks the broker for files and devices, and gets open file descriptors.

It speaks Varlink over a Unix stream socket with the standard library alone, and it is the unprivileged
side: nothing that it checks is a security boundary. A Client may be used by several threads (one call at
a time) and, where the connection was inherited, by several processes that use this library.

How a call travels is left to `sandboxed.exchange`, what its messages say to `sandboxed.calls`.
"""

from __future__ import annotations

import os
import socket
import stat

from sandboxed import calls
from sandboxed.descriptors import OwnedFd, close_all
from sandboxed.errors import Busy, Denied, NoBroker
from sandboxed.exchange import Connection, inherited_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import IO, Any

    Request = tuple[str, Sequence[str]]

DEFAULT_SOCKET = "/run/fdbroker/fdbroker.sock"

_CACHED_REQUESTS = 256

# The rights that a mode of open() needs. Creating is a right of its own, which only "x" asks for; "w" truncates
# what can be truncated, and whether this can, only the open tells.
_MODE_ACCESS = {
    "r": ("read",),
    "r+": ("read", "write"),
    "w": ("write",),
    "w+": ("read", "write"),
    "a": ("append",),
    "a+": ("read", "append"),
    "x": ("write", "create"),
    "x+": ("read", "write", "create"),
}


def connect(path: str | os.PathLike[str] | None = None, *, timeout: float | None = None) -> Client:
    """Connect to the broker at `path`, else to the one that the environment names, else to the system's.

    FDBROKER_SOCKET is the path of a socket, FDBROKER_FD the number of an inherited connection. `timeout`
    is in seconds and bounds each call as a whole; open_many() makes one for each batch. Raises NoBroker when
    nobody answers there.
    """
    named = os.environ.get("FDBROKER_SOCKET")
    if path is None and "FDBROKER_FD" in os.environ and not named:
        return Client(inherited_connection(os.environ["FDBROKER_FD"]), timeout=timeout, shared=True)
    address = os.fspath(path) if path is not None else named or DEFAULT_SOCKET
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
    except (OSError, ValueError) as error:
        connection.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NoBroker(f"no broker answers at {address}: {reason}") from error
    return Client(connection, timeout=timeout)


class Client(Connection):
    """One connection to a broker. Close it, or use it as a context manager."""

    def __init__(
        self, connection: socket.socket, *, timeout: float | None = None, shared: bool = False
    ) -> None:
        """Take over `connection`, a connected stream socket; see Connection."""
        super().__init__(connection, timeout=timeout, shared=shared)
        self._encoded: dict[tuple[str, tuple[str, ...]], bytes] = {}

    def open(
        self,
        path: str | os.PathLike[str],
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Like the built-in open(): a file object, opened by the broker.

        Raises Denied, or the OSError of an open that was allowed and failed.
        """
        kind = mode.replace("b", "").replace("t", "")
        access = _MODE_ACCESS.get(kind)
        if access is None:
            raise ValueError(f"invalid mode: {mode!r}")
        # A program that opens by mode cannot say that it will use ioctl or truncate: it would like to.
        optional = ("ioctl", "truncate") if "write" in access else ("ioctl",)
        fd = self.open_fd(path, access, optional=optional, flags=("excl",) if "x" in kind else ())
        try:
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
            if "w" in kind and regular:
                if "truncate" not in fd.rights:
                    self.release(fd)
                    raise Denied(os.fspath(path))
                os.ftruncate(fd, 0)
            if buffering < 0 and "+" in kind and "b" in mode and not regular:
                buffering = 0  # the built-in refuses to buffer both ways where it can't seek
            # By an opener, so that the fd has one owner at any time: what fails after it, closes what it gave.
            return open(path, mode, buffering, encoding, errors, newline, True, lambda *_: fd.detach())
        except BaseException:
            fd.close()
            raise

    def open_fd(
        self,
        path: str | os.PathLike[str],
        access: Sequence[str],
        *,
        optional: Sequence[str] = (),
        flags: Sequence[str] = (),
        mode: int | None = None,
    ) -> OwnedFd:
        """Open `path` with the rights in `access` (the policy's words) and return the fd.

        `optional` are rights that would be welcome, `flags` lower-case names of open flags that change no
        right (nonblock, sync, …). Raises Denied, Busy, RequestError, or the OSError of the failed open.
        """
        name = os.fspath(path)
        if optional or flags or mode is not None:
            message = calls.encode("Open", calls.request(name, access, optional, flags, mode))
        else:
            message = self._cached_request(name, calls.words(access))
        reply, fds = self.exchange(message)
        try:
            return OwnedFd(fds[calls.opened(reply, len(fds), name)], reply)
        except BaseException:
            close_all(fds)
            raise

    def open_many(self, requests: Iterable[Request]) -> list[OwnedFd | OSError | Busy]:
        """Open several (path, access) at once: for each, its fd, or the exception that open_fd would raise.

        Any number may be given; they travel in batches. Raises what concerns the call as a whole.
        """
        wanted = [(os.fspath(path), calls.words(access)) for path, access in requests]
        results: list[OwnedFd | OSError | Busy] = []
        try:
            for batch in calls.batches(wanted):
                results += self._open_batch(batch)
        except BaseException:
            for result in results:
                if isinstance(result, OwnedFd):
                    result.close()
            raise
        return results

    def _open_batch(self, batch: list[tuple[str, tuple[str, ...]]]) -> list[OwnedFd | OSError | Busy]:
        reply, fds = self.exchange(calls.encode_batch(batch))
        try:
            return [
                OwnedFd(fds[outcome], reply, place) if isinstance(outcome, int) else outcome
                for place, outcome in enumerate(calls.opened_batch(reply, len(fds), batch))
            ]
        except BaseException:
            close_all(fds)
            raise

    def check(self, path: str | os.PathLike[str], access: Sequence[str]) -> bool:
        """What the policy says of `path`, without touching it. An open may still be denied, or fail."""
        name = os.fspath(path)
        return calls.checked(self._reply("Check", calls.request(name, access)), name)

    def describe(self) -> dict[str, Any]:
        """`peer`: who the broker takes us for; `resources`: what the policy gives us."""
        return calls.result(self._reply("Describe", {}))

    def release(self, grant: OwnedFd | str) -> None:
        """Give a grant back; of an OwnedFd also close the fd."""
        if isinstance(grant, OwnedFd):
            grant.close()
            grant = grant.grant
        calls.result(self._reply("Release", {"grant": grant}))

    def _cached_request(self, path: str, access: tuple[str, ...]) -> bytes:
        message = self._encoded.get((path, access))
        if message is None:
            message = calls.encode("Open", calls.request(path, access))
            if len(self._encoded) >= _CACHED_REQUESTS:
                self._encoded.clear()
            self._encoded[path, access] = message
        return message

    def _reply(self, method: str, parameters: dict[str, Any]) -> bytes:
        """The reply to a call that is answered without fds: those that came all the same are closed."""
        reply, fds = self.exchange(calls.encode(method, parameters))
        close_all(fds)
        return reply
