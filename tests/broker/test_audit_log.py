"""The audit when its file is rotated, its disk is full, its reader is slow: which records are where."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_schema import faults_of
from hostile import BUSY, DENIED, Hostile, call, opening, state_of, stopped
from hypothesis import given, settings
from hypothesis import strategies as st
from support import FDBROKER, SECONDS, TREE, Broker, allow, needs_root, policy, wait_until

from broker.audit import BEST_EFFORT, MODES, REQUIRED, AuditLog, audit_pipe
from broker.audit_files import FileSink, open_audit
from broker.limits import AUDIT_KEPT_BYTES, AUDIT_RETRY_SECONDS
from sandboxed.descriptors import close_all

Start = Callable[..., Broker]


def records_in(data: bytes) -> list[dict[str, Any]]:
    """The records of the lines that are whole; half lines are passed over."""
    found = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def numbers_of(records: list[dict[str, Any]]) -> list[int]:
    return [record["seq"] for record in records]


# --- rotation --------------------------------------------------------------------------------------------


class Asking:
    """A client that opens a file again and again in a thread, for as long as it is entered."""

    def __init__(self, broker: Broker, path: Path) -> None:
        self._broker, self._message = broker, opening(path)
        self.grants: list[str] = []
        self.others: list[dict[str, Any]] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._thread.join()

    def _ask(self) -> None:
        with Hostile(self._broker) as client:
            while not self._ends.is_set():
                reply, fds = client.ask(self._message)
                close_all(fds)
                if "error" in reply:
                    self.others.append(reply)
                else:
                    self.grants.append(reply["parameters"]["grant"])


def rotate(broker: Broker, to: Path) -> None:
    """As logrotate does: rename, then tell; and wait until the broker goes on in a new file."""
    broker.audit.rename(to)
    os.kill(broker.supervisor, signal.SIGUSR1)
    wait_until(lambda: broker.audit.exists() and broker.audit.stat().st_size, "a new audit file")


@pytest.mark.parametrize("mode", MODES)
def test_no_record_is_lost_or_doubled_when_the_file_is_rotated_under_load(
    start_broker: Start, place: Path, mode: str
) -> None:
    (place / "file").write_text("content")
    broker = start_broker(policy(allow("file", str(place / "file"))), options=["--audit-mode", mode])
    rotated = [place / f"audit.jsonl.{number}" for number in range(40)]
    with Asking(broker, place / "file") as asking:
        for path in rotated:
            before = len(asking.grants)
            rotate(broker, path)
            wait_until(lambda before=before: len(asking.grants) > before + 5, "the client to be served")
    assert asking.others == []
    parts = [records_in(path.read_bytes()) for path in rotated]
    wait_until(lambda: asking.grants[-1] in broker.audit.read_text(), "the last record")
    parts.append(broker.all_records())
    together = [record for part in parts for record in part]
    assert numbers_of(together) == list(range(1, len(together) + 1))
    assert [record["grant"] for record in together if record["event"] == "open"] == asking.grants
    assert sum(record["event"] == "reopened" for record in together) == len(rotated)
    assert all(part[0]["event"] == "reopened" for part in parts[1:])
    assert all(path.read_bytes().endswith(b"\n") for path in rotated[1:])
    assert [fault for record in together for fault in faults_of(record)] == []
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (*rotated, broker.audit))


def test_broker_survives_when_it_is_told_to_reopen_again_and_again(start_broker: Start, place: Path) -> None:
    (place / "file").write_text("content")
    broker = start_broker(policy(allow("file", str(place / "file"))))
    with Asking(broker, place / "file") as asking:
        for _ in range(300):
            os.kill(broker.supervisor, signal.SIGUSR1)
        wait_until(lambda: len(asking.grants) > 50, "the client to be served")
    wait_until(lambda: asking.grants[-1] in broker.audit.read_text(), "the last record")
    assert numbers_of(broker.all_records()) == list(range(1, len(broker.all_records()) + 1))


@pytest.mark.parametrize(
    "obstacle",
    [
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path.parent / "elsewhere"),
        lambda path: (path.touch(), path.chmod(0o620)),
        lambda path: (path.touch(), os.link(path, f"{path}.other")),
        lambda path: os.mkfifo(path),
    ],
    ids=["directory", "symbolic link", "others may write it", "two names", "FIFO"],
)
def test_audit_goes_on_in_the_old_file_when_the_new_one_cannot_be_trusted(
    start_broker: Start, place: Path, obstacle: Callable[[Path], Any]
) -> None:
    (place / "file").write_text("content")
    broker = start_broker(policy(allow("file", str(place / "file"))))
    old, new = place / "old.jsonl", broker.audit
    with Hostile(broker) as client:
        new.rename(old)
        obstacle(new)
        os.kill(broker.supervisor, signal.SIGUSR1)
        assert broker.process.stderr is not None
        assert "could not be opened anew" in broker.process.stderr.readline()
        assert client.content(opening(place / "file")) == "content"
        broker.audit = old
        assert broker.records(event="open", verdict="allow")
        assert broker.records(event="reopen-failed")[0]["reason"]
        shutil.rmtree(new) if new.is_dir() and not new.is_symlink() else new.unlink()
        broker.audit = new
        os.kill(broker.supervisor, signal.SIGUSR1)
        wait_until(new.exists, "a new audit file")
        assert client.content(opening(place / "file")) == "content"
        wait_until(lambda: len(records_in(new.read_bytes())) == 2, "the records in the new file")
    together = records_in(old.read_bytes() + new.read_bytes())
    assert numbers_of(together) == list(range(1, len(together) + 1))


def test_standard_output_goes_on_when_it_is_told_to_reopen(place: Path) -> None:
    (place / "file").write_text("content")
    broker = Broker(place, policy(allow("file", str(place / "file"))), options=["--audit", "-"])
    try:
        os.kill(broker.supervisor, signal.SIGUSR1)
        assert broker.process.stderr is not None
        assert "it has no file of its own" in broker.process.stderr.readline()
        with Hostile(broker) as client:
            assert client.content(opening(place / "file")) == "content"
        broker.assert_unharmed()
        assert broker.stop() == 0
    finally:
        broker.kill()


def test_first_record_is_a_line_of_its_own_when_the_last_broker_was_killed_within_one(
    start_broker: Start, place: Path
) -> None:
    (place / "audit.jsonl").write_text('{"seq":1,"time":"2026-')
    (place / "audit.jsonl").chmod(0o600)
    broker = start_broker(policy(allow("none", "/none")))
    with Hostile(broker) as client:
        assert client.error(opening("/x")) == DENIED
    wait_until(lambda: broker.audit.read_bytes().count(b"\n") == 3, "the records")
    assert numbers_of(records_in(broker.audit.read_bytes())) == [1, 2]


# --- disks, as they may be -------------------------------------------------------------------------------


class Disk:
    """A sink with room for so many bytes, whose writes fail when there is none, or are put off."""

    def __init__(self) -> None:
        self.room = 0
        self.behind = False
        self.may_reopen = True
        self.files = [b""]

    def write(self, data: bytes) -> int:
        if self.behind:
            return 0
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        self.files[-1] += taken
        return len(taken)

    def reopen(self) -> None:
        if not self.may_reopen:
            raise OSError(errno.EPERM, "it must be a file of this user's")
        if not self.files[-1].endswith(b"\n") and self.files[-1]:
            self.files[-1] += b"\n"  # as the next broker or reader sees it: a line that has no end
        self.files.append(b"")

    def close(self) -> None:
        pass


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(1, 5)),
        st.tuples(st.just("room"), st.sampled_from([0, 1, 40, 100, 150, 1000, 100_000])),
        st.tuples(st.just("behind"), st.booleans()),
        st.tuples(st.just("time"), st.sampled_from([0.1, AUDIT_RETRY_SECONDS])),
        st.tuples(st.just("reopen"), st.booleans()),
        st.tuples(st.just("flush"), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(mode=st.sampled_from(MODES), steps=_STEPS)
def test_every_number_is_written_once_or_told_to_be_lost_whatever_the_disk_does(
    mode: str, steps: list[tuple[str, Any]]
) -> None:
    disk, clock, said = Disk(), Clock(), []
    log = AuditLog(disk, said.append, mode, clock=lambda: 0.0, monotonic=clock)
    events = 0
    for step, value in steps:
        if step == "record":
            for _ in range(value):
                events += 1
                log.note("malformed", reason="x", peer={"uid": 0, "gid": 0, "pid": 1})
        elif step == "room":
            disk.room = value
        elif step == "behind":
            disk.behind = value
        elif step == "time":
            clock.now += value
            log.flush()
        elif step == "reopen":
            disk.may_reopen = value
            log.reopen()
        else:
            log.flush()
        assert not log.failing or mode == REQUIRED
        assert not log.blocked or mode == REQUIRED
    disk.room, disk.behind = 10_000_000, False
    clock.now += AUDIT_RETRY_SECONDS
    assert log.finish(0.0)
    records = records_in(b"".join(disk.files))
    assert [fault for record in records for fault in faults_of(record)] == []
    lost = [
        number
        for record in records
        if record["event"] == "records-lost"
        for number in range(record["first"], record["last"] + 1)
    ]
    assert all(
        one["count"] == one["last"] - one["first"] + 1 for one in records if one["event"] == "records-lost"
    )
    written = numbers_of(records)
    assert written == sorted(set(written))
    assert sorted(written + lost) == list(range(1, max([0, *written]) + 1))
    assert not lost or mode == BEST_EFFORT
    if mode == REQUIRED:
        assert sum(record["event"] == "malformed" for record in records) == events
    # In one file nothing but its last line is ever without an end.
    for data in disk.files:
        assert all(line.endswith(b"}") for line in data.splitlines()[:-1])


def test_lost_records_are_counted_once_when_the_disk_stays_full_for_long() -> None:
    disk, clock, said = Disk(), Clock(), []
    log = AuditLog(disk, said.append, BEST_EFFORT, clock=lambda: 0.0, monotonic=clock)
    for _ in range(7):
        log.note("reopened")
    for _ in range(20):
        clock.now += AUDIT_RETRY_SECONDS
        log.flush()
    disk.room = 10_000
    clock.now += AUDIT_RETRY_SECONDS
    log.flush()
    log.note("reopened")
    lost, after = records_in(disk.files[0])
    assert (lost["event"], lost["first"], lost["last"], lost["count"]) == ("records-lost", 1, 7, 7)
    assert lost["reason"] == "No space left on device"
    assert (lost["seq"], after["seq"]) == (8, 9)
    assert [one.partition(" (")[0] for one in said] == [
        "the audit cannot be written",
        "the audit is written again",
    ]


def test_best_effort_keeps_no_more_than_its_limit_when_the_reader_stands_still() -> None:
    reader, writer = audit_pipe()
    log_in, log_out = os.pipe()
    os.set_blocking(log_in, False)
    log = AuditLog(FileSink(log_out), lambda message: None, BEST_EFFORT, monotonic=Clock())
    record = b'{"event":"malformed","reason":"' + b"x" * 4000 + b'"}\n'
    handed = 0
    try:
        while handed * len(record) < 4 * AUDIT_KEPT_BYTES:
            os.write(writer, record)
            handed += 1
            log.take(reader)
            assert not log.blocked
        assert len(log._unwritten) < AUDIT_KEPT_BYTES + 2 * 65536
        data = b""
        while log.pending:
            log._next_try = 0.0
            log.flush()
            with contextlib.suppress(BlockingIOError):
                data += os.read(log_in, 1 << 20)
        with contextlib.suppress(BlockingIOError):
            data += os.read(log_in, 1 << 20)
        records = records_in(data)
        lost = [one for one in records if one["event"] == "records-lost"]
        assert len(records) - len(lost) + sum(one["count"] for one in lost) == handed
        assert {one["reason"] for one in lost} == {"nobody takes them"}
    finally:
        close_all((reader, writer, log_in, log_out))


# --- a disk that is full, for real -----------------------------------------------------------------------

# In a mount namespace of its own the audit's directory is a small file system.
_ON_SMALL_DISK = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -t tmpfs -o size=256k,mode=700 none "$0" && exec "$@"',
)


@contextlib.contextmanager
def on_small_disk(place: Path, mode: str) -> Iterator[tuple[Broker, Path]]:
    """A broker whose audit lies on a small file system, and the directory of that as the test sees it."""
    disk = place / "disk"
    disk.mkdir()
    (place / "file").write_text("content")
    started = Broker.__new__(Broker)
    program = (*_ON_SMALL_DISK, str(disk), *FDBROKER)
    options = ["--audit", str(disk / "audit.jsonl"), "--audit-mode", mode]
    try:
        started.__init__(place, policy(allow("file", str(place / "file"))), program, options)  # type: ignore[misc]
        seen = Path(f"/proc/{started.supervisor}/root{disk}")
        started.audit = seen / "audit.jsonl"
        yield started, seen
    finally:
        started.kill()


def fill(disk: Path) -> None:
    """Leave no byte."""
    with open(disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


@needs_root
def test_opens_wait_for_a_full_disk_when_the_audit_is_required(place: Path) -> None:
    with on_small_disk(place, REQUIRED) as (broker, disk), Hostile(broker) as client:
        assert client.content(opening(place / "file")) == "content"
        fill(disk)
        granted = 0
        while (answer := client.ask(opening(place / "file")))[0].get("error") != BUSY:
            close_all(answer[1])
            granted += 1
            assert granted < 10_000
        assert not broker.audit.read_bytes().endswith(b"\n")  # the disk was full within a record
        assert client.error(opening(place / "file")) == BUSY
        (disk / "filler").unlink()
        wait_until(lambda: client.ask(opening("/x"))[0]["error"] == DENIED, "the audit to be written again")
        assert client.content(opening(place / "file")) == "content"
        wait_until(lambda: len(broker.all_records(verdict="allow")) == granted + 2, "all records")
        data = broker.audit.read_bytes()
        assert len(records_in(data)) == data.count(b"\n")  # no half line
        assert numbers_of(broker.all_records()) == list(range(1, data.count(b"\n") + 1))
        client.socket.close()
        broker.assert_unharmed()
        assert broker.stop() == 0


@needs_root
def test_opens_go_on_and_losses_are_counted_when_the_audit_is_best_effort(place: Path) -> None:
    with on_small_disk(place, BEST_EFFORT) as (broker, disk), Hostile(broker) as client:
        assert client.content(opening(place / "file")) == "content"
        fill(disk)
        asked = 200
        for _ in range(asked):
            assert client.content(opening(place / "file")) == "content"
        assert broker.process.stderr is not None
        assert "No space left on device" in broker.process.stderr.readline()
        (disk / "filler").unlink()
        assert "written again" in broker.process.stderr.readline()
        assert client.content(opening(place / "file")) == "content"
        lost = broker.records(event="records-lost")
        wait_until(lambda: broker.all_records()[-1]["event"] == "open", "the last record")
        data = broker.audit.read_bytes()
        assert len(records_in(data)) == data.count(b"\n")
        counted = sum(record["count"] for record in lost)
        assert counted + len(broker.all_records(event="open")) == asked + 2
        missing = {number for record in lost for number in range(record["first"], record["last"] + 1)}
        numbers = numbers_of(broker.all_records())
        assert sorted([*numbers, *missing]) == list(range(1, numbers[-1] + 1))
        client.socket.close()
        broker.assert_unharmed()
        assert broker.stop() == 0


@needs_root
def test_record_that_a_full_disk_cut_stands_whole_in_the_next_file_when_rotated(place: Path) -> None:
    with on_small_disk(place, REQUIRED) as (broker, disk), Hostile(broker) as client:
        assert client.content(opening(place / "file")) == "content"
        broker.records(event="open")
        fill(disk)
        while (answer := client.ask(opening(place / "file")))[0].get("error") != BUSY:
            close_all(answer[1])
        old = broker.audit.read_bytes()
        assert old and not old.endswith(b"\n")
        broker.audit.rename(disk / "old.jsonl")
        os.kill(broker.supervisor, signal.SIGUSR1)
        wait_until(broker.audit.exists, "the new file")  # a name needs no room there
        (disk / "filler").unlink()
        wait_until(lambda: client.ask(opening("/x"))[0]["error"] == DENIED, "the audit to be written again")
        broker.records(event="open", verdict="deny")
        assert (disk / "old.jsonl").read_bytes() == old
        assert broker.all_records(event="reopened")
        numbers = numbers_of(records_in(old) + broker.all_records())
        assert numbers == list(range(1, len(numbers) + 1))
        assert broker.stop() == 0


@needs_root
def test_no_record_of_a_worker_is_lost_when_it_dies_while_the_disk_is_full(place: Path) -> None:
    many = call("OpenMany", {"requests": [{"path": str(place / "file"), "access": ["read"]}] * 64})
    with on_small_disk(place, REQUIRED) as (broker, disk):
        fill(disk)
        granted = []
        with Hostile(broker) as client:
            client.ask(call("Describe"))
            with stopped(broker.supervisor):
                for _ in range(10):  # much more than the supervisor takes at once
                    reply, fds = client.ask(many)
                    close_all(fds)
                    granted += [one["grant"] for one in reply["parameters"]["results"]]
                os.kill(broker.worker, signal.SIGKILL)
                wait_until(lambda: state_of(broker.worker) == "Z", "the worker to die")
        assert broker.process.stderr is not None
        said = [broker.process.stderr.readline() for _ in range(2)]
        assert any("the worker ended unexpectedly" in line for line in said), said
        (disk / "filler").unlink()
        wait_until(lambda: len(broker.all_records(event="open")) == len(granted), "the records")
        assert [record["grant"] for record in broker.all_records(event="open")] == granted
        assert numbers_of(broker.all_records()) == list(range(1, len(broker.all_records()) + 1))
        assert broker.stop() == 0


def test_packaged_rotation_is_what_the_broker_and_logrotate_understand() -> None:
    """logrotate is not part of every machine: where it is missing, its words are only looked at."""
    text = (TREE / "packaging/logrotate").read_text()
    assert "copytruncate" not in re.sub("#.*", "", text)
    for word in ("delaycompress", "create 0600 root root", "--signal=USR1", "fdbroker.service"):
        assert word in text
    program = shutil.which("logrotate")
    if program is not None:
        done = subprocess.run(
            [program, "--debug", TREE / "packaging/logrotate"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0 and "error:" not in done.stderr, done.stderr


def test_serve_refuses_a_mode_of_the_audit_that_there_is_not() -> None:
    done = subprocess.run(
        [*FDBROKER, "serve", "--audit-mode", "never"],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 2 and "best-effort" in done.stderr


def test_file_that_is_reopened_is_checked_as_at_the_start(place: Path) -> None:
    path = str(place / "audit")
    sink = FileSink(open_audit(path), path)
    try:
        os.rename(path, f"{path}.1")
        Path(path).touch()
        os.chmod(path, 0o602)
        with pytest.raises(OSError, match="nobody else can write"):
            sink.reopen()
        assert sink.write(b"old\n") == 4
        os.unlink(path)
        sink.reopen()
        assert sink.write(b"new\n") == 4
    finally:
        sink.close()
    assert (Path(f"{path}.1").read_bytes(), Path(path).read_bytes()) == (b"old\n", b"new\n")
