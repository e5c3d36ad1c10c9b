"""The client: asks the broker for files and devices, and gets open file descriptors.

It speaks Varlink over a Unix stream socket with the standard library alone, and it is the unprivileged
side: nothing that it checks is a security boundary. A Client may be used by several threads (one call at
a time) and, where the connection was inherited, by several processes that use this library.
"""

from __future__ import annotations

import _thread  # threading and typing would cost every program that imports this 6 ms
import errno
import fcntl
import json
import os
import select
import socket
import stat

from sandboxed.descriptors import OwnedFd, close_all, receive_with_fds
from sandboxed.errors import (
    Busy,
    ConnectionLost,
    Denied,
    NoBroker,
    ProtocolError,
    RequestError,
    TimedOut,
    open_failed,
)
from sandboxed.limits import BATCH_REQUESTS, MESSAGE_BYTES, REPLY_BYTES
from sandboxed.wire import NUL, MessageDecoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import IO, Any

    Request = tuple[str, Sequence[str]]

DEFAULT_SOCKET = "/run/fdbroker/fdbroker.sock"

_INTERFACE = "org.fdbroker.Broker."
_OPENED = b'{"parameters":{"fileDescriptor":0,'
_CACHED_REQUESTS = 256

# Of all inherited connections of this process: its record locks do not keep its own threads apart.
_shared_lock = _thread.allocate_lock()

# The rights that a mode of open() needs. Creating is a right of its own, which only "x" asks for; "w" truncates
# what can be truncated, and whether this can, only the open tells.
_MODE_ACCESS = {
    "r": ("read",),
    "r+": ("read", "write"),
    "w": ("write",),
    "w+": ("read", "write"),
    "a": ("append",),
    "a+": ("read", "append"),
    "x": ("write", "create"),
    "x+": ("read", "write", "create"),
}


def connect(path: str | os.PathLike[str] | None = None, *, timeout: float | None = None) -> Client:
    """Connect to the broker at `path`, else to the one that the environment names, else to the system's.

    FDBROKER_SOCKET is the path of a socket, FDBROKER_FD the number of an inherited connection. `timeout`
    is in seconds for each call. Raises NoBroker when nobody answers there.
    """
    if path is None and "FDBROKER_FD" in os.environ and "FDBROKER_SOCKET" not in os.environ:
        return Client(_inherited(os.environ["FDBROKER_FD"]), timeout=timeout, shared=True)
    address = os.fspath(path) if path is not None else os.environ.get("FDBROKER_SOCKET", DEFAULT_SOCKET)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
    except (OSError, ValueError) as error:
        connection.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NoBroker(f"no broker answers at {address}: {reason}") from error
    return Client(connection, timeout=timeout)


def _inherited(text: str) -> socket.socket:
    number = -1
    try:
        number = os.dup(int(text))
        connection = socket.socket(fileno=number)
    except (OSError, ValueError, OverflowError) as error:
        if number >= 0:
            os.close(number)
        raise NoBroker(f"FDBROKER_FD={text!r} is no inherited connection: {error}") from error
    connection.setblocking(True)
    return connection


class Client:
    """One connection to a broker. Close it, or use it as a context manager."""

    def __init__(
        self, connection: socket.socket, *, timeout: float | None = None, shared: bool = False
    ) -> None:
        """Take over `connection`, a connected stream socket.

        `shared` says that other processes hold the same connection: each call then takes a lock on it.
        """
        self._connection = connection
        self._wait = None if timeout is None else timeout * 1000
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._lock = _shared_lock if shared else _thread.allocate_lock()
        self._shared = shared
        self._encoded: dict[tuple[str, tuple[str, ...]], bytes] = {}

    def open(
        self,
        path: str | os.PathLike[str],
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Like the built-in open(): a file object, opened by the broker.

        Raises Denied, or the OSError of an open that was allowed and failed.
        """
        kind = mode.replace("b", "").replace("t", "")
        access = _MODE_ACCESS.get(kind)
        if access is None:
            raise ValueError(f"invalid mode: {mode!r}")
        # A program that opens by mode cannot say that it will use ioctl or truncate: it would like to.
        optional = ("ioctl", "truncate") if "write" in access else ("ioctl",)
        fd = self.open_fd(path, access, optional=optional, flags=("excl",) if "x" in kind else ())
        try:
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
            if "w" in kind and regular:
                if "truncate" not in fd.rights:
                    self.release(fd)
                    raise Denied(os.fspath(path))
                os.ftruncate(fd, 0)
            if buffering < 0 and "+" in kind and "b" in mode and not regular:
                buffering = 0  # the built-in refuses to buffer both ways where it can't seek
            # By an opener, so that the fd has one owner at any time: what fails after it, closes what it gave.
            return open(path, mode, buffering, encoding, errors, newline, True, lambda *_: fd.detach())
        except BaseException:
            fd.close()
            raise

    def open_fd(
        self,
        path: str | os.PathLike[str],
        access: Sequence[str],
        *,
        optional: Sequence[str] = (),
        flags: Sequence[str] = (),
        mode: int | None = None,
    ) -> OwnedFd:
        """Open `path` with the rights in `access` (the policy's words) and return the fd.

        `optional` are rights that would be welcome, `flags` lower-case names of open flags that change no
        right (nonblock, sync, …). Raises Denied, Busy, RequestError, or the OSError of the failed open.
        """
        name = os.fspath(path)
        if optional or flags or mode is not None:
            message = _encode("Open", _request(name, access, optional, flags, mode))
        else:
            message = self._cached_request(name, _words(access))
        reply, fds = self._exchange(message)
        if len(fds) == 1 and reply.startswith(_OPENED):
            return OwnedFd(fds[0], reply)
        # Anything else is an error, or a reply in another shape than our broker's.
        parameters = self._result(reply, fds, name)
        return OwnedFd(_take(fds, parameters), reply)

    def open_many(self, requests: Iterable[Request]) -> list[OwnedFd | OSError | Busy]:
        """Open several (path, access) at once: for each, its fd, or the exception that open_fd would raise.

        Any number may be given; they travel in batches. Raises what concerns the call as a whole.
        """
        wanted = [(os.fspath(path), _words(access)) for path, access in requests]
        results: list[OwnedFd | OSError | Busy] = []
        try:
            for batch in _batches(wanted):
                results += self._open_batch(batch)
        except BaseException:
            for result in results:
                if isinstance(result, OwnedFd):
                    result.close()
            raise
        return results

    def _open_batch(self, batch: list[tuple[str, tuple[str, ...]]]) -> list[OwnedFd | OSError | Busy]:
        calls = [_request(path, access) for path, access in batch]
        reply, fds = self._exchange(_encode("OpenMany", {"requests": calls}))
        results = self._result(reply, fds, "").get("results")
        if not isinstance(results, list) or [type(item) for item in results] != [dict] * len(batch):
            close_all(fds)
            raise ProtocolError("the broker answered another number of requests than it was asked")
        announced = [item["fileDescriptor"] for item in results if item.get("fileDescriptor") is not None]
        _check_announced(fds, announced)
        try:
            return [
                _failure(item, batch[place][0])
                if item.get("fileDescriptor") is None
                else OwnedFd(fds[item["fileDescriptor"]], reply, place)
                for place, item in enumerate(results)
            ]
        except BaseException:
            close_all(fds)
            raise

    def check(self, path: str | os.PathLike[str], access: Sequence[str]) -> bool:
        """What the policy says of `path`, without touching it. An open may still be denied, or fail."""
        allowed = self._call("Check", _request(os.fspath(path), access)).get("allowed")
        if not isinstance(allowed, bool):
            raise ProtocolError("the broker answered neither yes nor no")
        return allowed

    def describe(self) -> dict[str, Any]:
        """`peer`: who the broker takes us for; `resources`: what the policy gives us."""
        return self._call("Describe", {})

    def release(self, grant: OwnedFd | str) -> None:
        """Give a grant back; of an OwnedFd also close the fd."""
        if isinstance(grant, OwnedFd):
            grant.close()
            grant = grant.grant
        self._call("Release", {"grant": grant})

    def close(self) -> None:
        """Close the connection: the broker ends this client's grants. Fds that were received stay open."""
        if not self._shared:
            return self._connection.close()
        # Closing any fd of a file drops the process's record locks on it: not while a thread relies on one.
        with self._lock:
            return self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cached_request(self, path: str, access: tuple[str, ...]) -> bytes:
        message = self._encoded.get((path, access))
        if message is None:
            message = _encode("Open", _request(path, access))
            if len(self._encoded) >= _CACHED_REQUESTS:
                self._encoded.clear()
            self._encoded[path, access] = message
        return message

    def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        reply, fds = self._exchange(_encode(method, parameters))
        result = self._result(reply, fds, str(parameters.get("path", "")))
        close_all(fds)
        return result

    def _result(self, reply: bytes, fds: list[int], path: str) -> dict[str, Any]:
        """The parameters of a good reply; raises what an error reply says, and then owns no fd."""
        try:
            message = json.loads(reply)
            parameters = message.get("parameters") or {}
            error = message.get("error")
            if not isinstance(parameters, dict):
                raise TypeError("parameters")
        except (ValueError, TypeError, AttributeError, RecursionError) as problem:
            close_all(fds)
            raise ProtocolError("the answer is no Varlink reply") from problem
        if error is not None:
            close_all(fds)
            raise _error(str(error), parameters, path)
        return parameters

    def _exchange(self, message: bytes) -> tuple[bytes, list[int]]:
        """Send one call and receive its reply and fds, which belong to the caller."""
        with self._lock:
            if self._connection.fileno() < 0:
                raise ConnectionLost("the connection is closed")
            if not self._shared:
                return self._exchange_alone(message)
            # POSIX record locks belong to a process, so they keep apart processes that share one socket.
            fcntl.lockf(self._connection, fcntl.LOCK_EX)
            try:
                if self._poll.poll(0):
                    # Its caller died before it could take it. What comes next would be taken for another's.
                    self._spend()
                    raise ConnectionLost("the connection holds a reply that nobody took, or has ended")
                return self._exchange_alone(message)
            finally:
                if self._connection.fileno() >= 0:  # closed: the lock went with it
                    fcntl.lockf(self._connection, fcntl.LOCK_UN)

    def _exchange_alone(self, message: bytes) -> tuple[bytes, list[int]]:
        try:
            self._connection.sendall(message, socket.MSG_NOSIGNAL)
            return self._receive()
        except BaseException as error:
            # A reply that nobody waits for would be taken for the next one's: the connection is spent.
            self._spend()
            if isinstance(error, (BrokenPipeError, ConnectionResetError)):
                raise ConnectionLost("the broker closed the connection") from error
            if isinstance(error, OSError) and error.errno == errno.EPROTO:
                raise ProtocolError(f"the broker's reply is unusable: {error.strerror}") from error
            raise

    def _spend(self) -> None:
        """End the connection, for everybody who holds it."""
        if self._shared:
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _receive(self) -> tuple[bytes, list[int]]:
        decoder: MessageDecoder | None = None
        fds: list[int] = []
        try:
            while True:
                # A sleeper in recvmsg is also woken when the broker reads the request: poll sleeps through it.
                if not self._poll.poll(self._wait):
                    raise TimedOut("the broker did not answer in time")
                data, came = receive_with_fds(self._connection, MESSAGE_BYTES, BATCH_REQUESTS)
                fds += came
                if not data:
                    raise ConnectionLost("the broker closed the connection")
                if decoder is None:
                    if data.find(NUL) == len(data) - 1:
                        return data[:-1], fds
                    decoder = MessageDecoder(REPLY_BYTES)
                decoder.feed(data)
                reply = decoder.next_message()
                if reply is not None:
                    if decoder.waiting:
                        raise ProtocolError("the broker sent more than one reply")
                    return reply, fds
        except BaseException:
            close_all(fds)
            raise


def _words(access: Sequence[str]) -> tuple[str, ...]:
    if isinstance(access, str):
        raise RequestError(f"access is a list of rights, as in [{access!r}]")
    return tuple(access)


def _request(
    path: str,
    access: Sequence[str],
    optional: Sequence[str] = (),
    flags: Sequence[str] = (),
    mode: int | None = None,
) -> dict[str, Any]:
    if not path.startswith("/"):
        raise RequestError(f"the path must be absolute: {path!r}")
    request: dict[str, Any] = {"path": path, "access": _words(access)}
    if optional:
        request["optional"] = list(optional)
    if flags:
        request["flags"] = list(flags)
    if mode is not None:
        request["mode"] = mode
    return request


def _encode(method: str, parameters: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(
            {"method": _INTERFACE + method, "parameters": parameters},
            ensure_ascii=False,
            separators=(",", ":"),
        )
        message = text.encode()
    except UnicodeEncodeError as error:
        raise RequestError("the path is not valid Unicode, and the wire has no other names") from error
    if len(message) > MESSAGE_BYTES:
        raise RequestError(f"the request is longer than {MESSAGE_BYTES} bytes")
    return message + NUL


def _batches(wanted: list[tuple[str, tuple[str, ...]]]) -> Iterable[list[tuple[str, tuple[str, ...]]]]:
    """Cut `wanted` so that each part keeps to the wire's limits of requests and of bytes."""
    batch: list[tuple[str, tuple[str, ...]]] = []
    size = 0
    for path, access in wanted:
        # A character takes at most six bytes on the wire; the words around it far fewer than 128.
        length = 6 * len(path) + 16 * len(access) + 128
        if batch and (len(batch) == BATCH_REQUESTS or size + length > MESSAGE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((path, access))
        size += length
    if batch:
        yield batch


def _check_announced(fds: list[int], announced: list[int]) -> None:
    """Every received fd must be announced once and the other way round; else all are closed.

    A full fd table makes the kernel drop fds without a word (MSG_CTRUNC is not set): counting is the only sign.
    """
    if any(type(place) is not int for place in announced) or sorted(announced) != list(range(len(fds))):
        close_all(fds)
        if len(fds) < len(announced):
            raise OSError(errno.EMFILE, "the broker sent more file descriptors than this process can hold")
        raise ProtocolError("the broker announced other file descriptors than it sent")


def _take(fds: list[int], parameters: dict[str, Any]) -> int:
    announced = parameters.get("fileDescriptor")
    if not isinstance(announced, int):
        close_all(fds)
        raise ProtocolError("the reply names no file descriptor")
    _check_announced(fds, [announced])
    return fds[announced]


def _failure(item: dict[str, Any], path: str) -> OSError | Busy:
    error = _error(str(item.get("error")), item, path)
    if isinstance(error, (OSError, Busy)):
        return error
    raise error


_ERRORS: dict[str, Callable[[dict[str, Any], str], Exception]] = {
    "Denied": lambda parameters, path: Denied(path),
    "OpenFailed": lambda parameters, path: open_failed(int(parameters["errno"]), path),
    "Busy": lambda parameters, path: Busy(str(parameters.get("limit", ""))),
}


def _error(name: str, parameters: dict[str, Any], path: str) -> Exception:
    """The exception for an error reply; an unknown name becomes no class of the sender's choice."""
    if name.startswith("org.varlink.service."):
        return RequestError(f"the broker refused the call: {name.rpartition('.')[2]} {parameters}")
    make = _ERRORS.get(name.removeprefix(_INTERFACE))
    try:
        return make(parameters, path) if make else ProtocolError(f"the broker answered {name}")
    except (KeyError, TypeError, ValueError, OverflowError) as problem:
        return ProtocolError(f"the broker answered a malformed {name}: {problem}")
