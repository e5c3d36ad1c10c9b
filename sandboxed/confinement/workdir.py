"""A directory for a confined program on the disk, where it can have none in memory; and its removal.

Rules that this module enforces: it is fresh, nobody else's, and gone at the end, whatever malice filled it.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Seconds. A process that the program left behind can make files for as long as it likes.
REMOVAL_SECONDS = 10.0


@contextmanager
def work_directory(uid: int | None, gid: int | None) -> Iterator[str]:
    """A fresh directory of mode 0700 that belongs to `uid` and `gid` (None: the caller), removed at the end.

    It lies below /tmp, or an ordinary user's TMPDIR. Raises OSError, also when it cannot be emptied.
    """
    base = os.environ.get("TMPDIR", "") if os.geteuid() != 0 else ""
    path = os.path.join(base if os.path.isabs(base) else "/tmp", f"fdbroker-{os.urandom(8).hex()}")
    os.mkdir(path, 0o700)
    maker = os.getpid()
    try:
        if uid is not None and gid is not None:
            os.chown(path, uid, gid, follow_symlinks=False)
        yield path
    finally:
        # A confined half that was forked from here has this frame too.
        if os.getpid() == maker:
            remove_tree(path)


def remove_tree(path: str) -> None:
    """Remove a directory that its owner may have filled with malice. No link is followed.

    Directories below it are emptied into it before they go, so that a depth that no path can name and
    no recursion can bear costs nothing. Raises OSError if something stays after REMOVAL_SECONDS.
    """
    deadline = time.monotonic() + REMOVAL_SECONDS
    top = _open_writable_directory(None, path)
    try:
        while names := os.listdir(top):
            for name in names:
                # One entry's failure, or its disappearance, is no reason to leave the others.
                with suppress(OSError):
                    if not _remove(top, name):
                        _lift_contents(top, name)
            if time.monotonic() > deadline:
                raise OSError(errno.ENOTEMPTY, "cannot remove everything in", path)
    finally:
        os.close(top)
    os.rmdir(path)


def _open_writable_directory(parent: int | None, name: str) -> int:
    """Open the directory `name`, for whose owner nothing may be forbidden: an ordinary user needs that."""
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    handle = os.open(name, flags | os.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", flags | os.O_RDONLY, dir_fd=handle)
    finally:
        os.close(handle)


def _remove(directory: int, name: str) -> bool:
    """Remove a file or an empty directory; False if it is a directory with something in it."""
    with suppress(IsADirectoryError):
        os.unlink(name, dir_fd=directory)
        return True
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _lift_contents(top: int, name: str) -> None:
    """Empty the directory `name` of `top`, moving what has contents of its own into `top`."""
    directory = _open_writable_directory(top, name)
    try:
        for child in os.listdir(directory):
            if not _remove(directory, child):
                # Moving a directory writes to it: its ".." changes.
                os.close(_open_writable_directory(directory, child))
                os.rename(child, f"lifted-{os.urandom(8).hex()}", src_dir_fd=directory, dst_dir_fd=top)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)
