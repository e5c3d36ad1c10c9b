"""Which capabilities and groups the worker needs for what the policy's rules lead to, and the rules that need each.

Rules that this module enforces:
- What the worker's uid may do anyway needs nothing. A group is preferred to a capability: it opens less.
- Where objects of any mode may come to lie (patterns, files in directories that others can change) the capability is
  needed that reads, or writes, every one.
- To look up a denied name is a need too: a worker that could not would give its object by another name.
- No other capability is given but those by which the kernel's own device drivers decide who may open them.

Pure but for `look`, which says what an object's mode and ACL are.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from broker.limits import RULES_SHOWN
from broker.permissions import (
    ACL_ATTRIBUTE,
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    READ,
    SEARCH,
    WRITE,
    Guarded,
    capability_that_lets,
    group_that_lets,
    may,
    parse_acl,
)
from broker.worker_reach import Reach

# linux/capability.h
_CAP_NET_ADMIN, _CAP_SYS_RAWIO, _CAP_SYS_ADMIN, _CAP_SYSLOG = 12, 17, 21, 34

CAPABILITY_NAMES = {
    CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE",
    CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH",
    _CAP_NET_ADMIN: "CAP_NET_ADMIN",
    _CAP_SYS_RAWIO: "CAP_SYS_RAWIO",
    _CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
    _CAP_SYSLOG: "CAP_SYSLOG",
}

# Character devices whose open asks for a capability: major and minor (None is any), whether reading alone asks.
_DRIVERS: tuple[tuple[int, int | None, int, bool], ...] = (
    (1, 1, _CAP_SYS_RAWIO, False),  # /dev/mem, drivers/char/mem.c
    (1, 4, _CAP_SYS_RAWIO, False),  # /dev/port
    (1, 11, _CAP_SYSLOG, True),  # /dev/kmsg, kernel/printk/printk.c: with kernel.dmesg_restrict
    (10, 231, _CAP_SYS_ADMIN, False),  # /dev/snapshot, kernel/power/user.c
    (108, 0, _CAP_NET_ADMIN, False),  # /dev/ppp, drivers/net/ppp/ppp_generic.c
    (202, None, _CAP_SYS_RAWIO, False),  # /dev/cpu/*/msr, arch/x86/kernel/msr.c
)


class Seen(NamedTuple):
    """What was read of an object."""

    guarded: Guarded
    device: tuple[int, int] | None
    """Major and minor of a character device."""


Look = Callable[[str], Seen | None]


class Needs:
    """What one policy takes of a worker with one uid.

    capabilities: by number, the ids of rules that need it, at most RULES_SHOWN.
    groups: the same by gid.
    """

    def __init__(self, reach: Reach, uid: int, groups: frozenset[int], look: Look) -> None:
        """`groups` are those that the worker has anyway, its gid among them."""
        self.capabilities: dict[int, list[str]] = {}
        self.groups: dict[int, list[str]] = {}
        self._uid = uid
        self._has = groups
        self._look = look
        self._directories: dict[str, Seen | None] = {}
        for reached in reach.reached:
            if reached.is_there:
                self._need_way(reached.rule, reached.path.rpartition("/")[0])
                self._need_object(reached.rule, reached.path, reached.permissions)
            else:
                self._need_way(reached.rule, reached.path)
                self._need_any(reached.rule, reached.path, reached.permissions)
        for rule, directory in reach.searched:
            if directory:
                self._need_way(rule, directory)
            else:
                self._need(self.capabilities, CAP_DAC_READ_SEARCH, rule)
        if CAP_DAC_OVERRIDE in self.capabilities and CAP_DAC_READ_SEARCH in self.capabilities:
            for rule in self.capabilities.pop(CAP_DAC_READ_SEARCH):  # the other one includes it
                self._need(self.capabilities, CAP_DAC_OVERRIDE, rule)

    def _need_way(self, rule: str, directory: str) -> None:
        """Search `directory` and all above it."""
        while directory:
            if directory not in self._directories:
                self._directories[directory] = self._look(directory)
            seen = self._directories[directory]
            if seen is not None:
                self._need_permissions(rule, seen.guarded, SEARCH)
            directory = directory.rpartition("/")[0]

    def _need_object(self, rule: str, path: str, permissions: int) -> None:
        seen = self._look(path)
        if seen is None:
            return
        self._need_permissions(rule, seen.guarded, permissions)
        for capability in _asked_by_driver(seen.device, permissions):
            self._need(self.capabilities, capability, rule)

    def _need_permissions(self, rule: str, guarded: Guarded, wanted: int) -> None:
        if may(guarded, self._uid, self._has | self.groups.keys(), wanted):
            # It may be a group that another rule needed: this one does too.
            if not may(guarded, self._uid, self._has, wanted):
                group = group_that_lets(guarded, self._uid, self._has, wanted)
                if group is not None:
                    self._need(self.groups, group, rule)
            return
        group = group_that_lets(guarded, self._uid, self._has, wanted)
        if group is not None:
            self._need(self.groups, group, rule)
        else:
            self._need(self.capabilities, capability_that_lets(guarded.mode, wanted), rule)

    def _need_any(self, rule: str, directory: str, permissions: int) -> None:
        """Objects of whatever mode below `directory`."""
        capability = CAP_DAC_OVERRIDE if permissions & WRITE else CAP_DAC_READ_SEARCH
        self._need(self.capabilities, capability, rule)

    @staticmethod
    def _need(needs: dict[int, list[str]], what: int, rule: str) -> None:
        rules = needs.setdefault(what, [])
        if rule not in rules and len(rules) < RULES_SHOWN:
            rules.append(rule)


def _asked_by_driver(device: tuple[int, int] | None, permissions: int) -> list[int]:
    if device is None:
        return []
    return [
        capability
        for major, minor, capability, by_reading in _DRIVERS
        if major == device[0] and minor in (None, device[1]) and (permissions & READ or not by_reading)
    ]


def look(path: str) -> Seen | None:
    """Read the mode and the ACL of what is there; None if nothing is."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    try:
        acl = parse_acl(os.getxattr(path, ACL_ATTRIBUTE, follow_symlinks=False))
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT):
            raise
        acl = ()
    device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if stat.S_ISCHR(status.st_mode) else None
    return Seen(Guarded(status.st_mode, status.st_uid, status.st_gid, acl), device)
