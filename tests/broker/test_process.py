"""Clients by unit, program and label: what is read of a process, and what a real broker makes of it."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from support import Broker, allow, as_uid, needs_root, policy

from broker import identity
from broker.identity import Accounts, IdentityReader
from broker.process import Process, known_exe, process_of, unit_in
from policy import Peer, Source, load
from sandboxed import Denied

Start = Callable[..., Broker]

_HIERARCHY = Path("/sys/fs/cgroup/systemd")
_EXE = os.path.realpath("/proc/self/exe")


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/web.service", "web.service"),
        ("0::/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("0::/system.slice/web.service/payload/x", "web.service"),
        ("0::/init.scope", "init.scope"),
        ("0::/_web.service", "web.service"),
        # A user's units lie below the one unit that the system manager knows of them.
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/logger.service", "user@1000.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/web.service", "user@1000.service"),
        ("0::/user.slice/user-1000.slice/session-2.scope/web.service", "session-2.scope"),
        # What is neither a slice nor a unit ends the search, as whatever made it may make units below it.
        ("0::/docker/0123/web.service", ""),
        ("0::/a.mine/system.slice/web.service", ""),
        ("0::/system.slice/web.service (deleted)", None),
        ("0::/", ""),
        ("0::/system.slice", ""),
        ("0::/../../web.service", None),
        ("0::/..", None),
        # systemd's own hierarchy counts before version 2, and no other one of version 1 does.
        ("2:memory:/db.service\n1:name=systemd:/system.slice/web.service\n0::/", "web.service"),
        ("1:name=systemd:/\n0::/system.slice/web.service", ""),
        ("2:memory:/web.service\n1:name=mine:/web.service", None),
        ("1:name=systemd:/a:b/web.service\n", ""),
        ("", None),
        ("nonsense", None),
    ],
)
def test_unit_is_the_first_name_on_the_path_that_is_no_slice(cgroups: str, unit: str | None) -> None:
    assert unit_in(cgroups) == unit


def connected(pid: int) -> Process:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return process_of(ours, pid, wants_unit=True)


def test_living_process_is_known_by_its_program_and_unit() -> None:
    assert connected(os.getpid()) == Process(_EXE, unit_in(Path("/proc/self/cgroup").read_text()))


def test_nothing_is_known_when_the_pid_is_nobodys() -> None:
    assert connected(0) == Process()


@pytest.mark.parametrize(("exe", "known"), [("/bin/a", "/bin/a"), ("/bin/a (deleted)", None), (None, None)])
def test_program_that_was_removed_is_not_known(exe: str | None, known: str | None) -> None:
    assert known_exe(Process(exe)) == known


def peer_by(clients: str) -> Peer:
    rules = load([Source("a.yaml", policy(f"name: no, deny: all, clients: [{clients}]"))])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return IdentityReader(Accounts(rules)).of_connection(ours, "default").peer


def test_facts_are_read_only_when_the_policy_asks_for_them() -> None:
    facts = [
        (peer.unit is None, peer.exe)
        for peer in map(peer_by, ("any", "{unit: a.service}", f"{{exe: {_EXE}}}"))
    ]
    has_hierarchy = unit_in(Path("/proc/self/cgroup").read_text()) is not None
    assert facts == [(True, None), (not has_hierarchy, None), (True, _EXE)]


def test_program_of_an_embedded_broker_has_none_of_these() -> None:
    rules = load(
        [Source("a.yaml", policy("name: no, deny: all, clients: [{unit: a.service, label: x, exe: /a}]"))]
    )
    peer = IdentityReader(Accounts(rules)).of_child(1, 1, (), os.getpid()).peer
    assert (peer.unit, peer.exe, peer.label) == (None, None, None)


# --- labels: most test machines have no security module that gives them ----------------------------------


class Labelled:
    """The kernel's answer, made up: this is what SO_PEERSEC gives under SELinux and AppArmor (unix(7))."""

    def __init__(self, answer: bytes | OSError) -> None:
        self._answer = answer

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.SOL_SOCKET, 31)
        if isinstance(self._answer, OSError):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (b"system_u:system_r:httpd_t:s0\0", "system_u:system_r:httpd_t:s0"),
        (b"/usr/sbin/cupsd (enforce)", "/usr/sbin/cupsd (enforce)"),
        (b"", None),
        (b"\0", None),
        (b"a\xff", "a\\xff"),
        (OSError(92, "Protocol not available"), None),
        (OSError(34, "Numerical result out of range"), None),
    ],
)
def test_label_is_the_one_that_the_kernel_gives(answer: bytes | OSError, label: str | None) -> None:
    assert identity._label(cast(socket.socket, Labelled(answer))) == label


def test_label_is_unknown_when_the_kernel_has_no_module_that_gives_one() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            ours.getsockopt(socket.SOL_SOCKET, 31, 1024)
        except OSError:
            assert peer_by("{label: x}").label is None
        else:
            pytest.skip("this kernel gives labels")


# --- a real broker ---------------------------------------------------------------------------------------


def is_given(broker: Broker) -> bool:
    with broker.client() as client:
        try:
            client.open_fd("/dev/zero", ["read"]).close()
        except Denied:
            return False
    return True


@contextlib.contextmanager
def unit(name: str) -> Iterator[Callable[[], None]]:
    """A cgroup of systemd's hierarchy; what it gives moves its caller there. systemd itself is not asked."""
    group = _HIERARCHY / name
    try:
        group.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no cgroup can be made in systemd's hierarchy: {error}")
    try:
        yield lambda: (group / "cgroup.procs").write_text("0") and None
    finally:
        while group != _HIERARCHY:
            group.rmdir()
            group = group.parent


@needs_root
@pytest.mark.parametrize(
    ("cgroup", "given"),
    [
        ("fdbroker-test.slice/web.service", True),
        ("fdbroker-test.slice/web.service/below", True),
        ("fdbroker-test.slice/user@1000.service/web.service", False),
        ("fdbroker-test.slice/xweb.service", False),
    ],
)
def test_client_is_known_by_its_unit_when_it_connects(start_broker: Start, cgroup: str, given: bool) -> None:
    rule = allow("zero", "/dev/zero", more="type: char", clients="{unit: web.service}")
    with unit(cgroup) as enter:
        broker = start_broker(policy(rule))

        def ask() -> bool:
            enter()
            return is_given(broker)

        assert as_uid(0, ask) is given
        assert not is_given(broker)


def test_client_is_known_by_its_program_and_user_together(start_broker: Start) -> None:
    more, uid = "type: char", os.geteuid()
    rules = [
        allow("zero", "/dev/zero", more=more, clients=f"{{exe: {exe}, uid: {uid}}}") for exe in (_EXE, "/x")
    ]
    assert is_given(start_broker(policy(rules[0])))


def test_client_is_denied_when_the_rule_names_another_program(start_broker: Start) -> None:
    clients = f"{{exe: /usr/bin/other, uid: {os.geteuid()}}}"
    assert not is_given(start_broker(policy(allow("zero", "/dev/zero", more="type: char", clients=clients))))


def test_client_without_a_label_gets_nothing_by_one_and_is_denied_by_any(start_broker: Start) -> None:
    by_label = allow("zero", "/dev/zero", more="type: char", clients="{label: web_t}")
    assert not is_given(start_broker(policy(by_label)))


def test_client_whose_label_is_unknown_is_denied_by_a_deny_of_any_label(start_broker: Start) -> None:
    if peer_by("{label: x}").label is not None:
        pytest.skip("this kernel gives labels")
    zero = allow("zero", "/dev/zero", more="type: char")
    assert not is_given(start_broker(policy(zero, "name: no, deny: all, clients: [{label: web_t}]")))
