"""Replies: what goes back to a client, and every way of saying no."""

import errno
from collections.abc import Sequence
from typing import Any, NamedTuple

from broker import messages
from broker.messages import PREFIX, InvalidParameter
from broker.outcome import Outcome
from policy import rights_words

SERVICE = "org.varlink.service"
INTERFACES = (PREFIX, SERVICE)


class Answer(NamedTuple):
    """A reply with its NUL, and the fds that ride with it, which belong to the receiver of the answer."""

    data: bytes
    fds: Sequence[int] = ()


def reply_tail(outcome: Outcome) -> bytes:
    """The end of one good result, from behind the grant's number on."""
    words = ",".join(f'"{word}"' for word in rights_words(outcome.rights))
    return f'","rights":[{words}]}}'.encode()


def invalid_parameter(error: InvalidParameter) -> Answer:
    """The answer to a call whose parameter is not what the method takes."""
    return service_error("InvalidParameter", parameter=error.name)


def audit_busy() -> Answer:
    """The answer to an open whose record could not be handed over."""
    return busy("audit")


def not_implemented(method: str) -> Answer:
    """The answer to a call in a way that this service does not offer."""
    return service_error("MethodNotImplemented", method=method)


def send_failed() -> Answer:
    """The answer instead of one whose fds the kernel would not carry."""
    return busy("file descriptors in flight")


def unknown(method: str) -> Answer:
    """The answer to a method that there is not."""
    interface = method.rpartition(".")[0]
    if interface in INTERFACES:
        return service_error("MethodNotFound", method=method)
    return service_error("InterfaceNotFound", interface=interface)


def error_answer(error: str, /, **parameters: Any) -> Answer:
    """An error of our own interface."""
    return Answer(messages.encode_error(f"{PREFIX}.{error}", parameters))


def service_error(error: str, /, **parameters: Any) -> Answer:
    """An error of org.varlink.service."""
    return Answer(messages.encode_error(f"{SERVICE}.{error}", parameters))


def busy(limit: str) -> Answer:
    """The answer at a limit, which `limit` names."""
    return error_answer("Busy", limit=limit)


def refused_result(outcome: Outcome) -> bytes:
    """One result of an OpenMany that carries no fd."""
    if outcome.verdict == "failed":
        return b'{"error":"%b.OpenFailed","errno":%d}' % (PREFIX.encode(), outcome.errno)
    return b'{"error":"%b.%b"}' % (PREFIX.encode(), b"Busy" if outcome.verdict == "busy" else b"Denied")


def errno_name(number: int) -> str:
    """The name of an errno, as in ENOENT."""
    return errno.errorcode.get(number, str(number))
