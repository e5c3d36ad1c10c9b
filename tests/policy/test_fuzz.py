"""Whatever the bytes of a file are, loading it ends in a policy or in problems with places, and in nothing else.

`corpus/` holds files that once were troublesome, or are likely to be; they are replayed with both parsers. When
the fuzzer finds something, its file belongs there.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from policy import PolicyError, Source, document, load
from policy.testcases import load_with_tests
from policy.testing import run, unreached

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
KEYS = [
    *(
        "version",
        "clients",
        "sockets",
        "rules",
        "mask",
        "name",
        "allow",
        "deny",
        "paths",
        "except_paths",
        "type",
    ),
    *(
        "except_clients",
        "user",
        "uid",
        "group",
        "gid",
        "socket",
        "path",
        "owner",
        "mode",
        "lease",
        "until",
        "unit",
        "exe",
        "label",
        *(
            "addresses",
            "limits",
            "open",
            "serial",
            "frame",
            "tun",
            "create",
            "exclusive",
            "snapshot",
            "accept",
        ),
        "<<",
        "client",
        "object",
        "access",
        "optional",
        "expect",
        "rights",
        "at",
        "groups",
        "subordinate_of",
        "udev",
        "attrs",
        "device",
        "",
        "~",
    ),
]
VALUES = [
    *(
        "1",
        "any",
        "all",
        "use",
        "edit",
        "read",
        "append",
        "char",
        "/dev/kvm",
        "/a/**",
        "/[a",
        "/a\0",
        "default",
        "low/use",
        "deny",
        "188:0",
        "mia",
    ),
    *(
        "0660",
        "5-3",
        "0-4294967295",
        "x" * 300,
        "\ud800",
        "é",
        *(
            "30m",
            "1h30m",
            "8N1",
            "true",
            "tcp:0.0.0.0:80",
            "tcp:[::]:0",
            "unkept-lease",
            "listen",
            "required",
        ),
        "${user}",
        "/${user}*",
        "${home}/**",
        "/${",
        "a.service",
        "2026-12-01T18:00Z",
        "2026-12-01T18:00",
        "null",
        "",
        "\\",
        "{a}",
    ),
]
TOKENS = [
    *KEYS,
    *VALUES,
    *"[]{}:,-?&*!|>'\"%@`#\n\t ",
    ": ",
    "- ",
    "  ",
    "\n  - ",
    "---\n",
    "...\n",
    "\ufeff",
]

# What the file is put above, so that its masks and names may find something.
LOWER = """\
version: 1
clients: {lab: {uid: 5}}
sockets: {gpu: {path: /a}}
rules: [{name: use, deny: all, clients: lab}]
"""

texts = st.lists(st.sampled_from(TOKENS), max_size=40).map("".join)
trees: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)
facts = st.dictionaries(st.sampled_from(KEYS), trees, max_size=4)
tests = st.fixed_dictionaries(
    {
        "client": st.fixed_dictionaries({"user": st.just("mia")}) | facts,
        "object": st.fixed_dictionaries({"path": st.just("/dev/kvm"), "type": st.just("char")}) | facts,
        "access": st.just("read") | trees,
        "expect": st.just("deny") | trees,
    },
    optional={"rule": st.sampled_from(["low/use", "use"]) | trees, "at": st.sampled_from(VALUES)},
)
policies = st.fixed_dictionaries(
    {"version": st.just("1")},
    optional={
        "mask": st.lists(st.sampled_from(["a/b", "low/use", "low/", "a", ""]) | trees, max_size=3),
        "clients": st.dictionaries(st.sampled_from(["lab", "any", "a b"]), trees, max_size=2),
        "sockets": st.dictionaries(st.sampled_from(["gpu", "default"]), trees, max_size=2),
        "rules": st.lists(st.dictionaries(st.sampled_from(KEYS), trees, max_size=8), max_size=3),
        "tests": st.lists(tests | trees, max_size=3),
    },
)


def assert_loads_or_tells(text: str | bytes) -> None:
    is_good = assert_ends_well(text, lambda sources: load(sources))
    if (b"tests" if isinstance(text, bytes) else "tests") in text:
        # Reading the tests too finds more mistakes, never fewer.
        assert is_good or not assert_ends_well(text, load_and_test)


def load_and_test(sources: list[Source]) -> None:
    found, tests = load_with_tests(sources)
    unreached(found.policy, run(found.policy, tests))


def assert_ends_well(text: str | bytes, read: Callable[[list[Source]], object]) -> bool:
    """Whether it loads; what is told otherwise has its places."""
    try:
        read([Source("low.yaml", LOWER), Source("a.yaml", text, 1)])
    except PolicyError as error:
        lines = 1 + len(text.splitlines())
        for problem in error.problems:
            assert 1 <= problem.line <= lines
            assert problem.column >= 1
            assert problem.message.isprintable()
            assert len(problem.message) < 500
        assert error.problems
        return False
    return True


@pytest.mark.parametrize("parser", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_file_of_the_corpus_loads_or_is_told(
    path: Path, parser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(yaml, parser):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(document, "_LOADER", getattr(yaml, parser))
    assert_loads_or_tells(path.read_bytes())


def test_corpus_is_there() -> None:
    assert len(CORPUS) > 10


@given(st.binary(max_size=60))
@example(b"\x0b\x0b\x80")
def test_any_bytes_load_or_are_told(data: bytes) -> None:
    assert_loads_or_tells(data)


@given(texts)
@example("version: 1\nrules:\n- name: &a *a")
def test_any_sequence_of_tokens_loads_or_is_told(text: str) -> None:
    assert_loads_or_tells(text)


@given(policies)
def test_any_tree_of_words_loads_or_is_told(tree: dict[str, Any]) -> None:
    assert_loads_or_tells(json.dumps(tree, ensure_ascii=False))
