"""A control group of the program's own, for limits on all of its processes together, where one can be had.

Rules that this module enforces:
- It is made below our own group of cgroup v2, if the caller may write there and the controllers are there to be
  had; of our own group nothing is changed but its cgroup.subtree_control, which hands the controllers down and stays
  so. The caller is moved nowhere.
- It is removed at the end, and whatever still runs in it is killed (cgroup.kill, Linux 5.14).

Where none can be had, the limits of `resources` stand alone: an ordinary user has one where systemd delegated it.
See cgroups(7).
"""

import contextlib
import errno
import os
import select
from types import TracebackType

from sandboxed.confinement.sandbox import Limits

_CONTROLLERS = ("memory", "pids")

# Milliseconds until a killed group is empty.
_EMPTY_MILLISECONDS = 2000
_TRIES = 100


class Cgroup:
    """A group with `limits`; `procs` is an fd to write "0" into, by a process that goes there."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._path = path
        os.mkdir(path, 0o755)
        try:
            for name, value in (("memory.max", limits.memory), ("pids.max", limits.processes)):
                if value is not None and os.path.exists(f"{path}/{name}"):
                    _write(f"{path}/{name}", str(value))
            if limits.memory is not None:
                # Swapped out memory is memory too; where there is no swap there is no such file.
                with contextlib.suppress(OSError):
                    _write(f"{path}/memory.swap.max", "0")
            self.procs = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except BaseException:
            os.rmdir(path)
            raise

    @classmethod
    def controllers(cls) -> set[str]:
        """Which controllers a new group would have."""
        own = _own_group()
        if own is None or not os.access(own, os.W_OK):
            return set()
        return set(_read(f"{own}/cgroup.subtree_control").split()) & set(_CONTROLLERS)

    @classmethod
    def make(cls, limits: Limits) -> "Cgroup | None":
        """A new group, or None where none can be had that could limit anything."""
        wanted = {name for name, value in zip(_CONTROLLERS, limits[:2], strict=True) if value is not None}
        own = _own_group() if wanted else None
        if own is None:
            return None
        try:
            _enable(own, wanted)
            if not wanted & set(_read(f"{own}/cgroup.subtree_control").split()):
                return None
            return cls(f"{own}/fdbroker-{os.urandom(8).hex()}", limits)
        except OSError:
            return None

    def close(self) -> None:
        """Kill what is left in it, and remove it."""
        os.close(self.procs)
        with contextlib.suppress(OSError):
            _write(f"{self._path}/cgroup.kill", "1")
        for _ in range(_TRIES):
            try:
                os.rmdir(self._path)
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.EBUSY:
                    return
            select.select([], [], [], _EMPTY_MILLISECONDS / 1000 / _TRIES)

    def __enter__(self) -> "Cgroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _own_group() -> str | None:
    """The directory of our own group in cgroup v2, if that is mounted."""
    try:
        with open("/proc/self/cgroup") as file:
            path = next((line[3:].strip() for line in file if line.startswith("0::")), None)
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split(" - ") for line in file]
    except OSError:
        return None
    place = next((left.split()[4] for left, right in mounts if right.split()[0] == "cgroup2"), None)
    return None if path is None or place is None else os.path.normpath(f"{place}/{path}")


def _enable(group: str, wanted: set[str]) -> None:
    """Hand the controllers down, where that is allowed: not in a group that holds processes, but the topmost."""
    for name in wanted - set(_read(f"{group}/cgroup.subtree_control").split()):
        with contextlib.suppress(OSError):
            _write(f"{group}/cgroup.subtree_control", f"+{name}")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
