"""The worker's Landlock domain: what a policy reaches, with what its rules give there, and nothing else.

Rules that this module enforces:
- Every right that the kernel's ABI knows is handled. Nothing is given that makes, removes, renames or runs anything.
- Where a rule reads, writes or commands, so does the domain, on that file, node or tree. A fd that is opened in a
  domain without truncating or device ioctls has lost them for ever, in the client too: so they come with writing
  and with every device.
- What knows devices (sysfs, udev's database) can be read, if the policy asks for more than numbers.

To walk takes no right: O_PATH, fstat and readlink are free of Landlock, and an object that was found is opened by its
own rule, not by one on /proc. See landlock(7).
"""

import errno
import os

from broker.permissions import READ, WRITE
from broker.walk import encoded
from broker.worker_reach import Reach
from sandboxed.confinement.landlock import Access, Domain
from sandboxed.syscalls import AT_FDCWD, RESOLVE_NO_SYMLINKS, openat2

_DEVICE_FACTS = ("/sys", "/run/udev/data")


def build(reach: Reach, needs_device_facts: bool) -> Domain:
    """The domain, to be entered by restrict(). What went meanwhile is left out. Raises OSError."""
    domain = Domain(refuse_tcp=True)
    try:
        for directory, permissions in _outermost(reach.trees).items():
            # Devices in a tree are those of /dev/pts, and those that a rule for any type gives.
            _allow(domain, directory, _access(permissions) | Access.IOCTL_DEV)
        for path, permissions in reach.files.items():
            _allow(domain, path, _access(permissions))
        for path, permissions in reach.nodes.items():
            _allow(domain, path, _access(permissions) | Access.IOCTL_DEV)
        for directory in _DEVICE_FACTS if needs_device_facts else ():
            _allow(domain, directory, Access.READ_FILE | Access.READ_DIR)
    except BaseException:
        domain.close()
        raise
    return domain


def _access(permissions: int) -> Access:
    access = Access.READ_FILE if permissions & READ else Access(0)
    return access | Access.WRITE_FILE | Access.TRUNCATE if permissions & WRITE else access


def _allow(domain: Domain, path: str, access: Access) -> None:
    try:
        # Whoever may change names on the way must not lead this elsewhere.
        fd = openat2(AT_FDCWD, encoded(path), os.O_PATH | os.O_NOFOLLOW, RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            raise
        return
    try:
        domain.allow_fd(fd, access)
    finally:
        os.close(fd)


def _outermost(trees: dict[str, int]) -> dict[str, int]:
    """Leave out what lies below another tree that gives as much: large policies name many."""
    found: dict[str, int] = {}
    for directory in sorted(trees, key=len):
        permissions, above = trees[directory], directory
        while above != "/":
            above = above.rpartition("/")[0] or "/"
            permissions &= ~found.get(above, 0)
        if permissions:
            found[directory] = trees[directory]
    return found
