"""Clients that attack the audit: forged fields, names that break lines, floods, a disk that is full."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hostile import BUSY, DENIED, Hostile, call, opening, stopped
from support import STRANGER, Broker, allow, as_uid, needs_root, policy, wait_until

from sandboxed.descriptors import close_all

Start = Callable[..., Broker]

_FORGED = '{"seq":1,"time":"2026-01-01T00:00:00.000000Z","event":"open","verdict":"allow"}'

NAMES = {
    "a line": f"/x\n{_FORGED}\n",
    "quotes": '/x","verdict":"allow","y":"',
    "a backslash at the end": "/x\\",
    "escapes of a terminal": "/x\x1b[2J\x1b]0;title\x07",
    "every control character": "/"
    + "".join(map(chr, range(1, 32)))
    + "\x7f"
    + "".join(map(chr, range(0x80, 0xA0))),
    "other line ends": "/x\u2028y\u2029z\x85\r\n\v\f",
    "right to left": "/x\u202egpj.exe",
    "beyond the basic plane": "/\U0001f600\U000e0001",
}


def lines_of(broker: Broker) -> list[dict[str, Any]]:
    """Every line of the audit; each must be one object with the next number, in printable ASCII."""
    data = broker.audit.read_bytes()
    assert data.endswith(b"\n")
    assert not re.search(rb"[^\n\x20-\x7e]", data)
    records = [json.loads(line) for line in data.splitlines()]
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    return records


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that denies everything."""
    broker = Broker(tmp_path_factory.mktemp("audit"), policy(allow("none", "/none")))
    try:
        yield broker
        broker.assert_unharmed()
        assert broker.stop() == 0
    finally:
        broker.kill()


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_client_breaks_no_line_when_its_path_holds_odd_characters(broker: Broker, name: str) -> None:
    with Hostile(broker) as client:
        assert client.error(opening(name)) == DENIED
        client.ask(call("Check", {"path": name, "access": ["read"]}))
    for event in ("open", "check"):
        record = broker.records(event=event, path=name)[0]
        assert (record["verdict"], record["peer"]["uid"]) == ("deny", os.geteuid())
    lines_of(broker)


def test_client_breaks_no_line_when_what_it_sends_is_quoted(broker: Broker) -> None:
    for sent in (
        b'{"method":"x","oneway":"\\n\\u001b"}\0',
        b"\x1b[2J\n" + _FORGED.encode() + b"\n",
        b"\xff\n\0",
    ):
        with Hostile(broker) as client:
            client.send(sent + b"\0")
            with suppress(AssertionError):
                client.receive()
    assert broker.records(event="malformed")
    lines_of(broker)


def test_client_breaks_no_line_when_its_program_has_an_odd_name(start_broker: Start, place: Path) -> None:
    broker = start_broker(policy(allow("none", "/none")))
    program = place / f'evil\n"{_FORGED.replace("/", "")}\udcff'
    shutil.copy(os.path.realpath(sys.executable), program)
    script = (
        f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({broker.socket!r});"
        f"s.send({opening('/x')!r}); s.recv(1)"
    )
    subprocess.run([program, "-I", "-S", "-c", script], check=True)
    shown = broker.records(event="open", path="/x")[0]["peer"]["exe"]
    assert shown == os.fsencode(program).decode("utf-8", "backslashreplace")
    lines_of(broker)


def test_client_breaks_no_line_when_the_object_has_a_name_that_is_not_utf8(
    start_broker: Start, place: Path
) -> None:
    """It cannot be asked for, but a link can lead there."""
    directory = os.fsencode(place) + b"/dir\xff\n\x1b"
    os.mkdir(directory)
    with open(directory + b"/file\xfe", "w") as file:
        file.write("content")
    os.symlink(directory + b"/file\xfe", place / "link")
    broker = start_broker(policy(allow("all", f"{place}/**"), allow("other", "/none")))
    with Hostile(broker) as client:
        assert client.content(opening(place / "link")) == "content"
    record = broker.records(event="open", verdict="allow")[0]
    assert record["path"] == str(place / "link")
    assert record["resolved"] == f"{place}/dir\\udcff\n\x1b/file\\udcfe"
    os.unlink(place / "link")
    os.symlink(directory + b"/missing\xfd", place / "link")
    with Hostile(broker) as client:
        assert client.error(opening(place / "link")) == DENIED
    assert "\\udcfd" in broker.records(event="open", verdict="deny")[0]["reason"]
    lines_of(broker)


def test_flood_of_refusals_is_counted_when_it_exceeds_the_rate(start_broker: Start) -> None:
    broker = start_broker(policy(allow("none", "/none")))
    asked = 4000
    batch = call("OpenMany", {"requests": [{"path": "/x", "access": ["read"]}] * 50})
    with Hostile(broker) as client:
        for _ in range(asked // 50):
            client.ask(batch)

    def accounted_for() -> bool:
        counted = sum(record["count"] for record in broker.all_records(event="refusals-not-written"))
        return counted + len(broker.all_records(event="open")) == asked

    wait_until(accounted_for, "every refusal to be written or counted")
    assert {record["uid"] for record in broker.records(event="refusals-not-written")} == {os.geteuid()}
    assert len(broker.all_records(event="open")) < asked / 2
    lines_of(broker)


def test_flood_of_garbage_is_counted_too_when_each_needs_a_connection(start_broker: Start) -> None:
    broker = start_broker(policy(allow("none", "/none")))
    asked = 1500
    for _ in range(asked):
        with Hostile(broker) as client:
            client.send(b"garbage\0")
            assert client.is_hung_up_on()

    def accounted_for() -> bool:
        counted = sum(record["count"] for record in broker.all_records(event="refusals-not-written"))
        return counted + len(broker.all_records(event="malformed")) == asked

    wait_until(accounted_for, "every hang-up to be written or counted")


@needs_root
def test_flood_of_one_uid_hides_no_refusal_of_another_when_it_is_counted(start_broker: Start) -> None:
    broker = start_broker(policy(allow("none", "/none")))

    def flood() -> None:
        with Hostile(broker) as client:
            for _ in range(40):
                client.ask(call("OpenMany", {"requests": [{"path": "/flood", "access": ["read"]}] * 50}))

    as_uid(STRANGER, flood)
    with Hostile(broker) as client:
        assert client.error(opening("/mine")) == DENIED
    assert len(broker.records(event="open", path="/mine")) == 1


# --- when the audit cannot be written --------------------------------------------------------------------


@contextmanager
def full_disk(broker: Broker) -> Iterator[None]:
    """The supervisor can write no byte more (EFBIG, where a full disk gives ENOSPC)."""
    _, hard = resource.prlimit(broker.supervisor, resource.RLIMIT_FSIZE)
    size = broker.audit.stat().st_size
    resource.prlimit(broker.supervisor, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(broker.supervisor, resource.RLIMIT_FSIZE, (hard, hard))


def ask_until_busy(client: Hostile, message: bytes) -> list[str]:
    """The grants that were given until Busy came."""
    grants = []
    for _ in range(10_000):
        reply, fds = client.ask(message)
        for fd in fds:
            os.close(fd)
        if reply.get("error") == BUSY:
            assert reply["parameters"] == {"limit": "audit"}
            return grants
        grants.append(reply["parameters"]["grant"])
    raise AssertionError("the broker opens without end though it cannot write its audit")


def test_opens_are_refused_when_the_audit_cannot_be_written_and_go_on_when_it_can(
    start_broker: Start, place: Path
) -> None:
    (place / "file").write_text("content")
    broker = start_broker(policy(allow("file", str(place / "file"))))
    with Hostile(broker) as client:
        with full_disk(broker):
            grants = ask_until_busy(client, opening(place / "file"))
            assert client.error(opening(place / "file")) == BUSY
            # What opens nothing and records nothing is answered.
            assert "peer" in client.ask(call("Describe"))[0]["parameters"]
        wait_until(lambda: client.ask(opening("/x"))[0]["error"] == DENIED, "the audit to be written again")
        assert client.content(opening(place / "file")) == "content"
    wait_until(lambda: len(broker.all_records(event="open", verdict="allow")) > len(grants), "the records")
    recorded = [record["grant"] for record in broker.all_records(event="open", verdict="allow")]
    assert set(grants) <= set(recorded)
    assert len(recorded) == len(set(recorded))
    lines_of(broker)


def test_client_cannot_end_the_broker_when_long_records_find_the_audit_full(
    start_broker: Start, place: Path
) -> None:
    """A record over PIPE_BUF bytes goes into a pipe in parts: it must neither be cut nor end the worker."""
    (place / "file").write_text("content")
    broker = start_broker(policy(allow("file", str(place / "file"))))
    long = opening("/" + "\x01" * 9000)
    with Hostile(broker) as client:
        with full_disk(broker):
            answers = [client.error(long) for _ in range(40)]
            assert answers[-1] == BUSY
            ask_until_busy(client, opening(place / "file"))
            ask_until_busy(client, opening(place / "file"))
        wait_until(lambda: client.ask(opening("/x"))[0]["error"] == DENIED, "the audit to be written again")
        assert client.content(opening(place / "file")) == "content"
    assert broker.stop() == 0  # all is written
    lines_of(broker)


def test_client_cannot_end_the_broker_when_nobody_takes_long_records(
    start_broker: Start, place: Path
) -> None:
    """The same while the supervisor stands still, as one does that writes to a disk which hangs."""
    (place / "file").write_text("content")
    broker = start_broker(policy(allow("file", str(place / "file"))))
    # Refusals would only be counted after a while; the records of one batch go into the pipe together.
    many = call("OpenMany", {"requests": [{"path": str(place / "file"), "access": ["read"]}] * 64})
    with Hostile(broker) as client, Hostile(broker) as other:
        client.ask(call("Describe"))
        other.ask(call("Describe"))
        with stopped(broker.supervisor):
            for _ in range(100):
                reply, fds = client.ask(many)
                close_all(fds)
            assert reply["error"] == BUSY
            ask_until_busy(other, opening(place / "file"))
        wait_until(lambda: other.ask(opening("/x"))[0]["error"] == DENIED, "the audit to be written again")
        assert other.content(opening(place / "file")) == "content"
    assert broker.stop() == 0  # all is written
    lines_of(broker)


_TO_DEV_FULL = """
import sys
from broker.main import main
sys.argv += ["--audit", "/dev/full"]
sys.exit(main())
"""


def test_broker_refuses_opens_when_its_audit_is_dev_full(place: Path) -> None:
    (place / "file").write_text("content")

    # Broker() names another file; of two options the last counts.
    program = (sys.executable, "-c", _TO_DEV_FULL)
    broker = Broker(place, policy(allow("file", str(place / "file"))), program)
    try:
        with Hostile(broker) as client:
            ask_until_busy(client, opening(place / "file"))
        broker.assert_unharmed()
        assert broker.stop() == 1  # records were lost at the end, and it says so
    finally:
        broker.kill()
