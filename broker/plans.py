"""Requests that were understood once, and are recognized by their bytes when they come again."""

from broker.limits import PATH_BYTES, PEERS, PLAN_BYTES, PLANNED_BYTES, PLANS_BYTES, SHOWN_PATH
from broker.messages import FLAGS, Asked
from broker.records import fields
from policy import Peer, Request, rights_words


class Plan:
    """One request of one identity: what is the same each time that it is made."""

    __slots__ = (
        "__weakref__",
        "asked",
        "asked_fields",
        "known",
        "known_fields",
        "path",
        "peer",
        "reply_tail",
        "request",
        "shown",
    )

    def __init__(self, asked: Asked, peer: Peer) -> None:
        self.asked = asked
        self.peer = peer
        self.request = Request(asked.path, asked.needed, asked.optional)
        # For a grant's record: many grants are kept for long, so the path is cut.
        self.shown = asked.path[:SHOWN_PATH]
        self.path = b""
        self.known: bytes | None = None  # the object that was decided on, see hotpath.expected()
        # The part of the audit record and of the reply that a known object makes the same each time.
        self.known_fields = b""
        self.reply_tail = b""
        self.asked_fields = fields(_described(asked))


# What was asked before, by the bytes that asked it: an Open's plan, or an OpenMany's.
Plans = dict[bytes, Plan | list[Plan]]


class PlanCache:
    """The plans of every identity, within PLANS_BYTES for all of them."""

    def __init__(self) -> None:
        self._plans: dict[Peer, Plans] = {}
        self._bytes = 0

    def of(self, peer: Peer) -> Plans:
        """The plans of one identity, which all its connections share."""
        if len(self._plans) >= PEERS and peer not in self._plans:
            self._forget()
        return self._plans.setdefault(peer, {})

    def remember(self, peer: Peer, message: bytes, plans: Plan | list[Plan]) -> Plans:
        """Keep the plans for an Open or OpenMany that came as `message`, NUL and all; all plans of the peer.

        Those that a client holds may have been forgotten, and with them the place where they would be found.
        """
        if len(message) <= PLANNED_BYTES:
            self._bytes += len(message) + PLAN_BYTES * (len(plans) if isinstance(plans, list) else 1)
            if self._bytes > PLANS_BYTES:
                self._forget()
            self.of(peer)[message] = plans
        return self.of(peer)

    def _forget(self) -> None:
        """Forget all of them, those too that clients still hold."""
        for known in self._plans.values():
            known.clear()
        self._plans.clear()
        self._bytes = 0


def _described(asked: Asked) -> dict[str, object]:
    # A path may be as long as a message; what is longer than any path need not be kept whole.
    described: dict[str, object] = {"path": asked.path[:PATH_BYTES], "access": rights_words(asked.needed)}
    if asked.optional:
        described["optional"] = rights_words(asked.optional)
    if asked.flags:
        described["flags"] = sorted(word for word, bit in FLAGS.items() if asked.flags & bit == bit)
    return described
