"""Which parts of the machine every sandbox shows: the system's programs, a little of /etc, harmless devices.

Lists, and the plan that comes of them and of what a sandbox was given; `newroot` builds it, and where there can
be no root of its own, Landlock allows the same. Rules that this module enforces:
- what was given beside hides what every sandbox shows at the same place, never the other way round;
- inside a tree that the program may write, nothing is looked up by a name that it could lead elsewhere: what may be
  written there is the tree's already; what may not must lie in the tree itself, and not deeper, where a directory
  above it could be renamed, and be named by the tree;
- / as a whole, /proc and /dev are never given, nor links that lead there: the devices are the broker's to give,
  and /proc is the sandbox's.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from sandboxed.confinement.sandbox import HOST, NAMESPACES, Sandbox, StartError, lies_in

# On a system with a merged /usr all but the first are links into it, which are shown as links.
SYSTEM_TREES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# What programs read there to work at all: the linker, locales, time, certificates, and what interpreters and shells
# are set up with. Nothing that names the machine or its people, and no keys.
SYSTEM_FILES = tuple(
    f"/etc/{name}"
    for name in (
        *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "timezone"),
        *("locale.alias", "locale.conf", "default/locale", "terminfo", "inputrc", "magic", "mime.types"),
        *(
            "ssl/certs",
            "ssl/openssl.cnf",
            "ca-certificates",
            "ca-certificates.conf",
            "pki",
            "crypto-policies",
        ),
        *(
            "protocols",
            "services",
            "ethertypes",
            "rpc",
            "gai.conf",
            "host.conf",
            "fonts",
            "bash.bashrc",
            "profile",
        ),
        *("shells", "debian_version", "os-release", "python3", "python3.11", "python3.12"),
        *(
            "python3.13",
            "perl",
            "java-17-openjdk",
            "java-21-openjdk",
            "vim",
            "xattr.conf",
            "papersize",
        ),
    )
)

# How names become addresses; only for a program that has the host's network.
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts")

# Devices that hold no data of anybody and that programs cannot do without.
HARMLESS_DEVICES = ("null", "zero", "full", "random", "urandom")

# Of /proc, what tells of keys, memory and addresses of the kernel or of others: empty for the program.
MASKED = tuple(
    f"/proc/{name}"
    for name in (
        "keys",
        "key-users",
        "kcore",
        "kallsyms",
        "kpagecount",
        "kpageflags",
        "timer_list",
        "sched_debug",
    )
)

# Links of every /dev.
DEVICE_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
)

# kernel: MAXSYMLINKS
_MOST_LINKS = 40

_NEVER_GIVEN = ("/proc", "/dev")


class Shown(NamedTuple):
    """One thing of the machine's that the program sees, at the same place."""

    path: str
    writable: bool
    system: bool  # one that every sandbox shows; it may be missing
    nested: bool = (
        False  # in a tree that the program may write: a link there is the program's, and not followed
    )


def plan(sandbox: Sandbox) -> list[Shown]:
    """What `sandbox` shows, parents before what lies in them. Raises StartError for what cannot be shown."""
    given = _given(sandbox)
    system = [*SYSTEM_TREES, *SYSTEM_FILES, *(NETWORK_FILES if sandbox.network == HOST else ())]
    shown = [
        Shown(path, False, True) for path in system if not any(lies_in(path, item.path) for item in given)
    ]
    shown += given
    kept = [item for item in shown if not _is_shown_already(item, shown)]
    return sorted(kept, key=lambda item: item.path.count("/"))


def _given(sandbox: Sandbox) -> list[Shown]:
    given = [Shown(path, True, False) for path in sandbox.writable]
    if sandbox.work is not None:
        given.append(Shown(sandbox.work, True, False))
    writable = {item.path for item in given}
    for path in sandbox.readonly:
        if path in writable:
            raise StartError(f"{path} is to be both read-only and written: name it once")
        given.append(Shown(path, False, False))
    for item in given:
        _check(item, sandbox)
        if not item.writable:
            _refuse_other_names(item, writable)
    given = [
        _placed(item, tree, sandbox) if (tree := _tree_above(item, writable)) else item for item in given
    ]
    given = [item for item in given if not (item.writable and item.nested)]
    if sandbox.socket is not None:
        given.append(Shown(sandbox.socket, False, False))
    return list(dict.fromkeys(given))


def _check(item: Shown, sandbox: Sandbox) -> None:
    path = item.path
    if not path.startswith("/") or os.path.normpath(path) != path or path.startswith("//"):
        raise StartError(f"{path!r} must be an absolute path without '.', '..' and doubled slashes")
    names = (path, os.path.realpath(path))
    if "/" in names:
        raise StartError("/ as a whole would be no sandbox: name what the program needs")
    if any(lies_in(name, tree) for name in names for tree in _NEVER_GIVEN):
        raise StartError(
            f"{path} cannot be shown: devices are the policy's to give, and /proc is the sandbox's own"
        )
    if sandbox.has(NAMESPACES) and sandbox.work is None and lies_in(sandbox.home, path):
        raise StartError(f"{path} hides the program's own directory {sandbox.home}: give --work")
    if not os.path.lexists(path):
        raise StartError(f"{path} cannot be shown: there is no such file or directory")


def _tree_above(item: Shown, writable: set[str]) -> str | None:
    """The writable tree that `item` lies in, but is not itself: of several the outermost, whose program may rename the
    others."""
    return min(
        (tree for tree in writable if tree != item.path and lies_in(item.path, tree)), key=len, default=None
    )


def _refuse_other_names(item: Shown, writable: set[str]) -> None:
    """Raise StartError if a link leads `item` into a writable tree: it could be written there, or led elsewhere."""
    real = {os.path.realpath(tree): tree for tree in writable if not lies_in(item.path, tree)}
    for place in passed(item.path):
        tree = next((name for path, name in real.items() if place != path and lies_in(place, path)), None)
        if tree is not None:
            raise StartError(
                f"{item.path} is {place}, which lies in {tree}, which the program may write: name it by {tree}"
            )


def passed(path: str) -> Iterator[str]:
    """Every place on the way from / to `path`, links followed one by one: what changes one of them leads elsewhere."""
    place, links = "/", 0
    names = os.path.join(os.getcwd(), path).split("/") if not path.startswith("/") else path.split("/")
    while names:
        name = names.pop(0)
        place = os.path.dirname(place) if name == ".." else os.path.normpath(os.path.join(place, name))
        yield place
        if os.path.islink(place) and links < _MOST_LINKS:
            links += 1
            names = [*os.readlink(place).split("/"), *names]
            place = "/" if names[0] == "" else os.path.dirname(place)


def _placed(item: Shown, tree: str, sandbox: Sandbox) -> Shown:
    """`item`, which lies in the writable `tree`."""
    if item.writable:
        return item._replace(nested=True)
    if not sandbox.has(NAMESPACES):
        raise StartError(
            f"{item.path} lies in {tree}, which the program may write: only namespaces can keep it as it is"
        )
    if os.path.dirname(item.path) != tree or os.path.islink(item.path):
        raise StartError(
            f"{item.path} lies in {tree}, which the program may write, so it could put something else in its place: "
            f"only what lies in {tree} itself, and is no link, can be kept as it is"
        )
    return item._replace(nested=True)


def _is_shown_already(item: Shown, others: list[Shown]) -> bool:
    """Whether a tree above shows `item` in the same way. A writable one in a read-only tree is not."""
    return not item.writable and any(
        other.path != item.path
        and not other.writable
        and lies_in(item.path, other.path)
        and not os.path.islink(other.path)
        for other in others
    )
