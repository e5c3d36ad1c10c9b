"""The seccomp filter, by the kernel: each call is made for real, with the filter and without.

Without the filter a call has to end in another way, or the test proves nothing: where this machine refuses it
in the same words anyway (an ordinary user's reboot, a call that the kernel was built without) the test is
skipped. The arguments are such that nothing happens where no filter stops them, to root's machine neither.

Everything happens in children. 64-bit ARM is decided by the interpreter in test_bpf.
"""

import ctypes
import errno
import mmap
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxed import syscalls
from sandboxed.confinement import landlock, seccomp, syscall_numbers
from sandboxed.confinement.bpf import ALLOW, refuse

NATIVE = syscall_numbers.native()
if NATIVE is None or not seccomp.available():
    pytest.skip("no seccomp filters here", allow_module_level=True)
NUMBERS = NATIVE.numbers()
# Calls that the filter leaves alone and the tests make, by x86-64 and 64-bit ARM.
COLUMN = list(syscall_numbers.ARCHITECTURES.values()).index(NATIVE)
NUMBERS |= {
    name: row[COLUMN]
    for name, row in {
        "getppid": (110, 173),
        "adjtimex": (159, 171),
        "clock_adjtime": (305, 266),
        "futex": (202, 98),
        "getrandom": (318, 278),
        "memfd_create": (319, 279),
        "pidfd_open": (434, 434),
        "landlock_create_ruleset": (444, 444),
        "seccomp": (317, 277),
        "rseq": (334, 293),
        "vmsplice": (278, 75),
        "mseal": (462, 462),
        "file_getattr": (468, 468),
        "close_range": (436, 436),
    }.items()
}

PR_SET_NO_NEW_PRIVS = 38
TREE = Path(__file__).resolve().parent.parent.parent
STRICTEST = seccomp.build(unix_sockets=False, internet=False)
WIDEST = seccomp.build(unix_sockets=True, internet=True)
PROGRAMS = {
    (unix, internet): seccomp.build(unix_sockets=unix, internet=internet)
    for unix in (False, True)
    for internet in (False, True)
}

# No address that a process has: EFAULT, if the kernel comes as far as that.
NOWHERE = 1
BIT_32 = 1 << 32
NO_FD = -1

Argument = int | bytes | Callable[[], int]
Call = tuple[str | int, tuple[Argument, ...]]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def confine(program: bytes) -> None:
    syscalls.prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(program)


def in_child(act: Callable[[], int], program: bytes | None) -> int:
    """What `act` returns in a process and a session of its own, behind the filter `program`; 0 to 254."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            os.setsid()
            if program is not None:
                confine(program)
            status = act()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def made(call: Call) -> int:
    """The errno of a system call, 0 if it succeeds."""
    name, arguments = call
    number = name if isinstance(name, int) else NUMBERS[name]
    values: list[object] = []
    for argument in arguments:
        value = argument() if callable(argument) else argument
        values.append(value if isinstance(value, bytes) else ctypes.c_ulong(value & (1 << 64) - 1))
    result: int = _libc.syscall(ctypes.c_long(number), *values)
    return ctypes.get_errno() if result == -1 else 0


def outcome(call: Call, program: bytes | None) -> int:
    return in_child(lambda: made(call), program)


def shown(call: Call) -> str:
    name, arguments = call
    words = [argument.__name__ if callable(argument) else str(argument) for argument in arguments]
    return f"{name}({', '.join(words)})"


def here(calls: list[tuple[Call, int]]) -> list[object]:
    """Those that this architecture has."""
    known = [(call, expected) for call, expected in calls if isinstance(call[0], int) or call[0] in NUMBERS]
    return [pytest.param(call, expected, id=shown(call)) for call, expected in known]


def assert_refused(call: Call, expected: int, program: bytes) -> None:
    words = {0: "success", **errno.errorcode}
    assert words[outcome(call, program)] == words[expected]
    if outcome(call, None) == expected:
        pytest.skip(f"without the filter it is {words[expected]} too")


def parent() -> int:
    return os.getppid()


def own() -> int:
    return os.getpid()


def parent_with_bit_32() -> int:
    return BIT_32 | os.getppid()


# One call of each name in seccomp.REFUSED; invalid in a way that the kernel notices before it does anything.
REFUSED_CALLS: dict[str, tuple[Argument, ...]] = {
    "_sysctl": (NOWHERE,),
    "acct": (NOWHERE,),
    "add_key": (NOWHERE, NOWHERE, 0, 0, 0),
    "bpf": (9999, 0, 0),
    "chroot": (NOWHERE,),
    "clone3": (NOWHERE, 0),
    "delete_module": (NOWHERE, os.O_NONBLOCK),
    "fanotify_init": (0xFFFFFFFF, 0),
    "finit_module": (NO_FD, NOWHERE, 0xFFFF),
    "fsconfig": (NO_FD, 99, 0, 0, 0),
    "fsmount": (NO_FD, 99, 0),
    "fsopen": (NOWHERE, 99),
    "fspick": (NO_FD, NOWHERE, 0xFFFF),
    "init_module": (NOWHERE, 0, NOWHERE),
    "io_setup": (1, NOWHERE),
    "io_uring_enter": (NO_FD, 0, 0, 0, 0, 0),
    "io_uring_register": (NO_FD, 99, 0, 0),
    "io_uring_setup": (0, NOWHERE),
    "ioperm": (0x20000, 1, 0),
    "iopl": (9,),
    "kcmp": (0, 0, 0, 0, 0),
    "kexec_file_load": (NO_FD, NO_FD, 0, 0, 0xFFFF),
    "kexec_load": (0, 0, 0, 0xFF),
    "keyctl": (9999, 0, 0, 0, 0),
    "listmount": (NOWHERE, NOWHERE, 0, 99),
    "lookup_dcookie": (0, 0, 0),
    "migrate_pages": (0, 0, 0, 0),
    "modify_ldt": (99, 0, 0),
    "mount": (NOWHERE, NOWHERE, NOWHERE, 0, NOWHERE),
    "mount_setattr": (NO_FD, NOWHERE, 0xFFFFFF00, 0, 0),
    "move_mount": (NO_FD, NOWHERE, NO_FD, NOWHERE, 0xFFFF0000),
    "move_pages": (0, 0, 0, 0, 0, 99),
    "mq_open": (NOWHERE, 0, 0, 0),
    "mq_unlink": (NOWHERE,),
    "msgctl": (NO_FD, 99, 0),
    "msgget": (0x7FFFFFFF, 0),
    "msgrcv": (NO_FD, 0, 0, 0, 0),
    "msgsnd": (NO_FD, NOWHERE, 0, 0),
    "name_to_handle_at": (NO_FD, NOWHERE, NOWHERE, NOWHERE, 0xFFFF0000),
    "nfsservctl": (0, 0, 0),
    "open_by_handle_at": (NO_FD, NOWHERE, 0),
    "open_tree": (NO_FD, NOWHERE, 0),
    "open_tree_attr": (NO_FD, NOWHERE, 0, 0, 0),
    "openat2": (NO_FD, NOWHERE, NOWHERE, 0),
    "perf_event_open": (NOWHERE, 0, 0, 0, 0xFFFF),
    "pidfd_getfd": (NO_FD, 0, 99),
    "pivot_root": (NOWHERE, NOWHERE),
    "process_madvise": (NO_FD, 0, 0, 0, 99),
    "process_mrelease": (NO_FD, 99),
    "process_vm_readv": (0, 0, 0, 0, 0, 99),
    "process_vm_writev": (0, 0, 0, 0, 0, 99),
    "ptrace": (0, 0, 0, 0),
    "quotactl": (0xFF, NOWHERE, 0, 0),
    "quotactl_fd": (NO_FD, 0xFF, 0, 0),
    "reboot": (0, 0, 0, 0),
    "remap_file_pages": (1, 0, 0, 0, 0),
    "request_key": (NOWHERE, NOWHERE, 0, 0),
    "semctl": (NO_FD, 0, 99, 0),
    "semget": (0, -1, 0),
    "semop": (NO_FD, NOWHERE, 0),
    "semtimedop": (NO_FD, NOWHERE, 0, 0),
    "set_mempolicy_home_node": (0, 0, 0, 1),
    "setdomainname": (NOWHERE, -1),
    "sethostname": (NOWHERE, -1),
    "setns": (NO_FD, 0),
    "settimeofday": (NOWHERE, 0),
    "shmat": (NO_FD, 0, 0),
    "shmctl": (NO_FD, 99, 0),
    "shmdt": (NOWHERE,),
    "shmget": (0, 0, 0),
    "statmount": (NOWHERE, NOWHERE, 0, 99),
    "swapoff": (NOWHERE,),
    "swapon": (NOWHERE, 0x80000000),
    "sysfs": (99, 0, 0),
    "syslog": (99, 0, 0),
    "umount2": (NOWHERE, 0xFFFF0000),
    "uselib": (NOWHERE,),
    "userfaultfd": (0xFFFF,),
    "ustat": (0, NOWHERE),
    "vhangup": (),  # of the child's own terminal, and setsid() left it none
}

CLONE_NEW = {
    "TIME": 0x80,
    "NS": 0x20000,
    "CGROUP": 0x02000000,
    "UTS": 0x04000000,
    "IPC": 0x08000000,
    "USER": 0x10000000,
    "PID": 0x20000000,
    "NET": 0x40000000,
}
TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD = 0x5412, 0x541C, 0x541D, 0x5423
TIOCGWINSZ, FIONREAD = 0x5413, 0x541B
CREATE = os.O_CREAT | os.O_WRONLY
TMPFILE = os.O_TMPFILE | os.O_WRONLY
UNUSED_UID = 4_000_000_000
REGULAR = 0o100000
SOL_TCP, TCP_NODELAY, TCP_ULP = 6, 1, 31
PR_SCHED_CORE = 62
ADDR_NO_RANDOMIZE = 0x0040000

JUDGED_REFUSALS: list[tuple[Call, int]] = [
    *(((("unshare", (flag,)), errno.EPERM)) for flag in CLONE_NEW.values()),
    (("unshare", (CLONE_NEW["USER"] | 0x200,)), errno.EPERM),
    *(
        (("clone", (flag | signal.SIGCHLD, 0, 0, 0, 0)), errno.EPERM)
        for name, flag in CLONE_NEW.items()
        if name != "TIME"
    ),
    (("clone", (BIT_32 | CLONE_NEW["USER"] | signal.SIGCHLD, 0, 0, 0, 0)), errno.EPERM),
    *(
        (("ioctl", (NO_FD, high | request, 0)), errno.EPERM)
        for request in (TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD)
        for high in (0, BIT_32, 0xFFFFFFFF << 32)
    ),
    *(
        ((name, (pid, *rest)), errno.EPERM)
        for pid in (parent, parent_with_bit_32, own)
        for name, rest in {
            "prlimit64": (0, 0, 0),
            "sched_setaffinity": (0, 0),
            "sched_setscheduler": (0, NOWHERE),
            "sched_setparam": (NOWHERE,),
            "sched_setattr": (NOWHERE, 0),
            "get_robust_list": (NOWHERE, NOWHERE),
        }.items()
    ),
    (("fcntl", (NO_FD, 1024, 0)), errno.EPERM),  # F_SETLEASE
    (("fcntl", (NO_FD, BIT_32 | 1024, 0)), errno.EPERM),
    (("fcntl", (NO_FD, 1040, 0)), errno.EPERM),  # F_SETDELEG
    # Told that it worked: the limit of core dumps. Both halves of the address count.
    (("setrlimit", (resource.RLIMIT_CORE, NOWHERE)), 0),
    (("setrlimit", (BIT_32 | resource.RLIMIT_CORE, NOWHERE)), 0),
    (("prlimit64", (0, resource.RLIMIT_CORE, NOWHERE, 0)), 0),
    (("prlimit64", (0, resource.RLIMIT_CORE, BIT_32, 0)), 0),
    (("setpriority", (0, own, 0)), errno.EPERM),
    (("setpriority", (0, BIT_32 | UNUSED_UID, 0)), errno.EPERM),
    (("setpriority", (1, 0, 0)), errno.EPERM),
    (("setpriority", (BIT_32 | 1, 0, 0)), errno.EPERM),
    (("setpriority", (2, UNUSED_UID, 0)), errno.EPERM),
    (("ioprio_set", (1, own, 0)), errno.EPERM),
    (("ioprio_set", (2, 0, 0)), errno.EPERM),
    (("ioprio_set", (3, UNUSED_UID, 0)), errno.EPERM),
    (("prctl", (PR_SCHED_CORE, 0, own, 0, NOWHERE)), errno.EPERM),
    (("personality", (ADDR_NO_RANDOMIZE,)), errno.EPERM),
    (("personality", (BIT_32 | ADDR_NO_RANDOMIZE,)), errno.EPERM),
    (("clock_settime", (0, NOWHERE)), errno.EPERM),
    (("clock_settime", (BIT_32, NOWHERE)), errno.EPERM),
    (("setsockopt", (NO_FD, SOL_TCP, TCP_ULP, 0, 0)), errno.ENOPROTOOPT),
    (("setsockopt", (NO_FD, BIT_32 | SOL_TCP, BIT_32 | TCP_ULP, 0, 0)), errno.ENOPROTOOPT),
    *(
        ((name, (*before, high | mode, 0)), errno.EPERM)
        for mode in (0o4755, 0o2755, 0o6000)
        for high in (0, BIT_32)
        for name, before in {
            "chmod": (NOWHERE,),
            "fchmod": (NO_FD,),
            "fchmodat": (NO_FD, NOWHERE),
            "fchmodat2": (NO_FD, NOWHERE),
            "mkdir": (NOWHERE,),
            "mkdirat": (NO_FD, NOWHERE),
            "mknod": (NOWHERE,),
            "mknodat": (NO_FD, NOWHERE),
            "creat": (NOWHERE,),
            "open": (NOWHERE, CREATE),
            "openat": (NO_FD, NOWHERE, CREATE),
        }.items()
    ),
    (("mknodat", (NO_FD, NOWHERE, REGULAR | 0o4755, 0)), errno.EPERM),
    (("open", (NOWHERE, TMPFILE, 0o4755)), errno.EPERM),
    (("openat", (NO_FD, NOWHERE, TMPFILE, 0o2755)), errno.EPERM),
    (("openat", (NO_FD, NOWHERE, BIT_32 | CREATE, 0o2755)), errno.EPERM),
]

# These have to end as they do without the filter.
ALLOWED_CALLS: list[Call] = [
    ("clone", (signal.SIGCHLD, 0, 0, 0, 0)),
    ("unshare", (0x200,)),  # CLONE_FS
    ("ioctl", (NO_FD, TIOCGWINSZ, 0)),
    ("ioctl", (NO_FD, FIONREAD, TIOCSTI)),
    ("fcntl", (NO_FD, 1025, 0)),  # F_GETLEASE
    ("fcntl", (0, 1, 0)),  # F_GETFD
    ("prlimit64", (0, 0, 0, 0)),
    ("prlimit64", (0, resource.RLIMIT_CORE, 0, NOWHERE)),
    ("setrlimit", (resource.RLIMIT_NOFILE, NOWHERE)),
    ("prlimit64", (BIT_32, 0, 0, 0)),
    ("sched_setaffinity", (0, 0, 0)),
    ("sched_setscheduler", (0, 0, NOWHERE)),
    ("sched_setparam", (0, NOWHERE)),
    ("sched_setattr", (0, NOWHERE, 0)),
    ("get_robust_list", (0, NOWHERE, NOWHERE)),
    ("setpriority", (0, 0, 19)),
    ("ioprio_set", (1, 0, 0)),
    ("personality", (0,)),
    ("personality", (0xFFFFFFFF,)),
    ("clock_settime", (~5 << 3 | 3, NOWHERE)),  # the clock of the fd 5
    ("adjtimex", (NOWHERE,)),
    ("clock_adjtime", (0, NOWHERE)),
    ("setsockopt", (NO_FD, SOL_TCP, TCP_NODELAY, 0, 0)),
    ("setsockopt", (NO_FD, 1, TCP_ULP, 0, 0)),
    ("chmod", (NOWHERE, 0o1777)),
    ("fchmod", (NO_FD, 0o755)),
    ("fchmodat", (NO_FD, NOWHERE, 0o755)),
    ("mkdir", (NOWHERE, 0o777)),
    ("mknod", (NOWHERE, 0o10644, 0)),  # a FIFO
    ("creat", (NOWHERE, 0o666)),
    ("open", (NOWHERE, CREATE, 0o666)),
    ("open", (NOWHERE, os.O_RDONLY, 0o6755)),
    ("open", (NOWHERE, os.O_RDONLY | os.O_DIRECTORY, 0o6755)),
    ("openat", (NO_FD, NOWHERE, CREATE, 0o666)),
    ("openat", (NO_FD, NOWHERE, os.O_RDWR, 0o6755)),
    ("getppid", ()),
    ("futex", (NOWHERE, 1, 0, 0, 0, 0)),
    ("getrandom", (NOWHERE, 0, 0)),
    ("memfd_create", (b"name", 0)),
    ("pidfd_open", (own, 0)),
    ("landlock_create_ruleset", (0, 0, 1)),
    ("seccomp", (99, 0, 0)),
    ("rseq", (0, 0, 99, 0)),
    ("vmsplice", (NO_FD, 0, 0, 0)),
    ("mseal", (0, 0, 99)),
    ("file_getattr", (NO_FD, NOWHERE, NOWHERE, 0, 0)),
    ("close_range", (5, 4, 0)),
]

UNIX, INET, INET6, NETLINK = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK
STREAM, DGRAM, RAW, SEQPACKET = 1, 2, 3, 5
TCP, UDP, ICMP, ICMPV6, SCTP, UDPLITE, MPTCP = 6, 17, 1, 58, 132, 136, 262
AF_PACKET, AF_KEY, AF_ALG, AF_CAN, AF_BLUETOOTH, AF_VSOCK, AF_XDP = 17, 15, 38, 29, 31, 40, 44
NETLINK_SOCK_DIAG, NETLINK_NETFILTER, NETLINK_KOBJECT_UEVENT = 4, 12, 15
CLOEXEC_NONBLOCK = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK

# Family, type, protocol; the filters that let it through, as (unix_sockets, internet).
EVERY = frozenset(PROGRAMS)
WITH_UNIX = frozenset(choice for choice in PROGRAMS if choice[0])
WITH_INTERNET = frozenset(choice for choice in PROGRAMS if choice[1])
NONE: frozenset[tuple[bool, bool]] = frozenset()
SOCKETS = [
    (UNIX, STREAM, 0, WITH_UNIX),
    (UNIX, DGRAM | CLOEXEC_NONBLOCK, 0, WITH_UNIX),
    (BIT_32 | UNIX, STREAM, 0, WITH_UNIX),
    (UNIX, RAW, 0, WITH_UNIX),
    *(
        row
        for family in (INET, INET6)
        for row in (
            (family, STREAM, 0, WITH_INTERNET),
            (family, STREAM | CLOEXEC_NONBLOCK, TCP, WITH_INTERNET),
            (family, DGRAM | CLOEXEC_NONBLOCK, 0, WITH_INTERNET),
            (BIT_32 | family, BIT_32 | DGRAM, BIT_32 | UDP, WITH_INTERNET),
            (family, STREAM, MPTCP, NONE),
            (family, STREAM, SCTP, NONE),
            (family, STREAM, BIT_32 | MPTCP, NONE),
            (family, DGRAM, UDPLITE, NONE),
            (family, DGRAM, ICMP, NONE),
            (family, DGRAM, ICMPV6, NONE),
            (family, RAW, ICMP, NONE),
            (family, RAW, UDP, NONE),
            (family, SEQPACKET, 0, NONE),
            (family, SEQPACKET, SCTP, NONE),
            (family, 10, 3, NONE),  # SOCK_PACKET, which the kernel turns into AF_PACKET
            (BIT_32 | family, RAW, TCP, NONE),
        )
    ),
    (NETLINK, RAW | CLOEXEC_NONBLOCK, 0, WITH_INTERNET),
    (NETLINK, DGRAM, 0, WITH_INTERNET),
    *(
        (NETLINK, RAW, protocol, NONE)
        for protocol in (NETLINK_SOCK_DIAG, NETLINK_NETFILTER, NETLINK_KOBJECT_UEVENT, BIT_32 | 4)
    ),
    *((family, RAW, 0, NONE) for family in (AF_PACKET, BIT_32 | AF_PACKET, AF_KEY, AF_BLUETOOTH)),
    *((family, STREAM, 0, NONE) for family in (AF_VSOCK, BIT_32 | AF_VSOCK, AF_XDP, 46, 200)),
    (AF_ALG, SEQPACKET, 0, NONE),
    (AF_CAN, RAW, 1, NONE),
]


def test_refused_calls_are_all_made_here() -> None:
    names = {name for _, names in seccomp.REFUSED for name in names.split()}
    assert names == set(REFUSED_CALLS)
    assert names & set(seccomp.JUDGED) == set()


def test_judged_calls_are_all_made_here() -> None:
    assert {call[0] for call, _ in JUDGED_REFUSALS} == set(seccomp.JUDGED)


def test_rules_name_only_calls_with_a_number_and_each_number_is_of_a_rule() -> None:
    rules = seccomp.rules(unix_sockets=False, internet=False, attributes=False)
    known = {name for machine in syscall_numbers.ARCHITECTURES.values() for name in machine.numbers()}
    assert set(rules) == known


@pytest.mark.parametrize(
    ("call", "expected"),
    here(
        [
            ((name, REFUSED_CALLS[name]), expected)
            for expected, names in seccomp.REFUSED
            for name in names.split()
        ]
    ),
)
def test_program_is_refused_a_call_whatever_its_arguments(call: Call, expected: int) -> None:
    assert_refused(call, expected, WIDEST)


@pytest.mark.parametrize("call", [name for name in seccomp._BY_NAME.split() if name in NUMBERS])
def test_program_changes_no_attribute_by_name_when_the_filter_says_so(call: str) -> None:
    # Without the filter the kernel has looked at the address that leads nowhere: EFAULT, or EINVAL before that.
    at_directory = call.endswith("at") or call.endswith("at2") or call == "file_setattr"
    arguments = (-100, NOWHERE, NOWHERE, 0, 0, 0) if at_directory else (NOWHERE, NOWHERE, 0, 0, 0, 0)
    assert_refused(
        (call, arguments), errno.EPERM, seccomp.build(unix_sockets=True, internet=True, attributes=False)
    )


@pytest.mark.parametrize(("call", "expected"), here(JUDGED_REFUSALS))
def test_program_is_refused_a_call_when_its_arguments_are(call: Call, expected: int) -> None:
    assert_refused(call, expected, WIDEST)


@pytest.mark.parametrize(("call", "_"), here([(call, 0) for call in ALLOWED_CALLS]))
def test_program_sees_no_difference_when_a_call_is_allowed(call: Call, _: int) -> None:
    assert outcome(call, STRICTEST) == outcome(call, None)


@pytest.mark.parametrize(("family", "kind", "protocol", "passing"), SOCKETS)
def test_program_opens_a_socket_only_when_its_family_and_protocol_are_asked_for(
    family: int, kind: int, protocol: int, passing: frozenset[tuple[bool, bool]]
) -> None:
    call = ("socket", (family, kind, protocol))
    unfiltered = outcome(call, None)
    for choice, program in PROGRAMS.items():
        expected = unfiltered if choice in passing else errno.EAFNOSUPPORT
        assert outcome(call, program) == expected, choice
    if unfiltered == errno.EAFNOSUPPORT:
        pytest.skip("this kernel does not have the family")


@pytest.mark.parametrize(
    ("family", "kind", "with_unix", "without"),
    [
        (UNIX, STREAM, 0, 0),
        (UNIX, STREAM | CLOEXEC_NONBLOCK, 0, 0),
        (UNIX, SEQPACKET | CLOEXEC_NONBLOCK, 0, 0),
        (BIT_32 | UNIX, BIT_32 | STREAM, 0, 0),
        (UNIX, DGRAM, 0, errno.EPERM),
        (UNIX, DGRAM | CLOEXEC_NONBLOCK, 0, errno.EPERM),
        (UNIX, BIT_32 | DGRAM, 0, errno.EPERM),
        (UNIX, RAW, 0, errno.EPERM),
        (INET, STREAM, errno.EAFNOSUPPORT, errno.EAFNOSUPPORT),
        (BIT_32 | INET, STREAM, errno.EAFNOSUPPORT, errno.EAFNOSUPPORT),
    ],
)
def test_program_makes_a_socketpair_only_when_it_is_connected(
    family: int, kind: int, with_unix: int, without: int
) -> None:
    def pair() -> int:
        fds = ctypes.create_string_buffer(8)
        return made(("socketpair", (family, kind, 0, lambda: ctypes.addressof(fds))))

    assert in_child(pair, None) in (0, errno.EOPNOTSUPP)
    for choice, program in PROGRAMS.items():
        assert in_child(pair, program) == (with_unix if choice in WITH_UNIX else without), choice


def test_datagram_pair_reaches_a_socket_file_where_no_filter_refuses_it(tmp_path: Path) -> None:
    # The hole that the rule is for: if this fails, the rule is not needed any more.
    path = str(tmp_path / "socket")

    def send() -> int:
        try:
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError as error:
            return error.errno or 254
        with one, other:
            one.sendto(b"out", path)
        return 0

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        assert in_child(send, STRICTEST) == errno.EPERM
        assert in_child(send, None) == 0
        assert receiver.recv(9) == b"out"


def test_message_queue_is_unlinked_from_a_landlock_domain_where_no_filter_refuses_it() -> None:
    # The hole that the rule is for, as above.
    name = f"fdbroker-test-{os.getpid()}".encode()
    if syscalls.landlock_abi() == 0 or outcome(("mq_open", (name, os.O_CREAT | os.O_RDWR, 0o600, 0)), None):
        pytest.skip("no POSIX message queues or no Landlock here")

    def unlink() -> int:
        syscalls.prctl(PR_SET_NO_NEW_PRIVS, 1)
        with landlock.Domain() as domain:
            domain.restrict()
        return made(("mq_unlink", (name,)))

    assert in_child(unlink, STRICTEST) == errno.EPERM
    assert in_child(unlink, None) == 0


def test_set_id_file_cannot_be_made_where_an_ordinary_one_can(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def create(mode: int) -> Callable[[], int]:
        return lambda: made(("openat", (0, os.fsencode(path), CREATE, mode)))

    assert in_child(create(0o4700), STRICTEST) == errno.EPERM
    assert not path.exists()
    assert in_child(create(0o700), STRICTEST) == 0
    assert path.exists()
    path.unlink()
    assert in_child(create(0o4700), None) == 0
    assert path.stat().st_mode & 0o7777 == 0o4700


def test_number_is_unknown_to_the_program_when_nobody_reviewed_it() -> None:
    # On a kernel that is no newer than the filter only a filter that is older shows it.
    number = NUMBERS["getppid"]
    older = syscall_numbers.Architecture(
        COLUMN, NATIVE.audit_arch, ((0, number - 1), (number + 1, 336), (424, 469))
    )
    program = seccomp.build(unix_sockets=True, internet=True, architecture=older)
    assert outcome(("getppid", ()), program) == errno.ENOSYS
    assert outcome(("getppid", ()), WIDEST) == outcome(("getppid", ()), None) == 0


@pytest.mark.parametrize("number", [1000, 400, 470, 511, 0x7FFFFFFF, -1])
def test_program_gets_enosys_when_a_number_is_none(number: int) -> None:
    assert outcome((number, ()), WIDEST) == errno.ENOSYS


x86_64_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86-64's own other ways in")


@x86_64_only
@pytest.mark.parametrize("name", ["getppid", "openat", "ptrace", "socket"])
def test_program_gets_enosys_when_it_calls_by_x32_numbers(name: str) -> None:
    assert outcome((1 << 30 | NUMBERS[name], (0, 0, 0, 0)), WIDEST) == errno.ENOSYS


def getpid_by_int_0x80() -> int:
    """0, or the errno, of getpid by the 32-bit way in: mov eax, 20; int 0x80; ret."""
    with mmap.mmap(NO_FD, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(bytes.fromhex("b814000000 cd80 c3"))
        anchor = ctypes.c_char.from_buffer(page)
        result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(anchor))()
        del anchor
    return 0 if result == os.getpid() else -result


@x86_64_only
def test_program_gets_enosys_when_it_calls_by_the_32_bit_way_in() -> None:
    unfiltered = in_child(getpid_by_int_0x80, None)
    if unfiltered == -signal.SIGSEGV:
        pytest.skip("this kernel has no 32-bit calls")
    assert unfiltered == 0
    assert in_child(getpid_by_int_0x80, WIDEST) == errno.ENOSYS


def test_filter_is_refused_without_no_new_privs() -> None:
    def install() -> int:
        try:
            seccomp.install(STRICTEST)
        except PermissionError as error:
            return error.errno
        return 0

    assert in_child(install, None) == errno.EACCES


@pytest.mark.parametrize("program", [b"", STRICTEST[:-8], STRICTEST + bytes(8 * 5000)])
def test_filter_raises_when_the_kernel_does_not_take_it(program: bytes) -> None:
    def install() -> int:
        try:
            confine(program)
        except OSError as error:
            assert "seccomp(SECCOMP_SET_MODE_FILTER" in str(error)
            return error.errno or 254
        return 0

    assert in_child(install, None) == errno.EINVAL


def test_filter_is_unavailable_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscall_numbers, "native", lambda: None)
    assert not seccomp.available()
    with pytest.raises(seccomp.Unavailable, match="x86-64 and 64-bit ARM"):
        seccomp.build(unix_sockets=True, internet=True)


def test_32_bit_interpreter_has_no_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "maxsize", 0x7FFFFFFF)
    assert syscall_numbers.native() is None


def test_filter_is_unavailable_where_the_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_NR_SECCOMP", {})
    assert not seccomp.available()


def test_filter_stays_when_the_program_adds_one_that_allows_all() -> None:
    def add_and_try() -> int:
        seccomp.install(ALLOW_ALL)
        return made(("setns", REFUSED_CALLS["setns"]))

    assert in_child(add_and_try, STRICTEST) == errno.EPERM


# BPF_RET | BPF_K
ALLOW_ALL = (6 | ALLOW << 32).to_bytes(8, "little")


def test_filter_holds_in_every_thread_and_child_of_the_program() -> None:
    def try_everywhere() -> int:
        seen = [made(("setns", REFUSED_CALLS["setns"]))]
        thread = threading.Thread(target=lambda: seen.append(made(("setns", REFUSED_CALLS["setns"]))))
        thread.start()
        thread.join()
        pid = os.fork()
        if pid == 0:
            os._exit(made(("setns", REFUSED_CALLS["setns"])))
        seen.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return errno.EPERM if seen == [errno.EPERM] * 3 else 0

    assert in_child(try_everywhere, STRICTEST) == errno.EPERM


C_PROGRAM = """
#include <pthread.h>
#include <stdio.h>
static void *run(void *text) { puts(text); return 0; }
int main(void) { pthread_t thread; pthread_create(&thread, 0, run, "thread"); return pthread_join(thread, 0); }
"""
JAVA = "public class Hello { public static void main(String[] a) { System.out.println(6 * 7); } }"
PYTHON = """
import asyncio, concurrent.futures, multiprocessing, os, shutil, subprocess, tempfile, threading
print(subprocess.run(['echo', 'child'], capture_output=True, text=True).stdout)
with concurrent.futures.ThreadPoolExecutor(4) as pool: print(sum(pool.map(abs, range(9))))
with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, 2]))
async def run(): return await (await asyncio.create_subprocess_exec('true')).wait()
print(asyncio.run(run()))
with tempfile.TemporaryDirectory() as d:
    open(d + '/a', 'w').close(); shutil.copy2(d + '/a', d + '/b'); os.chmod(d + '/b', 0o600)
    with tempfile.TemporaryFile() as f: f.write(b'x')
"""
SHELL = {
    "bash": "bash -c 'set -e; mkdir -m 755 d; echo x >d/f; cp -a d e; (sleep 0 &) ; cat <(echo pipe) e/f; ls e'",
    "coreutils": "install -m 755 input.c i && nice true && timeout 5 true && mkfifo p && stat -c %a i p && df . >d",
    "gcc": "gcc -pthread -o program input.c && ./program",
    "git": "git init -q r && cd r && git -c user.name=n -c user.email=e commit -qm m --allow-empty && git status -s",
    "java": "java Hello.java",
    "make": "printf 'all: a b\\na b:\\n\\t@echo $$((1+1))\\n' | make -s -j2 -f - && echo made",
    "node": 'node -e \'require("fs").readFile("input.c", (e, d) => console.log(d.length));'
    'console.log(require("child_process").execSync("echo child").toString())\'',
    "perl": "perl -e 'print `echo perl`; fork or exit; wait; print \"done\\n\"'",
    "python3": f"{sys.executable} input.py",
    "tar": "tar cf a.tar input.c && mkdir x && tar xpf a.tar -C x && cmp input.c x/input.c && echo same",
    "xz": "xz -T2 -k input.c && xz -dc input.c.xz | wc -c",
    "find": "find . -name '*.c' -exec wc -l {} + | sort",
}


def run_program(command: str, directory: Path, program: bytes | None) -> tuple[int, str, str]:
    directory.mkdir()
    (directory / "input.c").write_text(C_PROGRAM)
    (directory / "input.py").write_text(PYTHON)
    (directory / "Hello.java").write_text(JAVA)
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env={**os.environ, "HOME": str(directory), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        preexec_fn=(lambda: confine(program)) if program is not None else None,
    )
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("name", SHELL)
def test_program_runs_unchanged_behind_the_strictest_filter(name: str, tmp_path: Path) -> None:
    if name != "coreutils" and shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    free = run_program(SHELL[name], tmp_path / "free", None)
    assert free[0] == 0, free
    assert run_program(SHELL[name], tmp_path / "confined", STRICTEST) == free


def test_resolver_and_client_reach_the_network_only_when_asked_for(tmp_path: Path) -> None:
    script = (
        "import socket, sys\n"
        "socket.getaddrinfo('localhost', 80)\n"
        "with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as s: print(s.recv(9).decode())\n"
    )
    (tmp_path / "client.py").write_text(script)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"hello")

        answering = threading.Thread(target=answer)
        command = f"{sys.executable} ../client.py {server.getsockname()[1]}"
        code, _, complaint = run_program(command, tmp_path / "shut", PROGRAMS[True, False])
        assert code == 1 and "Address family not supported" in complaint
        answering.start()
        assert run_program(command, tmp_path / "open", PROGRAMS[False, True]) == (0, "hello\n", "")
        answering.join()


# Newer than libseccomp 2.5.4; numbers from 424 on are the same on every architecture.
TOO_NEW = {
    **{"listmount": 458, "open_tree_attr": 467, "statmount": 457, "fchmodat2": 452},
    **{"setxattrat": 463, "removexattrat": 466, "file_setattr": 469},
}


@pytest.mark.parametrize("machine", syscall_numbers.ARCHITECTURES)
def test_numbers_are_those_of_libseccomp(machine: str) -> None:
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        pytest.skip("no libseccomp here")
    architecture = syscall_numbers.ARCHITECTURES[machine]
    theirs = {}
    for name in seccomp.rules(unix_sockets=False, internet=False, attributes=False):
        number = resolve(ctypes.c_uint32(architecture.audit_arch), name.encode())
        # -1 is a name that it does not know; lower is one that the architecture does not have.
        theirs[name] = TOO_NEW[name] if number == -1 else number
    assert {name: number for name, number in theirs.items() if number >= 0} == architecture.numbers()


@pytest.mark.parametrize("machine", syscall_numbers.ARCHITECTURES)
def test_number_of_seccomp_itself_is_that_of_libseccomp(machine: str) -> None:
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        pytest.skip("no libseccomp here")
    audit_arch = syscall_numbers.ARCHITECTURES[machine].audit_arch
    assert syscalls._NR_SECCOMP[machine] == resolve(ctypes.c_uint32(audit_arch), b"seccomp")


def test_actions_are_the_kernels() -> None:
    assert (ALLOW, refuse(errno.EPERM)) == (0x7FFF0000, 0x00050001)
