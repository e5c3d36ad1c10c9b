"""`fdbroker check`: read policy files as the broker does, show every mistake and finding, and run their tests."""

import argparse
import time
from collections.abc import Sequence

from broker.commands.check_findings import explained_code
from broker.commands.check_loading import load_to_check
from broker.commands.check_reading import NOT_LOOKED_AT_OFFLINE, add_options, files_to_check
from broker.commands.check_report import Checked, as_json, print_text
from broker.commands.check_tests import tested
from broker.commands.common import say
from broker.commands.policies import show_problems
from broker.commands.progress import tracked
from broker.linting import findings
from broker.policyfiles import TIERS
from broker.unusable import Unusable
from policy import PolicyError

_EPILOG = """\
Whoever can change a policy file, or a directory above it, decides what the broker gives. So these must belong to root
(or to the broker's own user) and be writable by nobody else; a file of which that is not true is a mistake, shown
with the command that mends it. `fdbroker cat` shows what the set comes to.

What may be wrong with a policy that loads is shown as findings, each with a code: rules that never decide, that are
wider than they look, that others can get around, that this machine or this version of the broker does not keep (no
broker serves the last, unless they are accepted). A rule takes a finding on with `accept: [CODE]`.

The tests under `tests:` are run when the files have no mistake. One that fails is shown with its place, what was
expected, what came out, and why. --coverage also names the rules that no test reaches: an allow by which none is
allowed, a deny that takes nothing from any. A test of a lower tier that passes without the higher ones is told as
overruled, and is no failure.

  fdbroker check                                 the system's policy
  fdbroker check new.yaml                        one file alone
  fdbroker check --coverage policy.d             a directory, each rule of which shall be tested
  fdbroker check --as 40-new.yaml draft.yaml     the system's policy as it would be with that file in
                                                 /etc/fdbroker/policy.d
  fdbroker check policy.d --as 40-new.yaml draft.yaml
  fdbroker check --explain wide-path             what a finding means, and what to do
  fdbroker check --offline --coverage policy.d   in a build job, for another machine: nothing of this one is looked
                                                 at, as who may write the files

exit status: 0 the policy is good; 1 it has mistakes, or findings that are no notes and not accepted, a test fails,
             or with --coverage a rule is in no test; 2 it could not be read
"""


def main(arguments: Sequence[str]) -> int:
    """Check what `arguments` name."""
    options = _parser().parse_args(arguments)
    if options.explain is not None:
        return _explain(options.explain)
    files = files_to_check(options)
    if files is None:
        return 2
    try:
        loaded, tests = load_to_check(files)
    except PolicyError as error:
        show_problems(error.problems, options.json)
        return 1
    checked = Checked(
        loaded,
        len(files.files),
        tested(loaded, tests, files.sources, coverage=options.coverage),
        NOT_LOOKED_AT_OFFLINE if options.offline else (),
        findings(
            loaded.policy, time.time(), offline=options.offline, tracked=lambda rules: tracked(rules, "rules")
        ),
    )
    if options.json:
        print(as_json(checked))
    else:
        print_text(checked, with_notes=options.notes)
    return 0 if checked.is_good else 1


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
        description="Read policy files as the broker does, show every mistake of all of them at once, each as\n"
        "file:line:column, and run the tests that they hold.",
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
    add_options(parser)
    parser.add_argument("--coverage", action="store_true", help="show the rules that no test reaches, too")
    parser.add_argument("--notes", action="store_true", help="show notes too, which fail nothing")
    parser.add_argument(
        "--explain", metavar="CODE", help="tell what findings of that code mean, and nothing else"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
