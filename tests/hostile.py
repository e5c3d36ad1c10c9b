"""A client that keeps to no rule: it sends what bytes it likes, and reads what it likes or nothing."""

import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support import SECONDS, Broker, wait_until

PREFIX = "org.fdbroker.Broker"
DENIED = f"{PREFIX}.Denied"
OPEN_FAILED = f"{PREFIX}.OpenFailed"
BUSY = f"{PREFIX}.Busy"
INVALID = "org.varlink.service.InvalidParameter"


def call(method: str, parameters: Any = None, **more: Any) -> bytes:
    """One call as it goes over the wire, with its NUL. A method without a dot is the broker's own."""
    name = method if "." in method else f"{PREFIX}.{method}"
    return json.dumps({"method": name, "parameters": parameters or {}, **more}).encode() + b"\0"


def opening(path: Any, access: Any = ("read",), **more: Any) -> bytes:
    """The call that opens `path`."""
    return call("Open", {"path": str(path), "access": list(access), **more})


class Hostile:
    """One connection, raw. Received fds belong to the caller of receive()."""

    def __init__(self, broker: Broker) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(SECONDS)
        self.socket.connect(broker.socket)
        self._read = b""

    def __enter__(self) -> "Hostile":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`, or as much as the broker takes before it hangs up."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """The next reply and the fds that came with its bytes."""
        fds: list[int] = []
        while b"\0" not in self._read:
            data, control, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(4 * 253))
            assert data, "the broker hung up"
            self._read += data
            for level, kind, content in control:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                fds += array.array("i", content)
        reply, _, self._read = self._read.partition(b"\0")
        return json.loads(reply), fds

    def ask(self, data: bytes) -> tuple[dict[str, Any], list[int]]:
        """Send and receive."""
        self.send(data)
        return self.receive()

    def error(self, data: bytes) -> str:
        """Send, and return the error that comes back, without an fd."""
        reply, fds = self.ask(data)
        assert not fds
        return str(reply["error"])

    def content(self, data: bytes) -> str:
        """Send an Open that must succeed, and return what the fd reads."""
        reply, fds = self.ask(data)
        return read_and_close(reply, fds)

    def unread_by_broker(self) -> int:
        """Bytes that were sent and that the broker has not read: SIOCOUTQ of unix(7)."""
        return int.from_bytes(fcntl.ioctl(self.socket, 0x5411, bytes(4)), sys.byteorder)

    def is_hung_up_on(self) -> bool:
        """Whether the broker ends the connection and says nothing more."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def read_and_close(reply: dict[str, Any], fds: list[int]) -> str:
    """What the one fd of a good reply reads; it is closed."""
    assert len(fds) == 1, reply
    try:
        assert reply["parameters"]["fileDescriptor"] == 0
        return os.pread(fds[0], 100, 0).decode()
    finally:
        os.close(fds[0])


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """What happens inside, happens while the process `pid` can do nothing."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", "the process to stop")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def state_of(pid: int) -> str:
    """The state letter of proc(5): R, S, D, T, Z, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def comes_to_rest(pid: int) -> None:
    """Wait until the process uses no processor time at all between two looks."""

    def used() -> int:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])

    last = [-1, -2]

    def rests() -> bool:
        # Three looks in a row, as wait_until comes by.
        now = used()
        calm = now == last[0] == last[1]
        last[:] = [now, last[0]]
        return calm

    wait_until(rests, f"process {pid} to stop using the processor")
