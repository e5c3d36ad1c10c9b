"""Which files `fdbroker check` checks: a set, the system's or another, and drafts that shall join it."""

import argparse
from collections.abc import Sequence

from broker.commands.common import say
from broker.commands.policies import files_or_tell
from broker.limits import POLICY_BYTES
from broker.policyfiles import (
    NAMES,
    PolicyFiles,
    UnreadablePolicy,
    is_name,
    read_file,
    read_paths,
    read_tiers,
)
from policy import Source

# What depends on the machine, and so is not looked at for a policy of another one.
NOT_LOOKED_AT_OFFLINE = (
    "who else could write the files",
    "this machine's accounts, directories and kernel, and what paths lead to",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the files."""
    parser.add_argument(
        "--as",
        dest="drafts",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "FILE"),
        help="check FILE as the set's file NAME, in place of the one that has the name now; without PATH as one "
        "of the administrator's; may be repeated",
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="look at nothing of this machine but the files, which are those of another one: PATH must be given",
    )


def files_to_check(options: argparse.Namespace) -> PolicyFiles | None:
    """The files that `options` name; None when they cannot be read, which the user was told then."""
    files = files_or_tell(
        "check", lambda: _read(options.paths, options.drafts, options.offline), options.json
    )
    if files is not None and options.offline and not options.json:
        say("check", f"offline, not looked at: {', '.join(NOT_LOOKED_AT_OFFLINE)}")
    return files


def _read(paths: Sequence[str], named: Sequence[Sequence[str]], is_offline: bool) -> PolicyFiles:
    drafts = [_draft(name, path) for name, path in named]
    twice = {draft.name for draft in drafts if [one.name for one in drafts].count(draft.name) > 1}
    if twice:
        raise UnreadablePolicy(f"--as {min(twice)} is there twice: a set has one file of a name")
    if paths:
        return read_paths(paths, drafts, judges_trust=not is_offline)
    if is_offline:
        raise UnreadablePolicy(
            "--offline looks at no directory of this machine's own: name the files or directories to check"
        )
    return read_tiers(drafts)


def _draft(name: str, path: str) -> Source:
    if not is_name(name):
        raise UnreadablePolicy(f"--as {name!a}: policy files are named {NAMES}")
    # Whoever may write a draft: it counts when it has been put into its place.
    return Source(name, read_file(path, POLICY_BYTES).text)
