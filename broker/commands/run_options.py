"""The command line of `fdbroker run`, and the sandbox that it asks for.

`run_parser` says what the options are, and explains them and what is wrong with a command line. It takes a tenth of a
start, which is why options that are written out are read without it.
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from broker.installation import needed_by, own_trees, shown_path
from broker.unusable import Unusable
from sandboxed.child import CommandNotExecutable
from sandboxed.confinement.environment import DEFAULT_PATH, clean_environment, current_umask
from sandboxed.confinement.sandbox import LAYERS, LOOPBACK, NETWORKS, Limits, Sandbox, lies_in

if TYPE_CHECKING:
    from policy.profile import Profile

OWN_TROUBLE = 125

DEFAULT_SOCKET = "/run/fdbroker/fdbroker.sock"


class Options:
    """What a command line says; None and empty where it says nothing."""

    def __init__(self) -> None:
        self.policy: str | None = None
        self.socket: str | None = None
        self.audit: str | None = None
        self.user: str | None = None
        self.ro: list[str] = []
        self.rw: list[str] = []
        self.work: str | None = None
        self.env: list[str] = []
        self.net: str | None = None
        self.profile: str | None = None
        self.weak: list[str] = []
        self.dry_run = False
        self.json = False
        self.command: list[str] = []


# The options that scan() knows: with a value, of which the last counts; with values that add up; and the words
# that may be one.
_SINGLE = frozenset(("--policy", "--socket", "--audit", "--user", "--work", "--net", "--profile"))
_REPEATED = frozenset(("--ro", "--rw", "--env", "--weak"))
_CHOICES = {"--net": NETWORKS, "--weak": LAYERS}


def scan(arguments: Sequence[str]) -> Options | None:
    """The options, if each is written out and followed by its value; None for whatever needs the parser."""
    options = Options()
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            options.command = [word, *words]
        elif word == "--":
            options.command = list(words)
        elif word in _SINGLE or word in _REPEATED:
            value = next(words, None)
            if value is None or (value.startswith("-") and value != "-"):
                return None
            if value not in _CHOICES.get(word, (value,)):
                return None
            if word in _SINGLE:
                setattr(options, word[2:], value)
            else:
                getattr(options, word[2:]).append(value)
        else:
            return None
    return None if options.policy is not None and options.socket is not None else options


def _parsed(arguments: Sequence[str]) -> Options:
    from broker.commands.run_parser import parser

    options = parser().parse_args(arguments, Options())
    if options.command[:1] == ["--"]:
        del options.command[0]
    return options


def parse(arguments: Sequence[str]) -> Options:
    """The options of `arguments`; `command` is a list without "--". Raises Unusable; exits as argparse does."""
    options = scan(arguments) or _parsed(arguments)
    if options.audit is not None and options.policy is None:
        raise Unusable("--audit goes with --policy: a broker that is connected to has an audit of its own")
    if options.json and not options.dry_run:
        raise Unusable("--json goes with --dry-run")
    if not options.command:
        raise Unusable("there is no command to run: fdbroker run --policy FILE -- CMD …")
    for word in options.env:
        _check_variable(word.partition("=")[0])
    if "/" in options.command[0]:
        # The program may start elsewhere, where the same words would mean another file.
        options.command[0] = os.path.abspath(options.command[0])
        _check_executable(options.command[0])
    return options


def _check_executable(path: str) -> None:
    """Say what is wrong with a file that is there and cannot be run: in the sandbox it would not even be seen."""
    if os.path.isfile(path) and not os.access(path, os.X_OK):
        raise CommandNotExecutable(
            f"{path}: cannot be run: it is not executable (chmod +x it, or name its interpreter and show it with --ro)"
        )


def _check_variable(name: str) -> None:
    if not name:
        raise Unusable("--env takes NAME or NAME=VALUE, and there is no NAME")
    if name.startswith("FDBROKER_"):
        raise Unusable(f"--env {name}: names that begin with FDBROKER_ are fdbroker's own to set")


def sandbox_of(options: Options, profile: "Profile | None", uid: int | None, gid: int | None) -> Sandbox:
    """The sandbox that was asked for, with what the command itself needs. Raises StartError."""
    readonly = [os.path.abspath(path) for path in options.ro]
    writable = [os.path.abspath(path) for path in options.rw]
    limits = Limits()
    network = options.net
    if profile is not None:
        readonly += profile.readonly
        writable += profile.writable
        given = profile.limits
        limits = Limits(given.memory, given.processes, given.files, given.scratch)
        network = network or profile.network
    work = None if options.work is None else os.path.abspath(options.work)
    seen = [*readonly, *writable, *([work] if work else [])]
    path = os.environ.get("PATH", DEFAULT_PATH)
    needed = [
        one
        for one in (*own_trees(), *needed_by(options.command, path, by_others=uid is not None))
        if not any(lies_in(one, tree) for tree in seen)
    ]
    return Sandbox(
        uid=uid,
        gid=gid,
        user="sandbox" if options.user is None or options.user.isdigit() else options.user,
        readonly=tuple(dict.fromkeys((*readonly, *needed))),
        writable=tuple(dict.fromkeys(writable)),
        work=work,
        network=network or LOOPBACK,
        limits=limits,
        umask=current_umask(),
    )


def socket_of(options: Options) -> str:
    """Where the broker listens that is no part of this process."""
    return os.path.abspath(options.socket or os.environ.get("FDBROKER_SOCKET", DEFAULT_SOCKET))


def environment_of(
    options: Options, profile: "Profile | None", sandbox: Sandbox, extra: dict[str, str]
) -> dict[str, str]:
    """The program's environment. `extra` wins over what was asked for."""
    names = [word for word in options.env if "=" not in word]
    values = dict(word.split("=", 1) for word in options.env if "=" in word)
    if profile is not None:
        names += profile.environment
        values = {**dict(profile.variables), **values}
    shown = (*sandbox.readonly, *sandbox.writable, sandbox.home)
    path = shown_path(os.environ.get("PATH", ""), shown) or DEFAULT_PATH
    # The command `fdbroker`, for whoever has it in no directory of PATH (/opt/fdbroker/bin/fdbroker run …).
    own = os.path.join(sys.prefix, "bin")
    if own not in path.split(":"):
        path += f":{own}"
    values.setdefault("PATH", path)
    return clean_environment(sandbox, {**values, **extra}, names)
