"""The broker's listening sockets: made, and taken away again.

A socket file that nobody answers behind is what a killed broker left: it is replaced. One that somebody
answers behind is not. Every connection has its sender's credentials switched on before it exists.
"""

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
from typing import NamedTuple

from broker.connections import refuse_fds
from broker.limits import BACKLOG
from policy import SocketDeclaration

DEFAULT_NAME = "default"
DEFAULT_MODE = 0o666


class ListenError(Exception):
    """A socket cannot be made; the message says what to do."""


class Listener(NamedTuple):
    """A listening socket. `name` is what a policy's `socket:` means by it."""

    name: str
    path: str
    socket: socket.socket
    inode: tuple[int, int]

    def close(self) -> None:
        """Stop listening and remove the socket file, if it is still ours."""
        self.socket.close()
        with contextlib.suppress(OSError):
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == self.inode:
                os.unlink(self.path)


def default_declaration(path: str) -> SocketDeclaration:
    """The socket that every client may reach; who gets what is the policy's to say."""
    return SocketDeclaration(name=DEFAULT_NAME, path=path, owner=None, group=None, mode=DEFAULT_MODE)


def listen(declaration: SocketDeclaration) -> Listener:
    """Make the socket that is declared. Raises ListenError."""
    path = declaration.path
    uid, gid = _owner(declaration)
    _make_directory(path)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before listen(): a message that is sent before accept() must carry credentials too.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        refuse_fds(listener)
        _bind(listener, path, declaration.mode)
        status = os.lstat(path)
        try:
            os.chown(path, uid, gid, follow_symlinks=False)
            listener.listen(BACKLOG)
        except OSError:
            os.unlink(path)
            raise
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen at {path}: {error.strerror or error}") from error
    listener.setblocking(False)
    return Listener(declaration.name, path, listener, (status.st_dev, status.st_ino))


def _bind(listener: socket.socket, path: str, mode: int) -> None:
    # The mode is there from the first instant, and no chmod(2) by name could hit another file. Nobody can
    # connect before listen().
    old = os.umask(0o777 & ~mode)
    try:
        listener.bind(path)
    finally:
        os.umask(old)


def _owner(declaration: SocketDeclaration) -> tuple[int, int]:
    try:
        uid = -1 if declaration.owner is None else pwd.getpwnam(declaration.owner).pw_uid
        gid = -1 if declaration.group is None else grp.getgrnam(declaration.group).gr_gid
    except KeyError as error:
        raise ListenError(f"socket {declaration.name}: {error.args[0]}") from error
    return uid, gid


def _make_directory(path: str) -> None:
    directory = os.path.dirname(path)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory or ".", 0o755)
    except OSError as error:
        raise ListenError(
            f"cannot make the directory {directory} ({error.strerror}): make it, or name another place with --socket"
        ) from error


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ListenError(
                f"{path} exists and is no socket: remove it, or name another place with --socket"
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"cannot listen at {path}: {error.strerror}") from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        number = probe.connect_ex(path)
    if number not in (0, errno.EAGAIN, errno.ECONNREFUSED):
        raise ListenError(f"{path} exists and is no broker's socket ({os.strerror(number)}): remove it first")
    if number != errno.ECONNREFUSED:
        raise ListenError(f"a broker answers at {path} already: stop it, or name another place with --socket")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
