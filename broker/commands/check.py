"""`fdbroker check`: read policy files as the broker does, and show every mistake."""

import argparse
import json
from collections.abc import Sequence

from broker.commands.policies import read_or_tell, show_problems
from broker.policyfiles import TIERS, load_files
from policy import Policy, PolicyError
from policy.keeping import refusals

_EPILOG = """\
Whoever can change a policy file, or a directory above it, decides what the broker gives. So these must belong to root
(or to the broker's own user) and be writable by nobody else; a file of which that is not true is a mistake, shown
with the command that mends it. `fdbroker cat` shows what the set comes to.

A rule that says what this version of the broker does not keep (a lease, say) is shown too, with its code: no broker
serves it, unless it says `accept: [CODE]`.

  fdbroker check                       the system's policy
  fdbroker check new.yaml              one file alone

exit status: 0 the policy is good, 1 it has mistakes, 2 it could not be read
"""


def main(arguments: Sequence[str]) -> int:
    """Check what `arguments` name."""
    options = _parser().parse_args(arguments)
    files = read_or_tell("check", options.paths, options.json)
    if files is None:
        return 2
    try:
        policy = load_files(files).policy
    except PolicyError as error:
        show_problems(error.problems, options.json)
        return 1
    unkept = refusals(policy)
    if unkept:
        show_problems(unkept, options.json)
        return 1
    _show_good(policy, len(files.files), options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker check",
        description="Read policy files as the broker does, and show every mistake of all "
        "of them at once, each as file:line:column.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help=f"policy files, or directories of them, read as one set of one tier (default: what "
        f"`fdbroker serve` reads, {', '.join(reversed(TIERS))})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _show_good(policy: Policy, count: int, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "good": True,
                    "problems": [],
                    "files": count,
                    "rules": len(policy.rules),
                    "policy": policy.digest,
                }
            )
        )
        return
    print(
        f"good: {len(policy.rules)} rules in {count} file{'s' if count != 1 else ''}, policy {policy.digest}"
    )
