"""The system calls that no kept library wraps whole.

One small function per call, named after it. Each raises OSError with the call and its arguments in the
message, so that a log line says what was tried. Flags that are always right (O_CLOEXEC, O_NOCTTY) are
forced here. Policy, retries and the meaning of a failure belong to the callers.
"""

import ctypes
import errno
import functools
import os
from collections.abc import Iterable

# x86-64 and every architecture that got its numbers after 2011 share these (asm-generic/unistd.h).
_NR_CLOSE_RANGE = 436
_NR_OPENAT2 = 437
_NR_LANDLOCK_CREATE_RULESET = 444
_NR_LANDLOCK_ADD_RULE = 445
_NR_LANDLOCK_RESTRICT_SELF = 446

# One call that is older: by the machine's name in uname(2).
_NR_SECCOMP = {"x86_64": 317, "aarch64": 277}

AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000

# linux/stat.h
_STATX_BTIME = 0x800

# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

# linux/prctl.h, those that python-prctl does not have
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/seccomp.h
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_GET_ACTION_AVAIL = 2
# Without it older kernels slow all of the process down, against a speculation that no secret here is worth.
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2

LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1

libc = ctypes.CDLL(None, use_errno=True)
syscall = libc.syscall
syscall.restype = ctypes.c_long


def failed(call: str, error: int | None = None) -> OSError:
    """The OSError for a call that set errno, or for `error`: the call and its arguments stand in the message."""
    error = ctypes.get_errno() if error is None else error
    return OSError(error, f"{call}: {os.strerror(error)}")


class _OpenHow(ctypes.Structure):
    """struct open_how, linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


# openat2 is on the path of every open that the broker makes: keeping the interpreter's lock (PyDLL), plain
# int arguments and no errno save a third of the call's cost. An fd fits into an int.
_quick_syscall = ctypes.PyDLL(None).syscall
OPEN_HOW_SIZE = ctypes.sizeof(_OpenHow)
_hows: dict[tuple[int, int, int], object] = {}


def open_how(flags: int, resolve: int, mode: int = 0) -> object:
    """The last argument of openat2, to be made once and used often.

    O_CLOEXEC and O_NOCTTY are always added (not to O_PATH, which refuses O_NOCTTY).
    """
    key = (flags, resolve, mode)
    how = _hows.get(key)
    if how is None:
        forced = os.O_CLOEXEC if flags & os.O_PATH else os.O_CLOEXEC | os.O_NOCTTY
        how = _hows[key] = ctypes.byref(_OpenHow(flags | forced, mode, resolve))
    return how


def openat2(directory: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` relative to the fd `directory` and return the new fd; see openat2(2) and open_how()."""
    how = open_how(flags, resolve, mode)
    fd: int = syscall(ctypes.c_long(_NR_OPENAT2), directory, path, how, ctypes.c_size_t(OPEN_HOW_SIZE))
    if fd < 0:
        raise failed(f"openat2({directory}, {path!r}, flags={flags:#o}, resolve={resolve:#x})")
    return fd


# openat2_or_negative(directory, path, how, OPEN_HOW_SIZE): the same with a prepared open_how(), and without a
# reason when it fails. No function of ours stands around it: it is called for every open.
openat2_or_negative = functools.partial(_quick_syscall, _NR_OPENAT2)


class _StatFs(ctypes.Structure):
    """struct statfs of the 64-bit architectures, as far as it is needed; the tail is room for the rest."""

    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_char * 248))


_fstatfs = libc.fstatfs
_fstatfs.argtypes = (ctypes.c_int, ctypes.POINTER(_StatFs))


def fstatfs_type(fd: int) -> int:
    """The magic number of the file system that `fd` lies on; see statfs(2)."""
    answer = _StatFs()
    if _fstatfs(fd, ctypes.byref(answer)) != 0:
        raise failed(f"fstatfs({fd})")
    magic: int = answer.f_type
    return magic & 0xFFFFFFFF


class _StatX(ctypes.Structure):
    """struct statx of statx(2), as far as it is needed; the tail is room for the rest."""

    _fields_ = (
        ("stx_mask", ctypes.c_uint32),
        ("before", ctypes.c_byte * 76),
        ("stx_btime_sec", ctypes.c_int64),
        ("stx_btime_nsec", ctypes.c_uint32),
        ("after", ctypes.c_byte * 164),
    )


def statx_birth(fd: int) -> int | None:
    """When the object behind `fd` (O_PATH will do) was made, in ns since 1970; None where nobody keeps that.

    See statx(2); tmpfs and devtmpfs keep it since Linux 5.19.
    """
    buffer = _StatX()
    if libc.statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, ctypes.byref(buffer)) != 0:
        raise failed(f"statx({fd}, STATX_BTIME)")
    if not buffer.stx_mask & _STATX_BTIME:
        return None
    return int(buffer.stx_btime_sec) * 1_000_000_000 + int(buffer.stx_btime_nsec)


def close_range(first: int, last: int) -> None:
    """Close every fd from `first` to `last`, both included; see close_range(2)."""
    if syscall(ctypes.c_long(_NR_CLOSE_RANGE), ctypes.c_uint(first), ctypes.c_uint(last), 0) != 0:
        raise failed(f"close_range({first}, {last})")


def close_all_but(keep: Iterable[int]) -> None:
    """Close every fd of this process except those in `keep`."""
    first = 0
    for fd in sorted(set(keep)):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first, 0xFFFFFFFF)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2), for the options that python-prctl does not have."""
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    result: int = libc.prctl(ctypes.c_int(option), *padded)
    if result < 0:
        raise failed(f"prctl({option}, {', '.join(map(str, arguments))})")
    return result


def get_child_subreaper() -> bool:
    """Whether this process gets the children of its descendants that end; PR_GET_CHILD_SUBREAPER in prctl(2)."""
    answer = ctypes.c_int()
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    return bool(answer.value)


# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000


def unshare(flags: int) -> None:
    """Leave namespaces for new ones of our own; see unshare(2)."""
    if libc.unshare(ctypes.c_int(flags)) != 0:
        raise failed(f"unshare({flags:#x})")


_SIGSET_BYTES = 128
_SFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK


def signalfd(signals: Iterable[int]) -> int:
    """A non-blocking fd that yields a 128-byte signalfd_siginfo for each of `signals`; see signalfd(2).

    The caller blocks the signals first (signal.pthread_sigmask).
    """
    mask = 0
    for number in signals:
        mask |= 1 << (number - 1)
    sigset = ctypes.create_string_buffer(mask.to_bytes(_SIGSET_BYTES, "little"), _SIGSET_BYTES)
    fd: int = libc.signalfd(-1, sigset, _SFD_FLAGS)
    if fd < 0:
        raise failed("signalfd(-1)")
    return fd


_getsockopt = libc.getsockopt


def getsockopt_bytes(fd: int, level: int, option: int, size: int) -> bytes:
    """Like socket.getsockopt, for answers of more than the 1,024 bytes that CPython allows there."""
    buffer = ctypes.create_string_buffer(size)
    length = ctypes.c_uint(size)
    if _getsockopt(fd, level, option, buffer, ctypes.byref(length)) != 0:
        raise failed(f"getsockopt({fd}, {level}, {option}, {size})")
    return buffer.raw[: length.value]


class LandlockRulesetAttr(ctypes.Structure):
    """struct landlock_ruleset_attr, linux/landlock.h (ABI 6)."""

    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _LandlockPathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def landlock_abi() -> int:
    """The kernel's Landlock ABI, 0 where Landlock is not built in or not switched on."""
    version: int = syscall(
        ctypes.c_long(_NR_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION
    )
    return max(version, 0)


def landlock_create_ruleset(attr: LandlockRulesetAttr, size: int) -> int:
    """A new ruleset's fd. `size` is what the kernel's ABI knows of `attr`; see landlock_create_ruleset(2)."""
    fd: int = syscall(
        ctypes.c_long(_NR_LANDLOCK_CREATE_RULESET), ctypes.byref(attr), ctypes.c_size_t(size), 0
    )
    if fd < 0:
        raise failed(f"landlock_create_ruleset(fs={attr.handled_access_fs:#x}, size={size})")
    return fd


def landlock_add_path_beneath(ruleset: int, parent: int, access: int) -> None:
    """Allow `access` below the O_PATH fd `parent`; see landlock_add_rule(2)."""
    attr = _LandlockPathBeneathAttr(access, parent)
    result = syscall(
        ctypes.c_long(_NR_LANDLOCK_ADD_RULE), ruleset, LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(attr), 0
    )
    if result != 0:
        raise failed(f"landlock_add_rule({ruleset}, {parent}, {access:#x})")


def landlock_restrict_self(ruleset: int) -> None:
    """Confine this thread for ever; needs no_new_privs. See landlock_restrict_self(2)."""
    if syscall(ctypes.c_long(_NR_LANDLOCK_RESTRICT_SELF), ruleset, 0) != 0:
        raise failed(f"landlock_restrict_self({ruleset})")


class _SockFprog(ctypes.Structure):
    """struct sock_fprog, linux/filter.h."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_SOCK_FILTER_BYTES = 8


def _seccomp(operation: int, flags: int, argument: object) -> int:
    number = _NR_SECCOMP.get(os.uname().machine)
    if number is None:
        ctypes.set_errno(errno.ENOSYS)
        return -1
    result: int = syscall(ctypes.c_long(number), ctypes.c_uint(operation), ctypes.c_uint(flags), argument)
    return result


def seccomp_get_action_avail(action: int) -> bool:
    """Whether the kernel has seccomp filters that can answer `action`; see seccomp(2)."""
    return _seccomp(_SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(action))) == 0


def seccomp_set_filter(program: bytes, flags: int) -> None:
    """Filter this thread's system calls for ever; needs no_new_privs. See seccomp(2).

    `program` is an array of struct sock_filter, linux/filter.h.
    """
    count = len(program) // _SOCK_FILTER_BYTES
    if _seccomp(_SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(_SockFprog(count, program))) != 0:
        raise failed(f"seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {count} instructions)")
