"""Paths that are wider than they look: whole trees, all of /dev, memory, /sys, and disks by the kernel's names.

The names of disks and of memory are those of the kernel's devices.txt; udev's links to them are other names of them.
"""

import re
from collections.abc import Iterable, Iterator

from .covering import Patterns
from .decide import Policy
from .devices import Device, any_holds
from .findings import Finding, finding, texts
from .paths import split
from .patterns import HOME, Glob, PathPattern
from .rules import ALLOW, DENY, Rule
from .words import FileType, Rights, with_implied

# Levels that the literal part of a pattern for a whole tree has at the least.
_LEVELS = 2

# Directories of the root that are there for one site's or one service's data (hier(7)).
_OF_THE_SITE = frozenset(("/srv", "/opt", "/mnt", "/media"))

_ALL_OF_DEV = frozenset(("/dev/*", "/dev/**"))
# udev's links to all devices of one type, by their numbers. A rule that is for that type alone follows them.
_LINKS = {FileType.CHAR: "/dev/char", FileType.BLOCK: "/dev/block"}

# No name is empty, so that these match all of them.
_ANY_NAME = frozenset(("*", "?*", "*?"))

# Memory and ports, with what udev and sysfs know of them.
_MEMORY = {"/dev/mem": (1, 1), "/dev/kmem": (1, 2), "/dev/port": (1, 4)}

# Disks by how the kernel names them: what a literal is, and nodes that a pattern is tried on.
_DISKS = {
    "sd": re.compile(r"/dev/sd[a-z]+[0-9]*"),
    "vd": re.compile(r"/dev/vd[a-z]+[0-9]*"),
    "xvd": re.compile(r"/dev/xvd[a-z]+[0-9]*"),
    "nvme": re.compile(r"/dev/nvme[0-9]+n[0-9]+(?:p[0-9]+)?"),
    "mmcblk": re.compile(r"/dev/mmcblk[0-9]+(?:p[0-9]+)?"),
}
_DISK_NODES = {
    "sd": ("/dev/sda", "/dev/sdb", "/dev/sda1", "/dev/sdb1"),
    "vd": ("/dev/vda", "/dev/vdb", "/dev/vda1"),
    "xvd": ("/dev/xvda", "/dev/xvdb", "/dev/xvda1"),
    "nvme": ("/dev/nvme0n1", "/dev/nvme1n1", "/dev/nvme0n1p1"),
    "mmcblk": ("/dev/mmcblk0", "/dev/mmcblk1", "/dev/mmcblk0p1"),
}
# Block devices that lie on disks: who can read one reads the disk.
_ON_DISKS = ("/dev/dm-0", "/dev/md0")
# Character devices that lead to disks as well.
_RAW = {
    "/dev/sg0": Device(subsystem="scsi_generic"),
    "/dev/bsg/0:0:0:0": Device(subsystem="bsg"),
    "/dev/nvme0": Device(subsystem="nvme"),
    "/dev/ng0n1": Device(subsystem="nvme-generic"),
}

_NEVER_GIVEN = ("/proc", "/sys/fs/cgroup", "/dev/kcore")


class PathLint:
    """Looks at the paths of a policy's rules, each rule beside the others."""

    def __init__(self, policy: Policy) -> None:
        self._allows = _by_path(rule for rule in policy.rules if rule.action == ALLOW)
        for_everybody = [
            rule
            for rule in policy.rules
            if rule.action == DENY
            and not (rule.clients or rule.except_clients or rule.until or rule.terms.addresses)
        ]
        self._denies = _by_path(for_everybody)
        self._everywhere = [rule for rule in for_everybody if not rule.paths]
        self._refusals: dict[str, int] = {}
        self._left_open: dict[str, bool] = {}

    def findings(self, rule: Rule) -> Iterator[Finding]:
        """Yield what is found about the paths of `rule`."""
        if rule.terms.addresses:
            return  # it is for no path
        if rule.action == ALLOW:
            yield from _of_allow(rule)
            memory = [node for node, number in _MEMORY.items() if self._gives(rule, node, number)]
            if memory:
                yield finding(rule, "memory-device", f"it gives {texts(memory)}")
        yield from self._disks(rule)

    def _gives(self, allow: Rule, node: str, number: tuple[int, int]) -> bool:
        link = f"{_LINKS[FileType.CHAR]}/{number[0]}:{number[1]}"
        if not _names(allow, node) and not _names_by_link(allow, link, node):
            return False
        major, minor = map(str, number)
        properties = {"SUBSYSTEM": "mem", "DEVNAME": node, "MAJOR": major, "MINOR": minor}
        device = Device(number, "mem", properties, ({"dev": f"{major}:{minor}"},))
        if not _selects(allow, FileType.CHAR, device):
            return False
        refused = self._refused(node, device)
        return any(not with_implied(right) & refused for right in Rights if right & allow.rights)

    def _refused(self, node: str, device: Device) -> int:
        """The rights that are refused to everybody on the character device `node`."""
        known = self._refusals.get(node)
        if known is None:
            known = 0
            for deny in (*self._everywhere, *self._denies.matching(split(node))):
                if _names(deny, node) and _selects(deny, FileType.CHAR, device):
                    known |= int(deny.rights)
            self._refusals[node] = known
        return known

    def _disks(self, rule: Rule) -> Iterator[Finding]:
        if not _may_be_block(rule.types) or rule.device is not None or rule.devices is not None:
            return
        named = [pattern for pattern in rule.paths if pattern.text not in _ALL_OF_DEV]
        families = {pattern.text: _disk_families(pattern) for pattern in named}
        literal = [one.text for one in named if one.literal and families[one.text]]
        if literal:
            what = f"the kernel may call another disk {texts(literal)} at the next start"
            yield finding(rule, "disks-by-path", what)
            return
        found = {family for pattern in named if not pattern.recursive for family in families[pattern.text]}
        if rule.action == ALLOW:
            if found:
                what = f"{texts(text for text, of in families.items() if of)} are whichever disks have these names"
                yield finding(rule, "disks-by-path", what)
            return
        whole = not rule.paths or any(_disk_families(one) >= _DISKS.keys() for one in rule.paths)
        if found and not whole:
            missed = [nodes[0] for family, nodes in _DISK_NODES.items() if family not in found]
            missed += [node for node in _ON_DISKS if not _any_matches(rule.paths, node)]
            if missed:
                missed += [node for node in list(_RAW)[:2] if not _any_matches(rule.paths, node)]
                yield finding(rule, "disks-by-path", f"it misses {texts(missed)}")
        elif whole and rule.types is not None and FileType.CHAR not in rule.types:
            raw = [node for node in _RAW if self._is_left_open(node)]
            if raw:
                what = f"it misses {texts(raw)}, which lead to disks, are no block devices, and which an allow gives"
                yield finding(rule, "disks-by-path", what)

    def _is_left_open(self, node: str) -> bool:
        """Whether an allow may give the character device `node`, and no deny refuses it to everybody."""
        known = self._left_open.get(node)
        if known is None:
            device = _RAW[node]
            open_to_some = any(_may_give(allow, node, device) for allow in self._allows.matching(split(node)))
            known = self._left_open[node] = open_to_some and not self._refused(node, device) & Rights.READ
        return known


def _of_allow(rule: Rule) -> Iterator[Finding]:
    wide = [pattern.text for pattern in rule.paths if _is_wide(pattern)]
    if wide:
        yield finding(rule, "wide-path", f"it gives what lies in {texts(wide)}")
    selects = rule.device is not None or rule.devices is not None
    whole = [pattern.text for pattern in rule.paths if _is_all_of_dev(pattern, rule.types)]
    if whole and not selects and rule.types and not rule.types.isdisjoint((FileType.CHAR, FileType.BLOCK)):
        yield finding(rule, "whole-dev", f"it gives every device node in {texts(whole)}")
    never = [pattern.text for pattern in rule.paths if _below(pattern.text, _NEVER_GIVEN)]
    if never:
        yield finding(
            rule, "never-given", f"{texts(never)} lead into procfs or cgroupfs, of which nothing is given"
        )
    sysfs = [
        pattern.text
        for pattern in rule.paths
        if _below(pattern.text, ("/sys",))
        and not _below(pattern.text, _NEVER_GIVEN)
        and (Rights.WRITE & rule.rights or not pattern.literal)
    ]
    if sysfs:
        yield finding(rule, "sysfs", f"it names {texts(sysfs)}")


def _is_wide(pattern: PathPattern) -> bool:
    """Whether it takes in a whole tree near the root, or the files of a directory of the root."""
    if pattern.literal or pattern.text.startswith(HOME) or _is_all_of_dev(pattern, None):
        return False
    root = split(pattern.literal_root)
    if not root:
        return True
    if len(root) >= _LEVELS or pattern.literal_root in _OF_THE_SITE:
        return False
    last = pattern.components[-1]
    takes_all = isinstance(last, Glob) and last.text in _ANY_NAME and len(pattern.components) == len(root) + 1
    return pattern.recursive or takes_all


def _is_all_of_dev(pattern: PathPattern, types: frozenset[FileType] | None) -> bool:
    """Whether it takes in every node of /dev, or every link to those of the one type that its rule is for."""
    if pattern.text in _ALL_OF_DEV:
        return True
    directory, _, name = pattern.text.rpartition("/")
    return name in _ANY_NAME and (
        directory == "/dev"
        or any(directory == _LINKS[kind] for kind in _LINKS if types == frozenset((kind,)))
    )


def _below(text: str, directories: Iterable[str]) -> bool:
    return any(text == one or text.startswith(f"{one}/") for one in directories)


def _by_path(rules: Iterable[Rule]) -> Patterns[Rule]:
    return Patterns((pattern, rule) for rule in rules for pattern in rule.paths if not pattern.variables)


def _names(rule: Rule, node: str) -> bool:
    """Whether the rule is for `node` by its paths, whoever asks."""
    return (not rule.paths or _any_matches(rule.paths, node)) and not _any_matches(rule.except_paths, node)


def _names_by_link(rule: Rule, link: str, node: str) -> bool:
    """Whether an allow is for the character device `node`, asked for by udev's link to it."""
    components = split(link)
    return (
        rule.types == frozenset((FileType.CHAR,))
        and any(not one.recursive and one.matches(components) for one in rule.paths)
        and not _any_matches(rule.except_paths, link)
        and not _any_matches(rule.except_paths, node)
    )


def _any_matches(patterns: Iterable[PathPattern], node: str) -> bool:
    components = split(node)
    return any(pattern.matches(components) for pattern in patterns)


def _selects(rule: Rule, kind: FileType, device: Device) -> bool:
    """Whether the rule is known to be for that device by its type and what it selects."""
    return (
        (rule.types is None or kind in rule.types)
        and (rule.device is None or rule.device.holds(kind, device) is True)
        and (rule.devices is None or any_holds(rule.devices, kind, device) is True)
        and any_holds(rule.except_devices, kind, device) is False
    )


def _may_give(allow: Rule, node: str, device: Device) -> bool:
    """Whether the allow may give the character device `node`."""
    return (
        FileType.CHAR in (allow.types or ())
        and not _any_matches(allow.except_paths, node)
        and (allow.device is None or allow.device.holds(FileType.CHAR, device) is not False)
        and (allow.devices is None or any_holds(allow.devices, FileType.CHAR, device) is not False)
    )


def _may_be_block(types: frozenset[FileType] | None) -> bool:
    return types is None or FileType.BLOCK in types


def _disk_families(pattern: PathPattern) -> set[str]:
    """The families of disks some of which the pattern names."""
    if pattern.variables:
        return set()
    if pattern.literal:
        return {family for family, name in _DISKS.items() if name.fullmatch(pattern.text)}
    if not (pattern.text.startswith(("/dev/", "/*", "/?", "/["))):
        return set()
    return {
        family for family, nodes in _DISK_NODES.items() if any(pattern.matches(split(node)) for node in nodes)
    }
