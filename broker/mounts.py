"""The mount table: which file systems answer at once, and which may keep a caller waiting.

A FUSE server or an NFS server that has died stalls whoever touches its mount, in a sleep that only
SIGKILL ends. So the type is looked up by the mount point's name, before anything is touched.
"""

import os
import re
import select

# File systems whose name look-ups end without another process or machine. All else may block.
_PROMPT = frozenset(
    [
        "bcachefs",
        "bpf",
        "btrfs",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "erofs",
        "exfat",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hugetlbfs",
        "iso9660",
        "jfs",
        "mqueue",
        "ntfs3",
        "overlay",
        "pstore",
        "ramfs",
        "reiserfs",
        "securityfs",
        "squashfs",
        "sysfs",
        "tmpfs",
        "tracefs",
        "ubifs",
        "udf",
        "vfat",
        "xfs",
        "zfs",
        "proc",
        "cgroup",
        "cgroup2",
    ]
)
_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountTable:
    """The mounts of this process's namespace, read again whenever the kernel says that they changed."""

    def __init__(self) -> None:
        """Raises OSError where /proc is not mounted."""
        self._file = open("/proc/self/mountinfo", "rb", buffering=0)  # noqa: SIM115 (lives as long as self)
        self._changed = select.poll()
        # proc(5): a change of the mount table is an exceptional event on this file.
        self._changed.register(self._file, select.POLLPRI)
        # The kernel tells each opened file once: this one is for whoever else wants to know.
        self._watched = open("/proc/self/mountinfo", "rb", buffering=0)  # noqa: SIM115 (lives as long as self)
        self._types: dict[bytes, bytes] = {}
        self._read()

    def answers_at_once(self, mount_point: bytes) -> bool:
        """Whether what is mounted on `mount_point` is sure not to block; False for what is not in the table."""
        if self._changed.poll(0):
            self._read()
        return self._types.get(mount_point, b"").decode("ascii", "replace") in _PROMPT

    def slow_points(self) -> list[str]:
        """The mount points of what may block, which is also what decides by itself who may do what."""
        return [
            os.fsdecode(point)
            for point, kind in self._types.items()
            if kind.decode("ascii", "replace") not in _PROMPT
        ]

    def fileno(self) -> int:
        """The table's fd."""
        return self._file.fileno()

    def watched(self) -> int:
        """An fd that reports each change as an exceptional event (EPOLLPRI), for an event loop to watch."""
        return self._watched.fileno()

    def close(self) -> None:
        """Close the table's fds."""
        self._file.close()
        self._watched.close()

    def _read(self) -> None:
        self._file.seek(0)
        types = {}
        for line in self._file.read().split(b"\n")[:-1]:
            before, _, after = line.partition(b" - ")
            # Of several mounts on one point the last is on top.
            types[_unescape(before.split(b" ")[4])] = after.split(b" ")[0]
        self._types = types


def _unescape(name: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8),)), name)


def own_root() -> int:
    """An O_PATH fd of this process's root directory."""
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
