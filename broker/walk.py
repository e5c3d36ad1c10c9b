"""The walk from a name to an object, one component at a time, with every name on it known.

Rules that this module enforces:
- no magic link is followed, and procfs and cgroupfs are never entered, whatever link leads there;
- nothing is opened but with O_PATH: no device is touched, no FIFO and no lease waits;
- a mount that may block is not entered, unless the caller says that it may be kept waiting;
- what is returned is one object (its fd), not a name that somebody opens a second time.

Which of the names may be used is the policy's to say, not this module's.
"""

import errno
import os
import stat
from typing import NamedTuple

from broker.limits import LINKS, LOOKUPS, PATH_BYTES
from broker.mounts import MountTable, own_root
from sandboxed.syscalls import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, fstatfs_type, openat2

# Magic numbers of statfs(2).
PROC_SUPER_MAGIC = 0x9FA0
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270

# An fd of these keeps its opener's credentials for later writes (cgroup.procs, uid_map, mem).
_NEVER_ENTERED = {PROC_SUPER_MAGIC: "procfs", CGROUP_SUPER_MAGIC: "cgroupfs", CGROUP2_SUPER_MAGIC: "cgroupfs"}

_O_PATH = os.O_PATH | os.O_NOFOLLOW
_INSIDE = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def encoded(name: str) -> bytes:
    """A file name as the kernel has it: UTF-8, whatever this process's locale says."""
    return name.encode("utf-8", "surrogateescape")


def decoded(name: bytes) -> str:
    """A file name as text; bytes that are not UTF-8 become lone surrogates."""
    return name.decode("utf-8", "surrogateescape")


class MayBlock(Exception):
    """The walk needs a mount that may keep it waiting: repeat it where that is allowed."""


class WalkRefused(Exception):
    """The walk leads where it may never go."""


class WalkFailed(Exception):
    """A system call failed. `name` is what was being looked up, `links` how many links led there."""

    def __init__(self, number: int, name: str, links: int) -> None:
        super().__init__(number, name)
        self.errno = number
        self.name = name
        self.links = links


class Walked(NamedTuple):
    """The object that a walk found. The receiver owns `fd`, an O_PATH fd."""

    fd: int
    status: os.stat_result
    path: str  # with no link left; names that are not UTF-8 are surrogate-escaped
    names: tuple[str, ...]  # the full names that links led to on the way
    last_link: bool  # exactly one link was followed, and it was the last component
    ends_in_link: bool  # the last component was a link, whatever came before
    link_guarded: bool  # and only root could have made it
    filesystem: int  # the magic number of statfs(2)
    guarded: bool  # no link, and only root can change a name on the way
    # A file or FIFO with several hard links, where others than root and this process's user can make some.
    linked_by_others: bool = False


class _Directory(NamedTuple):
    fd: int
    name: bytes
    device: int
    filesystem: int
    length: int  # of its whole path, in bytes


class Walker:
    """Walks from this process's root directory."""

    def __init__(self) -> None:
        """Raises OSError where /proc is not mounted."""
        self._mounts = MountTable()
        root = own_root()
        status = os.fstat(root)
        self._root = _Directory(root, b"", status.st_dev, fstatfs_type(root), 0)
        self._root_guarded = _guarded(status)

    def close(self) -> None:
        """Close the fds of the walker."""
        os.close(self._root.fd)
        self._mounts.close()

    def fds(self) -> tuple[int, ...]:
        """The fds of the walker."""
        return self._root.fd, self._mounts.fileno()

    def slow_points(self) -> list[str]:
        """The mount points of what may block."""
        return self._mounts.slow_points()

    def mount_changes(self) -> int:
        """An fd for an event loop, which reports EPOLLPRI when something was mounted or unmounted."""
        return self._mounts.watched()

    def walk(self, path: str, may_block: bool = False) -> Walked:
        """Find the object named by the absolute `path`.

        Raises WalkFailed (with the errno of the call), WalkRefused, and MayBlock unless `may_block`.
        """
        walk = _Walk(self._root, self._root_guarded, self._mounts, may_block)
        try:
            return walk.run(encoded(path))
        finally:
            walk.close()


class _Walk:
    """The state of one walk."""

    def __init__(self, root: _Directory, guarded: bool, mounts: MountTable, may_block: bool) -> None:
        self._mounts = mounts
        self._may_block = may_block
        self._stack = [root]
        self._opened: list[int] = []
        self._pending: list[bytes] = []  # components still to walk, the next one last
        self._names: list[str] = []
        self._links = 0
        self._lookups = 0
        self._last_link = False
        self._ends_in_link = False
        self._link_guarded = False
        self._guarded = guarded

    def close(self) -> None:
        for fd in self._opened:
            os.close(fd)

    def run(self, path: bytes) -> Walked:
        self._push(path)
        while self._pending:
            component = self._pending.pop()
            if component == b"..":
                # Only a link's target has these. The stack holds the directories themselves, so no race
                # with a rename can make this another directory's parent.
                if len(self._stack) > 1:
                    self._stack.pop()
                continue
            fd, status = self._look_up(component)
            if stat.S_ISLNK(status.st_mode):
                self._follow(fd)
            elif not self._pending:
                return self._found(fd, status, component)
            else:
                self._enter(fd, status, component)
        top = self._stack[-1]
        return self._found(os.dup(top.fd) if top.fd not in self._opened else top.fd, os.fstat(top.fd), None)

    def _push(self, path: bytes) -> None:
        self._pending += reversed([part for part in path.split(b"/") if part not in (b"", b".")])

    def _name(self, *more: bytes) -> bytes:
        return b"/" + b"/".join([directory.name for directory in self._stack[1:]] + list(more))

    def _look_up(self, component: bytes) -> tuple[int, os.stat_result]:
        parent = self._stack[-1].fd
        self._lookups += 1
        if self._lookups > LOOKUPS:
            raise WalkFailed(errno.ELOOP, decoded(component), self._links)
        try:
            try:
                fd = openat2(parent, component, _O_PATH, _INSIDE)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                if not self._may_block and not self._mounts.answers_at_once(self._name(component)):
                    raise MayBlock(decoded(self._name(component))) from None
                fd = openat2(parent, component, _O_PATH, RESOLVE_NO_MAGICLINKS)
            self._opened.append(fd)
            return fd, os.fstat(fd)
        except OSError as error:
            name = self._name(component, *reversed(self._pending))
            raise WalkFailed(error.errno or errno.EIO, decoded(name), self._links) from error

    def _follow(self, fd: int) -> None:
        self._links += 1
        # A link that the asked path ends in, not one on the way; a second link takes it back.
        self._ends_in_link = not self._pending or self._ends_in_link
        self._last_link = self._links == 1 and not self._pending
        self._link_guarded = self._guarded
        self._guarded = False
        if self._links > LINKS:
            raise WalkFailed(errno.ELOOP, decoded(self._name()), self._links)
        target = os.readlink(b"", dir_fd=fd)
        if target.startswith(b"/"):
            del self._stack[1:]
        self._push(target)
        self._names.append(_normal(self._name(*reversed(self._pending))))

    def _enter(self, fd: int, status: os.stat_result, component: bytes) -> None:
        if not stat.S_ISDIR(status.st_mode):
            name = self._name(component, *reversed(self._pending))
            raise WalkFailed(errno.ENOTDIR, decoded(name), self._links)
        self._guarded = self._guarded and _guarded(status)
        filesystem, length = self._filesystem(fd, status), self._length(component)
        self._stack.append(_Directory(fd, component, status.st_dev, filesystem, length))

    def _length(self, component: bytes) -> int:
        length = self._stack[-1].length + 1 + len(component)
        if length >= PATH_BYTES:
            raise WalkFailed(errno.ENAMETOOLONG, decoded(component), self._links)
        return length

    def _filesystem(self, fd: int, status: os.stat_result) -> int:
        parent = self._stack[-1]
        filesystem = parent.filesystem if status.st_dev == parent.device else fstatfs_type(fd)
        if filesystem in _NEVER_ENTERED:
            raise WalkRefused(f"the path leads into {_NEVER_ENTERED[filesystem]}")
        return filesystem

    def _found(self, fd: int, status: os.stat_result, component: bytes | None) -> Walked:
        filesystem = self._filesystem(fd, status)
        self._length(component or b"")
        if fd in self._opened:
            self._opened.remove(fd)  # the receiver's from now on
        path = self._name() if component is None else self._name(component)
        guarded = self._guarded and (not stat.S_ISREG(status.st_mode) or _guarded(status))
        return Walked(
            fd,
            status,
            decoded(path),
            tuple(self._names),
            self._last_link and self._links == 1,
            self._ends_in_link,
            self._link_guarded,
            filesystem,
            guarded,
            _is_linked(status) and _is_open_to_others(self._stack[-1].fd),
        )


def _guarded(status: os.stat_result) -> bool:
    """Whether only root can change what lies in this directory, or mount over this file."""
    return status.st_uid == 0 and not status.st_mode & _WRITABLE_BY_OTHERS


def _is_linked(status: os.stat_result) -> bool:
    return status.st_nlink > 1 and (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode))


def _is_open_to_others(directory: int) -> bool:
    """Whether others than root and this process's own user can write there."""
    status = os.fstat(directory)
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & _WRITABLE_BY_OTHERS)


def _normal(name: bytes) -> str:
    """The name without '..', as far as its text tells."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return decoded(b"/" + b"/".join(parts))
