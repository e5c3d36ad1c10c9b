"""What is switched on or off on a client's connection before anybody can speak on it.

A message that came earlier would lack its sender's credentials, or bring fds that nobody wants.
"""

import contextlib
import socket

_SO_PASSRIGHTS = 83  # Linux 6.16, asm-generic/socket.h


def refuse_fds(connection: socket.socket) -> None:
    """Let the kernel refuse fds that the other end sends, where it can; elsewhere they are never installed."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


def embedded_pair() -> tuple[socket.socket, socket.socket]:
    """The connection of an embedded broker and its one client: the broker's end, and the client's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    refuse_fds(ours)
    ours.setblocking(False)
    return ours, theirs
