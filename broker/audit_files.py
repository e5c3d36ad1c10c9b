"""The audit as lines in a file, or to whoever reads standard output.

A file is opened anew at the same name when it was renamed, with the same checks. A line that an earlier broker did
not end, because it was killed in the middle, is ended before the first record: nothing is glued to it.
"""

from __future__ import annotations

import errno
import os
import select
import stat

_TERMINAL_BYTES = 256


class FileSink:
    """Appends to a file, or writes to a pipe or a terminal without ever waiting for its reader."""

    def __init__(self, fd: int, path: str | None = None) -> None:
        """Take over `fd`; `path` is where it can be opened anew."""
        self._path = path
        self._unended = False  # the last line has no end
        self._piece = select.PIPE_BUF
        self._use(fd)

    def write(self, data: bytes) -> int:
        """Write a beginning of `data`; how much of it. Raises OSError."""
        if self._unended:
            os.write(self._fd, b"\n")
            self._unended = False
        if self._reader is None:
            return os.write(self._fd, data)
        try:
            return os.write(self._fd, data[: self._piece]) if self._reader.poll(0) else 0
        except BlockingIOError:
            return 0

    def reopen(self) -> None:
        """Go on in the file that is at the path now, or in a new one. Raises OSError."""
        if self._path is None:
            raise OSError(errno.EINVAL, "it has no file of its own")
        old = self._fd
        self._use(open_audit(self._path))
        os.close(old)

    def close(self) -> None:
        """Close the fd."""
        os.close(self._fd)

    def _use(self, fd: int) -> None:
        self._fd = fd
        self._reader = _poll_of_reader(fd)
        self._unended = _is_unended(fd)
        # What fits into a pipe whole does not block when there is room (pipe(7)); a terminal says that it has room for
        # as much (WAKEUP_CHARS of the kernel's n_tty.c).
        self._piece = _TERMINAL_BYTES if os.isatty(fd) else select.PIPE_BUF


def _poll_of_reader(fd: int) -> select.poll | None:
    """What tells whether a write would block, where somebody reads what is written; None for files."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(fd)):
        return None
    room = select.poll()
    room.register(fd, select.POLLOUT)
    return room


def _is_unended(fd: int) -> bool:
    """Whether a file's last line has no end; of one that cannot be read nothing is known."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    try:
        return os.pread(fd, 1, status.st_size - 1) != b"\n"
    except OSError:
        return False


def open_audit(path: str) -> int:
    """An fd that appends to `path`, a file of mode 0600 unless it is there. Raises OSError.

    What is there must be a file of ours that nobody else can write, under this one name: somebody who made it
    first could change past lines, or have us append to another file. A device (/dev/null, /dev/full) will do.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) and not (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and status.st_nlink == 1
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        os.close(fd)
        raise OSError(
            errno.EPERM, "it must be a file of this user's that nobody else can write, with one name", path
        )
    os.set_blocking(fd, True)
    return fd
