"""An OpenMany under way: its requests are decided in order, each for itself, and answered together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.answers import Answer
from broker.opener import Opener
from broker.outcome import TOO_MANY_SLOW, Outcome
from broker.plans import Plan
from broker.service import Client, Decision, Service
from broker.walk import MayBlock

if TYPE_CHECKING:
    from broker.connection import Connection


class Batch:
    """One OpenMany. It may stop at an open that needs a process of its own, and goes on when that ends."""

    def __init__(
        self, service: Service, opener: Opener, client: Client, plans: list[Plan], started: int
    ) -> None:
        self._service = service
        self._opener = opener
        self._client = client
        self._plans = plans
        self._started = started
        self._decisions: list[Decision] = []

    def run(self, connection: Connection) -> Answer | None:
        """Decide what is left and return the answer, or None when it comes later, by connection.answer_late()."""
        opener, decisions = self._opener, self._decisions
        for plan in self._plans[len(decisions) :]:
            fd = opener.open_known(plan)
            if fd >= 0:
                decisions.append((plan, fd, None))
                continue
            try:
                outcome = opener.open(plan)
            except MayBlock:
                if connection.open_elsewhere(plan, lambda late: self._late(connection, late)):
                    return None
                outcome = TOO_MANY_SLOW
            decisions.append((plan, outcome.fd, outcome))
        return self._service.answer_open_many(self._client, decisions, self._started)

    def _late(self, connection: Connection, outcome: Outcome) -> None:
        self._decisions.append((self._plans[len(self._decisions)], outcome.fd, outcome))
        if connection.is_closed:
            # Nobody waits for the rest of it.
            self._plans = self._plans[: len(self._decisions)]
        answer = self.run(connection)
        if answer is not None:
            connection.answer_late(answer)
