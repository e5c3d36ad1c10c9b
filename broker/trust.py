"""The walk to a policy file: it finds who else could change what the file says, or which file it is.

Rules that this module enforces:
- every directory on the way, also on the way of links, and the file belong to root or to the broker's uid;
- nobody else can write any of them. A POSIX ACL needs no look of its own: what it gives at most is its mask, and
  that is what the group's bits show (acl(5));
- what was judged is what is read: each step is an fd, and no name is looked up a second time.

Two ways in which others may seem to have write permission and change nothing:
- a sticky directory, as /tmp, on the way to an entry that is root's or the broker's: nobody else can rename or
  remove that one (a link counts by its own owner). Not where the directory's list of names makes up the policy;
- a read-only mount, as a container has its configuration, of another file system than the root directory's: a
  service whose whole tree is read-only to itself (systemd's ProtectSystem=) learns nothing from that.
"""

import errno
import os
import stat
from typing import NamedTuple

from broker.limits import LINKS
from policy import Problem

_O_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE_BY = {
    stat.S_IWGRP: ("its group", "g"),
    stat.S_IWOTH: ("everybody", "o"),
    stat.S_IWGRP | stat.S_IWOTH: ("everybody", "go"),
}


class LeadsNowhere(FileNotFoundError):
    """A link on the way has no target."""


class Entry(NamedTuple):
    """What a walk found; the receiver owns `fd`, an O_PATH fd."""

    fd: int
    status: os.stat_result
    path: str
    """With no link left in it."""


class TrustWalk:
    """Walks to files and directories, and gathers what is wrong with the way to any of them."""

    def __init__(self) -> None:
        self._own_uid = os.geteuid()
        self._root_device = os.stat("/").st_dev
        self._faults: dict[str, list[tuple[str, str]]] = {}

    def problems(self) -> list[Problem]:
        """Everything that lets somebody else in, each with the command that ends it."""
        return [
            Problem(
                shown_path(path),
                0,
                0,
                f"{'; '.join(what for what, _ in faults)}: run {' && '.join(command for _, command in faults)}",
            )
            for path, faults in self._faults.items()
        ]

    def find(self, path: str, start: Entry | None = None) -> Entry:
        """Return what `path` names, seen from `start` or the working directory. Raises OSError, and LeadsNowhere."""
        if start is None:
            path = os.path.join(os.getcwd(), path)
        here = self._root() if path.startswith("/") or start is None else _again(start)
        waiting = path.split("/")[::-1]
        links = 0
        try:
            while waiting:
                name = waiting.pop()
                if name in ("", "."):
                    continue
                there = self._step(here, name, links)
                if not stat.S_ISLNK(there.status.st_mode):
                    os.close(here.fd)
                    here = there
                    continue
                links += 1
                target = _target(there)
                waiting += target.split("/")[::-1]
                if target.startswith("/"):
                    there = self._root()
                    os.close(here.fd)
                    here = there
                if links > LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), there.path)
        except BaseException:
            os.close(here.fd)
            raise
        if stat.S_ISREG(here.status.st_mode):
            self._judge_mode(here)
        return here

    def names(self, directory: Entry) -> list[str]:
        """Return the names in `directory`, sorted: who could add one could change the policy. Raises OSError."""
        fd = reopened(directory, os.O_DIRECTORY)
        try:
            self._judge_mode(directory)
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def _root(self) -> Entry:
        fd = os.open("/", _O_PATH)
        root = Entry(fd, os.fstat(fd), "/")
        self._judge_owner(root)
        return root

    def _step(self, here: Entry, name: str, links: int) -> Entry:
        try:
            fd = os.open(name, _O_PATH, dir_fd=here.fd)
        except FileNotFoundError as error:
            self._judge_way(here, None)
            if links:
                raise LeadsNowhere(errno.ENOENT, "a link leads to nothing", here.path) from error
            raise
        there = Entry(fd, os.fstat(fd), _joined(here.path, name))
        if name != "..":
            self._judge_way(here, there)
        if stat.S_ISDIR(there.status.st_mode) or stat.S_ISREG(there.status.st_mode):
            self._judge_owner(there)
        return there

    def _judge_way(self, directory: Entry, entry: Entry | None) -> None:
        """Look whether somebody else could put another entry into the place of `entry`."""
        if not directory.status.st_mode & stat.S_ISVTX:
            self._judge_mode(directory)
        elif entry is not None and _writable(directory) and stat.S_ISLNK(entry.status.st_mode):
            self._judge_owner(entry)  # what is no link is judged anyway

    def _judge_owner(self, entry: Entry) -> None:
        uid = entry.status.st_uid
        if uid in (0, self._own_uid):
            return
        expected, owner = (
            ("root", "root") if self._own_uid == 0 else (f"root or {self._own_uid}", self._own_uid)
        )
        option = "-h " if stat.S_ISLNK(entry.status.st_mode) else ""
        self._tell(entry, f"belongs to uid {uid}, expected {expected}", f"chown {option}{owner}")

    def _judge_mode(self, entry: Entry) -> None:
        writable = _writable(entry)
        if writable and not self._is_read_only(entry):
            who, letters = _WRITABLE_BY[writable]
            mode = stat.S_IMODE(entry.status.st_mode)
            self._tell(entry, f"{who} can write it (mode {mode:04o})", f"chmod {letters}-w")

    def _is_read_only(self, entry: Entry) -> bool:
        if entry.status.st_dev == self._root_device:
            return False
        return bool(os.fstatvfs(entry.fd).f_flag & os.ST_RDONLY)

    def _tell(self, entry: Entry, what: str, command: str) -> None:
        from shlex import quote  # only a mistake pays for it

        fault = (what, f"{command} {quote(shown_path(entry.path))}")
        faults = self._faults.setdefault(entry.path, [])
        if fault not in faults:
            faults.append(fault)


def reopened(entry: Entry, flags: int = 0) -> int:
    """Return an fd to read what was found, and nothing else that came to have its name. Raises OSError."""
    return os.open(
        f"/proc/self/fd/{entry.fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | flags
    )


def shown_path(path: str) -> str:
    """Return `path` as a message can hold it: one line of printable characters."""
    return path if path.isprintable() else ascii(path)


def _writable(entry: Entry) -> int:
    return entry.status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _again(entry: Entry) -> Entry:
    return entry._replace(fd=os.dup(entry.fd))


def _target(link: Entry) -> str:
    try:
        return os.readlink("", dir_fd=link.fd)
    finally:
        os.close(link.fd)


def _joined(directory: str, name: str) -> str:
    return os.path.dirname(directory) if name == ".." else os.path.join(directory, name)
