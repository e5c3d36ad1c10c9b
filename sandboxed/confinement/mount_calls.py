"""The system calls of the mount API that no kept library wraps: one small function each, named after it.

Like `syscalls`, whose habits they share: OSError names the call and its arguments, fds are close-on-exec, and
what a failure means is the caller's to know. Flags keep their kernel names (linux/mount.h).
"""

import ctypes
import os

from sandboxed.syscalls import AT_FDCWD, failed, libc, syscall

# x86-64 and every architecture that got its numbers after 2011 share these (asm-generic/unistd.h).
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_MOUNT_SETATTR = 442

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REC = 0x4000
MS_PRIVATE = 0x40000

MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8

_OPEN_TREE_CLONE = 0x1
_OPEN_TREE_CLOEXEC = 0o2000000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_AT_RECURSIVE = 0x8000
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000


class _MountAttr(ctypes.Structure):
    """struct mount_attr, linux/mount.h."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2)."""
    words = [None if word is None else word.encode() for word in (source, kind)]
    data = options.encode() if options else None
    if libc.mount(words[0], os.fsencode(target), words[1], ctypes.c_ulong(flags), data) != 0:
        raise failed(f"mount({source!r}, {target!r}, {kind!r}, {flags:#x}, {options!r})")


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    if libc.umount2(os.fsencode(target), flags) != 0:
        raise failed(f"umount2({target!r}, {flags})")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    if libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)) != 0:
        raise failed(f"pivot_root({new_root!r}, {put_old!r})")


def open_tree_clone(path: str, *, recursive: bool = True, follow: bool = True) -> int:
    """A detached copy of the mount at `path`, with what is mounted below it; see open_tree(2).

    If a link as the last component is followed, the copy is of what it leads to; else of the link.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    flags |= (_AT_RECURSIVE if recursive else 0) | (0 if follow else _AT_SYMLINK_NOFOLLOW)
    fd: int = syscall(ctypes.c_long(_NR_OPEN_TREE), AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags))
    if fd < 0:
        raise failed(f"open_tree({path!r}, {flags:#x})")
    return fd


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach the detached mount `mount_fd` at the object that the O_PATH fd `target_fd` names; move_mount(2)."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    if syscall(ctypes.c_long(_NR_MOVE_MOUNT), mount_fd, b"", target_fd, b"", ctypes.c_uint(flags)) != 0:
        raise failed(f"move_mount({mount_fd}, {target_fd})")


def mount_setattr(fd: int, attributes: int, *, recursive: bool = True) -> None:
    """Set `attributes` (MOUNT_ATTR_*) on the mount that `fd` names and those below it; mount_setattr(2)."""
    attr = _MountAttr(attributes, 0, 0, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    if (
        syscall(ctypes.c_long(_NR_MOUNT_SETATTR), fd, b"", ctypes.c_uint(flags), ctypes.byref(attr), size)
        != 0
    ):
        raise failed(f"mount_setattr({fd}, {attributes:#x})")
