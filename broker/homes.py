"""Which directory is a peer's home: what the account database says, if the file system agrees.

Many system accounts "live" in /, /dev or /bin, and a user may own a link to anywhere. A home counts when it is a
directory of that uid and no link is on the way to it; the policy adds that it must lie two levels deep. A home on
a mount that may not answer (NFS, FUSE) is not looked at: the one who accepts clients must never wait.
"""

import os
import stat

from broker.walk import MayBlock, Walker, WalkFailed, WalkRefused
from policy.paths import shape_fault


class Homes:
    """Tells whether a directory is somebody's home."""

    def __init__(self) -> None:
        """Raises OSError where /proc is not mounted."""
        self._walker = Walker()

    def close(self) -> None:
        """Close what is held for looking."""
        self._walker.close()

    def checked(self, directory: str, uid: int) -> str | None:
        """`directory`, if it is a home that `uid` owns; None if it is not, or nobody can tell."""
        if shape_fault(directory):
            return None
        try:
            walked = self._walker.walk(directory)
        except (MayBlock, WalkFailed, WalkRefused):
            return None
        os.close(walked.fd)
        is_own = stat.S_ISDIR(walked.status.st_mode) and walked.status.st_uid == uid
        return directory if is_own and walked.path == directory and not walked.ends_in_link else None
