"""The supervisor's end of the admin process: it answers few words, and hands audit records on.

The admin process parses what administrators send; here come requests of one word and a grant. Every answer is a file in
memory that is passed, so that a long one keeps nobody waiting; records that the process is too slow for are counted and
left out: an audit never waits for a spectator.
"""

import json
import os
import socket
from collections.abc import Callable
from typing import Any

from broker.limits import ADMIN_PIPE_BYTES
from sandboxed.descriptors import send_with_fds

_REQUEST_BYTES = 4096

Answer = Callable[[dict[str, Any]], None]
"""Takes the one answer to a request."""

Handler = Callable[[dict[str, Any], Answer], None]
"""Does what a request says, and answers it now or later."""


class AdminLink:
    """The channel, and the pipe of records."""

    def __init__(self, channel: socket.socket, records: int, handlers: dict[str, Handler]) -> None:
        """Take over `channel` and `records`, the writing end. `handlers` are those of the words."""
        self._channel = channel
        self._channel.setblocking(False)
        self._records = records
        os.set_blocking(records, False)
        self._handlers = handlers
        self._rest = b""  # of records that went in part
        self.missed = 0  # records that were left out

    def fileno(self) -> int:
        """What can be read when requests wait."""
        return self._channel.fileno()

    def close(self) -> None:
        """Let go of the admin process: it ends then."""
        self._channel.close()
        os.close(self._records)

    def requests_waiting(self) -> bool:
        """Take up what was asked; False when the admin process has ended."""
        while True:
            try:
                message = self._channel.recv(_REQUEST_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not message:
                return False
            self._take_up(json.loads(message))

    def _take_up(self, request: dict[str, Any]) -> None:
        handler = self._handlers.get(str(request.get("do")))
        if handler is not None:
            handler(request, lambda answer: self._answer(request.get("id"), answer))

    def _answer(self, number: object, answer: dict[str, Any]) -> None:
        fd = os.memfd_create("answer", os.MFD_CLOEXEC)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(json.dumps(answer).encode())
            send_with_fds(self._channel, json.dumps(number).encode(), [fd])
        except OSError:
            pass  # it has ended, or takes nothing: its own deadline tells whoever asked
        finally:
            os.close(fd)

    def show(self, lines: bytes) -> None:
        """Hand whole lines on, or leave them out."""
        data = self._rest + lines
        if self._rest and len(data) > ADMIN_PIPE_BYTES:
            data, self.missed = self._rest, self.missed + lines.count(b"\n")
        try:
            written = os.write(self._records, data)
        except BlockingIOError:
            written = 0
        except OSError:
            return
        if not written and not self._rest:
            self.missed += data.count(b"\n")
            return
        self._rest = data[written:]
