"""`fdbroker check`: read policy files as the broker does, and show every mistake."""

import argparse
import json
import sys
from collections.abc import Sequence

from broker.policyfiles import PolicyFiles, UnreadablePolicy, read
from policy import Policy, PolicyError, Problem, load

DEFAULT_POLICY = "/etc/fdbroker/policy.d"

_EXITS = "exit status: 0 the policy is good, 1 it has mistakes, 2 it could not be read"


def main(arguments: Sequence[str]) -> int:
    """Check what `arguments` name."""
    options = _parser().parse_args(arguments)
    try:
        files = _read_all(options.paths or [DEFAULT_POLICY])
    except UnreadablePolicy as error:
        print(f"fdbroker check: {error}", file=sys.stderr)
        if options.json:
            print(json.dumps({"good": False, "problems": [], "error": str(error)}))
        return 2
    for name in files.ignored:
        print(
            f"fdbroker check: {name} is ignored: policy files are named [A-Za-z0-9][A-Za-z0-9._-]*.yaml",
            file=sys.stderr,
        )
    try:
        policy = load(files.sources)
    except PolicyError as error:
        _show_problems(error.problems, options.json)
        return 1
    _show_good(policy, len(files.sources), options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker check",
        description="Read policy files as the broker does, and show every mistake of all "
        "of them at once, each as file:line:column.",
        epilog=_EXITS,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help=f"policy files, or directories of them, read as one set (default: {DEFAULT_POLICY})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _read_all(paths: Sequence[str]) -> PolicyFiles:
    all_files = PolicyFiles([], [])
    for path in paths:
        files = read(path)
        all_files.sources.extend(files.sources)
        all_files.ignored.extend(files.ignored)
    return all_files


def _show_problems(problems: Sequence[Problem], as_json: bool) -> None:
    if as_json:
        found = [
            {"file": one.file, "line": one.line, "column": one.column, "message": one.message}
            for one in problems
        ]
        print(json.dumps({"good": False, "problems": found}))
        return
    for problem in problems:
        print(problem)
    print(f"{len(problems)} mistake{'s' if len(problems) != 1 else ''} found", file=sys.stderr)


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
