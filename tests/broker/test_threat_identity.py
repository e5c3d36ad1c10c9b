"""Who is asking: connections that are handed on, senders with two uids, and uids that have no number here."""

import array
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import DENIED, Hostile, call, opening, read_and_close, stopped
from support import FDBROKER, STRANGER, Broker, allow, as_uid, needs_root, policy

Start = Callable[..., Broker]

_OTHER = STRANGER - 1


@pytest.fixture
def mine(place: Path) -> Path:
    """A file that the rules give to one uid."""
    path = place / "mine"
    path.write_text("mine")
    path.chmod(0o600)
    return path


def only(uid: int, path: Path) -> str:
    return policy(allow("only", str(path), clients=f"{{uid: {uid}}}"))


@contextlib.contextmanager
def connected_by(uid: int, broker: Broker) -> Iterator[Hostile]:
    """A connection that a process of `uid` made and this process holds."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(broker.socket)
            socket.send_fds(theirs, [b"x"], [connection.fileno()])
        os._exit(0)
    theirs.close()
    with ours:
        _, control, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        os.waitpid(pid, 0)
    client = Hostile.__new__(Hostile)
    client.socket = socket.socket(fileno=array.array("i", control[0][2])[0])
    client.socket.settimeout(20)
    client._read = b""
    with client:
        yield client


# --- connections that are handed on ----------------------------------------------------------------------


@needs_root
def test_heir_gets_nothing_when_another_uid_made_the_connection(start_broker: Start, mine: Path) -> None:
    broker = start_broker(only(0, mine))
    with Hostile(broker) as client:
        assert client.content(opening(mine)) == "mine"

        def heir() -> bool:
            client.send(opening(mine))
            return client.is_hung_up_on()

        assert as_uid(STRANGER, heir)
    assert f"uid {STRANGER} wrote" in broker.records(event="malformed")[0]["reason"]


@needs_root
def test_heir_lends_no_rights_when_it_has_more_than_the_connector(start_broker: Start, mine: Path) -> None:
    """A privileged program that is made to write into a stranger's connection."""
    broker = start_broker(only(0, mine))
    with connected_by(STRANGER, broker) as client:
        client.send(opening(mine))
        assert client.is_hung_up_on()
    assert "uid 0 wrote" in broker.records(event="malformed")[0]["reason"]
    assert not broker.all_records(event="open")


@needs_root
@pytest.mark.parametrize("cut", [1, 30, -1])
def test_heir_cannot_finish_a_message_when_the_connector_began_it(
    start_broker: Start, mine: Path, cut: int
) -> None:
    broker = start_broker(only(0, mine))
    message = opening(mine)
    with Hostile(broker) as client:
        client.ask(call("Describe"))
        # Both parts lie in the socket when the worker looks: it must not read them as one.
        with stopped(broker.worker):
            client.send(message[:cut])
            as_uid(STRANGER, lambda: client.send(message[cut:]))
        assert client.is_hung_up_on()
    assert not broker.all_records(event="open")


@needs_root
def test_program_gets_nothing_when_it_dropped_its_rights_after_connecting(
    start_broker: Start, mine: Path
) -> None:
    broker = start_broker(only(0, mine))

    def connect_and_drop() -> bool:
        with Hostile(broker) as client:
            client.ask(call("Describe"))
            os.setresuid(STRANGER, STRANGER, STRANGER)
            client.send(opening(mine))
            return client.is_hung_up_on()

    assert as_uid(0, connect_and_drop)


@needs_root
def test_set_uid_program_counts_as_its_caller_when_it_writes_into_the_callers_connection(
    start_broker: Start, mine: Path
) -> None:
    broker = start_broker(only(0, mine))
    with connected_by(STRANGER, broker) as client:

        def set_uid_program() -> str:
            os.setresuid(STRANGER, 0, 0)
            return client.error(opening(mine))

        assert as_uid(0, set_uid_program) == DENIED


@needs_root
def test_set_uid_program_gets_nothing_when_it_connects_itself(start_broker: Start, mine: Path) -> None:
    """The kernel names its effective uid as the connector's and its real uid as the sender's: two people."""
    broker = start_broker(policy(allow("both", str(mine))))

    def set_uid_program() -> bool:
        os.setresuid(STRANGER, 0, 0)
        with Hostile(broker) as client:
            client.send(opening(mine))
            return client.is_hung_up_on()

    assert as_uid(0, set_uid_program)


@needs_root
def test_sender_cannot_claim_another_uid_when_it_sends_credentials(start_broker: Start, mine: Path) -> None:
    broker = start_broker(only(0, mine))

    def forge() -> str:
        with Hostile(broker) as client:
            claim = array.array("i", [os.getpid(), 0, 0]).tobytes()
            with contextlib.suppress(PermissionError):
                client.socket.sendmsg([opening(mine)], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, claim)])
                return "the kernel let it pass"
            return client.error(opening(mine))

    assert as_uid(STRANGER, forge) == DENIED


def test_heir_is_served_when_it_has_the_connectors_uid(start_broker: Start, mine: Path) -> None:
    broker = start_broker(only(os.geteuid(), mine))
    with Hostile(broker) as client:
        client.content(opening(mine))
        assert as_uid(os.geteuid(), lambda: client.content(opening(mine))) == "mine"
        assert client.content(opening(mine)) == "mine"


# --- who the kernel says that it is ----------------------------------------------------------------------


@needs_root
def test_clients_get_what_is_theirs_when_several_uids_ask_for_the_same(
    start_broker: Start, mine: Path
) -> None:
    """What is remembered of one identity's requests must be of no use to another."""
    broker = start_broker(only(STRANGER, mine))

    def ask() -> str:
        with Hostile(broker) as client:
            reply, fds = client.ask(opening(mine))
            return read_and_close(reply, fds) if fds else str(reply["error"])

    expected = {STRANGER: "mine", _OTHER: DENIED, 0: DENIED}
    for uid in (STRANGER, _OTHER, 0) * 2:
        assert as_uid(uid, ask) == expected[uid]


@needs_root
@pytest.mark.parametrize("count", [1, 255, 257, 5000])
def test_client_is_known_by_its_last_group_when_it_has_many(
    start_broker: Start, mine: Path, count: int
) -> None:
    groups = tuple(range(100_000, 100_000 + count))
    broker = start_broker(policy(allow("group", str(mine), clients=f"{{gid: {groups[-1]}}}")))

    def ask() -> str:
        with Hostile(broker) as client:
            reply, fds = client.ask(opening(mine))
            return read_and_close(reply, fds) if fds else str(reply["error"])

    assert as_uid(STRANGER, ask, groups) == "mine"
    assert as_uid(STRANGER, ask, groups[:-1]) == DENIED


# --- a broker in a user namespace ------------------------------------------------------------------------

_ANYONE = [
    "{uid: 0-4294967294}",
    "{uid: 65534}",
    "{user: nobody}",
    "{gid: 0-4294967294}",
    "any",
]


def in_namespace(*options: str) -> tuple[str, ...]:
    """`fdbroker` in a user namespace of its own."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--user", "true"], check=False).returncode
    ):
        pytest.skip("user namespaces are refused here")
    return ("unshare", "--user", *options, *FDBROKER)


def answer(broker: Broker, path: Path) -> str:
    with Hostile(broker) as client:
        reply, fds = client.ask(opening(path))
        return read_and_close(reply, fds) if fds else str(reply["error"])


@pytest.mark.parametrize("clients", _ANYONE)
def test_client_without_a_number_gets_nothing_when_the_namespace_maps_nobody(
    start_broker: Start, mine: Path, clients: str
) -> None:
    mine.chmod(0o644)
    broker = start_broker(policy(allow("anyone", str(mine), clients=clients)), in_namespace())
    assert answer(broker, mine) == DENIED
    assert broker.records(event="open")[0]["peer"]["uid"] == 65534


@needs_root
@pytest.mark.parametrize("clients", _ANYONE)
def test_client_without_a_number_gets_nothing_when_the_namespace_maps_others(
    start_broker: Start, mine: Path, clients: str
) -> None:
    broker = start_broker(
        policy(allow("anyone", str(mine), clients=clients)), in_namespace("--map-root-user")
    )
    assert as_uid(STRANGER, lambda: answer(broker, mine)) == DENIED
    assert as_uid(_OTHER, lambda: answer(broker, mine)) == DENIED


def test_client_with_a_number_is_served_when_the_namespace_maps_it(start_broker: Start, mine: Path) -> None:
    if os.geteuid() != 0:
        # An ordinary user's namespace has no number for root: who owns / there cannot be told, so nothing is trusted.
        with pytest.raises(AssertionError, match=r"/: belongs to uid \d+, expected root"):
            start_broker(only(0, mine), in_namespace("--map-root-user"))
        return
    broker = start_broker(only(0, mine), in_namespace("--map-root-user"))
    assert answer(broker, mine) == "mine"


@needs_root
def test_client_is_known_by_no_group_when_one_of_them_has_no_number(start_broker: Start, mine: Path) -> None:
    broker = start_broker(
        policy(allow("group", str(mine), clients="{gid: 0}")), in_namespace("--map-root-user")
    )

    def with_groups(*groups: int) -> Any:
        def ask() -> str:
            os.setgroups(groups)
            return answer(broker, mine)

        return as_uid(0, ask)

    assert with_groups(0) == "mine"
    assert with_groups(0, STRANGER) == DENIED


@needs_root
def test_deny_still_counts_when_the_client_has_no_number(start_broker: Start, mine: Path) -> None:
    """What a deny says of somebody may hold for anybody without a number: Check must not say yes either."""
    broker = start_broker(
        policy(
            allow("anyone", str(mine), clients="{socket: default}"),
            f"name: no, deny: all, clients: [{{uid: 7}}], paths: [{mine}]",
        ),
        in_namespace("--map-root-user"),
    )

    def check() -> bool:
        with Hostile(broker) as client:
            reply, _ = client.ask(call("Check", {"path": str(mine), "access": ["read"]}))
            return bool(reply["parameters"]["allowed"])

    assert as_uid(STRANGER, check) is False
    assert as_uid(0, check) is True
