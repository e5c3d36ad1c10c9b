"""The framing, without I/O: any stream of bytes is cut into the messages that were joined to make it."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed.errors import MessageTooLong, ProtocolError
from sandboxed.limits import MESSAGE_BYTES, REPLY_BYTES
from sandboxed.wire import NUL, MessageDecoder

# What may stand between two NULs.
MESSAGES = st.lists(st.binary(max_size=40).map(lambda data: data.replace(NUL, b"_")), max_size=8)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def messages_of(decoder: MessageDecoder, pieces: Iterable[bytes]) -> list[bytes]:
    """What comes out when `pieces` are fed one after the other."""
    found = []
    for piece in pieces:
        decoder.feed(piece)
        while (message := decoder.next_message()) is not None:
            found.append(message)
    return found


def pieces_of(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """`stream`, cut at these places."""
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(places)]


@given(MESSAGES, st.lists(st.integers(0, 400), max_size=12))
def test_decoder_gives_the_same_messages_however_the_stream_is_cut(
    messages: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(message + NUL for message in messages)
    decoder = MessageDecoder()
    assert messages_of(decoder, pieces_of(stream, cuts)) == messages
    assert not decoder.waiting


@given(MESSAGES, st.binary(min_size=1, max_size=20).map(lambda data: data.replace(NUL, b"_")))
def test_decoder_keeps_an_unfinished_message_until_its_nul(messages: list[bytes], rest: bytes) -> None:
    decoder = MessageDecoder()
    stream = b"".join(message + NUL for message in messages) + rest
    assert messages_of(decoder, [stream]) == messages
    assert decoder.waiting == rest
    assert messages_of(decoder, [NUL]) == [rest]


@given(st.lists(JSON, max_size=6), st.booleans())
def test_values_are_the_same_after_encoding_and_decoding(values: list[Any], ascii_only: bool) -> None:
    encoded = [json.dumps(value, ensure_ascii=ascii_only).encode() for value in values]
    assert not any(NUL in message for message in encoded)
    found = messages_of(MessageDecoder(), [b"".join(message + NUL for message in encoded)])
    assert [json.loads(message) for message in found] == values


@given(st.lists(st.binary(max_size=30), max_size=30), st.integers(0, 20))
def test_decoder_never_gives_or_keeps_more_than_its_limit(pieces: list[bytes], limit: int) -> None:
    decoder = MessageDecoder(limit)
    for piece in pieces:
        decoder.feed(piece)
        try:
            while (message := decoder.next_message()) is not None:
                assert len(message) <= limit
        except MessageTooLong:
            return
        assert len(decoder.waiting) <= limit


@pytest.mark.parametrize("limit", [0, 1, MESSAGE_BYTES, REPLY_BYTES])
@pytest.mark.parametrize("piece_size", [4099, 1 << 30])
def test_decoder_takes_a_message_of_exactly_the_limit(limit: int, piece_size: int) -> None:
    stream = b"x" * limit + NUL
    pieces = [stream[start : start + piece_size] for start in range(0, len(stream), piece_size)]
    assert messages_of(MessageDecoder(limit), pieces) == [b"x" * limit]


@pytest.mark.parametrize("limit", [0, 1, MESSAGE_BYTES, REPLY_BYTES])
@pytest.mark.parametrize("end", [b"", NUL, NUL + b"x" + NUL], ids=["unfinished", "whole", "more behind"])
def test_decoder_refuses_one_byte_more_than_the_limit(limit: int, end: bytes) -> None:
    decoder = MessageDecoder(limit)
    decoder.feed(b"x" * (limit + 1) + end)
    with pytest.raises(MessageTooLong, match=str(limit)):
        decoder.next_message()


def test_decoder_gives_what_came_before_a_message_that_is_too_long() -> None:
    decoder = MessageDecoder(3)
    decoder.feed(b"abc" + NUL + b"abcd")
    assert decoder.next_message() == b"abc"
    with pytest.raises(MessageTooLong):
        decoder.next_message()


def test_decoder_refuses_an_oversized_message_again_when_asked_again() -> None:
    decoder = MessageDecoder(3)
    decoder.feed(b"abcd")
    for _ in range(2):
        with pytest.raises(MessageTooLong):
            decoder.next_message()


def test_message_that_is_too_long_is_the_other_sides_fault() -> None:
    assert issubclass(MessageTooLong, ProtocolError)


def test_decoder_gives_empty_messages() -> None:
    # What an empty message means is not the framing's to say.
    assert messages_of(MessageDecoder(), [NUL + NUL, NUL]) == [b"", b"", b""]


def test_decoder_takes_a_view_and_keeps_nothing_of_it() -> None:
    buffer = bytearray(b"one" + NUL + b"tw")
    decoder = MessageDecoder()
    decoder.feed(memoryview(buffer))
    assert decoder.next_message() == b"one"
    buffer[:] = b"#" * len(buffer)
    assert messages_of(decoder, [b"o" + NUL]) == [b"two"]


class SearchedBytes(bytearray):
    """Counts the bytes that find() has to look at."""

    searched = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        place = super().find(sub, start)
        self.searched += (len(self) if place < 0 else place) - start
        return place


@pytest.mark.parametrize("piece_size", [1, 7, 4096])
def test_decoder_looks_at_each_byte_once(piece_size: int) -> None:
    # A client that sends byte by byte must not cost us the square of its message's length.
    decoder = MessageDecoder()
    decoder.waiting = waiting = SearchedBytes()
    stream = b"x" * MESSAGE_BYTES + NUL + b"y" * 1000 + NUL
    pieces = [stream[start : start + piece_size] for start in range(0, len(stream), piece_size)]
    assert len(messages_of(decoder, pieces)) == 2
    assert decoder.waiting is waiting
    assert waiting.searched <= 2 * len(stream)
