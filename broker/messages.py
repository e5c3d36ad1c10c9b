"""What the wire's messages hold, checked by type: bytes in, values or an error out.

msgspec refuses what is no UTF-8 and lone surrogates, so neither ever reaches the policy. Everything that
a client can get wrong ends in `InvalidCall` (the connection's end) or `InvalidParameter` (a reply).
"""

import os
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from policy import Rights, parse_rights
from sandboxed.limits import BATCH_REQUESTS

PREFIX = "org.fdbroker.Broker"

# The open flags that a client may name: they change how the fd behaves, and no right. An allow-list.
FLAGS = {
    "direct": os.O_DIRECT,
    "directory": os.O_DIRECTORY,
    "dsync": os.O_DSYNC,
    "excl": os.O_EXCL,
    "nofollow": os.O_NOFOLLOW,
    "nonblock": os.O_NONBLOCK,
    "sync": os.O_SYNC,
}

_MODE_BITS = 0o7777
_FIELD = re.compile(r"(?:field |at )`(?:\$\.)?(\w+)")


class InvalidCall(Exception):
    """The message is no Varlink call."""


class InvalidParameter(Exception):
    """A parameter is not what its method takes; `name` is the parameter's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Call(msgspec.Struct):
    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    oneway: bool | None = None
    more: bool | None = None
    upgrade: bool | None = None


class OpenParameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The parameters of Open, and of each request of OpenMany. Equal ones mean the same request."""

    path: str
    access: tuple[str, ...]
    optional: tuple[str, ...] | None = None
    flags: tuple[str, ...] | None = None
    mode: int | None = None


class OpenManyParameters(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of OpenMany."""

    requests: list[OpenParameters]


class CheckParameters(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of Check."""

    path: str
    access: list[str]


class ReleaseParameters(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of Release."""

    grant: str


class InterfaceParameters(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of GetInterfaceDescription."""

    interface: str


class NoParameters(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of a method that has none."""


class Asked(msgspec.Struct, frozen=True):
    """One request to open, understood: what a client may ask for, whatever the policy says of it."""

    path: str
    needed: Rights
    optional: Rights
    flags: int


_call_decoder = msgspec.json.Decoder(_Call)
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def decode_call(message: bytes) -> _Call:
    """The call in one message. Raises InvalidCall."""
    try:
        return _call_decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidCall(str(error)) from error


def decode_parameters(raw: msgspec.Raw, kind: type[Any]) -> Any:
    """The parameters of one call as `kind`. Raises InvalidParameter."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    content = bytes(raw)
    try:
        return decoder.decode(b"{}" if content == b"null" else content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        found = _FIELD.search(str(error))
        raise InvalidParameter(found[1] if found else "parameters") from error


def understand(parameters: OpenParameters) -> Asked:
    """What an open asks for. Raises InvalidParameter for a word that there is not.

    An fd has an access mode, so one of read, write and append must be asked for. `mode` has a meaning only
    where a file is created.
    """
    needed = _rights("access", parameters.access)
    if not needed & (Rights.READ | Rights.WRITE | Rights.APPEND):
        raise InvalidParameter("access")
    if parameters.mode is not None and not 0 <= parameters.mode <= _MODE_BITS:
        raise InvalidParameter("mode")
    flags = 0
    for word in parameters.flags or ():
        if word not in FLAGS:
            raise InvalidParameter("flags")
        flags |= FLAGS[word]
    return Asked(parameters.path, needed, _rights("optional", parameters.optional or ()), flags)


def decode_many(raw: msgspec.Raw) -> list[OpenParameters]:
    """The requests of an OpenMany. Raises InvalidParameter, also for too many."""
    requests: list[OpenParameters] = decode_parameters(raw, OpenManyParameters).requests
    if len(requests) > BATCH_REQUESTS:
        raise InvalidParameter("requests")
    return requests


def understand_rights(words: Sequence[str]) -> Rights:
    """The rights that Check asks about. Raises InvalidParameter."""
    rights = _rights("access", words)
    if not rights:
        raise InvalidParameter("access")
    return rights


def _rights(parameter: str, words: Sequence[str]) -> Rights:
    try:
        return parse_rights(words)
    except ValueError as error:
        raise InvalidParameter(parameter) from error


def encode_reply(parameters: dict[str, Any]) -> bytes:
    """A good reply, with its NUL."""
    return msgspec.json.encode({"parameters": parameters}) + b"\0"


def encode_error(name: str, parameters: dict[str, Any]) -> bytes:
    """An error reply, with its NUL; `name` is whole, interface and all."""
    return msgspec.json.encode({"error": name, "parameters": parameters}) + b"\0"
