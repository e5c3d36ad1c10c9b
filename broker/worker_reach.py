"""What of the file system a policy's rules lead to: where its files may lie, and which device nodes are there now.

From this the worker's Landlock domain is made (`broker.worker_domain`), and what permissions it needs
(`broker.privileges_needed`). Rules that this module enforces:
- A rule about devices reaches nodes, one by one. Its patterns are held against what is there; links to nodes below
  /dev (udev's by-id) count as the nodes. Terminals come and go: of /dev/pts the directory is reached.
- A rule about anything else reaches the nearest directory that its path names literally. A file below directories that
  only root can change is reached alone: it is hardly ever replaced. Where very many such files lie in one directory
  it is reached as a whole.
- What is not there is not reached, nor what is nearer to the root: a worker that meets it later is replaced.
- `${home}` may be anywhere but in the kernel's own file systems: the top-level directories are reached.

- What may block (FUSE, NFS) is not touched: its mount point is reached as a whole.

Nothing is opened. What was read may be another thing by the time that it is used: that can only refuse.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from broker.limits import FILES_ALONE, NAMES_LOOKED_AT
from broker.permissions import READ, WRITE
from policy import ALLOW, FileType, PathPattern, Policy, Rights, Rule, parse_pattern
from policy.devices import Device, any_holds
from policy.patterns import VARIABLE
from sandboxed.confinement.sandbox import lies_in

_KINDS = {stat.S_IFCHR: FileType.CHAR, stat.S_IFBLK: FileType.BLOCK}
_DEVICES = frozenset(_KINDS.values())
_WRITING = int(Rights.WRITE | Rights.APPEND | Rights.TRUNCATE)
_READING = int(Rights.READ)
_TERMINALS = "/dev/pts"
_NO_HOMES = frozenset(("/dev", "/proc", "/sys"))
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Machine(Protocol):
    """Looks without opening, and never at what may block."""

    def slow_points(self) -> list[str]:
        """The mount points of what may block."""

    def real(self, path: str) -> str | None:
        """`path` without links; None where there is nothing, or something that may block."""

    def look_at(self, node: str) -> tuple[FileType | None, Device | None]:
        """What is known of the device that is at `node`."""


class Reached(NamedTuple):
    """Something that a rule leads to."""

    rule: str
    path: str
    permissions: int
    """READ, WRITE or both."""
    is_there: bool = True
    """Whether this is the very object; else objects of whatever mode may come to lie below the directory `path`."""


class Reach:
    """Where one policy leads to.

    trees: by directory, which permissions some rule gives below it.
    files: the same for files that are reached alone.
    nodes: the same for device nodes.
    reached: every object or directory with the rule that leads to it.
    searched: directories in which denied or excepted names are looked up, by the rule that says so.
    """

    def __init__(self, policy: Policy, machine: Machine) -> None:
        """Look at what is there now."""
        self._machine = machine
        self._slow = frozenset(machine.slow_points())
        self._directories: dict[str, bool] = {}
        self._devices: dict[str, tuple[FileType | None, Device | None]] = {}
        self.trees: dict[str, int] = {}
        self.files: dict[str, int] = {}
        self.nodes: dict[str, int] = {}
        self.reached: list[Reached] = []
        self.searched: list[tuple[str, str]] = []
        self._budget = NAMES_LOOKED_AT
        self._guarded: dict[str, bool] = {}
        self._lists: dict[str, list[str]] = {}
        for rule in policy.rules:
            if rule.action == ALLOW:
                self._add_allow(rule)
                self._add_searched(rule.id, rule.except_paths)
            else:
                self._add_searched(rule.id, rule.paths)
        self._gather_files()

    # --- rules -------------------------------------------------------------------------------------------

    def _add_allow(self, rule: Rule) -> None:
        permissions = _permissions(rule)
        types = rule.types or frozenset((FileType.FILE,))
        for pattern in rule.paths:
            if types & _DEVICES:
                self._add_nodes(rule, pattern, permissions)
            if types - _DEVICES:
                self._add_files(rule, pattern, permissions)

    def _add_files(self, rule: Rule, pattern: PathPattern, permissions: int) -> None:
        if "home" in pattern.variables:
            for name in self._names("/"):
                if f"/{name}" not in _NO_HOMES:
                    self._add_tree(rule, f"/{name}", permissions)
        elif not pattern.literal:
            self._add_tree(rule, pattern.literal_root, permissions)
        elif self._slow_point(pattern.text):
            self._add_tree(rule, pattern.text, permissions)
        else:
            self._add_file(rule, pattern, permissions)

    def _add_file(self, rule: Rule, pattern: PathPattern, permissions: int) -> None:
        path, directory = pattern.text, pattern.literal_root
        if not self._is_real(directory):
            return
        guarded = self._is_guarded(directory)
        if self._real(path) == path:
            self.reached.append(Reached(rule.id, path, permissions))
            _add(self.files if guarded else self.trees, path if guarded else directory, permissions)
        elif not guarded:
            self._add_tree(rule, directory, permissions)

    def _add_tree(self, rule: Rule, directory: str, permissions: int) -> None:
        point = self._slow_point(directory)
        if not point and not self._is_real(directory):
            return  # not there; or reached by a link, and then the rule must match the real name, which counts
        _add(self.trees, point or directory, permissions)
        self.reached.append(Reached(rule.id, point or directory, permissions, is_there=False))

    def _add_nodes(self, rule: Rule, pattern: PathPattern, permissions: int) -> None:
        if pattern.literal_root == _TERMINALS and not pattern.literal:
            self._add_tree(rule, _TERMINALS, permissions)
            return
        if "home" in pattern.variables:
            return  # no home lies in /dev, and no node counts elsewhere
        if pattern.variables:
            pattern = parse_pattern(VARIABLE.sub("*", pattern.text).replace("**", "*"))
        for path in self._matching(pattern):
            node = self._real(path)
            if node is None:
                continue
            needs_facts = any(selector.needs_facts for selector in rule.selectors)
            kind, device = self._device(node) if needs_facts else _numbered(node)
            if kind in (rule.types or ()) and _is_for(rule, kind, device):
                _add(self.nodes, node, permissions)
                self.reached.append(Reached(rule.id, node, permissions))

    def _add_searched(self, rule: str, patterns: Iterable[PathPattern]) -> None:
        """Where a denied name is looked up whatever was asked for: the object may have that name too."""
        for pattern in patterns:
            if pattern.variables and not pattern.recursive:
                self.searched.append((rule, ""))  # nobody knows where
            elif pattern.literal:
                directory = pattern.text.rpartition("/")[0] or "/"
                for one in dict.fromkeys((directory, self._real(directory) or directory)):
                    self.searched.append((rule, one))

    def _gather_files(self) -> None:
        """Reach whole directories where very many of their files are reached, and nothing twice."""
        count: dict[str, int] = {}
        for path in self.files:
            directory = path.rpartition("/")[0] or "/"
            count[directory] = count.get(directory, 0) + 1
        for path, permissions in list(self.files.items()):
            directory = path.rpartition("/")[0] or "/"
            if count[directory] > FILES_ALONE:
                _add(self.trees, directory, permissions)
                del self.files[path]

    # --- what is there -----------------------------------------------------------------------------------

    def _slow_point(self, path: str) -> str:
        """The mount point of what may block that `path` lies on, the outermost; nothing on it may be touched."""
        if not self._slow:
            return ""
        return min((point for point in self._slow if lies_in(path, point)), key=len, default="")

    def _is_real(self, directory: str) -> bool:
        """Whether there is such a directory, and no link on the way to it."""
        known = self._directories.get(directory)
        if known is None:
            known = self._directories[directory] = self._machine.real(directory) == directory
        return known

    def _real(self, path: str) -> str | None:
        """The path without links; None where there is nothing, or something that may block."""
        directory = path.rpartition("/")[0] or "/"
        if self._slow_point(path) or not self._is_real(directory):
            return self._machine.real(path)
        try:
            is_link = stat.S_ISLNK(os.lstat(path).st_mode)  # much quicker, and most are none
        except OSError:
            return None
        return self._machine.real(path) if is_link else path

    def _device(self, node: str) -> tuple[FileType | None, Device | None]:
        known = self._devices.get(node)
        if known is None:
            known = self._devices[node] = self._machine.look_at(node)
        return known

    def _is_guarded(self, directory: str) -> bool:
        """Whether only root can change what `directory` and those above it hold."""
        known = self._guarded.get(directory)
        if known is None:
            status = os.stat(directory)
            known = status.st_uid == 0 and not status.st_mode & _WRITABLE_BY_OTHERS
            if known and directory != "/":
                known = self._is_guarded(os.path.dirname(directory))
            self._guarded[directory] = known
        return known

    def _matching(self, pattern: PathPattern) -> Iterator[str]:
        """What there is that matches, links not followed but at the end."""
        if pattern.literal:
            if os.path.lexists(pattern.text):
                yield pattern.text
            return
        depth = len([one for one in pattern.literal_root.split("/") if one])
        yield from self._below(pattern, pattern.literal_root.rstrip("/"), depth)

    def _below(self, pattern: PathPattern, directory: str, depth: int) -> Iterator[str]:
        """What matches below `directory`, whose path has so many components."""
        if self._slow_point(directory or "/"):
            return
        more = pattern.recursive or depth + 1 < len(pattern.components)
        for name in self._names(directory or "/"):
            if depth < len(pattern.components):
                component = pattern.components[depth]
                if component != name if isinstance(component, str) else not component.matches(name):
                    continue
            path = f"{directory}/{name}"
            if self._slow_point(path):
                continue
            if depth + 1 > len(pattern.components) or not more:
                yield path
            if more and os.path.isdir(path) and not os.path.islink(path):
                yield from self._below(pattern, path, depth + 1)

    def _names(self, directory: str) -> list[str]:
        known = self._lists.get(directory)
        if known is None:
            try:
                known = os.listdir(directory)
            except OSError:
                known = []
            known = known[: self._budget]
            self._budget -= len(known)
            self._lists[directory] = known
        return known


def _add(found: dict[str, int], path: str, permissions: int) -> None:
    found[path] = found.get(path, 0) | permissions


def _permissions(rule: Rule) -> int:
    """What an open for the rule's rights asks of an object."""
    rights = int(rule.rights)
    writing = WRITE if rights & _WRITING else 0
    return writing | (READ if rights & _READING or not writing else 0)


def _numbered(node: str) -> tuple[FileType | None, Device | None]:
    """The kind and the number of the device at `node`, which costs a fiftieth of all that is known of it."""
    try:
        status = os.lstat(node)
    except OSError:
        return None, None
    number = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return _KINDS.get(stat.S_IFMT(status.st_mode)), Device(number)


def _is_for(rule: Rule, kind: FileType | None, device: Device | None) -> bool:
    """Whether the rule's conditions on devices hold for this one: where that is not known the rule gives nothing."""
    return (
        (rule.device is None or rule.device.holds(kind, device) is True)
        and (rule.devices is None or any_holds(rule.devices, kind, device) is True)
        and any_holds(rule.except_devices, kind, device) is False
    )
