"""Rights and their words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import Rights, parse_rights, rights_words
from policy.words import RIGHT_WORDS

R = Rights


@pytest.mark.parametrize(
    ("words", "rights", "shown"),
    [
        ([], R(0), []),
        (["read"], R.READ, ["read"]),
        (["write"], R.WRITE | R.APPEND, ["write"]),
        (["append"], R.APPEND, ["append"]),
        (["append", "write"], R.WRITE | R.APPEND, ["write"]),
        (["use"], R.READ | R.WRITE | R.APPEND | R.IOCTL, ["read", "write", "ioctl"]),
        (["edit"], R.READ | R.WRITE | R.APPEND | R.TRUNCATE, ["read", "write", "truncate"]),
        (["listen", "create", "read"], R.READ | R.CREATE | R.LISTEN, ["read", "create", "listen"]),
    ],
)
def test_words_are_parsed_and_shown_in_canonical_order(
    words: list[str], rights: Rights, shown: list[str]
) -> None:
    assert parse_rights(words) == rights
    assert rights_words(rights) == shown


@pytest.mark.parametrize("word", ["all", "Read", "", "raed", "read "])
def test_unknown_word_is_refused_with_those_that_are_known(word: str) -> None:
    with pytest.raises(
        ValueError, match=f"unknown right '{word}', expected one of read, write, append, create"
    ):
        parse_rights(["read", word])


@given(st.sets(st.sampled_from(sorted(RIGHT_WORDS))))
def test_rights_survive_being_shown_and_parsed_again(words: set[str]) -> None:
    assert parse_rights(rights_words(parse_rights(words))) == parse_rights(words)
