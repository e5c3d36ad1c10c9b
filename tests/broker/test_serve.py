"""`fdbroker serve`: its start, its sockets, what it opens, and its end."""

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import FDBROKER, STRANGER, TREE, Broker, allow, as_uid, is_device, needs_root, policy, readable

from broker.messages import FLAGS, InvalidParameter, OpenParameters, understand
from sandboxed import Denied

SECONDS = 30

# The devices of root's alone that this machine may have, and the rights to try.
DEVICES = [
    ("/dev/net/tun", ["read", "write", "ioctl"]),
    ("/dev/kvm", ["read", "write", "ioctl"]),
    ("/dev/loop-control", ["read", "write", "ioctl"]),
    ("/dev/hwrng", ["read"]),
]


def start(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A broker that is expected not to start."""
    return subprocess.run(
        [*FDBROKER, "serve", *arguments],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


# --- what it opens -------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(("path", "rights"), DEVICES)
def test_stranger_gets_a_device_of_roots_when_a_rule_gives_it(
    start_broker: Callable[[str], Broker], path: str, rights: list[str]
) -> None:
    if not is_device(path):
        pytest.skip(f"this machine has no {path}")
    broker = start_broker(
        policy(allow("device", path, ", ".join(rights), "type: char", f"{{uid: {STRANGER}}}"))
    )

    def ask() -> list[object]:
        if not os.stat(path).st_mode & stat.S_IWOTH:  # distributions differ on /dev/net/tun
            with pytest.raises(PermissionError):
                os.open(path, os.O_RDWR)
        with broker.client() as client, client.open_fd(path, rights) as fd:
            return [os.fstat(fd).st_rdev, fd.rights]

    assert as_uid(STRANGER, ask) == [os.stat(path).st_rdev, rights]
    with pytest.raises(Denied), broker.client() as client:  # root is not the stranger
        client.open_fd(path, rights)
    record = broker.records(event="open", verdict="allow")[0]
    assert record["peer"]["uid"] == STRANGER
    assert record["device"] == f"{os.major(os.stat(path).st_rdev)}:{os.minor(os.stat(path).st_rdev)}"
    assert record["rule"] == "test/device"
    assert record["at"] == "test.yaml:3"
    assert record["us"] >= 0


def test_client_talks_over_a_pty_that_the_broker_opened(start_broker: Callable[[str], Broker]) -> None:
    leader, follower = os.openpty()
    name = os.ttyname(follower)
    broker = start_broker(policy(allow("pty", name, "read, write", "type: char")))
    try:
        with broker.client() as client, client.open_fd(name, ["read", "write"]) as fd:
            assert os.write(fd, b"hello") == 5
            assert readable(leader)
            assert os.read(leader, 100) == b"hello"
            # O_NOCTTY: neither the worker nor we have got a controlling terminal by it.
            assert Path(f"/proc/{broker.worker}/stat").read_text().rsplit(")")[1].split()[4] == "0"
    finally:
        os.close(leader)
        os.close(follower)


@pytest.mark.parametrize(
    ("access", "mode"),
    [(["read"], os.O_RDONLY), (["write"], os.O_WRONLY), (["read", "write"], os.O_RDWR),
     (["append"], os.O_WRONLY | os.O_APPEND), (["read", "append"], os.O_RDWR | os.O_APPEND),
     (["use"], os.O_RDWR), (["edit"], os.O_RDWR)],
)  # fmt: skip
def test_access_mode_is_what_was_asked_for_and_no_more(
    start_broker: Callable[[str], Broker], place: Path, access: list[str], mode: int
) -> None:
    import fcntl

    file = place / "file"
    file.write_text("content")
    broker = start_broker(policy(allow("file", str(file), "use, edit")))
    with broker.client() as client:
        for _ in range(3):  # the first is decided, the others are known
            with client.open_fd(file, access) as fd:
                flags = fcntl.fcntl(fd, fcntl.F_GETFL)
                assert flags & (os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK) == mode
    assert file.read_text() == "content"


def test_open_flags_are_an_allow_list() -> None:
    """Every bit of open(2): either a word gives exactly it, or no word gives it."""
    given = set(FLAGS.values())
    forbidden = {
        os.O_CREAT,
        os.O_TRUNC,
        os.O_APPEND,
        os.O_PATH,
        os.O_TMPFILE,
        os.O_NOCTTY,
        os.O_CLOEXEC,
        os.O_NOATIME,
    }
    assert not any(flag & bit for flag in given for bit in forbidden - {os.O_TMPFILE})
    for bit in range(32):
        flag = 1 << bit
        words = [word for word, value in FLAGS.items() if value == flag]
        if words:
            asked = understand(OpenParameters("/a", ("read",), None, tuple(words)))
            assert asked.flags == flag
    for word in ("creat", "trunc", "append", "path", "tmpfile", "noatime", "CREAT", "", "O_SYNC"):
        with pytest.raises(InvalidParameter):
            understand(OpenParameters("/a", ("read",), None, (word,)))


def test_broker_serves_what_its_own_user_can_open_when_it_is_not_root(
    start_broker: Callable[[str], Broker], place: Path
) -> None:
    own = place / "own"
    own.write_text("own")
    broker = start_broker(policy(allow("own", str(own)), allow("shadow", "/etc/shadow")))
    with broker.client() as client:
        with client.open(own) as file:
            assert file.read() == "own"
        if os.geteuid() != 0:
            with pytest.raises(PermissionError) as caught:
                client.open("/etc/shadow")
            assert not isinstance(caught.value, Denied)


# --- sockets -------------------------------------------------------------------------------------------------


def test_socket_of_a_killed_broker_is_replaced(start_broker: Callable[[str], Broker]) -> None:
    first = start_broker(policy(allow("null", "/dev/null", more="type: char")))
    first.kill()
    assert stat.S_ISSOCK(os.stat(first.socket).st_mode)
    second = start_broker(first.policy.read_text())
    with second.client() as client:
        client.open_fd("/dev/null", ["read"]).close()


def test_socket_of_a_living_broker_is_left_alone(start_broker: Callable[[str], Broker]) -> None:
    first = start_broker(policy(allow("null", "/dev/null", more="type: char")))
    ran = start("--policy", str(first.policy), "--socket", first.socket)
    assert ran.returncode == 2
    assert "answers" in ran.stderr
    with first.client() as client:
        client.describe()


def test_file_in_the_sockets_place_is_left_alone(place: Path) -> None:
    rules = place / "rules.yaml"
    rules.write_text(policy(allow("null", "/dev/null", more="type: char")))
    occupied = place / "occupied"
    occupied.write_text("precious")
    ran = start("--policy", str(rules), "--socket", str(occupied))
    assert ran.returncode == 2
    assert "no socket" in ran.stderr
    assert occupied.read_text() == "precious"


def test_socket_is_gone_and_the_status_is_0_when_a_signal_ends_the_broker(
    start_broker: Callable[[str], Broker],
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        broker = start_broker(policy(allow("null", "/dev/null", more="type: char")))
        broker.process.send_signal(number)
        assert broker.process.wait(SECONDS) == 0
        assert not os.path.exists(broker.socket)
        assert not os.path.exists(f"/proc/{broker.worker}")


def test_client_that_waits_learns_that_the_broker_ended(start_broker: Callable[[str], Broker]) -> None:
    broker = start_broker(policy(allow("null", "/dev/null", more="type: char")))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(broker.socket)
        broker.stop()
        client.settimeout(SECONDS)
        assert client.recv(1) == b""


@needs_root
def test_socket_of_its_own_has_owner_group_and_mode_and_is_its_clients_name(
    start_broker: Callable[[str], Broker], place: Path
) -> None:
    own = place / "own.sock"
    head = f"sockets:\n  special: {{path: {own}, owner: daemon, group: daemon, mode: 0620}}\n"
    broker = start_broker(
        policy(allow("null", "/dev/null", more="type: char", clients="{socket: special}"), head=head)
    )
    status = own.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1, 1, 0o620)
    import sandboxed

    with sandboxed.connect(own) as client:
        client.open_fd("/dev/null", ["read"]).close()
    with broker.client() as client, pytest.raises(Denied):
        client.open_fd("/dev/null", ["read"])


# --- errors at the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--policy", "/nonexistent"], "/nonexistent"),
        (["--policy", "RULES", "--socket", "/nonexistent/directory/socket"], "--socket"),
        (["--policy", "RULES", "--socket", "PLACE/s", "--audit", "/nonexistent/audit"], "/nonexistent/audit"),
        (["--policy", "BAD", "--socket", "PLACE/s"], "bad.yaml:1:10"),
        (["--policy", "RULES", "--socket", "PLACE/" + "x" * 200], "cannot listen"),
    ],
)
def test_broker_says_what_is_wrong_when_it_cannot_start(place: Path, arguments: list[str], says: str) -> None:
    rules, bad = place / "rules.yaml", place / "bad.yaml"
    rules.write_text(policy(allow("null", "/dev/null", more="type: char")))
    bad.write_text("version: 9\n")
    names = {"RULES": str(rules), "BAD": str(bad)}
    ran = start(*[names.get(word, word.replace("PLACE", str(place))) for word in arguments])
    assert ran.returncode == 2
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (place / "s").exists()


def test_audit_is_written_to_standard_output_when_no_file_is_named(place: Path) -> None:
    rules = place / "rules.yaml"
    rules.write_text(policy(allow("null", "/dev/null", more="type: char")))
    address = str(place / "b.sock")
    process = subprocess.Popen(
        [*FDBROKER, "serve", "--policy", str(rules), "--socket", address],
        cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None and process.stderr is not None
        assert "serving at" in process.stderr.readline()
        import sandboxed

        with sandboxed.connect(address) as client:
            client.open_fd("/dev/null", ["read"]).close()
        assert json.loads(process.stdout.readline())["event"] == "worker"
        assert json.loads(process.stdout.readline())["path"] == "/dev/null"
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_directory_of_policies_is_one_set(place: Path) -> None:
    directory = place / "policy.d"
    directory.mkdir()
    (directory / "10-a.yaml").write_text(policy(allow("null", "/dev/null", more="type: char")))
    (directory / "20-b.yaml").write_text(
        "version: 1\nrules:\n  - {name: no, deny: all, paths: [/dev/full]}\n"
    )
    (directory / "notes.txt").write_text("no policy")
    ran = subprocess.run(
        [*FDBROKER, "check", str(directory)],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 0
    assert "2 rules in 2 files" in ran.stdout
    assert "notes.txt is ignored" in ran.stderr
