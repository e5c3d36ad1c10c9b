"""What an open by the broker costs, beside the least that any broker could need.

Broker, floor and clients share one core, so that a figure is the work of both sides and holds no guess of
the scheduler's. The variants take turns, one round each (A B C A B C ...), so that whatever slows the
machine for a while slows all of them. The broker runs as it would in earnest: a policy of ten rules,
identity, safe resolution and audit; the audit is counted afterwards to prove it.
"""

from __future__ import annotations

import socket
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import FLOOR, Figure, Rounds, Target, figure
from benchmarks.programs import TimedClient, Unusable, broker_command, compiled, pinned, serving

OPENED = "/dev/zero"  # a device that every user may open, and that does nothing when it is opened
BATCH = 64  # fds in each call of client.c's open-many

POLICY = f"""\
version: 1
rules:
  - {{name: zero, clients: [{{uid: 0-4294967294}}], allow: [read, write], type: char, paths: [{OPENED}]}}
  - {{name: full, clients: [{{uid: 0-4294967294}}], allow: [read, write], type: char, paths: [/dev/full]}}
  - {{name: random, clients: [{{uid: 0-4294967294}}], allow: [read], type: char, paths: ["/dev/*random"]}}
  - {{name: kvm, clients: [{{uid: 1000-1999}}], allow: [use], type: char, paths: [/dev/kvm]}}
  - {{name: tun, clients: [{{uid: 1000-1999}}], allow: [use], type: char, paths: [/dev/net/tun]}}
  - {{name: serial, clients: [{{gid: 20}}], allow: [read, write], type: char, paths: ["/dev/ttyUSB*"]}}
  - {{name: render, clients: [{{gid: 44}}], allow: [use], type: char, paths: ["/dev/dri/renderD*"]}}
  - {{name: key, clients: [{{uid: 33}}], allow: [read], paths: [/etc/ssl/private/web.key]}}
  - {{name: shared, clients: [{{uid: 1000-1999}}], allow: [edit], paths: ["/srv/shared/**"]}}
  - {{name: no-disks, deny: all, type: block, paths: ["/dev/sd*", "/dev/nvme*"]}}
"""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. `iterations` counts fds, so a batch is 64 of them.

    Many short rounds rather than few long ones: a round should see the same machine as the floor's beside it.
    """

    rounds: int
    iterations: int


THOROUGH = Effort(rounds=100, iterations=512)
QUICK = Effort(rounds=10, iterations=512)


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing that is timed. `batch` is the number of fds that one iteration of its client brings.

    `client` is what client.c calls it, if not by its name; `pure` has the broker's hot path in Python.
    """

    name: str
    title: str
    target: Target | None = None
    batch: int = 1
    client: str = ""
    pure: bool = False


VARIANTS = (
    Variant("native", "native open and close"),
    Variant(FLOOR, "floor: C broker without policy and audit"),
    Variant("open", "open, C client that polls first", Target(2.2, of_floor=True)),
    Variant("open-blocking", "open, C client that blocks in recvmsg"),
    Variant("open-python", "open, Python client"),
    Variant("open-many", "one fd of a batch of 64, C client", Target(0.5, of_floor=True), batch=BATCH),
    # The same broker where nothing could be compiled.
    Variant(
        "open-pure",
        "open, C client, broker in pure Python",
        Target(2.2, of_floor=True),
        client="open",
        pure=True,
    ),
    Variant(
        "open-many-pure",
        "one fd of a batch of 64, broker in pure Python",
        Target(0.5, of_floor=True),
        batch=BATCH,
        client="open-many",
        pure=True,
    ),
)


class Laboratory:
    """A directory with everything that the measurement needs, and the commands that use it."""

    def __init__(self, directory: Path) -> None:
        self.floor_socket = directory / "floor.sock"
        self.broker_socket = directory / "broker.sock"
        self.pure_socket = directory / "pure.sock"
        self.policy = directory / "policy.yaml"
        self.audit = directory / "audit.jsonl"
        self.policy.write_text(POLICY, encoding="utf-8")
        self._floor = compiled("floor", directory)
        self._client = compiled("client", directory)

    def floor_command(self) -> list[str]:
        return [str(self._floor), str(self.floor_socket)]

    def serve_command(self, *, pure: bool) -> list[str]:
        command = broker_command(
            "serve",
            "--policy",
            str(self.policy),
            "--audit",
            str(self.audit),
            "--socket",
            str(self.pure_socket if pure else self.broker_socket),
        )
        return ["env", f"FDBROKER_PURE_PYTHON={int(pure)}", *command]

    def client_command(self, variant: Variant) -> list[str]:
        if variant.name == "native":
            return [str(self._client), variant.name, OPENED]
        if variant.name == FLOOR:
            return [str(self._client), variant.name, OPENED, str(self.floor_socket)]
        if variant.name == "open-python":
            return [sys.executable, "-m", "benchmarks.python_client", OPENED, str(self.broker_socket)]
        return [
            str(self._client),
            variant.client or variant.name,
            OPENED,
            str(self.pure_socket if variant.pure else self.broker_socket),
        ]


def measure_opens(laboratory: Laboratory, effort: Effort) -> dict[str, Rounds]:
    """The rounds, in microseconds for each fd, by the variant's name."""
    rounds = {variant.name: Rounds() for variant in VARIANTS}
    floor = serving(laboratory.floor_command(), laboratory.floor_socket, socket.SOCK_SEQPACKET)
    broker = serving(laboratory.serve_command(pure=False), laboratory.broker_socket, socket.SOCK_STREAM)
    pure = serving(laboratory.serve_command(pure=True), laboratory.pure_socket, socket.SOCK_STREAM)
    with floor, broker, pure, ExitStack() as stack:
        clients = [
            (variant, stack.enter_context(TimedClient(laboratory.client_command(variant))))
            for variant in VARIANTS
        ]
        for _ in range(effort.rounds):
            for variant, client in clients:
                nanoseconds = client.run_round(effort.iterations // variant.batch)
                rounds[variant.name].add([number / variant.batch / 1000 for number in nanoseconds])
    return rounds


def verify_audit(laboratory: Laboratory, effort: Effort) -> None:
    """Raise Unusable unless the broker audited every open that was measured: else it was measured without."""
    served = sum(1 for variant in VARIANTS if variant.name not in ("native", FLOOR))
    opens = served * effort.rounds * effort.iterations
    with laboratory.audit.open("rb") as lines:
        audited = sum(1 for line in lines if OPENED.encode() in line)
    if audited < opens:
        raise Unusable(f"the broker audited {audited} of {opens} opens")


def measure(effort: Effort) -> tuple[list[Figure], int]:
    """The figures, and the core on which the opens were measured."""
    with tempfile.TemporaryDirectory(prefix="fdbroker-bench-") as name:
        laboratory = Laboratory(Path(name))
        with pinned() as core:
            rounds = measure_opens(laboratory, effort)
        verify_audit(laboratory, effort)
    figures = [
        figure(
            variant.name,
            variant.title,
            "µs",
            rounds[variant.name],
            floor=rounds[FLOOR],
            target=variant.target,
        )
        for variant in VARIANTS
    ]
    return figures, core
