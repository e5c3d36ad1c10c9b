"""The client library against a broker that lies: the right exception, and no fd that nobody owns."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sandboxed.client
from sandboxed import (
    BrokerError,
    Busy,
    Client,
    ConnectionLost,
    Denied,
    OwnedFd,
    ProtocolError,
    RequestError,
    TimedOut,
)
from sandboxed.descriptors import close_all, send_with_fds
from sandboxed.limits import REPLY_BYTES

OPENED = b'{"parameters":{"fileDescriptor":0,"grant":"g1","rights":["read"]}}\0'
INTERFACE = "org.fdbroker.Broker"

# What a lying broker sends, in order: bytes, and how many fds ride with their first one.
Pieces = list[tuple[bytes, int]]


@pytest.fixture(autouse=True)
def _no_fd_is_left() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


def send(broker_end: socket.socket, data: bytes, count: int) -> None:
    """Send `data` with `count` fds."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    try:
        sent = send_with_fds(broker_end, data, fds) if fds else 0
        broker_end.sendall(data[sent:])
    except (BrokenPipeError, ConnectionResetError):
        return  # the client has seen enough
    finally:
        close_all(fds)


def lied_to(
    pieces: Pieces, ask: Callable[[Client], Any], then: Callable[[Client], None] | None = None
) -> Any:
    """What `ask` returns when a broker takes its call, answers with `pieces` and closes the connection."""
    broker_end, client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def lie() -> None:
        with broker_end:
            call = b""
            while not call.endswith(b"\0"):
                call += broker_end.recv(65536)
            for data, count in pieces:
                send(broker_end, data, count)

    liar = threading.Thread(target=lie)
    liar.start()
    try:
        with Client(client_end) as client:
            try:
                return ask(client)
            finally:
                if then is not None:
                    then(client)
    finally:
        liar.join()


def open_one(client: Client) -> None:
    """Open, and close what comes."""
    client.open_fd("/some/file", ["read"]).close()


def open_two(client: Client) -> None:
    """Open two at once, and close what comes."""
    for result in client.open_many([("/one", ["read"]), ("/two", ["read"])]):
        if isinstance(result, OwnedFd):
            result.close()


def reply(parameters: Any) -> bytes:
    """A good reply with these parameters."""
    return json.dumps({"parameters": parameters}).encode() + b"\0"


def error(name: Any, parameters: Any = None) -> bytes:
    """An error reply."""
    return json.dumps({"error": name, "parameters": parameters}).encode() + b"\0"


def opened(index: Any) -> bytes:
    """The reply to an Open, with any index."""
    return reply({"grant": "g1", "rights": ["read"], "fileDescriptor": index})


# --- replies that are fine though our broker sends no such ones ---------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        [(OPENED, 1)],
        [(opened(0), 1)],
        [(OPENED[:1], 1), (OPENED[1:], 0)],
        [(OPENED[:30], 0), (OPENED[30:], 1)],
        [(OPENED[place : place + 1], place == 40) for place in range(len(OPENED))],
        [(b" \n" + OPENED, 1)],
    ],
    ids=["ours", "another order", "two pieces", "fd with the rest", "bytes", "spaces"],
)
def test_client_takes_an_honest_reply_in_any_shape(pieces: Pieces) -> None:
    def ask(client: Client) -> tuple[str, list[str]]:
        with client.open_fd("/some/file", ["read"]) as fd:
            os.fstat(fd)
            return fd.grant, fd.rights

    assert lied_to(pieces, ask) == ("g1", ["read"])


# --- fds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        [(OPENED, 2)],
        [(OPENED, 64)],
        [(OPENED, 65)],
        [(OPENED, 253)],
        [(OPENED[:20], 1), (OPENED[20:], 1)],
        [(reply({}), 1)],
        [(reply({"fileDescriptor": None}), 1)],
        [(reply({"grant": "g1", "rights": []}), 0)],
        [(opened(1), 1)],
        [(opened(-1), 1)],
        [(opened("0"), 1)],
        [(opened(0.0), 1)],
        [(opened([0]), 1)],
        [(opened(False), 1)],
        [(opened(10**30), 1)],
    ],
    ids=lambda pieces: f"{pieces[0][0][:60].decode()}-{pieces[0][1]}",
)
def test_client_keeps_no_fd_of_a_reply_that_announces_others(pieces: Pieces) -> None:
    with pytest.raises(ProtocolError):
        lied_to(pieces, open_one)


def test_client_that_got_fewer_fds_than_announced_says_that_it_cannot_hold_them() -> None:
    # Some kernels drop the fds for which a full table has no room, without a word.
    with pytest.raises(OSError, match="more file descriptors than this process can hold"):
        lied_to([(OPENED, 0)], open_one)


@pytest.mark.parametrize(
    ("results", "count"),
    [
        ([{"fileDescriptor": 0}, {"fileDescriptor": 0}], 1),
        ([{"fileDescriptor": 0}, {"fileDescriptor": 0}], 2),
        ([{"fileDescriptor": 0}, {"fileDescriptor": 2}], 2),
        ([{"fileDescriptor": 0}, {"fileDescriptor": "1"}], 2),
        ([{"fileDescriptor": 0}, {"fileDescriptor": 1.0}], 2),
        ([{"fileDescriptor": 0}, {"fileDescriptor": True}], 2),
        ([{"fileDescriptor": 0}, {"fileDescriptor": {}}], 2),
        ([{"fileDescriptor": 0}, {"fileDescriptor": 1}], 3),
        ([{"fileDescriptor": 0}, {}], 1),
        ([{"fileDescriptor": 0}, {"error": f"{INTERFACE}.Denied"}], 2),
        ([{"fileDescriptor": 0}, {"error": "builtins.SystemExit"}], 1),
        ([{"fileDescriptor": 0}, {"error": f"{INTERFACE}.OpenFailed"}], 1),
        ([{"fileDescriptor": 0}, {"error": f"{INTERFACE}.OpenFailed", "errno": "x"}], 1),
        ([{"fileDescriptor": 0}, {"error": f"{INTERFACE}.OpenFailed", "errno": 10**30}], 1),
        ([{"fileDescriptor": 0}, 5], 1),
        ([{"fileDescriptor": 0}, None], 1),
        ([{"fileDescriptor": 0}, []], 1),
        ([{"fileDescriptor": 0}], 1),
        ([{"fileDescriptor": 0}, {"fileDescriptor": 1}, {}], 2),
        ([], 1),
        ({}, 1),
        ("two", 2),
        (None, 2),
    ],
)
def test_client_keeps_no_fd_of_a_batch_that_makes_no_sense(results: Any, count: int) -> None:
    with pytest.raises((ProtocolError, OSError)) as caught:
        lied_to([(reply({"results": results}), count)], open_two)
    assert isinstance(caught.value, ProtocolError) or "hold" in str(caught.value)


def test_client_keeps_no_fd_of_a_batch_with_a_refused_call() -> None:
    results = [{"fileDescriptor": 0}, {"error": "org.varlink.service.InvalidParameter"}]
    with pytest.raises(RequestError):
        lied_to([(reply({"results": results}), 1)], open_two)


def test_client_keeps_no_fd_that_came_with_an_error() -> None:
    with pytest.raises(Denied):
        lied_to([(error(f"{INTERFACE}.Denied", {}), 3)], open_one)
    with pytest.raises(Denied):
        lied_to([(error(f"{INTERFACE}.Denied", {}), 3)], open_two)


def test_client_keeps_no_fd_that_came_with_another_methods_reply() -> None:
    assert lied_to([(reply({"allowed": True}), 2)], lambda client: client.check("/x", ["read"])) is True
    assert lied_to([(reply({"peer": 1}), 2)], Client.describe) == {"peer": 1}


# --- bytes -------------------------------------------------------------------------------------------------

GARBAGE = [
    b"\0",
    b"hello\0",
    b"null\0",
    b"5\0",
    b'"text"\0',
    b"[]\0",
    b"[{}]\0",
    b"{\0",
    b"\xff\xfe\0",
    b'{"parameters":[1]}\0',
    b'{"parameters":"x"}\0',
    b'{"parameters":5}\0',
    b'{"fileDescriptor":0}\0',
    b"[" * 100_000 + b"\0",
    b'{"a":' * 100_000 + b"\0",
    b'{"parameters":' + b"9" * 10_000 + b"}\0",
    b"{}\0",
]


@pytest.mark.parametrize("ask", [open_one, open_two], ids=["one", "many"])
@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:24]))
def test_garbage_is_a_protocol_error(data: bytes, ask: Callable[[Client], None]) -> None:
    with pytest.raises(ProtocolError):
        lied_to([(data, 1)], ask)


GARBLED = [
    (b'{"parameters":{"fileDescriptor":0,', -1),
    (b'{"parameters":{"fileDescriptor":0,\xff}}', -1),
    (b'{"parameters":{"fileDescriptor":0,"x":' + b"[" * 100_000, -1),
    (b'{"parameters":{"fileDescriptor":0,"x":1},"parameters":[1]}', -1),
    (b'{"parameters":{"fileDescriptor":0,"x":1},"parameters":null}', -1),
    (b'{"results":[{}]}', -1),
    (b"[]", -1),
    (b'{"parameters":{}}', 0),
    (b'{"parameters":{"results":[]}}', 0),
    (b'{"parameters":{"results":[5]}}', 0),
]


@pytest.mark.parametrize(("data", "place"), GARBLED, ids=lambda value: repr(value)[:70])
def test_garbled_grant_is_a_protocol_error(data: bytes, place: int) -> None:
    fd = OwnedFd(0, data, place)
    for name in ("grant", "rights"):
        with pytest.raises(ProtocolError, match="garbled"):
            getattr(fd, name)


def test_grant_that_is_garbled_behind_an_honest_beginning_is_a_protocol_error() -> None:
    def ask(client: Client) -> None:
        with client.open_fd("/some/file", ["read"]) as fd:
            os.fstat(fd)
            assert fd.grant

    with pytest.raises(ProtocolError, match="garbled"):
        lied_to([(OPENED[:-3] + b"\0", 1)], ask)


@pytest.mark.parametrize("value", [None, "yes", 1, [], {}])
def test_check_without_yes_or_no_is_a_protocol_error(value: Any) -> None:
    for parameters in ({"allowed": value}, {}):
        with pytest.raises(ProtocolError):
            lied_to([(reply(parameters), 0)], lambda client: client.check("/x", ["read"]))


def assert_spent(client: Client) -> None:
    """The connection is closed: what is left in it could be taken for the next call's reply."""
    with pytest.raises(ConnectionLost):
        client.describe()


@pytest.mark.parametrize(
    "pieces",
    [[(OPENED + OPENED, 1)], [(OPENED + b"{", 1)], [(OPENED[:9], 1), (OPENED[9:] + b"\0", 0)]],
    ids=["two", "one and a bit", "in pieces"],
)
def test_two_replies_in_one_are_a_protocol_error(pieces: Pieces) -> None:
    with pytest.raises(ProtocolError, match="more than one reply"):
        lied_to(pieces, open_one, assert_spent)


@pytest.mark.parametrize("end", [b"", b"\0"], ids=["unfinished", "whole"])
def test_reply_over_the_limit_is_a_protocol_error(end: bytes) -> None:
    with pytest.raises(ProtocolError, match=str(REPLY_BYTES)):
        lied_to([(b'{"parameters":"', 3), (b"x" * REPLY_BYTES + end, 0)], open_one, assert_spent)


def test_reply_of_exactly_the_limit_is_taken() -> None:
    parameters = {"text": ""}
    parameters["text"] = "x" * (REPLY_BYTES - len(reply(parameters)) + 1)
    assert len(reply(parameters)) == REPLY_BYTES + 1
    assert lied_to([(reply(parameters), 0)], Client.describe) == parameters


@pytest.mark.parametrize(
    "pieces",
    [[], [(OPENED[:20], 1)], [(OPENED[:-1], 2)], [(b"[", 1), (b"[", 1), (b"[", 64)]],
    ids=["at once", "in the middle", "before the end", "with many fds"],
)  # fmt: skip
def test_end_of_the_stream_is_a_lost_connection(pieces: Pieces) -> None:
    with pytest.raises(ConnectionLost):
        lied_to(pieces, open_one, assert_spent)


def test_reset_of_the_connection_is_a_lost_connection() -> None:
    broker_end, client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    client_end.sendall(b"what the broker never reads")
    broker_end.close()
    with Client(client_end) as client:
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                open_one(client)


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "SystemExit",
        "builtins.KeyboardInterrupt",
        "sandboxed.errors.NoBroker",
        f"{INTERFACE}.SystemExit",
        f"{INTERFACE}.OSError",
        f"{INTERFACE}.__class__",
        f"{INTERFACE}.",
        f"{INTERFACE}.Denied.x",
        f"{INTERFACE}.denied",
        "os.system",
        "",
        " ",
        "\u0000",
        5,
        [],
        {"Denied": 1},
        True,
    ],
)
def test_error_of_an_unknown_name_is_a_protocol_error(name: Any) -> None:
    with pytest.raises(BrokerError) as caught:
        lied_to([(error(name, {"errno": 2, "name": "ENOENT"}), 1)], open_one)
    assert type(caught.value) is ProtocolError


@pytest.mark.parametrize(
    "data",
    [
        error(f"{INTERFACE}.OpenFailed", {}),
        error(f"{INTERFACE}.OpenFailed", None),
        error(f"{INTERFACE}.OpenFailed", {"errno": None}),
        error(f"{INTERFACE}.OpenFailed", {"errno": "ENOENT"}),
        error(f"{INTERFACE}.OpenFailed", {"errno": [2]}),
        error(f"{INTERFACE}.OpenFailed", {"errno": 2**40}),
        error(f"{INTERFACE}.OpenFailed", {"errno": float("inf")}),
        error(f"{INTERFACE}.OpenFailed", {"errno": float("nan")}),
        error(f"{INTERFACE}.OpenFailed", [2]),
    ],
)
def test_malformed_error_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        lied_to([(data, 1)], open_one)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(2, FileNotFoundError), (13, PermissionError), (16, OSError), (110, TimeoutError), (99999, OSError)],
)
def test_failed_open_is_the_os_error_of_its_number_and_nothing_else(number: int, kind: type[OSError]) -> None:
    data = error(f"{INTERFACE}.OpenFailed", {"errno": number, "name": "anything"})
    with pytest.raises(OSError) as caught:
        lied_to([(data, 0)], open_one)
    assert (type(caught.value), caught.value.errno) == (kind, number)
    assert not isinstance(caught.value, BrokerError)


def test_busy_names_the_limit() -> None:
    with pytest.raises(Busy, match="slow opens") as caught:
        lied_to([(error(f"{INTERFACE}.Busy", {"limit": "slow opens"}), 0)], open_one)
    assert caught.value.limit == "slow opens"


@pytest.mark.parametrize("name", ["InvalidParameter", "MethodNotFound", "PermissionDenied"])
def test_refused_call_is_a_request_error(name: str) -> None:
    with pytest.raises(RequestError, match=name):
        lied_to([(error(f"org.varlink.service.{name}", {"parameter": "path"}), 0)], open_one)


# --- time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beginning", [b"", OPENED[:10]], ids=["nothing", "half a reply"])
@pytest.mark.parametrize("shared", [False, True])
def test_timeout_closes_the_connection(beginning: bytes, shared: bool) -> None:
    broker_end, client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with broker_end, client_end, Client(client_end.dup(), timeout=0.02, shared=shared) as client:
        if not shared:
            client_end.close()
        if beginning and not shared:
            send(broker_end, beginning, 1)
        with pytest.raises(TimedOut) as caught:
            open_one(client)
        assert isinstance(caught.value, (TimeoutError, BrokerError))
        assert_spent(client)
        # The broker sees the end, also where others hold the connection: a late reply would be taken for theirs.
        while broker_end.recv(65536):
            pass


@pytest.mark.parametrize("shared", [False, True])
def test_call_times_out_when_the_broker_dribbles(shared: bool) -> None:
    broker_end, client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def dribble() -> None:
        broker_end.recv(65536)
        send(broker_end, b" ", 1)
        try:
            while True:  # never idle for long, and never done
                broker_end.sendall(b" ")
        except (BrokenPipeError, ConnectionResetError):
            return

    dribbler = threading.Thread(target=dribble)
    dribbler.start()
    with broker_end:
        with Client(client_end, timeout=0.02, shared=shared) as client:
            with pytest.raises(TimedOut):
                open_one(client)
            assert_spent(client)
        dribbler.join()


def test_call_times_out_when_the_broker_does_not_read() -> None:
    broker_end, client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    client_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least
    with broker_end, Client(client_end, timeout=0.02) as client:
        with pytest.raises(TimedOut):
            client.check("/" + 50_000 * "x", ["read"])
        assert_spent(client)


def test_call_arrives_whole_when_the_broker_reads_it_in_pieces() -> None:
    broker_end, client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    client_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    path = "/" + 50_000 * "x"
    call = bytearray()

    def read() -> None:
        while not call.endswith(b"\0"):
            call.extend(broker_end.recv(1000))
        broker_end.sendall(reply({"allowed": True}))

    reader = threading.Thread(target=read)
    reader.start()
    with broker_end, Client(client_end) as client:
        assert client.check(path, ["read"])
        reader.join()
    assert json.loads(call[:-1])["parameters"]["path"] == path


def test_call_times_out_when_another_thread_has_its_turn() -> None:
    broker_end, client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with (
        broker_end,
        Client(client_end.dup(), shared=True) as patient,
        Client(client_end, timeout=0.02, shared=True) as hasty,
    ):
        answers: list[dict[str, Any]] = []
        first = threading.Thread(target=lambda: answers.append(patient.describe()))
        first.start()
        broker_end.recv(65536)
        with pytest.raises(TimedOut):
            hasty.describe()
        broker_end.sendall(reply({"peer": 1}))
        first.join()
        assert answers == [{"peer": 1}]  # the one who gave up did not end the other's call


HOLDER = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def test_call_times_out_when_another_process_has_its_turn() -> None:
    broker_end, client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    number = client_end.fileno()
    with (
        broker_end,
        Client(client_end, timeout=0.02, shared=True) as client,
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(number)],
            pass_fds=(number,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        for _ in range(2):  # the connection goes on
            with pytest.raises(TimedOut):
                client.describe()
        broker_end.setblocking(False)
        with pytest.raises(BlockingIOError):
            broker_end.recv(1)  # neither a call nor the end


def test_client_without_a_timeout_waits_for_the_reply() -> None:
    waits: list[Any] = []

    class Recorder:
        def poll(self, wait: float | None) -> list[tuple[int, int]]:
            waits.append(wait)
            return [(0, 1)]

    def ask(client: Client) -> None:
        client._poll = Recorder()  # type: ignore[assignment]
        open_one(client)

    lied_to([(OPENED, 1)], ask)
    assert waits == [None]


def test_names_of_the_library_are_those_that_it_exports() -> None:
    exported = set(sandboxed.__all__)
    errors = {
        name
        for name, value in vars(sandboxed.errors).items()
        if isinstance(value, type) and issubclass(value, BrokerError)
    }
    # MessageTooLong belongs to both ends; a client catches it as the ProtocolError that it is.
    assert errors - exported == {"MessageTooLong"}
    assert all(hasattr(sandboxed, name) for name in exported)
