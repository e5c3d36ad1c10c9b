"""What a confined program may use up: limits that only ever go down, but for that of core dumps. See setrlimit(2).

Out of scope: memory and processes of all its processes together, where a cgroup can be had (`cgroup`).
"""

import contextlib
import resource

from sandboxed.confinement.sandbox import Limits

# (resource, soft limit, hard limit). A limit that is lower already stays.
RESOURCE_LIMITS = (
    # Bytes. A core dump would copy what the program read through the broker into a file. With 0 a crash would still
    # start the machine's handler, as root, if core_pattern is a pipe; 1 means neither (fs/coredump.c).
    (resource.RLIMIT_CORE, 1, 1),
    # Fds. 1,024 is the most that select(2) can take; 4,096 is for a program that knows and raises it.
    (resource.RLIMIT_NOFILE, 1024, 4096),
    # Processes and threads of the uid, in its user namespace where it has one. Ends a fork bomb; high, since where
    # there is none a user's own other processes count too.
    (resource.RLIMIT_NPROC, 4096, 4096),
    # Bytes locked in memory: the kernel's default. More would be taken from everybody else.
    (resource.RLIMIT_MEMLOCK, 8 * 1024 * 1024, 8 * 1024 * 1024),
    # Bytes of POSIX message queues, which are kernel memory that outlives the program.
    (resource.RLIMIT_MSGQUEUE, 0, 0),
    # Priorities: a program that cannot be preempted could starve the broker.
    (resource.RLIMIT_RTPRIO, 0, 0),
    (resource.RLIMIT_NICE, 0, 0),
)


def limit_resources(limits: Limits) -> None:
    """Apply RESOURCE_LIMITS, and those of `limits` that are of one process or one user."""
    wanted = {kind: (soft, hard) for kind, soft, hard in RESOURCE_LIMITS}
    if limits.files is not None:
        wanted[resource.RLIMIT_NOFILE] = (limits.files, limits.files)
    if limits.processes is not None:
        wanted[resource.RLIMIT_NPROC] = (limits.processes, limits.processes)
    if limits.memory is not None:
        # Private writable memory of one process (Linux 4.7): the most that can be had without a cgroup.
        wanted[resource.RLIMIT_DATA] = (limits.memory, limits.memory)
    for kind, (soft, hard) in wanted.items():
        if kind == resource.RLIMIT_CORE:
            _keep_handler_away()
            continue
        now_soft, now_hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (_lower(now_soft, soft), _lower(now_hard, hard)))


def _keep_handler_away() -> None:
    """Set the limit of core dumps to 1. Where it is 0 for good only root may raise it (setrlimit(2)): it stays so."""
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def _lower(now: int, wanted: int) -> int:
    """The lower of two limits. RLIM_INFINITY is -1 in Python, which min() would take for the lowest."""
    return wanted if now == resource.RLIM_INFINITY else min(now, wanted)
