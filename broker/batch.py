"""An OpenMany under way: its requests are decided in order, each for itself, and answered together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.opener import TOO_MANY_SLOW, Opener, Outcome, Plan
from broker.service import Answer, Client, Service, Tally
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
        self._tally = Tally()

    def run(self, connection: Connection) -> Answer | None:
        """Decide what is left and return the answer, or None when it comes later, by connection.answer_late()."""
        service, client, tally, started = self._service, self._client, self._tally, self._started
        open_known = self._opener.open_known
        for plan in self._plans[len(tally.results) :]:
            fd = open_known(plan)
            if fd >= 0:
                service.tally_known(client, tally, plan, fd, started)
                continue
            try:
                outcome = self._opener.open(plan)
            except MayBlock:
                if connection.open_elsewhere(plan, lambda late: self._late(connection, late)):
                    return None
                outcome = TOO_MANY_SLOW
            service.tally(client, tally, plan, outcome, started)
        return service.answer_open_many(client, tally)

    def _late(self, connection: Connection, outcome: Outcome) -> None:
        plan = self._plans[len(self._tally.results)]
        self._service.tally(self._client, self._tally, plan, outcome, self._started)
        answer = self.run(connection)
        if answer is not None:
            connection.answer_late(answer)
