"""A seccomp filter: which system calls a confined process may make, whatever files it reaches.

Rules that this module enforces:
- A list of denials. It stops the calls by which a process without privileges reaches out of its sandbox
  (other processes, sockets, namespaces, shared memory, keys, the terminal, set-id files) and those that open
  much of the kernel to it and that programs do without. Compilers, interpreters and shells run unchanged.
- A call that came after Linux 6.18, of another architecture or of x32 is ENOSYS.
- What a filter cannot judge it refuses: flags that lie in memory (clone3, openat2) and calls that would be
  made past it (io_uring). These are ENOSYS too, as on an older kernel, so that libraries fall back.
- No seccomp, no filter: `Unavailable` is raised, nothing is ever skipped in silence.

Out of scope: paths, which lie in memory where a filter cannot see them (sandboxed.confinement.landlock); signals and
everything else that a pid namespace or a Landlock scope decides; other threads of the process: install() acts
on its own, so call it in a process that has only one. What the filter costs programs that it does not fit:
debuggers, fakeroot, `numactl --migrate`, set-gid directories, and setting another thread's priority or
affinity, because a filter cannot tell one's own thread from a stranger's.
See seccomp(2).
"""

from errno import EAFNOSUPPORT, ENOPROTOOPT, ENOSYS, EPERM

from sandboxed import syscalls
from sandboxed.confinement import bpf, syscall_numbers
from sandboxed.confinement.bpf import ALLOW, Rows, differs, equals, has_any, refuse, upper


class Unavailable(RuntimeError):
    """The kernel has no seccomp filters, or this machine's system calls are not known here."""


# asm-generic/fcntl.h; both architectures agree on these bits
_O_CREAT = 0o100
_O_TMPFILE_BIT = 0o20000000
_SET_ID_BITS = 0o6000  # S_ISUID | S_ISGID

# linux/socket.h, linux/net.h, linux/in.h
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_SEQPACKET = 1, 2, 5
_SOCK_TYPE_MASK = 0xF  # beside it are SOCK_CLOEXEC and SOCK_NONBLOCK
_IPPROTO_TCP, _IPPROTO_UDP = 6, 17
_NETLINK_ROUTE = 0
_SOL_TCP, _TCP_ULP = 6, 31

# linux/sched.h: CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. In clone's flags the
# first is part of the exit signal, where no valid signal has it.
_NEW_NAMESPACES = 0x80 | 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000

# asm-generic/ioctls.h
_TIOCSTI, _TIOCLINUX, _TIOCCONS, _TIOCSETD = 0x5412, 0x541C, 0x541D, 0x5423

_F_SETLEASE, _F_SETDELEG = 1024, 1040  # linux/fcntl.h
_RLIMIT_CORE = 4
_PRIO_PROCESS, _IOPRIO_WHO_PROCESS = 0, 1
_PR_SCHED_CORE = 62
_SIGN_BIT = 0x80000000

# Refused whatever their arguments are.
REFUSED: tuple[tuple[int, str], ...] = (
    # Another process's memory, registers, fds.
    (EPERM, "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_getfd"),
    (EPERM, "move_pages migrate_pages"),
    # The file system's shape, on which every path rule rests; handles, which are files without a path.
    (EPERM, "mount umount2 pivot_root chroot open_tree open_tree_attr move_mount mount_setattr"),
    (EPERM, "fsopen fsconfig fsmount fspick quotactl quotactl_fd name_to_handle_at open_by_handle_at"),
    # These two only read. ENOSYS sends a library back to /proc/self/mountinfo.
    (ENOSYS, "statmount listmount"),
    # Another set of namespaces. Its flags clone3 has in memory, and all libraries fall back to clone.
    (EPERM, "setns"),
    (ENOSYS, "clone3"),
    # Rings make calls that no filter sees.
    (ENOSYS, "io_uring_setup io_uring_enter io_uring_register"),
    # A number for the whole machine (fs.aio-max-nr), that one program could take from databases. Those fall back.
    (ENOSYS, "io_setup"),
    # The mode, and with it the set-id bits, lies in memory. Libraries fall back to openat.
    (ENOSYS, "openat2"),
    # IPC by key or name. Without an ipc namespace it is shared with all that the user runs. A Landlock domain
    # does not cover System V's, and of POSIX queues only the opening: unlinking went through.
    (EPERM, "shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl"),
    (EPERM, "mq_open mq_unlink"),
    # Keyrings are shared by uid and session, and no namespace holds them apart.
    (EPERM, "keyctl add_key request_key"),
    # Large parts of the kernel with a history of bugs, that programs do without.
    (EPERM, "bpf perf_event_open userfaultfd fanotify_init"),
    # The machine's: root's calls. The kernel refuses them too, but not on a filter's terms: a capability in
    # a user namespace, or a bug, would do.
    (EPERM, "kexec_load kexec_file_load init_module finit_module delete_module syslog acct reboot"),
    (EPERM, "swapon swapoff sethostname setdomainname settimeofday vhangup iopl ioperm modify_ldt"),
    # Left from older kernels; hardly ever run, so hardly ever looked at. The last one is new and as rare.
    (EPERM, "uselib ustat sysfs _sysctl nfsservctl lookup_dcookie remap_file_pages set_mempolicy_home_node"),
)

_REFUSE = refuse(EPERM)
_PRETEND = refuse(0)  # nothing is done, and success is returned


def _only_own_process(argument: int) -> Rows:
    """A pid or tid other than 0 may be anybody's of the same uid."""
    return (((differs(argument, 0),), _REFUSE),)


def _no_set_id(mode: int) -> Rows:
    """A set-id file lends its owner's identity to whoever runs it, outside the sandbox too."""
    return (((has_any(mode, _SET_ID_BITS),), _REFUSE),)


def _no_set_id_creation(flags: int, mode: int) -> Rows:
    """The same for opens that create. Others have no mode: there the register holds what was left in it."""
    return (((has_any(flags, _O_CREAT | _O_TMPFILE_BIT), has_any(mode, _SET_ID_BITS)), _REFUSE),)


# Refused by their arguments: those whose first matching row says so.
JUDGED: dict[str, Rows] = {
    # A new user namespace gives capabilities within, and the kernel's code for the privileged with them.
    "clone": (((has_any(0, _NEW_NAMESPACES),), _REFUSE),),
    "unshare": (((has_any(0, _NEW_NAMESPACES),), _REFUSE),),
    # A lease on a file that is only read keeps its other openers waiting, up to 45 seconds each (fs.lease-break-time).
    "fcntl": tuple(((equals(1, command),), _REFUSE) for command in (_F_SETLEASE, _F_SETDELEG)),
    # Input for the terminal's other readers, its console, and line disciplines: modules that are loaded on
    # demand, with a history of bugs.
    "ioctl": tuple(
        ((equals(1, request),), _REFUSE) for request in (_TIOCSTI, _TIOCLINUX, _TIOCCONS, _TIOCSETD)
    ),
    # Limits, scheduling, priority of others of the same uid: of the broker.
    # The limit of core dumps stays at what `resources` made it; who lowers it is told that it worked.
    "prlimit64": (
        *_only_own_process(0),
        ((equals(1, _RLIMIT_CORE), differs(2, 0)), _PRETEND),
        ((equals(1, _RLIMIT_CORE), differs(upper(2), 0)), _PRETEND),
    ),
    "setrlimit": (((equals(0, _RLIMIT_CORE),), _PRETEND),),
    "sched_setaffinity": _only_own_process(0),
    "sched_setscheduler": _only_own_process(0),
    "sched_setparam": _only_own_process(0),
    "sched_setattr": _only_own_process(0),
    "get_robust_list": _only_own_process(0),
    # Who 0 is oneself for a process, but the whole user or process group with the other kinds.
    "setpriority": (((equals(0, _PRIO_PROCESS), equals(1, 0)), ALLOW), ((), _REFUSE)),
    "ioprio_set": (((equals(0, _IOPRIO_WHO_PROCESS), equals(1, 0)), ALLOW), ((), _REFUSE)),
    "prctl": (((equals(0, _PR_SCHED_CORE), differs(2, 0)), _REFUSE),),
    # Other personalities switch off address randomization (ADDR_NO_RANDOMIZE) and the zero page's guard.
    "personality": (((equals(0, 0),), ALLOW), ((equals(0, 0xFFFFFFFF),), ALLOW), ((), _REFUSE)),
    # The machine's clocks. A negative id is the clock of an open device: whoever was given /dev/ptp0 may set
    # it. adjtimex and clock_adjtime stay: programs read with them, and setting takes CAP_SYS_TIME or the device.
    "clock_settime": (((equals(0, 0, _SIGN_BIT),), _REFUSE),),
    # Upper layer protocols are modules that replace a TCP socket's code; libraries use kernel TLS if there.
    "setsockopt": (((equals(1, _SOL_TCP), equals(2, _TCP_ULP)), refuse(ENOPROTOOPT)),),
    "chmod": _no_set_id(1),
    "fchmod": _no_set_id(1),
    "fchmodat": _no_set_id(2),
    "fchmodat2": _no_set_id(2),
    "mkdir": _no_set_id(1),
    "mkdirat": _no_set_id(2),
    "mknod": _no_set_id(1),
    "mknodat": _no_set_id(2),
    "creat": _no_set_id(1),
    "open": _no_set_id_creation(1, 2),
    "openat": _no_set_id_creation(2, 3),
}

# Type and protocol of what is TCP and UDP alone: no raw sockets, no MPTCP, SCTP, UDP-Lite, SMC, ping.
_TCP_OR_UDP = (
    (_SOCK_STREAM, 0),
    (_SOCK_STREAM, _IPPROTO_TCP),
    (_SOCK_DGRAM, 0),
    (_SOCK_DGRAM, _IPPROTO_UDP),
)


def _socket(unix_sockets: bool, internet: bool) -> Rows:
    """The families that are asked for, and no other: vsock, packet, alg, bluetooth, can, xdp and so on."""
    rows: list[tuple[tuple[bpf.Condition, ...], int]] = []
    if unix_sockets:
        rows.append(((equals(0, _AF_UNIX),), ALLOW))
    if internet:
        for family in (_AF_INET, _AF_INET6):
            for kind, protocol in _TCP_OR_UDP:
                which = (equals(0, family), equals(1, kind, _SOCK_TYPE_MASK), equals(2, protocol))
                rows.append((which, ALLOW))
        # getaddrinfo asks for the machine's addresses.
        rows.append(((equals(0, _AF_NETLINK), equals(2, _NETLINK_ROUTE)), ALLOW))
    return (*rows, ((), refuse(EAFNOSUPPORT)))


def _socketpair(unix_sockets: bool) -> Rows:
    """Connected pairs. An end of a datagram pair (also SOCK_RAW, which becomes one) can send to any path."""
    family = equals(0, _AF_UNIX)
    if unix_sockets:
        return ((family,), ALLOW), ((), refuse(EAFNOSUPPORT))
    return (
        ((family, equals(1, _SOCK_STREAM, _SOCK_TYPE_MASK)), ALLOW),
        ((family, equals(1, _SOCK_SEQPACKET, _SOCK_TYPE_MASK)), ALLOW),
        ((family,), _REFUSE),
        ((), refuse(EAFNOSUPPORT)),
    )


# Changes of mode, owner, times and attributes by name: Landlock does not restrict them, so that without a root of
# its own a program with its user's uid would change all of its user's files. Those by fd stay, but for utimensat:
# whether it has a name is a pointer, of which a filter here sees half.
_BY_NAME = (
    "chmod fchmodat fchmodat2 chown lchown fchownat utime utimes futimesat utimensat setxattr lsetxattr setxattrat "
    "removexattr lremovexattr removexattrat file_setattr"
)


def rules(*, unix_sockets: bool, internet: bool, attributes: bool = True) -> dict[str, Rows]:
    """Every call that is not simply allowed, by its name."""
    table: dict[str, Rows] = {}
    for errno, names in REFUSED:
        rows: Rows = (((), refuse(errno)),)
        table.update(dict.fromkeys(names.split(), rows))
    table.update(JUDGED)
    table["socket"] = _socket(unix_sockets, internet)
    table["socketpair"] = _socketpair(unix_sockets)
    if not attributes:
        table.update(dict.fromkeys(_BY_NAME.split(), (((), _REFUSE),)))
    return table


def build(
    *,
    unix_sockets: bool,
    internet: bool,
    attributes: bool = True,
    architecture: syscall_numbers.Architecture | None = None,
) -> bytes:
    """The filter for install(), for this machine unless another `architecture` is given.

    unix_sockets: sockets that reach every socket file and abstract name of the network namespace.
    internet:     TCP and UDP.
    attributes:   modes, owners, times and extended attributes of files by their names.
    Raises Unavailable on a machine whose system calls are not known here.
    """
    architecture = architecture or syscall_numbers.native()
    if architecture is None:
        raise Unavailable("system calls can be filtered on x86-64 and 64-bit ARM, by a 64-bit interpreter")
    numbers = architecture.numbers()
    table = {
        numbers[name]: rows
        for name, rows in rules(unix_sockets=unix_sockets, internet=internet, attributes=attributes).items()
        if name in numbers
    }
    return bpf.assemble(architecture.audit_arch, architecture.reviewed, table)


def available() -> bool:
    """Whether build() and install() work here."""
    return syscall_numbers.native() is not None and syscalls.seccomp_get_action_avail(refuse(0))


def install(program: bytes) -> None:
    """Confine the calling thread and its children for ever. It must have no_new_privs set, root's too.

    Raises OSError; EACCES without no_new_privs.
    """
    # The kernel lets the privileged do without, and a set-id program would then run under the filter.
    if not syscalls.prctl(syscalls.PR_GET_NO_NEW_PRIVS):
        raise PermissionError(13, "seccomp: Permission denied, no_new_privs is not set")
    syscalls.seccomp_set_filter(program, syscalls.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
