"""What is expected of every attack where nothing confines it, and what the witness sees of it.

A table where all machines agree, and conditions where they differ. The conditions ask the machine by other
means than the attack does. Every attack stands in one table; the tests hold that.
"""

import os
import platform
import resource
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

# A uid without an account for the attackers that root starts; an ordinary user's attackers have its own.
ATTACKER = 64998 if os.geteuid() == 0 else os.geteuid()


def words(text: str) -> set[str]:
    """The words of a text."""
    return set(text.split())


# What can't be told but by trying, so that no machine can be asked to let it succeed.
MACHINE_DECIDES = words(
    """
    alg-socket other-families netlink-audit netlink-sockets ping-socket vsock-socket modify-ldt fanotify quotas
    read-mounted sys-writable proc-sys-writable cgroup-writable kernel-addresses kernel-log bpf x32-abi
    foreign-abi many-processes terminal-linux terminal-linux-with-bit-32 setns-victim setns-parent setns-others
    set-attribute read-shadow kernel-memory raise-limits
    """
)

# The proof lies with others: the witness, or a broker.
PROVEN_ELSEWHERE = {"left-over", "fd-owner-signal-victim", "fd-to-broker"}

# Linux lets no ordinary uid do it in the first namespaces; with the capability of that number it succeeds.
# None: a capability helps, and root without a sandbox still leaves it out, or is refused for another reason.
CHOWN, DAC_READ_SEARCH, SETGID, SETUID, NET_RAW, SYS_CHROOT, SYS_ADMIN, MKNOD = 0, 2, 6, 7, 13, 18, 21, 27
PRIVILEGED: dict[str, int | None] = {
    "raw-socket": NET_RAW, "packet-socket": NET_RAW, "set-uid": SETUID, "set-gid": SETGID, "set-groups": SETGID,
    "make-character-device": MKNOD, "make-block-device": MKNOD, "chroot": SYS_CHROOT,
    "open-by-handle": DAC_READ_SEARCH, "capabilities": CHOWN, "unshare-the-rest": SYS_ADMIN,
    "mount-tmpfs": SYS_ADMIN, "mount-proc": SYS_ADMIN, "mount-bind": SYS_ADMIN, "mount-remount": SYS_ADMIN,
    "unmount": SYS_ADMIN, "pivot-root": SYS_ADMIN, "open-tree": SYS_ADMIN, "fsopen": SYS_ADMIN,
    "fspick": SYS_ADMIN, "move-mount": SYS_ADMIN, "mount-setattr": SYS_ADMIN,
    "terminal-stolen": None, "kexec": None, "kernel-module": None, "io-ports": None, "swap": None,
    "accounting": None, "hang-up": None, "set-time": None, "set-hostname": None, "sysrq-trigger": None,
}  # fmt: skip

ON_TARGETS = {
    f"{operation}-{target}"
    for operation in words(
        """
        ptrace vm-read pidfd-getfd kill tgkill sigqueue pidfd-signal limits affinity scheduler nice io-priority
        oom-score kcmp robust-list perf-events root cwd fds environ maps memory exe
        """
    )
    for target in ("victim", "parent", "others")
} | {"vm-write-victim", "memory-write-victim"}

# What succeeds for an ordinary uid that nothing confines. Some of it where the machine is made so: SUCCEEDS_IF.
SUCCEEDS = ON_TARGETS | words(
    """
    unix-stream unix-stream-by-proc-root unix-datagram unix-datagram-pair abstract-stream abstract-datagram
    abstract-datagram-pair tcp4 tcp6 tcp-fast-open mptcp udp4 udp6 vsock-connect netlink-interfaces
    netlink-uevent key-read key-search key-request key-add keys-listed segment-read segment-write message-queue
    semaphore posix-queue kill-everyone unshare-user clone-user clone3-user user-namespace-root
    user-namespace-mount user-namespace-proc read-private read-secret read-inner read-home list-directory
    stat-names change-directory watch-directory write-file truncate-file link-file rename-file change-mode
    change-times create-beside write-anywhere reopen-fds parents-of-fds devices terminal-typing
    terminal-typing-with-bit-32 terminal-settings terminal-by-path other-terminals ptmx-of-outside bounding-set
    new-privileges set-uid-programs set-uid-bit set-uid-bit-by-fchmod set-uid-bit-by-fchmodat2
    set-uid-bit-by-open set-uid-bit-by-mknod set-gid-bit-by-mkdir many-fds core-dumps locked-memory
    process-limit perf-events userfaultfd io-uring personality hostname sockets-listed environment home-shared
    policy-writable
    """
)


def kernel() -> tuple[int, ...]:
    """The kernel's version, as two numbers."""
    return tuple(int(word) for word in platform.release().split("-")[0].split(".")[:2])


def setting(name: str, missing: int) -> int:
    """A number below /proc/sys; `missing` where this kernel does not have it."""
    try:
        return int(Path("/proc/sys", name).read_text())
    except OSError:
        return missing


def status_of(name: str) -> int:
    """A hexadecimal field of the tests' own /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1], 16) for line in lines if line.startswith(name + ":")), 0)


def allows(limit: int, amount: int) -> bool:
    """Whether a hard limit lets a program have that much."""
    hard = resource.getrlimit(limit)[1]
    return hard == resource.RLIM_INFINITY or hard >= amount


def as_the_attacker(*command: str) -> bool:
    """Whether a command that has nothing to do with the attackers works for their uid."""
    if os.geteuid() == 0:
        command = ("setpriv", f"--reuid={ATTACKER}", f"--regid={ATTACKER}", "--clear-groups", *command)
    return subprocess.run(command, capture_output=True, cwd="/").returncode == 0


def mode_of(path: str) -> int:
    """The mode of a file; 0 where there is none."""
    return os.stat(path).st_mode if os.path.exists(path) else 0


def has_foreign_interface() -> bool:
    """Whether an interface that is not loopback is up."""
    flags = [int(path.read_text(), 16) for path in Path("/sys/class/net").glob("*/flags")]
    return any(one & 1 and not one & 8 for one in flags)


def can_trace() -> bool:
    """Whether one process may trace another of its uid that is not its child."""
    return setting("kernel/yama/ptrace_scope", 0) == 0


def has_set_uid_program() -> bool:
    """Whether a program that the attackers look for would raise them."""
    return any(mode_of(f"/usr/bin/{name}") & stat.S_ISUID for name in ("su", "passwd", "mount", "newgrp"))


IN_USER_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
SUCCEEDS_IF: dict[str, Callable[[], bool]] = {
    "tcp-fast-open": lambda: setting("net/ipv4/tcp_fastopen", 0) & 1 == 1,
    "mptcp": lambda: setting("net/mptcp/enabled", 0) == 1,
    "netlink-interfaces": has_foreign_interface,
    "unshare-user": lambda: as_the_attacker("unshare", "--user", "true"),
    "clone-user": lambda: as_the_attacker("unshare", "--user", "true"),
    "clone3-user": lambda: as_the_attacker("unshare", "--user", "true"),
    "user-namespace-root": lambda: as_the_attacker("unshare", "--user", "--map-root-user", "true"),
    "user-namespace-mount": lambda: as_the_attacker(*IN_USER_NAMESPACE, "mount", "-t", "tmpfs", "none", "/tmp"),
    "user-namespace-proc": lambda: as_the_attacker(
        *IN_USER_NAMESPACE, "--pid", "--fork", "mount", "-t", "proc", "proc", "/proc"
    ),
    "devices": lambda: bool(mode_of("/dev/fuse") & stat.S_IROTH),
    "terminal-typing": lambda: setting("dev/tty/legacy_tiocsti", 1) == 1,
    "terminal-typing-with-bit-32": lambda: setting("dev/tty/legacy_tiocsti", 1) == 1,
    "write-anywhere": lambda: bool(mode_of("/var/tmp") & stat.S_IWOTH),
    "bounding-set": lambda: status_of("CapBnd") != 0,
    "new-privileges": lambda: status_of("NoNewPrivs") == 0,
    "set-uid-programs": lambda: status_of("NoNewPrivs") == 0 and has_set_uid_program(),
    "set-uid-bit-by-fchmodat2": lambda: kernel() >= (6, 6),
    "many-fds": lambda: allows(resource.RLIMIT_NOFILE, 4200),
    "core-dumps": lambda: allows(resource.RLIMIT_CORE, 1),
    "locked-memory": lambda: allows(resource.RLIMIT_MEMLOCK, 16 << 20),
    "process-limit": lambda: allows(resource.RLIMIT_NPROC, 4097),
    "userfaultfd": lambda: Path("/proc/sys/vm/unprivileged_userfaultfd").exists(),
    "io-uring": lambda: setting("kernel/io_uring_disabled", 2) == 0,
}  # fmt: skip
for _name in ON_TARGETS | {"perf-events"}:
    if _name.startswith(("ptrace", "vm-", "pidfd-getfd", "memory")):
        SUCCEEDS_IF[_name] = can_trace
    elif _name.startswith("perf-events"):
        SUCCEEDS_IF[_name] = lambda: setting("kernel/perf_event_paranoid", 4) <= 2

# What the witness must have, and a machine may lack.
NEEDS_OF_THE_WITNESS = {
    "tcp6": "tcp6", "udp6": "udp6", "vsock-connect": "vsock", "key-read": "key", "key-search": "key",
    "key-request": "key", "key-add": "key", "keys-listed": "key", "segment-read": "segment",
    "segment-write": "segment", "message-queue": "segment", "semaphore": "segment", "posix-queue": "posix_queue",
}  # fmt: skip

# What one attack alone makes the witness see.
SIGNAL = "the victim had the signal "
SEEN = {
    "unix-stream": "a connection came to the pathname stream socket",
    "unix-stream-by-proc-root": "a connection came to the pathname stream socket",
    "unix-datagram": "a datagram came to the pathname datagram socket",
    "unix-datagram-pair": "a datagram came to the pathname datagram socket",
    "abstract-stream": "a connection came to the abstract stream socket",
    "abstract-datagram": "a datagram came to the abstract datagram socket",
    "abstract-datagram-pair": "a datagram came to the abstract datagram socket",
    "tcp4": "a connection came to the TCP socket of 127.0.0.1",
    "tcp-fast-open": "a connection came to the TCP socket of 127.0.0.1",
    "mptcp": "a connection came to the TCP socket of 127.0.0.1",
    "tcp6": "a connection came to the TCP socket of ::1",
    "udp4": "a datagram came to the UDP socket of 127.0.0.1",
    "udp6": "a datagram came to the UDP socket of ::1",
    "vsock-connect": "a connection came to the vsock socket",
    "segment-write": "the shared memory was written",
    "semaphore": "the semaphore changed",
    "message-queue": "the message was taken from the queue",
    "posix-queue": "the message was taken from the POSIX queue",
    "kill-victim": SIGNAL + "User defined signal 1",
    "tgkill-victim": SIGNAL + "User defined signal 2",
    "sigqueue-victim": SIGNAL + "Real-time signal 1",
    "pidfd-signal-victim": SIGNAL + "Real-time signal 2",
    "fd-owner-signal-victim": SIGNAL + "Real-time signal 3",
    "limits-victim": "the victim changed: limits",
    "affinity-victim": "the victim changed: affinity",
    "scheduler-victim": "the victim changed: scheduling",
    "nice-victim": "the victim changed: nice value",
    "io-priority-victim": "the victim changed: I/O priority",
    "oom-score-victim": "the victim changed: oom score",
    "vm-write-victim": "the victim changed: memory",
    "memory-write-victim": "the victim changed: memory",
    "write-file": "writable_file changed: content",
    "truncate-file": "writable_file changed: content",
    "link-file": "a new file: linked",
    "rename-file": "a new file: movable_file-moved",
    "change-mode": "writable_file changed: mode",
    "change-times": "writable_file changed: times",
    "set-attribute": "writable_file changed: attributes",
    "create-beside": "a new file: created",
    "terminal-typing": "somebody typed at the terminal",
    "terminal-typing-with-bit-32": "somebody typed at the terminal",
    "terminal-settings": "the terminal's settings changed",
    "left-over": "a process outlived its attacker",
}  # fmt: skip
ONE_PROCESSOR = len(os.sched_getaffinity(0)) == 1

ONLY_IN_C = {"foreign-abi", "x32-abi", "many-processes"}
ONLY_IN_PYTHON: set[str] = set()
