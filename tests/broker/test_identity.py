"""Who is asking: the facts that the kernel and the account database give about real connections."""

import os
import pwd
import socket
from pathlib import Path

import pytest
from support import STRANGER, as_uid, needs_root

from broker.identity import Accounts, IdentityReader
from broker.introduction import Introduction
from policy import Peer, Policy, Source, load


def policy_of(text: str) -> Policy:
    return load([Source("test.yaml", "version: 1\nrules:\n" + text)])


NAMES = policy_of("  - {name: a, clients: [{user: root}, {group: daemon}], allow: [read], paths: [/a]}\n")


def introduced(place: Path, policy: Policy, uid: int, groups: tuple[int, ...] = ()) -> Introduction:
    """What the broker learns of a client with this identity, which has ended by then."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "s"))
        os.chmod(place / "s", 0o666)
        listener.listen()

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(place / "s"))

        as_uid(uid, connect, groups)
        connection, _ = listener.accept()
        with connection:
            return IdentityReader(Accounts(policy)).of_connection(connection, "default")


def test_client_that_ended_before_it_was_accepted_is_known_all_the_same(place: Path) -> None:
    found = introduced(place, NAMES, os.geteuid())
    assert (found.uid, found.peer.uid) == (os.geteuid(), os.geteuid())
    assert os.getegid() in (found.peer.gids or ())
    assert "exe" not in found.shown  # its pid may be somebody else's by now


def test_living_client_is_shown_with_what_it_runs() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = IdentityReader(Accounts(NAMES)).of_connection(ours, "gpu")
    assert found.shown["exe"] == os.path.realpath("/proc/self/exe")
    assert found.shown["pid"] == os.getpid()
    assert found.peer.socket == "gpu"


@needs_root
def test_supplementary_groups_are_the_kernels(place: Path) -> None:
    found = introduced(place, NAMES, STRANGER, (1, 4, 4_000_000))
    assert found.peer.gids == {STRANGER, 1, 4, 4_000_000}
    assert found.peer.group_names == {"daemon"}
    assert found.peer.user_names == frozenset()


@needs_root
def test_client_with_very_many_groups_is_known(place: Path) -> None:
    groups = tuple(range(70_000, 70_000 + 3_000))  # more than fits into what CPython reads of an option
    found = introduced(place, NAMES, STRANGER, groups)
    assert found.peer.gids == {STRANGER, *groups}


@pytest.mark.parametrize(("uid", "known"), [(0, True), (STRANGER, False)])
def test_any_means_uids_that_have_an_account(uid: int, known: bool) -> None:
    policy = policy_of("  - {name: a, clients: any, allow: [read], paths: [/a]}\n")
    assert IdentityReader(Accounts(policy)).peer(uid, frozenset(), "default").has_account is known


def test_account_database_is_asked_for_groups_when_a_deny_narrows_by_them() -> None:
    deny = policy_of("  - {name: a, deny: all, clients: [{group: root}], paths: [/a]}\n")
    root = pwd.getpwnam("root")
    peer = IdentityReader(Accounts(deny)).peer(root.pw_uid, frozenset(), "default")
    assert root.pw_gid in (peer.account_gids or ())
    assert peer.account_group_names == {"root"}  # although the kernel says that it has none


def test_name_without_an_account_is_looked_up_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account database is the one thing that is not real here: a test makes no accounts."""
    now = [0.0]
    policy = policy_of("  - {name: a, clients: [{user: later}], allow: [read], paths: [/a]}\n")
    accounts = Accounts(policy, clock=lambda: now[0])
    assert accounts.users(STRANGER) == frozenset()
    entry = pwd.struct_passwd(("later", "x", STRANGER, STRANGER, "", "/", "/bin/false"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry)
    assert accounts.users(STRANGER) == frozenset()  # not within the same second
    now[0] = 2.0
    assert accounts.users(STRANGER) == {"later"}


# --- what variables in paths stand for -------------------------------------------------------------------

VARIABLES = policy_of("  - {name: a, clients: any, allow: [read], paths: ['${home}/x', '/srv/${user}']}\n")


def peer_of(uid: int) -> Peer:
    reader = IdentityReader(Accounts(VARIABLES))
    try:
        return reader.peer(uid, frozenset(), "default")
    finally:
        reader.close()


def peer_with_home(monkeypatch: pytest.MonkeyPatch, home: str, uid: int, name: str = "mia") -> Peer:
    """The account is the one thing that is not real here: a test makes no accounts."""
    entry = pwd.struct_passwd((name, "x", uid, uid, "", home, "/bin/false"))
    monkeypatch.setattr(pwd, "getpwuid", lambda number: entry)
    return peer_of(uid)


def test_account_is_not_asked_for_name_and_home_when_no_path_holds_a_variable() -> None:
    peer = IdentityReader(Accounts(NAMES)).peer(0, frozenset(), "default")
    assert (peer.account_name, peer.home) == (None, None)


def test_peer_without_an_account_has_no_name_and_no_home() -> None:
    peer = peer_of(STRANGER)
    assert (peer.account_name, peer.home) == (None, None)


def test_home_is_known_when_it_is_a_directory_of_that_uid(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    peer = peer_with_home(monkeypatch, str(place), os.geteuid())
    assert (peer.account_name, peer.home) == ("mia", str(place))


def test_home_is_unknown_when_it_is_anothers_or_no_directory_or_there_is_a_link(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    (place / "home").mkdir()
    (place / "file").touch()
    (place / "link").symlink_to(place)
    own = os.geteuid()
    homes = ["file", "link", "link/home", "missing", "home/", "./home", "home/../home"]
    for home in [f"{place}/{home}" for home in homes] + ["", "home", "/proc/self/root/tmp", "/proc/self/fd"]:
        assert peer_with_home(monkeypatch, home, own).home is None, home
    assert peer_with_home(monkeypatch, f"{place}/home", own + 1).home is None
    assert peer_with_home(monkeypatch, f"{place}/home", own).home is not None


def test_name_that_is_no_text_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peer_with_home(monkeypatch, "/", os.geteuid(), "mi\udcff").account_name is None
