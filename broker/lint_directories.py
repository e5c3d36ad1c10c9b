"""Who besides root can put something else into the place of what a path names: the directories above it, one by one.

By owner, mode and ACL (acl(5)), as found by the broker's own walk; nothing is opened. Those of the user who looks are
taken for the broker's, as a policy's own files are (`trust`): an ordinary user's broker has no authority but theirs.

Out of scope: capabilities, and what a mount in somebody's own namespace shows to them alone.
"""

import errno
import os
import stat
from typing import NamedTuple

from broker.account_database import AccountDatabase
from broker.outside import WRITE, permissions_of
from broker.peers import group_name, user_name
from broker.records import printable
from broker.walk import Walked, Walker, WalkFailed
from policy import Client
from policy.clients import Clients

# Errors of a walk to what is not there.
MISSING = (errno.ENOENT, errno.ENOTDIR)

_NOBODY: frozenset[int] = frozenset()


class Writers(NamedTuple):
    """Who can write a directory, besides root and the one who looks."""

    directory: str
    shown: str
    """Its mode and owners."""
    uids: frozenset[int]
    gids: frozenset[int]
    everybody: bool
    owner: frozenset[int]
    """Its owner, if that is one of `uids`."""
    sticky: bool
    """Whether an entry can be replaced by its owner and the directory's alone."""

    def __bool__(self) -> bool:
        return bool(self.uids or self.gids or self.everybody)

    def __str__(self) -> str:
        who = [f"user {user_name(uid)}" for uid in sorted(self.uids)]
        who += [f"group {group_name(gid)}" for gid in sorted(self.gids)]
        told = "everybody" if self.everybody else " and ".join(who)
        return f"{self.directory} is {self.shown}, so {told} can write it"

    def of_entry(self, entry: Walked | None) -> "Writers":
        """Those who can put something else into the place of `entry`; None: of something that is not there."""
        if not self.sticky or entry is None or entry.ends_in_link:
            return self
        if entry.status.st_uid not in (0, os.geteuid()):
            return self
        return self._replace(uids=self.owner, gids=_NOBODY, everybody=False)

    def may_be_among(self, clients: Clients, accounts: AccountDatabase) -> bool:
        """Whether one of them may be one of `clients`, by user and group; no clients are everybody."""
        if not self:
            return False
        return not clients or self.everybody or any(self._may_be(one, accounts) for one in clients)

    def _may_be(self, client: Client, accounts: AccountDatabase) -> bool:
        if client.users is None and client.uids is None and client.groups is None and client.gids is None:
            return True
        members = {uid for gid in self.gids for uid in accounts.members_of(gid)}
        if any(accounts.may_be(client, uid, accounts.groups_of(uid)) for uid in self.uids | members):
            return True
        return any(accounts.may_be(client, None, frozenset((gid,))) for gid in self.gids)


class Directories:
    """Looks at directories, each of them once."""

    def __init__(self, walker: Walker) -> None:
        self._walker = walker
        self._root_device = os.stat("/").st_dev
        self._writers: dict[str, Writers] = {}
        self._above: dict[str, tuple[Writers, ...]] = {}

    def above(self, path: str) -> tuple[Writers, ...]:
        """Who can put something else into the place of `path`, for each directory that others can write.

        Raises MayBlock, WalkRefused, and WalkFailed for what cannot be looked at; what is not there ends the walk.
        """
        if path == "/":
            return ()
        known = self._above.get(path)
        if known is None:
            known = self._above[path] = self._look_above(path)
        return known

    def _look_above(self, path: str) -> tuple[Writers, ...]:
        parent = path.rpartition("/")[0] or "/"
        found = list(self.above(parent))
        writers = self.of(parent)
        if writers is None:
            return tuple(found)
        entry = self._entry(path)
        try:
            if writers:
                found += [one for one in [writers.of_entry(entry)] if one]
            if entry is not None and entry.ends_in_link:
                # Whoever can change what the link leads to changes it as well.
                for name in dict.fromkeys((*entry.names, entry.path)):
                    found += [one for one in self.above(name) if one not in found] if name != path else []
        finally:
            if entry is not None:
                os.close(entry.fd)
        return tuple(found)

    def of(self, directory: str) -> Writers | None:
        """Who can write `directory`; None where it is not there. Raises as above()."""
        known = self._writers.get(directory)
        if known is not None:
            return known
        entry = self._entry(directory)
        if entry is None:
            return None
        try:
            known = self._writers[directory] = self._judged(entry)
        finally:
            os.close(entry.fd)
        return known

    def _entry(self, path: str) -> Walked | None:
        try:
            return self._walker.walk(path)
        except WalkFailed as failure:
            if failure.errno in MISSING:
                return None
            raise

    def _judged(self, entry: Walked) -> Writers:
        directory = printable(entry.path)
        trusted = (0, os.geteuid())
        permissions = permissions_of(entry)
        owner = frozenset((permissions.uid,)).difference(trusted)
        sticky = bool(permissions.mode & stat.S_ISVTX)
        if self._is_read_only(entry):
            return Writers(directory, str(permissions), _NOBODY, _NOBODY, False, _NOBODY, sticky)
        users, gids = permissions.named_to(WRITE)
        return Writers(
            directory,
            str(permissions),
            owner | users.difference(trusted),
            gids,
            bool(permissions.mode & stat.S_IWOTH),
            owner,
            sticky,
        )

    def _is_read_only(self, entry: Walked) -> bool:
        # A service whose whole tree is read-only to itself learns nothing of what others can write.
        if entry.status.st_dev == self._root_device:
            return False
        return bool(os.fstatvfs(entry.fd).f_flag & os.ST_RDONLY)
