"""What can go wrong for a client, and whose fault it is.

- `Denied`: the policy's word. It says nothing about whether the file exists.
- a plain OSError (FileNotFoundError, …): the policy allowed the open, and the open itself failed.
- `RequestError`: ours, the request makes no sense; `NoBroker`: there is nobody to ask.
- `Busy`: a limit of the broker; trying again later may work.
- `TimedOut`: the call did not end within the time that the client gave.
- `ProtocolError`, `ConnectionLost`: the broker's, or something else answers at its socket.
"""

import errno
import os


class BrokerError(Exception):
    """The root of everything that this library raises, except the OSError of an allowed open that failed."""


class Denied(BrokerError, PermissionError):
    """The policy does not give this client what it asked for."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EACCES, "denied by the broker's policy", path)


class Busy(BrokerError):
    """A limit of the broker is reached; `limit` names it."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"the broker is at its limit: {limit}")
        self.limit = limit


class RequestError(BrokerError, ValueError):
    """The request itself is wrong: an unknown right, a relative path, a grant that is not ours."""


class NoBroker(BrokerError, ConnectionError):
    """No broker answers at the given socket."""


class ConnectionLost(BrokerError, ConnectionError):
    """The broker closed the connection: it ended, or it found the request malformed."""


class TimedOut(BrokerError, TimeoutError):
    """The call did not end in the time that was given.

    The connection is closed, unless all of the time went by while others had their turn on it.
    """


class ProtocolError(BrokerError):
    """What came back is no reply of a broker."""


class MessageTooLong(ProtocolError):
    """A message exceeds the limit of the one who receives it."""


def open_failed(number: int, path: str) -> OSError:
    """The OSError for an allowed open that failed with errno `number`, of the class that fits it."""
    return OSError(number, os.strerror(number), path)
