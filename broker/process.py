"""What the connector's process is: the file that it runs, and the system manager's unit that it belongs to.

Read from /proc when the connection is accepted. A pid may be another process's by then; the pidfd (SO_PEERPIDFD,
Linux 6.5) is the connector itself: while that has not ended, the pid was its own. Otherwise nothing is known.

- A unit is the first name on the cgroup path, from the root, that is no slice (systemd.slice(5)): what follows is
  made by whoever was given that unit, as a user's own manager is, and means nothing.
- Where systemd has a hierarchy of its own (`name=systemd`), that one counts; otherwise cgroup v2.
"""

import os
import select
import socket
import struct
from typing import NamedTuple

_SO_PEERPIDFD = 77  # asm-generic/socket.h; Python has no name for it

_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")  # those that hold processes (systemd.unit(5))
_CGROUP_BYTES = 65_536
_GONE = " (deleted)"


class Process(NamedTuple):
    """Facts about a process; None for what is not known."""

    exe: str | None = None
    """The path of the file that it runs, as its own mounts have it."""
    unit: str | None = None
    """The system manager's unit; "" for none."""


def process_of(connection: socket.socket, pid: int, wants_unit: bool) -> Process:
    """The connector of `connection`, which had that pid."""
    try:
        pidfd = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))[0]
    except OSError:
        return Process()
    try:
        return process_behind(pidfd, pid, wants_unit)
    finally:
        os.close(pidfd)


def process_behind(pidfd: int, pid: int, wants_unit: bool) -> Process:
    """The process of `pidfd`, which had that pid."""
    found = Process(_exe(pid), _unit(pid) if wants_unit else None)
    return found if lives(pidfd) else Process()


def known_exe(process: Process) -> str | None:
    """The file that the process runs, for a policy: a file that was removed or replaced since is not known."""
    return None if process.exe is None or process.exe.endswith(_GONE) else process.exe


def unit_in(cgroups: str) -> str | None:
    """The system manager's unit in the text of /proc/PID/cgroup (cgroups(7)); "" for none, None if it tells none."""
    paths = {}
    for line in cgroups.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        paths[controllers] = path
    path = paths.get("name=systemd", paths.get("", ""))
    names = path.split("/")[1:]
    if not names or ".." in names or path.endswith(_GONE):
        return None  # no such hierarchy, outside of our cgroup namespace, or removed
    first = next((name for name in names if name and not name.endswith(".slice")), "")
    # systemd puts "_" before a name that would mean something to the kernel.
    return first.removeprefix("_") if first.endswith(_UNITS) else ""


def _exe(pid: int) -> str | None:
    try:
        return os.readlink(b"/proc/%d/exe" % pid).decode("utf-8", "backslashreplace")
    except OSError:
        return None


def _unit(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            data = file.read(_CGROUP_BYTES)
    except OSError:
        return None
    return unit_in(data.decode("utf-8", "backslashreplace")) if len(data) < _CGROUP_BYTES else None


def lives(pidfd: int) -> bool:
    """Whether the process behind `pidfd` has not ended."""
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    return not ended.poll(0)
