"""`fdbroker diff`: what a policy change grants, and what it takes away."""

import argparse
import json
import time
from collections.abc import Sequence

from broker.commands.common import say
from broker.commands.diff_words import Line, as_json, as_text, lines_of
from broker.commands.policies import policy_from
from broker.onmachine import Machine, Settled, known_names
from broker.policyfiles import TIERS
from broker.unusable import Unusable
from policy import Policy
from policy.diff import NOT_DECIDED, Gain, gains
from policy.within_clients import NO_NAMES

_EPILOG = f"""\
OLD and NEW are policy files, or directories of them. With one of them alone it is NEW, and OLD is the system's policy:
{", ".join(TIERS[::-1])}.

A line tells who gets which rights to what, and by which rule: + what NEW gives and OLD did not, - what OLD gave and NEW
does not. Below it stands how that was found:
  by rules         the rules alone say so, with a request that the one policy allows and the other refuses
  on this machine  the rules leave it open, and somebody who has an account here does get more of what is here now
  not decided      neither could tell; the sign is +? or -?, and it counts as a difference, and as a widening
What is not shown was proved to be the same: by the rules, or, where that is said, on this machine.

  fdbroker diff new.d                          what a load of new.d would change
  fdbroker diff --no-widening --offline old.yaml new.yaml      in CI: fails when anybody could get more
  fdbroker diff old.yaml new.yaml --json | jq -r '.granted[].rules[].id'

exit status: 0 no difference (with --no-widening: nothing is granted), 1 a difference, 2 unusable input
"""


def main(arguments: Sequence[str]) -> int:
    """Compare what `arguments` name."""
    options = _parser().parse_args(arguments)
    if len(options.paths) > 2:
        say("diff", "expected OLD and NEW, or NEW alone; several files of one policy are a directory")
        return 2
    try:
        old_path, new_path = options.paths if len(options.paths) == 2 else (None, options.paths[0])
        old, new = policy_from(old_path), policy_from(new_path)
        granted, taken = _compared(old, new, time.time(), options.offline)
    except Unusable as error:
        say("diff", error)
        if options.json:
            print(json.dumps({"granted": None, "taken": None, "error": str(error)}))
        return 2
    digests = old.digest, new.digest
    if options.json:
        print(json.dumps(as_json(granted, taken, digests)))
    else:
        print(as_text(granted, taken, digests, options.offline))
    counted = granted if options.no_widening else [*granted, *taken]
    return 1 if any(line.differs for line in counted) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker diff",
        usage="fdbroker diff [-h] [--no-widening] [--offline] [--json] [OLD] NEW",
        description="Tell what a change of policy grants and what it takes away.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", metavar="[OLD] NEW", nargs="+", help="policy files, or directories of them")
    parser.add_argument(
        "--no-widening",
        action="store_true",
        help="exit 1 only when something is granted, under looser terms, or may be: for CI",
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="by the rules alone: this machine's accounts and nodes are not looked at",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _compared(old: Policy, new: Policy, now: float, offline: bool) -> tuple[list[Line], list[Line]]:
    names = NO_NAMES if offline else known_names(old, new)
    return (
        lines_of(_settled(gains(old, new, names, now), old, new, now, offline)),
        lines_of(_settled(gains(new, old, names, now), new, old, now, offline)),
    )


def _settled(
    found: Sequence[Gain], before: Policy, after: Policy, now: float, offline: bool
) -> list[tuple[Gain, Settled | None]]:
    """The gains, each with what this machine says where the rules leave it open."""
    if offline or all(gain.basis != NOT_DECIDED for gain in found):
        return [(gain, None) for gain in found]
    try:
        machine = Machine(before, after, now)
    except OSError as error:
        raise Unusable(f"this machine cannot be looked at: {error}; --offline does without") from None
    try:
        return [(gain, machine.settle(gain) if gain.basis == NOT_DECIDED else None) for gain in found]
    finally:
        machine.close()
