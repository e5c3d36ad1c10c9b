"""`fdbroker` whose worker was taken over: before it serves it attacks, and prints what came of it on standard error.

    python attacking_worker.py SECRET BESIDE LAYER serve …

SECRET is a file outside of the policy, BESIDE one beside a file of the policy that the worker's uid may not read.
LAYER is one of the confinement that is taken away, or "none". All else is the real thing.
"""

import ctypes
import json
import mmap
import os
import platform
import resource
import signal
import socket
import sys
from collections.abc import Callable

import broker.confinement
import broker.worker
from broker.main import main
from sandboxed.descriptors import send_with_fds

libc = ctypes.CDLL(None, use_errno=True)
COLUMN = 0 if platform.machine() == "x86_64" else 1
SECRET, BESIDE, LAYER = sys.argv[1:4]

# Calls with arguments that are harmless when they go through, or that fail otherwise than with EPERM then:
# numbers on x86-64 and 64-bit ARM, arguments.
RAW: dict[str, tuple[tuple[int, int], tuple[object, ...]]] = {
    "bpf": ((321, 280), (0, None, 0)), "keyctl": ((250, 219), (0, -3, 0)), "init-module": ((175, 105), (None, 0, b"")),
    "perf": ((298, 241), (None, 0, -1, -1, 0)), "io-uring": ((425, 425), (0, None)), "clone3": ((435, 435), (None, 0)),
    "userfaultfd": ((323, 282), (1,)), "setns": ((308, 268), (0, 0)),
    "mount": ((165, 40), (b"n", b"/nowhere", b"x", 0, 0)),
    "open-by-handle": ((304, 265), (-1, None, 0)), "handle-of-name": ((303, 264), (-1, b"", None, None, 0)),
    "vm-read": ((310, 270), (os.getpid(), None, 0, None, 0, 0)), "ptrace": ((101, 117), (16, os.getpid(), 0, 0)),
    "exec-nothing": ((59, 221), (b"/nowhere", None, None)), "memfd": ((319, 279), (b"x", 0)),
    "set-attribute": ((188, 5), (b"/nowhere", b"user.x", b"", 0, 0)), "shared-memory": ((29, 194), (0, 0, 0)),
}  # fmt: skip


def raw(name: str) -> None:
    numbers, arguments = RAW[name]
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(numbers[COLUMN]), *words) < 0 and ctypes.get_errno() == 1:
        raise PermissionError("by the filter")


def in_child(act: Callable[[], object]) -> None:
    """The act in a child, as it may end the process; raises PermissionError when it did not succeed."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            os._exit(77)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        raise PermissionError("in the child")


def signal_by_pidfd(pid: int) -> None:
    signal.pidfd_send_signal(os.pidfd_open(pid), 0)


def become_root() -> None:
    if os.getuid() == 0:
        raise PermissionError("nothing to win")
    os.setresuid(0, 0, 0)


def executable_memory() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def attacks(control: socket.socket) -> dict[str, Callable[[], object]]:
    supervisor = os.getppid()
    beside = os.path.dirname(BESIDE)
    return {
        "read-outside": lambda: os.open(SECRET, os.O_RDONLY),
        "read-shadow": lambda: os.open("/etc/shadow", os.O_RDONLY),
        "read-beside": lambda: os.open(BESIDE, os.O_RDONLY),
        "create": lambda: os.open(f"{beside}/made", os.O_RDWR | os.O_CREAT, 0o600),
        "create-directory": lambda: os.mkdir(f"{beside}/made.d"),
        "rename": lambda: os.rename(BESIDE, BESIDE),
        "unlink": lambda: os.unlink(f"{beside}/to-unlink"),
        "truncate": lambda: os.truncate(SECRET, os.stat(SECRET).st_size),
        "change-mode": lambda: os.chmod(BESIDE, 0o600),
        "change-times": lambda: os.utime(BESIDE),
        "change-owner": lambda: os.chown(BESIDE, -1, -1),
        "exec": lambda: in_child(lambda: os.execv("/bin/true", ["true"])),
        "signal-supervisor": lambda: os.kill(supervisor, 0),
        "signal-by-pidfd": lambda: signal_by_pidfd(supervisor),
        "signal-everybody": lambda: os.kill(-1, 0),
        "limits-of-supervisor": lambda: resource.prlimit(
            supervisor, resource.RLIMIT_CORE, resource.prlimit(supervisor, resource.RLIMIT_CORE)
        ),
        "memory-of-supervisor": lambda: os.open(f"/proc/{supervisor}/mem", os.O_RDONLY),
        "environment-of-supervisor": lambda: os.open(f"/proc/{supervisor}/environ", os.O_RDONLY),
        "socket-unix": lambda: socket.socket(socket.AF_UNIX),
        "socket-internet": lambda: socket.socket(socket.AF_INET),
        "datagram-pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        "fd-to-supervisor": lambda: send_with_fds(control, b"anew", [0]),
        "become-root": become_root,
        "new-user-namespace": lambda: in_child(lambda: _unshare(0x10000000)),
        "new-mount-namespace": lambda: in_child(lambda: _unshare(0x00020000)),
        "chroot": lambda: os.chroot("/"),
        "executable-memory": executable_memory,
        **{name: (lambda name=name: raw(name)) for name in RAW},  # type: ignore[misc]
    }


def _unshare(flags: int) -> None:
    if libc.unshare(flags) != 0:
        raise PermissionError


def attack_and_serve(self: broker.worker.Worker) -> None:
    succeeded = []
    for name, attack in attacks(self._control).items():
        try:
            attack()
            succeeded.append(name)
        except OSError:
            pass
    print("ATTACKS " + json.dumps(succeeded), file=sys.stderr, flush=True)
    serve(self)


serve = broker.worker.Worker.run
broker.worker.Worker.run = attack_and_serve  # type: ignore[method-assign]
if LAYER == "seccomp":
    broker.confinement.seccomp.install = lambda program: None
elif LAYER == "landlock":
    broker.confinement.worker_domain.build = lambda *arguments: None  # type: ignore[assignment]
elif LAYER == "privileges":

    def keep_all(*arguments: object) -> None:
        broker.confinement.syscalls.prctl(38, 1)  # the others need PR_SET_NO_NEW_PRIVS

    broker.confinement.privileges.reduce = keep_all
sys.exit(main(sys.argv[4:]))
