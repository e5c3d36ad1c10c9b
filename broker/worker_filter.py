"""The worker's system calls: an allow-list, as a seccomp filter.

Rules that this module enforces:
- What the worker's code never does is EPERM, whatever its arguments: new sockets and connections, programs, other
  processes' memory, fds, limits and signals, namespaces, mounts, modules, keys, changes by name, files by handle.
- Opens create nothing and empty nothing. (openat2 has its flags in memory, where a filter cannot see them: there
  the Landlock domain refuses what is created.)
- A pair of connected sockets may be made (for a helper), of the one kind that can be connected to nothing else.
- A child may be forked, with no flag beside. No memory becomes executable any more.
- On its fds the worker makes the few ioctls and fcntls that passing them takes: a device that it opened for a client
  is no device that it may command, and no fd is made to send signals (F_SETOWN).

An error, and not a kill: a worker that meets an unforeseen call (a library's, another version's) loses that call and
not its clients. It is written down by the kernel where `errno` stands in kernel.seccomp.actions_logged.

Only the low 32 bits of an argument count, as for the kernel (`sandboxed.confinement.bpf`). Out of scope: paths, which
are the Landlock domain's. See seccomp(2).
"""

from errno import EPERM

from sandboxed.confinement import bpf, seccomp, syscall_numbers
from sandboxed.confinement.bpf import ALLOW, Row, Rows, differs, equals, has_any, refuse

# Name: number on x86-64, number on 64-bit ARM (arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h).
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # fds: what is open is read, written, looked at and closed.
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "write": (1, 64), "writev": (20, 66), "lseek": (8, 62),
    "close": (3, 57), "close_range": (436, 436), "dup": (32, 23), "fstat": (5, 80), "fstatfs": (138, 44),
    "getdents64": (217, 61), "ioctl": (16, 29), "fcntl": (72, 25),
    # Names: looking and opening.
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "stat": (4, None), "lstat": (6, None),
    "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43), "readlink": (89, None),
    "readlinkat": (267, 78), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "getcwd": (79, 17),
    # Clients' connections, which the supervisor made.
    "recvmsg": (47, 212), "recvfrom": (45, 207), "sendmsg": (46, 211), "sendto": (44, 206), "getsockname": (51, 204),
    "getsockopt": (55, 209), "shutdown": (48, 210), "socketpair": (53, 199),
    # The event loop.
    "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22), "poll": (7, None), "ppoll": (271, 73),
    # Helpers.
    "clone": (56, 220), "set_robust_list": (273, 99), "rseq": (334, 293), "set_tid_address": (218, 96),
    "prctl": (157, 167), "setitimer": (38, 103), "pidfd_open": (434, 434), "wait4": (61, 260), "waitid": (247, 95),
    # Memory, signals to oneself, the clock: what a C library and an interpreter do.
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "restart_syscall": (219, 128), "getpid": (39, 172), "getppid": (110, 173),
    "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "clock_gettime": (228, 113), "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169),
    "getrandom": (318, 278), "futex": (202, 98), "sched_yield": (24, 124), "uname": (63, 160), "sysinfo": (99, 179),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip

# asm-generic/fcntl.h; both architectures agree on these bits, but for O_DIRECT and its neighbours.
_O_CREAT, _O_TRUNC, _O_TMPFILE_BIT = 0o100, 0o1000, 0o20000000
_MAKES_OR_EMPTIES = _O_CREAT | _O_TRUNC | _O_TMPFILE_BIT

_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030

# asm-generic/ioctls.h: FIONBIO, SIOCOUTQ (which is TIOCOUTQ too), FIOCLEX, FIONCLEX.
_IOCTLS = (0x5421, 0x5411, 0x5451, 0x5450)

_AF_UNIX, _SOCK_SEQPACKET, _SOCK_FLAGS = 1, 5, 0o2004000  # SOCK_CLOEXEC | SOCK_NONBLOCK
_SIGCHLD, _CHILD_SETTID, _CHILD_CLEARTID = 17, 0x01000000, 0x00200000
_PROT_EXEC = 0x4
_PR_SET_PDEATHSIG = 1

_REFUSE = refuse(EPERM)


def _only(argument: int, *values: int) -> Rows:
    """The argument is one of `values`."""
    rows: list[Row] = [((equals(argument, value),), ALLOW) for value in values]
    return (*rows, ((), _REFUSE))


def _never(argument: int, bits: int) -> Rows:
    """None of `bits` is set in the argument."""
    return (((has_any(argument, bits),), _REFUSE),)


# Allowed by their arguments: those whose first matching row says so.
JUDGED: dict[str, Rows] = {
    "open": _never(1, _MAKES_OR_EMPTIES),
    "openat": _never(2, _MAKES_OR_EMPTIES),
    "ioctl": _only(1, *_IOCTLS),
    "fcntl": _only(1, _F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_DUPFD_CLOEXEC),
    "socketpair": (
        ((differs(0, _AF_UNIX),), _REFUSE),
        ((differs(1, _SOCK_SEQPACKET, ~_SOCK_FLAGS & 0xFFFFFFFF),), _REFUSE),
    ),
    "clone": (((differs(0, _SIGCHLD, ~(_CHILD_SETTID | _CHILD_CLEARTID) & 0xFFFFFFFF),), _REFUSE),),
    "mmap": _never(2, _PROT_EXEC),
    "mprotect": _never(2, _PROT_EXEC),
    "prctl": _only(0, _PR_SET_PDEATHSIG),
}


def build(architecture: syscall_numbers.Architecture | None = None) -> bytes:
    """The filter for seccomp.install(), for this machine unless another `architecture` is given.

    Raises seccomp.Unavailable on a machine whose system calls are not known here.
    """
    architecture = architecture or syscall_numbers.native()
    if architecture is None:
        raise seccomp.Unavailable(
            "system calls can be filtered on x86-64 and 64-bit ARM, by a 64-bit interpreter"
        )
    column = 0 if architecture is syscall_numbers.ARCHITECTURES["x86_64"] else 1
    numbers = {name: row[column] for name, row in NUMBERS.items()}
    allowed = _ranges(sorted(number for number in numbers.values() if number is not None))
    table: dict[int, Rows] = {}
    for name, rows in JUDGED.items():
        number = numbers[name]
        if number is not None:
            table[number] = rows
    return bpf.assemble(architecture.audit_arch, allowed, table, _REFUSE)


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """The first and the last of each run of neighbours among sorted numbers."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges
