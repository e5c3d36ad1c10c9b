"""What the supervisor tells the worker: who a client is, and whether the audit can be written.

The supervisor says it with the standard library alone; the worker, which has to read faster than that for its
clients anyway, checks each value's type.
"""

import json
from typing import Any, NamedTuple

from policy import Peer

# One introduction of a client: its groups take most of it.
INTRODUCTION_BYTES = 128 * 1024

# What else the supervisor says: whether it can write the audit.
AUDIT_FAILS = b"audit fails"
AUDIT_WORKS = b"audit works"

# What the worker says there, once: from now on it serves. How it is confined follows, as JSON of at most so many bytes.
READY = b"ready"
CONFINEMENT_BYTES = 64 * 1024


class Introduction(NamedTuple):
    """What the supervisor tells the worker of a client."""

    peer: Peer
    uid: int  # as the kernel reports it, to be compared with each sender's
    shown: dict[str, Any]  # for the audit

    def encoded(self) -> bytes:
        """As JSON: arrays of the values in their order, sets as arrays too."""
        return json.dumps(self, default=list, separators=(",", ":")).encode("ascii")
