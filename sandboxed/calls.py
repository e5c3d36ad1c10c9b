"""Calls as messages, and results and errors out of replies. It does no I/O and owns no file descriptor.

The rules that it enforces:
- no request leaves that the wire cannot carry: relative, not Unicode, or longer than its limit;
- every fd that came is announced once, and the other way round;
- an error's name chooses among our exceptions, and never becomes a class of the sender's choice.

Whoever received the fds closes them when a function here raises. What a right means is left to the broker.
"""

from __future__ import annotations

import errno
import json

from sandboxed.errors import Busy, Denied, ProtocolError, RequestError, open_failed
from sandboxed.limits import BATCH_REQUESTS, MESSAGE_BYTES
from sandboxed.wire import NUL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    # A path, and the rights that are asked for
    Wanted = tuple[str, tuple[str, ...]]

_INTERFACE = "org.fdbroker.Broker."

# How our broker's reply to an Open begins: who sees it need not parse the rest.
_OPENED = b'{"parameters":{"fileDescriptor":0,'


# --- requests ----------------------------------------------------------------------------------------------


def words(access: Sequence[str]) -> tuple[str, ...]:
    """The rights in `access`. Raises RequestError for a lone string, whose letters are no rights."""
    if isinstance(access, str):
        raise RequestError(f"access is a list of rights, as in [{access!r}]")
    return tuple(access)


def request(
    path: str,
    access: Sequence[str],
    optional: Sequence[str] = (),
    flags: Sequence[str] = (),
    mode: int | None = None,
) -> dict[str, Any]:
    """The parameters of an Open. Raises RequestError when `path` is relative."""
    if not path.startswith("/"):
        raise RequestError(f"the path must be absolute: {path!r}")
    parameters: dict[str, Any] = {"path": path, "access": words(access)}
    if optional:
        parameters["optional"] = list(optional)
    if flags:
        parameters["flags"] = list(flags)
    if mode is not None:
        parameters["mode"] = mode
    return parameters


def encode(method: str, parameters: dict[str, Any]) -> bytes:
    """The message that calls `method` of our interface. Raises RequestError when the wire cannot carry it."""
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


def encode_batch(batch: Sequence[Wanted]) -> bytes:
    """The message that asks for all of `batch`, one of what batches() gives."""
    return encode("OpenMany", {"requests": [request(path, access) for path, access in batch]})


def batches(wanted: Iterable[Wanted]) -> Iterable[list[Wanted]]:
    """Cut `wanted` so that each part keeps to the wire's limits of requests and of bytes."""
    batch: list[Wanted] = []
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


# --- replies -----------------------------------------------------------------------------------------------


def result(reply: bytes, path: str = "") -> dict[str, Any]:
    """The parameters of a good reply. Raises what an error reply says, of `path`."""
    try:
        message = json.loads(reply)
        parameters = message.get("parameters") or {}
        error = message.get("error")
        if not isinstance(parameters, dict):
            raise TypeError("parameters")
    except (ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise ProtocolError("the answer is no Varlink reply") from problem
    if error is not None:
        raise _error(str(error), parameters, path)
    return parameters


def opened(reply: bytes, came: int, path: str) -> int:
    """Which of the `came` fds the reply to an Open announces."""
    if came == 1 and reply.startswith(_OPENED):
        return 0
    # Anything else is an error, or a reply in another shape than our broker's.
    announced = result(reply, path).get("fileDescriptor")
    if not isinstance(announced, int):
        raise ProtocolError("the reply names no file descriptor")
    _check_announced([announced], came)
    return announced


def opened_batch(reply: bytes, came: int, batch: Sequence[Wanted]) -> list[int | OSError | Busy]:
    """For each request of `batch`: which of the `came` fds the reply announces, or why there is none."""
    results = result(reply).get("results")
    if not isinstance(results, list) or [type(item) for item in results] != [dict] * len(batch):
        raise ProtocolError("the broker answered another number of requests than it was asked")
    places = [item.get("fileDescriptor") for item in results]
    _check_announced([place for place in places if place is not None], came)
    return [
        _failure(item, path) if place is None else place
        for place, item, (path, _) in zip(places, results, batch, strict=True)
    ]


def checked(reply: bytes, path: str) -> bool:
    """What the reply to a Check says of `path`."""
    allowed = result(reply, path).get("allowed")
    if not isinstance(allowed, bool):
        raise ProtocolError("the broker answered neither yes nor no")
    return allowed


def _check_announced(announced: list[int], came: int) -> None:
    """Every fd that came must be announced once, and the other way round.

    A full fd table makes the kernel drop fds without a word (MSG_CTRUNC is not set): counting is the only sign.
    """
    if any(type(place) is not int for place in announced) or sorted(announced) != list(range(came)):
        if came < len(announced):
            raise OSError(errno.EMFILE, "the broker sent more file descriptors than this process can hold")
        raise ProtocolError("the broker announced other file descriptors than it sent")


# --- errors ------------------------------------------------------------------------------------------------


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
