"""Lines of an audit, read back: from files, also compressed ones, from standard input, and as they are written.

The file may be anybody's: each line is read by itself, and one that is no record is told apart from those that are.
Nothing that is read is trusted to be short, printable, or whole. What is held does not grow with the file.
"""

import gzip
import io
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, BinaryIO

import msgspec

from broker.limits import RECORD_BYTES
from broker.recordwords import FRONT
from broker.unusable import Unusable

STANDARD_INPUT = "-"

# The supervisor's number and time go in front of a record.
LINE_BYTES = RECORD_BYTES + 4096

_GZIP = b"\x1f\x8b"  # RFC 1952
_CHUNK = 256 * 1024
_FOLLOW_SECONDS = 0.2

_decode = msgspec.json.Decoder().decode


def lines_of(name: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of the file of that name, or of standard input, with their numbers.

    Of one that is longer than any record it yields a piece that is none. Raises Unusable.
    """
    try:
        with open(0, "rb", closefd=False) if name == STANDARD_INPUT else open(name, "rb") as file:
            # peek() gives fewer bytes only at the end.
            is_compressed = file.peek(2)[:2] == _GZIP
            yield from _numbered(io.BufferedReader(gzip.GzipFile(fileobj=file)) if is_compressed else file)
    except (EOFError, zlib.error) as error:
        raise Unusable(f"the audit {name} cannot be read: {error}") from None
    except OSError as error:
        raise Unusable(f"the audit {name} cannot be read: {error.strerror or error}") from None


def _numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(LINE_BYTES):
        number += 1
        yield number, line
        while line and not line.endswith(b"\n") and len(line) == LINE_BYTES:
            line = file.readline(LINE_BYTES)


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record that a line is; None for what is none.

    Its number and time are those at the front, which the supervisor wrote: a worker that was taken over can only say
    others behind them.
    """
    try:
        record = _decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        record = _decoded_slowly(line)
    if type(record) is not dict or type(record.get("event")) is not str:
        return None
    front = FRONT.match(line)
    if front is not None:
        number, moment = front.groups()
        record["seq"] = int(number)
        record["time"] = moment.decode()
    return record


def _decoded_slowly(line: bytes) -> Any:
    """As Python's own module does, which takes what msgspec does not: halves of surrogate pairs."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def moment_of(text: Any) -> float | None:
    """The seconds since 1970 that a record's time stands for; None where it stands for none."""
    if type(text) is not str:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.timestamp()
    except (ValueError, OverflowError):
        return None


def followed(name: str, pause: Callable[[float], None] = time.sleep) -> Iterator[tuple[int, bytes]]:
    """Yield the lines as lines_of() does, and those that are written from now on, without end.

    Where there is no more for now, it yields (0, b"") and waits. When the file is renamed and another has its name, it
    goes on in that one once something was written there: its writer has left the old one by then. A file that became
    shorter is read from its beginning. Raises Unusable.
    """
    try:
        file = open(name, "rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise Unusable(f"the audit {name} cannot be read: {error.strerror}") from None
    try:
        while True:
            lines = _Cut()
            successor = None
            while successor is None:
                yield from lines.all_of(file)
                yield 0, b""
                successor = _successor(name, file)
                if successor is None and os.fstat(file.fileno()).st_size < file.tell():
                    file.seek(0)
                    lines = _Cut()
                elif successor is None:
                    pause(_FOLLOW_SECONDS)
            # What was written before the writer went on in the other.
            yield from lines.all_of(file)
            yield from lines.rest()
            file.close()
            file = successor
    finally:
        file.close()


def _successor(name: str, file: io.FileIO) -> io.FileIO | None:
    """The other file that has the name now, where something was written to it."""
    try:
        there, own = os.stat(name), os.fstat(file.fileno())
        if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino) or not there.st_size:
            return None
        return open(name, "rb", buffering=0)
    except OSError:
        return None  # not there yet


class _Cut:
    """Cuts what is read into lines, and numbers them."""

    def __init__(self) -> None:
        self._number = 0
        self._partial = b""
        self._skipping = False

    def all_of(self, file: io.FileIO) -> Iterator[tuple[int, bytes]]:
        """Yield the lines that there are in the file from where it stands."""
        while data := file.read(_CHUNK):
            *lines, self._partial = (self._partial + data).split(b"\n")
            for line in lines:
                if self._skipping:
                    self._skipping = False
                    continue
                self._number += 1
                yield self._number, line + b"\n"
            if len(self._partial) > LINE_BYTES:
                if not self._skipping:
                    self._number += 1
                    yield self._number, self._partial
                self._partial, self._skipping = b"", True

    def rest(self) -> Iterator[tuple[int, bytes]]:
        """Yield what has no line end yet: there will be none."""
        if self._partial and not self._skipping:
            yield self._number + 1, self._partial
