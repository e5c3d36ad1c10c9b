"""Giving up privileges: what is left is an error, whatever the reason."""

import os
from collections.abc import Callable

import pytest

from sandboxed import syscalls
from sandboxed.confinement import privileges
from sandboxed.confinement.privileges import PrivilegeError

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have something to give up")
ORDINARY_UID = 65533

CLEAN = {
    "Uid": "1000\t1000\t1000\t1000",
    "Gid": "1000\t1000\t1000\t1000",
    "Groups": "",
    "CapInh": "0" * 16,
    "CapPrm": "0" * 16,
    "CapEff": "0" * 16,
    "CapBnd": "0" * 16,
    "CapAmb": "0" * 16,
    "NoNewPrivs": "1",
}


def answer_of_child(act: Callable[[], str]) -> str:
    """What `act` returns in a process of its own, or the PrivilegeError that it raises there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = act()
        except PrivilegeError as error:
            answer = f"PrivilegeError: {error}"
        except BaseException as error:
            answer = f"unexpected: {error!r}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


def left_over(changes: dict[str, str | None]) -> list[str]:
    changed = {**CLEAN, **changes}
    status = {name: value for name, value in changed.items() if value is not None}
    return list(privileges._left_over(status, 1000, 1000, may_limit_exec=True))


def test_clean_status_leaves_nothing() -> None:
    assert left_over({}) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, "0000000000000001") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")),
        ("NoNewPrivs", "0"),
        ("Groups", "27"),
        ("Uid", "1000\t1000\t0\t1000"),
        ("Uid", "1001\t1001\t1001\t1001"),
        ("Uid", "0\t0\t0\t0"),
        ("Gid", "1000\t1000\t1000\t0"),
        *((name, None) for name in CLEAN),
    ],
)
def test_whatever_is_left_or_missing_is_told(field: str, value: str | None) -> None:
    assert field in " ".join(left_over({field: value}))


def test_status_is_parsed_by_field() -> None:
    assert privileges.parse_status("Name:\ta:b\nGroups:\t \n") == {"Name": "a:b", "Groups": ""}


@NEEDS_ROOT
def test_root_drops_everything_and_cannot_come_back() -> None:
    def drop_and_try_to_return() -> str:
        os.setgroups([0, 27])
        privileges.drop(ORDINARY_UID, ORDINARY_UID)
        ways_back: tuple[Callable[[], None], ...] = (
            lambda: os.setuid(0),
            lambda: os.setgid(0),
            lambda: os.setgroups([0]),
        )
        for back in ways_back:
            with pytest.raises(PermissionError):
                back()
        return f"{os.getresuid()} {os.getgroups()} {syscalls.prctl(27):#x}"  # PR_GET_SECUREBITS

    ids = (ORDINARY_UID,) * 3
    assert answer_of_child(drop_and_try_to_return) == f"{ids} [] {privileges.SECUREBITS:#x}"
    assert privileges.SECUREBITS == 0xEF


@NEEDS_ROOT
@pytest.mark.parametrize("identity", [(None, None), (0, 0)])
def test_root_is_no_identity_of_a_confined_program(identity: tuple[int | None, int | None]) -> None:
    def drop() -> str:
        privileges.drop(*identity)
        return "confined as root"

    assert answer_of_child(drop).startswith("PrivilegeError: privileges are left")
    assert "uid 0" in answer_of_child(drop)


def drop_as_ordinary_user(uid: int | None) -> str:
    """What drop(uid, uid) comes to in a process of an ordinary user without capabilities."""

    def drop() -> str:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
            os.setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
        privileges.drop(uid, uid)
        return "dropped"

    return answer_of_child(drop)


def test_ordinary_user_drops_what_it_has() -> None:
    assert drop_as_ordinary_user(None) == "dropped"


def test_ordinary_user_cannot_become_another() -> None:
    assert drop_as_ordinary_user(1) == (
        "PrivilegeError: cannot become uid 1, gid 1: Operation not permitted (only root may)"
    )
