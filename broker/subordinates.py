"""Whose subordinate uids a uid is among, by /etc/subuid (subuid(5)).

A user may run processes under these (newuidmap(1)), so a deny of the user must hold for them. The file is read
again when it has changed. Ranges that come from elsewhere (a `subid` line of nsswitch.conf) are not known here.
"""

import errno
import os
import pwd
import re
from typing import NamedTuple

SUBUID = "/etc/subuid"
# Characters of the file: a hundred thousand users. Of a longer one nothing is known.
_SUBUID_BYTES = 4 * 1024 * 1024

_RANGE = re.compile(r"([^:\s]+):([0-9]{1,10}):([0-9]{1,10})", re.ASCII)


class Owners(NamedTuple):
    """The users among whose subordinate uids one is; None for what is not known."""

    names: frozenset[str] | None
    uids: frozenset[int] | None


_NOBODY = Owners(frozenset(), frozenset())
_UNKNOWN = Owners(None, None)


class Subordinates:
    """The ranges of the file."""

    def __init__(self, path: str = SUBUID) -> None:
        self._path = path
        self._read_as: tuple[int, ...] = ()
        self._ranges: list[tuple[str, int, int]] = []

    def owners(self, uid: int) -> Owners:
        """Those whose subordinate `uid` is. A file that is not there names nobody."""
        try:
            self._read()
        except FileNotFoundError:
            return _NOBODY
        except OSError:
            return _UNKNOWN
        owners = {owner for owner, first, count in self._ranges if first <= uid < first + count}
        return _resolved(owners) if owners else _NOBODY

    def ranges(self) -> list[tuple[int, int]]:
        """The first and the last uid of each range; none where the file cannot be read."""
        try:
            self._read()
        except OSError:
            return []
        return [(first, first + count - 1) for _, first, count in self._ranges if count]

    def _read(self) -> None:
        status = os.stat(self._path)
        read_as = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if read_as == self._read_as:
            return
        with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_SUBUID_BYTES + 1)
        if len(text) > _SUBUID_BYTES:
            # The owner may stand in the rest: nobody is taken for nobody's.
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self._path)
        matches = map(_RANGE.fullmatch, map(str.strip, text.splitlines()))
        self._ranges = [(match[1], int(match[2]), int(match[3])) for match in matches if match]
        self._read_as = read_as


def _resolved(owners: set[str]) -> Owners:
    """The names and the numbers of users that the file has by either."""
    names: set[str] = set()
    uids: set[int] = set()
    known = True
    for owner in owners:
        if owner.isascii() and owner.isdecimal():
            uids.add(int(owner))
            continue
        names.add(owner)
        try:
            uids.add(pwd.getpwnam(owner).pw_uid)
        except (KeyError, OSError):
            known = False  # it may be an account that cannot be looked up now
    return Owners(frozenset(names), frozenset(uids) if known else None)
