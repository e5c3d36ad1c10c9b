"""One broker for all tests of the wire, and a client that sends what it is told to, byte for byte."""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import SECONDS, Broker, allow, policy

from sandboxed.descriptors import close_all, receive_with_fds

REPLY_BYTES = 1024 * 1024


class Reply(NamedTuple):
    """What came back: the message, and how many fds rode with it."""

    message: dict[str, Any]
    fds: int

    @property
    def error(self) -> str | None:
        """The error's whole name, or None."""
        return self.message.get("error")

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the reply, or of the error."""
        return dict(self.message["parameters"])


class RawClient:
    """A connection that knows nothing of Varlink but the NUL."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(SECONDS)
        self.socket.connect(path)

    def send(self, data: bytes) -> None:
        """Send `data` as it is."""
        self.socket.sendall(data)

    def receive(self) -> Reply | None:
        """The next reply, whose fds are closed; None at the end of the stream."""
        data, count = b"", 0
        while not data.endswith(b"\0"):
            try:
                piece, fds = receive_with_fds(self.socket, REPLY_BYTES, 253)
            except ConnectionResetError:  # the broker closed it with something unread
                return None
            close_all(fds)
            if not piece:
                assert not data, f"the stream ended inside a message: {data!r}"
                return None
            data, count = data + piece, count + len(fds)
        assert data.count(b"\0") == 1, data
        return Reply(json.loads(data[:-1]), count)

    def exchange(self, message: bytes) -> Reply | None:
        """Send one message and its NUL, and receive what comes back."""
        self.send(message + b"\0")
        return self.receive()

    def call(self, method: str, parameters: Any = None, **members: Any) -> Reply:
        """Make a call; parameters that are None are left out. There must be a reply."""
        call: dict[str, Any] = {"method": method, **members}
        if parameters is not None:
            call["parameters"] = parameters
        reply = self.exchange(json.dumps(call).encode())
        assert reply is not None, f"the broker ended the connection at {call}"
        return reply

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


class WireBroker(NamedTuple):
    """A broker and the files that its policy speaks of."""

    broker: Broker
    place: Path
    given: str  # readable by the policy, and there
    missing: str  # readable by the policy, and not there
    kept: str  # there, and not given


@pytest.fixture(scope="module")
def wire() -> Iterator[WireBroker]:
    """A broker that lives as long as a module's tests, and is unharmed at their end."""
    place = Path(tempfile.mkdtemp(prefix="fdbroker-test-", dir="/tmp"))
    place.chmod(0o755)
    broker = None
    try:
        for name in ("given", "kept"):
            (place / name).write_text(f"what is {name}")
            (place / name).chmod(0o600)
        broker = Broker(
            place,
            policy(
                allow("given", f"{place}/given"),
                allow("missing", f"{place}/missing"),
                allow("zero", "/dev/zero", "use", "type: char"),
            ),
        )
        yield WireBroker(broker, place, f"{place}/given", f"{place}/missing", f"{place}/kept")
        broker.assert_unharmed()
        assert broker.stop() == 0
    finally:
        if broker is not None:
            broker.kill()
        shutil.rmtree(place)


@pytest.fixture
def raw(wire: WireBroker) -> Iterator[Callable[[], RawClient]]:
    """Connects raw clients; the test's own fds are the same at its end."""
    before = sorted(os.listdir("/proc/self/fd"))
    clients: list[RawClient] = []

    def connect() -> RawClient:
        clients.append(RawClient(wire.broker.socket))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def client(raw: Callable[[], RawClient]) -> RawClient:
    """A raw client of the module's broker."""
    return raw()
