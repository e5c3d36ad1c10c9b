"""Whether a user could open an object without the broker: by its mode, its owner, its ACL and its directories.

Computed from what an O_PATH walk found, as acl(5) and path_resolution(7) describe it; nothing is opened to try.
Out of scope: capabilities other than root's, security modules, read-only mounts, the devices of a cgroup.
"""

import os
import stat
import struct
from typing import NamedTuple

from broker.peers import group_name, user_name
from broker.walk import MayBlock, Walked, Walker, WalkFailed, WalkRefused
from policy import Peer, Rights

READ, WRITE = 4, 2
"""The bits of permissions, as in a mode."""
_SEARCH = 1
_WRITING = Rights.WRITE | Rights.APPEND | Rights.TRUNCATE | Rights.CONNECT

# linux/posix_acl_xattr.h and posix_acl.h
_ACL = "system.posix_acl_access"
_ACL_VERSION = 2
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_MASK = 0x02, 0x04, 0x08, 0x10


class Outside(NamedTuple):
    """What a user can do without the broker. None: it could not be determined."""

    possible: bool | None
    why: str


class Permissions(NamedTuple):
    """What a file says about who may use it."""

    mode: int
    uid: int
    gid: int
    acl: tuple[tuple[int, int, int], ...] = ()
    """Its entries: tag, permissions, id; none where there is no ACL."""

    def __str__(self) -> str:
        acl = " with an ACL" if self.acl else ""
        return f"{stat.S_IMODE(self.mode):04o} {user_name(self.uid)}:{group_name(self.gid)}{acl}"

    def give(self, uid: int, gids: frozenset[int] | None, wanted: int) -> bool | None:
        """Whether that user has the `wanted` bits. None when it depends on groups that are not known."""
        if uid == 0:
            return True
        if uid == self.uid:
            return not wanted & ~(self.mode >> 6)
        mask = self._mask()
        named = [bits for tag, bits, id in self.acl if (tag, id) == (_ACL_USER, uid)]
        if named:
            return not wanted & ~(named[0] & mask)
        if gids is None:
            answers = {self._by_group(gids, wanted, mask) for gids in (frozenset(), self._groups())}
            return answers.pop() if len(answers) == 1 else None
        return self._by_group(gids, wanted, mask)

    def lets_by(self, uid: int, gids: frozenset[int]) -> tuple[int, str]:
        """What it is about that user that counts, in words, and a number to sort by."""
        if uid == 0:
            return 0, "root"
        if uid == self.uid:
            return 1, "owner"
        if any((tag, id) == (_ACL_USER, uid) for tag, _, id in self.acl):
            return 2, "ACL"
        groups = (self.gid, *(id for tag, _, id in self.acl if tag == _ACL_GROUP))
        shared = [gid for gid in groups if gid in gids]
        return (3, f"group {group_name(shared[0])}") if shared else (4, "everybody")

    def named_to(self, wanted: int) -> tuple[frozenset[int], frozenset[int]]:
        """The users that an ACL names, and the groups, that have the `wanted` bits."""
        mask = self._mask()
        users = {id for tag, bits, id in self.acl if tag == _ACL_USER and not wanted & ~(bits & mask)}
        groups = {gid for gid, bits in self._by_gid(mask) if not wanted & ~bits}
        return frozenset(users), frozenset(groups)

    def _mask(self) -> int:
        return next((bits for tag, bits, _ in self.acl if tag == _ACL_MASK), 7)

    def _by_gid(self, mask: int) -> list[tuple[int, int]]:
        # With an ACL the group bits of the mode are its mask, and the owning group has an entry.
        return [
            (self.gid if tag == _ACL_GROUP_OBJ else id, bits & mask)
            for tag, bits, id in self.acl
            if tag in (_ACL_GROUP_OBJ, _ACL_GROUP)
        ] or [(self.gid, self.mode >> 3)]

    def _by_group(self, gids: frozenset[int], wanted: int, mask: int) -> bool:
        of_user = [bits for gid, bits in self._by_gid(mask) if gid in gids]
        if of_user:
            return any(not wanted & ~bits for bits in of_user)
        return not wanted & ~self.mode

    def _groups(self) -> frozenset[int]:
        return frozenset((self.gid, *(id for tag, _, id in self.acl if tag == _ACL_GROUP)))


def permissions_of(walked: Walked) -> Permissions:
    """The permissions of what a walk found."""
    status = walked.status
    try:
        acl = _entries(os.getxattr(f"/proc/self/fd/{walked.fd}", _ACL))
    except OSError:
        acl = ()  # it has none, or its file system knows none
    return Permissions(status.st_mode, status.st_uid, status.st_gid, acl)


def _entries(data: bytes) -> tuple[tuple[int, int, int], ...]:
    if len(data) < 4 or len(data) % 8 != 4 or int.from_bytes(data[:4], "little") != _ACL_VERSION:
        return ()
    return tuple(_ACL_ENTRY.iter_unpack(data[4:]))


class Way(NamedTuple):
    """What whoever opens an object must pass."""

    directories: tuple[tuple[str, Permissions], ...]
    """Those above it, the topmost first, which must be searched."""
    node: Permissions

    def gives(self, uid: int, gids: frozenset[int] | None, wanted: int) -> bool | None:
        """Whether that user may do that with the object. None when it depends on groups that are not known."""
        answers = [permissions.give(uid, gids, _SEARCH) for _, permissions in self.directories]
        answers.append(self.node.give(uid, gids, wanted))
        return False if False in answers else None if None in answers else True


class WayUnknown(Exception):
    """A directory above cannot be looked at; the message says which, and why."""


def way_to(walker: Walker, walked: Walked, known: dict[str, Permissions] | None = None) -> Way:
    """The way to what was found. Raises WayUnknown. `known` keeps the directories for further objects."""
    known = {} if known is None else known
    directories = _directories(walked.path)
    for directory in directories:
        if directory in known:
            continue
        try:
            found = walker.walk(directory)
        except (MayBlock, WalkFailed, WalkRefused, OSError) as error:
            raise WayUnknown(f"{directory} cannot be looked at: {error}") from None
        try:
            known[directory] = permissions_of(found)
        finally:
            os.close(found.fd)
    return Way(tuple((directory, known[directory]) for directory in directories), permissions_of(walked))


def outside(walker: Walker, walked: Walked, peer: Peer, rights: Rights) -> Outside:
    """Whether `peer` could open what was found for `rights` by itself."""
    if peer.uid is None:
        return Outside(None, "the uid is not known")
    who = "root" if peer.uid == 0 else user_name(peer.uid)
    try:
        way = way_to(walker, walked)
    except WayUnknown as error:
        return Outside(None, str(error))
    for directory, permissions in way.directories:
        reaches = permissions.give(peer.uid, peer.gids, _SEARCH)
        if not reaches:
            what = f"directory {directory} is {permissions}"
            return Outside(
                reaches, f"{what}: {'groups not known' if reaches is None else f'{who} stops there'}"
            )
    wanted = (READ if Rights.READ & rights or not rights & _WRITING else 0) | (
        WRITE if rights & _WRITING else 0
    )
    possible = way.node.give(peer.uid, peer.gids, wanted)
    node = f"{'node' if stat.S_IFMT(way.node.mode) in (stat.S_IFCHR, stat.S_IFBLK) else 'it'} is {way.node}"
    if possible is None:
        return Outside(None, f"{node}: whether {who} can open it depends on groups that are not known")
    return Outside(possible, f"{node}: {who} {'can' if possible else 'cannot'} open it without the broker")


def _directories(path: str) -> list[str]:
    parts = path.split("/")[1:-1]
    return ["/", *("/" + "/".join(parts[: length + 1]) for length in range(len(parts)))]
