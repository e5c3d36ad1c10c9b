"""What a walk found, as the policy takes it; and what is never given, whatever a policy says.

The opener decides by this, and `fdbroker explain` explains by it, so that both speak of the same facts.
"""

import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from broker.walk import Walked, Walker, WalkFailed, WalkRefused
from policy import Consideration, FileType, Object

TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFCHR: FileType.CHAR,
    stat.S_IFBLK: FileType.BLOCK,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFSOCK: FileType.SOCKET,
}
DEVICES = (FileType.CHAR, FileType.BLOCK)


class OtherNames(NamedTuple):
    """Those of some paths that are one object."""

    same: tuple[str, ...]
    settled: bool  # nobody but root could make another of the paths that object
    unseen: tuple[WalkFailed, ...]  # what could not be looked at, or is not there


def object_of(walked: Walked, names: tuple[str, ...]) -> Object:
    """What was found, as the policy takes it; `names` are those of it besides its path."""
    # A link that a client could make would lead to any device of the type that it likes.
    by_id = walked.last_link and walked.link_guarded
    kind = TYPES.get(stat.S_IFMT(walked.status.st_mode))
    return Object(path=walked.path, type=kind, names=names, last_link=by_id)


def other_names(walker: Walker, literals: Iterable[str], walked: Walked, may_block: bool) -> OtherNames:
    """Those of `literals` that are what was found, by another name. Raises MayBlock unless `may_block`.

    And whether that is settled: a name that is nothing yet, or that somebody else than root can change, may be this
    object the next time, and nobody would tell us.
    """
    same: list[str] = []
    unseen: list[WalkFailed] = []
    settled = True
    for name in literals:
        try:
            other = walker.walk(name, may_block)
        except WalkFailed as failure:
            unseen.append(failure)
            settled = False
            continue
        except WalkRefused:
            settled = False
            continue
        os.close(other.fd)
        if is_same(walked.status, other.status):
            same.append(name)
        settled = settled and other.guarded
    return OtherNames(tuple(same), settled, tuple(unseen))


def is_same(ours: os.stat_result, theirs: os.stat_result) -> bool:
    """Whether both are one object; two nodes of one device are."""
    kind = stat.S_IFMT(ours.st_mode)
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and (kind, ours.st_rdev) == (
        stat.S_IFMT(theirs.st_mode),
        theirs.st_rdev,
    ):
        return True
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def never_given(walked: Walked, kind: FileType | None, systems: frozenset[int]) -> str:
    """Why the broker gives this to nobody, or nothing; `systems` are those of device_systems()."""
    if kind is FileType.DIRECTORY:
        return "a directory fd is never handed out: it is a way to all that lies around it"
    if kind in DEVICES and walked.status.st_dev not in systems:
        return "the device node does not lie on the broker's own devtmpfs or devpts"
    return ""


def hidden_name(walked: Walked, considered: Consideration) -> str:
    """Why a file with several hard links is not given, or nothing.

    A pattern that denies or excepts cannot be held against names that nobody asked for. Whoever may write a directory
    could link to a file there that such a pattern keeps back.
    """
    if walked.linked_by_others and considered.has_hidden_names:
        return (
            f"it has {walked.status.st_nlink} hard links and lies where others can make some: another of its names "
            "may be one that a pattern denies"
        )
    return ""


def device_systems() -> frozenset[int]:
    """The device numbers of devtmpfs as mounted here, and of the devpts at /dev/pts.

    statfs(2) cannot tell devtmpfs from a tmpfs, nor our devpts from one that a container made.
    """
    with open("/proc/self/mountinfo", "rb") as table:
        lines = table.read().split(b"\n")[:-1]
    systems = set()
    for line in lines:
        # The kernel escapes space, tab and newline in names, and nothing else that splits.
        words = line.split(b" ")
        kind, number, mount_point = words[words.index(b"-", 6) + 1], words[2], words[4]
        if kind == b"devtmpfs" or (kind == b"devpts" and mount_point == b"/dev/pts"):
            major, minor = number.split(b":")
            systems.add(os.makedev(int(major), int(minor)))
    return frozenset(systems)
