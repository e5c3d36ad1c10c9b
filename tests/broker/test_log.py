"""`fdbroker log`: which records it shows, and how; files that are rotated, compressed, broken or made to deceive."""

import contextlib
import gzip
import json
import os
import pty
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import DENIED, Hostile, opening
from support import FDBROKER, SECONDS, TREE, Broker, allow, policy, readable, wait_until

from broker.auditlines import followed, record_of

PEER = {"uid": 1042, "gid": 1042, "pid": 7, "socket": "default"}
OTHER = {**PEER, "uid": 1043}
RECORDS: list[dict[str, Any]] = [
    {"event": "open", "peer": PEER, "path": "/dev/kvm", "access": ["read", "write"], "verdict": "allow",
     "resolved": "/dev/kvm", "rights": ["read", "write"], "rule": "30-site/kvm", "at": "30-site.yaml:12", "grant": "g1",
     "us": 20},
    {"event": "open", "peer": OTHER, "path": "/link", "access": ["read"], "verdict": "deny", "resolved": "/dev/mem",
     "reason": "no rule gives read", "us": 20},
    {"event": "check", "peer": OTHER, "path": "/dev/kvm", "access": ["read"], "verdict": "deny", "rule": "40-x/no",
     "at": "40-x.yaml:1", "reason": "denied by 40-x/no"},
    {"event": "open", "peer": PEER, "path": "/dev/hwrng", "access": ["read"], "verdict": "failed", "errno": "EIO",
     "reason": "Input/output error", "rule": "30-site/rng", "at": "30-site.yaml:20", "us": 20},
    {"event": "release", "peer": PEER, "path": "/dev/kvm", "grant": "g1"},
    {"event": "refusals-not-written", "uid": 1043, "count": 17},
    {"event": "reopened"},
]  # fmt: skip


def lines_of(records: list[dict[str, Any]], first: int = 1) -> bytes:
    """The records as the supervisor writes them, one a minute from 09:00 on."""
    return b"".join(
        b'{"seq":%d,"time":"2026-11-23T09:%02d:07.510889Z",%b\n'
        % (number, number - 1, json.dumps(record, separators=(",", ":")).encode()[1:])
        for number, record in enumerate(records, first)
    )


@pytest.fixture
def audit(place: Path) -> Path:
    path = place / "audit.jsonl"
    path.write_bytes(lines_of(RECORDS))
    return path


def log(*arguments: Any, **more: Any) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "FDBROKER_AUDIT"}
    return subprocess.run(
        [*FDBROKER, "log", *map(str, arguments)],
        **{
            "cwd": TREE,
            "capture_output": True,
            "text": True,
            "timeout": SECONDS,
            "env": {**environment, **more.pop("env", {})},
            **more,
        },
    )


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), [1, 2, 3, 4, 5, 6, 7]),
        (("--uid", 1043), [2, 3, 6]),
        (("--user", "1042"), [1, 4, 5]),
        (("--uid", 1042, "--uid", 1043), [1, 2, 3, 4, 5, 6]),
        (("--path", "/dev/kvm"), [1, 3, 5]),
        (("--path", "/dev/*"), [1, 2, 3, 4, 5]),
        (("--path", "/link"), [2]),
        (("--verdict", "deny"), [2, 3]),
        (("--verdict", "deny", "--verdict", "failed"), [2, 3, 4]),
        (("--rule", "kvm"), [1]),
        (("--rule", "30-site/rng"), [4]),
        (("--event", "check"), [3]),
        (("--grant", "g1"), [1, 5]),
        (("--since", "2026-11-23T09:05Z"), [6, 7]),
        (("--until", "2026-11-23T10:01+01:00"), [1]),
        (("--since", "2026-11-23T09:01:07Z", "--until", "2026-11-23T09:02:08Z"), [2, 3]),
        (("--since", "1h"), []),
        (("--until", "1s"), [1, 2, 3, 4, 5, 6, 7]),
        (("--uid", 1043, "--event", "open", "--verdict", "deny", "--path", "/dev/mem"), [2]),
        (("--uid", 1042, "--verdict", "deny"), []),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_log_shows_what_all_options_choose(audit: Path, arguments: tuple[Any, ...], shown: list[int]) -> None:
    if "1h" in arguments:
        os.utime(audit)
    ran = log("--json", *arguments, audit)
    every = audit.read_text().splitlines()
    assert ran.stdout.splitlines() == [every[number - 1] for number in shown]
    assert (ran.returncode, ran.stderr) == (0 if shown else 1, "")


def test_table_says_who_what_and_why(audit: Path) -> None:
    rows = log(audit).stdout.splitlines()
    assert len(rows) == len(RECORDS)
    assert rows[0].split() == [
        "2026-11-23T09:00:07.510Z", "allow", "1042", "read+write", "/dev/kvm", "rule", "30-site/kvm",
        "(30-site.yaml:12),", "grant", "g1",
    ]  # fmt: skip
    assert "/link -> /dev/mem" in rows[1] and "no rule gives read" in rows[1]
    assert "deny (check)" in rows[2]
    assert "EIO, Input/output error" in rows[3]
    assert "refusals-not-written" in rows[5] and "1043" in rows[5] and "count 17" in rows[5]
    assert "\x1b" not in "".join(rows)


def test_table_names_users_that_have_names(place: Path) -> None:
    me = pwd.getpwuid(0).pw_name
    (place / "a").write_bytes(lines_of([{**RECORDS[0], "peer": {**PEER, "uid": 0}}]))
    assert f"  {me}(0)  " in log("--user", me, place / "a").stdout


def test_nothing_that_a_terminal_obeys_is_shown_when_names_hold_it(place: Path) -> None:
    path = "/x\x1b[2J\n\x07\u202e\x9b\udc80"
    odd = {
        **RECORDS[1],
        "path": path,
        "resolved": path,
        "rule": path,
        "reason": path,
        "peer": {**PEER, "uid": path},
    }
    (place / "a").write_bytes(lines_of([odd, {**odd, "event": path}]))
    ran = log(place / "a")
    assert len(ran.stdout.splitlines()) == 2
    assert ran.stdout.replace("\n", "").isprintable() and "\\x1b[2J\\n" in ran.stdout
    # As they are, they are ASCII; a stranger's file may have other lines.
    (place / "a").write_bytes(b'{"event":"open","path":"/\xc2\x9b31m"}\n')
    ran = log("--json", place / "a")
    assert ran.stdout == '{"event":"open","path":"/\\u009b31m"}\n'


def test_lines_that_are_no_records_are_told_and_passed_over(place: Path) -> None:
    good = lines_of(RECORDS[:1])
    broken = [
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b'{"event":1}\n',
        b"\xff\n",
        b"[" * 90_000 + b"\n",
        b"x" * 3_000_000 + b"\n",
    ]
    (place / "a").write_bytes(good + b"".join(broken) + good + good[:-20])
    ran = log("--json", place / "a")
    assert (ran.returncode, ran.stdout) == (0, good.decode() * 2)
    told = ran.stderr.splitlines()
    assert told == [
        f"fdbroker log: {place}/a:{number}: no record, passed over" for number in (3, 4, 5, 6, 7, 8, 10)
    ]
    (place / "a").write_bytes(b"x\n" * 100)
    ran = log(place / "a")
    assert ran.returncode == 1 and "80 more lines are no records" in ran.stderr
    assert len(ran.stderr.splitlines()) == 21


@pytest.mark.parametrize(
    "field", ["event", "peer", "path", "access", "verdict", "resolved", "rule", "reason", "grant"]
)
def test_log_goes_on_when_a_value_is_of_an_odd_type(place: Path, field: str) -> None:
    odd = [
        {**RECORDS[0], field: value} for value in (1, None, [], {"a": [1]}, ["x"], 1e400, True, "x" * 70_000)
    ]
    (place / "a").write_bytes(lines_of([*odd, RECORDS[0]]).replace(b"Infinity", b"1e400"))
    for options in (
        (),
        ("--user", "0", "--user", "1042", "--path", "/**"),
        ("--rule", "kvm", "--grant", "g1"),
    ):
        ran = log(*options, place / "a")
        assert "Traceback" not in ran.stderr and ran.returncode == 0
        assert "/dev/kvm" in ran.stdout.splitlines()[-1]


def test_number_and_time_are_the_supervisors_when_a_worker_says_others() -> None:
    line = b'{"seq":7,"time":"2026-11-23T09:00:07.510889Z","event":"open","seq":1,"\\u0074ime":"2000-01-01T00:00Z"}\n'
    record = record_of(line)
    assert record is not None and (record["seq"], record["time"]) == (7, "2026-11-23T09:00:07.510889Z")


def test_log_reads_compressed_files_and_standard_input(place: Path, audit: Path) -> None:
    (place / "a.2.gz").write_bytes(gzip.compress(lines_of(RECORDS[:2])))
    (place / "a.1").write_bytes(lines_of(RECORDS[2:4], 3))
    ran = log("--json", place / "a.2.gz", place / "a.1")
    assert [json.loads(line)["seq"] for line in ran.stdout.splitlines()] == [1, 2, 3, 4]
    with open(place / "a.2.gz", "rb") as compressed:
        assert len(log("-", stdin=compressed).stdout.splitlines()) == 2
    assert log("-", input=audit.read_text()).stdout == log(audit).stdout


def test_log_says_what_it_cannot_read_and_shows_the_rest(place: Path, audit: Path) -> None:
    ran = log(place / "nothing", place, audit)
    assert ran.returncode == 2
    assert len(ran.stdout.splitlines()) == len(RECORDS)
    assert [line.partition("cannot be read: ")[2] for line in ran.stderr.splitlines()] == [
        "No such file or directory",
        "Is a directory",
    ]
    (place / "cut.gz").write_bytes(gzip.compress(lines_of(RECORDS * 50))[:-30])
    (place / "no.gz").write_bytes(b"\x1f\x8bnonsense" * 10)
    for name in ("cut.gz", "no.gz"):
        ran = log(place / name)
        assert ran.returncode == 2 and "cannot be read" in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "FDBROKER_AUDIT"),
        (("--follow", "a", "b"), "one FILE"),
        (("--user", "nobody-of-that-name", "a"), "no user"),
        (("--path", "dev", "a"), "--path"),
        (("--path", "${home}/x", "a"), "variable"),
        (("--since", "yesterday", "a"), "--since"),
        (("--until", "2026-11-23", "a"), "--until"),
        (("--verdict", "perhaps", "a"), "invalid choice"),
    ],
)
def test_log_refuses_what_it_cannot_do(arguments: tuple[str, ...], said: str) -> None:
    ran = log(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "") and said in ran.stderr


def test_log_reads_the_file_that_the_environment_names(audit: Path) -> None:
    assert log(env={"FDBROKER_AUDIT": str(audit)}).stdout == log(audit).stdout


def test_log_ends_quietly_when_its_reader_has_seen_enough(place: Path) -> None:
    (place / "a").write_bytes(lines_of(RECORDS[:1]) * 20_000)
    with subprocess.Popen(
        [*FDBROKER, "log", place / "a"], cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ran:
        assert ran.stdout is not None and ran.stderr is not None
        ran.stdout.read(10)
        ran.stdout.close()
        assert ran.wait(SECONDS) == 0
        assert ran.stderr.read() == b""


def test_log_fails_when_its_output_is_full(audit: Path) -> None:
    with open("/dev/full", "wb") as full:
        ran = log(audit, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert ran.returncode == 2 and "standard output cannot be written: No space left" in ran.stderr


def test_colours_are_for_terminals_alone(audit: Path) -> None:
    for environment, coloured in (({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)):
        ours, theirs = pty.openpty()
        try:
            assert log(audit, stdout=theirs, capture_output=False, env=environment).returncode == 0
            shown = b""
            while shown.count(b"\n") < len(RECORDS):
                assert readable(ours)
                shown += os.read(ours, 65536)
            assert (b"\x1b[31mdeny" in shown) is coloured
        finally:
            os.close(ours)
            os.close(theirs)


def test_memory_does_not_grow_with_the_file(place: Path) -> None:
    def most_memory(count: int) -> int:
        (place / "a").write_bytes(lines_of(RECORDS[:1]) * count)
        pid = os.spawnv(
            os.P_NOWAIT,
            sys.executable,
            [sys.executable, "-c", _QUIETLY, str(TREE), "log", "--rule", "none", str(place / "a")],
        )
        _, status, usage = os.wait4(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 1
        return usage.ru_maxrss

    assert most_memory(100_000) < most_memory(100) + 4096  # KiB; the file has 25 MB


_QUIETLY = "import sys; sys.path.insert(0, sys.argv.pop(1)); from broker.main import main; sys.exit(main())"


# --- following -------------------------------------------------------------------------------------------


class Following:
    """`fdbroker log --follow --json`, and what it has said."""

    def __init__(self, *arguments: Any) -> None:
        self.process = subprocess.Popen(
            [*FDBROKER, "log", "--follow", "--json", *map(str, arguments)], cwd=TREE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._said = b""

    def numbers(self) -> list[int]:
        assert self.process.stdout is not None
        self._said += self.process.stdout.read() or b""
        return [json.loads(line)["seq"] for line in self._said.splitlines()]

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def following() -> Iterator[Any]:
    started: list[Following] = []

    def start(*arguments: Any) -> Following:
        started.append(Following(*arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        assert one.process.stdout is not None
        one.process.stdout.close()


def test_follower_sees_every_record_once_when_the_broker_rotates_its_file(
    place: Path, following: Any
) -> None:
    (place / "file").write_text("content")
    broker = Broker(place, policy(allow("file", str(place / "file"))))
    try:
        with Hostile(broker) as client:
            assert client.error(opening("/x")) == DENIED
            broker.records(event="open")
            shown = following(broker.audit)
            wait_until(lambda: shown.numbers() == [1, 2], "the worker's record, and that of the refusal")
            for turn in range(3):
                for _ in range(20):
                    assert client.content(opening(place / "file")) == "content"
                broker.audit.rename(place / f"old.{turn}")
                # As logrotate's `create` does: it is there before the broker goes on in it.
                broker.audit.touch(mode=0o600)
                for _ in range(20):
                    assert client.content(opening(place / "file")) == "content"
                os.kill(broker.supervisor, signal.SIGUSR1)
                last = 2 + 41 * (turn + 1)
                wait_until(lambda last=last: shown.numbers() == list(range(1, last + 1)), "every record")
        assert broker.stop() == 0
        assert shown.end() == 0
    finally:
        broker.kill()


def test_follower_goes_on_when_a_file_is_cut_or_away_for_a_while(place: Path, following: Any) -> None:
    audit = place / "a"
    audit.write_bytes(lines_of(RECORDS[:3]))
    shown = following("--event", "open", audit)
    wait_until(lambda: shown.numbers() == [1, 2], "what was there")
    os.truncate(audit, 0)
    with open(audit, "ab", buffering=0) as file:
        line = lines_of(RECORDS[:1], 4)
        file.write(line[:30])
        wait_until(lambda: shown.numbers() == [1, 2], "nothing of half a line")
        file.write(line[30:])
        wait_until(lambda: shown.numbers() == [1, 2, 4], "the whole line")
    audit.rename(place / "b")
    (place / "new").write_bytes(lines_of(RECORDS[:2], 5))
    (place / "new").rename(audit)
    wait_until(lambda: shown.numbers() == [1, 2, 4, 5, 6], "the other file")
    assert shown.end() == 0


def test_follower_tells_that_there_was_nothing(place: Path, following: Any) -> None:
    (place / "a").touch()
    shown = following(place / "a")
    # It has begun when it waits for the first time.
    wait_until(lambda: f"{place}/a" in _files_of(shown.process.pid), "it to open the file")
    assert shown.end() == 1


def _files_of(pid: int) -> list[str]:
    """What is open in a process that may be starting: what it closes meanwhile is left out."""
    files = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            files.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return files


def test_follower_holds_no_more_of_an_endless_line_than_of_a_record(place: Path) -> None:
    path = place / "a"
    path.write_bytes(b"x" * 2_000_000 + b"\n" + lines_of(RECORDS[:1]))
    lines = followed(str(path), pause=lambda seconds: None)
    number, piece = next(lines)
    assert number == 1 and len(piece) < 1_000_000
    assert next(lines) == (2, lines_of(RECORDS[:1]))
    assert next(lines) == (0, b"")
    lines.close()
