"""The admin socket and the commands that use it, on a broker that runs."""

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import SECONDS, TREE, Broker, allow, needs_root, policy, wait_until

from broker.admin_client import AdminClient, NoBroker, Refused
from broker.metrics import BOUNDS, Metrics

Start = Callable[..., Broker]
COMMAND = [sys.executable, "-m", "broker.main"]


@pytest.fixture
def broker(start_broker: Start, place: Path) -> Broker:
    for name in ("one", "two"):
        (place / name).write_text(name)
    return start_broker(
        policy(allow("a", f"{place}/one")), options=["--admin-socket", str(place / "admin.sock")]
    )


@pytest.fixture
def admin(broker: Broker, place: Path) -> Iterator[AdminClient]:
    with AdminClient(str(place / "admin.sock")) as client:
        yield client


def run(place: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command, *rest = map(str, words)
    return subprocess.run(
        [*COMMAND, command, "--admin-socket", str(place / "admin.sock"), *rest],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def opened(broker: Broker, path: Path) -> Any:
    """A client that holds a grant, with the fd."""
    client = broker.client()
    return client, client.open_fd(str(path), ["read"])


def test_status_tells_what_is_served_and_held(broker: Broker, place: Path) -> None:
    client, fd = opened(broker, place / "one")
    with client, fd:
        status = json.loads(run(place, "status", "--json").stdout)
    assert (status["rules"], status["connections"], status["grants"], status["restarts"]) == (1, 1, 1, 0)
    assert status["sockets"] == [broker.socket]
    assert [one["pid"] for one in status["workers"]] == [broker.worker]
    assert status["drift"] == "" and status["audit_failing"] is False
    assert isinstance(status["confinement"]["uid"], int)
    shown = run(place, "status")
    assert shown.returncode == 0 and status["policy"] in shown.stdout
    assert f"uid {status['confinement']['uid']}" in shown.stdout


def test_status_tells_that_the_files_changed_since(broker: Broker, place: Path) -> None:
    before = run(place, "status").stdout
    assert "DRIFT" not in before
    broker.policy.write_text(policy(allow("b", f"{place}/two")))
    assert "DRIFT" in run(place, "status").stdout
    broker.policy.write_text("version: 2\n")
    assert "do not load" in run(place, "status").stdout


def test_reload_takes_a_good_policy_and_tells_what_is_wrong_with_a_bad_one(
    broker: Broker, place: Path
) -> None:
    broker.same_processes = False
    broker.policy.write_text(policy(allow("b", f"{place}/two"), allow("c", f"{place}/three")))
    good = run(place, "reload")
    assert (good.returncode, good.stdout.rstrip().endswith("2 rules")) == (0, True), good
    with broker.client() as client:
        client.open_fd(str(place / "two"), ["read"]).close()
    broker.policy.write_text(policy("name: r, allow: read"))
    bad = run(place, "reload")
    assert bad.returncode == 1 and ".yaml:3:" in bad.stderr, bad
    assert json.loads(run(place, "status", "--json").stdout)["rules"] == 2


def test_grants_are_listed_until_they_end(broker: Broker, place: Path) -> None:
    client, fd = opened(broker, place / "one")
    with client:
        (grant,) = json.loads(run(place, "grants", "--json").stdout)["grants"]
        assert (grant["grant"], grant["path"]) == (fd.grant, f"{place}/one")
        assert fd.grant in run(place, "grants", "--uid", os.getuid()).stdout
        assert run(place, "grants", "--uid", os.getuid() + 1).stdout == ""
        client.release(fd)
        wait_until(lambda: broker.all_records(event="release"), "the release")
        assert run(place, "grants").stdout == ""
        client.open_fd(str(place / "one"), ["read"]).close()
        assert run(place, "grants").stdout != ""
    wait_until(lambda: run(place, "grants").stdout == "", "the grants of who left to end")


def test_grants_are_known_when_the_worker_was_replaced(broker: Broker, place: Path) -> None:
    broker.same_processes = False
    client, fd = opened(broker, place / "one")
    with client, fd:
        assert run(place, "reload").returncode == 0
        assert fd.grant in run(place, "grants").stdout


def test_revoke_ends_a_grant_and_says_that_the_descriptor_lives_on(broker: Broker, place: Path) -> None:
    client, fd = opened(broker, place / "one")
    with client, fd:
        ran = run(place, "revoke", fd.grant)
        assert ran.returncode == 0 and "lives on" in ran.stdout
        assert run(place, "grants").stdout == ""
        (record,) = broker.records(event="revoke")
        assert (record["grant"], record["fd"]) == (fd.grant, "lives on")
        again = run(place, "revoke", fd.grant)
        assert again.returncode == 1 and "fdbroker grants" in again.stderr
        refused = run(place, "revoke", fd.grant, "--block", "1h")
        assert refused.returncode == 2 and "--policy" in refused.stderr
        assert run(place, "revoke", fd.grant, "--block", "soon").returncode == 2


def test_watch_shows_what_happens_and_filters_it(broker: Broker, place: Path) -> None:
    command = [*COMMAND, "watch", "--admin-socket", str(place / "admin.sock"), "--json", "--verdict", "deny"]
    with AdminClient(str(place / "admin.sock")) as client:
        seen = client.watch()
        assert next(seen)["record"]["event"] == "monitor"
        with subprocess.Popen(command, cwd=TREE, stdout=subprocess.PIPE, text=True) as watching:
            try:
                with broker.client() as asking:
                    asking.open_fd(str(place / "one"), ["read"]).close()
                    record = next(seen)["record"]
                    assert (record["event"], record["path"], record["verdict"]) == (
                        "open",
                        f"{place}/one",
                        "allow",
                    )
                    assert record["seq"] >= 1

                    def refused() -> str | None:
                        with pytest.raises(PermissionError):
                            asking.open_fd(str(place / "two"), ["read"])
                        assert watching.stdout is not None
                        ready, _, _ = select.select([watching.stdout], [], [], 0.1)
                        return watching.stdout.readline() if ready else None

                    line = wait_until(refused, "the command to show a refusal")
                watching.send_signal(signal.SIGINT)
                assert watching.wait(SECONDS) == 0
            finally:
                watching.kill()
            assert json.loads(line)["path"] == f"{place}/two"


def test_metrics_count_decisions(broker: Broker, place: Path) -> None:
    with broker.client() as client:
        for _ in range(3):
            client.open_fd(str(place / "one"), ["read"]).close()
        with pytest.raises(PermissionError):
            client.open_fd(str(place / "two"), ["read"])

    def text() -> str | None:
        shown = run(place, "status", "--metrics").stdout
        return shown if 'verdict="deny"' in shown else None

    shown = wait_until(text, "the counts")
    assert 'fdbroker_decisions_total{verdict="allow",rule="test/a"} 3' in shown
    assert 'fdbroker_decisions_total{verdict="deny",rule=""} 1' in shown
    assert "fdbroker_open_seconds_count 4" in shown
    assert shown.endswith("# EOF\n")


def test_metrics_count_by_no_more_rules_than_they_may_and_take_any_bytes() -> None:
    metrics = Metrics()
    metrics.note(b'{"event":"open","verdict":"allow","rule":"a/r%d","us":%d}' % (n, n) for n in range(1_500))
    metrics.note([b"", b"\xff\xfe", b'{"event":"open"', b'{"event":"check","verdict":"allow"}'])
    assert len(metrics.decisions) == 1_001
    assert sum(metrics.decisions.values()) == 1_500
    text = metrics.text({}, {})
    counts = [int(line.split()[-1]) for line in text.splitlines() if "_bucket" in line]
    assert len(counts) == len(BOUNDS) + 1 and counts == sorted(counts) and counts[-1] == 1_500


def test_socket_is_for_root_alone_unless_a_group_is_named(broker: Broker, place: Path) -> None:
    status = os.stat(place / "admin.sock")
    assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_uid == os.getuid()


@needs_root
def test_stranger_is_told_that_the_socket_is_not_for_it(broker: Broker, place: Path) -> None:
    ran = subprocess.run(
        ["setpriv", "--reuid", "61333", "--clear-groups", *COMMAND, "status"],
        cwd=TREE, capture_output=True, text=True,
        env={**os.environ, "FDBROKER_ADMIN_SOCKET": str(place / "admin.sock")},
    )  # fmt: skip
    assert ran.returncode == 3 and "--admin-group" in ran.stderr


def test_commands_tell_that_no_broker_answers(place: Path) -> None:
    for words in (("status",), ("grants",), ("reload",), ("revoke", "g1"), ("watch",)):
        ran = run(place, *words)
        assert ran.returncode == 3 and "no broker answers" in ran.stderr, words


@pytest.mark.parametrize(
    "message",
    [
        b"\0",
        b"{}\0",
        b"[]\0",
        b"x\0",
        b'{"method":1}\0',
        b'{"method":"a.B","parameters":[[[[\0',
        b"x" * 200_000,
    ],
)
def test_who_sends_no_varlink_loses_the_connection_and_nobody_else_anything(
    broker: Broker, place: Path, message: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as hostile:
        hostile.settimeout(SECONDS)
        hostile.connect(str(place / "admin.sock"))
        try:
            hostile.sendall(message)
            assert hostile.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert run(place, "status").returncode == 0


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("Nothing", {}, "MethodNotFound"),
        ("Status", {"x": "y"}, "InvalidParameter"),
        ("Revoke", {}, "InvalidParameter"),
        ("Revoke", {"grant": 1}, "InvalidParameter"),
        ("Revoke", {"grant": "g" * 5000}, "NoSuchGrant"),
        ("Monitor", {}, "ExpectedMore"),
    ],
)
def test_wrong_call_is_told_by_the_names_of_varlink(
    admin: AdminClient, method: str, parameters: dict[str, Any], error: str
) -> None:
    with pytest.raises(Refused) as told:
        admin.call(method, **parameters)
    assert told.value.name == error


def test_interface_is_described(broker: Broker, place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(place / "admin.sock"))
        call = {
            "method": "org.varlink.service.GetInterfaceDescription",
            "parameters": {"interface": "org.fdbroker.Admin"},
        }
        connection.sendall(json.dumps(call).encode() + b"\0")
        reply = b""
        while not reply.endswith(b"\0"):
            reply += connection.recv(65536)
    assert "method Reload()" in json.loads(reply[:-1])["parameters"]["description"]


def test_slow_spectator_keeps_nobody_waiting(broker: Broker, place: Path) -> None:
    """It never reads; the broker decides on, and another one who watches is shown what it missed as a number."""
    with socket.socket(socket.AF_UNIX) as idle, broker.client() as client:
        idle.connect(str(place / "admin.sock"))
        idle.sendall(b'{"method":"org.fdbroker.Admin.Monitor","more":true}\0')
        for _ in range(3_000):
            client.open_fd(str(place / "one"), ["read"]).close()
        assert run(place, "status").returncode == 0
    assert len(broker.records(event="open")) >= 1


def test_broker_serves_on_when_the_admin_process_is_killed(broker: Broker, place: Path) -> None:
    (admin,) = broker.admin
    os.kill(admin, signal.SIGKILL)
    with broker.client() as client:
        client.open_fd(str(place / "one"), ["read"]).close()
    wait_until(lambda: not (place / "admin.sock").exists(), "its socket to go")
    with pytest.raises(NoBroker):
        AdminClient(str(place / "admin.sock"))
    broker.fds_before = broker.settled_fds()  # what was for the admin process is gone
