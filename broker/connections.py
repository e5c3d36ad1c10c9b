"""What is switched on or off on a client's connection before anybody can speak on it.

A message that came earlier would lack its sender's credentials, or bring fds that nobody wants. A socket belongs to
the network that it was made in, and tells its interfaces and addresses (SIOCGIFCONF, netdevice(7)): so the client's end
is made in the sandbox.
"""

import contextlib
import os
import socket

from sandboxed.descriptors import receive_with_fds, send_with_fds

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


def make_inside(courier: socket.socket) -> None:
    """In the client's process: make the pair, send the broker its end, put the other one in the courier's place."""
    ours, theirs = embedded_pair()
    with ours, theirs:
        send_with_fds(courier, b"\0", [ours.fileno()])
        number = courier.fileno()
        os.dup2(theirs.fileno(), number, inheritable=os.get_inheritable(number))


def made_inside(courier: socket.socket) -> socket.socket:
    """In the broker, once the client runs: the end that make_inside() sent. Of several attempts the last one counts."""
    made: list[int] = []
    courier.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            _, fds = receive_with_fds(courier, 1, 1)
            if not fds:
                break
            made += fds
    for fd in made[:-1]:
        os.close(fd)
    ours = socket.socket(fileno=made[-1])
    ours.setblocking(False)
    return ours
