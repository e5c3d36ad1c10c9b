"""The worker's half of the audit: what a record says, and handing it over before an fd leaves.

A record is one JSON object on one line. The supervisor numbers it, stamps it and writes it (`broker.audit`),
so a worker that was taken over can add lines, and alter none. Rules that this module enforces:
- a record is handed over whole, or the caller is told and passes nothing;
- refusals of one uid beyond a rate are counted instead of written, and the count is written later;
- every name is escaped, so that no file name and no client can break a line or forge a field.
"""

import json
import os
import select
from collections.abc import Callable
from typing import Any

from broker.limits import (
    AUDIT_WAIT_SECONDS,
    REFUSALS_BURST,
    REFUSALS_PER_SECOND,
)


class AuditUnavailable(Exception):
    """The record could not be handed over: what it speaks of must not happen."""


def fields(values: dict[str, Any]) -> bytes:
    """`values` as the inside of a JSON object, with a comma behind it, to be joined into a record."""
    return json.dumps(values, separators=(",", ":"), default=str)[1:-1].encode("ascii") + b","


def printable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are not UTF-8 show as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


class AuditPipe:
    """Hands records to the supervisor through a pipe.

    `fd` is where the hot path writes: -1 while half a record is in the pipe, for its other half comes first,
    and while the supervisor cannot write what it takes.
    """

    def __init__(self, fd: int) -> None:
        """Take over `fd`, the writing end."""
        os.set_blocking(fd, False)
        self.fd = self._pipe = fd
        self._rest = b""  # of a record that is in the pipe in part
        self._stuck = False  # the last record found no room
        self._shut = False  # the supervisor cannot write
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)

    def write(self, records: bytes) -> None:
        """Hand over records, each of which ends in a newline.

        Raises AuditUnavailable. What is in the pipe by then is handed over later, as if it had happened: better
        a line too many than a line in halves.
        """
        if self._shut:
            raise AuditUnavailable("the audit cannot be written")
        self._write_rest()
        written = self._put(records)
        if written == 0 < len(records) and self._finds_room():
            written = self._put(records)
        if written == 0 < len(records):
            raise AuditUnavailable("nobody takes the audit's records")
        self._rest = records[written:]
        self._write_rest()
        self._stuck = False

    def shut(self, shut: bool) -> None:
        """Take no records while `shut`: the supervisor keeps those that it has, and cannot write them."""
        self._shut = shut
        self.fd = -1 if shut or self._rest else self._pipe

    def _write_rest(self) -> None:
        while self._rest:
            self.fd = -1
            if not self._finds_room():
                raise AuditUnavailable("nobody takes the other half of a record")
            self._rest = self._rest[self._put(self._rest) :]
        self.fd = self._pipe

    def _finds_room(self) -> bool:
        # Waits once: while nobody takes records, clients that keep asking must not keep the worker waiting.
        self._stuck = not self._room.poll(0 if self._stuck else AUDIT_WAIT_SECONDS * 1000)
        return not self._stuck

    def _put(self, data: bytes) -> int:
        """How much of `data` was taken."""
        try:
            return os.write(self._pipe, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise AuditUnavailable(str(error)) from error


class RefusalLimit:
    """Decides which refusals are written one by one, by a token bucket for each uid.

    `clock` gives seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[int | None, tuple[float, float]] = {}
        self.unwritten: dict[int | None, int] = {}  # the refusals of each uid that were only counted

    def admits(self, uid: int | None, size: int) -> bool:
        """Whether this refusal, a record of `size` bytes, is to be written; if not, it is counted.

        A long record costs as much as several: names can be made long, and a disk is filled by bytes.
        """
        cost = 1 + size // 1024
        now = self._clock()
        tokens, since = self._buckets.get(uid, (float(REFUSALS_BURST), now))
        tokens = min(REFUSALS_BURST, tokens + (now - since) * REFUSALS_PER_SECOND)
        if tokens < cost:
            self._buckets[uid] = (tokens, now)
            self.unwritten[uid] = self.unwritten.get(uid, 0) + 1
            return False
        self._buckets[uid] = (tokens - cost, now)
        return True

    def take_unwritten(self) -> dict[int | None, int]:
        """The counts, which start anew."""
        counts = dict(self.unwritten)
        self.unwritten.clear()
        # A full bucket is what an unknown uid has: forget it.
        now = self._clock()
        self._buckets = {
            uid: (tokens, since)
            for uid, (tokens, since) in self._buckets.items()
            if tokens + (now - since) * REFUSALS_PER_SECOND < REFUSALS_BURST
        }
        return counts

    def put_back(self, counts: dict[int | None, int]) -> None:
        """Take back counts that could not be written."""
        for uid, count in counts.items():
            self.unwritten[uid] = self.unwritten.get(uid, 0) + count
