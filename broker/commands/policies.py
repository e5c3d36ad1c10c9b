"""Loading policies and profiles and opening the audit for a subcommand, with errors that say what to do."""

import os
from typing import TYPE_CHECKING

from broker.audit import open_audit
from broker.commands.common import Unusable
from broker.policyfiles import UnreadablePolicy, load_policy
from policy import Policy, PolicyError

if TYPE_CHECKING:
    from policy.profile import Profile


def policy_from(path: str) -> Policy:
    """The policy at `path`. Raises Unusable, with every mistake in it."""
    try:
        return load_policy(path)
    except UnreadablePolicy as error:
        raise Unusable(f"the policy cannot be read: {error}") from None
    except PolicyError as error:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        raise Unusable(f"the policy has mistakes:\n{lines}") from None


def profile_from(name: str) -> "Profile":
    """The profile of that name, or of that file. Raises Unusable, with every mistake in it."""
    from broker.profiles import find  # only a run with a profile pays for it

    try:
        return find(name)
    except UnreadablePolicy as error:
        raise Unusable(f"the profile cannot be read: {error}") from None
    except PolicyError as error:
        lines = "\n".join(f"  {problem}" for problem in error.problems)
        raise Unusable(f"the profile has mistakes:\n{lines}") from None


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
