"""All findings about a policy: those of the policy alone, and those of this machine where it may be asked."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from policy import Policy, Rule
from policy.findings import Finding
from policy.lint import judged, lint, living


class Linted(NamedTuple):
    """What was found."""

    findings: list[Finding]
    """By file and line, those that are accepted too."""
    unseen: list[str]
    """What could not be looked at, each with the reason."""
    machine_asked: bool

    @property
    def fails(self) -> bool:
        """Whether there is something that must not be passed over."""
        return any(one.fails for one in self.findings)


def findings(
    policy: Policy,
    now: float,
    *,
    offline: bool,
    tracked: Callable[[Sequence[Rule]], Iterable[Rule]] = iter,
) -> Linted:
    """Look for findings about `policy` at the time `now`, in seconds since 1970.

    With `offline` nothing but the policy is looked at. `tracked` yields the rules that the machine is asked about, and
    may show how far that is.
    """
    found = lint(policy, now)
    unseen: list[str] = []
    machine_asked = not offline
    if machine_asked:
        from broker.lint_machine import ask_machine  # offline nobody pays for it

        try:
            asked = ask_machine(tracked(living(policy, found)))
        except OSError as error:
            machine_asked = False
            unseen = [f"this machine: {error}"]
        else:
            found += asked.findings
            unseen = asked.unseen
    return Linted(judged(policy, found, machine_asked), unseen, machine_asked)
