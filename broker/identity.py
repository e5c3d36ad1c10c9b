"""Who is asking: the kernel's word on the process that connected, and the account database's.

Everything is read when the connection is accepted and stays as it was then (unix(7), SO_PEERCRED,
SO_PEERGROUPS, SO_PEERPIDFD). What cannot be determined is None, which the policy reads as whatever grants
less. A set of names is resolved by the accounts that this machine has, never by what a client says.
"""

import errno
import grp
import os
import pwd
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

from broker.homes import Homes
from broker.introduction import Introduction
from broker.limits import ACCOUNT_RETRY_SECONDS, GROUPS_PER_CLIENT, GROUPS_SHOWN
from broker.process import known_exe, process_of
from broker.subordinates import Subordinates
from policy import Peer, Policy
from sandboxed.syscalls import getsockopt_bytes

_SO_PEERSEC = 31  # asm-generic/socket.h; Python has no name for them
_SO_PEERGROUPS = 59
_LABEL_BYTES = 1024  # as much as Python reads; a longer label is not known

_UCRED = struct.Struct("iII")
_ALL_IDS = 4294967295


class Accounts:
    """The accounts and groups that a policy names, by number.

    A name that does not resolve matches nobody; it is looked up again, once a second at the most, so that
    an account that is made later counts without a reload.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self.policy = policy
        self._clock = clock
        self._uids: dict[str, int] = {}
        self._gids: dict[str, int] = {}
        self._missing_users = set(policy.user_names)
        self._missing_groups = set(policy.group_names)
        self._next_try = 0.0
        self.needs_accounts = policy.needs_accounts
        self.needs_account_groups = policy.needs_account_groups
        self.variables = policy.variables

    def users(self, uid: int) -> frozenset[str]:
        """Those of the policy's user names that are `uid`."""
        self._resolve()
        return frozenset(name for name, number in self._uids.items() if number == uid)

    def groups(self, gids: Iterable[int]) -> frozenset[str]:
        """Those of the policy's group names that are among `gids`."""
        self._resolve()
        wanted = set(gids)
        return frozenset(name for name, number in self._gids.items() if number in wanted)

    def _resolve(self) -> None:
        if not (self._missing_users or self._missing_groups) or self._clock() < self._next_try:
            return
        self._next_try = self._clock() + ACCOUNT_RETRY_SECONDS
        self._missing_users = _look_up(
            self._missing_users, lambda name: pwd.getpwnam(name).pw_uid, self._uids
        )
        self._missing_groups = _look_up(
            self._missing_groups, lambda name: grp.getgrnam(name).gr_gid, self._gids
        )


def _look_up(names: set[str], number: Callable[[str], int], found: dict[str, int]) -> set[str]:
    missing = set()
    for name in names:
        try:
            found[name] = number(name)
        except (KeyError, OSError):
            missing.add(name)
    return missing


class IdentityReader:
    """Reads who is at the other end of an accepted connection."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._overflow_uid, self._overflow_gid = _overflow_ids()
        self._subordinates = Subordinates() if accounts.policy.needs_owners else None
        self._homes = Homes() if "home" in accounts.variables else None

    def close(self) -> None:
        """Close what the reader holds."""
        if self._homes is not None:
            self._homes.close()

    def of_connection(self, connection: socket.socket, socket_name: str) -> Introduction:
        """The connector of `connection`, which came by the socket of that name. Raises OSError."""
        pid, uid, gid = _UCRED.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        supplementary = _peer_groups(connection)
        shown: dict[str, Any] = {"uid": uid, "gid": gid, "pid": pid, "socket": socket_name}
        policy = self._accounts.policy
        process = process_of(connection, pid, policy.needs_units)
        if process.exe is not None:
            shown["exe"] = process.exe
        if process.unit is not None:
            shown["unit"] = process.unit
        gids = None if supplementary is None else frozenset({gid, *supplementary})
        if gids is not None and len(gids) <= GROUPS_SHOWN:
            shown["gids"] = sorted(gids)
        peer = self.peer(uid, gids, socket_name)._replace(
            unit=process.unit,
            exe=known_exe(process) if policy.needs_exes else None,
            label=_label(connection) if policy.needs_labels else None,
        )
        if peer.label is not None:
            shown["label"] = peer.label
        return Introduction(peer, uid, shown)

    def of_child(self, uid: int, gid: int, groups: Iterable[int], pid: int) -> Introduction:
        """The one program of an embedded broker, which its own parent introduces."""
        gids = frozenset({gid, *groups})
        shown: dict[str, Any] = {"uid": uid, "gid": gid, "pid": pid, "embedded": True}
        if len(gids) <= GROUPS_SHOWN:
            shown["gids"] = sorted(gids)
        return Introduction(self.peer(uid, gids, "default", embedded=True), uid, shown)

    def peer(self, uid: int, gids: frozenset[int] | None, socket_name: str, embedded: bool = False) -> Peer:
        """The facts about an identity, as the policy takes them."""
        accounts = self._accounts
        if uid == self._overflow_uid:
            # In a user namespace everybody who has no number there looks like this one.
            return Peer(None, None, None, None, socket=socket_name, embedded=embedded)
        if gids is not None and self._overflow_gid in gids:
            gids = None
        account_gids = _account_groups(uid) if accounts.needs_account_groups else None
        return Peer(
            uid,
            accounts.users(uid),
            gids,
            None if gids is None else accounts.groups(gids),
            account_gids,
            None if account_gids is None else accounts.groups(account_gids),
            _has_account(uid) if accounts.needs_accounts else None,
            socket_name,
            embedded,
            *self._variables(uid),
        )._replace(**self._owners(uid))

    def _owners(self, uid: int) -> dict[str, Any]:
        """Whose subordinate uids it is among, if the policy asks for that."""
        if self._subordinates is None:
            return {}
        names, uids = self._subordinates.owners(uid)
        named = frozenset().union(*map(self._accounts.users, uids or ()))
        # Only names that a rule mentions tell peers apart.
        mentioned = None if names is None else named | names & self._accounts.policy.user_names
        return {"owner_names": mentioned, "owner_uids": uids}

    def _variables(self, uid: int) -> tuple[str | None, str | None]:
        """The name and the home of the uid's account, as far as the policy asks for them."""
        if self._accounts.variables.isdisjoint(("user", "home")):
            return None, None
        try:
            account = pwd.getpwuid(uid)
        except (KeyError, OSError):
            return None, None
        home = self._homes.checked(account.pw_dir, uid) if self._homes else None
        return _encodable(account.pw_name), home


def _peer_groups(connection: socket.socket) -> tuple[int, ...] | None:
    """The supplementary groups of the connector; None where the kernel does not tell, or they are too many."""
    try:
        try:
            data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
        except OSError as error:
            if error.errno != errno.ERANGE:
                raise
            data = getsockopt_bytes(
                connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * GROUPS_PER_CLIENT
            )
    except OSError:
        return None
    return struct.unpack(f"{len(data) // 4}I", data)


def _label(connection: socket.socket) -> str | None:
    """The connector's label by the kernel's security module; None where there is none that gives labels."""
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERSEC, _LABEL_BYTES)
    except OSError:
        return None
    return data.rstrip(b"\0").decode("utf-8", "backslashreplace") or None


def _encodable(name: str) -> str | None:
    """`name`, if it is text that encodes to UTF-8: no path with anything else is ever asked for."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    return name


def _account_groups(uid: int) -> frozenset[int] | None:
    try:
        account = pwd.getpwuid(uid)
        return frozenset(os.getgrouplist(account.pw_name, account.pw_gid))
    except KeyError:
        return frozenset()
    except OSError:
        return None


def _has_account(uid: int) -> bool | None:
    try:
        pwd.getpwuid(uid)
        return True
    except KeyError:
        return False
    except OSError:
        return None


def _overflow_ids() -> tuple[int | None, int | None]:
    """The overflow uid and gid (user_namespaces(7)), or None in the initial user namespace, where they are ids."""
    if _is_whole("/proc/self/uid_map") and _is_whole("/proc/self/gid_map"):
        return None, None
    return _number("/proc/sys/kernel/overflowuid"), _number("/proc/sys/kernel/overflowgid")


def _is_whole(path: str) -> bool:
    with open(path) as file:
        return [line.split() for line in file] == [["0", "0", str(_ALL_IDS)]]


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())
