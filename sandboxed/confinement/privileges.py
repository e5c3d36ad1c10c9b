"""Giving up every privilege, or all but those that are named, for ever, and proving it.

Rules that this module enforces:
- drop(): nothing stays: no capability in any set, no supplementary group, no way back by exec (no_new_privs).
- drop(): uid 0 is refused: root owns the files that confinement is to keep away, with capabilities or without.
- reduce(): the named capabilities and groups stay, in the permitted and effective sets of this process alone.
- What the kernel says in /proc/self/status afterwards decides. Anything left is `PrivilegeError`.

An ordinary user has no CAP_SETPCAP: the bounding set and the securebits then stay as they are. Both
only limit what exec may hand out, and no_new_privs already makes exec hand out nothing. An ordinary user
cannot give up groups either; they are the user's own and add nothing that the user did not have.

Out of scope: other threads. Capabilities and no_new_privs belong to the calling thread, so call this in a
process that has only one, such as a child right after fork.

This module needs python-prctl, which is why nothing that a client imports may import it.
See capabilities(7), prctl(2).
"""

import os
from collections.abc import Collection, Iterable

import prctl

from sandboxed import syscalls

# linux/prctl.h and linux/securebits.h; python-prctl refuses to set the last two bits
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_SECBIT_NO_CAP_AMBIENT_RAISE = 1 << 6
_SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED = 1 << 7

# All of them locked. KEEP_CAPS is locked in its cleared state: capabilities do not survive a change of uid.
SECUREBITS: int = (
    prctl.SECBIT_NOROOT
    | prctl.SECBIT_NOROOT_LOCKED
    | prctl.SECBIT_NO_SETUID_FIXUP
    | prctl.SECBIT_NO_SETUID_FIXUP_LOCKED
    | prctl.SECBIT_KEEP_CAPS_LOCKED
    | _SECBIT_NO_CAP_AMBIENT_RAISE
    | _SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED
)

_EMPTY = "0" * 16
_ALWAYS_EMPTY = ("CapInh", "CapPrm", "CapEff", "CapAmb")


class PrivilegeError(RuntimeError):
    """A privilege could not be given up, or is still there."""


def drop(uid: int | None, gid: int | None) -> None:
    """Become `uid` and `gid` with no groups and no privilege; None for both keeps the caller's own ids.

    Raises PrivilegeError. The process is then in an undefined state between the two: it must exit.
    """
    try:
        may_limit_exec = bool(prctl.cap_effective.setpcap)
        if may_limit_exec:
            _limit_exec()
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
        if uid is not None and gid is not None:
            _become(uid, gid)
        prctl.set_caps((prctl.ALL_CAPS, prctl.ALL_FLAGS, False))
        prctl.set_no_new_privs(1)
    except OSError as error:
        raise PrivilegeError(f"cannot give up privileges: {error}") from error
    _verify(uid, gid, may_limit_exec)


def change_ids(uid: int | None, gid: int | None) -> None:
    """Become `uid` and `gid` with no groups, and leave it at that: for a sandbox without the layer of capabilities.

    Raises PrivilegeError.
    """
    if uid is not None and gid is not None:
        _become(uid, gid)
    syscalls.prctl(_PR_SET_NO_NEW_PRIVS, 1)


def reduce(
    uid: int | None, gid: int | None, groups: Collection[int] | None, capabilities: Collection[int]
) -> None:
    """Become `uid` and `gid` with these groups and capabilities, and nothing else; None for both keeps the ids.

    Groups change only where CAP_SETGID is there, and not for None; `capabilities` are numbers of linux/capability.h,
    which the caller must have. No program that is run later gets any of them. Raises PrivilegeError, as drop().
    """
    may_limit_exec = bool(prctl.cap_effective.setpcap)
    may_set_groups = bool(prctl.cap_effective.setgid)
    try:
        if may_limit_exec:
            _limit_exec()  # with NO_SETUID_FIXUP: a change of uid takes no capability
        else:
            prctl.set_keepcaps(1)
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
        if may_set_groups and groups is not None:
            os.setgroups(sorted(groups))
        if uid is not None and gid is not None:
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        kept = tuple(capabilities)
        rest = [one for one in prctl.ALL_CAPS if one not in kept]
        prctl.set_caps(
            (kept, (prctl.CAP_PERMITTED, prctl.CAP_EFFECTIVE), True),
            (kept, prctl.CAP_INHERITABLE, False),
            (rest, prctl.ALL_FLAGS, False),
        )
        if not may_limit_exec:
            prctl.set_keepcaps(0)
        prctl.set_no_new_privs(1)
    except OSError as error:
        raise PrivilegeError(f"cannot give up privileges: {error}") from error
    status = _own_status()
    left = list(_not_reduced(status, uid, gid, groups if may_set_groups else None, capabilities))
    if may_limit_exec and (status.get("CapBnd") != _EMPTY or prctl.get_securebits() != SECUREBITS):
        left.append(f"CapBnd {status.get('CapBnd')}, securebits {prctl.get_securebits():#x}")
    if left:
        raise PrivilegeError(f"privileges are not those that should be left: {', '.join(left)}")


def _not_reduced(
    status: dict[str, str],
    uid: int | None,
    gid: int | None,
    groups: Collection[int] | None,
    capabilities: Collection[int],
) -> Iterable[str]:
    """What of a process's status differs from what reduce() was to leave. A field that is missing differs."""
    mask = f"{sum(1 << one for one in set(capabilities)):016x}"
    for name, wanted in (("CapInh", _EMPTY), ("CapAmb", _EMPTY), ("CapPrm", mask), ("CapEff", mask)):
        if status.get(name) != wanted:
            yield f"{name} {status.get(name)}"
    if status.get("NoNewPrivs") != "1":
        yield f"NoNewPrivs {status.get('NoNewPrivs')}"
    if groups is not None and status.get("Groups", "?").split() != [str(one) for one in sorted(set(groups))]:
        yield f"Groups {status.get('Groups')}"
    yield from _wrong_ids("Uid", status, uid)
    yield from _wrong_ids("Gid", status, gid)


def _limit_exec() -> None:
    """Empty the bounding set and set the securebits, so that no exec gives a capability, to uid 0 either."""
    # The kernel's own count: it may know capabilities that the library does not, and the other way round.
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for capability in range(last + 1):
        prctl.capbset_drop(capability)
    syscalls.prctl(_PR_SET_SECUREBITS, SECUREBITS)


def _become(uid: int, gid: int) -> None:
    """Groups first, then gid, then uid: each needs a capability that the last one may take away."""
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        identity = f"uid {uid}, gid {gid}"
        raise PrivilegeError(f"cannot become {identity}: {error.strerror} (only root may)") from error


def parse_status(text: str) -> dict[str, str]:
    """The fields of /proc/PID/status; see proc_pid_status(5)."""
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in lines}


def _own_status() -> dict[str, str]:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        return parse_status(file.read())


def _verify(uid: int | None, gid: int | None, may_limit_exec: bool) -> None:
    status = _own_status()
    left = list(_left_over(status, uid, gid, may_limit_exec))
    if may_limit_exec and prctl.get_securebits() != SECUREBITS:
        left.append(f"securebits {prctl.get_securebits():#x}")
    if left:
        raise PrivilegeError(f"privileges are left after giving up all: {', '.join(left)}")


def _left_over(
    status: dict[str, str], uid: int | None, gid: int | None, may_limit_exec: bool
) -> Iterable[str]:
    """What of a process's status is still a privilege. A field that is missing counts as left."""
    empty = (*_ALWAYS_EMPTY, "CapBnd") if may_limit_exec else _ALWAYS_EMPTY
    for name in empty:
        if status.get(name) != _EMPTY:
            yield f"{name} {status.get(name)}"
    if status.get("NoNewPrivs") != "1":
        yield f"NoNewPrivs {status.get('NoNewPrivs')}"
    if uid is not None and status.get("Groups") != "":
        yield f"Groups {status.get('Groups')}"
    yield from _wrong_ids("Uid", status, uid)
    yield from _wrong_ids("Gid", status, gid)
    if "0" in status.get("Uid", "0").split():
        yield "uid 0, which owns the system's files (name an ordinary user)"


def _wrong_ids(name: str, status: dict[str, str], expected: int | None) -> Iterable[str]:
    """The real, effective, saved and file system id have to be one, and the expected one."""
    ids = status.get(name, "").split()
    if len(ids) != 4 or len(set(ids)) != 1 or (expected is not None and ids[0] != str(expected)):
        yield f"{name} {' '.join(ids)}"
