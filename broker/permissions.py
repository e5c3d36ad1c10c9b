"""What the mode and the ACL of an object let a process do, and which group or capability would let it.

As the kernel decides it (path_resolution(7), acl(5), capabilities(7)), for a process that never creates or runs
anything. Pure: what was read of the object is an argument. What a server decides (NFS, FUSE) is out of its scope.
"""

import stat
import struct
from collections.abc import Collection, Iterable
from typing import NamedTuple

READ, WRITE, SEARCH = 4, 2, 1

# linux/capability.h
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2

# linux/posix_acl_xattr.h
ACL_ATTRIBUTE = "system.posix_acl_access"
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_USER_OBJECT, _USER, _GROUP_OBJECT, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


class AclEntry(NamedTuple):
    """One entry of an ACL: its tag, its permissions, the uid or gid that it is about."""

    tag: int
    permissions: int
    id: int


class Guarded(NamedTuple):
    """Who may do what with an object."""

    mode: int
    uid: int
    gid: int
    acl: tuple[AclEntry, ...] = ()
    """Empty where there is nothing but the mode."""


def parse_acl(data: bytes) -> tuple[AclEntry, ...]:
    """Return the entries of the extended attribute ACL_ATTRIBUTE."""
    body = data[_HEADER.size :]
    return tuple(
        AclEntry(*entry) for entry in _ENTRY.iter_unpack(body[: len(body) // _ENTRY.size * _ENTRY.size])
    )


def may(guarded: Guarded, uid: int, groups: Collection[int], wanted: int) -> bool:
    """Tell whether a process of `uid` and `groups` may do all that is `wanted`, without a capability."""
    if guarded.uid == uid:
        return not wanted & ~(guarded.mode >> 6)
    if guarded.acl:
        return _acl_lets(guarded, uid, groups, wanted)
    return not wanted & ~(guarded.mode >> 3 if guarded.gid in groups else guarded.mode)


def _acl_lets(guarded: Guarded, uid: int, groups: Collection[int], wanted: int) -> bool:
    mask = next((entry.permissions for entry in guarded.acl if entry.tag == _MASK), READ | WRITE | SEARCH)
    named = [entry for entry in guarded.acl if entry.tag == _USER and entry.id == uid]
    if named:
        return not wanted & ~(named[0].permissions & mask)
    mine = [
        entry
        for entry in guarded.acl
        if (entry.tag == _GROUP_OBJECT and guarded.gid in groups)
        or (entry.tag == _GROUP and entry.id in groups)
    ]
    if mine:  # one of them must give all of it
        return any(not wanted & ~(entry.permissions & mask) for entry in mine)
    return any(entry.tag == _OTHER and not wanted & ~entry.permissions for entry in guarded.acl)


def group_that_lets(guarded: Guarded, uid: int, groups: Collection[int], wanted: int) -> int | None:
    """Return the gid with which may() would be true beside `groups`, the lowest; None: there is none."""
    candidates = {guarded.gid, *(entry.id for entry in guarded.acl if entry.tag == _GROUP)}
    return min((gid for gid in candidates if may(guarded, uid, {*groups, gid}, wanted)), default=None)


def capability_that_lets(mode: int, wanted: int) -> int:
    """Return the capability that stands for the `wanted` permissions on an object of that mode."""
    enough = READ | SEARCH if stat.S_ISDIR(mode) else READ
    return CAP_DAC_OVERRIDE if wanted & ~enough else CAP_DAC_READ_SEARCH


def joined(capabilities: Iterable[int]) -> frozenset[int]:
    """Return the capabilities without one that another includes."""
    found = frozenset(capabilities)
    return found - {CAP_DAC_READ_SEARCH} if CAP_DAC_OVERRIDE in found else found
