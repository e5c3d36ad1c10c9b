"""A Varlink library that is not ours as the client: it introspects, calls, gets fds and our errors."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import pytest
from asyncvarlink import (
    FileDescriptor,
    GenericVarlinkErrorReply,
    TypedVarlinkErrorReply,
    VarlinkClientProtocol,
    VarlinkInterface,
    connect_unix_varlink,
    varlinkmethod,
)
from asyncvarlink.serviceerrors import InterfaceNotFound, InvalidParameter, MethodNotFound
from asyncvarlink.serviceinterface import VarlinkServiceInterface

import sandboxed

INTERFACE = "org.fdbroker.Broker"
SERVICE = "org.varlink.service"
Returned = TypeVar("Returned")


class Denied(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        pass


class OpenFailed(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        errno: int
        name: str


class Busy(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        limit: str


class Opened(TypedDict):
    fileDescriptor: FileDescriptor
    grant: str
    rights: list[str]


class Request(TypedDict):
    path: str
    access: list[str]
    optional: list[str] | None
    flags: list[str] | None
    mode: int | None


class Result(TypedDict):
    fileDescriptor: FileDescriptor | None
    grant: str | None
    rights: list[str] | None
    error: str | None
    errno: int | None


class Described(TypedDict):
    peer: Any
    resources: list[Any]


class FdBroker(VarlinkInterface, name=INTERFACE):
    """Our interface as this library's users would write it down."""

    errors = (Denied, OpenFailed, Busy)

    @varlinkmethod
    def Open(
        self,
        *,
        path: str,
        access: list[str],
        optional: list[str] | None = None,
        flags: list[str] | None = None,
        mode: int | None = None,
    ) -> Opened: ...

    @varlinkmethod(return_parameter="results")
    def OpenMany(self, *, requests: list[Request]) -> list[Result]: ...

    @varlinkmethod(return_parameter="allowed")
    def Check(self, *, path: str, access: list[str]) -> bool: ...

    @varlinkmethod
    def Release(self, *, grant: str) -> None: ...

    @varlinkmethod(allow_foreign=True)
    def Describe(self) -> Described: ...


@pytest.fixture
def talk(wire: Any) -> Callable[[Callable[[Any, Any], Awaitable[Any]]], Any]:
    """Runs a conversation: it gets a proxy of our interface and one of org.varlink.service."""

    def run(conversation: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def connected() -> Any:
            transport, protocol = await connect_unix_varlink(VarlinkClientProtocol, wire.broker.socket)
            try:
                return await conversation(
                    protocol.make_proxy(FdBroker), protocol.make_proxy(VarlinkServiceInterface)
                )
            finally:
                transport.close()
                await transport.closed_future

        return asyncio.run(connected())

    return run


@pytest.fixture(autouse=True)
def _no_fd_is_left(wire: Any) -> Any:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_foreign_client_learns_who_the_service_is(talk: Any) -> None:
    async def conversation(broker: Any, service: Any) -> Any:
        return await service.GetInfo()

    info = talk(conversation)
    assert info["product"] == "fdbroker"
    assert info["interfaces"] == [INTERFACE, SERVICE]


@pytest.mark.parametrize("interface", [INTERFACE, SERVICE])
def test_foreign_client_gets_the_shipped_description(talk: Any, interface: str) -> None:
    async def conversation(broker: Any, service: Any) -> Any:
        return await service.GetInterfaceDescription(interface=interface)

    shipped = Path(sandboxed.__file__).parent / f"{interface}.varlink"
    assert talk(conversation) == {"description": shipped.read_text()}


def test_foreign_client_opens_and_gets_the_fd(talk: Any, wire: Any) -> None:
    async def conversation(broker: Any, service: Any) -> Any:
        with await broker.Open(path=wire.given, access=["read"]) as opened:
            return os.read(opened["fileDescriptor"].fileno(), 100), opened["grant"], opened["rights"]

    content, grant, rights = talk(conversation)
    assert content == Path(wire.given).read_bytes()
    assert re.fullmatch(r"g[1-9]\d*", grant)
    assert rights == ["read"]
    assert wire.broker.records(grant=grant, verdict="allow", path=wire.given)


def test_foreign_client_names_optional_rights_and_flags(talk: Any) -> None:
    async def conversation(broker: Any, service: Any) -> Any:
        asked = {"optional": ["ioctl", "truncate"], "flags": ["nonblock"], "mode": None}
        with await broker.Open(path="/dev/zero", access=["read"], **asked) as opened:
            number = opened["fileDescriptor"].fileno()
            return os.get_blocking(number), os.read(number, 4), opened["rights"]

    assert talk(conversation) == (False, bytes(4), ["read", "ioctl"])


def test_foreign_client_opens_many_and_gets_each_result(talk: Any, wire: Any) -> None:
    def request(path: str) -> Request:
        return {"path": path, "access": ["read"], "optional": None, "flags": None, "mode": None}

    async def conversation(broker: Any, service: Any) -> Any:
        requests = [request(wire.kept), request(wire.given), request(wire.missing), request("/dev/zero")]
        with await broker.OpenMany(requests=requests) as answer:
            return [
                (
                    one.get("error"),
                    one.get("errno"),
                    one.get("fileDescriptor") and os.read(one["fileDescriptor"].fileno(), 4),
                )
                for one in answer["results"]
            ]

    assert talk(conversation) == [
        (f"{INTERFACE}.Denied", None, None),
        (None, None, b"what"),
        (f"{INTERFACE}.OpenFailed", 2, None),
        (None, None, bytes(4)),
    ]


def test_foreign_client_opens_many_that_fit_what_it_reads_at_once(talk: Any, wire: Any) -> None:
    # It takes 4,096 bytes at a time and loses the fds of a longer reply; a reply of 40 is shorter.
    requests = [{"path": wire.given, "access": ["read"]}] * 40

    async def conversation(broker: Any, service: Any) -> Any:
        with await broker.OpenMany(requests=requests) as answer:
            return [os.read(one["fileDescriptor"].fileno(), 4) for one in answer["results"]]

    assert talk(conversation) == [b"what"] * 40


def test_foreign_client_checks_describes_and_releases(talk: Any, wire: Any) -> None:
    async def conversation(broker: Any, service: Any) -> Any:
        allowed = await broker.Check(path=wire.given, access=["read"])
        refused = await broker.Check(path=wire.given, access=["write"])
        described = await broker.Describe()
        with await broker.Open(path=wire.given, access=["read"]) as opened:
            released = await broker.Release(grant=opened["grant"])
        return allowed, refused, described, released

    allowed, refused, described, released = talk(conversation)
    assert (allowed["allowed"], refused["allowed"], released) == (True, False, {})
    assert described["peer"]["uid"] == os.getuid()
    assert {
        "paths": ["/dev/zero"],
        "except": [],
        "access": ["read", "write", "ioctl"],
        "types": ["char"],
    } in (described["resources"])


def test_foreign_client_gets_our_errors_as_its_own(talk: Any, wire: Any) -> None:
    async def conversation(broker: Any, service: Any) -> Any:
        with pytest.raises(Denied):
            await broker.Open(path=wire.kept, access=["read"])
        with pytest.raises(OpenFailed) as failed:
            await broker.Open(path=wire.missing, access=["read"])
        return failed.value.p_errno, failed.value.p_name

    assert talk(conversation) == (2, "ENOENT")


def test_foreign_client_gets_the_errors_of_the_service(talk: Any, wire: Any) -> None:
    async def conversation(broker: Any, service: Any) -> Any:
        with pytest.raises(GenericVarlinkErrorReply, match="InvalidParameter"):
            await broker.Open(path=wire.given, access=["fly"])
        with pytest.raises(InterfaceNotFound) as not_found:
            await service.GetInterfaceDescription(interface="org.example.Nothing")
        return not_found.value.p_interface

    assert talk(conversation) == "org.example.Nothing"
    assert {InvalidParameter.name, MethodNotFound.name} == {
        f"{SERVICE}.InvalidParameter",
        f"{SERVICE}.MethodNotFound",
    }


# --- the description ---------------------------------------------------------------------------------------


def declarations(description: str) -> dict[str, str]:
    """The declarations of an interface description: kind and name → the rest, without comments and spaces."""
    text = re.sub(r"#[^\n]*", "", description)
    parts = re.split(r"\b(interface|type|method|error)\s+(?=[A-Za-z])", text)
    found = {}
    for keyword, rest in zip(parts[1::2], parts[2::2], strict=True):
        name, tail = re.match(r"[\w.]+", rest), re.sub(r"\s+", "", rest)
        assert name is not None
        found[f"{keyword} {name[0]}"] = tail.removeprefix(name[0])
    return found


def inlined(declared: dict[str, str]) -> dict[str, str]:
    """The declarations with the named types put in their places."""
    types = {key.split()[1]: value for key, value in declared.items() if key.startswith("type ")}
    return {
        key: re.sub(r"\b[A-Z]\w*\b", lambda found: types.get(found[0], found[0]), value)
        for key, value in declared.items()
        if not key.startswith("type ")
    }


@pytest.mark.parametrize("interface", [FdBroker, VarlinkServiceInterface], ids=lambda one: str(one.name))
def test_shipped_description_declares_what_the_foreign_client_declares(interface: Any) -> None:
    # The library has no parser; it renders a description from the types with which the tests above succeed.
    shipped = (Path(sandboxed.__file__).parent / f"{interface.name}.varlink").read_text()
    rendered = interface.render_interface_description(comments=False)
    assert inlined(declarations(shipped)) == inlined(declarations(rendered))
