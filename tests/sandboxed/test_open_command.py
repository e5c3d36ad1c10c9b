"""`fdbroker open`: one open from the shell, with and without a command."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    FDBROKER,
    SECONDS,
    STRANGER,
    TREE,
    Broker,
    allow,
    as_uid,
    fds_of,
    needs_root,
    policy,
    wait_until,
)

Ran = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every uid can reach, for all tests of this module."""
    path = Path(tempfile.mkdtemp(prefix="fdbroker-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Broker]:
    """A broker that gives two files, of which one is not there; unharmed at the end."""
    started = Broker(
        place,
        policy(
            allow("given", f"{place}/given", "edit"),
            allow("missing", f"{place}/missing"),
            allow("zero", "/dev/zero", "use", "type: char"),
        ),
    )
    try:
        yield started
        started.assert_unharmed()
        assert started.stop() == 0
    finally:
        started.kill()


@pytest.fixture
def broker(running: Broker, place: Path) -> Broker:
    """The module's broker, and the file as it was."""
    (place / "given").write_text("what is given\n")
    (place / "given").chmod(0o600)
    return running


def start_open(broker: Broker, place: Path, script: str) -> "subprocess.Popen[str]":
    """`fdbroker open` with a shell that keeps its standard input."""
    arguments = [f"{place}/given", "--access", "read", "--socket", broker.socket, "--listen-fds"]
    return subprocess.Popen(
        [*FDBROKER, "open", *arguments, "--", "sh", "-c", script],
        cwd=TREE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def fdbroker_open(*arguments: str, broker: Broker | None = None, **options: Any) -> Ran:
    """`fdbroker open` to its end; FDBROKER_SOCKET says which broker."""
    environment = {"FDBROKER_SOCKET": "/nowhere" if broker is None else broker.socket}
    command = [*FDBROKER, "open", *arguments]
    options["env"] = os.environ | environment | options.get("env", {})
    return subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=SECONDS, **options)


# --- without a command -------------------------------------------------------------------------------------


def test_open_says_what_was_granted(broker: Broker, place: Path) -> None:
    ran = fdbroker_open(f"{place}/given", "--access", "read,truncate", broker=broker)
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = re.fullmatch(rf"{place}/given: opened with read, truncate \(grant (g\d+)\)\n", ran.stdout)
    assert shown
    assert broker.records(grant=shown[1], verdict="allow")


def test_open_shows_the_grant_as_json(broker: Broker, place: Path) -> None:
    ran = fdbroker_open("/dev/zero", "--access", "use", "--json", broker=broker)
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = json.loads(ran.stdout)
    assert (shown["path"], shown["rights"]) == ("/dev/zero", ["read", "write", "ioctl"])
    assert broker.records(grant=shown["grant"])


def test_open_takes_the_socket_that_it_is_given(broker: Broker, place: Path) -> None:
    ran = fdbroker_open(f"{place}/given", "--access", "read", "--socket", broker.socket)
    assert ran.returncode == 0


def test_open_uses_an_inherited_connection(broker: Broker, place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(broker.socket)
        number = connection.fileno()
        environment = {name: value for name, value in os.environ.items() if name != "FDBROKER_SOCKET"}
        environment["FDBROKER_FD"] = str(number)
        for command, said in (((), "opened with read"), (("--", "cat"), "what is given")):
            ran = subprocess.run(
                [*FDBROKER, "open", f"{place}/given", "--access", "read", *command],
                cwd=TREE,
                env=environment,
                pass_fds=(number,),
                capture_output=True,
                text=True,
            )
            assert (ran.returncode, ran.stderr) == (0, "")
            assert said in ran.stdout


@pytest.mark.parametrize(
    ("path", "access", "status", "said"),
    [
        (
            "{place}/test.yaml",
            "read",
            1,
            "denied by the broker's policy; its administrator sees why in the audit",
        ),
        ("{place}/no-such", "read", 1, "denied by the broker's policy"),
        (
            "{place}/missing",
            "read",
            1,
            "{place}/missing: allowed, but the open failed: No such file or directory",
        ),
        ("{place}/given", "fly", 2, "--access takes read, write"),
        ("{place}/given", "", 2, "--access takes read, write"),
        ("given", "read", 2, "the path must be absolute: 'given'"),
    ],
)
def test_open_says_why_not(
    broker: Broker, place: Path, path: str, access: str, status: int, said: str
) -> None:
    arguments = (path.format(place=place), "--access", access)
    alone = fdbroker_open(*arguments, broker=broker)
    assert (alone.returncode, alone.stdout) == (status, "")
    assert alone.stderr.startswith("fdbroker open: ")
    assert alone.stderr.count("\n") == 1
    assert said.format(place=place) in alone.stderr
    with_command = fdbroker_open(*arguments, "--", "echo", "it ran", broker=broker)
    assert (with_command.returncode, with_command.stdout) == (125, "")
    assert with_command.stderr == alone.stderr


def test_open_refuses_a_flag_that_there_is_not(broker: Broker, place: Path) -> None:
    ran = fdbroker_open(f"{place}/given", "--access", "read", "--flag", "creat", broker=broker)
    assert ran.returncode == 2
    assert "--flag takes one of" in ran.stderr


@pytest.mark.parametrize(("command", "status"), [((), 3), (("--", "true"), 125)])
def test_open_says_where_no_broker_answers(command: tuple[str, ...], status: int) -> None:
    ran = fdbroker_open("/dev/zero", "--access", "read", *command)
    assert (ran.returncode, ran.stdout) == (status, "")
    assert ran.stderr == "fdbroker open: no broker answers at /nowhere: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments", [[], ["/dev/zero"], ["--access", "read"], ["/dev/zero", "--access", "read", "--no-such"]]
)
@pytest.mark.parametrize(("command", "status"), [((), 2), (("--", "true"), 125)])
def test_open_says_how_it_is_used(arguments: list[str], command: tuple[str, ...], status: int) -> None:
    ran = fdbroker_open(*arguments, *command)
    assert (ran.returncode, ran.stdout) == (status, "")
    assert "usage: fdbroker open PATH --access RIGHTS" in ran.stderr


def test_open_says_that_the_command_is_missing() -> None:
    ran = fdbroker_open("/dev/zero", "--access", "read", "--")
    assert (ran.returncode, ran.stderr) == (125, "fdbroker open: there is no command behind --\n")


# --- with a command ----------------------------------------------------------------------------------------


def test_command_has_the_file_as_its_standard_input(broker: Broker, place: Path) -> None:
    ran = fdbroker_open(f"{place}/given", "--access", "read", "--", "cat", broker=broker)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "what is given\n", "")


def test_command_has_a_device_as_its_standard_input(broker: Broker) -> None:
    ran = fdbroker_open("/dev/zero", "--access", "use", "--", "head", "-c", "4", broker=broker)
    assert (ran.returncode, ran.stdout) == (0, "\0" * 4)


def test_command_writes_to_what_it_was_given(broker: Broker, place: Path) -> None:
    ran = fdbroker_open(f"{place}/given", "--access", "edit", "--", "sh", "-c", "echo new >&0", broker=broker)
    assert ran.returncode == 0
    assert (place / "given").read_text() == "new\n is given\n"


def test_command_gets_its_arguments_whatever_they_look_like(broker: Broker, place: Path) -> None:
    words = ["--json", "--", "--help", "", "a b", "--socket"]
    command = ["printf", "[%s]", *words]
    ran = fdbroker_open(f"{place}/given", "--access", "read", "--", *command, broker=broker)
    assert ran.stdout == "".join(f"[{word}]" for word in words)


def test_command_gets_listen_fds_and_keeps_its_standard_input(broker: Broker, place: Path) -> None:
    script = 'cat <&3; cat; echo "$LISTEN_FDS $LISTEN_FDNAMES $(($LISTEN_PID == $$))"'
    arguments = (f"{place}/given", "--access", "read", "--listen-fds", "--", "sh", "-c", script)
    ran = fdbroker_open(*arguments, broker=broker, input="typed\n")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "what is given\ntyped\n1 fdbroker 1\n"


# The directory's own fd is closed when its names are looked up.
SHOW_FDS = (
    "import os; print(*[n for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)])"
)


@pytest.mark.parametrize(("option", "fds"), [((), "0 1 2\n"), (("--listen-fds",), "0 1 2 3\n")])
def test_command_has_the_fd_and_no_connection(
    broker: Broker, place: Path, option: tuple[str, ...], fds: str
) -> None:
    command = [sys.executable, "-I", "-S", "-c", SHOW_FDS]
    ran = fdbroker_open(f"{place}/given", "--access", "read", *option, "--", *command, broker=broker)
    assert (ran.returncode, ran.stdout) == (0, fds)


def test_command_without_listen_fds_is_told_of_none(broker: Broker, place: Path) -> None:
    script = "echo [$LISTEN_FDS$LISTEN_PID]"
    ran = fdbroker_open(f"{place}/given", "--access", "read", "--", "sh", "-c", script, broker=broker)
    assert ran.stdout == "[]\n"


def test_grant_is_kept_by_a_parent_while_the_command_runs(broker: Broker, place: Path) -> None:
    # exec would close the connection, and with it the grant.
    connections = fds_of(broker.supervisor).count("socket:")
    process = start_open(broker, place, "echo $$; read line; echo $line")
    assert process.stdout is not None
    command = int(process.stdout.readline())
    assert command != process.pid
    assert "socket:" not in fds_of(command)
    assert str(place / "given") in fds_of(command)
    assert "socket:" in fds_of(process.pid)
    assert fds_of(broker.supervisor).count("socket:") == connections + 1
    assert process.communicate("go on\n")[0] == "go on\n"
    assert process.returncode == 0
    wait_until(lambda: fds_of(broker.supervisor).count("socket:") == connections, "the end of the connection")


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 1", 1), ("exit 77", 77), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_open_ends_as_its_command_ends(broker: Broker, place: Path, script: str, status: int) -> None:
    ran = fdbroker_open(f"{place}/given", "--access", "read", "--", "sh", "-c", script, broker=broker)
    assert (ran.returncode, ran.stdout, ran.stderr) == (status, "", "")


def test_open_passes_signals_to_its_command(broker: Broker, place: Path) -> None:
    script = "trap 'echo trapped; exit 9' TERM; echo ready; while :; do read line; done"
    process = start_open(broker, place, script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "trapped\n"
    process.communicate()
    assert process.returncode == 9


def test_open_says_that_there_is_no_such_command(broker: Broker, place: Path) -> None:
    ran = fdbroker_open(f"{place}/given", "--access", "read", "--", "no-such-command", broker=broker)
    assert (ran.returncode, ran.stderr) == (127, "fdbroker open: no-such-command: command not found\n")


def test_open_says_that_its_command_cannot_be_executed(broker: Broker, place: Path) -> None:
    (place / "script").write_text("#!/no/such/interpreter\n")
    (place / "script").chmod(0o755)
    for command in (f"{place}/script", str(place)):
        ran = fdbroker_open(f"{place}/given", "--access", "read", "--", command, broker=broker)
        assert ran.returncode == 126
        assert ran.stderr.startswith(f"fdbroker open: {command}: cannot be run: ")


@needs_root
def test_open_of_another_uid_opens_what_that_uid_cannot(broker: Broker, place: Path) -> None:
    def stranger() -> Any:
        ran = fdbroker_open(f"{place}/given", "--access", "read", "--", "cat", broker=broker)
        return [ran.returncode, ran.stdout, ran.stderr, os.access(place / "given", os.R_OK)]

    assert as_uid(STRANGER, stranger) == [0, "what is given\n", "", False]
