"""An OpenMany under way: its requests are decided in order, each for itself, and answered together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.opener import TOO_MANY_SLOW, Opener, Outcome, Plan
from broker.service import Answer, Client, Decided, Service
from broker.walk import MayBlock

if TYPE_CHECKING:
    from broker.connection import Connection


class Batch:
    """One OpenMany. It may stop at an open that needs a process of its own, and goes on when that ends."""

    def __init__(self, service: Service, opener: Opener, client: Client, plans: list[Plan], started: int) -> None:
        self._service = service
        self._opener = opener
        self._client = client
        self._plans = plans
        self._started = started
        self._decided: list[Decided] = []
        self._fds = 0

    def run(self, connection: Connection) -> Answer | None:
        """Decide what is left and return the answer, or None when it comes later, by connection.answer_late()."""
        for plan in self._plans[len(self._decided):]:
            decided = self._service.decide_known(self._client, plan, self._fds, self._started)
            if decided is None:
                try:
                    outcome = self._opener.open(plan)
                except MayBlock:
                    if connection.open_elsewhere(plan, lambda late: self._late(connection, late)):
                        return None
                    outcome = TOO_MANY_SLOW
                decided = self._service.decide(self._client, plan, outcome, self._fds, self._started)
            self._add(decided)
        return self._service.answer_open_many(self._client, self._decided)

    def _late(self, connection: Connection, outcome: Outcome) -> None:
        plan = self._plans[len(self._decided)]
        self._add(self._service.decide(self._client, plan, outcome, self._fds, self._started))
        answer = self.run(connection)
        if answer is not None:
            connection.answer_late(answer)

    def _add(self, decided: Decided) -> None:
        self._decided.append(decided)
        self._fds += decided.fd >= 0
