"""The attackers' suite inside our sandbox: nothing gets out, and every layer is needed.

Both programs run as whatever `fdbroker run` and `broker.embed` start, from a terminal, with a file and a directory
among the fds that a careless starter left open. Each test names what may succeed; all else must fail, and the
witness outside must not have seen anything. With a layer taken away some attack must succeed: else that layer
would not be tested. The same table names what each layer stops when it stands alone.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from attacks.expectations import ATTACKER, SUCCEEDS
from attacks.launch import SOURCE, Result, c_attackers, compiled, launch, python_attackers
from attacks.witness import Witness
from support import TREE, policy

from sandboxed.confinement.sandbox import (
    CAPABILITIES,
    LANDLOCK,
    LAYERS,
    LIMITS,
    NAMESPACES,
    SECCOMP,
    TERMINAL,
)

UID = ATTACKER if os.geteuid() == 0 else None
STARTER = str(Path(__file__).with_name("starter.py"))
FDBROKER = [sys.executable, "-m", "broker.main"]

# On the program's own terminal: the witness would have seen it on its own.
HARMLESS = {"terminal-settings"}

# What the host's network is.
OF_THE_HOSTS_NETWORK = {
    *("tcp4", "tcp6", "tcp-fast-open", "udp4", "udp6", "netlink-interfaces", "sockets-listed"),
}

# Without a root and pids of its own: names, which Landlock does not hide, and what /proc tells everybody.
OF_THE_FALL_BACK = {
    *("stat-names", "change-directory", "watch-directory", "hostname", "keys-listed", "sockets-listed"),
    *("fds-others", "bounding-set"),
}

# Layer: the attacks that succeed without it, and those that it stops when it is the only one.
NEEDED_FOR: dict[str, set[str]] = {
    NAMESPACES: {"stat-names", "hostname", "change-directory", "sockets-listed"},
    LANDLOCK: {"reopen-fds", "parents-of-fds"},
    SECCOMP: {
        "unshare-user",
        "key-read",
        "key-add",
        "terminal-typing",
        "set-uid-bit",
        "io-uring",
        "userfaultfd",
    },
    CAPABILITIES: {"bounding-set"},
    LIMITS: {"many-fds", "core-dumps"},
}
ALONE: dict[str, set[str]] = {
    NAMESPACES: {
        *(
            "unix-stream",
            "unix-datagram",
            "unix-datagram-pair",
            "abstract-stream",
            "abstract-datagram",
            "tcp4",
        ),
        *("tcp6", "udp4", "udp6", "mptcp", "kill-victim", "ptrace-victim", "memory-victim", "limits-victim"),
        *(
            "read-private",
            "read-secret",
            "list-directory",
            "stat-names",
            "write-file",
            "change-mode",
            "hostname",
        ),
        *("segment-read", "segment-write", "semaphore", "message-queue", "sockets-listed", "ptmx-of-outside"),
    },
    LANDLOCK: {
        *(
            "read-private",
            "read-secret",
            "read-inner",
            "list-directory",
            "write-file",
            "truncate-file",
            "link-file",
        ),
        *(
            "rename-file",
            "create-beside",
            "write-anywhere",
            "reopen-fds",
            "parents-of-fds",
            "ptmx-of-outside",
        ),
        *("abstract-stream", "abstract-datagram", "tcp4", "tcp6", "kill-victim", "pidfd-signal-victim"),
        *("memory-victim", "environ-victim", "ptrace-victim", "vm-read-victim", "pidfd-getfd-victim"),
    },
    SECCOMP: {
        *(
            "unix-stream",
            "unix-datagram",
            "unix-datagram-pair",
            "abstract-stream",
            "tcp4",
            "tcp-fast-open",
            "mptcp",
        ),
        *(
            "udp4",
            "netlink-interfaces",
            "ptrace-victim",
            "vm-read-victim",
            "pidfd-getfd-victim",
            "limits-victim",
        ),
        *(
            "affinity-victim",
            "scheduler-victim",
            "nice-victim",
            "io-priority-victim",
            "unshare-user",
            "clone-user",
        ),
        *("clone3-user", "key-read", "key-add", "segment-read", "semaphore", "message-queue", "posix-queue"),
        *("terminal-typing", "terminal-typing-with-bit-32", "set-uid-bit", "set-uid-bit-by-open", "io-uring"),
        *("perf-events", "userfaultfd", "personality", "change-mode", "change-times"),
    },
}


class Arena(NamedTuple):
    """A directory that every uid can reach, with both programs and a policy."""

    place: Path
    source: Path
    program: Path
    policy: Path

    def attackers(self, kind: str, description: dict[str, str | int]) -> list[str]:
        """The command of the attackers in Python or in C."""
        if kind == "c":
            return c_attackers(self.program, description)
        return python_attackers(description, source=self.source)


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with tempfile.TemporaryDirectory(prefix="fdbroker-holds-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        source = place / "attack.py"
        source.write_text(SOURCE.read_text())
        source.chmod(0o644)
        rules = place / "policy.yaml"
        rules.write_text(
            policy("name: names, clients: [any], allow: [read], type: file, paths: [/etc/hostname]")
        )
        yield Arena(place, source, compiled(place), rules)


@pytest.fixture
def witness(arena: Arena) -> Iterator[Witness]:
    with Witness(arena.place, ATTACKER) as made:
        yield made


def attack(
    arena: Arena, witness: Witness, kind: str, sandbox: Sequence[str], **more: str
) -> dict[str, Result]:
    """What became of every attack in `sandbox`, a command that runs another."""
    description = witness.description() | {"inside_pids": "1", "policy_file": str(arena.policy)} | more
    environment = {**witness.environment(), "PYTHONPATH": str(TREE)}
    command = [*sandbox, *arena.attackers(kind, description)]
    return launch(command, witness, uid=os.geteuid(), environment=environment)


def successes(results: dict[str, Result]) -> dict[str, str]:
    assert len(results) > 200, "the attackers did not try everything"
    return {name: result.detail for name, result in results.items() if result.succeeded}


def unexpected(results: dict[str, Result], allowed: set[str]) -> dict[str, str]:
    return {name: detail for name, detail in successes(results).items() if name not in allowed}


def run(arena: Arena, *options: str) -> list[str]:
    """`fdbroker run` with an embedded broker, as root for the uid that the witness's things belong to."""
    user = [] if UID is None else ["--user", str(UID)]
    shown = ["--ro", str(arena.source), "--ro", str(arena.program)]
    return [*FDBROKER, "run", *user, "--policy", str(arena.policy), *shown, *options, "--"]


def layered(arena: Arena, witness: Witness, layers: set[str]) -> list[str]:
    """The sandbox with these layers alone; it inherits the fds that a careless starter leaves open."""
    wanted = {
        "layers": sorted(layers),
        "uid": UID,
        "readonly": [str(arena.source), str(arena.program)],
        "network": "loopback",
        "keep": [witness.read_only_fd, witness.directory_fd],
    }
    return [sys.executable, STARTER, json.dumps(wanted)]


# --- everything on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["python", "c"])
@pytest.mark.parametrize("network", ["loopback", "none"])
def test_attacker_gets_nothing_out_of_run(arena: Arena, witness: Witness, kind: str, network: str) -> None:
    results = attack(arena, witness, kind, run(arena, "--net", network))
    assert unexpected(results, HARMLESS) == {}
    assert witness.saw() == []


@pytest.mark.parametrize("kind", ["python", "c"])
def test_attacker_gets_the_network_alone_when_it_was_given_the_hosts(
    arena: Arena, witness: Witness, kind: str
) -> None:
    results = attack(arena, witness, kind, run(arena, "--net", "host"))
    assert unexpected(results, HARMLESS | OF_THE_HOSTS_NETWORK) == {}
    assert [seen for seen in witness.saw() if "TCP" not in seen and "UDP" not in seen] == []


# The program splits in two, and its confined half turns into the attackers.
EMBED = """
import os, sys
from broker.embed import embed
rules, user, *command = sys.argv[1:]
embed(rules, user=user or None, ro=[{source!r}, {program!r}])
os.execv(command[0], command)
"""


@pytest.mark.parametrize("kind", ["python", "c"])
def test_attacker_gets_nothing_out_of_an_embedding_program(arena: Arena, witness: Witness, kind: str) -> None:
    script = EMBED.format(source=str(arena.source), program=str(arena.program))
    sandbox = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        script,
        str(arena.policy),
        "" if UID is None else str(UID),
    ]
    results = attack(arena, witness, kind, sandbox)
    # What the program itself had in its environment and its fds stays its own: it is one program, in two halves.
    assert unexpected(results, HARMLESS | {"environment", "fds"}) == {}
    assert witness.saw() == []


@pytest.mark.parametrize("kind", ["python", "c"])
def test_attacker_gets_names_alone_when_there_are_no_namespaces(
    arena: Arena, witness: Witness, kind: str
) -> None:
    results = attack(arena, witness, kind, layered(arena, witness, set(LAYERS) - {NAMESPACES}))
    assert unexpected(results, HARMLESS | OF_THE_FALL_BACK) == {}
    assert witness.saw() == []


# --- layers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held(arena: Arena) -> dict[str, str]:
    """What succeeds when all layers are there, for attackers that inherit what a careless starter leaves open."""
    with Witness(arena.place, ATTACKER) as made:
        results = attack(arena, made, "python", layered(arena, made, set(LAYERS)))
        assert made.saw() == []
    return successes(results)


@pytest.mark.parametrize("layer", NEEDED_FOR)
def test_attack_succeeds_when_a_layer_is_taken_away(
    arena: Arena, witness: Witness, held: dict[str, str], layer: str
) -> None:
    assert held.keys() & NEEDED_FOR[layer] == set()
    results = attack(arena, witness, "python", layered(arena, witness, set(LAYERS) - {layer}))
    assert NEEDED_FOR[layer] <= successes(results).keys()


def test_attacker_changes_the_outer_terminal_when_it_has_none_of_its_own(
    arena: Arena, witness: Witness
) -> None:
    attack(arena, witness, "python", layered(arena, witness, set(LAYERS) - {TERMINAL}))
    assert witness.saw() == ["the terminal's settings changed"]


@pytest.mark.parametrize("layer", ALONE)
def test_layer_stops_its_attacks_when_it_stands_alone(arena: Arena, witness: Witness, layer: str) -> None:
    assert ALONE[layer] <= SUCCEEDS | {"change-mode", "change-times"}, "what nothing stops succeeds elsewhere"
    results = attack(arena, witness, "python", layered(arena, witness, {layer}))
    assert successes(results).keys() & ALONE[layer] == set()
