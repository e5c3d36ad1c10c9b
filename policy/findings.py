"""Findings: what a policy that loads may have wrong with it, each under a code that never changes.

The table is the one place that knows the codes: which there are, how grave each is, what it means and what to do.
docs/lint.md has a section for each. What finds them is the subject of `lint` and of the broker, which asks the machine.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .keeping import UNKEPT
from .rules import Rule

ERROR = "error"
"""The rule does something else than it says, to somebody's harm."""
WARNING = "warning"
"""The rule is probably not what was meant."""
NOTE = "note"
"""Something to know; it fails no check."""

# Parts of a list that a message shows of it.
_SHOWN = 4

FAILING = (ERROR, WARNING)


class Code(NamedTuple):
    """What findings of one code have in common."""

    code: str
    severity: str
    meaning: str
    remedy: str
    of_machine: bool = False
    """Whether it depends on the machine, and not on the policy alone."""


class Finding(NamedTuple):
    """One thing that is found about one rule."""

    file: str
    line: int
    rule: str
    code: str
    message: str
    """What is wrong, without a full stop."""
    accepted: bool = False
    """Whether the rule takes it on."""

    @property
    def severity(self) -> str:
        """ERROR, WARNING or NOTE."""
        return CODES[self.code].severity

    @property
    def remedy(self) -> str:
        """What to do."""
        return CODES[self.code].remedy

    @property
    def fails(self) -> bool:
        """Whether a check must not pass over it."""
        return not self.accepted and self.severity in FAILING


def finding(rule: Rule, code: str, message: str) -> Finding:
    """Return the finding of that code about `rule`."""
    return Finding(rule.file, rule.line, rule.id, code, message)


def texts(parts: Iterable[str]) -> str:
    """Return some of `parts` for a message, and how many more there are."""
    known = list(dict.fromkeys(parts))
    more = len(known) - _SHOWN
    return ", ".join(known[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


_UNKEPT = tuple(
    Code(
        code,
        ERROR,
        f"The rule says what this version of the broker does not keep: {instead}.",
        "Leave it out, or accept the code where the rule will do without: no broker serves the policy else.",
    )
    for code, instead in UNKEPT.items()
)

_ALL = (
    # Rules that never decide.
    Code(
        "rule-is-over",
        WARNING,
        "The rule's `until` is past: it gives and refuses nothing any more.",
        "Remove the rule, or give it another 'until'.",
    ),
    Code(
        "shadowed",
        WARNING,
        "Denies refuse all that the allow would give, to all of its clients and on all of its paths.",
        "Remove the allow, or narrow the deny with an exception: a deny wins, whatever the order.",
    ),
    Code(
        "repeated",
        WARNING,
        "Another rule says the same or more, and always goes before it.",
        "Remove one of the two.",
    ),
    Code(
        "paths-all-excepted",
        WARNING,
        "All paths of the rule are among its own exceptions.",
        "Mend 'except_paths', or remove the rule.",
    ),
    Code(
        "clients-all-excepted",
        WARNING,
        "All clients of the allow are among its own exceptions.",
        "Mend 'except_clients', or remove the rule.",
    ),
    Code(
        "devices-all-excepted",
        WARNING,
        "All devices of the allow are among its own exceptions.",
        "Mend 'except_devices', or remove the rule.",
    ),
    Code(
        "no-device-type",
        WARNING,
        "The allow asks for a device that its types, or its groups' types, exclude.",
        "Write 'type: char' or 'type: block', the one that the devices have.",
    ),
    Code(
        "deny-spares-all",
        ERROR,
        "The deny spares all that it is for: it refuses what could not be determined, and nothing that is known.",
        "Mend the exceptions or the types of the deny, or remove it.",
    ),
    Code(
        "never-given",
        WARNING,
        "The allow names what the broker gives to nobody: procfs, cgroupfs, directories, device nodes elsewhere "
        "than on the machine's own devtmpfs and devpts.",
        "Remove the path: a program reads its own /proc by itself.",
    ),
    # Rules that are wider, or narrower, than they look.
    Code(
        "wide-path",
        WARNING,
        "The allow's pattern takes in a large part of the system, with what is added there later.",
        "Name the directory that is meant, at least two levels deep, and add 'except_paths'.",
    ),
    Code(
        "whole-dev",
        WARNING,
        "The allow gives device nodes of every kind: its pattern takes in all of /dev, or all of udev's links by "
        "number in /dev/char or /dev/block, and nothing selects devices.",
        "Say which: by 'devices' with a subsystem and a udev property, or by paths such as \"/dev/ttyUSB*\".",
    ),
    Code(
        "memory-device",
        ERROR,
        "The allow's pattern reaches /dev/mem, /dev/kmem or /dev/port, by that name or by udev's link to it in "
        "/dev/char: all of the machine's memory or ports.",
        "Narrow the paths, or except these nodes, or deny them to everybody.",
    ),
    Code(
        "sysfs",
        WARNING,
        "The allow writes below /sys, or takes in a part of it by a pattern: drivers are bound and machines powered "
        "off by files there.",
        "Name the one attribute that is meant, with its path below /sys/devices, and give 'read' where that will do.",
    ),
    Code(
        "disks-by-path",
        WARNING,
        "The rule names disks by the kernel's names: there are more of them than sd*, and they change owners.",
        "Name disks by 'devices': {type: block, udev: {ID_BUS: usb}}; in a deny 'type: block' without paths, and "
        "/dev/sg* and /dev/bsg/* too.",
    ),
    Code(
        "block-write-not-exclusive",
        ERROR,
        "The allow gives write to block devices without `exclusive`: also to a disk that is mounted, which breaks its "
        "file system.",
        "Add 'exclusive: true' (and accept unkept-exclusive while that is not kept), or say 'type: char' where no "
        "block device is meant.",
    ),
    # Selectors of devices.
    Code(
        "content-selector",
        WARNING,
        "A device is known by what is written on it (labels, UUIDs of file systems and partitions): whoever can write "
        "to a disk makes any disk match, or escape.",
        "Know it by ID_PATH, ID_BUS, ID_VENDOR_ID and ID_MODEL_ID, or by ID_SERIAL_SHORT beside those.",
    ),
    Code(
        "claimed-selector",
        WARNING,
        "A device is known by what it says of itself in free text (serial number, model's and vendor's name): another "
        "one can say the same, and one that is denied can say something else.",
        "Add what it does not choose freely: subsystem, ID_PATH, ID_BUS, ID_VENDOR_ID and ID_MODEL_ID; deny by those.",
    ),
    Code(
        "security-token",
        WARNING,
        "ID_SECURITY_TOKEN is set on keyboards of the same makers too, which type passwords.",
        "Write 'udev: {ID_FIDO_TOKEN: 1}' for FIDO tokens.",
    ),
    Code(
        "wide-selector",
        WARNING,
        "The allow selects devices by their seat or subsystem alone: every keyboard is hidraw, every console is tty.",
        "Add a udev property such as ID_VENDOR_ID or ID_PATH, or paths.",
    ),
    # Clients and terms.
    Code(
        "deny-by-exe",
        WARNING,
        "Clients are kept out by the program that they run: who is kept out runs another one, or the same by another "
        "name.",
        "Keep them out by user, group, unit or label.",
    ),
    Code(
        "connects-as-broker",
        WARNING,
        "The broker connects as itself (`as: broker`): the server at the other end sees root, and not the client.",
        "Leave 'as' out, unless the server must not ask who its client is.",
    ),
    Code(
        "revoke-not-possible",
        ERROR,
        "`revoke: required` stands where nothing revokes: an open file or such a device stays with its holder.",
        "Write 'revoke: try', add 'relay' or 'snapshot', or 'revoke: kill'.",
    ),
    Code(
        "accept-of-nothing",
        WARNING,
        "The rule accepts a finding that it does not have: what was taken on is over.",
        "Remove the code from 'accept'.",
    ),
    # What the machine says.
    Code(
        "unknown-account",
        WARNING,
        "The rule gives something to a user or group that this machine does not have: it gives that to nobody.",
        "Mend the name, or make the account.",
        True,
    ),
    Code(
        "unknown-denied-account",
        ERROR,
        "The rule keeps out a user or group that this machine does not have: it keeps out nobody.",
        "Mend the name, or deny by 'uid' or 'gid', which need no account database.",
        True,
    ),
    Code(
        "deny-below-writable",
        ERROR,
        "A client that the deny is for can write a directory above what it denies, and so give it another name, which "
        "is not denied.",
        "Take the client's write permission from the directory, or deny the directory that only root can change.",
        True,
    ),
    Code(
        "allow-below-writable",
        WARNING,
        "Somebody who is not root can write a directory above what the allow names, and so put something else there.",
        "Move it below directories that only root can change.",
        True,
    ),
    Code(
        "pattern-in-writable",
        WARNING,
        "A client of the allow can write the directory that its pattern is about, and so chooses what the pattern "
        "gives.",
        "Name the files, or take the client's write permission from the directory.",
        True,
    ),
    Code(
        "link-leads-out",
        WARNING,
        "The allow names a link to what the same rule does not name: what a path leads to must match the same rule, "
        "so it gives nothing.",
        "Name what the link leads to as well.",
        True,
    ),
    Code(
        "directory-alone",
        ERROR,
        "A deny or an exception names a directory and not what lies in it, which a rule gives all the same.",
        'Name both: [/srv/secret, "/srv/secret/**"].',
        True,
    ),
    Code(
        "path-of-another-type",
        WARNING,
        "What the allow names is there and has another type than the rule: it gives nothing.",
        "Mend 'type' or the path.",
        True,
    ),
    Code(
        "kernel-cannot-restrict",
        WARNING,
        "The allow leaves out `ioctl` or `truncate`, and this kernel cannot keep a holder from them: its Landlock is "
        "too old.",
        "Run Linux 6.10 or later (6.2 for truncate), or give the descriptor to whom you would give the right.",
        True,
    ),
    Code(
        "right-not-kept",
        NOTE,
        "The allow leaves out `ioctl` or `truncate`: this version checks that when the descriptor is asked for, and "
        "does not keep its holder from them.",
        "Give the descriptor to whom you would give the right.",
        True,
    ),
    Code(
        "path-missing",
        NOTE,
        "What the rule names is not there.",
        "Nothing, when it will be; else mend the path.",
        True,
    ),
    *_UNKEPT,
)

CODES: Mapping[str, Code] = {one.code: one for one in _ALL}
"""Every code, in the order in which the documentation has them."""
