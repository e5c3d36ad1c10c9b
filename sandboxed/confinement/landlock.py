"""A Landlock domain: what a confined process may reach in the file system, decided by the kernel.

Rules that this module enforces:
- Every file system right that the kernel's ABI knows is handled: what no rule allows is refused.
- Where the ABI knows scopes (6 and later), signals and abstract sockets do not leave the domain.
- TCP ports cannot be bound or connected to, if the domain is to refuse that (ABI 4 and later).
- A rule holds for what its path denotes when it is added. A symbolic link as its last component is not
  followed: such a rule is an error or allows nothing.
- No Landlock, no domain: `Unavailable` is raised, nothing is ever skipped in silence.

Out of scope: single ports, UDP and all other families (`seccomp`); stat, chdir, readlink and chmod, and
connecting to socket files, none of which Landlock restricts; and the choice of what to allow, which is the caller's.
See landlock(7).
"""

import os
from enum import IntFlag
from types import TracebackType

from sandboxed import syscalls

# The first ABI that keeps signals and abstract sockets inside the domain (Linux 6.12).
SCOPES_ABI = 6
# The first ABI that knows struct landlock_ruleset_attr.handled_access_net.
_NETWORK_ABI = 4


# LANDLOCK_ACCESS_NET_BIND_TCP and LANDLOCK_ACCESS_NET_CONNECT_TCP
_TCP = 0x3


class Unavailable(RuntimeError):
    """The kernel has no Landlock, or it is switched off."""


class Access(IntFlag):
    """LANDLOCK_ACCESS_FS_*, linux/landlock.h."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class Scope(IntFlag):
    """LANDLOCK_SCOPE_*, linux/landlock.h."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


READ_TREE = Access.EXECUTE | Access.READ_FILE | Access.READ_DIR
# Device nodes cannot be made without CAP_MKNOD, and no device in the tree answers to ioctl.
WRITE_TREE = Access((1 << 16) - 1) & ~(Access.MAKE_CHAR | Access.MAKE_BLOCK | Access.IOCTL_DEV)

# Of the rights, those that a file can have which is no directory.
FILE_ACCESS = Access.EXECUTE | Access.READ_FILE | Access.WRITE_FILE | Access.TRUNCATE | Access.IOCTL_DEV

# Rights by the ABI that brought them.
_SINCE = {1: Access((1 << 13) - 1), 2: Access.REFER, 3: Access.TRUNCATE, 5: Access.IOCTL_DEV}


def handled_access(abi: int) -> Access:
    """Every file system right that `abi` knows."""
    handled = Access(0)
    for since, access in _SINCE.items():
        if since <= abi:
            handled |= access
    return handled


def handled_scopes(abi: int) -> Scope:
    """Every scope that `abi` knows."""
    return Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL if abi >= SCOPES_ABI else Scope(0)


def _attribute_size(abi: int) -> int:
    """How many bytes of struct landlock_ruleset_attr `abi` knows; more of them would be E2BIG."""
    if abi >= SCOPES_ABI:
        return 24
    return 16 if abi >= _NETWORK_ABI else 8


def keep_signals_inside() -> bool:
    """Enter a domain that nothing but signals stay inside of, for ever; False where the kernel cannot (ABI 6).

    kill(2) of every process then means those of the domain, without an instant for one that forks meanwhile.
    """
    if syscalls.landlock_abi() < SCOPES_ABI:
        return False
    # Moving a file to another directory is refused by every domain that does not allow it.
    attributes = syscalls.LandlockRulesetAttr(Access.REFER, 0, Scope.SIGNAL)
    ruleset = syscalls.landlock_create_ruleset(attributes, _attribute_size(SCOPES_ABI))
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.landlock_add_path_beneath(ruleset, root, Access.REFER)
        syscalls.landlock_restrict_self(ruleset)
    finally:
        os.close(root)
        os.close(ruleset)
    return True


class Domain:
    """A domain under construction. It owns the ruleset's fd; use it in a `with` statement.

    Rights that the kernel does not know are left out of the rules: it refuses nothing by them either.
    """

    def __init__(self, *, refuse_tcp: bool = False) -> None:
        self.abi = syscalls.landlock_abi()
        if self.abi == 0:
            raise Unavailable(
                "this kernel does not offer Landlock, and nothing is confined without it; "
                "Linux 5.13 or later with 'landlock' in CONFIG_LSM or the boot parameter 'lsm=' has it"
            )
        self._handled = handled_access(self.abi)
        network = _TCP if refuse_tcp and self.abi >= _NETWORK_ABI else 0
        attributes = syscalls.LandlockRulesetAttr(self._handled, network, handled_scopes(self.abi))
        self._ruleset = syscalls.landlock_create_ruleset(attributes, _attribute_size(self.abi))

    def allow(self, path: str, access: Access) -> None:
        """Allow `access` to the file `path`, or to everything beneath the directory `path`.

        Raises OSError: also EINVAL, for a right that only a directory can have on anything else.
        """
        # No O_DIRECTORY: it would make the kernel mount what an automounter watches.
        parent = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self.allow_fd(parent, access)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}, for {path!r}") from error
        finally:
            os.close(parent)

    def allow_fd(self, fd: int, access: Access) -> None:
        """Allow `access` to the file, or beneath the directory, that `fd` is open on. Raises OSError."""
        syscalls.landlock_add_path_beneath(self._ruleset, fd, access & self._handled)

    def restrict(self) -> None:
        """Confine the calling thread for ever. It must have no_new_privs set."""
        syscalls.landlock_restrict_self(self._ruleset)

    def close(self) -> None:
        """Give the ruleset back; a confined thread stays confined."""
        if self._ruleset >= 0:
            os.close(self._ruleset)
            self._ruleset = -1

    def __enter__(self) -> "Domain":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
