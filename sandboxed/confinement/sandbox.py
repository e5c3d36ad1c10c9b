"""What a sandbox is to be: who runs in it, what it sees of the machine, and which layers hold it.

A description and nothing else: `newroot`, `namespaces`, `landlock`, `seccomp`, `privileges` and `resources` do it.

Layers, each of which holds for itself:
- namespaces: users (where not root), mounts, pids, IPC, network, host name and cgroups of its own, below an
  empty root. Without them the program makes no Unix sockets but connected pairs, and has no
  network but the host's.
- landlock: files, TCP, signals and abstract sockets.
- seccomp: system calls that a program without privileges needs for nothing but an attack.
- capabilities: all of them, in every set, with no_new_privs and locked securebits.
- limits: what it may use up.
- terminal: one of its own, relayed.
"""

import os
from typing import NamedTuple

NAMESPACES = "namespaces"
LANDLOCK = "landlock"
SECCOMP = "seccomp"
CAPABILITIES = "capabilities"
LIMITS = "limits"
TERMINAL = "terminal"
LAYERS = (NAMESPACES, LANDLOCK, SECCOMP, CAPABILITIES, LIMITS, TERMINAL)

# What the program reaches of the network: nothing, a loopback of its own, or all that its host reaches.
NO_NETWORK = "none"
LOOPBACK = "loopback"
HOST = "host"
NETWORKS = (NO_NETWORK, LOOPBACK, HOST)

# Where the program's own directory lies in its root. At the top, so that whatever else is shown there
# (--ro /home) lies beside it.
HOME = "/sandbox"

# Bytes of files in memory that the program may make (HOME, /tmp and /dev/shm together).
SCRATCH_BYTES = 1024 * 1024 * 1024


class StartError(Exception):
    """The program was not started. `exit_status` is what a command line tool should exit with."""

    exit_status = 125


class LayerMissing(StartError):
    """This machine cannot give a layer. The message says why, and what would help."""

    def __init__(self, layer: str, reason: str, help: str) -> None:
        super().__init__(
            f"this machine cannot give the layer {layer!r}: {reason}. {help}, "
            f"or accept a weaker sandbox with --weak {layer}"
        )
        self.layer = layer
        self.reason = reason
        self.help = help


class Limits(NamedTuple):
    """What the program may use up; None: the default of `resources`, or no limit where there is none."""

    memory: int | None = None  # bytes, of all its processes together where a cgroup can be had
    processes: int | None = None
    files: int | None = None  # fds of one process
    scratch: int | None = None  # bytes of its files in memory


class Sandbox(NamedTuple):
    """One sandbox.

    `uid` and `gid` are both None for an ordinary user, whose own they stay; root must give both. `readonly` and
    `writable` are absolute paths that are shown at the same place. `work` is the program's directory; None is a
    fresh one in memory, which needs the layer of namespaces. `socket` is a broker's socket to be shown, and
    `keep` are the fds besides 0 to 2 that a new program inherits under the same numbers.
    `umask` is the starter's: what the program makes in trees that it may write is to look as if its starter had made
    it; it is never wider than 022. `broker_is_parent` says that the parent must be safe from the program.
    """

    uid: int | None = None
    gid: int | None = None
    user: str = "sandbox"
    readonly: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    work: str | None = None
    network: str = LOOPBACK
    socket: str | None = None
    keep: tuple[int, ...] = ()
    limits: Limits = Limits()
    umask: int = 0o077
    broker_is_parent: bool = False
    layers: frozenset[str] = frozenset(LAYERS)

    @property
    def home(self) -> str:
        """The program's own directory, as it sees it."""
        return HOME if self.work is None else self.work

    @property
    def temporary(self) -> str:
        """Where the program's temporary files go."""
        return "/tmp" if NAMESPACES in self.layers else self.home

    def has(self, layer: str) -> bool:
        """Whether `layer` is one of this sandbox's."""
        return layer in self.layers

    def without(self, layer: str) -> "Sandbox":
        """The same sandbox, less `layer`."""
        return self._replace(layers=self.layers - {layer})

    @property
    def changes_uid(self) -> bool:
        """Whether the program's uid is another one than its starter's."""
        return self.uid not in (None, os.getuid())

    @property
    def has_own_network(self) -> bool:
        """Whether a network namespace keeps the host's network away."""
        return self.has(NAMESPACES) and self.network != HOST

    @property
    def effective_network(self) -> str:
        """The network that the program has: without a namespace there is no loopback of its own."""
        return self.network if self.has_internet else NO_NETWORK

    @property
    def has_internet(self) -> bool:
        """Whether the program may make TCP and UDP sockets: on its own loopback, or because it was given the host's."""
        return self.network == HOST or (self.network == LOOPBACK and self.has(NAMESPACES))


def lies_in(path: str, tree: str) -> bool:
    """Whether `path` is `tree` or lies below it, by name."""
    return path == tree or path.startswith(tree.rstrip("/") + "/")
