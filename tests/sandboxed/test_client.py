"""The client library against a real broker: what a program gets, and what it is told when it gets nothing."""

import contextlib
import errno
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import STRANGER, TREE, Broker, allow, as_uid, needs_root, policy, readable, wait_until

import sandboxed
from sandboxed import (
    BrokerError,
    Client,
    ConnectionLost,
    Denied,
    NoBroker,
    OwnedFd,
    RequestError,
)
from sandboxed.limits import BATCH_REQUESTS, MESSAGE_BYTES

FILES = {"read": "read", "write": "read, write", "edit": "edit", "append": "write", "many": "read"}


@pytest.fixture(scope="module")
def house() -> Iterator[Path]:
    """The directory of the broker's socket and of the files that its policy speaks of."""
    place = Path(tempfile.mkdtemp(prefix="fdbroker-test-", dir="/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def broker(house: Path) -> Iterator[Broker]:
    """One broker for all tests of this module, unharmed at their end."""
    rules = [allow(name, f"{house}/{name}", rights) for name, rights in FILES.items()]
    rules += [
        allow("missing", f"{house}/missing"),
        allow("node", "/dev/zero", "use", "type: char"),
    ]
    running = Broker(house, policy(*rules))
    try:
        yield running
        running.assert_unharmed()
        assert running.stop() == 0
    finally:
        running.kill()


@pytest.fixture(autouse=True)
def files(house: Path) -> None:
    """The files, with their contents as they were."""
    for name in (*FILES, "kept"):
        (house / name).write_text(f"what is in {name}\n")
        (house / name).chmod(0o600)


@pytest.fixture(autouse=True)
def _no_fd_is_left() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture(autouse=True)
def _no_broker_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FDBROKER_SOCKET", raising=False)
    monkeypatch.delenv("FDBROKER_FD", raising=False)


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    """A client of the module's broker."""
    with broker.client() as connected:
        yield connected


@pytest.fixture
def inherited(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A connection that FDBROKER_FD names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(broker.socket)
        connection.set_inheritable(True)
        monkeypatch.setenv("FDBROKER_FD", str(connection.fileno()))
        yield connection


# --- where the broker is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [str, Path], ids=["text", "path"])
def test_client_connects_to_the_path_that_it_is_given(
    broker: Broker, make: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FDBROKER_SOCKET", "/nowhere")
    monkeypatch.setenv("FDBROKER_FD", "999")
    with sandboxed.connect(make(broker.socket)) as client:
        assert client.describe()["peer"]["uid"] == os.getuid()


def test_client_connects_to_the_socket_of_its_environment(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FDBROKER_SOCKET", broker.socket)
    monkeypatch.setenv("FDBROKER_FD", "999")
    with sandboxed.connect() as client:
        assert client.describe()["peer"]["uid"] == os.getuid()


def test_client_uses_the_connection_of_its_environment(inherited: socket.socket, house: Path) -> None:
    for _ in range(2):  # closing a client leaves the inherited connection open
        with sandboxed.connect() as client, client.open(house / "read") as file:
            assert file.read() == "what is in read\n"


@pytest.mark.parametrize("path", ["/nowhere/at/all", "", "/dev/zero", "x" * 200, "/a\0b", "/\udcff"])
def test_client_is_told_that_no_broker_answers(path: str) -> None:
    with pytest.raises(NoBroker, match="no broker answers at") as caught:
        sandboxed.connect(path)
    assert isinstance(caught.value, (ConnectionError, BrokerError))


def test_client_is_told_that_a_dead_brokers_socket_is_no_broker(house: Path) -> None:
    path = str(house / "dead.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
    with pytest.raises(NoBroker, match="Connection refused"):
        sandboxed.connect(path)


@pytest.mark.parametrize("text", ["", "three", "-1", "999999", "9" * 30, "3.0"])
def test_client_is_told_that_fdbroker_fd_is_no_connection(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDBROKER_FD", text)
    with pytest.raises(NoBroker, match="FDBROKER_FD"):
        sandboxed.connect()


def test_client_is_told_that_fdbroker_fd_is_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/null") as file:
        monkeypatch.setenv("FDBROKER_FD", str(file.fileno()))
        with pytest.raises(NoBroker, match="FDBROKER_FD"):
            sandboxed.connect()


# --- open() ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["r", "rt", "rb", "br"])
def test_client_reads_a_file(client: Client, house: Path, mode: str) -> None:
    with client.open(house / "read", mode) as file, open(house / "read", mode) as builtin:
        assert type(file) is type(builtin)
        assert file.read() == builtin.read()
        assert (file.mode, file.name) == (builtin.mode, builtin.name)


@pytest.mark.parametrize("mode", ["r+", "r+b", "rb+"])
def test_client_updates_a_file_without_truncating_it(client: Client, house: Path, mode: str) -> None:
    with client.open(house / "write", mode) as file:
        file.write(b"WHAT" if "b" in mode else "WHAT")
    assert (house / "write").read_text() == "WHAT is in write\n"


@pytest.mark.parametrize("mode", ["w", "wb", "w+"])
def test_client_truncates_a_file_that_it_opens_to_write(client: Client, house: Path, mode: str) -> None:
    with client.open(house / "edit", mode) as file:
        assert (house / "edit").read_bytes() == b""
        file.write(b"new" if "b" in mode else "new")
    assert (house / "edit").read_text() == "new"


@pytest.mark.parametrize("mode", ["w", "w+"])
def test_client_may_not_truncate_a_file_that_it_may_only_write(
    client: Client, house: Path, mode: str
) -> None:
    with pytest.raises(Denied):
        client.open(house / "write", mode)
    assert (house / "write").read_text() == "what is in write\n"


@pytest.mark.parametrize(("mode", "name"), [("a", "append"), ("ab", "append"), ("a+", "edit")])
def test_client_appends_to_a_file(client: Client, house: Path, mode: str, name: str) -> None:
    with client.open(house / name, mode) as file:
        file.write(b"more" if "b" in mode else "more")
    assert (house / name).read_text() == f"what is in {name}\nmore"


@pytest.mark.parametrize("mode", ["x", "xb", "x+"])
def test_client_may_not_create_a_file(client: Client, house: Path, mode: str) -> None:
    for name in ("edit", "missing"):
        with pytest.raises(Denied):
            client.open(house / name, mode)
    assert not (house / "missing").exists()


@pytest.mark.parametrize("mode", ["", "rw", "rr", "z", "+", "b", "rbt", "U"])
def test_client_refuses_a_mode_that_there_is_not(client: Client, house: Path, mode: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        client.open(house / "edit", mode)
    assert (house / "edit").read_text() == "what is in edit\n"


def test_client_passes_encoding_errors_and_newline_on(client: Client, house: Path) -> None:
    (house / "read").write_bytes(b"\xe9\xff\r\n")
    with client.open(house / "read", encoding="latin-1", newline="") as file:
        assert file.read() == "éÿ\r\n"
    with client.open(house / "read", encoding="ascii", errors="replace") as file:
        assert file.read() == "\ufffd\ufffd\n"
    with client.open(house / "read", "rb", 0) as file:
        assert file.read(1) == b"\xe9"
        assert file.tell() == 1


def test_client_closes_the_fd_when_a_file_object_cannot_be_made(client: Client, house: Path) -> None:
    for arguments in ({"mode": "rb", "encoding": "utf-8"}, {"encoding": "no-such-encoding"}):
        with pytest.raises((ValueError, LookupError)):
            client.open(house / "read", **arguments)


@pytest.mark.parametrize("mode", ["rb", "r+b", "wb", "w+b", "ab", "r", "w"])
def test_client_opens_a_device_in_any_mode(client: Client, mode: str) -> None:
    with client.open("/dev/zero", mode) as file:
        assert stat.S_ISCHR(os.fstat(file.fileno()).st_mode)
        if "b" in mode and ("r" in mode or "+" in mode):
            assert file.read(3) == bytes(3)
        if "b" in mode and mode != "rb":
            assert file.write(b"abc") == 3


def test_opened_file_is_not_inherited_and_may_block(client: Client, house: Path) -> None:
    with client.open(house / "read") as file:
        assert not os.get_inheritable(file.fileno())
        assert os.get_blocking(file.fileno())


# --- open_fd() ---------------------------------------------------------------------------------------------


def test_owned_fd_is_an_int_that_system_calls_take(client: Client, house: Path) -> None:
    with client.open_fd(str(house / "read"), ["read"]) as fd:
        assert isinstance(fd, int)
        assert os.read(fd, 4) == b"what"
        assert os.pread(fd.fileno(), 4, 0) == b"what"
        assert not os.get_inheritable(fd)
        assert repr(fd) == f"OwnedFd({int(fd)})"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(int(fd))


def test_owned_fd_is_closed_once(client: Client, house: Path) -> None:
    fd = client.open_fd(house / "read", ["read"])
    fd.close()
    with open("/dev/null") as file:  # takes the number
        assert file.fileno() == int(fd)
        fd.close()
        with fd:
            pass
        os.fstat(file.fileno())
    assert repr(fd) == "OwnedFd(closed)"
    with pytest.raises(ValueError, match="closed"):
        fd.fileno()


def test_owned_fd_that_is_handed_on_belongs_to_the_receiver(client: Client, house: Path) -> None:
    with client.open_fd(house / "read", ["read"]) as fd:
        number = fd.detach()
    with open(number) as file:
        assert file.read() == "what is in read\n"


def test_owned_fd_outlives_its_connection(broker: Broker, house: Path) -> None:
    with broker.client() as client:
        fd = client.open_fd(house / "read", ["read"])
    with fd:
        assert os.read(fd, 4) == b"what"


def test_owned_fd_knows_its_grant_and_its_rights(broker: Broker, client: Client, house: Path) -> None:
    for _ in range(2):  # the second time the broker remembers
        with client.open_fd(house / "edit", ["write"], optional=["read", "truncate", "ioctl"]) as fd:
            assert fd.rights == ["read", "write", "truncate"]
            assert broker.records(grant=fd.grant)[0]["path"] == str(house / "edit")


@pytest.mark.parametrize("flag", ["nonblock", "sync", "dsync", "excl", "nofollow"])
def test_open_flags_that_change_no_right_are_taken(client: Client, house: Path, flag: str) -> None:
    with client.open_fd(house / "read", ["read"], flags=[flag]) as fd:
        assert os.get_blocking(fd) == (flag != "nonblock")


# --- errors ------------------------------------------------------------------------------------------------


def test_denied_is_a_permission_error_and_says_nothing_of_the_file(client: Client, house: Path) -> None:
    for path in (house / "kept", house / "no-such-file", house / "read/below", "/etc/shadow"):
        with pytest.raises(Denied) as caught:
            client.open_fd(path, ["read"])
        assert isinstance(caught.value, PermissionError)
        assert (caught.value.errno, caught.value.filename) == (errno.EACCES, os.fspath(path))
        assert caught.value.strerror == "denied by the broker's policy"


def test_allowed_open_of_a_missing_file_is_the_errors_own_class(client: Client, house: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        client.open(house / "missing")
    assert not isinstance(caught.value, BrokerError)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(house / "missing"))


def test_allowed_open_of_another_type_is_denied(client: Client, house: Path) -> None:
    (house / "missing").mkdir()
    try:
        with pytest.raises(Denied):
            client.open(house / "missing")
    finally:
        (house / "missing").rmdir()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["fly"], {}),
        ([], {}),
        (["all"], {}),
        (["truncate"], {}),
        (["read"], {"optional": ["fly"]}),
        (["read"], {"flags": ["creat"]}),
        (["read"], {"flags": ["O_NONBLOCK"]}),
        (["read"], {"mode": 0o10000}),
    ],
)
def test_request_with_a_word_that_there_is_not_is_the_callers_mistake(
    client: Client, house: Path, arguments: list[str], options: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match="InvalidParameter") as caught:
        client.open_fd(house / "read", arguments, **options)
    assert isinstance(caught.value, ValueError)
    assert client.check(house / "read", ["read"])  # the connection goes on


ASKS: dict[str, Callable[[Client, str, Any], Any]] = {
    "open_fd": lambda client, path, access: client.open_fd(path, access),
    "open_fd with flags": lambda client, path, access: client.open_fd(path, access, flags=["sync"]),
    "open_many": lambda client, path, access: client.open_many([(path, access)]),
    "check": lambda client, path, access: client.check(path, access),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=list(ASKS))
@pytest.mark.parametrize("access", ["read", "use", "r"])
def test_access_given_as_text_is_the_callers_mistake(
    client: Client, house: Path, ask: Any, access: str
) -> None:
    with pytest.raises(RequestError, match=f"list of rights, as in .'{access}'"):
        ask(client, str(house / "read"), access)


@pytest.mark.parametrize("ask", ASKS.values(), ids=list(ASKS))
@pytest.mark.parametrize("path", ["read", "./read", "", "~/read"])
def test_relative_path_is_the_callers_mistake(client: Client, ask: Any, path: str) -> None:
    with pytest.raises(RequestError, match="absolute"):
        ask(client, path, ["read"])


@pytest.mark.parametrize("ask", ASKS.values(), ids=list(ASKS))
def test_path_that_is_no_unicode_is_the_callers_mistake(client: Client, ask: Any) -> None:
    with pytest.raises(RequestError, match="Unicode"):
        ask(client, os.fsdecode(b"/tmp/\xe9"), ["read"])


@pytest.mark.parametrize("ask", ASKS.values(), ids=list(ASKS))
def test_request_over_the_wires_limit_is_the_callers_mistake(client: Client, ask: Any) -> None:
    with pytest.raises(RequestError, match=str(MESSAGE_BYTES)):
        ask(client, "/" + "x" * MESSAGE_BYTES, ["read"])
    assert client.describe()["resources"]


@pytest.mark.parametrize("path", ["/tmp/../etc/passwd", "/tmp//x", "/tmp/", "/tmp/\0", "/", "/./dev/zero"])
def test_path_of_a_shape_that_no_rule_means_is_denied(client: Client, path: str) -> None:
    with pytest.raises(Denied):
        client.open_fd(path, ["read"])
    assert not client.check(path, ["read"])


def test_client_of_a_broker_that_ended_has_lost_its_connection(house: Path) -> None:
    place = house / "short"
    place.mkdir()
    broker = Broker(place, policy(allow("zero", "/dev/zero", "use", "type: char")))
    try:
        with broker.client() as client:
            assert broker.stop() == 0
            for _ in range(2):
                with pytest.raises(ConnectionLost):
                    client.open_fd("/dev/zero", ["read"])
    finally:
        broker.kill()


def test_closed_client_says_so(broker: Broker) -> None:
    client = broker.client()
    client.close()
    client.close()
    with pytest.raises(ConnectionLost, match="closed"):
        client.describe()


# --- open_many() -------------------------------------------------------------------------------------------


def test_open_many_gives_for_each_what_open_fd_would(client: Client, house: Path) -> None:
    results = client.open_many(
        [
            (house / "read", ["read"]),
            (house / "kept", ["read"]),
            (str(house / "missing"), ("read",)),
            ("/dev/zero", ["use"]),
        ]
    )
    assert [type(result) for result in results] == [OwnedFd, Denied, FileNotFoundError, OwnedFd]
    first, denied, missing, last = results
    assert isinstance(first, OwnedFd)
    assert isinstance(last, OwnedFd)
    assert isinstance(denied, OSError)
    assert isinstance(missing, OSError)
    with first, last:
        assert os.read(first, 4) == b"what"
        assert (first.rights, last.rights) == (["read"], ["read", "write", "ioctl"])
        assert first.grant != last.grant
    assert denied.filename == str(house / "kept")
    assert missing.filename == str(house / "missing")


def test_open_many_of_nothing_asks_nobody(client: Client) -> None:
    assert client.open_many([]) == []


@pytest.mark.parametrize("count", [BATCH_REQUESTS, BATCH_REQUESTS + 1, 3 * BATCH_REQUESTS + 5])
def test_open_many_opens_more_than_one_message_holds(client: Client, house: Path, count: int) -> None:
    with contextlib.ExitStack() as stack:
        results = client.open_many((house / "many", ["read"]) for _ in range(count))
        fds = [stack.enter_context(result) for result in results if isinstance(result, OwnedFd)]
        assert len(fds) == count
        assert len({fd.grant for fd in fds}) == count
        assert all(os.pread(fd, 4, 0) == b"what" for fd in fds)


def test_open_many_sends_more_bytes_than_one_message_holds(client: Client, house: Path) -> None:
    # Each path is 4,000 bytes on the wire: 64 of them are four messages.
    path = f"{house}/" + "/".join(["d" * 250] * 15)
    requests = [(f"{path}{number}", ["read"]) for number in range(BATCH_REQUESTS)]
    assert sum(len(path) for path, _ in requests) > 3 * MESSAGE_BYTES
    assert [type(result) for result in client.open_many(requests)] == [Denied] * BATCH_REQUESTS
    escaped = [("/" + "\x01" * 4000, ["read"])] * 30
    assert [type(result) for result in client.open_many(escaped)] == [Denied] * 30


def test_open_many_closes_all_when_a_later_part_is_wrong(client: Client, house: Path) -> None:
    requests = [(house / "many", ["read"])] * BATCH_REQUESTS + [(house / "many", ["fly"])]
    with pytest.raises(RequestError):
        client.open_many(requests)


@pytest.mark.parametrize("room", [0, 3])
def test_client_whose_fd_table_is_full_is_told_so_and_keeps_none(
    broker: Broker, house: Path, room: int
) -> None:
    asks: list[Callable[[Client], Any]] = [
        lambda client: client.open_fd(house / "many", ["read"]),
        lambda client: client.open_many([(house / "many", ["read"])] * 5),
    ]

    def told(ask: Callable[[Client], Any]) -> int:
        """The errno that a client gets in a process with room for so many fds; 0 for none."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.ExitStack() as stack, broker.client() as client:
            limit = max(map(int, os.listdir("/proc/self/fd"))) + 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            with contextlib.suppress(OSError):
                while True:
                    stack.enter_context(open("/dev/null"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit + room, hard))
            try:
                ask(client).close()
            except OSError as error:
                return error.errno or -1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return 0

    def full() -> Any:
        before = os.listdir("/proc/self/fd")
        errors = [told(ask) for ask in asks]
        return [errors, os.listdir("/proc/self/fd") == before]

    assert as_uid(os.geteuid(), full) == [[0 if room else errno.EMFILE, errno.EMFILE], True]


# --- the other methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "access", "allowed"),
    [
        ("read", ["read"], True),
        ("read", ["write"], False),
        ("read", ["read", "write"], False),
        ("missing", ["read"], True),
        ("kept", ["read"], False),
        ("edit", ["edit"], True),
        ("edit", ["use"], False),
    ],
)
def test_check_says_what_the_policy_says(
    client: Client, house: Path, name: str, access: list[str], allowed: bool
) -> None:
    assert client.check(house / name, access) is allowed


def test_describe_tells_who_the_client_is_and_what_it_has(client: Client, house: Path) -> None:
    described = client.describe()
    assert described["peer"]["uid"] == os.getuid()
    assert described["peer"]["gids"] == sorted({os.getgid(), *os.getgroups()})
    given = {path: one["access"] for one in described["resources"] for path in one["paths"]}
    assert given["/dev/zero"] == ["read", "write", "ioctl"]
    assert given[str(house / "read")] == ["read"]


def test_release_gives_a_grant_back_and_closes_its_fd(broker: Broker, client: Client, house: Path) -> None:
    fd = client.open_fd(house / "read", ["read"])
    client.release(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(int(fd))
    assert broker.records(event="release", grant=fd.grant)
    with pytest.raises(RequestError, match="grant"):
        client.release(fd.grant)


def test_release_of_another_connections_grant_is_refused(broker: Broker, client: Client, house: Path) -> None:
    with broker.client() as other, other.open_fd(house / "read", ["read"]) as fd:
        with pytest.raises(RequestError, match="grant"):
            client.release(fd.grant)
        other.release(fd.grant)
        assert os.read(fd, 4) == b"what"


@needs_root
def test_client_of_another_uid_gets_what_the_policy_gives_it(broker: Broker, house: Path) -> None:
    def stranger() -> Any:
        with broker.client() as client, client.open(house / "read") as file:
            return [client.describe()["peer"]["uid"], file.read(), os.access(house / "read", os.R_OK)]

    assert as_uid(STRANGER, stranger) == [STRANGER, "what is in read\n", False]


# --- sharing -----------------------------------------------------------------------------------------------

PAIRS = [("read", b"what is in read\n"), ("many", b"what is in many\n"), ("edit", b"what is in edit\n")]


def read_over_and_over(client: Client, house: Path, name: str, content: bytes, times: int) -> None:
    """Open one file `times` times; each time it must be that file, and not what another caller asked for."""
    for _ in range(times):
        with client.open_fd(house / name, ["read"]) as fd:
            assert os.read(fd, 100) == content
        assert not client.check(house / "kept", ["read"])


def in_threads(tasks: list[Callable[[], None]]) -> None:
    """Run all at once; raises what the first of them raised."""
    failures: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_that_share_a_client_get_their_own_replies(client: Client, house: Path) -> None:
    in_threads([lambda p=pair: read_over_and_over(client, house, *p, 100) for pair in PAIRS * 2])  # type: ignore[misc]


def test_threads_that_share_an_inherited_connection_get_their_own_replies(
    inherited: socket.socket, house: Path
) -> None:
    # Record locks belong to a process: they do not keep its threads apart, each with a client of its own.
    def task(pair: tuple[str, bytes]) -> None:
        for _ in range(20):
            with sandboxed.connect() as client:
                read_over_and_over(client, house, *pair, 5)

    in_threads([lambda p=pair: task(p) for pair in PAIRS])  # type: ignore[misc]


SHARER = """
import os, sys
import sandboxed
path, content, times = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
with sandboxed.connect() as client:
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(times):
        with client.open_fd(path, ["read"]) as fd:
            assert os.read(fd, 100) == content, "another's reply"
print("done")
"""


def test_processes_that_share_an_inherited_connection_get_their_own_replies(
    inherited: socket.socket, house: Path
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARER, str(house / name), content.decode(), "300"],
            cwd=TREE,
            pass_fds=(inherited.fileno(),),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, content in PAIRS
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all at once
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["done\n"] * len(processes)
    assert [process.returncode for process in processes] == [0] * len(processes)


def test_client_does_not_take_a_reply_that_another_process_left(
    inherited: socket.socket, house: Path
) -> None:
    # As when a process is killed between its call and the reply: the next open must not get its file.
    call = '{"method":"org.fdbroker.Broker.Open","parameters":{"path":"%s","access":["read"]}}'
    inherited.sendall((call % (house / "edit")).encode() + b"\0")
    assert readable(inherited.fileno())
    with sandboxed.connect() as client:
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                client.open_fd(house / "read", ["read"])
    wait_until(lambda: readable(inherited.fileno(), 0), "the end of the connection, for all who hold it")
