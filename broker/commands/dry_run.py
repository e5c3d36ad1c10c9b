"""`fdbroker run --dry-run`: what the program would have, as a table for people or as JSON.

The layers are not guessed: the sandbox is begun for real, without a program, and ended.
"""

import contextlib
import json
import os
import resource
from typing import TYPE_CHECKING, Any

from broker.commands.run_options import OWN_TROUBLE, Options, environment_of
from sandboxed import resources, syscalls
from sandboxed.cgroup import Cgroup
from sandboxed.launch import fork_confined
from sandboxed.layout import HARMLESS_DEVICES, plan
from sandboxed.sandbox import (
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
from sandboxed.weak import start_accepting

if TYPE_CHECKING:
    from policy.profile import Profile

_NETWORKS = {
    "none": "none, not even a loopback",
    LOOPBACK: "a loopback of its own, that leads nowhere",
    HOST: "all that this host reaches",
}

_WHAT_LAYERS_DO = {
    NAMESPACES: "an empty root; its own pids, IPC, network, host name, cgroups, and users where not root",
    LANDLOCK: "files, signals and abstract sockets stay inside",
    SECCOMP: "system calls that only an attack needs are refused",
    CAPABILITIES: "none, in no set, for ever; no_new_privs",
    LIMITS: "fds, processes, locked memory, no core dumps",
    TERMINAL: "one of its own, relayed, where it would have yours",
}


def show(options: Options, profile: "Profile | None", sandbox: Sandbox) -> int:
    """Print it; 0, or 125 where the sandbox could not be had."""
    trouble: str | None = None
    missing: list[LayerMissing] = []
    with contextlib.ExitStack() as stack:
        try:
            child, sandbox, missing = start_accepting(options.weak, sandbox, fork_confined, stack)
            if child is None:
                os._exit(0)
            with child:
                child.wait()
        except LayerMissing as error:
            missing, trouble = [error], str(error)
            sandbox = sandbox.without(error.layer)
        except StartError as error:
            trouble = str(error)
        found = _describe(options, profile, sandbox, missing)
    if options.json:
        print(json.dumps({**found, "trouble": trouble}))
    else:
        _print(found, options.command)
        if trouble is not None:
            print(f"\nIt would not start: {trouble}")
    return OWN_TROUBLE if trouble is not None else 0


def _describe(
    options: Options, profile: "Profile | None", sandbox: Sandbox, missing: list[LayerMissing]
) -> dict[str, Any]:
    reasons = {error.layer: error.reason for error in missing}
    return {
        "command": options.command,
        "uid": os.getuid() if sandbox.uid is None else sandbox.uid,
        "gid": os.getgid() if sandbox.gid is None else sandbox.gid,
        "groups": os.getgroups() if sandbox.uid is None else [],
        "broker": {"policy": options.policy} if options.policy else {"socket": options.socket},
        "home": sandbox.home,
        "home_stays": options.work is not None,
        "files": [
            {"path": item.path, "access": "write" if item.writable else "read", "every": item.system}
            for item in plan(sandbox)
            if os.path.lexists(item.path)
        ],
        "devices": [*HARMLESS_DEVICES, "tty", "pts"],
        "network": sandbox.network if sandbox.has_internet or sandbox.network != LOOPBACK else "none",
        "environment": environment_of(options, profile, sandbox, {"FDBROKER_FD": "N"}),
        "limits": _limits(sandbox),
        "layers": {name: {"on": name in sandbox.layers, "missing": reasons.get(name)} for name in LAYERS},
        "landlock_abi": syscalls.landlock_abi(),
    }


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


def _print(found: dict[str, Any], command: list[str]) -> None:
    rows = [
        ("COMMAND", " ".join(command)),
        ("WHO", _who(found)),
        ("BROKER", _broker(found["broker"])),
        ("HOME", f"{found['home']}, {'stays' if found['home_stays'] else 'gone at the end'}"),
        *_file_rows(found["files"]),
        ("DEVICES", " ".join(found["devices"]) + "; all others from the broker"),
        ("NETWORK", _NETWORKS[found["network"]]),
        *[
            ("VARIABLES" if place == 0 else "", f"{name}={value}")
            for place, (name, value) in enumerate(sorted(found["environment"].items()))
        ],
        ("LIMITS", _limit_words(found["limits"])),
        *[
            ("LAYERS" if place == 0 else "", f"{name:13}{_layer(name, state, found['landlock_abi'])}")
            for place, (name, state) in enumerate(found["layers"].items())
        ],
    ]
    for heading, text in rows:
        print(f"{heading:11}{text}")


def _who(found: dict[str, Any]) -> str:
    groups = f"groups {','.join(map(str, found['groups']))}" if found["groups"] else "no groups"
    return f"uid {found['uid']}, gid {found['gid']}, {groups}, no capabilities"


def _broker(broker: dict[str, Any]) -> str:
    if "policy" in broker:
        return f"this process, by {broker['policy']}"
    return f"at {broker['socket'] or 'FDBROKER_SOCKET, or where the system has it'}"


def _file_rows(files: list[dict[str, Any]]) -> list[tuple[str, str]]:
    etc = [item for item in files if item["every"] and item["path"].startswith("/etc/")]
    rows = [
        (f"{item['path']}", "read and write" if item["access"] == "write" else "read and run")
        for item in files
        if item not in etc
    ]
    if etc:
        rows.append(("/etc", f"read: {', '.join(item['path'][5:] for item in etc)}"))
    return [("FILES" if place == 0 else "", f"{path:32} {what}") for place, (path, what) in enumerate(rows)]


def _limit_words(limits: dict[str, Any]) -> str:
    words = [f"{limits[name]} {name}" for name in ("files", "processes") if limits[name] is not None]
    if limits["memory"] is not None:
        scope = "together" if "memory" in limits["together"] else "for each process (no cgroup can be had)"
        words.append(f"{limits['memory']} bytes of memory {scope}")
    if limits["scratch"] is not None:
        words.append(f"{limits['scratch']} bytes of files in memory")
    return ", ".join(words) or "none"


def _layer(name: str, state: dict[str, Any], abi: int) -> str:
    if not state["on"]:
        return f"MISSING: {state['missing']}"
    return f"{_WHAT_LAYERS_DO[name]}{f' (ABI {abi})' if name == LANDLOCK else ''}"
