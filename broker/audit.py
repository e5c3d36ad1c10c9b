"""The supervisor's half of the audit: it numbers, stamps and writes what the worker hands over.

Rules that this module enforces:
- a record that was taken from the pipe is written, or kept until it can be: while the file cannot be
  written nothing more is taken, so the pipe fills, and the worker refuses to open anything;
- the number and the time are the supervisor's, at the front of the line; past lines are never touched;
- it understands nothing of a record of the worker's: it only cuts at line ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import time
from collections.abc import Callable

from broker.limits import AUDIT_PIPE_BYTES, RECORD_BYTES

# Below what malloc takes from the kernel and gives back each time.
_READ_BYTES = 64 * 1024

_TERMINAL_BYTES = 256

# Instead of a record that was too long: only a worker that is broken or taken over makes one.
_DROPPED = b'{"event":"record-dropped","reason":"it was too long"}'


class _Pipe:
    """What was taken from one worker's pipe and is no whole record yet."""

    def __init__(self) -> None:
        self._partial = b""
        self._skipping = False  # in a record that is too long

    def lines(self, data: bytes) -> list[bytes]:
        """The whole records, now that `data` came."""
        lines = (self._partial + data).split(b"\n")
        if self._skipping and len(lines) > 1:
            lines[0], self._skipping = _DROPPED, False
        self._partial = lines.pop()
        if self._skipping or len(self._partial) > RECORD_BYTES:
            # The rest of it must not pass for a record either.
            self._partial, self._skipping = b"", True
        return lines


def _ignore(records: list[bytes]) -> None:
    pass


class AuditLog:
    """Where the records go.

    `clock` is the wall clock in seconds; `complain` is told, once, when writing fails and when it works again.
    """

    def __init__(
        self, fd: int, complain: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        """Write to `fd`, which stays the caller's."""
        self._fd = fd
        self._reader = _poll_of_reader(fd)
        # What fits into a pipe whole does not block when there is room (pipe(7)); a terminal says that it has room for
        # as much (WAKEUP_CHARS of the kernel's n_tty.c).
        self._piece = _TERMINAL_BYTES if os.isatty(fd) else select.PIPE_BUF
        self._complain = complain
        self._clock = clock
        self._number = 0
        self._pipes: dict[int, _Pipe] = {}
        self._unwritten = b""
        self.observe: Callable[[list[bytes]], None] = _ignore
        """Is told of the records that were taken, as the worker wrote them."""
        self.show: Callable[[bytes], None] | None = None
        """Is shown each line, as it will be written."""
        self.failing = False  # the last write failed

    @property
    def blocked(self) -> bool:
        """Whether records wait because writing failed: call flush() later, and take nothing until then."""
        return bool(self._unwritten)

    def take(self, pipe: int) -> bool:
        """Take what waits in `pipe` and write it; False at its end."""
        try:
            data = os.read(pipe, _READ_BYTES)
        except BlockingIOError:
            return True
        lines = self._pipes.setdefault(pipe, _Pipe()).lines(data)
        self.observe(lines)
        stamp = self._now()
        self._queue(b"".join([self._line(line, stamp) for line in lines if line]))
        return bool(data)

    def forget(self, pipe: int) -> None:
        """`pipe` is at its end, and its number may be another's."""
        self._pipes.pop(pipe, None)

    def note(self, record: bytes) -> None:
        """Write a record of the supervisor's own: a JSON object on one line."""
        self._queue(self._line(record, self._now()))

    @property
    def count(self) -> int:
        """How many records there were."""
        return self._number

    def _queue(self, lines: bytes) -> None:
        self._unwritten += lines
        if self.show is not None and lines:
            self.show(lines)
        self.flush()

    def flush(self) -> None:
        """Try to write what could not be written before."""
        while self._unwritten:
            try:
                if self._reader is None:
                    written = os.write(self._fd, self._unwritten)
                elif self._reader.poll(0):
                    written = os.write(self._fd, self._unwritten[: self._piece])
                else:
                    return  # whoever reads the pipe is behind; the supervisor has other things to do
            except BlockingIOError:
                return
            except OSError as error:
                if not self.failing:
                    self._complain(
                        f"the audit cannot be written ({error.strerror}): every open is refused until it can"
                    )
                self.failing = True
                return
            self._unwritten = self._unwritten[written:]
        if self.failing:
            self.failing = False
            self._complain("the audit is written again")

    def _line(self, record: bytes, stamp: bytes) -> bytes:
        self._number += 1
        return b'{"seq":%d,"time":"%b",%b\n' % (self._number, stamp, record[1:])

    def _now(self) -> bytes:
        """The time in UTC with microseconds, RFC 3339."""
        seconds, rest = divmod(self._clock(), 1)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(rest * 1_000_000):06d}Z".encode()


def _poll_of_reader(fd: int) -> select.poll | None:
    """What tells whether a write would block, where somebody reads what is written; None for files."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(fd)):
        return None
    room = select.poll()
    room.register(fd, select.POLLOUT)
    return room


def open_audit(path: str) -> int:
    """An fd that appends to `path`, a file of mode 0600 unless it is there. Raises OSError.

    What is there must be a file of ours that nobody else can write, under this one name: somebody who made it
    first could change past lines, or have us append to another file. A device (/dev/null, /dev/full) will do.
    """
    flags = (
        os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK
    )
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


def audit_pipe() -> tuple[int, int]:
    """The pipe between worker and supervisor: its reading and its writing end."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    _enlarge(writer)
    return reader, writer


def _enlarge(fd: int) -> None:
    size = AUDIT_PIPE_BYTES
    while size > 65536:
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
            return
        except PermissionError:  # an ordinary user's pipes have a limit (pipe(7), pipe-max-size)
            size //= 2
