"""Lint that asks this machine: accounts, directories that others can write, what paths lead to, and the kernel.

Paths are walked as the broker walks them, with O_PATH; nothing is opened. What cannot be looked at (another user's
directory, a mount that may not answer) is told as unseen, and never taken for good or bad.
"""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from broker.account_database import AccountDatabase
from broker.found import TYPES, device_systems, never_given
from broker.lint_directories import MISSING, Directories, Writers
from broker.lint_trees import Trees
from broker.records import printable
from broker.walk import MayBlock, Walked, Walker, WalkFailed, WalkRefused
from policy import ALLOW, FileType, Rights, Rule
from policy.clients import Clients
from policy.devices import DEVICE_TYPES
from policy.findings import Finding, finding, texts
from policy.paths import split
from policy.patterns import PathPattern
from sandboxed.syscalls import landlock_abi

# The first Landlock ABIs that can keep the holder of a descriptor from these (Linux 6.2 and 6.10); landlock(7).
_TRUNCATE_ABI = 3
_IOCTL_ABI = 5

_DEVICES = "/dev/"


class MachineLint(NamedTuple):
    """What the machine says of a policy."""

    findings: list[Finding]
    unseen: list[str]
    """What could not be looked at, each with the reason."""


def ask_machine(rules: Iterable[Rule]) -> MachineLint:
    """Return what this machine says of `rules`. OSError where /proc is not mounted."""
    walker = Walker()
    try:
        listed = list(rules)
        machine = _Machine(walker, listed)
        found: list[Finding] = []
        for rule in listed:
            found += machine.findings(rule)
        return MachineLint(found, list(machine.unseen))
    finally:
        walker.close()


class _Machine:
    """This machine, looked at for a set of rules."""

    def __init__(self, walker: Walker, rules: Iterable[Rule]) -> None:
        self._walker = walker
        self._trees = Trees(rules)
        self._accounts = AccountDatabase()
        self._directories = Directories(walker)
        self._systems = device_systems()
        self._abi = landlock_abi()
        self.unseen: dict[str, None] = {}

    def findings(self, rule: Rule) -> Iterator[Finding]:
        yield from self._unknown_accounts(rule)
        yield from self._writable(rule)
        yield from self._literals(rule)
        yield from self._directories_alone(rule)
        yield from self._kernel(rule)

    def _unknown_accounts(self, rule: Rule) -> Iterator[Finding]:
        is_allow = rule.action == ALLOW
        for clients, code in (
            (rule.clients, "unknown-account" if is_allow else "unknown-denied-account"),
            (rule.except_clients, "unknown-denied-account" if is_allow else "unknown-account"),
        ):
            missing = self._missing(clients)
            if missing:
                yield finding(rule, code, f"there is no {texts(missing)}")

    def _missing(self, clients: Clients) -> list[str]:
        users = {name for client in clients for name in client.users or ()}
        groups = {name for client in clients for name in client.groups or ()}
        return [f"user {name}" for name in self._accounts.missing_users(users)] + [
            f"group {name}" for name in self._accounts.missing_groups(groups)
        ]

    def _writable(self, rule: Rule) -> Iterator[Finding]:
        above: dict[Writers, None] = {}
        inside: dict[Writers, None] = {}
        for pattern in rule.paths:
            if pattern.variables and pattern.literal_root == "/":
                continue  # nothing literal in it is a directory of somebody's
            try:
                start = pattern.text if pattern.literal else pattern.literal_root
                above.update(dict.fromkeys(self._directories.above(start)))
                if not pattern.literal:
                    writers = self._directories.of(pattern.literal_root)
                    inside.update({writers: None} if writers else {})
            except (MayBlock, WalkRefused, WalkFailed) as reason:
                self._not_seen(reason)
        if rule.action != ALLOW:
            theirs = [str(one) for one in (above | inside) if one.may_be_among(rule.clients, self._accounts)]
            if theirs:
                yield finding(rule, "deny-below-writable", texts(theirs))
            return
        if above:
            yield finding(rule, "allow-below-writable", texts(map(str, above)))
        theirs = [str(one) for one in inside if one.may_be_among(rule.clients, self._accounts)]
        if theirs:
            yield finding(rule, "pattern-in-writable", texts(theirs))

    def _literals(self, rule: Rule) -> Iterator[Finding]:
        told: dict[str, list[str]] = {}
        for pattern in rule.paths:
            if pattern.literal:
                for code, what in self._about_literal(rule, pattern):
                    told.setdefault(code, []).append(what)
        for code, parts in told.items():
            yield finding(rule, code, texts(parts))

    def _about_literal(self, rule: Rule, pattern: PathPattern) -> Iterator[tuple[str, str]]:
        try:
            walked = self._walker.walk(pattern.text)
        except WalkFailed as failure:
            if failure.errno not in MISSING:
                self._not_seen(failure)
                return
            target = printable(failure.name)
            missing = pattern.text if not failure.links else f"{target}, to which {pattern.text} leads,"
            yield "path-missing", f"{missing} is not there"
        except WalkRefused as refusal:
            if rule.action == ALLOW:
                yield "never-given", f"{pattern.text}: {refusal}"
        except MayBlock as reason:
            self._not_seen(reason)
        else:
            try:
                yield from self._about_object(rule, pattern, walked) if rule.action == ALLOW else ()
            finally:
                os.close(walked.fd)

    def _about_object(self, rule: Rule, pattern: PathPattern, walked: Walked) -> Iterator[tuple[str, str]]:
        kind = next((kind for mode, kind in TYPES.items() if mode == walked.status.st_mode & 0o170000), None)
        if kind is not None and kind not in (rule.types or ()):
            yield "path-of-another-type", f"{pattern.text} is of type {kind.value}"
            return
        refusal = never_given(walked, kind, self._systems)
        is_listed = kind is FileType.DIRECTORY and bool(rule.rights & Rights.LIST)
        if refusal and not is_listed:
            yield "never-given", f"{pattern.text}: {refusal}"
        elif not _is_named(rule, walked, kind):
            yield "link-leads-out", f"{pattern.text} leads to {printable(walked.path)}"

    def _directories_alone(self, rule: Rule) -> Iterator[Finding]:
        alone = [path for path in self._trees.leaves_open(rule) if self._is_directory(path)]
        if alone:
            yield finding(rule, "directory-alone", f"{texts(alone)}: what lies in it is given all the same")

    def _is_directory(self, path: str) -> bool:
        try:
            walked = self._walker.walk(path)
        except (WalkFailed, WalkRefused):
            return False  # what is not there, or not seen, is told of elsewhere
        except MayBlock as reason:
            self._not_seen(reason)
            return False
        os.close(walked.fd)
        return TYPES.get(walked.status.st_mode & 0o170000) is FileType.DIRECTORY

    def _kernel(self, rule: Rule) -> Iterator[Finding]:
        if rule.action != ALLOW:
            return
        types = rule.types or ()
        open_to: dict[str, int] = {}
        if not rule.rights & Rights.IOCTL and not DEVICE_TYPES.isdisjoint(types):
            open_to["ioctl"] = _IOCTL_ABI
        if rule.rights & Rights.WRITE and not rule.rights & Rights.TRUNCATE and FileType.FILE in types:
            open_to["truncate"] = _TRUNCATE_ABI
        beyond = [right for right, abi in open_to.items() if abi > self._abi]
        if beyond:
            has = f"has Landlock ABI {self._abi}" if self._abi else "has no Landlock"
            needs = max(open_to[right] for right in beyond)
            what = f"{' and '.join(beyond)}: this kernel {has}, and ABI {needs} is needed"
            yield finding(rule, "kernel-cannot-restrict", what)
        elif open_to:
            yield finding(
                rule, "right-not-kept", f"who has the descriptor can {' and '.join(open_to)} all the same"
            )

    def _not_seen(self, reason: MayBlock | WalkRefused | WalkFailed) -> None:
        if isinstance(reason, WalkFailed):
            what = f"{printable(reason.name)}: {os.strerror(reason.errno)}"
        elif isinstance(reason, MayBlock):
            what = f"{printable(str(reason))}: a mount that may keep whoever enters it waiting"
        else:
            return  # never given, which is a finding of its own
        self.unseen[what] = None


def _is_named(rule: Rule, walked: Walked, kind: FileType | None) -> bool:
    """Whether the rule names what was found, or may be given it by udev's link to it."""
    components = split(walked.path)
    if any(pattern.matches(components) for pattern in rule.paths) or any(one.variables for one in rule.paths):
        return True
    by_link = walked.last_link and walked.link_guarded and walked.path.startswith(_DEVICES)
    return by_link and kind in DEVICE_TYPES and rule.types == frozenset((kind,))
