"""The grants that are in force, as the supervisor knows them: from the audit's records, whatever becomes of a worker.

The records are kept as the worker wrote them, and taken apart when somebody asks: an open must not wait for that.
"""

import json
import re
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

from broker.limits import GRANT_RECORDS, GRANTS_PER_CONNECTION, SHOWN_PATH

# Records that may come before the kept ones are looked through for those that are over.
_SWEEP = 8192

_OPENED = re.compile(rb'"event":"open","connection":(\d{1,20}),.*"grant":"(g\d{1,20})"')
_RELEASED = re.compile(rb'"event":"release",.*"grant":"(g\d{1,20})"')


class Grants:
    """What was granted on connections that are not over."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._sweep_at = _SWEEP
        self.forgotten = 0
        """Grants that may be in force and are not known any more, since there were too many."""

    def note(self, records: Sequence[bytes]) -> None:
        """Take in the records of a worker."""
        self._records += [record for record in records if b'"grant":"g' in record]

    def end(self, grant: str) -> None:
        """This one is over, whatever its holder does."""
        self._records = [record for record in self._records if _grant_opened_by(record) != grant.encode()]

    @property
    def is_full(self) -> bool:
        """Whether sweep() is due."""
        return len(self._records) >= self._sweep_at

    def sweep(self, connections: Collection[int]) -> None:
        """Forget what is over: released, or of none of `connections`, or older than each may have."""
        self._records = self._in_force(connections)
        if len(self._records) > GRANT_RECORDS:
            self.forgotten += len(self._records) - GRANT_RECORDS
            self._records = self._records[-GRANT_RECORDS:]
        self._sweep_at = max(_SWEEP, 2 * len(self._records))

    def count(self, connections: Collection[int]) -> int:
        """How many there are on `connections`."""
        return len(self._in_force(connections))

    def of(self, connection: int) -> list[tuple[int, str]]:
        """The numbers and the paths of those on one connection, the oldest first."""
        found = []
        for content in self.listed((connection,)):
            number, path = str(content.get("grant")).removeprefix("g"), content.get("path")
            if number.isdecimal() and isinstance(path, str):
                found.append((int(number), path[:SHOWN_PATH]))
        return found

    def listed(self, connections: Collection[int]) -> list[dict[str, Any]]:
        """The records of those on `connections`, the oldest first; what is no JSON is left out."""
        found = []
        for record in self._in_force(connections):
            try:
                content = json.loads(record)
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                found.append(content)
        return found

    def _in_force(self, connections: Collection[int]) -> list[bytes]:
        kept: dict[int, deque[tuple[bytes, bytes]]] = {}
        released: set[bytes] = set()
        for record in self._records:
            opened = _OPENED.match(record, 1)
            if opened is None:
                ended = _RELEASED.match(record, 1)
                if ended is not None:
                    released.add(ended[1])
                continue
            number = int(opened[1])
            if number in connections:
                of_one = kept.setdefault(number, deque(maxlen=GRANTS_PER_CONNECTION))
                of_one.append((opened[2], record))
        return [record for of_one in kept.values() for grant, record in of_one if grant not in released]


def _grant_opened_by(record: bytes) -> bytes | None:
    opened = _OPENED.match(record, 1)
    return None if opened is None else opened[2]
