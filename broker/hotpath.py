"""The two steps of every open of an object that was decided on before.

They are here in Python, and in broker/hotpath.c for where `make setup` could compile it; the meaning is one.
FDBROKER_PURE_PYTHON=1 in the environment chooses Python. Nothing is decided here.
"""

import importlib
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from sandboxed.syscalls import AT_FDCWD, OPEN_HOW_SIZE, open_how, openat2_or_negative

# What open_same() opens with, and what it must find: open flags, resolve flags, whether the fd shall block;
# then mode, inode, device, links, owner and device number of the object.
EXPECTED = struct.Struct("=9Q")

_SEND_FLAGS = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_SOL_SOCKET = int(socket.SOL_SOCKET)
_SCM_RIGHTS = int(socket.SCM_RIGHTS)
_ONE_FD = struct.Struct("i")
_FORCED = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def expected(flags: int, resolve: int, status: os.stat_result) -> bytes:
    """What open_same() takes, for an open with `flags` of the object that `status` is of.

    O_CLOEXEC, O_NOCTTY and O_NONBLOCK are added; the fd blocks in the end unless `flags` has O_NONBLOCK.
    """
    return EXPECTED.pack(
        flags | _FORCED,
        resolve,
        not flags & os.O_NONBLOCK,
        *status[:5],
        status.st_rdev,  # mode … owner
    )


# The same for _open_same() in a form that Python compares quickly. All of them can be made again.
_prepared: dict[bytes, tuple[object, bool, tuple[int, ...], int]] = {}
_PREPARED_MOST = 4096


def _prepare(expected: bytes) -> tuple[object, bool, tuple[int, ...], int]:
    flags, resolve, blocking, *identity, number = EXPECTED.unpack(expected)
    if len(_prepared) >= _PREPARED_MOST:
        _prepared.clear()
    prepared = _prepared[expected] = (open_how(flags, resolve), bool(blocking), tuple(identity), number)
    return prepared


def _open_same(path: bytes, expected: bytes) -> int:
    """Open `path` if it still names the object that `expected` describes: the fd, or -1."""
    how, blocking, identity, number = _prepared.get(expected) or _prepare(expected)
    fd: int = openat2_or_negative(AT_FDCWD, path, how, OPEN_HOW_SIZE)
    if fd < 0:
        return -1
    status = os.fstat(fd)
    if status[:5] != identity or status.st_rdev != number:
        os.close(fd)
        return -1
    if blocking:
        os.set_blocking(fd, True)
    return fd


def _record_and_pass(audit: int, record: bytes, connection: socket.socket, reply: bytes, fd: int) -> int:
    """Hand `record` over, send `reply` with `fd`, close `fd`: how much of the reply was taken.

    -1 when the record could not be handed over whole and at once: then nothing was sent, and `fd` is open.
    Raises OSError when the reply could not be sent; `fd` is closed.
    """
    # Up to PIPE_BUF bytes go into a pipe whole or not at all (pipe(7)).
    if len(record) > select.PIPE_BUF:
        return -1
    try:
        os.write(audit, record)
    except OSError:
        return -1
    try:
        return connection.sendmsg((reply,), ((_SOL_SOCKET, _SCM_RIGHTS, _ONE_FD.pack(fd)),), _SEND_FLAGS)
    finally:
        os.close(fd)


def _compiled() -> Any:
    """The module that `make setup` compiled, or None."""
    if os.environ.get("FDBROKER_PURE_PYTHON") == "1":
        return None
    try:
        return importlib.import_module("_fdbroker_hotpath")
    except ImportError:
        return None


_module = _compiled()
COMPILED = _module is not None
open_same: Callable[[bytes, bytes], int] = _module.open_same if COMPILED else _open_same
record_and_pass: Callable[[int, bytes, socket.socket, bytes, int], int] = (
    _module.record_and_pass if COMPILED else _record_and_pass
)
