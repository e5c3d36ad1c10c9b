"""The benchmarks: `python -m benchmarks.run [opens|sandbox|policies] [--json FILE] [--quick]`.

`opens` measures what an open by the broker costs, `sandbox` what the sandbox around a program does, `policies` what
very many rules do; without a word all are measured. Exit status: 0 measured, 2 there is no usable measurement. A missed
target is printed and is no failure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import opens, policies, sandbox
from benchmarks.figures import Figure, as_json, as_table
from benchmarks.programs import SOURCES, Unusable

PARTS = ("opens", "sandbox", "policies")


def show_opens(quick: bool) -> tuple[list[Figure], dict[str, object]]:
    """Measure and print; the figures, and what the JSON says about them."""
    effort = opens.QUICK if quick else opens.THOROUGH
    figures, core = opens.measure(effort)
    print(as_table(figures))
    print(
        f"\nBroker and clients on core {core}; {effort.rounds} rounds of {effort.iterations} fds.\n",
        flush=True,
    )
    return figures, {"core": core, "rounds": effort.rounds, "iterations": effort.iterations}


def show_sandbox(quick: bool) -> tuple[list[Figure], dict[str, object]]:
    """Measure and print; the figures, and what the JSON says about them."""
    effort = sandbox.QUICK if quick else sandbox.THOROUGH
    starts, works, memory = sandbox.measure(effort)
    print(as_table(starts, "fork"))
    print(f"\nThe start of a command, and its end; all cores, {effort.starts} rounds.\n")
    print(as_table(works, "outside"))
    print(f"\nPrograms inside, beside themselves outside; {effort.rounds} rounds on one core.\n")
    print(as_table(memory, ""))
    print(
        "\nMemory of what stays beside an idle program: its share of all, and what it shares with nobody.\n"
    )
    return [*starts, *works, *memory], {"sandbox_starts": effort.starts, "sandbox_rounds": effort.rounds}


def show_policies(quick: bool) -> tuple[list[Figure], dict[str, object]]:
    """Measure and print; the figures, and what the JSON says about them."""
    effort = policies.QUICK if quick else policies.THOROUGH
    decisions, sizes = policies.measure(effort)
    print(as_table(decisions, f"{policies.FEW} rules"))
    print(
        "\nLiteral paths, patterns, one path for many users, devices by serial number; what is given and refused.\n"
    )
    print(as_table(sizes, ""))
    print()
    return [*decisions, *sizes], {"policy_rounds": effort.rounds, "policy_loads": effort.loads}


def machine() -> dict[str, object]:
    """What the figures are of: they mean nothing on another machine."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "uid": os.getuid(),
    }


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Measure the broker's speed beside a floor in C, the sandbox's beside none, and that of large "
        "policies beside a small one.",
    )
    parser.add_argument("part", nargs="?", choices=PARTS, help="what to measure (default: all)")
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        default=SOURCES / "latest.json",
        help="where the figures go as JSON (default: benchmarks/latest.json)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a rough figure in a few seconds")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit status."""
    options = parse_arguments(arguments)
    parts = {"opens": show_opens, "sandbox": show_sandbox, "policies": show_policies}
    figures: list[Figure] = []
    about = machine()
    try:
        for name in [options.part] if options.part else PARTS:
            measured, of_part = parts[name](options.quick)
            figures += measured
            about |= of_part
        print(f"Linux {about['kernel']}, CPython {about['python']}, {about['processors']} processors.")
        options.json.write_text(json.dumps(as_json(figures, about), indent=2) + "\n", encoding="utf-8")
    except (Unusable, OSError) as error:
        print(f"benchmark unusable: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
