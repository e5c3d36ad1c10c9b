"""The audit in systemd's journal.

A machine that tests need not run journald: a datagram socket of our own plays it, and reads entries as
systemd.io/JOURNAL_NATIVE_PROTOCOL says. What journald itself makes of them is not tested here.
"""

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import BUSY, DENIED, Hostile, opening
from support import FDBROKER, SECONDS, TREE, Broker, allow, policy, wait_until

from broker.audit import AuditLog
from broker.journal import JournalSink, entry
from sandboxed.descriptors import close_all, receive_with_fds

Fields = dict[str, list[str]]


def fields_of(data: bytes) -> Fields:
    """An entry's fields as journald reads them; each name has all its values."""
    found: Fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest.startswith(b"\n")
            rest = rest[1:]
        assert name.decode("ascii").replace("_", "").isalnum() and name.isupper() and len(name) <= 64
        found.setdefault(name.decode(), []).append(value.decode())
        data = rest
    return found


class Journal:
    """Plays journald at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Fields] = []
        self.files = 0  # entries that came as a file
        self.start()

    def start(self) -> None:
        """Be there, as after a start."""
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self.path))

    def stop(self) -> None:
        """Be gone."""
        self.read()
        self._socket.close()
        self.path.unlink()

    def read(self) -> list[Fields]:
        """All entries so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, fds = receive_with_fds(self._socket, 1 << 20, 4)
                if fds:
                    data = self._of_file(data, fds)
                self.entries.append(fields_of(data))
        return self.entries

    def _of_file(self, data: bytes, fds: list[int]) -> bytes:
        self.files += 1
        try:
            assert data == b"" and len(fds) == 1
            # What journald insists on before it reads one.
            seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)
            assert seals == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            return os.pread(fds[0], os.fstat(fds[0]).st_size, 0)
        finally:
            close_all(fds)

    def having(self, **wanted: str) -> list[Fields]:
        """The entries with these values, once there is one."""
        return list(
            wait_until(
                lambda: [
                    one
                    for one in self.read()
                    if all(value in one.get(name, ()) for name, value in wanted.items())
                ],
                f"an entry with {wanted}",
            )
        )


@pytest.fixture
def journal(place: Path) -> Iterator[Journal]:
    journal = Journal(place / "journal.sock")
    yield journal
    journal._socket.close()


@pytest.fixture
def start(start_broker: Callable[..., Broker], place: Path, journal: Journal) -> Callable[..., Broker]:
    """Starts brokers whose audit is that journal's."""
    (place / "file").write_text("content")

    def started(*options: str) -> Broker:
        rules = policy(allow("file", str(place / "file"), "read, write"))
        return start_broker(rules, options=["--audit", f"journal:{journal.path}", *options])

    return started


def test_record_has_its_fields_in_the_journal(
    start: Callable[..., Broker], journal: Journal, place: Path
) -> None:
    broker = start()
    with Hostile(broker) as client:
        assert client.content(opening(place / "file", ("read", "write"))) == "content"
        assert client.error(opening("/etc/shadow")) == DENIED
    allowed = journal.having(FDBROKER_VERDICT="allow")[0]
    assert allowed["SYSLOG_IDENTIFIER"] == ["fdbroker"] and allowed["PRIORITY"] == ["6"]
    assert allowed["FDBROKER_SEQ"] == ["2"] and allowed["FDBROKER_EVENT"] == ["open"]
    assert allowed["FDBROKER_PEER_UID"] == [str(os.geteuid())]
    assert allowed["FDBROKER_ACCESS"] == ["read", "write"]
    assert allowed["FDBROKER_RULE"] == ["test/file"] and allowed["FDBROKER_GRANT"] == ["g1"]
    assert str(place / "file") in allowed["MESSAGE"][0]
    record = json.loads(allowed["FDBROKER_RECORD"][0])
    assert record["path"] == str(place / "file") and record["time"] == allowed["FDBROKER_TIME"][0]
    denied = journal.having(FDBROKER_VERDICT="deny")[0]
    assert denied["PRIORITY"] == ["5"] and denied["FDBROKER_SEQ"] == ["3"]
    assert not broker.audit.exists()


def test_client_forges_no_field_when_its_path_holds_line_ends(
    start: Callable[..., Broker], journal: Journal
) -> None:
    broker = start()
    path = "/x\nMESSAGE=forged\nFDBROKER_VERDICT=allow\n_UID=0\n"
    with Hostile(broker) as client:
        assert client.error(opening(path)) == DENIED
    found = journal.having(FDBROKER_EVENT="open")[0]
    assert found["FDBROKER_PATH"] == [path]
    assert found["FDBROKER_VERDICT"] == ["deny"] and "_UID" not in found
    assert len(found["MESSAGE"]) == 1 and "\n" not in found["MESSAGE"][0]


def test_taken_over_worker_forges_neither_number_nor_time_nor_another_field(journal: Journal) -> None:
    """What it hands over passes the supervisor as it is: here is such a worker's record."""
    log = AuditLog(JournalSink(str(journal.path)), lambda message: None, clock=lambda: 0.0)
    log._queue(
        [
            b'{"seq":77,"time":"2000-01-01T00:00:00.000000Z","event":"open","verdict":"allow","_uid":0,"MESSAGE":"x",'
            b'"priority=0\\nX":1,"peer":{"uid":1,"a":{"b":2}},"names":[1,null,"x\\ny"]}',
            b"no JSON at all",
            b'{"deep":' + b"[" * 100_000,
            b"{" + b",".join(b'"k%d":1' % number for number in range(5000)) + b"}",
        ]
    )
    log._sink.close()
    first, second, third, fourth = journal.read()
    assert first["FDBROKER_SEQ"] == ["1"] and first["FDBROKER_TIME"] == ["1970-01-01T00:00:00.000000Z"]
    assert first["FDBROKER_NAMES"] == ["1", "null", "x\ny"] and first["FDBROKER_PEER_A"] == ['{"b": 2}']
    assert set(first) == {
        "MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "FDBROKER_RECORD", "FDBROKER_SEQ", "FDBROKER_TIME",
        "FDBROKER_EVENT", "FDBROKER_VERDICT", "FDBROKER_PEER_UID", "FDBROKER_PEER_A", "FDBROKER_NAMES",
    }  # fmt: skip
    assert [one["FDBROKER_SEQ"] for one in (second, third)] == [["2"], ["3"]]
    assert len(fourth) <= 200


def test_large_record_comes_as_a_sealed_file(journal: Journal) -> None:
    """Larger than a client can make one: the kernel's bound for a datagram (net.core.wmem_default) is some 200 KiB."""
    log = AuditLog(JournalSink(str(journal.path)), lambda message: None)
    before = os.listdir("/proc/self/fd")
    names = [f"/{number}" + "x" * 4000 for number in range(100)]
    log.note("open", names=names, path="/after\nwards")
    log.note("reopened")
    large, small = journal.read()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert journal.files == 1
    assert large["FDBROKER_NAMES"] == names[: len(large["FDBROKER_NAMES"])]
    assert json.loads(large["FDBROKER_RECORD"][0])["names"] == names
    assert small["FDBROKER_SEQ"] == ["2"]
    log._sink.close()


def test_broker_does_not_start_when_there_is_no_journal(place: Path) -> None:
    rules = place / "test.yaml"
    rules.write_text(policy(allow("none", "/none")))
    (place / "file").touch()
    for path in (place / "nothing", place / "file"):
        command = ["serve", "--policy", rules, "--socket", place / "s", "--audit", f"journal:{path}"]
        done = subprocess.run(
            [*FDBROKER, *command], cwd=TREE, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 2
        assert "the audit journal cannot be opened" in done.stderr
        assert not (place / "s").exists()


def test_opens_are_refused_when_the_journal_dies_and_go_on_when_it_is_back(
    start: Callable[..., Broker], journal: Journal, place: Path
) -> None:
    broker = start()
    with Hostile(broker) as client:
        assert client.content(opening(place / "file")) == "content"
        journal.stop()
        granted = 1
        while (answer := client.ask(opening(place / "file")))[0].get("error") != BUSY:
            close_all(answer[1])
            granted += 1
            assert granted < 10_000
        journal.start()
        wait_until(lambda: client.ask(opening("/x"))[0]["error"] == DENIED, "the audit to be written again")
        assert client.content(opening(place / "file")) == "content"
        wait_until(lambda: len(journal.having(FDBROKER_VERDICT="allow")) == granted + 1, "the records")
    numbers = [int(one["FDBROKER_SEQ"][0]) for one in journal.entries]
    assert numbers == list(range(1, len(numbers) + 1))


def test_nothing_is_refused_when_the_journal_was_started_anew_in_between(
    start: Callable[..., Broker], journal: Journal, place: Path
) -> None:
    broker = start()
    with Hostile(broker) as client:
        for turn in range(5):
            assert client.content(opening(place / "file")) == "content"
            # The worker's own record is the first.
            wait_until(lambda most=turn + 2: len(journal.read()) == most, "the record")
            journal.stop()
            journal.start()
        assert client.content(opening(place / "file")) == "content"
        wait_until(lambda: len(journal.having(FDBROKER_VERDICT="allow")) == 6, "the records")
    assert [one["FDBROKER_SEQ"] for one in journal.entries] == [[str(number)] for number in range(1, 8)]


def test_no_record_is_lost_when_the_journal_is_slow(
    start: Callable[..., Broker], journal: Journal, place: Path
) -> None:
    """Its queue takes some 10 to 512 datagrams (net.unix.max_dgram_qlen)."""
    broker = start()
    asked = 2000
    with Hostile(broker) as client:
        for _ in range(asked):
            assert client.content(opening(place / "file")) == "content"
        wait_until(lambda: len(journal.read()) == asked + 1, "the records, and the worker's own")
    assert [one["FDBROKER_SEQ"] for one in journal.entries] == [
        [str(number)] for number in range(1, asked + 2)
    ]


def test_record_is_an_entry_whatever_is_in_it() -> None:
    for values in ({"event": 1, "verdict": []}, {"peer": 3}, {"path": ["x"]}, {"access": 1}, {"rights": [1]}):
        record: dict[str, Any] = {"seq": 1, **values}
        assert fields_of(entry(json.dumps(record).encode()))["MESSAGE"]
    lone = fields_of(entry(b'{"event":"open","path":"\\ud800"}'))
    assert lone["FDBROKER_PATH"] == ["\\ud800"]
