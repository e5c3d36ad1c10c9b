"""Unused uids and named users."""

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxed.confinement import identities
from sandboxed.confinement.identities import Identity, IdentityError, lookup, unused_uid

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a process of another uid")
ROOT = Path(__file__).parents[2]


def test_unused_uid_has_no_account_and_no_process() -> None:
    with unused_uid() as held:
        assert 61184 <= held.uid <= 65519
        assert held.gid == held.uid
        with pytest.raises(KeyError):
            pwd.getpwuid(held.uid)
        with pytest.raises(KeyError):
            grp.getgrgid(held.gid)
        assert held.uid not in set(map(owner_of, filter(str.isdigit, os.listdir("/proc"))))


def owner_of(process: str) -> int | None:
    try:
        return os.stat(f"/proc/{process}").st_uid
    except FileNotFoundError:
        return None


def leave_only(monkeypatch: pytest.MonkeyPatch, count: int) -> range:
    """Leave `count` free uids to choose from, and return them."""
    with unused_uid() as held:
        first = min(held.uid, identities.LAST_UNUSED_UID - count + 1)
    monkeypatch.setattr(identities, "FIRST_UNUSED_UID", first)
    monkeypatch.setattr(identities, "LAST_UNUSED_UID", first + count - 1)
    monkeypatch.setattr(identities, "_UID_COUNT", count)
    return range(first, first + count)


@pytest.fixture
def only_uid(monkeypatch: pytest.MonkeyPatch) -> int:
    return leave_only(monkeypatch, 1)[0]


def is_given_out() -> bool:
    try:
        unused_uid().close()
    except IdentityError:
        return False
    return True


def test_two_runs_never_share_a_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    uids = leave_only(monkeypatch, 2)
    with unused_uid() as one, unused_uid() as other:
        assert {one.uid, other.uid} == set(uids)
        with pytest.raises(IdentityError, match="in use or held"):
            unused_uid()
    assert is_given_out()


def test_uid_held_by_another_process_is_not_given_out(only_uid: int) -> None:
    program = (
        "import sys; from sandboxed.confinement import identities; "
        f"held = identities._try_to_hold({only_uid}); print(held.uid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == str(only_uid)
        assert not is_given_out()
        holder.communicate()
    assert is_given_out()


@NEEDS_ROOT
def test_uid_of_a_left_over_process_is_not_given_out(only_uid: int) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=only_uid) as left_over:
        assert not is_given_out()
        left_over.communicate()
    assert is_given_out()


@pytest.mark.parametrize("where", ["_account", "_group_exists"])
def test_uid_with_an_account_or_group_is_not_given_out(
    monkeypatch: pytest.MonkeyPatch, only_uid: int, where: str
) -> None:
    assert is_given_out()
    monkeypatch.setattr(identities, where, lambda number: True if number == only_uid else None)
    assert not is_given_out()


def test_uid_of_a_systemd_service_is_not_given_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, only_uid: int
) -> None:
    (tmp_path / str(only_uid)).touch()
    assert is_given_out()
    monkeypatch.setattr(identities, "_SYSTEMD_UIDS", str(tmp_path))
    assert not is_given_out()


def test_user_is_found_by_name_and_by_number() -> None:
    account = pwd.getpwnam("nobody")
    expected = Identity(account.pw_uid, account.pw_gid)
    assert lookup("nobody") == lookup(str(account.pw_uid)) == expected


def test_number_without_account_is_its_own_group() -> None:
    with unused_uid() as held:
        assert lookup(str(held.uid)) == Identity(held.uid, held.uid)


def test_number_of_a_group_without_account_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with unused_uid() as held:
        free = held.uid
    monkeypatch.setattr(identities, "_group_exists", lambda gid: True)
    with pytest.raises(IdentityError, match="somebody's group"):
        lookup(str(free))


@pytest.mark.parametrize("user", ["", "no-such-user", "-1", "4294967295", "1e3", "٣", "a\0b", "0x10"])
def test_unknown_user_is_refused(user: str) -> None:
    with pytest.raises(IdentityError, match="there is no user"):
        lookup(user)
