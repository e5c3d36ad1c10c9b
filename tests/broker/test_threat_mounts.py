"""Objects that keep whoever opens them waiting: a dead FUSE mount, a FIFO, a lease. Nobody else waits.

The FUSE mount is made by hand and never answered: the worst that a server can do.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile import (
    BUSY,
    DENIED,
    OPEN_FAILED,
    Hostile,
    call,
    comes_to_rest,
    opening,
    state_of,
    stopped,
)
from support import STRANGER, Broker, allow, as_uid, children_of, needs_root, policy, wait_until

Start = Callable[..., Broker]

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2

_QUICK = """
import sys, broker.helpers
broker.helpers.HELPER_SECONDS = 0.3
from broker.main import main
sys.exit(main())
"""
# `fdbroker` with a deadline that a test can wait for.
QUICK = (sys.executable, "-c", _QUICK)

_FUSE_LOOKUP, _FUSE_GETATTR, _FUSE_INIT = 1, 3, 26


class DeadMount:
    """A FUSE mount whose server is this object, and says nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _libc.mount(b"dead", os.fsencode(path), b"fuse", 0, options.encode()) != 0:
            number = ctypes.get_errno()
            os.close(self._device)
            raise OSError(number, f"mount({path}): {os.strerror(number)}")

    def requests(self) -> list[int]:
        """The codes of what the kernel has asked since the last look."""
        codes = []
        with contextlib.suppress(BlockingIOError):
            while True:
                codes.append(int.from_bytes(os.read(self._device, 1 << 17)[4:8], sys.byteorder))
        return codes

    def close(self) -> None:
        """Whoever waits gets ENOTCONN."""
        os.close(self._device)
        _libc.umount2(os.fsencode(self.path), _MNT_DETACH)


@pytest.fixture
def dead(place: Path) -> Iterator[DeadMount]:
    """A dead mount at dead/."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this kernel has no FUSE")
    (place / "dead").mkdir()
    mount = DeadMount(place / "dead")
    try:
        yield mount
    finally:
        mount.close()


def rules(place: Path) -> str:
    (place / "file").write_text("content")
    return policy(
        allow("dead", f"{place}/dead/**"),
        allow("file", str(place / "file")),
        allow("link", str(place / "link")),
    )


def is_served(broker: Broker, place: Path) -> None:
    with Hostile(broker) as other:
        assert other.content(opening(place / "file")) == "content"


@needs_root
def test_dead_mount_delays_nobody_else_when_one_client_asks_for_it(
    start_broker: Start, place: Path, dead: DeadMount
) -> None:
    broker = start_broker(rules(place), QUICK)
    with Hostile(broker) as client:
        client.send(opening(place / "dead/x"))
        wait_until(lambda: children_of(broker.worker), "the helper")
        is_served(broker, place)
        reply, fds = client.receive()
        assert (reply["error"], reply["parameters"]["name"], fds) == (OPEN_FAILED, "ETIMEDOUT", [])
        # The connection is as good as before.
        assert client.content(opening(place / "file")) == "content"
    wait_until(lambda: not children_of(broker.worker), "the killed helper to be gone, not a zombie")


@needs_root
def test_dead_mount_is_given_up_when_the_default_deadline_comes(
    start_broker: Start, place: Path, dead: DeadMount
) -> None:
    broker = start_broker(rules(place))
    with Hostile(broker) as client:
        reply, _ = client.ask(opening(place / "dead/x"))
        assert reply["parameters"]["name"] == "ETIMEDOUT"
    wait_until(lambda: not children_of(broker.worker), "the helper to be gone")


@needs_root
def test_dead_mount_costs_one_uid_its_share_of_helpers_when_it_asks_often(
    start_broker: Start, place: Path, dead: DeadMount
) -> None:
    broker = start_broker(rules(place))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Hostile(broker)) for _ in range(4)]
        for client in clients:
            client.send(opening(place / "dead/x"))
        wait_until(lambda: len(children_of(broker.worker)) == 4, "four helpers")
        with Hostile(broker) as fifth:
            assert fifth.error(opening(place / "dead/x")) == BUSY

        def another_uid() -> bool:
            with Hostile(broker) as stranger:
                stranger.send(opening(place / "dead/x"))
                wait_until(lambda: len(children_of(broker.worker)) == 5, "a helper for another uid")
                return True

        assert as_uid(STRANGER, another_uid)
        is_served(broker, place)


@needs_root
def test_client_leaves_no_helper_behind_when_it_dies_while_one_runs(
    start_broker: Start, place: Path, dead: DeadMount
) -> None:
    broker = start_broker(rules(place), QUICK)
    many = call(
        "OpenMany",
        {
            "requests": [
                {"path": f"{place}/{name}", "access": ["read"]} for name in ("file", "dead/x", "file")
            ]
        },
    )
    for message in (opening(place / "dead/x"), many):
        with Hostile(broker) as client:
            client.send(message)
            wait_until(lambda: children_of(broker.worker), "the helper")
        wait_until(lambda: not children_of(broker.worker), "the helper to be gone")
    is_served(broker, place)


@needs_root
def test_batch_goes_on_when_one_of_its_paths_is_on_a_dead_mount(
    start_broker: Start, place: Path, dead: DeadMount
) -> None:
    broker = start_broker(rules(place), QUICK)
    requests = [
        {"path": f"{place}/{name}", "access": ["read"]} for name in ("file", "dead/x", "file", "dead/y")
    ]
    with Hostile(broker) as client:
        reply, fds = client.ask(call("OpenMany", {"requests": requests}))
        assert [result.get("errno") for result in reply["parameters"]["results"]] == [
            None,
            errno.ETIMEDOUT,
            None,
            errno.ETIMEDOUT,
        ]
        assert [os.read(fd, 10) for fd in fds] == [b"content"] * 2
        for fd in fds:
            os.close(fd)


@needs_root
def test_dead_mount_is_not_touched_when_a_link_leads_there(
    start_broker: Start, place: Path, dead: DeadMount
) -> None:
    broker = start_broker(rules(place), QUICK)
    (place / "link").symlink_to(place / "dead/x")
    dead.requests()
    with Hostile(broker) as client:
        client.send(opening(place / "link"))
        is_served(broker, place)
        assert client.receive()[0]["error"] in (DENIED, OPEN_FAILED)


@needs_root
def test_dead_mount_is_not_touched_when_no_rule_names_it(
    start_broker: Start, place: Path, dead: DeadMount
) -> None:
    (place / "file").write_text("content")
    broker = start_broker(policy(allow("file", str(place / "file"))))
    wait_until(lambda: _FUSE_INIT in dead.requests(), "the mount's first request")
    with Hostile(broker) as client:
        assert client.error(opening(place / "dead/x")) == DENIED
        assert client.error(opening(place / "dead")) == DENIED
    assert dead.requests() == []


@needs_root
def test_dead_mount_is_not_touched_when_clients_check_and_describe(
    start_broker: Start, place: Path, dead: DeadMount
) -> None:
    broker = start_broker(rules(place))
    wait_until(lambda: _FUSE_INIT in dead.requests(), "the mount's first request")
    with Hostile(broker) as client:
        reply, _ = client.ask(call("Check", {"path": f"{place}/dead/x", "access": ["read"]}))
        assert reply["parameters"] == {"allowed": True}
        assert client.ask(call("Describe"))[0]["parameters"]["resources"]
        assert not children_of(broker.worker)
    assert dead.requests() == []


@needs_root
def test_dead_mount_is_met_by_a_helper_when_it_is_made_while_the_broker_runs(
    start_broker: Start, place: Path
) -> None:
    broker = start_broker(rules(place), QUICK)
    (place / "dead").mkdir()
    (place / "dead/x").write_text("x")
    with Hostile(broker) as client:
        assert client.content(opening(place / "dead/x")) == "x"
        mount = DeadMount(place / "dead")
        try:
            client.send(opening(place / "dead/x"))
            is_served(broker, place)
            assert client.receive()[0]["parameters"]["name"] == "ETIMEDOUT"
        finally:
            mount.close()
        assert client.content(opening(place / "dead/x")) == "x"


@needs_root
def test_dead_mount_is_met_by_a_helper_when_a_known_object_is_mounted_over(start_broker: Start) -> None:
    """Below directories that root alone can change, what was opened before is opened by its name at once."""
    place = Path("/run/fdbroker-test-known")
    place.mkdir(mode=0o755)
    broker = None
    try:
        (place / "file").write_text("content")
        (place / "dead").mkdir()
        (place / "dead/x").write_text("x")
        (place / "dead/x").chmod(0o644)
        broker = start_broker(rules(place), QUICK)
        with Hostile(broker) as client:
            for _ in range(2):
                assert client.content(opening(place / "dead/x")) == "x"
            mount = DeadMount(place / "dead")
            try:
                client.send(opening(place / "dead/x"))
                is_served(broker, place)
                assert client.receive()[0]["parameters"]["name"] == "ETIMEDOUT"
            finally:
                mount.close()
    finally:
        shutil.rmtree(place)


@needs_root
def test_client_is_served_when_its_connection_gets_the_number_of_a_dead_one(
    start_broker: Start, place: Path, dead: DeadMount
) -> None:
    """In one round of events a helper's end closes a connection, and the next client gets its number.

    The event that was waiting for the dead one is not the next client's.
    """
    broker = start_broker(rules(place))
    for _ in range(3):
        with Hostile(broker) as first:
            first.send(opening(place / "dead/x"))
            helper = wait_until(lambda: children_of(broker.worker), "the helper")[0]
            with stopped(broker.worker):
                os.kill(helper, signal.SIGKILL)
                wait_until(functools.partial(is_zombie, helper), "the helper's end")
                second = Hostile(broker)
                comes_to_rest(broker.supervisor)  # it has introduced the second client
                first.socket.close()
            with second:
                assert second.content(opening(place / "file")) == "content"


def is_zombie(pid: int) -> bool:
    return state_of(pid) == "Z"


def test_fifo_delays_nobody_when_it_has_no_other_end(start_broker: Start, place: Path) -> None:
    os.mkfifo(place / "fifo")
    (place / "file").write_text("content")
    broker = start_broker(
        policy(
            allow("fifo", str(place / "fifo"), "read, write", "type: fifo"),
            allow("file", str(place / "file")),
        )
    )
    with Hostile(broker) as client:
        reply, fds = client.ask(opening(place / "fifo"))
        assert len(fds) == 1, reply
        # The client's fd blocks, as one of its own would; to see that it reads nothing yet, do not read.
        assert os.get_blocking(fds[0])
        os.close(fds[0])
        reply, _ = client.ask(opening(place / "fifo", ["write"]))
        assert reply["parameters"]["name"] == "ENXIO"
        is_served(broker, place)


def test_fifo_is_refused_when_the_rule_gives_files(start_broker: Start, place: Path) -> None:
    os.mkfifo(place / "fifo")
    broker = start_broker(policy(allow("all", f"{place}/**", "use")))
    with Hostile(broker) as client:
        assert client.error(opening(place / "fifo")) == DENIED


def test_read_lease_delays_nobody_when_a_client_holds_one(start_broker: Start, place: Path) -> None:
    (place / "file").write_text("content")
    (place / "leased").write_text("leased")
    broker = start_broker(policy(allow("all", f"{place}/*", "read, write")))
    fd = os.open(place / "leased", os.O_RDONLY)
    try:
        previous = signal.signal(signal.SIGIO, signal.SIG_IGN)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        with Hostile(broker) as client:
            reply, fds = client.ask(opening(place / "leased", ["write"]))
            assert (reply["error"], reply["parameters"]["name"], fds) == (OPEN_FAILED, "EAGAIN", [])
            # Reading breaks no read lease.
            assert client.content(opening(place / "leased")) == "leased"
            is_served(broker, place)
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, previous)


def test_client_gets_a_blocking_fd_when_it_asks_for_no_other(start_broker: Start, place: Path) -> None:
    (place / "file").write_text("content")
    broker = start_broker(policy(allow("all", f"{place}/*")))
    with Hostile(broker) as client:
        for flags, blocking in (([], True), (["nonblock"], False)):
            _, fds = client.ask(opening(place / "file", flags=flags))
            assert os.get_blocking(fds[0]) is blocking
            os.close(fds[0])
