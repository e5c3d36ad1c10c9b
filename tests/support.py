"""What tests import: a real broker in a process of its own, and clients with other uids.

Every broker that a test starts is compared with itself: the fds of its supervisor and its worker must be
the same after the test as they were before the first client came.
"""

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from audit_schema import faults_of

import sandboxed

TREE = Path(__file__).resolve().parent.parent
SECONDS = 20
EVERYBODY = "{uid: 0-4294967294}"
FDBROKER = (sys.executable, "-m", "broker.main")

# A uid without an account, for clients of a broker that root runs.
STRANGER = 64999

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: another uid's clients, or devices of root's"
)


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until `condition` gives something true, and return that."""
    deadline = time.monotonic() + SECONDS
    turn = threading.Event()
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        turn.wait(0.005)
    raise AssertionError(f"waited in vain: {what}")


def fds_of(pid: int) -> list[str]:
    """What the fds of a process are, sorted. Sockets and pipes lose their numbers, and files of the process its own."""
    found = []
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:  # an ordinary user's worker is not dumpable: root's tests look for leaks
        return []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{pid}/fd/{name}").replace(f"/proc/{pid}/", "/proc/self/")
            found.append(target.split("[")[0] if target.startswith(("socket:", "pipe:")) else target)
    return sorted(found)


def children_of(pid: int) -> list[int]:
    """The pids of a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Broker:
    """A broker that runs: `fdbroker serve` as its users start it."""

    def __init__(
        self, place: Path, policy: str, program: Sequence[str] = FDBROKER, options: Sequence[str] = ()
    ) -> None:
        """Start it in `place`; `program` stands for the command `fdbroker`, `options` are more for `serve`."""
        self.socket = str(place / "broker.sock")
        self.audit = place / "audit.jsonl"
        self._checked = 0  # records that were held against the schema
        self.policy = place / "test.yaml"
        self.policy.write_text(policy)
        self.process = subprocess.Popen(
            [
                *program,
                "serve",
                "--policy",
                str(self.policy),
                "--socket",
                self.socket,
                "--audit",
                str(self.audit),
                *options,
            ],
            cwd=TREE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        if "serving at" not in self.said:
            self.said += self.process.stderr.read()
            self.kill()
            raise AssertionError(self.said)
        self.supervisor = self.process.pid
        self.same_processes = True
        self.worker = wait_until(lambda: children_of(self.supervisor), "the worker")[0]
        self.admin = children_of(self.supervisor)[1:]  # the process that serves the admin socket
        # Once answered, the worker has all the fds that it keeps. When the second client is answered, the first
        # one's connection is closed; its own, which supervisor and worker both hold, is taken off.
        with self.client() as client:
            client.describe()
        with self.client() as client:
            client.describe()
            self.fds_before = self.settled_fds()
            for fds in filter(None, self.fds_before):
                fds.remove("socket:")

    def client(self, **arguments: Any) -> sandboxed.Client:
        """A client of this broker."""
        return sandboxed.connect(self.socket, **arguments)

    def settled_fds(self) -> list[list[str]]:
        """The fds of supervisor and worker, once several looks in a row agree."""

        def look() -> list[list[str]] | None:
            first = [fds_of(self.supervisor), fds_of(self.worker)]
            for _ in range(4):
                threading.Event().wait(0.01)
                if first != [fds_of(self.supervisor), fds_of(self.worker)]:
                    return None
            return first

        found: list[list[str]] = wait_until(look, "the fds to settle")
        return found

    def records(self, **wanted: Any) -> list[dict[str, Any]]:
        """The audit's records whose fields have these values, once there is one at least."""
        return list(wait_until(lambda: self.all_records(**wanted), f"an audit record with {wanted}"))

    def all_records(self, **wanted: Any) -> list[dict[str, Any]]:
        """The audit's records so far whose fields have these values."""
        text = self.audit.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()  # the last may still be on its way
        records = [json.loads(line) for line in lines]
        for record in records[self._checked :]:
            assert faults_of(record) == [], record
        self._checked = len(records)
        return [one for one in records if all(one.get(name) == value for name, value in wanted.items())]

    def assert_unharmed(self) -> None:
        """The broker answers, its processes are the same unless it may change them, and so are their fds."""
        with self.client() as client:
            client.describe()
        assert self.process.poll() is None
        if not self.same_processes:
            wait_until(lambda: len(self.workers()) == 1, "one worker to be left")
            (self.worker,) = self.workers()
        assert self.workers() == [self.worker]
        wait_until(
            lambda: self.settled_fds() == self.fds_before,
            f"the broker's fds to be what they were: {self.fds_before}, now {self.settled_fds()}",
        )

    def workers(self) -> list[int]:
        """The pids of the workers that there are."""
        return [pid for pid in children_of(self.supervisor) if pid not in self.admin]

    def stop(self) -> int:
        """End it as systemd would; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        """End it whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        if self.process.stderr is not None:
            self.process.stderr.close()


def policy(*rules: str, head: str = "") -> str:
    """The text of a policy of these rules, in YAML's flow style."""
    return "version: 1\n" + head + "rules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules)


def allow(
    name: str, path: str, rights: str = "read", more: str = "type: file", clients: str = EVERYBODY
) -> str:
    """One rule in flow style."""
    return f"name: {name}, clients: [{clients}], allow: [{rights}], {more}, paths: [{json.dumps(path)}]"


def as_uid(uid: int, function: Callable[[], Any], groups: tuple[int, ...] = ()) -> Any:
    """What `function` returns (as JSON) in a child that is `uid`. Raises AssertionError with its traceback."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            if uid != os.geteuid():
                os.setgroups(groups)
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            os.write(writer, json.dumps(function()).encode())
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    try:
        answer = b"".join(iter(lambda: os.read(reader, 65536), b""))
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    assert status == 0, answer.decode()
    return json.loads(answer)


def readable(fd: int, seconds: float = SECONDS) -> bool:
    """Whether `fd` can be read within `seconds`."""
    return bool(select.select([fd], [], [], seconds)[0])


def is_device(path: str) -> bool:
    """Whether this machine has the device node `path`."""
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False
