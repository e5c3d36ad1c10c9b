"""What the supervisor tells the worker: who a client is, and whether the audit can be written.

The supervisor says it with the standard library alone; the worker, which has to read faster than that for its
clients anyway, checks each value's type.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from policy import Peer

# One introduction of a client: its groups take most of it.
INTRODUCTION_BYTES = 128 * 1024

# What else the supervisor says: whether it can write the audit.
AUDIT_FAILS = b"audit fails"
AUDIT_WORKS = b"audit works"

# And that another worker serves from now on: bring each connection to where no call is half read or half answered.
FINISH = b"finish"

# What the worker says: from now on it serves; and of the connection of a number, that it left it at such a place, or
# that it cannot serve it.
# Behind the first stands how it is confined, as JSON of at most so many bytes.
READY = b"ready"
CONFINEMENT_BYTES = 64 * 1024
# And that the policy gives an object that its confinement keeps from it: it came, or changed, since.
ANEW = b"anew"
DONE = b"done"
REFUSED = b"refused"
SAID_BYTES = 32


def said_of(what: bytes, number: int) -> bytes:
    """DONE or REFUSED, of the connection of that number."""
    return b"%b %d" % (what, number)


def connection_of(message: bytes) -> tuple[bytes, int]:
    """What a worker says, and of which connection. Raises ValueError for what no worker says."""
    what, _, digits = message.partition(b" ")
    if what not in (DONE, REFUSED) or not digits.isdigit():
        raise ValueError("no worker says that")
    return what, int(digits)


class Introduction(NamedTuple):
    """What the supervisor tells the worker of a client."""

    peer: Peer
    uid: int  # as the kernel reports it, to be compared with each sender's
    shown: dict[str, Any]  # for the audit
    number: int = 0  # of the connection, among all that this supervisor accepted
    answered: bool = False  # another worker served it, so a reply may be unread
    grants: Sequence[tuple[int, str]] = ()  # what it has from that worker: numbers and paths

    def encoded(self) -> bytes:
        """As JSON: arrays of the values in their order, sets as arrays too. Of very many grants the last ones."""
        told, fits = self, INTRODUCTION_BYTES
        while (
            len(message := json.dumps(told, default=list, separators=(",", ":")).encode("ascii")) > fits
            and told.grants
        ):
            told = told._replace(grants=told.grants[len(told.grants) // 2 + 1 :])
        return message
