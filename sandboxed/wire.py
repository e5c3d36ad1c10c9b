"""The Varlink framing: bytes in, messages out. It does no I/O and knows no JSON library.

A message is a JSON object followed by one NUL byte (UAPI.20, "Varlink"). A NUL cannot occur inside a
message: JSON escapes it. What this module enforces: no message is longer than the given limit, and no more
than that limit is ever kept. What a message means is left to the two ends.
"""

from sandboxed.errors import MessageTooLong
from sandboxed.limits import MESSAGE_BYTES

NUL = b"\0"


class MessageDecoder:
    """Cuts a byte stream into messages.

    `limit` is the largest message in bytes, without its NUL; this is a security limit.
    """

    __slots__ = ("_limit", "_searched", "waiting")

    def __init__(self, limit: int = MESSAGE_BYTES) -> None:
        self._limit = limit
        # A part of a message, or messages that nobody took yet.
        self.waiting = bytearray()
        # Bytes that are known to hold no NUL, so that a message sent byte by byte costs linear time.
        self._searched = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Add what was received. The caller takes all messages before it feeds again."""
        self.waiting += data

    def next_message(self) -> bytes | None:
        """The next whole message without its NUL, or None until more has come.

        Raises MessageTooLong when the message at the front exceeds the limit, whole or not.
        """
        end = self.waiting.find(NUL, self._searched)
        if end < 0:
            self._searched = len(self.waiting)
            self._check(self._searched)
            return None
        self._check(end)
        message = bytes(self.waiting[:end])
        del self.waiting[: end + 1]
        self._searched = 0
        return message

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise MessageTooLong(f"a message of more than {self._limit} bytes")
