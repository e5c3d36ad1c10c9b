"""Who would ask: the facts about a user or a process, for a command that explains what they may have.

A broker takes them from a connection (`broker.identity`); here there is none. A user's kernel groups are taken to be
those of a login, a process's are read from /proc while a pidfd shows that it is still the same process.
"""

import contextlib
import grp
import os
import pwd
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from broker.account_database import groups_at_login
from broker.identity import Accounts, IdentityReader
from broker.process import Process, known_exe, lives, process_behind
from broker.unusable import Unusable
from policy import DEFAULT_SOCKET, Peer, Policy

_LAST_ID = 2**32 - 2


class PeerFinder:
    """Finds the facts that a policy asks for, and the names of all groups besides, to show them."""

    def __init__(self, policy: Policy, socket: str = DEFAULT_SOCKET, embedded: bool = False) -> None:
        """Raises Unusable where the policy has no such socket."""
        if socket != DEFAULT_SOCKET and socket not in policy.sockets:
            known = ", ".join([DEFAULT_SOCKET, *policy.sockets])
            raise Unusable(f"the policy has no socket {socket!r}; there are: {known}")
        accounts = Accounts(policy)
        # What the policy does not ask for is shown all the same.
        accounts.needs_accounts = accounts.needs_account_groups = True
        self._accounts = accounts
        self._policy = policy
        self._socket = socket
        self._embedded = embedded

    def user(self, name: str, groups: Sequence[str] | None) -> Peer:
        """The user of that name or number; `groups` are the kernel's, by default those of a login. Raises Unusable."""
        uid = _number_of(name, "user", lambda known: pwd.getpwnam(known).pw_uid)
        return self._one(uid, groups_at_login(uid) or frozenset() if groups is None else _numbers_of(groups))

    def accounts(self) -> list[Peer]:
        """One peer for each of account_uids(), with the groups of a login; by uid."""
        return self.uids(self.account_uids())

    def account_uids(self) -> list[int]:
        """The uids of the account database.

        A server of accounts may list none of its own: those that the policy names, and the members of groups that it
        names, are there all the same.
        """
        return sorted({account.pw_uid for account in pwd.getpwall()} | set(self._named_uids()))

    def _named_uids(self) -> Iterable[int]:
        names = set(self._policy.user_names)
        for group in self._policy.group_names:
            with contextlib.suppress(KeyError, OSError):
                names.update(grp.getgrnam(group).gr_mem)
        for name in names:
            with contextlib.suppress(KeyError, OSError):
                yield pwd.getpwnam(name).pw_uid

    def uids(self, uids: Iterable[int]) -> list[Peer]:
        """A peer for each of these uids, with the groups of a login."""
        reader = IdentityReader(self._accounts)
        try:
            return [self._peer(reader, uid, groups_at_login(uid) or frozenset()) for uid in uids]
        finally:
            reader.close()

    def process(self, pid: int) -> Peer:
        """The process as it is now: its effective uid and gid, and its groups. Raises Unusable."""
        found = _facts(pid)
        policy = self._policy
        return self._one(found.uid, found.gids)._replace(
            unit=found.process.unit if policy.needs_units else None,
            exe=known_exe(found.process) if policy.needs_exes else None,
            label=found.label if policy.needs_labels else None,
        )

    def caller(self, groups: Sequence[str] | None) -> Peer:
        """This process itself. Raises Unusable for a group that there is not."""
        own = frozenset((os.getegid(), *os.getgroups()))
        return self._one(os.geteuid(), own if groups is None else _numbers_of(groups))

    def _one(self, uid: int, gids: frozenset[int]) -> Peer:
        reader = IdentityReader(self._accounts)
        try:
            return self._peer(reader, uid, gids)
        finally:
            reader.close()

    def _peer(self, reader: IdentityReader, uid: int, gids: frozenset[int]) -> Peer:
        peer = reader.peer(uid, gids, self._socket, self._embedded)
        # More names than the policy has change no verdict: it compares with its own.
        return peer._replace(
            user_names=_with(peer.user_names, _user_names(peer.uid)),
            group_names=_with(peer.group_names, _group_names(peer.gids)),
            account_group_names=_with(peer.account_group_names, _group_names(peer.account_gids)),
        )


def user_name(uid: int) -> str:
    """The name of an account, or the number where there is none."""
    return next(iter(_user_names(uid)), str(uid))


def user_number(name: str) -> int:
    """The uid of the user of that name or number. Raises Unusable."""
    return _number_of(name, "user", lambda known: pwd.getpwnam(known).pw_uid)


def group_name(gid: int) -> str:
    """The name of a group, or the number where there is none."""
    return next(iter(_group_names((gid,))), str(gid))


def _with(known: frozenset[str] | None, more: Iterable[str]) -> frozenset[str] | None:
    return None if known is None else known | frozenset(more)


def _user_names(uid: int | None) -> list[str]:
    try:
        return [] if uid is None else [pwd.getpwuid(uid).pw_name]
    except (KeyError, OSError):
        return []


def _group_names(gids: Iterable[int] | None) -> list[str]:
    names = []
    for gid in gids or ():
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except (KeyError, OSError):
            continue
    return names


def _number_of(name: str, what: str, look_up: Callable[[str], int]) -> int:
    if name.isascii() and name.isdecimal():
        number = int(name)
        if number > _LAST_ID:
            raise Unusable(f"{name} is no {what}'s number: the last is {_LAST_ID}")
        return number
    try:
        return look_up(name)
    except (KeyError, ValueError, OSError):
        raise Unusable(f"there is no {what} {name!r}") from None


def _numbers_of(groups: Sequence[str]) -> frozenset[int]:
    return frozenset(_number_of(name, "group", lambda known: grp.getgrnam(known).gr_gid) for name in groups)


class _Facts(NamedTuple):
    """What a socket would tell of a process."""

    uid: int
    """The effective one."""
    gids: frozenset[int]
    """The effective one and the supplementary groups."""
    process: Process
    label: str | None


def _facts(pid: int) -> _Facts:
    """What SO_PEERCRED and the like would tell of that process. Raises Unusable."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "no such number"
        raise Unusable(f"process {pid}: {reason}") from None
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            lines = dict(line.rstrip("\n").partition(":")[::2] for line in file)
        process = process_behind(pidfd, pid, wants_unit=True)
        label = _label(pid)
        # While it lives the number is its own, so what was read is about it and not about a successor.
        if not lives(pidfd):
            raise Unusable(f"process {pid} has ended")
    except OSError as error:
        raise Unusable(f"process {pid}: {error.strerror}") from None
    finally:
        os.close(pidfd)
    # Real, effective, saved, file system: proc_pid_status(5).
    uid, gid = int(lines["Uid"].split()[1]), int(lines["Gid"].split()[1])
    gids = frozenset((gid, *map(int, lines["Groups"].split())))
    return _Facts(uid, gids, process, label)


def _label(pid: int) -> str | None:
    """The label that SO_PEERSEC would tell; None where no security module gives one."""
    try:
        with open(f"/proc/{pid}/attr/current", "rb") as file:
            data = file.read()
    except OSError:
        return None
    return data.rstrip(b"\0\n").decode("utf-8", "backslashreplace") or None
