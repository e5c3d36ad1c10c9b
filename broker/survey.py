"""What there is on this machine that a policy may be about: nodes below /dev, files, what patterns come to.

Each object is found by the broker's own walk, once, with O_PATH; nothing is opened but directories, to list them. A
mount that may keep whoever enters it waiting is not entered. What is bounded says so where it is cut.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from broker.devicefacts import DeviceFacts
from broker.found import DEVICES, device_systems, never_given, object_of
from broker.outside import Permissions, Way, WayUnknown, way_to
from broker.walk import MayBlock, Walked, Walker, WalkFailed, WalkRefused
from policy import PathPattern
from policy.access import Subject
from policy.paths import shape_fault
from policy.patterns import Glob

# Objects that one pattern is taken to; a home directory has more files than anybody reads about.
OBJECTS_PER_PATTERN = 500

# Names that are read below one pattern, or below /dev, to find them.
NAMES_PER_SEARCH = 50_000

_DEV = "/dev"
_NODES = (stat.S_IFCHR, stat.S_IFBLK)

ABSENT = "not there"
REFUSED = "given to nobody"
UNKNOWN = "not known"

Identity = tuple[int, int, int]


class Seen(NamedTuple):
    """An object that was found."""

    subject: Subject
    number: tuple[int, int] | None
    way: Way | None
    """None: a directory above it could not be looked at."""
    refusal: str
    """Why the broker gives it to nobody, whatever the policy says; or nothing."""
    identities: frozenset[Identity]
    """Two objects that share one are the same."""
    links: int = 1
    """How many hard links it has."""


class Unseen(NamedTuple):
    """A path that led to nothing that could be looked at."""

    path: str
    why: str
    what: str
    """ABSENT, REFUSED (by the broker, whatever the policy says) or UNKNOWN."""


class Survey:
    """Looks at objects, and keeps what was found of the directories above them."""

    def __init__(self, facts: DeviceFacts, literals: Iterable[str] = ()) -> None:
        """`literals` are paths that may be other names of objects. Raises OSError where /proc is not mounted."""
        self._walker = Walker()
        self._facts = facts
        self._systems = device_systems()
        self._directories: dict[str, Permissions] = {}
        self.unknown: list[str] = []
        """What could not be determined and matters to more than one object."""
        self._literals: dict[Identity, set[str]] = {}
        for name in sorted(literals):
            self._add_literal(name)

    def close(self) -> None:
        """Close what is held for looking."""
        self._walker.close()

    def _add_literal(self, name: str) -> None:
        try:
            walked = self._walker.walk(name)
        except WalkFailed as failure:
            if _is_for_want_of_rights(failure):
                why = f"{os.strerror(failure.errno)}, for you, uid {os.geteuid()}"
                self.unknown.append(f"{name} may be another name of something: {why}")
            return
        except WalkRefused:
            return
        except MayBlock:
            self.unknown.append(f"{name} may be another name of something: a mount there may not answer")
            return
        os.close(walked.fd)
        for identity in _identities(walked.status):
            self._literals.setdefault(identity, set()).add(name)

    def look(self, path: str) -> Seen | Unseen:
        """What `path` leads to."""
        fault = shape_fault(path)
        if fault:
            return Unseen(path, f"no request can be for it: {fault}", REFUSED)
        try:
            walked = self._walker.walk(path)
        except WalkRefused as refusal:
            return Unseen(path, str(refusal), REFUSED)
        except MayBlock as block:
            return Unseen(path, f"{block} is a mount that may keep whoever enters it waiting", UNKNOWN)
        except WalkFailed as failure:
            where = "" if failure.name == path else f"{failure.name}: "
            why = f"{where}{os.strerror(failure.errno)}"
            if _is_for_want_of_rights(failure):
                return Unseen(path, f"{why}, for you, uid {os.geteuid()}", UNKNOWN)
            return Unseen(path, why, ABSENT)
        try:
            return self._seen(path, walked)
        finally:
            os.close(walked.fd)

    def _seen(self, path: str, walked: Walked) -> Seen:
        found = self._facts.all_of(object_of(walked, walked.names), walked)
        number = walked.status.st_rdev if found.type in DEVICES else None
        identities = _identities(walked.status)
        known = {path, found.path, *found.names}
        same = {name for one in identities for name in self._literals.get(one, ())} - known
        try:
            way = way_to(self._walker, walked, self._directories)
        except WayUnknown:
            way = None
        return Seen(
            Subject(path, found, frozenset(same), walked.linked_by_others),
            None if number is None else (os.major(number), os.minor(number)),
            way,
            never_given(walked, found.type, self._systems),
            identities,
            walked.status.st_nlink,
        )

    def expand(self, pattern: PathPattern) -> tuple[list[str], bool]:
        """The paths that there are of those that `pattern` matches, and whether there are more than are told.

        One that holds a variable is expanded before. A literal one is told whether there is such a path or not.
        """
        budget = _Budget(NAMES_PER_SEARCH)
        found = list(
            islice(self._expanded("", pattern.components, pattern.recursive, budget), OBJECTS_PER_PATTERN + 1)
        )
        return found[:OBJECTS_PER_PATTERN], budget.is_spent or len(found) > OBJECTS_PER_PATTERN

    def _expanded(
        self, base: str, parts: Sequence[str | Glob], recursive: bool, budget: "_Budget"
    ) -> Iterator[str]:
        if not parts:
            if recursive:
                for name, is_directory in self._listed(base or "/", budget):
                    yield f"{base}/{name}"
                    if is_directory:
                        yield from self._expanded(f"{base}/{name}", (), True, budget)
            else:
                yield base
            return
        first, rest = parts[0], parts[1:]
        if isinstance(first, str):
            yield from self._expanded(f"{base}/{first}", rest, recursive, budget)
            return
        for name, is_directory in self._listed(base or "/", budget):
            if first.matches(name) and (is_directory or not (rest or recursive)):
                yield from self._expanded(f"{base}/{name}", rest, recursive, budget)

    def _listed(self, directory: str, budget: "_Budget") -> Iterator[tuple[str, bool]]:
        """The names in a directory, each with whether it is one itself; links are not followed."""
        try:
            fd = self._opened(directory)
        except (MayBlock, WalkFailed, WalkRefused, OSError) as error:
            if not (isinstance(error, WalkFailed) and error.errno in (errno.ENOENT, errno.ENOTDIR)):
                self.unknown.append(f"what lies in {directory}: it cannot be listed")
            return
        try:
            with os.scandir(fd) as entries:
                found = [
                    (entry.name, entry.is_dir(follow_symlinks=False)) for entry in budget.spent_on(entries)
                ]
        finally:
            os.close(fd)
        yield from sorted(found)

    def _opened(self, directory: str) -> int:
        if directory == "/":
            return os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        walked = self._walker.walk(directory)
        try:
            if not stat.S_ISDIR(walked.status.st_mode):
                raise WalkFailed(errno.ENOTDIR, directory, 0)
            return os.open(f"/proc/self/fd/{walked.fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(walked.fd)


def nodes_below_dev() -> tuple[list[str], bool]:
    """The device nodes below /dev and the links below it to such, and whether there are more than are told."""
    try:
        systems = device_systems() | {os.stat(_DEV).st_dev}
    except OSError:
        return [], False
    names = list(islice(_below(_DEV, systems), NAMES_PER_SEARCH + 1))
    return sorted(filter(_leads_to_node, names[:NAMES_PER_SEARCH])), len(names) > NAMES_PER_SEARCH


class _Budget:
    """How many names may still be read in one search."""

    def __init__(self, names: int) -> None:
        self._left = names
        self.is_spent = False

    def spent_on(self, entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        for entry in entries:
            if not self._left:
                self.is_spent = True
                return
            self._left -= 1
            yield entry


def _below(directory: str, systems: frozenset[int]) -> Iterator[str]:
    """Every name below `directory` on these file systems."""
    try:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        yield entry.path
        try:
            if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev in systems:
                yield from _below(entry.path, systems)
        except OSError:
            continue  # it is gone


def _leads_to_node(path: str) -> bool:
    try:
        return stat.S_IFMT(os.stat(path).st_mode) in _NODES and not path.startswith("/dev/fd/")
    except OSError:
        return False


def _identities(status: os.stat_result) -> frozenset[Identity]:
    kind = stat.S_IFMT(status.st_mode)
    own = (0, status.st_dev, status.st_ino)
    return frozenset((own, (kind, status.st_rdev, 0)) if kind in _NODES else (own,))


def _is_for_want_of_rights(failure: WalkFailed) -> bool:
    return failure.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0
