"""A plain C client: one sendmsg(2), one recvmsg(2) with room for one fd, and it has its data and its fd."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import STRANGER, TREE, Broker, allow, as_uid, needs_root, policy

SOURCE = TREE / "tests" / "clients" / "write_fd_read_fd.c"
GRANTED, NOT_GRANTED, TROUBLE = 0, 1, 2


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, compiled without a warning."""
    compiler = shutil.which("cc")
    assert compiler, "the tests need a C compiler"
    made: Path = tmp_path_factory.mktemp("clients") / "write_fd_read_fd"
    command = [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-o", str(made), str(SOURCE)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return made


@pytest.fixture
def reachable(program: Path, wire: Any) -> Path:
    """The client where every uid can run it."""
    copy = Path(shutil.copy(program, wire.place / "client"))
    copy.chmod(0o755)
    return copy


def ask(program: Path, where: str, path: str, *rights: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """The client's exit status and what it says."""
    command = [str(program), where, path, *rights]
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.stderr == ""
    return result.returncode, json.loads(result.stdout)


def test_c_client_gets_data_and_fd_in_one_message(program: Path, wire: Any) -> None:
    status, answer = ask(program, wire.broker.socket, wire.given, "read")
    assert status == GRANTED
    assert answer["fd"] > 2
    assert (answer["type"], int(answer["flags"], 8) & os.O_ACCMODE) == ("file", os.O_RDONLY)
    parameters = json.loads(answer["reply"])["parameters"]
    assert (parameters["fileDescriptor"], parameters["rights"]) == (0, ["read"])
    assert wire.broker.records(grant=parameters["grant"], verdict="allow", path=wire.given)


def test_c_client_gets_a_device(program: Path, wire: Any) -> None:
    status, answer = ask(program, wire.broker.socket, "/dev/zero", "read", "write")
    assert (status, answer["type"], answer["rdev"]) == (GRANTED, "char", "1:5")
    flags = int(answer["flags"], 8)
    assert flags & os.O_ACCMODE == os.O_RDWR
    assert not flags & os.O_NONBLOCK


@pytest.mark.parametrize(
    ("name", "error"), [("kept", "org.fdbroker.Broker.Denied"), ("missing", "org.fdbroker.Broker.OpenFailed")]
)
def test_c_client_gets_minus_one_where_no_fd_was_passed(
    program: Path, wire: Any, name: str, error: str
) -> None:
    status, answer = ask(program, wire.broker.socket, getattr(wire, name), "read")
    assert (status, answer["fd"], answer["type"]) == (NOT_GRANTED, -1, None)
    assert json.loads(answer["reply"])["error"] == error


def test_c_client_gets_minus_one_for_a_word_that_there_is_not(program: Path, wire: Any) -> None:
    status, answer = ask(program, wire.broker.socket, wire.given, "fly")
    assert (status, answer["fd"]) == (NOT_GRANTED, -1)
    assert json.loads(answer["reply"])["parameters"] == {"parameter": "access"}


def test_c_client_s_path_with_every_printable_byte_reaches_the_policy(program: Path, wire: Any) -> None:
    path = "/" + "".join(map(chr, range(1, 127))).replace("/", "") + "\u00e9\u2603"
    status, _answer = ask(program, wire.broker.socket, path, "read")
    assert status == NOT_GRANTED
    assert wire.broker.records(path=path, verdict="deny")


def test_c_client_s_path_that_is_no_unicode_ends_in_an_error(program: Path, wire: Any) -> None:
    command = [os.fsencode(program), os.fsencode(wire.broker.socket), b"/\xe9", b"read"]
    result = subprocess.run(command, capture_output=True)
    assert result.returncode == NOT_GRANTED
    assert b"InvalidParameter" in result.stdout


def test_c_client_says_that_no_broker_answers(program: Path, wire: Any) -> None:
    command = [str(program), f"{wire.place}/nothing.sock", "/dev/zero", "read"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (TROUBLE, "")
    assert "nothing.sock: No such file or directory" in result.stderr


@needs_root
def test_c_client_of_another_uid_gets_what_it_cannot_open_itself(reachable: Path, wire: Any) -> None:
    def stranger() -> Any:
        refused = False
        try:
            os.close(os.open(wire.given, os.O_RDONLY))
        except PermissionError:
            refused = True
        return [refused, *ask(reachable, wire.broker.socket, wire.given, "read")]

    refused, status, answer = as_uid(STRANGER, stranger)
    assert refused
    assert (status, answer["type"]) == (GRANTED, "file")
    grant = json.loads(answer["reply"])["parameters"]["grant"]
    assert wire.broker.records(grant=grant)[0]["peer"]["uid"] == STRANGER


def test_c_client_uses_an_inherited_connection(program: Path, wire: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(wire.broker.socket)
        number = connection.fileno()
        status, answer = ask(program, f"fd:{number}", wire.given, "read", pass_fds=(number,))
        assert (status, answer["type"]) == (GRANTED, "file")
        status, answer = ask(program, f"fd:{number}", wire.kept, "read", pass_fds=(number,))
        assert (status, answer["fd"]) == (NOT_GRANTED, -1)


RUN = [sys.executable, "-m", "broker.main", "run"]
SHELL = 'exec "$0" "fd:$FDBROKER_FD" "$@"'


def run_client(program: Path, source: list[str], path: str, right: str) -> tuple[int, dict[str, Any]]:
    """What the client says that `fdbroker run` started, where the connection has a number of its own."""
    command = [*RUN, *source, "--ro", str(program), "--", "sh", "-c", SHELL, str(program), path, right]
    result = subprocess.run(command, cwd=TREE, capture_output=True, text=True)
    assert result.stderr == ""
    return result.returncode, json.loads(result.stdout)


@pytest.mark.parametrize(("name", "status"), [("given", GRANTED), ("kept", NOT_GRANTED)])
def test_c_client_below_fdbroker_run_uses_the_connection_that_it_inherits(
    reachable: Path, wire: Any, name: str, status: int
) -> None:
    source = ["--socket", wire.broker.socket]
    found, answer = run_client(reachable, source, getattr(wire, name), "read")
    assert found == status
    assert (answer["fd"] >= 0) == (status == GRANTED)


@pytest.mark.parametrize(("name", "status"), [("given", GRANTED), ("kept", NOT_GRANTED)])
def test_c_client_is_served_by_the_broker_embedded_in_fdbroker_run(
    reachable: Path, wire: Any, name: str, status: int
) -> None:
    source = ["--policy", str(wire.broker.policy)]
    found, answer = run_client(reachable, source, getattr(wire, name), "read")
    assert found == status
    assert (answer["fd"] >= 0) == (status == GRANTED)


@pytest.fixture
def other_socket(wire: Any) -> Iterator[Callable[[str], Broker]]:
    """Starts a second broker in a directory of its own."""
    brokers: list[Broker] = []

    def start(text: str) -> Broker:
        place = wire.place / f"other-{len(brokers)}"
        place.mkdir()
        brokers.append(Broker(place, text))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.assert_unharmed()
        assert broker.stop() == 0
        broker.kill()


def test_c_client_gets_a_reply_that_stands_alone_when_the_open_took_the_long_way(
    program: Path, wire: Any, other_socket: Callable[[str], Broker]
) -> None:
    # Through a link and below a pattern: nothing of this is remembered from the first to the second time.
    (wire.place / "link").symlink_to("given")
    broker = other_socket(policy(allow("all", f"{wire.place}/*")))
    for _ in range(2):
        status, answer = ask(program, broker.socket, f"{wire.place}/link", "read")
        assert (status, answer["type"]) == (GRANTED, "file")
