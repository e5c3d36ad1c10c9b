"""What a confined program may still do: the first form, applied by a child to itself after fork.

Rules that this module enforces, in the order in which they must come:
- umask and resource limits, which may only go down.
- The Landlock domain is built while everything can be looked up, and takes effect last.
- Ids, groups and capabilities go; no_new_privs stays (`privileges`).
- Death with the parent is asked for after the change of uid, which would cancel it, and the parent is then
  looked for: it may have died before.
- The working directory is kept only if the new identity can reach it by its name.
- The domain: read and execute beneath every top-level directory but /dev; there, five harmless devices
  without ioctl; write in the program's own work directory and nowhere else. Signals and abstract sockets
  stay inside where the kernel knows how (ABI 6).

Out of scope, and the next form's work: namespaces, seccomp, the network, socket files, a terminal of its
own, descendants that outlive the program, device nodes that a file system other than /dev holds.
"""

import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sandboxed import landlock, privileges, syscalls
from sandboxed.landlock import Access, Domain

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"

# What a program inherits of the caller's environment, besides LC_*. Anything else may hold a secret or an
# address (SSH_AUTH_SOCK, DBUS_SESSION_BUS_ADDRESS, tokens), or make the program load something (LD_*).
INHERITED_NAMES = frozenset({"PATH", "LANG", "TERM", "TZ", "COLUMNS", "LINES"})

# Only the program's uid gets at the files that it makes.
UMASK = 0o077

# (resource, soft limit, hard limit). A limit that is lower already stays.
RESOURCE_LIMITS = (
    # Bytes. A core dump would copy what the program read through the broker into a file.
    (resource.RLIMIT_CORE, 0, 0),
    # Fds. 1,024 is the most that select(2) can take; 4,096 is for a program that knows and raises it.
    (resource.RLIMIT_NOFILE, 1024, 4096),
    # Processes and threads of the uid. Ends a fork bomb; high, since a user's own other processes count too.
    (resource.RLIMIT_NPROC, 4096, 4096),
    # Bytes locked in memory: the kernel's default. More would be taken from everybody else.
    (resource.RLIMIT_MEMLOCK, 8 * 1024 * 1024, 8 * 1024 * 1024),
    # Bytes of POSIX message queues, which are kernel memory that outlives the program.
    (resource.RLIMIT_MSGQUEUE, 0, 0),
    # Priorities: a program that cannot be preempted could starve the broker.
    (resource.RLIMIT_RTPRIO, 0, 0),
    (resource.RLIMIT_NICE, 0, 0),
)

# Devices that hold no data of anybody and that programs cannot do without.
HARMLESS_DEVICES = ("null", "zero", "full", "random", "urandom")

# Seconds. A process that the program left behind can make files for as long as it likes.
REMOVAL_SECONDS = 10.0

_PR_SET_PDEATHSIG = 1


class ConfinementError(RuntimeError):
    """The confinement that was asked for cannot be had here."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """How one program is confined.

    `uid` and `gid` are both None for an ordinary user, whose own they stay; root must give both.
    `work` is the program's own directory, see `work_directory`. `keep` are the fds besides 0 to 2
    that a new program inherits under the same numbers.
    `broker_is_parent` says that the parent must be safe from the program: where both have one uid and the
    kernel cannot keep signals inside the domain, `apply` refuses.
    """

    uid: int | None
    gid: int | None
    work: str
    keep: tuple[int, ...] = ()
    broker_is_parent: bool = False

    def __post_init__(self) -> None:
        if (self.uid is None) != (self.gid is None):
            raise ValueError("uid and gid must be given together")

    def apply(self, parent: int, before_landlock: Callable[[], None] | None = None) -> None:
        """Confine this process, a child of the process `parent` that has one thread, for ever.

        `before_landlock` runs with the new identity and without privileges, but with every path still in
        reach: what it connects to sees the new uid. Raises when anything fails; the caller must then exit.
        """
        os.umask(UMASK)
        limit_resources()
        with Domain() as domain:
            self._check_parent_is_safe(domain.abi)
            allow_system(domain)
            domain.allow(self.work, landlock.WRITE_TREE)
            privileges.drop(self.uid, self.gid)
            die_with(parent)
            enter_reachable_directory(self.work)
            if before_landlock is not None:
                before_landlock()
            domain.restrict()

    def _check_parent_is_safe(self, abi: int) -> None:
        shared_uid = self.uid in (None, os.getuid())
        if self.broker_is_parent and shared_uid and abi < landlock.SCOPES_ABI:
            raise ConfinementError(
                "the program would have the broker's uid, and this kernel cannot keep it from sending the "
                "broker signals (that needs Linux 6.12); start it as root, or use a broker of its own uid"
            )

    def close_fds(self, also_keep: Iterable[int] = ()) -> None:
        """Close every fd but 0 to 2, `keep` and `also_keep`, and make 0 to 2 and `keep` survive exec.

        Of 0 to 2 what is closed or close-on-exec becomes /dev/null: otherwise the program's first open
        would be taken for its standard output.
        """
        for fd in self.keep:
            os.set_inheritable(fd, True)
        syscalls.close_all_but((0, 1, 2, *self.keep, *also_keep))
        for fd in (0, 1, 2):
            if not _survives_exec(fd):
                _open_null_as(fd)


def _survives_exec(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _open_null_as(fd: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)
    os.set_inheritable(fd, True)


def limit_resources() -> None:
    """Apply RESOURCE_LIMITS; see setrlimit(2)."""
    for kind, soft, hard in RESOURCE_LIMITS:
        now_soft, now_hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (_lower(now_soft, soft), _lower(now_hard, hard)))


def _lower(now: int, wanted: int) -> int:
    """The lower of two limits. RLIM_INFINITY is -1 in Python, which min() would take for the lowest."""
    return wanted if now == resource.RLIM_INFINITY else min(now, wanted)


def allow_system(domain: Domain) -> None:
    """Allow what every program needs of the system: to read it, to run it, and a few devices."""
    with os.scandir("/") as entries:
        # A link is no directory of its own: what it leads to is judged by its real place.
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in names:
        if name != "dev":
            _allow_if_there(domain, f"/{name}", landlock.READ_TREE)
    for name in HARMLESS_DEVICES:
        _allow_if_there(domain, f"/dev/{name}", Access.READ_FILE | Access.WRITE_FILE)


def _allow_if_there(domain: Domain, path: str, access: Access) -> None:
    """A path that cannot be looked up needs no rule: the program could not reach it either."""
    try:
        domain.allow(path, access)
    except (FileNotFoundError, PermissionError):
        return


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends; see PR_SET_PDEATHSIG in prctl(2).

    The kernel means the thread of the parent that forked. Raises ConfinementError if it has ended already.
    """
    syscalls.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ConfinementError("the parent ended before its child was confined")


def enter_reachable_directory(work: str) -> None:
    """Stay in the working directory if this process can reach it by name, else go to `work`.

    A directory that was inherited is a way past the permissions of everything above it.
    """
    try:
        os.chdir(os.getcwd())
    except OSError:
        os.chdir(work)


def clean_environment(
    work: str,
    extra: Mapping[str, str] | None = None,
    pass_names: Iterable[str] = (),
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a confined program: an allow-list of `inherited` (by default os.environ).

    `pass_names` are names to pass besides INHERITED_NAMES and LC_*; `extra` is set last and wins. HOME and
    TMPDIR are `work`; names of the caller's account do not pass, since the program is somebody else.
    """
    source = os.environ if inherited is None else inherited
    wanted = INHERITED_NAMES.union(pass_names)
    environment = {name: value for name, value in source.items() if name in wanted or name.startswith("LC_")}
    environment.setdefault("PATH", DEFAULT_PATH)
    environment.update(HOME=work, TMPDIR=work)
    environment.update(extra or {})
    return environment


@contextmanager
def work_directory(uid: int | None, gid: int | None) -> Iterator[str]:
    """A fresh directory of mode 0700 that belongs to `uid` and `gid` (None: the caller), removed at the end.

    It lies below /tmp, or an ordinary user's TMPDIR. Raises OSError, also when it cannot be emptied.
    """
    base = os.environ.get("TMPDIR", "") if os.geteuid() != 0 else ""
    path = os.path.join(base if os.path.isabs(base) else "/tmp", f"fdbroker-{os.urandom(8).hex()}")
    os.mkdir(path, 0o700)
    maker = os.getpid()
    try:
        if uid is not None and gid is not None:
            os.chown(path, uid, gid, follow_symlinks=False)
        yield path
    finally:
        # A confined half that was forked from here has this frame too.
        if os.getpid() == maker:
            remove_tree(path)


def remove_tree(path: str) -> None:
    """Remove a directory that its owner may have filled with malice. No link is followed.

    Directories below it are emptied into it before they go, so that a depth that no path can name and
    no recursion can bear costs nothing. Raises OSError if something stays after REMOVAL_SECONDS.
    """
    deadline = time.monotonic() + REMOVAL_SECONDS
    top = _open_writable_directory(None, path)
    try:
        while names := os.listdir(top):
            for name in names:
                # One entry's failure, or its disappearance, is no reason to leave the others.
                with suppress(OSError):
                    if not _remove(top, name):
                        _lift_contents(top, name)
            if time.monotonic() > deadline:
                raise OSError(errno.ENOTEMPTY, "cannot remove everything in", path)
    finally:
        os.close(top)
    os.rmdir(path)


def _open_writable_directory(parent: int | None, name: str) -> int:
    """Open the directory `name`, for whose owner nothing may be forbidden: an ordinary user needs that."""
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    handle = os.open(name, flags | os.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", flags | os.O_RDONLY, dir_fd=handle)
    finally:
        os.close(handle)


def _remove(directory: int, name: str) -> bool:
    """Remove a file or an empty directory; False if it is a directory with something in it."""
    with suppress(IsADirectoryError):
        os.unlink(name, dir_fd=directory)
        return True
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _lift_contents(top: int, name: str) -> None:
    """Empty the directory `name` of `top`, moving what has contents of its own into `top`."""
    directory = _open_writable_directory(top, name)
    try:
        for child in os.listdir(directory):
            if not _remove(directory, child):
                # Moving a directory writes to it: its ".." changes.
                os.close(_open_writable_directory(directory, child))
                os.rename(child, f"lifted-{os.urandom(8).hex()}", src_dir_fd=directory, dst_dir_fd=top)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)
