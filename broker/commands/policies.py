"""Loading policies and profiles and opening the audit for a subcommand, with errors that say what to do."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from broker.audit import Sink
from broker.audit_files import FileSink, open_audit
from broker.commands.common import is_journal, say
from broker.policyfiles import NAMES, TIERS, PolicyFiles, UnreadablePolicy, load_files, read_paths, read_tiers
from broker.textlines import counted
from broker.unusable import Unusable
from policy import Policy, PolicyError, Problem
from policy.keeping import kept

if TYPE_CHECKING:
    import argparse  # an embedded broker does without

    from policy.profile import Profile


def add_policy_option(parser: "argparse.ArgumentParser", metavar: str = "PATH") -> None:
    """Add the option that names another policy than the system's, for policy_from()."""
    parser.add_argument(
        "--policy",
        metavar=metavar,
        help=f"a policy file or a directory of them (default: what `fdbroker serve` reads, {', '.join(TIERS[::-1])})",
    )


def policy_from(path: str | None) -> Policy:
    """The policy at `path`, or the system's, as the language has it. Raises Unusable, with every mistake in it."""
    try:
        files = read_tiers() if path is None else read_paths([path])
        policy = load_files(files).policy
    except UnreadablePolicy as error:
        raise Unusable(f"the policy cannot be read: {error}") from None
    except PolicyError as error:
        raise _mistaken("policy has mistakes", error) from None
    warn_of_ignored(files)
    return policy


def policy_to_serve(path: str | None) -> Policy:
    """The policy at `path`, or the system's, as this version serves it. Raises Unusable, with every mistake in it."""
    return servable(policy_from(path))


def servable(policy: Policy) -> Policy:
    """`policy` without what the broker cannot give. Raises Unusable for rules that say more than it keeps."""
    try:
        return kept(policy)
    except PolicyError as error:
        raise _mistaken("policy has rules that say more than this version keeps", error) from None


def _mistaken(what: str, error: PolicyError) -> Unusable:
    lines = "\n".join(f"  {problem}" for problem in error.problems)
    return Unusable(f"the {what}:\n{lines}")


def read_or_tell(command: str, paths: Sequence[str], as_json: bool) -> PolicyFiles | None:
    """The files of `paths`, or of the system's tiers; None when they cannot be read, which the user was told then."""
    return files_or_tell(command, lambda: read_paths(paths) if paths else read_tiers(), as_json)


def files_or_tell(command: str, read: Callable[[], PolicyFiles], as_json: bool) -> PolicyFiles | None:
    """The files that `read` returns; None when it raises UnreadablePolicy, of which the user was told then."""
    try:
        files = read()
    except UnreadablePolicy as error:
        import json  # no start of a broker pays for it

        say(command, error)
        if as_json:
            print(json.dumps({"good": False, "problems": [], "error": str(error)}))
        return None
    warn_of_ignored(files, command)
    return files


def warn_of_ignored(files: PolicyFiles, command: str = "") -> None:
    """Tell of files that have no policy file's name: somebody may have meant one."""
    for path in files.ignored:
        say(command, f"{path} is ignored: policy files are named {NAMES}")


def show_problems(problems: Sequence[Problem], as_json: bool) -> None:
    """Print what is wrong with a policy, for people or as one JSON object; 0 stands for no line or column."""
    import json  # no start of a broker pays for it

    if as_json:
        found = [
            {"file": one.file, "line": one.line, "column": one.column, "message": one.message}
            for one in problems
        ]
        print(json.dumps({"good": False, "problems": found}))
        return
    for problem in problems:
        print(problem)
    print(f"{counted(len(problems), 'mistake')} found", file=sys.stderr)


def profile_from(name: str) -> "Profile":
    """The profile of that name, or of that file. Raises Unusable, with every mistake in it."""
    from broker.profiles import find  # only a run with a profile pays for it

    try:
        return find(name)
    except UnreadablePolicy as error:
        raise Unusable(f"the profile cannot be read: {error}") from None
    except PolicyError as error:
        raise _mistaken("profile has mistakes", error) from None


def audit_to(word: str | None, standard: int) -> Sink:
    """Where the audit goes: a file, the journal, `standard` for "-", nowhere for None. Raises Unusable."""
    try:
        if word is None:
            return FileSink(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))
        if word == "-":
            return FileSink(os.dup(standard))
        if is_journal(word):
            from broker.journal import JournalSink  # only those who want the journal pay for it

            return JournalSink(word.partition(":")[2])
        path = os.path.abspath(word)
        return FileSink(open_audit(path), path)
    except OSError as error:
        what = "journal" if is_journal(word) else f"file {word}"
        raise Unusable(f"the audit {what} cannot be opened: {error.strerror}") from error
