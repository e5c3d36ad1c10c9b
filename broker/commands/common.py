"""What several subcommands share: loading a policy and opening the audit, with errors that say what to do."""

import os
import sys

from broker.audit import open_audit
from broker.policyfiles import UnreadablePolicy, load_policy
from policy import Policy, PolicyError


class Unusable(Exception):
    """The command cannot start; the message says why and what to do."""


def policy_from(path: str) -> Policy:
    """The policy at `path`. Raises Unusable, with every mistake in it."""
    try:
        return load_policy(path)
    except UnreadablePolicy as error:
        raise Unusable(f"the policy cannot be read: {error}") from None
    except PolicyError as error:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        raise Unusable(f"the policy has mistakes:\n{lines}") from None


def audit_to(path: str | None, standard: int) -> int:
    """An fd for the audit: the file `path`, `standard` for "-", nowhere for None. Raises Unusable."""
    try:
        if path is None:
            return os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        if path == "-":
            return os.dup(standard)
        return open_audit(path)
    except OSError as error:
        raise Unusable(f"the audit file {path} cannot be opened: {error.strerror}") from error


def say(command: str, message: object) -> None:
    """Tell the user, on standard error."""
    print(f"fdbroker {command}: {message}", file=sys.stderr, flush=True)
