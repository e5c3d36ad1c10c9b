"""Reads policy files: from a path to the set that `policy` understands. Profiles are read with the same care.

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
    """A policy file or profile cannot be read; the message says which and why."""


class PolicyFiles(NamedTuple):
    """What was read, and what was passed over."""

    sources: list[Source]
    ignored: list[str]


def read(path: str) -> PolicyFiles:
    """The policy file `path`, or all of the directory `path`. Raises UnreadablePolicy."""
    try:
        if not os.path.isdir(path):
            return PolicyFiles([read_file(path, POLICY_BYTES)], [])
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        chosen = [name for name in names if _NAME.fullmatch(name)]
        if len(chosen) > POLICY_FILES:
            raise UnreadablePolicy(f"{path}: more than {POLICY_FILES} policy files")
        return PolicyFiles(
            [read_file(os.path.join(path, name), POLICY_BYTES) for name in chosen],
            [name for name in names if not _NAME.fullmatch(name)],
        )
    except OSError as error:
        raise UnreadablePolicy(f"{path}: {error.strerror}") from error


def load_policy(path: str) -> Policy:
    """The policy of a file or directory. Raises UnreadablePolicy, and policy.PolicyError for what it says."""
    return load(read(path).sources)


def read_file(path: str, most_bytes: int) -> Source:
    """One file, named as it is without its directory. Raises UnreadablePolicy.

    Of more than `most_bytes` nothing is returned.
    """
    try:
        # Not a FIFO, not a device: those never end.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UnreadablePolicy(f"{path}: not a regular file")
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise UnreadablePolicy(f"{path}: {error.strerror}") from error
    if len(data) > most_bytes:
        raise UnreadablePolicy(f"{path}: larger than {most_bytes} bytes")
    return Source(os.path.basename(path), data)
