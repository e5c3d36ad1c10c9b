"""Which uid a confined program runs as, when root starts it.

Rules that this module enforces:
- An unused uid has no account, no group of its number, and no process, and is held against every other
  run for as long as its `HeldUid` lives. Nothing is left behind: it is held by the name of a socket.
- A named user is looked up in the account database; its supplementary groups are never used.
- A number without an account is a user only if no group has that number either: it becomes the gid too.

Out of scope: a local user may occupy the names of the sockets and so keep root from finding a uid, but not
make two runs share one. Abstract socket names belong to a network namespace: runs of different ones see
each other by their processes only. Whether the caller may change its uid is the kernel's to say.
"""

import grp
import os
import pwd
import socket
from types import TracebackType
from typing import NamedTuple

# The range from which systemd takes uids for services with DynamicUser=, so no account should be in it.
FIRST_UNUSED_UID = 61184
LAST_UNUSED_UID = 65519
_UID_COUNT = LAST_UNUSED_UID - FIRST_UNUSED_UID + 1

# Where systemd keeps a file for each uid of a running service, also where nss-systemd is not installed.
_SYSTEMD_UIDS = "/run/systemd/dynamic-uid"

# Bytes of a process's status, read at once where its groups are few.
_STATUS_BYTES = 16 * 1024

# (uid_t) -1 means "leave it" to setresuid(2).
_LARGEST_ID = 2**32 - 2


class IdentityError(LookupError):
    """There is no such user, or no uid that is free."""


class Identity(NamedTuple):
    """Who a confined program runs as."""

    uid: int
    gid: int


class HeldUid:
    """A uid that no other run gets before this is closed. The gid of the same number goes with it."""

    def __init__(self, uid: int, holder: socket.socket) -> None:
        self.uid = uid
        self.gid = uid
        self._holder = holder

    def close(self) -> None:
        """Let other runs have the uid, once no process has it any more."""
        self._holder.close()

    def __enter__(self) -> "HeldUid":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def unused_uid() -> HeldUid:
    """A uid of systemd's DynamicUser range that nothing uses, held. Raises IdentityError if there is none."""
    if not _is_mapped(FIRST_UNUSED_UID) or not _is_mapped(LAST_UNUSED_UID):
        raise IdentityError(
            f"this user namespace has no uids from {FIRST_UNUSED_UID} to {LAST_UNUSED_UID}, so root cannot become one: "
            "give the container a range of uids, or start this as an ordinary user outside of it"
        )
    # Not always the first: a file that an earlier run left somewhere seldom meets its uid again.
    start = int.from_bytes(os.urandom(4), "little")
    for step in range(_UID_COUNT):
        held = _try_to_hold(FIRST_UNUSED_UID + (start + step) % _UID_COUNT)
        if held is not None:
            return held
    raise IdentityError(
        f"every uid from {FIRST_UNUSED_UID} to {LAST_UNUSED_UID} is in use or held by another run; "
        "name a user instead"
    )


def _is_mapped(uid: int) -> bool:
    """Whether `uid` has a number in this user namespace; see user_namespaces(7)."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        ranges = [list(map(int, line.split())) for line in file]
    return any(first <= uid < first + count for first, _, count in ranges)


def _try_to_hold(uid: int) -> HeldUid | None:
    """Hold first, look second: a run that ends in between is then still seen by its processes."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holder.bind(f"\0fdbroker-uid-{uid}")
        free = not (_has_account(uid) or _has_process(uid))
    except OSError:
        free = False
    except BaseException:
        holder.close()
        raise
    if free:
        return HeldUid(uid, holder)
    holder.close()
    return None


def _has_account(uid: int) -> bool:
    return _account(uid) is not None or _group_exists(uid) or os.path.lexists(f"{_SYSTEMD_UIDS}/{uid}")


def _account(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _group_exists(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except KeyError:
        return False
    return True


def _has_process(uid: int) -> bool:
    """Whether a process has `uid` among its uids or gids, saved ones too; see proc_pid_status(5)."""
    wanted = str(uid).encode()
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = _status(process)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        if wanted not in status:
            continue
        if any(wanted in line.split() for line in status.splitlines() if line.startswith((b"Uid:", b"Gid:"))):
            return True
    return False


def _status(process: str) -> bytes:
    """/proc/PID/status. There may be thousands to read, and open() takes as long again as the kernel does."""
    fd = os.open(f"/proc/{process}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _STATUS_BYTES):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def lookup(user: str) -> Identity:
    """The uid and primary gid of `user`, a name or else a decimal number. Raises IdentityError."""
    try:
        account = pwd.getpwnam(user)
    except (KeyError, ValueError):
        return _lookup_number(user)
    return Identity(account.pw_uid, account.pw_gid)


def _lookup_number(user: str) -> Identity:
    if not (user.isascii() and user.isdigit()) or int(user) > _LARGEST_ID:
        raise IdentityError(f"there is no user {user!r}")
    uid = int(user)
    account = _account(uid)
    if account is not None:
        return Identity(uid, account.pw_gid)
    if _group_exists(uid):
        raise IdentityError(f"uid {uid} has no account, and its number as a gid is somebody's group")
    return Identity(uid, uid)
