"""Confining this process, for ever: which layers there must be, and what each process does to itself.

Rules that this module enforces, in the order in which they must come. In the init of the sandbox, whose child the
program's process is and which keeps nothing that it does not:
- umask and resource limits, which may only go down;
- ids, groups and capabilities go, no_new_privs stays (`privileges`);
- the system call filter.
In the program's process:
- death with the init, where no namespace of pids sees to that: asked for after the change of uid, which would cancel
  it, and the init is then looked for, since it may have died before;
- a working directory that the program was given, or that lies above one, or its own;
- the Landlock domain: in a root of its own the program reads and runs all of it, and writes in its own places and
  in what it was given; without one the same holds for the machine's root. A file that it inherits as standard
  input, output or error may be opened anew with the rights that it has, and no others.

See landlock(7), seccomp(2).
"""

import errno
import fcntl
import os
import signal
import socket
import stat
from collections.abc import Callable

from sandboxed import syscalls
from sandboxed.confinement import landlock, layout, privileges, resources, seccomp
from sandboxed.confinement.landlock import Access, Domain
from sandboxed.confinement.sandbox import (
    CAPABILITIES,
    HOST,
    LANDLOCK,
    LIMITS,
    NAMESPACES,
    SECCOMP,
    LayerMissing,
    Sandbox,
    StartError,
    lies_in,
)

# Nobody but the program's uid and its starter's choice writes the files that it makes.
UMASK = 0o022

_TERMINAL = Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV
_DEVICE = Access.READ_FILE | Access.WRITE_FILE


def check_layers(sandbox: Sandbox) -> None:
    """Raise LayerMissing for a layer that this kernel cannot give, and StartError for what no sandbox could bear.

    That namespaces can be had is only found out by making them.
    """
    abi = syscalls.landlock_abi()
    if sandbox.has(LANDLOCK) and abi == 0:
        help = "Boot with 'landlock' among the modules of the parameter lsm= (Linux 5.13 or later)"
        raise LayerMissing(LANDLOCK, "the kernel does not offer Landlock", help)
    if sandbox.has(LANDLOCK) and abi < landlock.SCOPES_ABI and _needs_scopes(sandbox):
        reason = f"Landlock ABI {abi} does not keep signals and abstract sockets inside, and nothing else here does"
        help = "Use Linux 6.12 or later" + (
            ", or leave the host's network out" if sandbox.has(NAMESPACES) else ""
        )
        raise LayerMissing(LANDLOCK, reason, help)
    if sandbox.has(SECCOMP) and not seccomp.available():
        help = "Use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or arm64"
        raise LayerMissing(SECCOMP, "system calls cannot be filtered", help)
    if not sandbox.has(NAMESPACES) and not sandbox.has(SECCOMP) and not sandbox.has(LANDLOCK):
        raise StartError("without namespaces, Landlock and seccomp nothing would hold the program")
    _refuse_sockets(sandbox)
    if _shares_uid_with_broker(sandbox) and not (sandbox.has(LANDLOCK) and abi >= landlock.SCOPES_ABI):
        raise StartError(
            "the program would have the broker's uid, and nothing would keep it from sending the broker signals: "
            "that needs namespaces, or Landlock of Linux 6.12; start it as root, or use a broker of another uid"
        )


def _refuse_sockets(sandbox: Sandbox) -> None:
    """Raise StartError for a standard file that is a socket by which the program could reach further than by its own.

    A TCP socket, connected or not, can be connected anew, and is of the network that it was made in. So is a Unix one,
    where no root of its own hides the names, unless it is connected for good.
    """
    for fd, name in enumerate(("input", "output", "error")):
        try:
            kind = stat.S_IFMT(os.fstat(fd).st_mode)
        except OSError:
            continue  # closed
        if kind != stat.S_IFSOCK:
            continue
        with socket.socket(fileno=os.dup(fd)) as inherited:
            if inherited.family != socket.AF_UNIX:
                if sandbox.network != HOST:
                    raise StartError(
                        f"standard {name} is a network's socket, by which the program could reach what --net "
                        f"{sandbox.network} keeps from it: use --net host, or put a pipe in between"
                    )
            elif not may_use_unix_sockets(sandbox) and not _is_connected_for_good(inherited):
                raise StartError(
                    f"standard {name} is a socket that can be connected to any other, and no namespaces hide them"
                )


def _is_connected_for_good(inherited: socket.socket) -> bool:
    """Whether a Unix socket has a peer, and can get no other: a datagram socket can send to any."""
    if inherited.type == socket.SOCK_DGRAM:
        return False
    try:
        inherited.getpeername()
    except OSError:
        return False
    return True


def _needs_scopes(sandbox: Sandbox) -> bool:
    return sandbox.network == HOST or not sandbox.has(NAMESPACES)


def _shares_uid_with_broker(sandbox: Sandbox) -> bool:
    """Whether only Landlock could keep the program from signalling its broker."""
    return sandbox.broker_is_parent and not sandbox.changes_uid and not sandbox.has(NAMESPACES)


def may_use_unix_sockets(sandbox: Sandbox) -> bool:
    """Whether sockets of AF_UNIX are harmless: whatever listens outside cannot be named from inside.

    A socket file is hidden by the root of its own; an abstract name by a network of its own, or by Landlock.
    """
    if not sandbox.has(NAMESPACES):
        return False
    return sandbox.has_own_network or (
        sandbox.has(LANDLOCK) and syscalls.landlock_abi() >= landlock.SCOPES_ABI
    )


def give_up_privileges(sandbox: Sandbox) -> None:
    """In the init, for itself and the program: all but the Landlock domain. Raises when anything fails."""
    os.umask(sandbox.umask | UMASK)
    if sandbox.has(LIMITS):
        resources.limit_resources(sandbox.limits)
    if sandbox.has(CAPABILITIES):
        privileges.drop(sandbox.uid, sandbox.gid)
    else:
        privileges.change_ids(sandbox.uid, sandbox.gid)
    # Not dumpable again where the change of ids undid it: the init stays so, and the program until it is one.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if sandbox.has(SECCOMP):
        seccomp.install(
            seccomp.build(
                unix_sockets=may_use_unix_sockets(sandbox),
                internet=sandbox.has_internet,
                attributes=sandbox.has(NAMESPACES) or sandbox.changes_uid,
            )
        )


def keep_signals_inside(sandbox: Sandbox) -> bool:
    """In the init: whether a signal of its to every process reaches those of the sandbox, and no others."""
    return sandbox.has(NAMESPACES) or (sandbox.has(LANDLOCK) and landlock.keep_signals_inside())


def enter_domain(
    sandbox: Sandbox, parent: int, cwd: str, before_landlock: Callable[[], None] | None = None
) -> None:
    """In the program's process, a child of the process `parent`: what is the program's alone.

    `cwd` is where the caller stood. `before_landlock` runs with the new identity and without privileges, but with
    every path of the root still in reach: what it connects to sees the new uid. Raises when anything fails.
    """
    die_with(parent)
    if not os.access(sandbox.home, os.R_OK | os.W_OK | os.X_OK):
        raise StartError(
            f"{sandbox.home} cannot be used by uid {os.getuid()}: give it to that user, or name another"
        )
    os.chdir(_directory(sandbox, cwd))
    if before_landlock is not None:
        before_landlock()
    if sandbox.has(LANDLOCK):
        with _domain(sandbox) as domain:
            domain.restrict()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends; see PR_SET_PDEATHSIG in prctl(2).

    The kernel means the thread of the parent that forked. Raises StartError if it has ended already.
    """
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise StartError("the parent ended before its child was confined")


def _directory(sandbox: Sandbox, cwd: str) -> str:
    """Where the program starts: `cwd` if that is a directory which it was given and may enter, else its own.

    In a root of its own also a directory above one that it was given: there is nothing else in it, and names that
    its user gives relative to where he stands mean what they mean outside.
    """
    shown = (*sandbox.readonly, *sandbox.writable, sandbox.home)
    given = any(lies_in(cwd, tree) for tree in shown)
    above = sandbox.has(NAMESPACES) and cwd != "/" and any(lies_in(tree, cwd) for tree in shown)
    return cwd if (given or above) and os.path.isdir(cwd) and os.access(cwd, os.X_OK) else sandbox.home


def _domain(sandbox: Sandbox) -> Domain:
    domain = Domain(refuse_tcp=not sandbox.has_internet)
    try:
        if sandbox.has(NAMESPACES):
            _allow_own_root(domain, sandbox)
        else:
            _allow_parts(domain, sandbox)
        for name in layout.HARMLESS_DEVICES:
            domain.allow(f"/dev/{name}", _DEVICE)
        for fd in (0, 1, 2):
            _allow_inherited(domain, fd)
    except BaseException:
        domain.close()
        raise
    return domain


def _allow_own_root(domain: Domain, sandbox: Sandbox) -> None:
    domain.allow("/", landlock.READ_TREE)
    for path in dict.fromkeys(("/tmp", "/dev/shm", sandbox.home, *sandbox.writable)):
        _allow_tree_or_file(domain, path, landlock.WRITE_TREE)
    domain.allow("/dev/pts", _TERMINAL | Access.READ_DIR)
    domain.allow("/dev/tty", _TERMINAL)


def _allow_parts(domain: Domain, sandbox: Sandbox) -> None:
    """Of the machine's root, what an own root would show."""
    for item in layout.plan(sandbox):
        if item.system and os.path.islink(item.path):
            continue  # what it leads to is judged by its real place
        try:
            _allow_tree_or_file(
                domain,
                os.path.realpath(item.path),
                landlock.WRITE_TREE if item.writable else landlock.READ_TREE,
            )
        except (FileNotFoundError, PermissionError):
            continue  # what cannot be looked up needs no rule: the program could not reach it either
    domain.allow("/proc", landlock.READ_TREE)


def _allow_tree_or_file(domain: Domain, path: str, access: Access) -> None:
    if not os.path.isdir(path):
        access &= landlock.FILE_ACCESS
    domain.allow(path, access)


def _allow_inherited(domain: Domain, fd: int) -> None:
    """Let the program open its standard file anew (/dev/stdin), as it could use it already.

    A directory is never a standard file: it would be a way past everything, so it was refused before.
    """
    status = os.fstat(fd)
    mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    access = Access(0)
    if mode != os.O_WRONLY:
        access |= Access.READ_FILE
    if mode != os.O_RDONLY:
        access |= Access.WRITE_FILE | Access.TRUNCATE
    if stat.S_ISREG(status.st_mode):
        try:
            domain.allow_fd(fd, access)
        except OSError as error:
            if error.errno != errno.EBADFD:  # a memfd lies on no mount that a rule could be about
                raise
    elif stat.S_ISCHR(status.st_mode) and os.isatty(fd):
        domain.allow_fd(fd, _TERMINAL)
