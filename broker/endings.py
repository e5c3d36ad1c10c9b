"""Opening by a policy some of whose rules end: what was decided before one of them ended is forgotten then.

It is decided by the wall clock, as the administrator wrote it, at each open: no timer can come too late, and a
clock that is set forth or back counts at once. A policy without `until` pays nothing for it.
"""

import time
from collections.abc import Callable

from broker.opener import Opener
from broker.plans import Plan
from policy import Policy


class EndingOpener(Opener):
    """An opener that remembers nothing past the moment at which a rule ends."""

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970. Raises OSError where /proc is not mounted."""
        super().__init__(policy, clock)
        self._since, self._ends = policy.same_around(clock())

    def open_known(self, plan: Plan) -> int:
        """An fd of the object that was decided on before, or -1: then open() must decide."""
        now = self._clock()
        if not self._since <= now < self._ends:
            self.forget_known()
            self._since, self._ends = self._policy.same_around(now)
        return super().open_known(plan)


def opener_for(policy: Policy) -> Opener:
    """The opener that does all that `policy` needs, and no more. Raises OSError where /proc is not mounted."""
    return EndingOpener(policy) if policy.ends else Opener(policy)
