"""Reads policy files: from a path to the set that `policy` understands.

A directory's files are those whose names end in .yaml; a name that is no policy file's is reported, not read.
"""

import os
import re
import stat
from typing import NamedTuple

from broker.limits import POLICY_BYTES, POLICY_FILES
from policy import Policy, Source, load

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.yaml")


class UnreadablePolicy(Exception):
    """A policy file cannot be read; the message says which and why."""


class PolicyFiles(NamedTuple):
    """What was read, and what was passed over."""

    sources: list[Source]
    ignored: list[str]


def read(path: str) -> PolicyFiles:
    """The policy file `path`, or all of the directory `path`. Raises UnreadablePolicy."""
    try:
        if not os.path.isdir(path):
            return PolicyFiles([_source(path)], [])
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        chosen = [name for name in names if _NAME.fullmatch(name)]
        if len(chosen) > POLICY_FILES:
            raise UnreadablePolicy(f"{path}: more than {POLICY_FILES} policy files")
        return PolicyFiles(
            [_source(os.path.join(path, name)) for name in chosen],
            [name for name in names if not _NAME.fullmatch(name)],
        )
    except OSError as error:
        raise UnreadablePolicy(f"{error.filename or path}: {error.strerror}") from error


def load_policy(path: str) -> Policy:
    """The policy of a file or directory. Raises UnreadablePolicy, and policy.PolicyError for what it says."""
    return load(read(path).sources)


def _source(path: str) -> Source:
    # Not a FIFO, not a device: those never end.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UnreadablePolicy(f"{path}: not a regular file")
        data = file.read(POLICY_BYTES + 1)
    if len(data) > POLICY_BYTES:
        raise UnreadablePolicy(f"{path}: larger than {POLICY_BYTES} bytes")
    return Source(os.path.basename(path), data)
