"""The attackers: everything that a program inside a sandbox may try to get out, or to reach what is outside.

    python3 -I attack.py [--careful] DESCRIPTION [NAME...]     DESCRIPTION: JSON, from Witness.description()
    python3 -I attack.py --list

One JSON line an attack: {"attack": name, "succeeded": bool, "detail": text}. An attack succeeds on proof
alone: it read a secret, the call returned success, the new namespace is there. Each runs in a child of its
own; one that is killed, or takes longer than SECONDS, did not succeed.

The rules that it keeps, so that it can be run without any sandbox, also by root:
- It changes only what belongs to the witness: its victim, its files, its terminal. At other processes it
  sends signal 0, and sets what is set already.
- Mounts are made in a mount namespace of its own, where one can be had.
- It speaks to loopback only, opens devices for reading only, and a watchdog never.
- With --careful it leaves out what would harm the machine when it succeeds; root, unconfined, must say so.

What may be told to it beside the witness's description: `inside_pids` (processes that belong to the sandbox,
"1:2"), `writable` (directories that the sandbox grants, "/a:/b"), `policy_file` (the sandbox's own).
Standard library only, and one file: it must run where nothing else is.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import json
import os
import platform
import re
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

SECONDS = 5

# System calls that Python has no function for: the number on x86-64, and on the architectures that share the
# generic table (0: has none). From asm/unistd_64.h and asm-generic/unistd.h.
NUMBERS = {
    "ioctl": (16, 29), "shmget": (29, 194), "shmat": (30, 196), "msgrcv": (70, 188), "semop": (65, 193),
    "clone": (56, 220), "ptrace": (101, 117), "syslog": (103, 116), "personality": (135, 92),
    "modify_ldt": (154, 0), "pivot_root": (155, 41), "vhangup": (153, 58), "acct": (163, 89),
    "swapon": (167, 224), "iopl": (172, 0), "ioperm": (173, 0), "init_module": (175, 105),
    "quotactl": (179, 60), "clock_settime": (227, 112), "tgkill": (234, 131), "mq_open": (240, 180),
    "mq_timedreceive": (243, 183), "kexec_load": (246, 104), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "ioprio_set": (251, 30), "ioprio_get": (252, 31), "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27), "get_robust_list": (274, 100), "rt_sigqueueinfo": (129, 138),
    "perf_event_open": (298, 241), "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "bpf": (321, 280), "userfaultfd": (323, 282), "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fspick": (433, 433), "clone3": (435, 435), "pidfd_getfd": (438, 438), "mount_setattr": (442, 442),
    "fchmodat2": (452, 452),
}  # fmt: skip

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SEIZE = 16, 17, 0x4206
PR_GET_NO_NEW_PRIVS, PR_CAPBSET_READ = 39, 23
TIOCLINUX, TIOCGPTPEER, TIOCSPTLCK = 0x541C, 0x5441, 0x40045431
IPPROTO_MPTCP = 262
VMADDR_CID_LOCAL = 1
IPC_NOWAIT = 0o4000
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

# /dev/null, zero, full, random, urandom, tty and ptmx: no sandbox is worse for them.
HARMLESS_DEVICES = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)}
PTS_MAJORS = range(136, 144)
DEVICES_BY_NAME = [
    "mem", "kmsg", "port", "kvm", "fuse", "net/tun", "loop-control", "loop0", "vda", "sda", "nvme0n1", "dm-0",
    "mapper/control", "console", "tty0", "tty1", "ttyS0", "vcs", "uinput", "input/event0", "hidraw0",
    "dri/card0", "snd/timer", "vsock", "vhost-net", "userfaultfd", "udmabuf", "autofs", "rtc0", "btrfs-control",
]  # fmt: skip

SECRET_VARIABLES = [
    "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "AWS_SECRET_ACCESS_KEY", "DISPLAY", "WAYLAND_DISPLAY",
    "XAUTHORITY", "XDG_RUNTIME_DIR", "GPG_AGENT_INFO", "SSH_CONNECTION", "SUDO_USER", "GITHUB_TOKEN",
    "NOTIFY_SOCKET", "LISTEN_FDS", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "BASH_ENV", "KUBECONFIG",
]  # fmt: skip

SET_UID_PROGRAMS = ["su", "passwd", "newgrp", "chsh", "chfn", "gpasswd", "mount", "umount", "sudo", "pkexec"]

# What stays after the attack: it keeps fd 0, and reads what is typed there. It lets go of fds 1 and 2: whoever
# waits for the end of what the attacks print would wait for it.
LEFT_OVER = """
import os, select, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
for fd in (1, 2, int(sys.argv[1])):
    os.close(fd)
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        at_its_end = select.select([0], [], [], 0.2)[0] and not os.read(0, 4096)
    except OSError:
        at_its_end = True
    if at_its_end:
        time.sleep(0.2)
"""

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


T = TypeVar("T")


class NotProven(Exception):
    """The attack was tried, and there is no proof that it succeeded."""


class NotTried(Exception):
    """The attack lacks what it needs, or would be harmful here."""


class Attack(NamedTuple):
    """`run` returns its proof, or raises OSError, NotProven or NotTried."""

    run: Callable[[], str]
    harmful: bool


class Circumstances:
    """What the attacks know. Filled by main(), before the first child."""

    description: dict[str, Any]
    careful = False
    runner = 0
    parent = 0
    work = ""
    inherited: list[int]


ATTACKS: dict[str, Attack] = {}
here = Circumstances()


def named(function: Callable[[], str]) -> str:
    """An attack's name: its function's, with hyphens."""
    return function.__name__.replace("_", "-")


def attack(function: Callable[[], str]) -> Callable[[], str]:
    """Enter an attack that harms nothing of the machine's, even where it succeeds."""
    ATTACKS[named(function)] = Attack(function, harmful=False)
    return function


def harmful(function: Callable[[], str]) -> Callable[[], str]:
    """Enter an attack that is left out with --careful."""
    ATTACKS[named(function)] = Attack(function, harmful=True)
    return function


# What attacks have in common


def told(key: str) -> Any:
    """A value of the description. Raises NotTried where the witness has no such thing."""
    if key not in here.description:
        raise NotTried(f"the witness has no {key}")
    return here.description[key]


def system_call(name: str, *arguments: Any) -> int:
    """One system call by number; integers are widened to 64 bits. Raises OSError with the call's name."""
    machine = platform.machine()
    if machine not in ("x86_64", "aarch64", "riscv64"):
        raise NotTried(f"the number of {name} is not known for {machine}")
    number = NUMBERS[name][machine != "x86_64"]
    if machine != "x86_64" and not number:
        raise NotTried(f"{machine} has no {name}")
    widened = [
        ctypes.c_long(0 if one is None else one) if isinstance(one, int | None) else one for one in arguments
    ]
    result = int(libc.syscall(ctypes.c_long(number), *widened))
    if result == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def library_call(name: str, *arguments: Any) -> int:
    """One function of the C library that returns -1 on failure. Raises OSError with its name."""
    result = getattr(libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return int(result)


def secret_in(data: bytes | str) -> str:
    """The first secret in the data. Raises NotProven where there is none."""
    text = data if isinstance(data, bytes) else data.encode(errors="replace")
    found = re.search(re.escape(told("secret_prefix").encode()) + rb"[0-9a-f]{32}", text)
    if not found:
        raise NotProven(f"no secret in the {len(text)} bytes read")
    return found.group().decode()


def contents(path: str, limit: int = 1 << 20) -> bytes:
    """The first bytes of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)


def opened(path: str, flags: int) -> int:
    """An fd that no terminal and no FIFO can spoil."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def can_open(path: str, flags: int) -> bool:
    """Whether it can be opened. Nothing is read or written."""
    try:
        os.close(opened(path, flags))
    except OSError:
        return False
    return True


def own_path(name: str) -> str:
    """A path in the attacker's own directory."""
    if not here.work:
        raise NotTried("there is no directory to write to")
    return os.path.join(here.work, name)


def in_child(function: Callable[[], object]) -> int:
    """The exit status of a child that runs it: 0, or the errno that it failed with."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            function()
            status = 0
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def passed_the_check(name: str, *arguments: Any) -> str:
    """Proof that the kernel let the caller through: the call fails for its senseless arguments alone."""
    try:
        system_call(name, *arguments)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
        return f"{name} was permitted, and failed for its arguments ({errno.errorcode[error.errno or 0]})"
    return f"{name} returned success"


def by_name(cases: Iterable[T]) -> dict[str, T]:
    """Cases that are their own names."""
    return {str(case): case for case in cases}


def any_of(attempt: Callable[[T], object], cases: Mapping[str, T]) -> str:
    """The names of all cases that it works for. Raises NotProven with each failure where there are none."""
    worked, failures = [], []
    for name, case in cases.items():
        try:
            attempt(case)
            worked.append(name)
        except (OSError, ValueError, NotProven, NotTried) as error:  # ValueError: what setrlimit(2) refuses
            failures.append(f"{name}: {error}")
    if not worked:
        raise NotProven("; ".join(failures)[:500])
    return ", ".join(worked)[:500]


# Sockets


@attack
def unix_stream() -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(told("stream_socket"))
    return "connected"


@attack
def unix_stream_by_proc_root() -> str:
    def connect(pid: int) -> None:
        # A root's path may be longer than an address: so from the socket's directory.
        os.chdir(f"/proc/{pid}/root{told('directory')}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(os.path.basename(told("stream_socket")))

    return any_of(connect, by_name((1, here.parent, victim())))


@attack
def unix_datagram() -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        return f"{client.sendto(b'attack', told('datagram_socket'))} bytes sent"


@attack
def unix_datagram_pair() -> str:
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, other:
        return f"{ours.sendto(b'attack', told('datagram_socket'))} bytes sent"


@attack
def abstract_stream() -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect("\0" + told("abstract_stream"))
    return "connected"


@attack
def abstract_datagram() -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        return f"{client.sendto(b'attack', chr(0) + told('abstract_datagram'))} bytes sent"


@attack
def abstract_datagram_pair() -> str:
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, other:
        return f"{ours.sendto(b'attack', chr(0) + told('abstract_datagram'))} bytes sent"


def connected(family: socket.AddressFamily, port: int, protocol: int = 0) -> str:
    """Connect to a port of loopback."""
    with socket.socket(family, socket.SOCK_STREAM, protocol) as client:
        client.connect((LOOPBACK[family], port))
    return "connected"


def sent(family: socket.AddressFamily, port: int) -> str:
    """Two datagrams: where nobody listens, the second meets the first one's refusal."""
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((LOOPBACK[family], port))
        client.send(b"attack")
        client.send(b"attack")
    return "sent, and not refused"


@attack
def tcp4() -> str:
    return connected(socket.AF_INET, told("tcp4"))


@attack
def tcp6() -> str:
    return connected(socket.AF_INET6, told("tcp6"))


@attack
def tcp_fast_open() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        size = client.sendto(b"attack", socket.MSG_FASTOPEN, (LOOPBACK[socket.AF_INET], told("tcp4")))
        client.getpeername()
    return f"{size} bytes sent"


@attack
def mptcp() -> str:
    return connected(socket.AF_INET, told("tcp4"), IPPROTO_MPTCP)


@attack
def udp4() -> str:
    return sent(socket.AF_INET, told("udp4"))


@attack
def udp6() -> str:
    return sent(socket.AF_INET6, told("udp6"))


def made_socket(family: int, kind: int, protocol: int = 0) -> str:
    """A socket of that kind can be had."""
    socket.socket(family, kind, protocol).close()
    return f"socket({family}, {kind}, {protocol}) returned success"


@attack
def raw_socket() -> str:
    return made_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@attack
def packet_socket() -> str:
    return made_socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


@attack
def ping_socket() -> str:
    return made_socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


@attack
def vsock_socket() -> str:
    return made_socket(socket.AF_VSOCK, socket.SOCK_STREAM)


@attack
def vsock_connect() -> str:
    port = told("vsock")
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as client:
        client.connect((VMADDR_CID_LOCAL, port))
    return "connected"


@attack
def alg_socket() -> str:
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as client:
        client.bind(("hash", "sha256"))
    return "a kernel's hash is bound"


@harmful
def other_families() -> str:
    # Harmful: where nothing stops it, the kernel loads a module for each family that it has.
    kinds = {"KEY": (15, 3, 2), "RDS": (21, 5, 0), "CAN": (29, 3, 1), "TIPC": (30, 5, 0), "BLUETOOTH": (31, 5, 0),
             "KCM": (41, 2, 0), "QIPCRTR": (42, 2, 0), "SMC": (43, 1, 0), "XDP": (44, 3, 0)}  # fmt: skip
    return any_of(lambda kind: made_socket(*kind), kinds)


def netlink_dump(protocol: int, kind: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages of a dump: type and body of each."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as client:
        client.settimeout(SECONDS - 1)
        client.send(struct.pack("=IHHII", 16 + len(body), kind, 0x301, 1, 0) + body)
        while True:
            data = client.recv(1 << 16)
            while data:
                size, got = struct.unpack_from("=IH", data)
                if got == 2:  # NLMSG_ERROR
                    number = -struct.unpack_from("=i", data, 16)[0]
                    raise OSError(number, f"netlink: {os.strerror(number)}")
                if got == 3:  # NLMSG_DONE
                    return
                yield got, data[16:size]
                data = data[(size + 3) & ~3 :]


@attack
def netlink_interfaces() -> str:
    # Loopback is everybody's, and tunnels that are down come with every network namespace.
    foreign = []
    for _, body in netlink_dump(0, 18, bytes(16)):
        index, flags = struct.unpack_from("=iI", body, 4)
        if flags & 1 and not flags & 8:
            foreign.append(socket.if_indextoname(index))
    if not foreign:
        raise NotProven("no interface but loopback is up")
    return f"interfaces: {foreign}"


@attack
def netlink_sockets() -> str:
    # SOCK_DIAG_BY_FAMILY: every TCP socket of this network namespace.
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + bytes(48)
    for _, body in netlink_dump(4, 20, request):
        if struct.unpack_from(">H", body, 4)[0] == told("tcp4"):
            return "the witness's listening socket is listed"
    raise NotProven("the witness's listening socket is not listed")


@attack
def netlink_audit() -> str:
    return made_socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)


@attack
def netlink_uevent() -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15) as client:
        client.bind((0, 1))
    return "bound to the kernel's device events"


# Keys, and System V's and POSIX's messages


@attack
def key_read() -> str:
    buffer = ctypes.create_string_buffer(4096)
    size = system_call("keyctl", 11, told("key"), buffer, 4096, 0)
    return secret_in(buffer.raw[:size])


@attack
def key_search() -> str:
    # KEY_SPEC_USER_KEYRING: -4
    key = system_call("keyctl", 10, -4, b"user", told("key_title").encode(), 0)
    return f"found as {key}"


@attack
def key_request() -> str:
    key = system_call("request_key", b"user", told("key_title").encode(), None, 0)
    return f"found as {key}"


@attack
def key_add() -> str:
    # Into a session keyring of its own, which ends with the child.
    with contextlib.suppress(OSError):
        system_call("keyctl", 1, None)
    key = system_call("add_key", b"user", b"attack", b"x", 1, -3)
    return f"made {key}"


@attack
def keys_listed() -> str:
    if told("key_title").encode() not in contents("/proc/keys"):
        raise NotProven("the witness's key is not listed")
    return "the witness's key is listed"


def attached(flags: int) -> int:
    """The address of the witness's segment."""
    return system_call("shmat", told("segment"), None, flags)


@attack
def segment_read() -> str:
    return secret_in(ctypes.string_at(attached(0o10000), 128))


@attack
def segment_write() -> str:
    ctypes.memset(attached(0) + 1024, 0x41, 16)
    return "written"


@attack
def message_queue() -> str:
    buffer = ctypes.create_string_buffer(256)
    system_call("msgrcv", told("message_queue"), buffer, 128, 0, IPC_NOWAIT)
    return secret_in(buffer.raw)


@attack
def semaphore() -> str:
    system_call("semop", told("semaphore"), struct.pack("=Hhh", 0, 1, IPC_NOWAIT), 1)
    return "raised by one"


@attack
def posix_queue() -> str:
    queue = system_call("mq_open", told("posix_queue").encode(), os.O_RDWR | os.O_NONBLOCK, 0, None)
    buffer = ctypes.create_string_buffer(8192)
    size = system_call("mq_timedreceive", queue, buffer, 8192, None, None)
    return secret_in(buffer.raw[:size])


# Processes


def arguments_of(pid: int) -> list[str]:
    """The arguments of a process; none where they can't be read."""
    try:
        return contents(f"/proc/{pid}/cmdline").decode(errors="replace").split("\0")
    except OSError:
        return []


def visible() -> list[int]:
    """Every process and thread that there is to be found: by /proc, and where that hides some, by trying."""
    found = set()
    with contextlib.suppress(OSError):
        found = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    for pid in range(1, 1 << 15):
        with contextlib.suppress(OSError):
            os.getsid(pid)
            found.add(pid)
    return sorted(found)


def inside() -> set[int]:
    """Processes that the caller named as the sandbox's own."""
    return {int(word) for word in str(here.description.get("inside_pids", "")).split(":") if word}


def family(pid: int) -> bool:
    """Whether it belongs to the attack itself: all that has its session."""
    if pid in (here.runner, os.getpid()):
        return True
    try:
        return pid != here.parent and os.getsid(pid) == os.getsid(0)
    except OSError:
        return False


def victim_if_seen() -> int | None:
    """The victim, known by its arguments."""
    name = told("victim_name")
    candidates = [told("victim")]
    with contextlib.suppress(OSError):
        candidates += [int(number) for number in os.listdir("/proc") if number.isdigit()]
    return next((pid for pid in candidates if name in arguments_of(pid)), None)


def victim() -> int:
    """The victim; where it can't be seen, the number that it has outside, tried blindly."""
    found = victim_if_seen() or int(told("victim"))
    if found in inside() or family(found):
        raise NotProven("the victim's number is that of another process here")
    return found


def others() -> list[int]:
    """Everybody who is neither of the attack's family nor the victim, nor the parent."""
    known = inside() | {victim(), here.parent}
    return [pid for pid in visible() if pid not in known and not family(pid)]


def parent() -> int:
    """Who started the attack program."""
    if here.parent == 0:
        raise NotProven("the parent is in another pid namespace")
    if here.parent in inside():
        raise NotTried("the parent belongs to the sandbox")
    return here.parent


def pointer_and_size(address: int, size: int) -> bytes:
    """A struct iovec."""
    return struct.pack("=QQ", address, size)


def address_in(pid: int) -> int:
    """A readable address of a process: the victim's secret, the first by its maps, or one that we have too."""
    if pid == victim():
        return int(told("victim_address"))
    try:
        return int(contents(f"/proc/{pid}/maps").split(b"-")[0], 16)
    except (OSError, ValueError):
        return ctypes.addressof(ctypes.create_string_buffer(16))


# An operation tries one thing on one process. `really`: it is the victim, so change it.


def op_ptrace(pid: int, really: bool) -> str:
    system_call("ptrace", PTRACE_ATTACH if really else PTRACE_SEIZE, pid, None, None)
    if really:
        os.waitpid(pid, 0x40000000)
        system_call("ptrace", PTRACE_DETACH, pid, None, None)
    return "traced"  # what is seized gets free when we end


def op_vm_read(pid: int, really: bool) -> str:
    buffer = ctypes.create_string_buffer(64)
    ours = pointer_and_size(ctypes.addressof(buffer), 64)
    try:
        system_call("process_vm_readv", pid, ours, 1, pointer_and_size(address_in(pid), 64), 1, 0)
    except OSError as error:
        if error.errno == errno.EFAULT:
            return "permitted, though there is nothing at that address"
        raise
    return secret_in(buffer.raw) if really else "read"


def op_vm_write(pid: int, really: bool) -> str:
    if not really:
        raise NotTried("the victim is not to be seen")
    buffer = ctypes.create_string_buffer(b"attacked", 8)
    ours = pointer_and_size(ctypes.addressof(buffer), 8)
    system_call("process_vm_writev", pid, ours, 1, pointer_and_size(address_in(pid) + 512, 8), 1, 0)
    return "written"


def op_pidfd_getfd(pid: int, really: bool) -> str:
    process = os.pidfd_open(pid)
    if really:
        return secret_in(os.pread(system_call("pidfd_getfd", process, told("victim_fd"), 0), 128, 0))
    return any_of(lambda fd: system_call("pidfd_getfd", process, fd, 0), by_name(range(16)))


def op_kill(pid: int, really: bool) -> str:
    os.kill(pid, 0)
    if really:
        os.kill(pid, signal.SIGUSR1)
    return "may be signalled"


def op_tgkill(pid: int, really: bool) -> str:
    system_call("tgkill", pid, pid, signal.SIGUSR2 if really else 0)
    return "may be signalled"


def op_sigqueue(pid: int, really: bool) -> str:
    number = signal.SIGRTMIN + 1 if really else 0
    info = struct.pack("=iii", number, 0, -1) + bytes(116)  # si_code SI_QUEUE
    system_call("rt_sigqueueinfo", pid, number, info)
    return "may be signalled"


def op_pidfd_signal(pid: int, really: bool) -> str:
    system_call("pidfd_send_signal", os.pidfd_open(pid), signal.SIGRTMIN + 2 if really else 0, None, 0)
    return "may be signalled"


def op_fd_owner_signal(pid: int, really: bool) -> str:
    # Whether the signal arrives, the witness tells: the kernel drops it silently where it may not.
    if not really:
        raise NotTried("the victim is not to be seen")
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
    fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGRTMIN + 3)
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writer, b"x")
    raise NotProven("sent; the witness tells whether it came")


def op_limits(pid: int, really: bool) -> str:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft - 1 if really else soft, hard))
    return "set"


def op_affinity(pid: int, really: bool) -> str:
    processors = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, {min(processors)} if really else processors)
    return "set"


def op_scheduler(pid: int, really: bool) -> str:
    policy = os.SCHED_BATCH if really else os.sched_getscheduler(pid)
    os.sched_setscheduler(pid, policy, os.sched_getparam(pid))
    return "set"


def op_nice(pid: int, really: bool) -> str:
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid) + bool(really))
    return "set"


def op_io_priority(pid: int, really: bool) -> str:
    now = system_call("ioprio_get", 1, pid)
    system_call("ioprio_set", 1, pid, (2 << 13 | 7) if really else now)
    return "set"


def op_oom_score(pid: int, really: bool) -> str:
    now = int(contents(f"/proc/{pid}/oom_score_adj"))
    fd = opened(f"/proc/{pid}/oom_score_adj", os.O_WRONLY)
    os.write(fd, b"%d" % (now + 100 * really))
    return "set"


def op_kcmp(pid: int, really: bool) -> str:
    return f"compared: {system_call('kcmp', os.getpid(), pid, 1, 0, 0)}"


def op_robust_list(pid: int, really: bool) -> str:
    head, size = ctypes.c_void_p(), ctypes.c_size_t()
    system_call("get_robust_list", pid, ctypes.byref(head), ctypes.byref(size))
    return "its list's address is known"


def op_perf_events(pid: int, really: bool) -> str:
    return f"fd {system_call('perf_event_open', perf_attributes(), pid, -1, -1, 0)}"


def op_root(pid: int, really: bool) -> str:
    return secret_in(contents(f"/proc/{pid}/root{told('secret_file')}"))


def op_cwd(pid: int, really: bool) -> str:
    name = os.path.basename(told("inner_secret"))
    if really:
        return secret_in(contents(f"/proc/{pid}/cwd/{name}"))
    return f"{len(os.listdir(f'/proc/{pid}/cwd'))} names listed"


def op_fds(pid: int, really: bool) -> str:
    if really:
        return secret_in(contents(f"/proc/{pid}/fd/{told('victim_fd')}"))
    return f"{len(os.listdir(f'/proc/{pid}/fd'))} fds listed"


def op_environ(pid: int, really: bool) -> str:
    data = contents(f"/proc/{pid}/environ")
    return secret_in(data) if really else f"{len(data)} bytes read"


def op_maps(pid: int, really: bool) -> str:
    data = contents(f"/proc/{pid}/maps")
    if not data:
        raise NotProven("empty: it has no memory")
    return f"{len(data)} bytes read"


def op_memory(pid: int, really: bool) -> str:
    fd = opened(f"/proc/{pid}/mem", os.O_RDONLY)
    data = os.pread(fd, 64, address_in(pid))
    return secret_in(data) if really else f"{len(data)} bytes read"


def op_memory_write(pid: int, really: bool) -> str:
    if not really:
        raise NotTried("the victim is not to be seen")
    fd = opened(f"/proc/{pid}/mem", os.O_RDWR)
    os.pwrite(fd, b"attacked", address_in(pid) + 256)
    return "written"


def op_exe(pid: int, really: bool) -> str:
    return os.readlink(f"/proc/{pid}/exe")


def op_setns(pid: int, really: bool) -> str:
    names = os.listdir(f"/proc/{pid}/ns")

    def enter(name: str) -> None:
        fd = opened(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        status = in_child(lambda: library_call("setns", fd, 0))
        os.close(fd)
        if status:
            raise OSError(status, os.strerror(status))

    return any_of(enter, by_name(names))


OPERATIONS: dict[str, Callable[[int, bool], str]] = {
    function.__name__.removeprefix("op_").replace("_", "-"): function
    for function in (
        op_ptrace, op_vm_read, op_pidfd_getfd, op_kill, op_tgkill, op_sigqueue, op_pidfd_signal, op_limits,
        op_affinity, op_scheduler, op_nice, op_io_priority, op_oom_score, op_kcmp, op_robust_list,
        op_perf_events, op_root, op_cwd, op_fds, op_environ, op_maps, op_memory, op_exe, op_setns,
    )
}  # fmt: skip
# These need something that is ours to change.
ON_THE_VICTIM_ONLY = {
    "vm-write": op_vm_write, "memory-write": op_memory_write, "fd-owner-signal": op_fd_owner_signal,
}  # fmt: skip


def on_the_victim(operation: Callable[[int, bool], str]) -> str:
    """Really, where it is known to be the victim; else as on any process."""
    return operation(victim(), victim_if_seen() is not None)


def on_the_parent(operation: Callable[[int, bool], str]) -> str:
    """On whoever started the attack program; nothing is changed."""
    return operation(parent(), False)


def on_others(operation: Callable[[int, bool], str]) -> str:
    """On everybody else that is to be found."""
    reached, failures = [], set()
    everybody = others()
    for pid in everybody:
        try:
            operation(pid, False)
            reached.append(pid)
        except OSError as error:
            failures.add(errno.errorcode.get(error.errno or 0, "?"))
        except NotProven:
            failures.add("no proof")
    if not reached:
        raise NotProven(f"{len(everybody)} others: {sorted(failures)}")
    return f"{len(reached)} others, the first {reached[:5]}"


for _name, _operation in (OPERATIONS | ON_THE_VICTIM_ONLY).items():
    ATTACKS[f"{_name}-victim"] = Attack(functools.partial(on_the_victim, _operation), harmful=False)
for _name, _operation in OPERATIONS.items():
    ATTACKS[f"{_name}-parent"] = Attack(functools.partial(on_the_parent, _operation), harmful=False)
    # Root reaches every process of the machine's.
    ATTACKS[f"{_name}-others"] = Attack(functools.partial(on_others, _operation), harmful=True)


@attack
def kill_everyone() -> str:
    # Signal 0 to -1 always finds the program that started us. It counts where somebody else is there to find.
    os.kill(-1, 0)
    known = inside()
    reached = []
    for pid in visible():
        with contextlib.suppress(OSError):
            if pid not in known and not family(pid):
                os.kill(pid, 0)
                reached.append(pid)
    if not reached:
        raise NotProven("it reaches the attack itself only")
    return f"it reaches {reached[:5]}"


# Namespaces and mounts

NAMESPACES = {
    "mount": CLONE_NEWNS, "pid": CLONE_NEWPID, "net": CLONE_NEWNET, "ipc": CLONE_NEWIPC, "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP, "time": CLONE_NEWTIME,
}  # fmt: skip


@attack
def unshare_user() -> str:
    before = os.readlink("/proc/self/ns/user") if os.path.lexists("/proc/self/ns/user") else "?"
    library_call("unshare", CLONE_NEWUSER)
    after = os.readlink("/proc/self/ns/user") if os.path.lexists("/proc/self/ns/user") else "??"
    if before == after:
        raise NotProven("unshare returned success, and the namespace is the same")
    return after


@attack
def unshare_the_rest() -> str:
    def unshare(flag: int) -> None:
        status = in_child(lambda: library_call("unshare", flag))
        if status:
            raise OSError(status, os.strerror(status))

    return any_of(unshare, NAMESPACES)


def ended(pid: int) -> str:
    """In the child of a clone: end. In its parent: wait, and say so."""
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a child in a namespace of its own"


@attack
def clone_user() -> str:
    return ended(system_call("clone", CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0))


@attack
def clone3_user() -> str:
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, and six more.
    arguments = struct.pack("=11Q", CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
    return ended(system_call("clone3", arguments, len(arguments)))


def become_root_of_a_namespace(flags: int = 0) -> None:
    """uid 0 of a new user namespace."""
    uid, gid = os.getuid(), os.getgid()
    library_call("unshare", CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("gid_map", f"0 {gid} 1"), ("uid_map", f"0 {uid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(fd, text.encode())
        os.close(fd)


def mounted(source: str, place: str, kind: str, flags: int = 0) -> str:
    """mount(2), on an own directory."""
    os.makedirs(place, exist_ok=True)
    library_call("mount", source.encode(), place.encode(), kind.encode(), ctypes.c_ulong(flags), None)
    return f"{kind or source} mounted"


@attack
def user_namespace_root() -> str:
    become_root_of_a_namespace()
    if os.getuid() != 0:
        raise NotProven(f"the uid is {os.getuid()}")
    os.setuid(0)
    return "uid 0"


@attack
def user_namespace_mount() -> str:
    become_root_of_a_namespace(CLONE_NEWNS)
    return mounted("none", own_path("mount"), "tmpfs")


@attack
def user_namespace_proc() -> str:
    become_root_of_a_namespace(CLONE_NEWNS | CLONE_NEWPID)
    place = own_path("proc")
    status = in_child(lambda: mounted("proc", place, "proc"))
    if status:
        raise OSError(status, os.strerror(status))
    return "proc mounted"


def private_mounts() -> None:
    """A mount namespace of our own where one can be had, so that what succeeds is the machine's no matter."""
    with contextlib.suppress(OSError):
        library_call("unshare", CLONE_NEWNS)
        library_call("mount", b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)


@attack
def mount_tmpfs() -> str:
    private_mounts()
    return mounted("none", own_path("tmpfs"), "tmpfs")


@attack
def mount_proc() -> str:
    private_mounts()
    return mounted("proc", own_path("procfs"), "proc")


@attack
def mount_bind() -> str:
    private_mounts()
    return mounted("/", own_path("bind"), "", MS_BIND | MS_REC)


@attack
def mount_remount() -> str:
    private_mounts()
    library_call("mount", None, b"/", None, ctypes.c_ulong(MS_REMOUNT | MS_BIND), None)
    return "/ remounted with no restriction"


@attack
def unmount() -> str:
    private_mounts()
    places = ["/proc", "/sys", "/dev", "/tmp", "/run", os.environ.get("HOME", "/")]
    return any_of(lambda place: library_call("umount2", place.encode(), MNT_DETACH), by_name(places))


@attack
def pivot_root() -> str:
    private_mounts()
    place = own_path("pivot").encode()
    os.makedirs(place, exist_ok=True)
    with contextlib.suppress(OSError):
        library_call("mount", b"none", place, b"tmpfs", ctypes.c_ulong(0), None)
    os.chdir(place)
    system_call("pivot_root", b".", b".")
    return "another root"


@attack
def chroot() -> str:
    os.chroot(own_path(""))
    return "another root"


@attack
def open_tree() -> str:
    private_mounts()
    return f"fd {system_call('open_tree', AT_FDCWD, b'/', 1)}"  # OPEN_TREE_CLONE


@attack
def fsopen() -> str:
    return f"fd {system_call('fsopen', b'tmpfs', 0)}"


@attack
def fspick() -> str:
    private_mounts()
    return f"fd {system_call('fspick', AT_FDCWD, b'/', 0)}"


@attack
def move_mount() -> str:
    private_mounts()
    place = own_path("moved")
    os.makedirs(place, exist_ok=True)
    source = opened("/proc", os.O_PATH)
    system_call("move_mount", source, b"", AT_FDCWD, place.encode(), 4)  # MOVE_MOUNT_F_EMPTY_PATH
    return "/proc moved"


@attack
def mount_setattr() -> str:
    private_mounts()
    attributes = struct.pack("=4Q", 0, 1, 0, 0)  # clear MOUNT_ATTR_RDONLY
    system_call("mount_setattr", AT_FDCWD, b"/", 0, attributes, len(attributes))
    return "/ made writable"


@attack
def open_by_handle() -> str:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128), 136)
    mount = ctypes.c_int()
    path = own_path("handle")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    system_call("name_to_handle_at", AT_FDCWD, path.encode(), handle, ctypes.byref(mount), 0)
    return f"fd {system_call('open_by_handle_at', opened(here.work, os.O_RDONLY), handle, os.O_RDONLY)}"


# Files


@attack
def read_private() -> str:
    return secret_in(contents(told("private_file")))


@attack
def read_secret() -> str:
    return secret_in(contents(told("secret_file")))


@attack
def read_inner() -> str:
    return secret_in(contents(told("inner_secret")))


@attack
def read_home() -> str:
    return secret_in(contents(told("home_secret")))


@attack
def read_mounted() -> str:
    return secret_in(contents(told("mounted_secret")))


@attack
def read_shadow() -> str:
    return f"{len(contents('/etc/shadow'))} bytes read"


@attack
def list_directory() -> str:
    if os.path.basename(told("secret_file")) not in os.listdir(told("directory")):
        raise NotProven("it is another directory")
    return "listed"


@attack
def stat_names() -> str:
    keys = ["directory", "private_file", "secret_file", "inner_secret", "stream_socket"]
    return any_of(lambda key: os.lstat(told(key)), by_name(keys))


@attack
def change_directory() -> str:
    os.chdir(told("directory"))
    return os.getcwd()


@attack
def watch_directory() -> str:
    watcher = system_call("inotify_init1", 0)
    system_call("inotify_add_watch", watcher, told("directory").encode(), 0xFFF)
    return "its events are told"


@attack
def write_file() -> str:
    fd = opened(told("writable_file"), os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"attacked\n")
    return "written"


@attack
def truncate_file() -> str:
    os.truncate(told("writable_file"), 3)
    return "truncated"


@attack
def link_file() -> str:
    # Not beside it alone: whoever cannot write there may still give it a name elsewhere.
    directories = by_name((here.work, told("directory")))
    return any_of(lambda place: os.link(told("writable_file"), os.path.join(place, "linked")), directories)


@attack
def rename_file() -> str:
    os.rename(told("movable_file"), told("movable_file") + "-moved")
    return "renamed"


@attack
def change_mode() -> str:
    os.chmod(told("writable_file"), 0o667)
    return "changed"


@attack
def change_times() -> str:
    os.utime(told("writable_file"), (1, 1))
    return "changed"


@attack
def set_attribute() -> str:
    os.setxattr(told("writable_file"), "user.attack", b"x")
    return "set"


@attack
def create_beside() -> str:
    fd = os.open(os.path.join(told("directory"), "created"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.close(fd)
    return "created"


def granted(path: str) -> bool:
    """Whether the program is meant to write there."""
    names = ["/tmp", "/dev/shm", os.environ.get("HOME") or "/tmp", os.environ.get("TMPDIR") or "/tmp"]
    names += str(here.description.get("writable", "")).split(":")
    roots = [os.path.realpath(name).rstrip("/") for name in names if name and name != "/"]
    return any(path == root or path.startswith(root + "/") for root in roots)


@attack
def write_anywhere() -> str:
    end, writable = time.monotonic() + SECONDS - 1, []
    for directory, names, _ in os.walk("/"):
        if directory in ("/proc", "/sys") or granted(directory):
            names.clear()
            continue
        if os.access(directory, os.W_OK | os.X_OK):
            with contextlib.suppress(OSError):
                fd, path = tempfile.mkstemp(prefix="attack-", dir=directory)
                os.close(fd)
                os.unlink(path)
                writable.append(directory)
        if len(writable) == 10 or time.monotonic() > end:
            break
    if not writable:
        raise NotProven("no directory but those that are granted")
    return ", ".join(writable)


@attack
def reopen_fds() -> str:
    # Terminals and the harmless devices are no gain, and are looked at elsewhere.
    gained = []
    for fd in here.inherited:
        status, mode = os.fstat(fd), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        numbers = (os.major(status.st_rdev), os.minor(status.st_rdev))
        device = stat.S_ISCHR(status.st_mode) and (numbers in HARMLESS_DEVICES or numbers[0] in PTS_MAJORS)
        if mode == os.O_RDWR or device or not stat.S_ISREG(status.st_mode) | stat.S_ISCHR(status.st_mode):
            continue
        wanted = os.O_WRONLY if mode == os.O_RDONLY else os.O_RDONLY
        if can_open(f"/proc/self/fd/{fd}", wanted):
            gained.append(f"{fd} ({os.readlink(f'/proc/self/fd/{fd}')})")
    if not gained:
        raise NotProven(f"no gain by any of the fds {here.inherited}")
    return ", ".join(gained)


@attack
def parents_of_fds() -> str:
    name = os.path.basename(told("secret_file"))
    directories = [fd for fd in here.inherited if stat.S_ISDIR(os.fstat(fd).st_mode)]
    for start in directories:
        fd = start
        for _ in range(16):
            try:
                fd = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
                found = os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=fd)
            except FileNotFoundError:
                continue
            except OSError:
                break
            return secret_in(os.read(found, 4096))
    raise NotProven(f"none of the inherited directories {directories} leads to the secret")


# Devices


def device_nodes() -> Iterator[str]:
    """Device nodes below /dev, and names to try where it can't be listed."""
    yield from (f"/dev/{name}" for name in DEVICES_BY_NAME)
    for directory, _, names in os.walk("/dev"):
        yield from (os.path.join(directory, name) for name in names)


@attack
def devices() -> str:
    found = set()
    for path in device_nodes():
        if "watchdog" in path:
            continue  # to open it arms it
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            numbers = (os.major(status.st_rdev), os.minor(status.st_rdev))
            block, character = stat.S_ISBLK(status.st_mode), stat.S_ISCHR(status.st_mode)
            if not (block or character) or (character and numbers in HARMLESS_DEVICES):
                continue
            if character and numbers[0] in PTS_MAJORS:
                continue  # the terminals have attacks of their own
            # Root may open all, and some act when they are opened.
            if os.access(path, os.R_OK) if here.careful else can_open(path, os.O_RDONLY):
                found.add(path)
    if not found:
        raise NotProven("none but the harmless ones")
    return ", ".join(sorted(found)[:20])


def made_node(kind: int) -> str:
    """mknod of /dev/mem's numbers, or of the first loop device's. It is not opened."""
    path = own_path("node")
    os.mknod(path, kind | 0o600, os.makedev(1, 1) if kind == stat.S_IFCHR else os.makedev(7, 0))
    os.unlink(path)
    return "made"


@attack
def make_character_device() -> str:
    return made_node(stat.S_IFCHR)


@attack
def make_block_device() -> str:
    return made_node(stat.S_IFBLK)


# Terminals


def terminals() -> dict[str, int]:
    """The terminals that the program was given: name and fd. Raises NotProven where there are none."""
    told("terminal")  # without a witness, a terminal may be somebody's own
    found = {}
    for fd in (0, 1, 2):
        with contextlib.suppress(OSError):
            if os.isatty(fd):
                found[f"fd {fd}"] = fd
    with contextlib.suppress(OSError):
        found["/dev/tty"] = opened("/dev/tty", os.O_RDWR)
    if not found:
        raise NotProven("no terminal")
    return found


def on_terminals(request: int, argument: bytes) -> str:
    """One ioctl on each terminal, the request's number in 64 bits."""
    buffer = ctypes.create_string_buffer(argument, 16)
    return any_of(lambda fd: system_call("ioctl", fd, request, buffer), terminals())


@attack
def terminal_typing() -> str:
    return on_terminals(termios.TIOCSTI, b"x")


@attack
def terminal_typing_with_bit_32() -> str:
    return on_terminals(1 << 32 | termios.TIOCSTI, b"y")


@attack
def terminal_linux() -> str:
    return on_terminals(TIOCLINUX, b"\x06")  # the shift keys' state: nothing changes


@attack
def terminal_linux_with_bit_32() -> str:
    return on_terminals(1 << 32 | TIOCLINUX, b"\x06")


@attack
def terminal_settings() -> str:
    def change(fd: int) -> None:
        settings = termios.tcgetattr(fd)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(fd, termios.TCSANOW, settings)

    return any_of(change, terminals())


@attack
def terminal_stolen() -> str:
    # As the leader of a new session, without asking for more than it is given: TIOCSCTTY with 0.
    fds = list(terminals().values())

    def steal() -> None:
        os.setsid()
        fcntl.ioctl(fds[0], termios.TIOCSCTTY, 0)

    status = in_child(steal)
    if status:
        raise OSError(status, os.strerror(status))
    return "it controls a session of ours"


@attack
def terminal_by_path() -> str:
    fd = opened(told("terminal"), os.O_RDWR)
    if os.fstat(fd).st_dev != told("terminals_device"):
        raise NotProven("it is a terminal of another devpts")
    return "opened"


@attack
def other_terminals() -> str:
    own = {os.fstat(fd).st_rdev for fd in terminals().values()} | {os.makedev(5, 0)}
    paths = [f"/dev/pts/{name}" for name in os.listdir("/dev/pts") if name != "ptmx"]
    found = [path for path in paths if os.stat(path).st_rdev not in own and can_open(path, os.O_RDWR)]
    if not found:
        raise NotProven(f"none of {paths}")
    return ", ".join(found)


@attack
def ptmx_of_outside() -> str:
    def peer(path: str) -> None:
        fd = opened(path, os.O_RDWR)
        fcntl.ioctl(fd, TIOCSPTLCK, struct.pack("i", 0))
        other = fcntl.ioctl(fd, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        if os.fstat(other).st_dev != told("terminals_device"):
            raise NotProven("a terminal of another devpts")

    return any_of(peer, by_name(("/dev/ptmx", "/dev/pts/ptmx")))


# Privileges


@attack
def capabilities() -> str:
    text = contents("/proc/self/status").decode()
    sets = dict(re.findall(r"^Cap(Inh|Prm|Eff|Amb):\s*([0-9a-f]+)$", text, re.MULTILINE))
    held = {name: value for name, value in sets.items() if int(value, 16)}
    if not held:
        raise NotProven("no capability in any set")
    return str(held)


@attack
def bounding_set() -> str:
    held = [number for number in range(64) if libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1]
    if not held:
        raise NotProven("the bounding set is empty")
    return f"{len(held)} capabilities"


@attack
def new_privileges() -> str:
    if libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0:
        raise NotProven("no_new_privs is set")
    return "no_new_privs is not set"


@attack
def set_uid_programs() -> str:
    new_privileges()
    found = []
    for name in SET_UID_PROGRAMS:
        for directory in ("/usr/bin", "/bin", "/usr/sbin"):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                if os.stat(path).st_mode & stat.S_ISUID and not os.statvfs(path).f_flag & os.ST_NOSUID:
                    found.append(path)
    if not found:
        raise NotProven("no set-uid program would raise anybody")
    return ", ".join(found)


@attack
def set_uid() -> str:
    own = os.getresuid()
    others = [uid for uid in (0, 1, 65534) if uid not in own]

    def become(uid: int) -> None:
        status = in_child(lambda: os.setresuid(uid, uid, uid))
        if status:
            raise OSError(status, os.strerror(status))

    return any_of(become, by_name(others))


@attack
def set_gid() -> str:
    groups = [gid for gid in (0, 1, 5, 65534) if gid not in os.getresgid()]
    return any_of(lambda gid: os.setresgid(gid, gid, gid), by_name(groups))


@attack
def set_groups() -> str:
    os.setgroups([0, 5])
    return str(os.getgroups())


def has_set_uid(path: str, where: str) -> str:
    """Proof that the file has a set-uid bit."""
    if not os.stat(path).st_mode & stat.S_ISUID:
        raise NotProven("the bit is not there")
    return where


@attack
def set_uid_bit() -> str:
    path = own_path("chmod")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o700))
    os.chmod(path, 0o4755)
    return has_set_uid(path, "by chmod")


@attack
def set_uid_bit_by_fchmod() -> str:
    path = own_path("fchmod")
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o700)
    os.fchmod(fd, 0o4755)
    return has_set_uid(path, "by fchmod")


@attack
def set_uid_bit_by_fchmodat2() -> str:
    path = own_path("fchmodat2")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o700))
    system_call("fchmodat2", AT_FDCWD, path.encode(), 0o4755, 0)
    return has_set_uid(path, "by fchmodat2")


@attack
def set_uid_bit_by_open() -> str:
    path = own_path("open")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o4755))
    return has_set_uid(path, "by open")


@attack
def set_uid_bit_by_mknod() -> str:
    path = own_path("mknod")
    os.mknod(path, stat.S_IFREG | 0o4755)
    return has_set_uid(path, "by mknod")


@attack
def set_gid_bit_by_mkdir() -> str:
    path = own_path("mkdir")
    os.mkdir(path)
    os.chmod(path, 0o2755)
    if not os.stat(path).st_mode & stat.S_ISGID:
        raise NotProven("the bit is not there")
    return "by chmod of a directory"


# Limits


@attack
def many_fds() -> str:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fd, count = opened("/", os.O_PATH), 0
    try:
        while count <= 4096:
            os.dup(fd)
            count += 1
    except OSError as error:
        raise NotProven(f"{count} fds: {error}") from error
    return f"{count} fds"


@attack
def core_dumps() -> str:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    if hard in (0, 1):  # of less than a page nothing is written
        raise NotProven(f"RLIMIT_CORE is {hard}")
    return f"RLIMIT_CORE is {hard}"


@attack
def locked_memory() -> str:
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    size = 8 * 1024 * 1024 + 65536
    memory = ctypes.create_string_buffer(size)
    library_call("mlock", memory, ctypes.c_size_t(size))
    return f"{size} bytes locked"


@attack
def process_limit() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if hard != resource.RLIM_INFINITY and hard <= 4096:
        raise NotProven(f"RLIMIT_NPROC is {hard}")
    return f"RLIMIT_NPROC is {soft}, and may be {hard}"


@attack
def raise_limits() -> str:
    names = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}

    def lift(limit: int) -> None:
        soft, hard = resource.getrlimit(limit)
        if hard == resource.RLIM_INFINITY:
            raise NotProven("infinite")
        resource.setrlimit(limit, (soft, hard + 1))
        if resource.getrlimit(limit)[1] == hard:
            raise NotProven("it stays what it was")

    return any_of(lift, names)


# The kernel


@attack
def bpf() -> str:
    # BPF_MAP_CREATE of an array: type, key size, value size, entries.
    attributes = struct.pack("=5I", 2, 4, 4, 1, 0) + bytes(100)
    return f"fd {system_call('bpf', 0, attributes, len(attributes))}"


def perf_attributes() -> bytes:
    """struct perf_event_attr: the CPU clock, user space only."""
    return struct.pack("=IIQQQQQ", 1, 112, 0, 0, 0, 0, 1 << 5 | 1 << 6) + bytes(64)


@attack
def perf_events() -> str:
    return f"fd {system_call('perf_event_open', perf_attributes(), 0, -1, -1, 0)}"


@attack
def userfaultfd() -> str:
    flags = {"kernel too": 0, "user mode only": 1}
    return any_of(lambda flag: system_call("userfaultfd", flag), flags)


@attack
def io_uring() -> str:
    return f"fd {system_call('io_uring_setup', 1, ctypes.create_string_buffer(120))}"


@harmful
def kexec() -> str:
    return passed_the_check("kexec_load", 0, 0, None, 0xFFFF)


@harmful
def kernel_module() -> str:
    return passed_the_check("init_module", None, 0, None)


@attack
def modify_ldt() -> str:
    # struct user_desc: entry, base, limit, and flags (32-bit, read and write).
    entry = struct.pack("=4I", 0, 0, 0xFFFFF, 1 | 1 << 4 | 1 << 6)
    return f"returned {system_call('modify_ldt', 1, entry, 16)}"


@harmful
def io_ports() -> str:
    calls = {"iopl": (3,), "ioperm": (0x80, 1, 1)}
    return any_of(lambda name: system_call(name, *calls[name]), by_name(calls))


@attack
def kernel_log() -> str:
    buffer = ctypes.create_string_buffer(4096)
    return f"{system_call('syslog', 3, buffer, 4096)} bytes read"


@attack
def personality() -> str:
    system_call("personality", 0x0040000)  # ADDR_NO_RANDOMIZE
    if not system_call("personality", 0xFFFFFFFF) & 0x0040000:
        raise NotProven("unchanged")
    return "addresses are no longer random"


@harmful
def quotas() -> str:
    return passed_the_check("quotactl", 0x800002 << 8, b"/nonexistent", 0, None)  # Q_QUOTAON


@harmful
def swap() -> str:
    return passed_the_check("swapon", b"/nonexistent", 0)


@harmful
def accounting() -> str:
    return passed_the_check("acct", b"/nonexistent")


@attack
def fanotify() -> str:
    # FAN_REPORT_FID is what an ordinary user may have.
    flags = {"all": 0x4, "names only": 0x200}
    return any_of(lambda flag: system_call("fanotify_init", flag, 0), flags)


@harmful
def hang_up() -> str:
    system_call("vhangup")
    return "hung up"


@harmful
def set_time() -> str:
    now = time.clock_gettime_ns(time.CLOCK_REALTIME)
    system_call("clock_settime", 0, struct.pack("=qq", now // 10**9, now % 10**9))
    return "set to what it is"


@harmful
def set_hostname() -> str:
    socket.sethostname("attacked")
    return "set"


@attack
def hostname() -> str:
    if os.uname().nodename != told("hostname"):
        raise NotProven(f"it is {os.uname().nodename!r}")
    return "it is the outer one"


def openable(top: str, flags: int, seconds: float = SECONDS - 1) -> str:
    """Files beneath `top` that can be opened so. They are closed again, unread and unwritten."""
    end, found = time.monotonic() + seconds, []
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            # Everybody may open ns_last_pid: it asks for a capability when it is written.
            if name != "ns_last_pid" and os.access(path, os.W_OK) and can_open(path, flags):
                found.append(path)
        if len(found) > 5 or time.monotonic() > end:
            break
    if not found:
        raise NotProven(f"none beneath {top}")
    return ", ".join(found[:5])


@attack
def sys_writable() -> str:
    tops = [
        "/sys/class",
        "/sys/kernel",
        "/sys/module",
        "/sys/bus",
        "/sys/firmware",
        "/sys/devices",
        "/sys/power",
    ]
    return any_of(lambda top: openable(top, os.O_WRONLY, 0.6), by_name(tops))


@attack
def proc_sys_writable() -> str:
    return openable("/proc/sys", os.O_WRONLY)


@attack
def cgroup_writable() -> str:
    return openable("/sys/fs/cgroup", os.O_WRONLY)


@attack
def sysrq_trigger() -> str:
    os.close(opened("/proc/sysrq-trigger", os.O_WRONLY))
    return "opened, nothing written"


@attack
def kernel_memory() -> str:
    os.close(opened("/proc/kcore", os.O_RDONLY))
    return "opened"


@attack
def kernel_addresses() -> str:
    for line in contents("/proc/kallsyms", 1 << 16).splitlines():
        if int(line.split()[0], 16):
            return line.decode()
    raise NotProven("every address is 0")


@attack
def sockets_listed() -> str:
    if told("abstract_stream").encode() not in contents("/proc/net/unix"):
        raise NotProven("the witness's sockets are not listed")
    return "the witness's sockets are listed"


# What the program was given by its starter


@attack
def environment() -> str:
    found = [name for name in SECRET_VARIABLES if name in os.environ]
    for name, value in os.environ.items():
        with contextlib.suppress(NotProven):
            secret_in(value)
            found.append(f"{name} has a secret")
    if not found:
        raise NotProven(f"{len(os.environ)} variables, none of them telling")
    return ", ".join(found)


@attack
def home_shared() -> str:
    home = os.stat(os.environ.get("HOME") or "/nonexistent")
    if (home.st_dev, home.st_ino) != (told("home_device"), told("home_inode")):
        raise NotProven("$HOME is another directory than outside")
    return "$HOME is the directory that it is outside"


@attack
def policy_writable() -> str:
    os.close(opened(told("policy_file"), os.O_WRONLY))
    return "opened"


@attack
def fd_to_broker() -> str:
    # The broker must not keep an fd that it is sent: then this pipe's last writer is gone.
    number = os.environ.get("FDBROKER_FD", "")
    if not number.isdigit():
        raise NotTried("there is no connection to a broker")
    reader, writer = os.pipe()
    call = b'{"method":"org.varlink.service.GetInfo","parameters":{}}\0'
    with socket.socket(fileno=os.dup(int(number))) as broker:
        broker.sendmsg([call], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", writer))])
        os.close(writer)
        poll = select.poll()
        poll.register(reader, 0)
        if poll.poll(2000):
            raise NotProven("sent, and not kept")
    return "the broker keeps an fd that it was sent"


# The last: to every other attack, what it leaves would be one process more to reach


@attack
def left_over() -> str:
    # Two forks and a session of its own. It runs, and has let go of what it should, when this pipe ends.
    mark = told("left_over")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.set_inheritable(writer, True)
        program = [sys.executable or "/proc/self/exe", "-I", "-S", "-c", LEFT_OVER]
        try:
            os.execv(program[0], [*program, str(writer), mark])
        finally:
            os._exit(1)
    os.close(writer)
    os.waitpid(pid, 0)
    os.read(reader, 1)
    raise NotProven("started; the witness tells whether it outlives the attack")


# Running them


def in_a_deadline(entry: Attack) -> tuple[bool, str]:
    """Run one attack in a child. Whether it succeeded, and the detail."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.setpgid(0, 0)
        for number in (signal.SIGTTOU, signal.SIGTTIN):
            signal.signal(number, signal.SIG_IGN)  # in the background, a terminal would stop us
        os.write(writer, json.dumps(outcome(entry)).encode())
        os._exit(0)
    os.close(writer)
    readable = select.select([reader], [], [], SECONDS)[0]
    answer = os.read(reader, 1 << 16) if readable else b""
    os.close(reader)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if answer:
        succeeded, detail = json.loads(answer)
        return succeeded, detail
    if not readable:
        return False, f"no answer in {SECONDS} s"
    return False, f"ended by signal {-status}" if status < 0 else f"ended with status {status}"


def outcome(entry: Attack) -> tuple[bool, str]:
    """What the attack's child answers."""
    try:
        return True, entry.run()[:2000]
    except NotTried as error:
        return False, f"not tried: {error}"
    except NotProven as error:
        return False, str(error)[:2000]
    except OSError as error:
        return False, f"{errno.errorcode.get(error.errno or 0, '?')}: {error.strerror or error}"
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"


def inherited_fds() -> list[int]:
    """The fds that were open when this program began."""
    found = []
    for fd in range(4096):
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_GETFD)
            found.append(fd)
    return found


def work_directory() -> str:
    """A directory of our own, where the program may write; empty where it may nowhere."""
    for place in (os.environ.get("HOME"), "/tmp", "/dev/shm", os.getcwd()):
        with contextlib.suppress(OSError):
            if place:
                return tempfile.mkdtemp(prefix="attack-", dir=place)
    return ""


def main(arguments: list[str]) -> int:
    """Run the attacks that are named, or all."""
    if arguments == ["--list"]:
        print("\n".join(ATTACKS))
        return 0
    here.careful = "--careful" in arguments
    words = [word for word in arguments if word != "--careful"]
    if not words or set(words[1:]) - ATTACKS.keys():
        print(__doc__, file=sys.stderr)
        return 2
    here.inherited = inherited_fds()
    here.description = json.loads(words[0])
    here.runner, here.parent = os.getpid(), os.getppid()
    here.work = work_directory()
    try:
        for name in words[1:] or ATTACKS:
            if here.careful and ATTACKS[name].harmful:
                succeeded, detail = False, "not tried: --careful"
            else:
                succeeded, detail = in_a_deadline(ATTACKS[name])
            print(json.dumps({"attack": name, "succeeded": succeeded, "detail": detail}), flush=True)
    finally:
        if here.work:
            shutil.rmtree(here.work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
