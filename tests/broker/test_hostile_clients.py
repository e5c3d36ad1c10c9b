"""Clients that send garbage, too much, too little, or nothing, and that die at any moment.

After each test the broker is compared with itself (see `start_broker`): it answers, its processes are the
same, and so are their fds.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import (
    DENIED,
    INVALID,
    Hostile,
    call,
    comes_to_rest,
    opening,
    read_and_close,
    stopped,
)
from support import FDBROKER, STRANGER, Broker, allow, as_uid, policy, wait_until

from broker.limits import PATH_BYTES

_LIMIT = 64 * 1024


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    """A directory with file0, file1, …, that every uid can reach."""
    with tempfile.TemporaryDirectory(prefix="fdbroker-test-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for number in range(64):
            (directory / f"file{number}").write_text(f"content {number}")
        yield directory


@pytest.fixture(scope="module")
def attacked(files: Path) -> Iterator[Broker]:
    """One broker that gives everybody `files`, and that all tests attack."""
    broker = Broker(files, policy(allow("files", f"{files}/file*"), allow("all", "/all/**")))
    try:
        yield broker
        broker.assert_unharmed()
        assert broker.stop() == 0
    finally:
        broker.kill()


@pytest.fixture
def broker(attacked: Broker) -> Iterator[Broker]:
    """That broker, with an empty audit; compared with itself when the test is over."""
    os.truncate(attacked.audit, 0)
    yield attacked
    attacked.assert_unharmed()


def is_served(broker: Broker, files: Path) -> None:
    with Hostile(broker) as other:
        assert other.content(opening(files / "file0")) == "content 0"


NO_CALLS = {
    "random bytes": bytes(range(255, 0, -1)) + b"\0",
    "nothing": b"\0",
    "many nothings": b"\0" * 1000,
    "a number": b"17\0",
    "a string": b'"Open"\0',
    "an array": b"[]\0",
    "an array of a method": b'["org.fdbroker.Broker.Describe"]\0',
    "null": b"null\0",
    "no method": b"{}\0",
    "a method that is a number": b'{"method":7}\0',
    "a method that is null": b'{"method":null}\0',
    "oneway that is a word": b'{"method":"org.fdbroker.Broker.Describe","oneway":"yes"}\0',
    "half an object": b'{"method":"org.fdbroker.Broker.Describe"\0',
    "two objects": b'{"method":"org.fdbroker.Broker.Describe"}{}\0',
    "bytes that are not UTF-8": b'{"method":"org.fdbroker.Broker.Descr\xff"}\0',
    "a method with a lone surrogate": b'{"method":"\\ud800"}\0',
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n\0",
    "deep arrays as parameters": b'{"method":"org.fdbroker.Broker.Open","parameters":' + b"[" * 60000 + b"\0",
    "deep arrays in place of a call": b"[" * 30000 + b"]" * 30000 + b"\0",
    "deep objects in place of a call": b'{"a":' * 13000 + b"\0",
    "NaN": b'{"method":"org.fdbroker.Broker.Describe","parameters":NaN}\0',
}


@pytest.mark.parametrize("sent", NO_CALLS.values(), ids=NO_CALLS.keys())
def test_client_loses_its_connection_when_it_sends_no_call(broker: Broker, files: Path, sent: bytes) -> None:
    with Hostile(broker) as client:
        client.send(sent)
        assert client.is_hung_up_on()
    assert broker.records(event="malformed")
    is_served(broker, files)


WRONG_PARAMETERS: dict[str, tuple[str, Any]] = {
    "Open without parameters": ("Open", {}),
    "Open of an array": ("Open", [1]),
    "Open of a string": ("Open", "x"),
    "Open without access": ("Open", {"path": "/x"}),
    "Open without path": ("Open", {"access": ["read"]}),
    "path is a number": ("Open", {"path": 1, "access": ["read"]}),
    "path is null": ("Open", {"path": None, "access": ["read"]}),
    "path is an array": ("Open", {"path": ["/x"], "access": ["read"]}),
    "access is a string": ("Open", {"path": "/x", "access": "read"}),
    "access is an object": ("Open", {"path": "/x", "access": {"read": True}}),
    "access is empty": ("Open", {"path": "/x", "access": []}),
    "access holds a number": ("Open", {"path": "/x", "access": [1]}),
    "access holds null": ("Open", {"path": "/x", "access": [None]}),
    "access holds all": ("Open", {"path": "/x", "access": ["all"]}),
    "access holds an unknown word": ("Open", {"path": "/x", "access": ["read", "Read"]}),
    "access holds no access mode": ("Open", {"path": "/x", "access": ["ioctl"]}),
    "path is 200 arrays deep": ("Open", {"path": json.loads("[" * 200 + "]" * 200), "access": ["read"]}),
    "optional is a string": ("Open", {"path": "/x", "access": ["read"], "optional": "write"}),
    "optional holds an unknown word": ("Open", {"path": "/x", "access": ["read"], "optional": ["own"]}),
    "flags is a number": ("Open", {"path": "/x", "access": ["read"], "flags": os.O_PATH}),
    "flags holds a number": ("Open", {"path": "/x", "access": ["read"], "flags": [1]}),
    "flags holds creat": ("Open", {"path": "/x", "access": ["read"], "flags": ["creat"]}),
    "flags holds trunc": ("Open", {"path": "/x", "access": ["read"], "flags": ["trunc"]}),
    "flags holds path": ("Open", {"path": "/x", "access": ["read"], "flags": ["path"]}),
    "flags holds tmpfile": ("Open", {"path": "/x", "access": ["read"], "flags": ["tmpfile"]}),
    "mode is a string": ("Open", {"path": "/x", "access": ["read"], "mode": "0644"}),
    "mode is a fraction": ("Open", {"path": "/x", "access": ["read"], "mode": 0.5}),
    "mode is true": ("Open", {"path": "/x", "access": ["read"], "mode": True}),
    "mode is negative": ("Open", {"path": "/x", "access": ["read"], "mode": -1}),
    "mode holds more than permissions": ("Open", {"path": "/x", "access": ["read"], "mode": 0o10000}),
    "mode is huge": ("Open", {"path": "/x", "access": ["read"], "mode": 10**300}),
    "an unknown parameter": ("Open", {"path": "/x", "access": ["read"], "uid": 0}),
    "OpenMany without requests": ("OpenMany", {}),
    "requests is an object": ("OpenMany", {"requests": {"path": "/x", "access": ["read"]}}),
    "a request is a string": ("OpenMany", {"requests": ["/x"]}),
    "a request lacks access": ("OpenMany", {"requests": [{"path": "/x"}]}),
    "one request of two is wrong": (
        "OpenMany",
        {"requests": [{"path": "/x", "access": ["read"]}, {"path": "/x", "access": ["fly"]}]},
    ),
    "Check without access": ("Check", {"path": "/x"}),
    "Check of an unknown right": ("Check", {"path": "/x", "access": ["fly"]}),
    "Check of no right": ("Check", {"path": "/x", "access": []}),
    "Check of a number": ("Check", {"path": 3, "access": ["read"]}),
    "Release without grant": ("Release", {}),
    "Release of a number": ("Release", {"grant": 1}),
    "Release of null": ("Release", {"grant": None}),
    "Release of a grant that never was": ("Release", {"grant": "g1"}),
    "Release of a huge grant": ("Release", {"grant": "g" + "9" * 30000}),
    "Release of other digits": ("Release", {"grant": "g\u0661"}),
    "Release of a negative grant": ("Release", {"grant": "g-1"}),
    "Describe with parameters": ("Describe", {"uid": 0}),
    "GetInfo with parameters": ("org.varlink.service.GetInfo", {"x": 1}),
    "an interface that is a number": ("org.varlink.service.GetInterfaceDescription", {"interface": 1}),
}


@pytest.mark.parametrize(("method", "parameters"), WRONG_PARAMETERS.values(), ids=[*WRONG_PARAMETERS.keys()])
def test_client_is_told_invalid_parameter_when_a_type_or_word_is_wrong(
    broker: Broker, method: str, parameters: Any
) -> None:
    with Hostile(broker) as client:
        assert client.error(call(method, parameters)) == INVALID
        # The connection is as good as before.
        assert "peer" in client.ask(call("Describe"))[0]["parameters"]


NO_PATHS = {
    "a NUL": "/all/x\0y",
    "relative": "all/x",
    "empty": "",
    "the parent": "/all/../etc/shadow",
    "a dot": "/all/./y",
    "two slashes": "/all//x",
    "two slashes in front": "//all/x",
    "a trailing slash": "/all/x/",
    "4,096 bytes": "/all" + "/a" * 2046,
    "a component of 256 bytes": "/all/" + "a" * 256,
    "a component of 86 characters": "/all/" + "\N{EURO SIGN}" * 86,
    "60,000 bytes": "/all/" + "a" * 60000,
}


@pytest.mark.parametrize("path", NO_PATHS.values(), ids=NO_PATHS.keys())
def test_client_is_denied_when_the_path_has_a_wrong_shape(broker: Broker, path: str) -> None:
    with Hostile(broker) as client:
        assert client.error(opening(path)) == DENIED
        assert client.ask(call("Check", {"path": path, "access": ["read"]}))[0]["parameters"] == {
            "allowed": False
        }
    record = broker.records(event="open")[0]
    assert (record["path"], record["verdict"], record["reason"][:6]) == (path[:PATH_BYTES], "deny", "path: ")


NO_UNICODE = {
    "high": b"\\ud800",
    "low": b"\\udc41",
    "two high": b"\\ud800\\ud800",
    "reversed": b"\\udc00\\ud800",
    "as bytes": b"\xed\xa0\x80",
    "a byte that is not UTF-8": b"\xff",
    "an overlong slash": b"\xc0\xaf",
    "past Unicode": b"\xf4\x90\x80\x80",
}


@pytest.mark.parametrize("name", NO_UNICODE.values(), ids=NO_UNICODE.keys())
@pytest.mark.parametrize("method", ["Open", "OpenMany", "Check"])
def test_client_reaches_no_rule_when_its_path_is_no_unicode(broker: Broker, method: str, name: bytes) -> None:
    request = b'{"path":"/all/%b","access":["read"]}' % name
    if method == "OpenMany":
        request = b'{"requests":[%b]}' % request
    with Hostile(broker) as client:
        client.send(b'{"method":"org.fdbroker.Broker.%b","parameters":%b}\0' % (method.encode(), request))
        if name.startswith(b"\\"):
            # Its escapes make the whole message no JSON.
            assert client.is_hung_up_on()
            assert broker.records(event="malformed")
        else:
            assert client.receive()[0]["error"] == INVALID
    broker.assert_unharmed()
    assert not broker.all_records(event="open") + broker.all_records(event="check")


def test_client_is_served_when_its_message_has_exactly_64_kib(broker: Broker, files: Path) -> None:
    call_bytes = opening(files / "file1")[:-1]
    exact = call_bytes[:-1] + b" " * (_LIMIT - len(call_bytes)) + b"}"
    assert len(exact) == _LIMIT
    with Hostile(broker) as client:
        assert client.content(exact + b"\0") == "content 1"


@pytest.mark.parametrize("ended", [True, False], ids=["with its NUL", "without end"])
def test_client_loses_its_connection_when_its_message_has_a_byte_more(
    broker: Broker, files: Path, ended: bool
) -> None:
    with Hostile(broker) as client:
        client.send(b" " * (_LIMIT + 1) + (b"\0" if ended else b""))
        assert client.is_hung_up_on()
    assert "65536 bytes" in broker.records(event="malformed")[0]["reason"]
    is_served(broker, files)


def test_client_is_not_waited_for_when_it_stops_in_the_middle_of_a_message(
    broker: Broker, files: Path
) -> None:
    message = opening(files / "file0")
    with Hostile(broker) as silent:
        silent.send(message[:20])
        is_served(broker, files)
        assert silent.content(message[20:]) == "content 0"


def test_client_is_served_when_its_message_is_split_at_every_byte(broker: Broker, files: Path) -> None:
    message = opening(files / "file0")
    with Hostile(broker) as client:
        for cut in range(1, len(message)):
            client.send(message[:cut])
            assert client.content(message[cut:]) == "content 0"


def test_client_is_served_when_it_sends_byte_by_byte(broker: Broker, files: Path) -> None:
    with Hostile(broker) as client:
        for byte in opening(files / "file0"):
            client.send(bytes([byte]))
        assert read_and_close(*client.receive()) == "content 0"


def test_client_dies_unnoticed_when_it_has_sent_any_number_of_bytes(broker: Broker, files: Path) -> None:
    message = opening(files / "file0")
    for length in range(len(message) + 1):
        with Hostile(broker) as client:
            client.send(message[:length])
    is_served(broker, files)


def test_client_dies_unnoticed_when_fds_are_in_flight(broker: Broker, files: Path) -> None:
    many = call(
        "OpenMany",
        {"requests": [{"path": f"{files}/file{number}", "access": ["read"]} for number in range(64)]},
    )
    for message in (opening(files / "file0"), many):
        with Hostile(broker) as client:
            client.send(message)
            # The reply has come, with its fds, and nobody takes them.
            assert client.socket.recv(1, socket.MSG_PEEK)
    is_served(broker, files)


def test_client_dies_unnoticed_when_it_is_killed_at_any_step(broker: Broker, files: Path) -> None:
    """A process, not only a connection: connect, send and receive, killed after each."""
    for steps in range(4):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            client = Hostile(broker) if steps > 0 else None
            if client is not None and steps > 1:
                client.send(opening(files / "file0") * 3)
            if client is not None and steps > 2:
                client.receive()
            os.write(writer, b"x")
            signal.pause()
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    is_served(broker, files)


def test_client_is_heard_to_the_end_when_it_shuts_down_its_sending_side(broker: Broker, files: Path) -> None:
    with Hostile(broker) as client:
        client.send(opening(files / "file0") + opening(files / "file1"))
        client.socket.shutdown(socket.SHUT_WR)
        assert read_and_close(*client.receive()) == "content 0"
        assert read_and_close(*client.receive()) == "content 1"
        assert client.is_hung_up_on()


def test_client_holds_one_reply_at_most_when_it_never_reads(broker: Broker, files: Path) -> None:
    with Hostile(broker) as client:
        client.send(opening(files / "file0") * 100)
        wait_until(lambda: broker.all_records(event="open"), "the first open")
        comes_to_rest(broker.worker)
        assert len(broker.all_records(event="open")) == 1
        is_served(broker, files)


def test_client_uses_no_processor_when_it_never_reads(broker: Broker, files: Path) -> None:
    with contextlib.ExitStack() as stack:
        for count in (2, 3, 1000):
            client = stack.enter_context(Hostile(broker))
            client.send(call("Describe") * count)
            assert client.socket.recv(1, socket.MSG_PEEK)
        comes_to_rest(broker.worker)
        comes_to_rest(broker.supervisor)
        is_served(broker, files)


def test_client_is_no_longer_read_when_it_sends_without_reading(broker: Broker, files: Path) -> None:
    with Hostile(broker) as client:
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            for _ in range(100_000):
                client.socket.send(call("Describe") * 100)
        is_served(broker, files)


def test_client_gets_each_content_for_its_call_when_it_pipelines(broker: Broker, files: Path) -> None:
    numbers = [number % 64 for number in range(1500)]
    with Hostile(broker) as client:
        client.send(b"".join(opening(files / f"file{number}") for number in numbers))
        for number in numbers:
            assert read_and_close(*client.receive()) == f"content {number}"


def test_client_gets_no_fd_with_a_refusal_when_it_pipelines_both(broker: Broker, files: Path) -> None:
    with Hostile(broker) as client:
        client.send((opening(files / "file3") + opening("/etc/shadow") + call("Describe")) * 20)
        for _ in range(20):
            assert read_and_close(*client.receive()) == "content 3"
            reply, fds = client.receive()
            assert (reply["error"], fds) == (DENIED, [])
            reply, fds = client.receive()
            assert ("peer" in reply["parameters"], fds) == (True, [])


def test_client_gets_its_fds_in_order_when_it_asks_for_many(broker: Broker, files: Path) -> None:
    requests = [{"path": f"{files}/file{number}", "access": ["read"]} for number in range(64)]
    requests[7]["path"] = "/etc/shadow"
    requests[60]["path"] = f"{files}/file-that-is-missing"
    with Hostile(broker) as client:
        reply, fds = client.ask(call("OpenMany", {"requests": requests}))
        try:
            assert len(fds) == 62
            for number, result in enumerate(reply["parameters"]["results"]):
                if number in (7, 60):
                    assert "fileDescriptor" not in result
                else:
                    assert os.pread(fds[result["fileDescriptor"]], 20, 0) == f"content {number}".encode()
        finally:
            for fd in fds:
                os.close(fd)


def test_clients_are_all_served_when_there_are_500_at_once(broker: Broker, files: Path) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Hostile(broker)) for _ in range(500)]
        for number, client in enumerate(clients):
            client.send(opening(files / f"file{number % 64}"))
        for number, client in enumerate(clients):
            assert read_and_close(*client.receive()) == f"content {number % 64}"
        for client in clients[::2]:
            client.send(b"garbage\0")
        for client in clients[1::2]:
            assert client.content(opening(files / "file9")) == "content 9"


def test_clients_are_served_when_hundreds_connect_and_vanish(broker: Broker, files: Path) -> None:
    with stopped(broker.worker):
        for _ in range(600):
            with contextlib.suppress(BlockingIOError), Hostile(broker) as client:
                client.send(opening(files / "file0"))
    is_served(broker, files)


def test_client_sends_fds_in_vain_when_the_kernel_refuses_them(broker: Broker, files: Path) -> None:
    """SO_PASSRIGHTS, Linux 6.16; before it the next test's broker is what protects."""
    with Hostile(broker) as client:
        try:
            socket.send_fds(client.socket, [opening(files / "file0")], [0])
        except PermissionError:
            assert client.content(opening(files / "file0")) == "content 0"
        else:
            assert client.is_hung_up_on()
    is_served(broker, files)


# `fdbroker` as on a kernel that cannot refuse fds for it.
_OLDER_KERNEL = """
import sys, broker.connections, broker.listeners
broker.connections.refuse_fds = broker.listeners.refuse_fds = lambda connection: None
from broker.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("count", [1, 2, 250])
@pytest.mark.parametrize("cut", [0, 10])
def test_client_loses_its_connection_when_it_sends_fds_on_an_older_kernel(
    start_broker: Callable[..., Broker], files: Path, count: int, cut: int
) -> None:
    broker = start_broker(policy(allow("files", f"{files}/file*")), (sys.executable, "-c", _OLDER_KERNEL))
    message = opening(files / "file0")
    with Hostile(broker) as client:
        client.send(message[:cut])
        socket.send_fds(client.socket, [message[cut:]], [0] * count)
        assert client.is_hung_up_on()
    assert broker.records(event="malformed")[0]["reason"] == "file descriptors were sent to the broker"
    is_served(broker, files)


def test_client_is_told_busy_or_closed_when_its_fd_table_is_full(broker: Broker, files: Path) -> None:
    """The fds vanish in the kernel: what matters is that the broker neither waits nor leaks."""
    with Hostile(broker) as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.socket.fileno() + 1, hard))
        try:
            client.send(opening(files / "file0"))
            client.socket.recv(65536)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    is_served(broker, files)


def test_clients_are_served_when_one_uid_has_as_many_connections_as_it_may(
    start_broker: Callable[..., Broker], files: Path
) -> None:
    """A worker that may have few fds: what one uid holds must leave room for batches, and for others."""
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is not installed")
    broker = start_broker(
        policy(allow("files", f"{files}/file*")), ("prlimit", "--nofile=100:250", "--", *FDBROKER)
    )
    many = call(
        "OpenMany",
        {"requests": [{"path": f"{files}/file{number}", "access": ["read"]} for number in range(64)]},
    )
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Hostile(broker)) for _ in range(300)]
        # The last one was turned away, so all have been seen.
        assert clients[-1].is_hung_up_on()
        for _ in range(3):
            reply, fds = clients[0].ask(many)
            for fd in fds:
                os.close(fd)
            assert len(fds) == 64, reply
        if os.geteuid() == 0:

            def another_uid() -> str:
                with Hostile(broker) as other:
                    return other.content(opening(files / "file0"))

            assert as_uid(STRANGER, another_uid) == "content 0"
