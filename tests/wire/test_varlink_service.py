"""The broker as a Varlink service: introspection, the errors of org.varlink.service, and lenient spellings."""

import json
from pathlib import Path
from typing import Any

import pytest

import sandboxed

SERVICE = "org.varlink.service"
BROKER = "org.fdbroker.Broker"
INTERFACES = [BROKER, SERVICE]

# name → parameters that are right; PATH stands for a file that the policy gives
METHODS: dict[str, dict[str, Any]] = {
    f"{BROKER}.Open": {"path": "PATH", "access": ["read"]},
    f"{BROKER}.OpenMany": {"requests": [{"path": "PATH", "access": ["read"]}]},
    f"{BROKER}.Check": {"path": "PATH", "access": ["read"]},
    f"{BROKER}.Describe": {},
    f"{SERVICE}.GetInfo": {},
    f"{SERVICE}.GetInterfaceDescription": {"interface": BROKER},
}
WITHOUT_PARAMETERS = [f"{SERVICE}.GetInfo", f"{BROKER}.Describe"]


def right_parameters(method: str, wire: Any) -> Any:
    """The parameters of METHODS with a real path."""
    return json.loads(json.dumps(METHODS[method]).replace("PATH", wire.given))


def test_get_info_names_the_service_and_its_interfaces(client: Any) -> None:
    info = client.call(f"{SERVICE}.GetInfo").parameters
    assert sorted(info) == ["interfaces", "product", "url", "vendor", "version"]
    assert info["product"] == "fdbroker"
    assert info["interfaces"] == INTERFACES
    assert all(isinstance(info[name], str) for name in ("product", "url", "vendor", "version"))


@pytest.mark.parametrize("interface", INTERFACES)
def test_description_is_the_shipped_file(client: Any, interface: str) -> None:
    reply = client.call(f"{SERVICE}.GetInterfaceDescription", {"interface": interface})
    shipped = Path(sandboxed.__file__).parent / f"{interface}.varlink"
    assert reply.parameters == {"description": shipped.read_text()}


@pytest.mark.parametrize("method", METHODS)
def test_described_method_is_answered(client: Any, wire: Any, method: str) -> None:
    reply = client.call(method, right_parameters(method, wire))
    assert reply.error is None
    assert reply.fds == (method in (f"{BROKER}.Open", f"{BROKER}.OpenMany"))


def test_release_of_a_grant_is_answered_once(client: Any, wire: Any) -> None:
    grant = client.call(f"{BROKER}.Open", right_parameters(f"{BROKER}.Open", wire)).parameters["grant"]
    assert client.call(f"{BROKER}.Release", {"grant": grant}).message == {"parameters": {}}
    again = client.call(f"{BROKER}.Release", {"grant": grant})
    assert (again.error, again.parameters) == (f"{SERVICE}.InvalidParameter", {"parameter": "grant"})


@pytest.mark.parametrize(
    "interface", ["org.fdbroker.Admin", "org.fdbroker", "org.fdbroker.broker", "", "Broker", "ü.\U0001f4a1"]
)
def test_unknown_interface_is_not_found(client: Any, interface: str) -> None:
    found = client.call(f"{interface}.Open")
    assert (found.error, found.parameters) == (f"{SERVICE}.InterfaceNotFound", {"interface": interface})
    described = client.call(f"{SERVICE}.GetInterfaceDescription", {"interface": interface})
    assert (described.error, described.parameters) == (
        f"{SERVICE}.InterfaceNotFound",
        {"interface": interface},
    )


def test_method_without_an_interface_is_not_found(client: Any) -> None:
    reply = client.call("Open")
    assert (reply.error, reply.parameters) == (f"{SERVICE}.InterfaceNotFound", {"interface": ""})


@pytest.mark.parametrize(
    "method", [f"{BROKER}.List", f"{BROKER}.open", f"{BROKER}.", f"{SERVICE}.Open", f"{BROKER}.Open "]
)
def test_unknown_method_is_not_found(client: Any, method: str) -> None:
    reply = client.call(method, {"path": "/"})
    assert (reply.error, reply.parameters) == (f"{SERVICE}.MethodNotFound", {"method": method})


@pytest.mark.parametrize("method", METHODS)
def test_upgrade_is_not_implemented(client: Any, wire: Any, method: str) -> None:
    reply = client.call(method, right_parameters(method, wire), upgrade=True)
    assert (reply.error, reply.parameters) == (f"{SERVICE}.MethodNotImplemented", {"method": method})
    assert reply.fds == 0


@pytest.mark.parametrize("method", METHODS)
def test_more_gets_the_one_reply_of_a_plain_method(client: Any, wire: Any, method: str) -> None:
    reply = client.call(method, right_parameters(method, wire), more=True)
    assert reply.error is None
    assert not reply.message.get("continues")
    assert client.call(f"{SERVICE}.GetInfo").parameters["product"] == "fdbroker"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [None, False])
def test_members_of_a_call_that_say_nothing_change_nothing(
    client: Any, wire: Any, method: str, value: bool | None
) -> None:
    members = {"more": value, "oneway": value, "upgrade": value}
    reply = client.call(method, right_parameters(method, wire), **members)
    assert reply.error is None


def test_unknown_members_of_a_call_are_ignored(client: Any) -> None:
    # Extensions of the protocol stand there; what a method takes stands in its parameters.
    assert client.call(f"{SERVICE}.GetInfo", {}, extension={"deep": [1, 2]}).error is None


@pytest.mark.parametrize("method", WITHOUT_PARAMETERS)
@pytest.mark.parametrize(
    "text", ["{}", '{"parameters":{}}', '{"parameters":null}', '{ "parameters" : { } }'], ids=repr
)
def test_absent_empty_and_null_parameters_are_the_same(client: Any, method: str, text: str) -> None:
    call = text.replace("{", f'{{"method":"{method}",', 1).replace(",}", "}")
    reply = client.exchange(call.encode())
    assert reply is not None
    assert reply.error is None


@pytest.mark.parametrize(
    "absent", [{"optional": None, "flags": None, "mode": None}, {"optional": []}, {"flags": []}]
)
def test_null_for_an_optional_parameter_is_as_if_it_were_absent(client: Any, wire: Any, absent: Any) -> None:
    reply = client.call(f"{BROKER}.Open", {"path": wire.given, "access": ["read"], **absent})
    assert (reply.error, reply.fds) == (None, 1)
    assert reply.parameters["rights"] == ["read"]
    many = client.call(
        f"{BROKER}.OpenMany", {"requests": [{"path": wire.given, "access": ["read"], **absent}]}
    )
    assert (many.error, many.fds) == (None, 1)


OPEN = {"path": "/nowhere", "access": ["read"]}
INVALID = [
    ("Open", {}, "path"),
    ("Open", None, "path"),
    ("Open", {"path": "/nowhere"}, "access"),
    ("Open", OPEN | {"path": None}, "path"),
    ("Open", OPEN | {"path": 5}, "path"),
    ("Open", OPEN | {"path": ["/nowhere"]}, "path"),
    ("Open", OPEN | {"access": None}, "access"),
    ("Open", OPEN | {"access": "read"}, "access"),
    ("Open", OPEN | {"access": []}, "access"),
    ("Open", OPEN | {"access": [None]}, "access"),
    ("Open", OPEN | {"access": ["read", 1]}, "access"),
    ("Open", OPEN | {"access": ["READ"]}, "access"),
    ("Open", OPEN | {"access": ["all"]}, "access"),
    ("Open", OPEN | {"access": ["truncate"]}, "access"),
    ("Open", OPEN | {"access": ["ioctl"]}, "access"),
    ("Open", OPEN | {"optional": "ioctl"}, "optional"),
    ("Open", OPEN | {"optional": ["ioctls"]}, "optional"),
    ("Open", OPEN | {"flags": "nonblock"}, "flags"),
    ("Open", OPEN | {"flags": ["O_NONBLOCK"]}, "flags"),
    ("Open", OPEN | {"flags": ["creat"]}, "flags"),
    ("Open", OPEN | {"flags": ["trunc"]}, "flags"),
    ("Open", OPEN | {"flags": ["path"]}, "flags"),
    ("Open", OPEN | {"mode": "0644"}, "mode"),
    ("Open", OPEN | {"mode": -1}, "mode"),
    ("Open", OPEN | {"mode": 0o10000}, "mode"),
    ("Open", OPEN | {"mode": 1.5}, "mode"),
    ("Open", OPEN | {"mode": 10**30}, "mode"),
    ("Open", OPEN | {"Path": "/nowhere"}, "Path"),
    ("Open", OPEN | {"umask": 0}, "umask"),
    ("OpenMany", {}, "requests"),
    ("OpenMany", {"requests": None}, "requests"),
    ("OpenMany", {"requests": {}}, "requests"),
    ("OpenMany", {"requests": [5]}, "requests"),
    ("OpenMany", {"requests": [OPEN, {"path": "/nowhere"}]}, "access"),
    ("OpenMany", {"requests": [OPEN | {"flags": ["creat"]}]}, "flags"),
    ("OpenMany", {"requests": [OPEN] * 65}, "requests"),
    ("OpenMany", {"requests": [], "path": "/nowhere"}, "path"),
    ("Check", {"path": "/nowhere"}, "access"),
    ("Check", {"access": ["read"]}, "path"),
    ("Check", OPEN | {"access": []}, "access"),
    ("Check", OPEN | {"access": ["fly"]}, "access"),
    ("Check", OPEN | {"optional": []}, "optional"),
    ("Release", {}, "grant"),
    ("Release", {"grant": 1}, "grant"),
    ("Release", {"grant": "g999999"}, "grant"),
    ("Release", {"grant": "g01"}, "grant"),
    ("Release", {"grant": "1"}, "grant"),
    ("Release", {"grant": ""}, "grant"),
    ("Release", {"grant": "g\u0661"}, "grant"),
    ("Release", {"grant": "g" + "9" * 5000}, "grant"),
    ("Describe", {"peer": 0}, "peer"),
]


@pytest.mark.parametrize(
    ("method", "parameters", "named"), INVALID, ids=[f"{m}-{n}-{i}" for i, (m, _, n) in enumerate(INVALID)]
)
def test_invalid_parameter_is_named(client: Any, method: str, parameters: Any, named: str) -> None:
    reply = client.call(f"{BROKER}.{method}", parameters)
    assert (reply.error, reply.parameters) == (f"{SERVICE}.InvalidParameter", {"parameter": named})
    # A wrong parameter is an answer, not the end: the connection goes on.
    assert client.call(f"{SERVICE}.GetInfo").error is None


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({}, "interface"),
        ({"interface": None}, "interface"),
        ({"interface": 1}, "interface"),
        ({"interface": BROKER, "version": 1}, "version"),
    ],
)
def test_invalid_parameter_of_get_interface_description_is_named(
    client: Any, parameters: Any, named: str
) -> None:
    reply = client.call(f"{SERVICE}.GetInterfaceDescription", parameters)
    assert (reply.error, reply.parameters) == (f"{SERVICE}.InvalidParameter", {"parameter": named})


@pytest.mark.parametrize("parameters", [[], "text", 5, True])
@pytest.mark.parametrize("method", [*METHODS, f"{BROKER}.Release"])
def test_parameters_that_are_no_object_are_invalid(client: Any, method: str, parameters: Any) -> None:
    reply = client.call(method, parameters)
    assert (reply.error, reply.parameters) == (f"{SERVICE}.InvalidParameter", {"parameter": "parameters"})


def test_denied_and_failed_opens_have_the_broker_s_own_errors(client: Any, wire: Any) -> None:
    denied = client.call(f"{BROKER}.Open", {"path": wire.kept, "access": ["read"]})
    assert (denied.message, denied.fds) == ({"error": f"{BROKER}.Denied", "parameters": {}}, 0)
    failed = client.call(f"{BROKER}.Open", {"path": wire.missing, "access": ["read"]})
    assert failed.error == f"{BROKER}.OpenFailed"
    assert (failed.parameters, failed.fds) == ({"errno": 2, "name": "ENOENT"}, 0)


def test_each_result_of_a_batch_stands_for_itself(client: Any, wire: Any) -> None:
    paths = [wire.kept, wire.given, wire.missing, "relative", "/dev/zero"]
    reply = client.call(f"{BROKER}.OpenMany", {"requests": [{"path": p, "access": ["read"]} for p in paths]})
    results = reply.parameters["results"]
    assert reply.fds == 2
    assert [result.get("error") for result in results] == [
        f"{BROKER}.Denied",
        None,
        f"{BROKER}.OpenFailed",
        f"{BROKER}.Denied",
        None,
    ]
    assert [result.get("fileDescriptor") for result in results] == [None, 0, None, None, 1]
    assert results[2]["errno"] == 2


@pytest.mark.parametrize("count", [0, 1, 64])
def test_batch_of_up_to_64_is_answered(client: Any, wire: Any, count: int) -> None:
    requests = [{"path": wire.given, "access": ["read"]}] * count
    reply = client.call(f"{BROKER}.OpenMany", {"requests": requests})
    assert [result["fileDescriptor"] for result in reply.parameters["results"]] == list(range(count))
    assert reply.fds == count
    assert len({result["grant"] for result in reply.parameters["results"]}) == count


@pytest.mark.parametrize("method", [f"{BROKER}.Open", f"{BROKER}.OpenMany"])
def test_oneway_open_passes_nothing_and_is_recorded(client: Any, wire: Any, method: str) -> None:
    call = {"method": method, "parameters": right_parameters(method, wire), "oneway": True}
    client.send(json.dumps(call).encode() + b"\0")
    reply = client.call(f"{SERVICE}.GetInfo")
    assert (reply.parameters["product"], reply.fds) == ("fdbroker", 0)
    assert wire.broker.records(event="oneway", reason=f"a oneway {method.rpartition('.')[2]}")


@pytest.mark.parametrize("method", [f"{BROKER}.Check", f"{SERVICE}.GetInfo", f"{BROKER}.Nothing"])
def test_oneway_call_gets_no_reply(client: Any, method: str) -> None:
    client.send(json.dumps({"method": method, "parameters": OPEN, "oneway": True}).encode() + b"\0")
    assert client.call(f"{SERVICE}.GetInfo").parameters["product"] == "fdbroker"
