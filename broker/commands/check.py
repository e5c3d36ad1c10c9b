"""`fdbroker check`: read policy files as the broker does, and show every mistake."""

import argparse
import json
import sys
import time
from collections.abc import Sequence

from broker.commands.check_findings import explained_code, findings_counts, findings_json, findings_text
from broker.commands.common import Unusable, say
from broker.commands.policies import read_or_tell, show_problems
from broker.linting import Linted, findings
from broker.policyfiles import TIERS, load_files
from policy import Policy, PolicyError

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
    if options.explain is not None:
        return _explain(options.explain)
    files = read_or_tell("check", options.paths, options.json)
    if files is None:
        return 2
    try:
        policy = load_files(files).policy
    except PolicyError as error:
        show_problems(error.problems, options.json)
        return 1
    linted = findings(policy, time.time(), offline=options.offline)
    _show(policy, len(files.files), linted, options)
    return 1 if linted.fails else 0


def _explain(code: str) -> int:
    try:
        print(explained_code(code))
    except Unusable as error:
        say("check", error)
        return 2
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
    parser.add_argument("--offline", action="store_true", help="ask nothing of this machine")
    parser.add_argument("--notes", action="store_true", help="show notes too, which fail nothing")
    parser.add_argument(
        "--explain", metavar="CODE", help="tell what findings of that code mean, and nothing else"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _show(policy: Policy, count: int, linted: Linted, options: argparse.Namespace) -> None:
    if options.json:
        shown = {
            "good": not linted.fails,
            "problems": [],
            **findings_json(linted),
            "files": count,
            "rules": len(policy.rules),
            "policy": policy.digest,
        }
        print(json.dumps(shown))
        return
    for line in findings_text(linted, with_notes=options.notes):
        print(line)
    if not linted.fails:
        files = f"{count} file{'s' if count != 1 else ''}"
        print(f"good: {len(policy.rules)} rules in {files}, policy {policy.digest}")
    for line in findings_counts(linted, with_notes=options.notes):
        print(line, file=sys.stderr)
