"""Reads policy files: from a path, or from the system's directories, to the set that `policy` understands.

Rules that this module enforces:
- a directory's files are those whose names end in .yaml; a name that is no policy file's is reported, not read;
- of the files of one name in several tiers only the highest is read; an empty one, or a link to /dev/null, leaves
  nothing of the others;
- what is read can be changed by nobody but root and the broker's own user (`trust`).

Nothing falls back: a file that is there and cannot be read, and a link that leads nowhere, are problems of the set;
and so is a directory that changes meanwhile, for its files may be of two minds.
Profiles are read with the same care, but for the last.
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from broker.limits import POLICY_BYTES, POLICY_FILES
from broker.trust import Entry, LeadsNowhere, TrustWalk, reopened, shown_path
from policy import PolicyError, PolicySet, Problem, Source, counting, load_set

# Lowest first: of packages, of this boot, of the administrator.
TIERS = ("/usr/share/fdbroker/policy.d", "/run/fdbroker/policy.d", "/etc/fdbroker/policy.d")

NAMES = "[A-Za-z0-9][A-Za-z0-9._-]*.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.yaml")
_NULL_DEVICE = os.makedev(1, 3)

Loaded = TypeVar("Loaded")


class UnreadablePolicy(Exception):
    """What was named as a policy or a profile cannot be read; the message says which and why."""


class PolicyFile(NamedTuple):
    """A file of a set."""

    name: str
    tier: int
    path: str


class PolicyFiles(NamedTuple):
    """What was read, and what was passed over."""

    sources: list[Source]
    ignored: list[str]
    """Paths with names that are no policy file's."""
    problems: list[Problem]
    """What is wrong with files and directories as a whole."""
    files: list[PolicyFile]
    """Those that count, lowest tier first."""
    replaced: list[tuple[PolicyFile, PolicyFile]]
    """Those that do not, each with the one of a higher tier that counts."""


def read_paths(
    paths: Sequence[str], drafts: Sequence[Source] = (), *, judges_trust: bool = True
) -> PolicyFiles:
    """Read files, and all policy files of directories, as one set of one tier, with `drafts` in place of their names.

    Without `judges_trust` nothing is said of who else could change a file. Raises UnreadablePolicy.
    """
    with _Reading() as reading:
        for path in paths:
            reading.add(path)
        return _some(_with_drafts(reading.read(judges_trust), drafts), paths)


def read_tiers(drafts: Sequence[Source] = ()) -> PolicyFiles:
    """Read the system's set: what packages, this boot and the administrator say. Raises UnreadablePolicy.

    `drafts` count as the administrator's files of their names.
    """
    with _Reading() as reading:
        for tier, directory in enumerate(TIERS):
            reading.add_tier(tier, directory)
        highest = [draft._replace(tier=len(TIERS) - 1) for draft in drafts]
        return _some(_with_drafts(reading.read(), highest), TIERS[::-1])


def _with_drafts(files: PolicyFiles, drafts: Sequence[Source]) -> PolicyFiles:
    names = {draft.name for draft in drafts}
    if not names:
        return files
    # What is wrong with a file that would be another one then is not wrong with the set.
    gone = {shown_path(file.path) for file in files.files if file.name in names}
    return PolicyFiles(
        [source for source in files.sources if source.name not in names] + list(drafts),
        files.ignored,
        [problem for problem in files.problems if problem.file not in gone],
        [file for file in files.files if file.name not in names]
        + [PolicyFile(draft.name, draft.tier, draft.name) for draft in drafts],
        files.replaced,
    )


def _some(files: PolicyFiles, places: Sequence[str]) -> PolicyFiles:
    # A broker without a policy denies everything, which nobody who starts one can mean.
    if not files.files and not files.problems:
        ignored = f" (ignored by their names: {', '.join(files.ignored)})" if files.ignored else ""
        raise UnreadablePolicy(f"there is no policy: no file NAME.yaml lies in {', '.join(places)}{ignored}")
    return files


def load_files(files: PolicyFiles) -> PolicySet:
    """Return the set that was read. Raises policy.PolicyError with all that is wrong with it."""
    return load_files_by(load_set, files)


def load_files_by(load: Callable[[list[Source]], Loaded], files: PolicyFiles) -> Loaded:
    """Return what `load` makes of the set that was read. Raises policy.PolicyError with all that is wrong with it."""
    try:
        loaded = load(files.sources)
    except PolicyError as error:
        raise PolicyError([*files.problems, *error.problems]) from None
    if files.problems:
        raise PolicyError(files.problems)
    return loaded


def read_file(path: str, most_bytes: int) -> Source:
    """One file, named as it is without its directory, whoever may write it. Raises UnreadablePolicy.

    Of more than `most_bytes` nothing is returned.
    """
    try:
        # Not a FIFO, not a device: those never end.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        return Source(os.path.basename(path), _content(fd, most_bytes))
    except _Unfit as error:
        raise UnreadablePolicy(f"{path}: {error}") from None
    except OSError as error:
        raise UnreadablePolicy(f"{path}: {error.strerror}") from error


def is_name(name: str) -> bool:
    """Tell whether a file of this name in a directory of policies is read as one."""
    return _NAME.fullmatch(name) is not None


class _Unfit(Exception):
    """A file that is no policy file, whatever it holds."""


class _Candidate(NamedTuple):
    name: str
    tier: int
    directory: Entry
    path: str


class _Reading(contextlib.ExitStack):
    """One reading of a set: first all names, then the files that count."""

    def __init__(self) -> None:
        super().__init__()
        self._walk = TrustWalk()
        self._candidates: list[_Candidate] = []
        self._directories: dict[str, Entry] = {}
        self._files = PolicyFiles([], [], [], [], [])

    def add(self, path: str) -> None:
        """Take in the file or the directory `path`. Raises UnreadablePolicy."""
        try:
            entry = self._find(path)
            if stat.S_ISDIR(entry.status.st_mode):
                self._add_names(entry, 0, path)
            else:
                file = PolicyFile(shown_path(os.path.basename(path)), 0, path)
                self._files.sources.append(Source(file.name, _text(entry)))
                self._files.files.append(file)
        except _Unfit as error:
            raise UnreadablePolicy(f"{path}: {error}") from None
        except OSError as error:
            raise UnreadablePolicy(f"{path}: {error.strerror}") from error

    def add_tier(self, tier: int, path: str) -> None:
        """Take in the directory `path`, if there is one. Raises UnreadablePolicy for too many files."""
        try:
            entry = self._find(path)
        except FileNotFoundError as error:
            if isinstance(error, LeadsNowhere):
                self._blame(path, error)
            return
        except OSError as error:
            self._blame(path, error)
            return
        try:
            self._add_names(entry, tier, path)
        except OSError as error:
            self._blame(path, error)

    def read(self, judges_trust: bool = True) -> PolicyFiles:
        """Return what was taken in, read."""
        files, replaced = counting(self._candidates)
        for file in files:
            self._read(file)
        for path, directory in self._directories.items():
            if os.fstat(directory.fd).st_mtime_ns != directory.status.st_mtime_ns:
                self._blame(path, _Unfit("changed while it was read: try again"))
        self._files.replaced.extend((_file(one), _file(by)) for one, by in replaced)
        if judges_trust:
            self._files.problems.extend(self._walk.problems())
        return self._files

    def _find(self, path: str, start: Entry | None = None) -> Entry:
        entry = self._walk.find(path, start)
        self.callback(os.close, entry.fd)
        return entry

    def _add_names(self, directory: Entry, tier: int, path: str) -> None:
        self._directories[path] = directory
        names = [name for name in self._walk.names(directory) if not name.startswith(".")]
        for name in names:
            one = os.path.join(path, name)
            if _NAME.fullmatch(name):
                self._candidates.append(_Candidate(name, tier, directory, one))
            else:
                self._files.ignored.append(shown_path(one))
        if len(self._candidates) > POLICY_FILES:
            raise UnreadablePolicy(f"{path}: more than {POLICY_FILES} policy files")

    def _read(self, file: _Candidate) -> None:
        self._files.files.append(_file(file))
        try:
            entry = self._walk.find(file.name, file.directory)
            try:
                is_mask = stat.S_ISCHR(entry.status.st_mode) and entry.status.st_rdev == _NULL_DEVICE
                text = b"" if is_mask else _text(entry)
                self._files.sources.append(Source(file.name, text, file.tier))
            finally:
                os.close(entry.fd)
        except (OSError, _Unfit) as error:
            self._blame(file.path, error)

    def _blame(self, path: str, error: OSError | _Unfit) -> None:
        what = error.strerror if isinstance(error, OSError) else str(error)
        self._files.problems.append(Problem(shown_path(path), 0, 0, str(what)))


def _file(candidate: _Candidate) -> PolicyFile:
    return PolicyFile(candidate.name, candidate.tier, candidate.path)


def _text(entry: Entry) -> bytes:
    if not stat.S_ISREG(entry.status.st_mode):
        raise _Unfit("not a regular file")
    return _content(reopened(entry), POLICY_BYTES)


def _content(fd: int, most_bytes: int) -> bytes:
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _Unfit("not a regular file")
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise _Unfit(f"larger than {most_bytes} bytes")
    return data
