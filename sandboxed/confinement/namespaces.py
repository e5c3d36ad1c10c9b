"""Namespaces of the program's own: users (where not root), mounts, pids, IPC, network, host name, cgroups.

Rules that this module enforces:
- All of them or none: what the kernel refuses is LayerMissing, with the setting that refused it if it is known.
- In a user namespace only the caller's own uid and gid have numbers, and groups cannot be changed any more.

A namespace of pids begins with the next child: the caller must fork, and that child is its init. See
namespaces(7), user_namespaces(7), pid_namespaces(7).
"""

import errno
import fcntl
import os
import socket
import struct

from sandboxed import syscalls
from sandboxed.confinement.sandbox import HOST, LOOPBACK, NAMESPACES, LayerMissing, Sandbox

HOST_NAME = "sandbox"

# netdevice(7)
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_INTERFACE = struct.Struct("16sh22x")

# (file, whether its content says that ordinary users may have no namespaces, the command that mends it)
_REFUSALS = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with userns for fdbroker",
    ),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
)


def missing(error: OSError) -> LayerMissing:
    """The LayerMissing that says why `error` ended the making of namespaces, and what would help."""
    helps = [command for path, refusing, command in _REFUSALS if _reads(path, refusing)]
    if os.geteuid() == 0:
        advice = "Run it outside of the container, or give the container CAP_SYS_ADMIN"
    elif helps:
        advice = f"Let root set {' and '.join(helps)}, or start it as root"
    else:
        advice = "Start it as root, or outside of the container that refuses this"
    return LayerMissing(NAMESPACES, f"{error.strerror}", advice)


def _reads(path: str, content: str) -> bool:
    try:
        with open(path) as file:
            return file.read().strip() == content
    except OSError:
        return False


def enter(sandbox: Sandbox) -> None:
    """Go into namespaces of our own; that of pids begins with the next child. Raises LayerMissing."""
    flags = (
        syscalls.CLONE_NEWNS
        | syscalls.CLONE_NEWPID
        | syscalls.CLONE_NEWIPC
        | syscalls.CLONE_NEWUTS
        | syscalls.CLONE_NEWCGROUP
    )
    if sandbox.network != HOST:
        flags |= syscalls.CLONE_NEWNET
    uid, gid = os.geteuid(), os.getegid()
    try:
        if uid == 0:
            syscalls.unshare(flags)
        else:
            syscalls.unshare(flags | syscalls.CLONE_NEWUSER)
            _map_ids(uid, gid)
    except OSError as error:
        raise missing(error) from error


def _map_ids(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def settle(sandbox: Sandbox) -> None:
    """In the init of the new namespaces: name the host, and switch the loopback on. Raises OSError."""
    socket.sethostname(HOST_NAME)
    if sandbox.network == LOOPBACK:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
            _switch_on(any_socket.fileno(), b"lo")


def _switch_on(fd: int, interface: bytes) -> None:
    try:
        answer = fcntl.ioctl(fd, _SIOCGIFFLAGS, _INTERFACE.pack(interface, 0))
        fcntl.ioctl(fd, _SIOCSIFFLAGS, _INTERFACE.pack(interface, _INTERFACE.unpack(answer)[1] | _IFF_UP))
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO, f"cannot switch {interface.decode()} on: {error.strerror}"
        ) from error
