"""The supervisor's half of the audit: it numbers, stamps and writes what the worker hands over.

Rules that this module enforces:
- `required` (the default): a record that was taken from the pipe is written, or kept until it can be: while it cannot
  be written nothing more is taken, so the pipe fills, and the worker refuses to open anything;
- `best_effort`: what cannot be written is counted by its numbers, and the numbers that are missing are written, in a
  record of their own, as soon as anything can be;
- a line that is begun is ended before anything else is written, or stands whole in the next file;
- the number and the time are the supervisor's, at the front of the line; past lines are never touched;
- it understands nothing of a record of the worker's: it only cuts at line ends.

Where the lines go is a sink's business: `broker.audit_files`, `broker.journal`.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from typing import Protocol

from broker.limits import (
    AUDIT_GATHER_SECONDS,
    AUDIT_KEPT_BYTES,
    AUDIT_PIPE_BYTES,
    AUDIT_RETRY_SECONDS,
    AUDIT_ROOM_SECONDS,
    RECORD_BYTES,
)

REQUIRED = "required"
BEST_EFFORT = "best-effort"
MODES = (REQUIRED, BEST_EFFORT)

# Below what malloc takes from the kernel and gives back each time.
_READ_BYTES = 64 * 1024

# Instead of a record that was too long: only a worker that is broken or taken over makes one.
_DROPPED = b'{"event":"record-dropped","reason":"it was too long"}'

_FRONT = b'{"seq":'


class Sink(Protocol):
    """Where lines go."""

    def write(self, data: bytes) -> int:
        """Write a beginning of `data`, lines or the rest of one and lines: how many bytes, 0 when it would have to
        wait. Raises OSError."""

    def reopen(self) -> None:
        """Go on in what is at its place now. Raises OSError, and goes on where it was then."""

    def close(self) -> None:
        """Give up what it holds."""


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
    """What is to be written, in its order.

    `clock` is the wall clock in seconds, `monotonic` one that never goes back; `complain` is told, once, when writing
    fails and when it works again.
    """

    def __init__(
        self,
        sink: Sink,
        complain: Callable[[str], None],
        mode: str = REQUIRED,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to `sink`, which stays the caller's; `mode` is one of MODES."""
        self._sink = sink
        self._complain = complain
        self._best_effort = mode == BEST_EFFORT
        self._clock = clock
        self._monotonic = monotonic
        self._number = 0
        self._pipes: dict[int, _Pipe] = {}
        self._unwritten = b""
        self._begun = b""  # of the first line that waits, what is written already
        self._broken = False  # the last write failed
        self._reason = ""  # why
        self._next_try = 0.0
        self._pause = AUDIT_GATHER_SECONDS
        self._first_lost = 0  # all numbers from this one on are lost; 0: none
        self._notice = (0, b"")  # the last line that told of losses, and the first number in it
        self.observe: Callable[[list[bytes]], None] = _ignore
        """Is told of the records that were taken, as the worker wrote them."""
        self.show: Callable[[bytes], None] | None = None
        """Is shown each line, as it will be written."""

    @property
    def failing(self) -> bool:
        """Whether nothing may happen that would need a record."""
        return self._broken and not self._best_effort

    @property
    def pending(self) -> bool:
        """Whether something waits to be written: call flush() in retry_seconds()."""
        return bool(self._unwritten or self._first_lost)

    @property
    def blocked(self) -> bool:
        """Whether nothing may be taken until flush() has written what waits."""
        return bool(self._unwritten) and not self._best_effort

    def retry_seconds(self) -> float:
        """How long flush() would do nothing."""
        return max(0.0, self._next_try - self._monotonic())

    def take(self, pipe: int) -> bool:
        """Take what waits in `pipe` and write it; False at its end."""
        try:
            data = os.read(pipe, _READ_BYTES)
        except BlockingIOError:
            return True
        lines = self._pipes.setdefault(pipe, _Pipe()).lines(data)
        self.observe(lines)
        self._queue([line for line in lines if line])
        return bool(data)

    def forget(self, pipe: int) -> None:
        """`pipe` is at its end, and its number may be another's."""
        self._pipes.pop(pipe, None)

    @property
    def count(self) -> int:
        """How many records there were."""
        return self._number

    def note(self, event: str, **fields: object) -> None:
        """Write a record of the supervisor's own."""
        self._queue([_record(event, **fields)])

    def reopen(self) -> None:
        """Go on in the file that has the audit's name now: the old one was renamed."""
        self._next_try = 0.0
        self.flush()
        try:
            self._sink.reopen()
        except OSError as error:
            self._complain(f"the audit could not be opened anew ({error.strerror}): it goes on where it was")
            self.note("reopen-failed", reason=error.strerror)
            return
        # Where the old file ends in half a line, the record stands whole in the new one.
        self._unwritten, self._begun = self._begun + self._unwritten, b""
        self._next_try = 0.0
        self.flush()
        self.note("reopened")

    def flush(self) -> None:
        """Try to write what could not be written before."""
        if self._next_try and self.retry_seconds():
            return
        while self.pending:
            if not self._unwritten:
                self._unwritten = self._tell_losses()
            try:
                written = self._sink.write(self._unwritten)
            except OSError as error:
                self._failed(error.strerror or str(error))
                return
            if not written:  # whoever reads is behind; the supervisor has other things to do
                self._next_try = self._monotonic() + self._pause
                self._pause = min(2 * self._pause, AUDIT_ROOM_SECONDS)
                return
            self._wrote(written)
        if self._broken:
            self._broken = False
            self._complain("the audit is written again")

    def finish(self, seconds: float) -> bool:
        """Write what still waits, for so long at most; False when records are lost. Says so."""
        deadline = self._monotonic() + seconds
        while True:
            self._next_try = 0.0
            self.flush()
            if not self.pending or self._broken or self._monotonic() >= deadline:
                break
            time.sleep(self._pause)
        if self.pending:
            self._complain("the last audit records could not be written")
        return not self.pending

    # --- writing -----------------------------------------------------------------------------------------

    def _queue(self, records: list[bytes]) -> None:
        if self._broken:
            self.flush()
        if self._best_effort and (self._broken or len(self._unwritten) > AUDIT_KEPT_BYTES):
            if records:
                self._first_lost = self._first_lost or self._number + 1
                self._number += len(records)
        else:
            if self._first_lost:
                self._unwritten += self._tell_losses()
            stamp = self._now()
            lines = b"".join([self._line(record, stamp) for record in records])
            self._unwritten += lines
            if self.show is not None and lines:
                self.show(lines)
        self.flush()

    def _wrote(self, count: int) -> None:
        done, self._unwritten = self._unwritten[:count], self._unwritten[count:]
        _, newline, begun = done.rpartition(b"\n")
        self._begun = begun if newline else self._begun + begun
        self._next_try = 0.0
        self._pause = AUDIT_GATHER_SECONDS

    def _failed(self, reason: str) -> None:
        if not self._broken:
            until = (
                "what happens until it can is counted"
                if self._best_effort
                else "every open is refused until it can"
            )
            self._complain(f"the audit cannot be written ({reason}): {until}")
        self._broken = True
        self._reason = reason
        self._next_try = self._monotonic() + AUDIT_RETRY_SECONDS
        if self._best_effort:
            self._give_up()

    def _give_up(self) -> None:
        """Lose what waits, but for the rest of a line that is begun."""
        rest, lines = b"", self._unwritten
        if self._begun:
            rest, newline, lines = lines.partition(b"\n")
            rest += newline
        self._unwritten = rest
        first, notice = self._notice
        if notice and lines == notice:
            self._number -= 1  # nobody has seen it: it is told anew, with what is lost until then
            self._first_lost = first
        elif notice and lines.startswith(notice):
            self._first_lost = first
        elif lines:
            self._first_lost = int(lines[len(_FRONT) : lines.index(b",")])

    def _tell_losses(self) -> bytes:
        """The line that tells which numbers are missing."""
        first, last = self._first_lost, self._number
        record = _record(
            "records-lost",
            first=first,
            last=last,
            count=last - first + 1,
            reason=self._reason or "nobody takes them",
        )
        line = self._line(record, self._now())
        self._first_lost, self._notice = 0, (first, line)
        return line

    def _line(self, record: bytes, stamp: bytes) -> bytes:
        self._number += 1
        return b'%b%d,"time":"%b",%b\n' % (_FRONT, self._number, stamp, record[1:])

    def _now(self) -> bytes:
        """The time in UTC with microseconds, RFC 3339."""
        seconds, rest = divmod(self._clock(), 1)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(rest * 1_000_000):06d}Z".encode()


def _record(event: str, **fields: object) -> bytes:
    return json.dumps({"event": event, **fields}, separators=(",", ":")).encode("ascii")


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
