"""The client of the admin socket, for the commands that use it."""

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from sandboxed.wire import NUL, MessageDecoder

ADMIN_SOCKET = "/run/fdbroker/admin.sock"
_PREFIX = "org.fdbroker.Admin"
_READ_BYTES = 65536
_REPLY_BYTES = 64 * 1024 * 1024  # of very many grants

# Seconds for one call; a reload of a large policy takes some.
_SECONDS = 90.0


class NoBroker(Exception):
    """Nobody answers at the admin socket; the message says what to do."""


class Refused(Exception):
    """The broker says no: the error's name without the interface, and its parameters."""

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        super().__init__(name)
        self.name = name
        self.parameters = parameters


class AdminClient:
    """A connection to a broker's admin socket. Close it, or use it as a context manager."""

    def __init__(self, path: str | None = None) -> None:
        """Connect to `path`, or where FDBROKER_ADMIN_SOCKET says, or to the system's. Raises NoBroker."""
        self._path = path or os.environ.get("FDBROKER_ADMIN_SOCKET") or ADMIN_SOCKET
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_SECONDS)
        self._decoder = MessageDecoder(_REPLY_BYTES)
        try:
            self._socket.connect(self._path)
        except OSError as error:
            self._socket.close()
            hint = (
                "only root and the group that --admin-group names may"
                if isinstance(error, PermissionError)
                else ""
            )
            raise NoBroker(
                f"no broker answers at {self._path}: {error.strerror or error}{': ' if hint else ''}{hint}"
            ) from None

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one call. Raises Refused, and NoBroker when the broker ends meanwhile."""
        self._send(method, parameters)
        return self._reply()

    def watch(self) -> Iterator[dict[str, Any]]:
        """Every record from now on, and how many were missed before it. Raises NoBroker at the broker's end."""
        self._send("Monitor", {}, more=True)
        self._socket.settimeout(None)
        while True:
            yield self._reply()

    def _send(self, method: str, parameters: dict[str, Any], **more: Any) -> None:
        call = {"method": f"{_PREFIX}.{method}", "parameters": parameters, **more}
        try:
            self._socket.sendall(json.dumps(call).encode() + NUL)
        except OSError as error:
            raise self._ended(error) from None

    def _reply(self) -> dict[str, Any]:
        while (message := self._decoder.next_message()) is None:
            try:
                data = self._socket.recv(_READ_BYTES)
            except OSError as error:
                raise self._ended(error) from None
            if not data:
                raise self._ended(None)
            self._decoder.feed(data)
        reply = json.loads(message)
        if "error" in reply:
            raise Refused(str(reply["error"]).rpartition(".")[2], reply.get("parameters") or {})
        parameters: dict[str, Any] = reply.get("parameters") or {}
        return parameters

    def _ended(self, error: OSError | None) -> NoBroker:
        return NoBroker(f"the broker at {self._path} went away" + (f": {error}" if error is not None else ""))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> "AdminClient":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
