"""`fdbroker check`: read policy files as the broker does, show every mistake, and run the tests that they hold."""

import argparse
from collections.abc import Sequence

from broker.commands.check_loading import load_to_check
from broker.commands.check_reading import NOT_LOOKED_AT_OFFLINE, add_options, files_to_check
from broker.commands.check_report import Checked, as_json, print_text
from broker.commands.check_tests import tested
from broker.commands.policies import show_problems
from broker.policyfiles import TIERS
from policy import PolicyError

_EPILOG = """\
Whoever can change a policy file, or a directory above it, decides what the broker gives. So these must belong to root
(or to the broker's own user) and be writable by nobody else; a file of which that is not true is a mistake, shown
with the command that mends it. `fdbroker cat` shows what the set comes to.

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
  fdbroker check --offline --coverage policy.d   in a build job, for another machine: nothing of this one is looked
                                                 at, as who may write the files

exit status: 0 the policy is good; 1 it has mistakes, a test fails, or with --coverage a rule is in no test;
             2 it could not be read
"""


def main(arguments: Sequence[str]) -> int:
    """Check what `arguments` name."""
    options = _parser().parse_args(arguments)
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
    )
    if options.json:
        print(as_json(checked))
    else:
        print_text(checked)
    return 0 if checked.is_good else 1


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
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
