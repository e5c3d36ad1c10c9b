"""`fdbroker run --dry-run`: what the program would have, as a table for people or as JSON.

The layers are not guessed, nor where the program starts and whether it is there: the sandbox is begun for real,
without the program, and ended. The policy is read as the broker reads it.
"""

import contextlib
import errno
import json
import os
import resource
import shlex
import textwrap
from typing import TYPE_CHECKING, Any

from broker.commands.policies import policy_to_serve
from broker.commands.run_options import OWN_TROUBLE, Options, environment_of, socket_of
from broker.identity import Accounts, IdentityReader
from broker.unusable import Unusable
from policy import rights_words
from sandboxed import syscalls
from sandboxed.child import find_command
from sandboxed.confinement import resources
from sandboxed.confinement.cgroup import Cgroup
from sandboxed.confinement.launch import fork_confined
from sandboxed.confinement.layout import HARMLESS_DEVICES, Shown, plan
from sandboxed.confinement.sandbox import (
    CAPABILITIES,
    HOST,
    LANDLOCK,
    LAYERS,
    LIMITS,
    LOOPBACK,
    NAMESPACES,
    SCRATCH_BYTES,
    SECCOMP,
    TERMINAL,
    LayerMissing,
    Sandbox,
    StartError,
)
from sandboxed.confinement.weak import start_accepting

if TYPE_CHECKING:
    from policy.profile import Profile

_NETWORKS = {
    "none": "none, not even a loopback",
    LOOPBACK: "a loopback of its own, that leads nowhere",
    HOST: "all that this host reaches",
}

_ACCESS = {"read": "read and run", "write": "read and write", "connect": "connect"}

_WHAT_LAYERS_DO = {
    NAMESPACES: "an empty root; its own pids, IPC, network, host name, cgroups, and users where not root",
    LANDLOCK: "files, signals and abstract sockets stay inside",
    SECCOMP: "system calls that only an attack needs are refused",
    CAPABILITIES: "none, in no set, for ever; no_new_privs",
    LIMITS: "fds, processes, locked memory, no core dumps",
    TERMINAL: "one of its own, relayed, where it would have yours",
}


# What the sandbox tells of itself, where it could not be begun.
_NOTHING_SEEN: dict[str, Any] = {"directory": None, "command": None}


def show(options: Options, profile: "Profile | None", sandbox: Sandbox) -> int:
    """Print it; 0, or 125 where the program would not start."""
    troubles: list[str] = []
    missing: list[LayerMissing] = []
    seen = _NOTHING_SEEN
    socket = None if options.policy is not None else socket_of(options)
    if socket is not None:
        if os.path.exists(socket):
            sandbox = sandbox._replace(socket=socket)
        else:
            troubles.append(f"no broker answers at {socket}: No such file or directory")
    with contextlib.ExitStack() as stack:
        try:
            sandbox, missing, seen = _begin(options, profile, sandbox, stack)
        except LayerMissing as error:
            missing = [error]
            troubles.append(str(error))
            sandbox = sandbox.without(error.layer)
        except StartError as error:
            troubles.append(str(error))
        found = _describe(options, profile, sandbox, missing, seen["directory"])
    if options.policy is not None:
        found["broker"] = {"policy": options.policy}
        try:
            found["gives"] = _gives(options.policy, sandbox)
        except Unusable as error:
            troubles.append(str(error))
    else:
        found["broker"] = {"socket": socket}
    if seen["command"] is not None:
        troubles.append(seen["command"])
    trouble = "; ".join(troubles) or None
    if options.json:
        print(json.dumps({**found, "trouble": trouble}))
    else:
        _print(found)
        if trouble is not None:
            print(f"\nIt would not start: {trouble}")
    return OWN_TROUBLE if trouble is not None else 0


def _begin(
    options: Options, profile: "Profile | None", sandbox: Sandbox, stack: contextlib.ExitStack
) -> tuple[Sandbox, list[LayerMissing], dict[str, Any]]:
    """The sandbox that can be had, the layers that it lacks, and what is seen in it. Raises StartError."""
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as answers:
        with open(writer, "w", encoding="utf-8") as answer:
            child, sandbox, missing = start_accepting(options.weak, sandbox, fork_confined, stack)
            if child is None:
                try:
                    path = environment_of(options, profile, sandbox, {})["PATH"]
                    json.dump({"directory": os.getcwd(), "command": _fault(options.command[0], path)}, answer)
                    answer.flush()
                finally:
                    os._exit(0)
        with child:
            text = answers.read()
            child.wait()
    return sandbox, missing, json.loads(text) if text else _NOTHING_SEEN


def _fault(name: str, path: str) -> str | None:
    """In the sandbox: why the command `name` cannot be run, None if it can."""
    there = [candidate for candidate in find_command(name, path) if os.path.lexists(candidate)]
    if any(os.path.isfile(candidate) and os.access(candidate, os.X_OK) for candidate in there):
        return None
    return (
        f"{there[0]}: cannot be run: {os.strerror(errno.EACCES)}" if there else f"{name}: command not found"
    )


def _gives(path: str, sandbox: Sandbox) -> list[dict[str, Any]]:
    """What the policy at `path` allows the program, whatever it denies of that. Raises Unusable."""
    policy = policy_to_serve(path)
    uid = os.getuid() if sandbox.uid is None else sandbox.uid
    gids = {sandbox.gid} if sandbox.gid is not None else {os.getgid(), *os.getgroups()}
    peer = IdentityReader(Accounts(policy)).peer(uid, frozenset(gids), "default", embedded=True)
    return [
        {
            "paths": [pattern.text for pattern in rule.paths],
            "except": [pattern.text for pattern in rule.except_paths],
            "access": rights_words(rule.rights),
            "types": sorted(kind.value for kind in rule.types or ()),
        }
        for rule in policy.describe(peer)
    ]


def _describe(
    options: Options,
    profile: "Profile | None",
    sandbox: Sandbox,
    missing: list[LayerMissing],
    directory: str | None,
) -> dict[str, Any]:
    reasons = {error.layer: error.reason for error in missing}
    return {
        "command": options.command,
        "uid": os.getuid() if sandbox.uid is None else sandbox.uid,
        "gid": os.getgid() if sandbox.gid is None else sandbox.gid,
        "groups": os.getgroups() if sandbox.uid is None else [],
        "directory": directory,
        "home": sandbox.home,
        "home_stays": options.work is not None,
        "files": _files(sandbox),
        "devices": [*HARMLESS_DEVICES, "tty", "pts"],
        "network": sandbox.effective_network,
        "environment": environment_of(options, profile, sandbox, _of_the_broker(sandbox)),
        "limits": _limits(sandbox),
        "layers": {name: {"on": name in sandbox.layers, "missing": reasons.get(name)} for name in LAYERS},
        "landlock_abi": syscalls.landlock_abi(),
    }


def _access(item: Shown, sandbox: Sandbox) -> str:
    if item.path == sandbox.socket:
        return "connect"
    return "write" if item.writable else "read"


def _of_the_broker(sandbox: Sandbox) -> dict[str, str]:
    """Variables that tell the program where its broker is."""
    return {"FDBROKER_FD": "N", **({"FDBROKER_SOCKET": sandbox.socket} if sandbox.socket else {})}


def _files(sandbox: Sandbox) -> list[dict[str, Any]]:
    """What it sees of the machine; nothing where just that cannot be had, which was told by then."""
    try:
        shown = plan(sandbox)
    except StartError:
        return []
    return [
        {"path": item.path, "access": _access(item, sandbox), "every": item.system}
        for item in shown
        if os.path.lexists(item.path)
    ]


def _limits(sandbox: Sandbox) -> dict[str, Any]:
    standard = {kind: hard for kind, _, hard in (resources.RESOURCE_LIMITS if sandbox.has(LIMITS) else ())}
    limits = sandbox.limits
    return {
        "files": limits.files or standard.get(resource.RLIMIT_NOFILE),
        "processes": limits.processes or standard.get(resource.RLIMIT_NPROC),
        "memory": limits.memory,
        "together": sorted(Cgroup.controllers()),
        "scratch": (limits.scratch or SCRATCH_BYTES) if sandbox.has(NAMESPACES) else None,
    }


def _print(found: dict[str, Any]) -> None:
    home = f"{found['home']}, {'stays' if found['home_stays'] else 'gone at the end'}"
    _print_rows("COMMAND", [shlex.join(found["command"])])
    _print_rows("WHO", [_who(found)])
    _print_rows("BROKER", [_broker(found["broker"])])
    if "gives" in found:
        _print_rows("IT GIVES", _given(found["gives"]))
    if found["directory"] is not None:
        _print_rows("STARTS IN", [found["directory"]])
    _print_rows("HOME", [home])
    _print_rows("FILES", _file_rows(found["files"]))
    _print_rows("DEVICES", [" ".join(found["devices"]) + "; all others from the broker"])
    _print_rows("NETWORK", [_NETWORKS[found["network"]]])
    _print_rows("VARIABLES", [f"{name}={value}" for name, value in sorted(found["environment"].items())])
    _print_rows("LIMITS", [_limit_words(found["limits"])])
    abi = found["landlock_abi"]
    _print_rows("LAYERS", [f"{name:13}{_layer(name, state, abi)}" for name, state in found["layers"].items()])


def _print_rows(heading: str, lines: list[str]) -> None:
    """Print the lines of one heading."""
    for place, line in enumerate(lines):
        print(f"{heading if place == 0 else '':11}{line}")


def _who(found: dict[str, Any]) -> str:
    groups = f"groups {','.join(map(str, found['groups']))}" if found["groups"] else "no groups"
    return f"uid {found['uid']}, gid {found['gid']}, {groups}, no capabilities"


def _broker(broker: dict[str, Any]) -> str:
    return f"this process, by {broker['policy']}" if "policy" in broker else f"at {broker['socket']}"


def _given(gives: list[dict[str, Any]]) -> list[str]:
    if not gives:
        return [
            "nothing: the policy has no rule for this program (clients: [any] is every program of run --policy)"
        ]
    return [
        f"{' '.join(one['paths'])}{' but ' + ' '.join(one['except']) if one['except'] else ''}: "
        f"{'+'.join(one['access'])} ({', '.join(one['types'])})"
        for one in gives
    ]


def _file_rows(files: list[dict[str, Any]]) -> list[str]:
    etc = [item for item in files if item["every"] and item["path"].startswith("/etc/")]
    rows = [f"{item['path']:32} {_ACCESS[item['access']]}" for item in files if item not in etc]
    if etc:
        names = " ".join(item["path"][5:] for item in etc)
        rows += [
            f"{'/etc, and of it' if place == 0 else '':32} {line}"
            for place, line in enumerate(textwrap.wrap(names, 70, break_on_hyphens=False))
        ]
    return rows


def _limit_words(limits: dict[str, Any]) -> str:
    words = [f"{limits[name]} {name}" for name in ("files", "processes") if limits[name] is not None]
    if limits["memory"] is not None:
        scope = "together" if "memory" in limits["together"] else "for each process (no cgroup can be had)"
        words.append(f"{_size(limits['memory'])} of memory {scope}")
    if limits["scratch"] is not None:
        words.append(f"{_size(limits['scratch'])} of files in memory")
    return ", ".join(words) or "none"


def _size(count: int) -> str:
    """As a profile has it."""
    for letter, unit in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if count % unit == 0:
            return f"{count // unit}{letter}"
    return f"{count} bytes"


def _layer(name: str, state: dict[str, Any], abi: int) -> str:
    if not state["on"]:
        return f"MISSING: {state['missing']}"
    return f"{_WHAT_LAYERS_DO[name]}{f' (ABI {abi})' if name == LANDLOCK else ''}"
