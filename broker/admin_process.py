"""The admin process: it answers org.fdbroker.Admin on a socket of its own.

It is a child of the supervisor's, which parses nothing that others sent; this process does, and holds no fd of a client
and no right to change anything but by the supervisor's few words. A thread serves each administrator: they are few.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from broker.limits import (
    ADMIN_CONNECTIONS,
    ADMIN_RECORDS_WAITING,
    ADMIN_SECONDS,
)
from broker.metrics import Metrics
from broker.version import VERSION
from sandboxed.descriptors import receive_with_fds
from sandboxed.syscalls import PR_SET_PDEATHSIG, close_all_but, prctl
from sandboxed.wire import NUL, MessageDecoder

PREFIX = "org.fdbroker.Admin"
_SERVICE = "org.varlink.service"
_INTERFACES = (PREFIX, _SERVICE)
_READ_BYTES = 65536


class _Refused(Exception):
    """A call that ends in an error: its name and its parameters."""

    def __init__(self, name: str, **parameters: Any) -> None:
        super().__init__(name)
        self.name = name
        self.parameters = parameters


def run_admin(
    listener: socket.socket, channel: socket.socket, records: int, drift: Callable[[str], str]
) -> NoReturn:
    """The whole life of the process, after fork(); it never returns."""
    status = 1
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        close_all_but((0, 1, 2, listener.fileno(), channel.fileno(), records))
        _Admin(listener, channel, records, drift).run()
        status = 0
    except BaseException:  # the last chance to say why
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


class _Admin:
    def __init__(
        self, listener: socket.socket, channel: socket.socket, records: int, drift: Callable[[str], str]
    ) -> None:
        self._listener = listener
        self._channel = channel
        self._records = records
        self._drift = drift
        self._metrics = Metrics()
        self._lock = threading.Lock()
        self._last = 0
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._spectators: dict[int, _Spectator] = {}
        self._room = threading.BoundedSemaphore(ADMIN_CONNECTIONS)

    def run(self) -> None:
        for work in (self._accept, self._count):
            threading.Thread(target=work, daemon=True).start()
        while True:
            data, fds = receive_with_fds(self._channel, 64, 1)
            if not data:
                return  # the supervisor has ended
            with os.fdopen(fds[0], "rb") as file:
                file.seek(0)
                answer = json.loads(file.read())
            waiting = self._answers.get(json.loads(data))
            if waiting is not None:
                waiting.put(answer)

    def _accept(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                if self._room.acquire(blocking=False):
                    threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
                else:
                    connection.close()

    def _count(self) -> None:
        """Count the records, and show them to those who watch."""
        partial = b""
        while data := os.read(self._records, _READ_BYTES):
            *lines, partial = (partial + data).split(b"\n")
            self._metrics.note(lines)
            with self._lock:
                watching = list(self._spectators.values())
            for spectator in watching:
                for line in lines:
                    spectator.offer(line)

    # --- one administrator -------------------------------------------------------------------------------

    def _serve(self, connection: socket.socket) -> None:
        decoder = MessageDecoder()
        try:
            with connection:
                while data := connection.recv(_READ_BYTES):
                    decoder.feed(data)
                    while (message := decoder.next_message()) is not None:
                        self._serve_call(connection, message)
        except (OSError, ValueError, RecursionError):
            pass  # gone, or no Varlink: either way the connection is closed
        finally:
            self._room.release()

    def _serve_call(self, connection: socket.socket, message: bytes) -> None:
        call = json.loads(message)
        if not isinstance(call, dict) or not isinstance(call.get("method"), str):
            raise ValueError("no Varlink call")
        method, parameters = call["method"], call.get("parameters") or {}
        try:
            if method == f"{PREFIX}.Monitor":
                if not call.get("more"):
                    raise _Refused(f"{_SERVICE}.ExpectedMore")
                return self._monitor(connection)
            reply: dict[str, Any] = {"parameters": self._result(method, parameters)}
        except _Refused as refused:
            reply = {"error": refused.name, "parameters": refused.parameters}
        if not call.get("oneway"):
            connection.sendall(json.dumps(reply).encode() + NUL)
        return None

    def _result(self, method: str, parameters: Any) -> dict[str, Any]:
        entry = _METHODS.get(method)
        if entry is None:
            interface = method.rpartition(".")[0]
            if interface in _INTERFACES:
                raise _Refused(f"{_SERVICE}.MethodNotFound", method=method)
            raise _Refused(f"{_SERVICE}.InterfaceNotFound", interface=interface)
        function, names = entry
        if not isinstance(parameters, dict) or set(parameters) != set(names):
            wrong = sorted(set(parameters) ^ set(names)) if isinstance(parameters, dict) else ["parameters"]
            raise _Refused(f"{_SERVICE}.InvalidParameter", parameter=wrong[0])
        for name in names:
            if not isinstance(parameters[name], str):
                raise _Refused(f"{_SERVICE}.InvalidParameter", parameter=name)
        return function(self, **parameters)

    def _ask(self, what: str, **more: Any) -> dict[str, Any]:
        """What the supervisor answers."""
        answer: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._lock:
            self._last += 1
            number = self._last
            self._answers[number] = answer
        try:
            self._channel.send(json.dumps({"id": number, "do": what, **more}).encode())
            return answer.get(timeout=ADMIN_SECONDS)
        except queue.Empty:
            raise _Refused(
                f"{_SERVICE}.MethodNotImplemented", method="the broker does not answer in time"
            ) from None
        finally:
            with self._lock:
                del self._answers[number]

    def status(self) -> dict[str, Any]:
        status = self._ask("status")
        status["drift"] = self._drift(status["policy"])
        status["records_not_counted"] = status.pop("records_missed")
        return {"status": status}

    def metrics(self) -> dict[str, Any]:
        status = self._ask("status")
        text = self._metrics.text(
            {
                "connections": ("Connections that are open.", status["connections"]),
                "grants": ("Grants that are in force.", status["grants"]),
                "rules": ("Rules of the policy that is served.", status["rules"]),
                "audit_failing": ("1 while the audit cannot be written.", status["audit_failing"]),
                "start_time_seconds": ("When the broker started, in seconds since 1970.", status["started"]),
            },
            {
                "reloads": ("Times that another policy was taken into use.", status["reloads"]),
                "worker_restarts": ("Workers that were started because one died.", status["restarts"]),
                "records_not_counted": ("Records that these counts lack.", status["records_missed"]),
            },
        )
        return {"text": text}

    def list_grants(self) -> dict[str, Any]:
        return self._ask("grants")

    def revoke(self, grant: str) -> dict[str, Any]:
        answer = self._ask("revoke", grant=grant[:64])
        if not answer:
            raise _Refused(f"{PREFIX}.NoSuchGrant", grant=grant[:64])
        return answer

    def reload(self) -> dict[str, Any]:
        answer = self._ask("reload")
        if not answer["good"]:
            raise _Refused(f"{PREFIX}.ReloadFailed", reason=answer["error"])
        return {"policy": answer["policy"], "rules": answer["rules"]}

    def get_info(self) -> dict[str, Any]:
        about = {"vendor": "fdbroker", "product": "fdbroker", "version": VERSION, "url": ""}
        return {**about, "interfaces": list(_INTERFACES)}

    def get_description(self, interface: str) -> dict[str, Any]:
        if interface not in _DESCRIPTIONS:
            raise _Refused(f"{_SERVICE}.InterfaceNotFound", interface=interface)
        return {"description": _DESCRIPTIONS[interface]}

    def _monitor(self, connection: socket.socket) -> None:
        spectator = _Spectator()
        with self._lock:
            self._spectators[id(spectator)] = spectator
        try:
            # So that whoever asked knows from where on it sees everything.
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode()
            spectator.waiting.put(b'{"event":"monitor","time":"%b"}' % now)
            while True:
                record = spectator.waiting.get()
                with contextlib.suppress(ValueError):
                    parameters = {"record": json.loads(record), "missed": spectator.take_missed()}
                    message = json.dumps({"parameters": parameters, "continues": True})
                    connection.sendall(message.encode() + NUL)
        finally:
            with self._lock:
                del self._spectators[id(spectator)]


class _Spectator:
    """What one who watches has still to see."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[bytes] = queue.Queue(ADMIN_RECORDS_WAITING)
        self._missed = 0

    def offer(self, record: bytes) -> None:
        try:
            self.waiting.put_nowait(record)
        except queue.Full:
            self._missed += 1

    def take_missed(self) -> int:
        missed, self._missed = self._missed, 0
        return missed


def _description(directory: str, interface: str) -> str:
    with open(os.path.join(directory, f"{interface}.varlink")) as file:
        return file.read()


def _descriptions() -> dict[str, str]:
    import sandboxed  # where the interface that every Varlink service has is described

    places = {PREFIX: os.path.dirname(__file__), _SERVICE: os.path.dirname(sandboxed.__file__)}
    return {name: _description(directory, name) for name, directory in places.items()}


_DESCRIPTIONS = _descriptions()

_METHODS: dict[str, tuple[Callable[..., dict[str, Any]], tuple[str, ...]]] = {
    f"{PREFIX}.Status": (_Admin.status, ()),
    f"{PREFIX}.Metrics": (_Admin.metrics, ()),
    f"{PREFIX}.ListGrants": (_Admin.list_grants, ()),
    f"{PREFIX}.Revoke": (_Admin.revoke, ("grant",)),
    f"{PREFIX}.Reload": (_Admin.reload, ()),
    f"{_SERVICE}.GetInfo": (_Admin.get_info, ()),
    f"{_SERVICE}.GetInterfaceDescription": (_Admin.get_description, ("interface",)),
}
