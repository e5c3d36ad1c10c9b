"""File descriptors over a Unix socket, and the type that owns a received one. See unix(7), cmsg(3).

Received fds are close-on-exec from the first instant. Of a message whose control data was cut short, or
whose fds do not match what it announces, every fd is closed: none is ever left without an owner.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct

from sandboxed.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

# Plain numbers: an operator of the socket module's enums costs a microsecond.
_CONTROL_TRUNCATED = int(socket.MSG_CTRUNC)
_DATA_TRUNCATED = int(socket.MSG_TRUNC)
_TRUNCATED = _CONTROL_TRUNCATED | _DATA_TRUNCATED
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_NO_SIGNAL = int(socket.MSG_NOSIGNAL)


class OwnedFd(int):
    """A file descriptor that belongs to the holder of this object: an int to every system call.

    Use it as a context manager, call close(), or hand it on with detach(). It is not closed when it is
    garbage: an int's number may belong to somebody else by then.
    """

    _open: bool
    _reply: bytes
    _place: int

    def __new__(cls, number: int, reply: bytes = b"", place: int = -1) -> OwnedFd:
        """Take over `number`. `reply` is the message that announced it, `place` its index in a batch."""
        self = super().__new__(cls, number)
        self._open = True
        self._reply = reply
        self._place = place
        return self

    def _grant(self) -> dict[str, object]:
        # Parsed only when somebody asks: an open that nobody asks about should not pay for it.
        if not self._reply:
            return {}
        try:
            parameters = json.loads(self._reply)["parameters"]
            if self._place >= 0:
                parameters = parameters["results"][self._place]
            return dict(parameters)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ProtocolError("the reply that announced this file descriptor is garbled") from error

    @property
    def grant(self) -> str:
        """The broker's id of this grant, as in its audit. Raises ProtocolError when its reply is garbled."""
        return str(self._grant().get("grant", ""))

    @property
    def rights(self) -> list[str]:
        """The rights that were given: those asked for, and the optional ones that the policy added.

        Raises ProtocolError when the broker's reply is garbled.
        """
        rights = self._grant().get("rights", [])
        return list(rights) if isinstance(rights, list) else []

    def fileno(self) -> int:
        """The number. Raises ValueError after close() or detach()."""
        if not self._open:
            raise ValueError("this file descriptor was closed or handed on")
        return int(self)

    def detach(self) -> int:
        """The number, which the caller now has to close."""
        number = self.fileno()
        self._open = False
        return number

    def close(self) -> None:
        """Close it; closing twice does nothing."""
        if self._open:
            self._open = False
            os.close(int(self))

    def __enter__(self) -> OwnedFd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OwnedFd({int(self)})" if self._open else "OwnedFd(closed)"


def close_all(fds: Sequence[int]) -> None:
    """Close every one of `fds`."""
    if len(fds) == 1:
        os.close(fds[0])
        return
    if len(fds) > 2 and list(fds) == list(range(fds[0], fds[0] + len(fds))):
        # Neighbours, so all in the range are ours: one system call.
        os.closerange(fds[0], fds[0] + len(fds))
        return
    for fd in fds:
        os.close(fd)


def receive_with_fds(connection: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive up to `size` bytes and up to `most` fds, close-on-exec; empty bytes at the end of the stream.

    Raises OSError: EMSGSIZE when a datagram was cut short, EMFILE when this process cannot hold what came,
    EPROTO when more came than there is room for. Everything that came with it is closed.
    """
    data, control, flags, _ = connection.recvmsg(size, socket.CMSG_SPACE(4 * most), _CLOSE_ON_EXEC)
    if not control and not flags & _TRUNCATED:
        return data, []
    fds: list[int] = []
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds += struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4])
    if flags & _DATA_TRUNCATED:
        close_all(fds)
        raise OSError(errno.EMSGSIZE, "a message was longer than there was room for")
    # CMSG_SPACE rounds up, so the kernel may fit one more than was asked for.
    if flags & _CONTROL_TRUNCATED or len(fds) > most:
        close_all(fds)
        if len(fds) < most:
            raise OSError(errno.EMFILE, "more file descriptors came than this process can hold")
        raise OSError(errno.EPROTO, "more file descriptors came than there was room for")
    return data, fds


def send_with_fds(connection: socket.socket, data: bytes, fds: list[int]) -> int:
    """Send `data` with `fds` on its first byte and return how much was taken; the fds went with any of it."""
    rights = struct.pack(f"{len(fds)}i", *fds)
    return connection.sendmsg((data,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),), _NO_SIGNAL)
