"""What a client may send: nothing but a call or one of two errors comes out of the decoder, whatever goes in.

The corpus holds messages that were found or thought of, without their NUL; its directories say what becomes
of them. Each is replayed against the decoder and against a broker.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker import messages
from broker.messages import (
    FLAGS,
    CheckParameters,
    InterfaceParameters,
    InvalidCall,
    InvalidParameter,
    NoParameters,
    OpenManyParameters,
    OpenParameters,
    ReleaseParameters,
)
from policy import Rights

CORPUS = Path(__file__).parent / "corpus"
BROKER = "org.fdbroker.Broker"
SERVICE = "org.varlink.service"

KINDS: dict[str, type[Any]] = {
    f"{BROKER}.Open": OpenParameters,
    f"{BROKER}.OpenMany": OpenManyParameters,
    f"{BROKER}.Check": CheckParameters,
    f"{BROKER}.Release": ReleaseParameters,
    f"{BROKER}.Describe": NoParameters,
    f"{SERVICE}.GetInfo": NoParameters,
    f"{SERVICE}.GetInterfaceDescription": InterfaceParameters,
}


def kept(outcome: str) -> list[Any]:
    """The corpus's messages with this outcome."""
    return [pytest.param(path.read_bytes(), id=path.name) for path in sorted((CORPUS / outcome).iterdir())]


def understood(message: bytes) -> Any:
    """All that the broker does with a message before the policy sees it. Raises InvalidCall, InvalidParameter."""
    call = messages.decode_call(message)
    if call.method == f"{BROKER}.Open":
        return messages.understand(messages.decode_parameters(call.parameters, OpenParameters))
    if call.method == f"{BROKER}.OpenMany":
        return [messages.understand(request) for request in messages.decode_many(call.parameters)]
    if call.method == f"{BROKER}.Check":
        check = messages.decode_parameters(call.parameters, CheckParameters)
        return messages.understand_rights(check.access)
    if call.method in KINDS:
        return messages.decode_parameters(call.parameters, KINDS[call.method])
    return call


def encodable(value: Any) -> bool:
    """Whether every text in a value can be encoded: a lone surrogate cannot."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, (list, tuple)):
        all(map(encodable, value))
    return True


# --- fuzzing -----------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
@example(b"")
@example(b"[" * 60000)
@example(b'{"method":' * 6000)
def test_decoder_raises_invalid_call_alone_for_arbitrary_bytes(message: bytes) -> None:
    try:
        call = messages.decode_call(message)
    except InvalidCall:
        return
    assert isinstance(call.method, str)
    assert encodable(call.method)


@given(st.binary(max_size=200), st.sampled_from(sorted(set(KINDS.values()), key=repr)))
@example(b"null", NoParameters)
@example(b"[" * 60000, OpenManyParameters)
@example(b'{"requests":[' * 5000, OpenManyParameters)
def test_decoder_raises_invalid_parameter_alone_for_arbitrary_parameters(raw: bytes, kind: type[Any]) -> None:
    try:
        assert isinstance(messages.decode_parameters(msgspec.Raw(raw), kind), kind)
    except InvalidParameter as error:
        assert error.name


words = st.sampled_from([*(right.name.lower() for right in Rights if right.name), "use", "edit", "all", ""])
valid_opens = st.fixed_dictionaries(
    {"path": st.text(max_size=20), "access": st.lists(words | st.text(max_size=5), max_size=4)},
    optional={
        "optional": st.none() | st.lists(words, max_size=3),
        "flags": st.none() | st.lists(st.sampled_from([*FLAGS, "creat"]), max_size=3),
        "mode": st.none() | st.integers(-1, 0o10001),
    },
)
valid_calls = st.one_of(
    st.builds(lambda request: {"method": f"{BROKER}.Open", "parameters": request}, valid_opens),
    st.builds(
        lambda requests: {"method": f"{BROKER}.OpenMany", "parameters": {"requests": requests}},
        st.lists(valid_opens, max_size=4),
    ),
    st.sampled_from(
        [
            {"method": f"{BROKER}.Check", "parameters": {"path": "/dev/zero", "access": ["use"]}},
            {"method": f"{BROKER}.Release", "parameters": {"grant": "g1"}},
            {"method": f"{BROKER}.Describe"},
            {"method": f"{SERVICE}.GetInterfaceDescription", "parameters": {"interface": BROKER}},
        ]
    ),
)


@given(valid_calls, st.booleans(), st.data())
def test_decoder_raises_its_own_errors_alone_for_mutated_calls(
    call: dict[str, Any], ascii_only: bool, data: st.DataObject
) -> None:
    message = bytearray(json.dumps(call, ensure_ascii=ascii_only).encode(errors="surrogatepass"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(message)))
        length = data.draw(st.integers(0, 6))
        message[place : place + length] = data.draw(
            st.binary(max_size=4)
            | st.sampled_from([b'"', b"\\ud800", b"null", b"[", b"}", b"\xed\xa0\x80", b"1e9"])
        )
    with contextlib.suppress(InvalidCall, InvalidParameter):
        understood(bytes(message))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(valid_calls, st.data())
def test_decoder_raises_its_own_errors_alone_for_calls_with_a_value_of_another_type(
    call: dict[str, Any], data: st.DataObject
) -> None:
    # Down to some member, which gets any value: what is replaced is a whole one, so it stays JSON.
    call = {"parameters": {}, **json.loads(json.dumps(call))}
    inner: Any = call
    while True:
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        deeper = inner[key]
        if not isinstance(deeper, (dict, list)) or not deeper or data.draw(st.booleans()):
            break
        inner = deeper
    inner[key] = data.draw(json_values)
    with contextlib.suppress(InvalidCall, InvalidParameter):
        understood(json.dumps(call).encode())


@given(valid_opens)
def test_open_that_is_understood_asks_for_known_words_alone(request: dict[str, Any]) -> None:
    message = json.dumps({"method": f"{BROKER}.Open", "parameters": request}).encode()
    try:
        asked = understood(message)
    except InvalidParameter as error:
        assert error.name in ("path", "access", "optional", "flags", "mode")
        return
    assert asked.path == request["path"]
    assert asked.needed & (Rights.READ | Rights.WRITE | Rights.APPEND)
    allowed = 0
    for flag in FLAGS.values():
        allowed |= flag
    assert asked.flags & ~allowed == 0
    assert "creat" not in (request.get("flags") or [])


@given(st.text(max_size=30), st.lists(st.sampled_from(["read", "write", "append"]), min_size=1, max_size=3))
def test_path_reaches_the_policy_as_it_was_sent(path: str, access: list[str]) -> None:
    request = {"path": path, "access": access}
    for ascii_only in (True, False):
        text = json.dumps({"method": f"{BROKER}.Open", "parameters": request}, ensure_ascii=ascii_only)
        assert understood(text.encode()).path == path


# --- the corpus --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", kept("no-call"))
def test_kept_message_that_is_no_call_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidCall):
        messages.decode_call(message)


@pytest.mark.parametrize("message", kept("invalid-parameter"))
def test_kept_message_with_a_wrong_parameter_is_understood_as_that(message: bytes) -> None:
    call = messages.decode_call(message)
    if call.method == f"{BROKER}.Release":
        return  # whether there is such a grant, the decoder cannot know
    with pytest.raises(InvalidParameter):
        understood(message)


@pytest.mark.parametrize("message", kept("call"))
def test_kept_call_is_understood(message: bytes) -> None:
    assert understood(message) is not None


@pytest.mark.parametrize("message", kept("no-call"))
def test_broker_ends_the_connection_at_a_kept_message_that_is_no_call(
    raw: Callable[[], Any], message: bytes
) -> None:
    client = raw()
    assert client.exchange(message) is None
    assert raw().call(f"{SERVICE}.GetInfo").error is None


@pytest.mark.parametrize("message", kept("invalid-parameter"))
def test_broker_answers_a_kept_message_with_invalid_parameter(client: Any, message: bytes) -> None:
    reply = client.exchange(message)
    assert (reply.error, reply.fds) == (f"{SERVICE}.InvalidParameter", 0)
    assert client.call(f"{SERVICE}.GetInfo").error is None


@pytest.mark.parametrize("message", kept("call"))
def test_broker_answers_a_kept_call(client: Any, message: bytes) -> None:
    reply = client.exchange(message)
    assert reply.error != f"{SERVICE}.InvalidParameter"
    announced = [reply.message["parameters"], *reply.message["parameters"].get("results", [])]
    assert reply.fds == sum(one.get("fileDescriptor") is not None for one in announced)
    assert client.call(f"{SERVICE}.GetInfo").error is None


def test_broker_answers_a_kept_call_the_same_when_it_is_sent_again(client: Any) -> None:
    # A call that came before is recognized by its bytes.
    for path in sorted((CORPUS / "call").iterdir()):
        first, second = client.exchange(path.read_bytes()), client.exchange(path.read_bytes())
        for reply in (first, second):
            for one in (reply.message["parameters"], *reply.message["parameters"].get("results", [])):
                one.pop("grant", None)
        assert first == second, path.name
