"""The audit as entries of systemd's journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

An entry is one datagram of fields. Each field of a record becomes one of the journal's, FDBROKER_ before its name in
capitals: those of `peer` as FDBROKER_PEER_UID and so on, a list as several of one name. FDBROKER_RECORD is the line as
a file would have it, MESSAGE the same for people. Rules that this module enforces:
- a record names no field but those with that prefix, and a value with a line end goes by its length: nothing that a
  client chose can be taken for a field;
- number and time are those that the supervisor wrote at the front of the line, whatever the record says behind them;
- nothing here waits: where the journal has no room for now, the record is offered again.
"""

import errno
import fcntl
import json
import os
import re
import socket
import stat
import struct
from collections.abc import Iterator
from typing import Any

from broker.limits import JOURNAL_FIELDS
from broker.recordwords import FRONT, message_of

SOCKET = "/run/systemd/journal/socket"

_IDENTIFIER = "fdbroker"

# journald's names: capitals, digits and _, 64 characters at most.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")

_NOTICE, _INFO, _WARNING = 5, 6, 4  # syslog(3)
_WARNINGS = frozenset(("malformed", "oneway", "records-lost", "record-dropped", "reopen-failed"))

# memfd_create(2), fcntl(2): journald takes a file only when nobody can change it any more.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class JournalSink:
    """Sends each line as one entry."""

    def __init__(self, path: str = "") -> None:
        """Connect to the journal's socket at `path`, by default the system's. Raises OSError."""
        self._path = path or SOCKET
        self._socket: socket.socket | None = self._connected()

    def write(self, data: bytes) -> int:
        """Send the lines of `data` that there is room for; their bytes. Raises OSError."""
        sent = 0
        while sent < len(data):
            end = data.index(b"\n", sent) + 1
            try:
                self._send(entry(data[sent : end - 1]))
            except BlockingIOError:
                return sent
            except OSError:
                if sent:
                    return sent  # it is met again with what is left
                raise
            sent = end
        return sent

    def reopen(self) -> None:
        """Connect anew. Raises OSError."""
        new = self._connected()
        self.close()
        self._socket = new

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: bytes) -> None:
        if self._socket is not None:
            try:
                return self._send_by(self._socket, message)
            except OSError as error:
                # journald was started anew, with a new socket: try that one at once. ENOTCONN: its socket was closed.
                if error.errno not in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE):
                    raise
                self.close()
        self._socket = self._connected()
        return self._send_by(self._socket, message)

    def _send_by(self, connection: socket.socket, message: bytes) -> None:
        try:
            connection.send(message, socket.MSG_NOSIGNAL)
        except OSError as error:
            # ENOBUFS: the kernel has no room for a datagram of that size.
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            _send_as_file(connection, message)

    def _connected(self) -> socket.socket:
        status = os.stat(self._path)
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            raise OSError(errno.EPERM, "it must be a socket of root's or of this user's", self._path)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        return connection


def _send_as_file(connection: socket.socket, message: bytes) -> None:
    """Send what is too large for a datagram in a sealed file, the datagram's only fd."""
    fd = os.memfd_create("fdbroker-audit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(message)
        while left:
            left = left[os.write(fd, left) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
        connection.sendmsg([b""], rights, socket.MSG_NOSIGNAL)
    finally:
        os.close(fd)


def entry(line: bytes) -> bytes:
    """A line of the audit as the journal takes it."""
    record = _record(line)
    event, verdict = record.get("event"), record.get("verdict")
    if isinstance(event, str) and event in _WARNINGS:
        priority = _WARNING
    else:
        priority = _INFO if verdict in ("allow", None) else _NOTICE
    fields = [
        ("MESSAGE", message_of(record)),
        ("PRIORITY", str(priority)),
        ("SYSLOG_IDENTIFIER", _IDENTIFIER),
        ("FDBROKER_RECORD", line.decode("utf-8", "backslashreplace")),
        *_own_fields("FDBROKER", record),
    ]
    return b"".join(_encoded(name, value) for name, value in fields[:JOURNAL_FIELDS])


def _record(line: bytes) -> dict[str, Any]:
    """The record, as far as it is one. It comes from a worker that may be taken over."""
    front = FRONT.match(line)
    own: dict[str, Any] = {} if front is None else {"seq": int(front[1]), "time": front[2].decode()}
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return own
    return {**record, **own} if isinstance(record, dict) else own


def _own_fields(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = key.replace("-", "_")
        if not _NAME.fullmatch(name):
            continue
        name = f"{prefix}_{name.upper()}"
        if isinstance(value, dict) and prefix == "FDBROKER":
            yield from _own_fields(name, value)
        else:
            for one in value if isinstance(value, list) else [value]:
                yield name[:64], one if isinstance(one, str) else json.dumps(one)


def _encoded(name: str, value: str) -> bytes:
    """One field: NAME=value, or by its length where the value has a line end."""
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return b"%b=%b\n" % (name.encode("ascii"), data)
    return b"%b\n%b%b\n" % (name.encode("ascii"), struct.pack("<Q", len(data)), data)
