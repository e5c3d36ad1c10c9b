"""Holes that were found and mended: each attack as it was."""

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import STRANGER, Broker, allow, as_uid, needs_root, policy, wait_until

import sandboxed
from broker.audit import AuditLog, audit_pipe
from broker.audit_files import FileSink
from broker.limits import PEERS, PLAN_BYTES, PLANS_BYTES, RECORD_BYTES, REFUSALS_BURST
from broker.messages import OpenParameters
from broker.opener import Opener
from broker.records import AuditPipe, RefusalLimit
from broker.service import Service
from policy import Peer, PolicyError, Source, load
from sandboxed import Busy, Denied
from sandboxed.descriptors import receive_with_fds, send_with_fds

Start = Callable[[str], Broker]


def test_client_destroys_no_record_when_links_make_a_path_of_any_length(
    start_broker: Start, place: Path
) -> None:
    top = place / "d"
    top.mkdir()
    broker = start_broker(policy(allow("deep", f"{top}/**")))
    component = b"\xff" * 255
    inner = b"/".join([component] * 15)
    here = os.open(top, os.O_RDONLY)
    for level in range(20):  # each link leads 15 directories down, to the next link
        os.symlink(inner + (b"/l" if level < 19 else b"/f"), b"l", dir_fd=here)
        for _ in range(15):
            os.mkdir(component, dir_fd=here)
            inside = os.open(component, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inside
    os.close(os.open(b"f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    with broker.client() as client, pytest.raises(Denied):
        client.open_fd(top / "l", ["read"])
    assert [one["path"] for one in broker.records(event="open")] == [str(top / "l")]
    assert "File name too long" in broker.records(event="open")[0]["reason"]


def test_record_that_is_too_long_is_replaced_and_its_rest_is_no_record() -> None:
    """Only a worker that is broken or taken over makes one, so this plays the worker."""
    reader, writer = audit_pipe()
    out, log_end = os.pipe()
    os.set_blocking(out, False)
    log = AuditLog(FileSink(log_end), complain=lambda message: None, clock=lambda: 0.0)
    try:
        left = memoryview(b'{"a":1}\n{"b":"' + b"x" * (2 * RECORD_BYTES) + b'","forged":1}\n{"c":2}\n')
        os.set_blocking(writer, False)
        while left:
            left = left[os.write(writer, left[:60_000]) :]
            log.take(reader)
        log.take(reader)
        records = [json.loads(line) for line in os.read(out, 65536).splitlines()]
        assert [list(one)[2] for one in records] == ["a", "event", "c"]
        assert records[1]["event"] == "record-dropped"
        assert [one["seq"] for one in records] == [1, 2, 3]
    finally:
        for fd in (reader, writer, out, log_end):
            os.close(fd)


@needs_root
def test_client_leaks_no_fds_when_it_has_very_many_groups(start_broker: Start, place: Path) -> None:
    (place / "file").write_text("x")
    broker = start_broker(policy(allow("file", str(place / "file"), clients=f"{{uid: {STRANGER}}}")))

    def ask() -> int:
        for _ in range(20):
            with broker.client() as client:
                client.open_fd(place / "file", ["read"]).close()
        return 20

    assert as_uid(STRANGER, ask, tuple(range(1_000_000, 1_018_000))) == 20  # known by its uid
    broker.assert_unharmed()


def test_datagram_that_is_cut_short_leaves_no_fd() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        before = os.listdir("/proc/self/fd")
        send_with_fds(ours, b"x" * 100, [0])
        with pytest.raises(OSError, match="longer than there was room"):
            receive_with_fds(theirs, 10, 1)
        assert os.listdir("/proc/self/fd") == before


@needs_root
def test_remembered_device_is_denied_when_a_denied_name_comes_to_mean_it(start_broker: Start) -> None:
    alias = Path("/dev/fdbroker-test-alias")
    broker = start_broker(
        policy(allow("zero", "/dev/zero", more="type: char"), f'name: no, deny: all, paths: ["{alias}"]')
    )
    try:
        with broker.client() as client:
            for _ in range(3):
                client.open_fd("/dev/zero", ["read"]).close()
            alias.symlink_to("/dev/zero")  # as udev makes its by-id names, after the node
            with pytest.raises(Denied):
                client.open_fd("/dev/zero", ["read"])
    finally:
        alias.unlink(missing_ok=True)


def test_remembered_requests_stay_within_their_limit_when_many_identities_came() -> None:
    """The service alone: a thousand identities would need a thousand uids."""
    rules = load([Source("a.yaml", policy(allow("a", "/srv/**")))])
    opener = Opener(rules)
    null = os.open("/dev/null", os.O_WRONLY)
    service = Service(rules, opener, AuditPipe(null))

    def client(uid: int) -> Any:
        return service.client(uid, Peer(uid, frozenset(), frozenset(), frozenset()), uid, {})

    try:
        first = client(0)
        for uid in range(1, PEERS + 1):
            client(uid)
        most = 0
        for number in range(2 * PLANS_BYTES // PLAN_BYTES):
            plan = service.plan(first, OpenParameters(f"/srv/{number}", ("read",)))
            service.remember(first, b"%d\0" % number, plan)
            most = max(most, len(first.plans))
        assert 0 < most <= PLANS_BYTES // PLAN_BYTES
        assert len(first.plans) < most
    finally:
        opener.close()
        os.close(null)


def test_opens_are_refused_at_once_when_the_audit_fails(place: Path) -> None:
    """The audit goes to a full device: the supervisor tells the worker, long before the pipe between them is full."""
    rules = place / "rules.yaml"
    rules.write_text(policy(allow("zero", "/dev/zero", more="type: char")))
    address = str(place / "b.sock")
    process = subprocess.Popen(
        [sys.executable, "-m", "broker.main", "serve", "--policy", str(rules), "--socket", address,
         "--audit", "/dev/full"], stderr=subprocess.PIPE, text=True)  # fmt: skip
    with process:
        assert process.stderr is not None
        assert "serving at" in process.stderr.readline()

        def busy() -> bool:
            try:
                with sandboxed.connect(address) as client:
                    client.open_fd("/dev/zero", ["read"]).close()
                return False
            except Busy as error:
                return error.limit == "audit"

        assert wait_until(busy, "the refusal")
        assert busy()
        assert "cannot be written" in process.stderr.readline()
        process.kill()


@pytest.mark.parametrize(
    "text", ["/dev/sda\n", "/dev/sda\u00a0", "/dev/\u202esda", "/dev/sda /dev/sdb", "/dev/sda "]
)
def test_path_that_reads_otherwise_than_it_stands_is_a_mistake(text: str) -> None:
    with pytest.raises(PolicyError):
        load([Source("a.yaml", policy(f"name: no, deny: all, paths: [{json.dumps(text)}]"))])


@needs_root
def test_mount_point_with_an_odd_name_ends_nothing(start_broker: Start, place: Path) -> None:
    """The kernel escapes spaces, tabs and newlines of a mount point, and nothing else that text is split at."""
    odd = place / "a\rb\x0c-\x0cdevtmpfs"
    odd.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(odd)], check=True)
    try:
        (odd / "file").write_text("x")
        broker = start_broker(
            policy(allow("null", "/dev/null", more="type: char"), allow("odd", str(place) + "/**"))
        )
        with broker.client() as client:
            client.open_fd("/dev/null", ["read"]).close()
            client.open_fd(odd / "file", ["read"]).close()
    finally:
        subprocess.run(["umount", str(odd)], check=True)


def test_maze_of_links_is_left_after_so_many_steps(start_broker: Start, place: Path) -> None:
    top = place / "m"
    top.mkdir()
    (top / "d").mkdir()
    (top / "l0").write_text("x")
    for level in range(1, 30):
        os.symlink("d/../" * 200 + f"l{level - 1}", top / f"l{level}")
    broker = start_broker(policy(allow("maze", f"{top}/*")))
    with broker.client() as client:
        client.open_fd(top / "l0", ["read"]).close()
        with pytest.raises(Denied):
            client.open_fd(top / "l29", ["read"])
    assert "Too many levels" in broker.records(verdict="deny")[0]["reason"]


def test_long_refusals_use_up_the_rate_sooner() -> None:
    short, long = RefusalLimit(lambda: 0.0), RefusalLimit(lambda: 0.0)
    assert sum(short.admits(1, 300) for _ in range(2000)) == REFUSALS_BURST
    assert sum(long.admits(1, 100 * 1024) for _ in range(2000)) < REFUSALS_BURST // 50


@pytest.mark.parametrize("kind", ["writable", "linked", "fifo", "link"])
def test_audit_file_that_somebody_else_made_ready_is_refused(place: Path, kind: str) -> None:
    rules, audit = place / "rules.yaml", place / "audit"
    rules.write_text(policy(allow("null", "/dev/null", more="type: char")))
    if kind == "fifo":
        os.mkfifo(audit)
    elif kind == "link":
        audit.symlink_to(place / "elsewhere")
    else:
        audit.write_text("")
        audit.chmod(0o666 if kind == "writable" else 0o600)
        if kind == "linked":
            (place / "other").hardlink_to(audit)
    command = [sys.executable, "-m", "broker.main", "serve", "--policy", str(rules)]
    ran = subprocess.run([*command, "--socket", str(place / "s"), "--audit", str(audit)],
                         capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
    assert ran.returncode == 2
    assert "audit file" in ran.stderr
    assert not (place / "elsewhere").exists()


def test_program_cannot_type_into_the_terminal_that_it_was_started_from(place: Path) -> None:
    """TIOCSTI: what it typed would be read by the shell behind it, which may be root's."""
    rules = place / "rules.yaml"
    rules.write_text(policy(allow("null", "/dev/null", more="type: char", clients="any")))
    program = (
        "import fcntl, os, termios\n"
        "try: fcntl.ioctl(0, termios.TIOCSTI, b'x'); print('typed')\n"
        "except OSError as error: print('refused', error.errno)\n"
    )
    pid, leader = pty.fork()
    if pid == 0:
        command = [sys.executable, "-m", "broker.main", "run", "--policy", str(rules), "--"]
        os.execv(sys.executable, [*command, sys.executable, "-c", program])
    said = b""
    try:
        while b"typed" not in said and b"refused" not in said:
            said += os.read(leader, 4096)
    except OSError:
        pass  # the terminal was hung up
    finally:
        os.waitpid(pid, 0)
        os.close(leader)
    assert b"refused" in said, said
