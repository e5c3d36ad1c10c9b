"""The shape of paths, and path patterns."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import PatternError, parse_pattern
from policy.index import PathIndex
from policy.paths import shape_fault, split
from policy.patterns import Glob

SHAPES = [
    ("", "it is not absolute"),
    ("dev/kvm", "it is not absolute"),
    ("/", "'/' itself is not allowed"),
    ("/dev/", "a '/' at the end is not allowed"),
    ("//dev", "'//' is not allowed"),
    ("/dev//kvm", "'//' is not allowed"),
    ("/dev/./kvm", "'.' is not allowed"),
    ("/dev/../kvm", "'..' is not allowed"),
    ("/..", "'..' is not allowed"),
    ("/dev/k\0vm", "a NUL is not allowed"),
    ("/dev/\ud800", "it is no text that encodes to UTF-8"),
    ("/" + "a" * 256, "a component is longer than 255 bytes"),
    ("/" + "ä" * 128, "a component is longer than 255 bytes"),
    ("/a" * 2048, "it is longer than 4095 bytes"),
]


@pytest.mark.parametrize(("path", "fault"), SHAPES)
def test_path_of_wrong_shape_is_neither_a_request_nor_a_pattern(path: str, fault: str) -> None:
    assert shape_fault(path) == fault
    with pytest.raises(PatternError) as error:
        parse_pattern(path)
    assert str(error.value) == fault


@pytest.mark.parametrize(
    "path", ["/a", "/...", "/.a/..b", "/a b\n\x1b", "/" + "a" * 255, "/" + "ä" * 127, ("/" + "a" * 254) * 16]
)
def test_path_of_right_shape_has_no_fault_up_to_the_limits(path: str) -> None:
    assert shape_fault(path) == ""


@given(st.text(st.sampled_from("/.a\0\ud800"), max_size=9))
def test_any_text_is_judged_and_what_passes_splits_into_names(path: str) -> None:
    if not shape_fault(path):
        assert "/" + "/".join(split(path)) == path
        assert not {"", ".", ".."} & set(split(path))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/dev/kvm", ["/dev/kvm"], ["/dev/kvm2", "/dev", "/dev/kvm/a", "/DEV/kvm"]),
        ("/dev/tty*", ["/dev/tty", "/dev/ttyS0", "/dev/tty.x"], ["/dev/tt", "/dev/tty/S0", "/dev/atty"]),
        ("/dev/*", ["/dev/kvm", "/dev/.hidden"], ["/dev", "/dev/net/tun"]),
        ("/dev/*/tun", ["/dev/net/tun"], ["/dev/tun", "/dev/a/b/tun"]),
        ("/dev/tty?", ["/dev/tty1", "/dev/ttyä"], ["/dev/tty", "/dev/tty12"]),
        ("/dev/tty[0-9]", ["/dev/tty0", "/dev/tty9"], ["/dev/ttyA", "/dev/tty-", "/dev/tty"]),
        ("/dev/tty[!0-9]", ["/dev/ttyA"], ["/dev/tty0", "/dev/tty"]),
        ("/x[*]", ["/x*"], ["/xa"]),
        ("/x[]a]", ["/x]", "/xa"], ["/xb"]),
        ("/x[!]a]", ["/xb"], ["/x]", "/xa"]),
        ("/x[a-]", ["/xa", "/x-"], ["/xb"]),
        ("/x[-a]", ["/xa", "/x-"], ["/xb"]),
        ("/x[a^]", ["/xa", "/x^"], ["/xb"]),
        ("/x[&|~[]", ["/x&", "/x|", "/x~", "/x["], ["/xb"]),
        ("/x[{}]", ["/x{", "/x}"], ["/xb"]),
        ("/a.b+(c)$", ["/a.b+(c)$"], ["/aXb+(c)$"]),
        ("/a*b*c", ["/abc", "/aXbYc", "/abbcc"], ["/acb", "/abcX"]),
        ("/*a*", ["/a", "/bab"], ["/bcd"]),
        ("/x*", ["/x\n", "/xa\nb"], []),
        ("/srv/**", ["/srv/a", "/srv/a/b/c", "/srv/.a"], ["/srv", "/srvx/a"]),
        ("/srv/*/x/**", ["/srv/a/x/b"], ["/srv/a/x", "/srv/x/b"]),
        ("/**", ["/a", "/a/b"], []),
    ],
)
def test_pattern_matches_these_and_not_those(pattern: str, yes: list[str], no: list[str]) -> None:
    parsed = parse_pattern(pattern)
    assert [path for path in yes if not parsed.matches(split(path))] == []
    assert [path for path in no if parsed.matches(split(path))] == []
    assert not parsed.matches(split("/"))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/a/**/b", "'**' stands only at the end, as '/**', not in '**'"),
        ("/a**", "'**' stands only at the end, as '/**', not in 'a**'"),
        ("/**/**", "'**' stands only at the end, as '/**', not in '**'"),
        ("/a[bc", "'[' without ']' in 'a[bc'"),
        ("/a[]", "'[' without ']' in 'a[]'"),
        ("/a[!]", "'[' without ']' in 'a[!]'"),
        ("/a[b/c]", "'[' without ']' in 'a[b'"),
        ("/a[", "'[' without ']' in 'a['"),
        ("/a[^b]", "'[^' is not allowed: '[!…]' negates"),
        ("/a[[:alpha:]]", "'[:' inside '[…]' is not allowed: list the characters"),
        ("/a[z-a]", "the range 'z-a' runs backwards"),
        ("/a\\*", "a backslash is not allowed: there are no escapes, '[*]' matches a star"),
        ("/a{b,c}", "'{' is not allowed: list each path; '[{]' matches a brace"),
        ("/*}", "'}' is not allowed: list each path; '[}]' matches a brace"),
        ("/home/${name}/x", "unknown variable '${name}', expected one of ${user}, ${uid} and ${home}"),
    ],
)
def test_malformed_pattern_says_what_is_wrong(pattern: str, message: str) -> None:
    with pytest.raises(PatternError) as error:
        parse_pattern(pattern)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("pattern", "root", "literal"),
    [
        ("/srv/**", "/srv", False),
        ("/dev/net/tun", "/dev/net", True),
        ("/dev/tty*", "/dev", False),
        ("/dev/bus/*/1", "/dev/bus", False),
        ("/a", "/", True),
        ("/**", "/", False),
        ("/[a]/b", "/", False),
    ],
)
def test_literal_root_is_the_deepest_directory_that_is_named(pattern: str, root: str, literal: bool) -> None:
    assert parse_pattern(pattern).literal_root == root
    assert parse_pattern(pattern).literal is literal


def test_pattern_with_many_stars_gives_up_on_a_long_name_without_trying_every_way() -> None:
    # A matcher that backtracks would need more steps than there are atoms.
    assert not parse_pattern("/" + "*a" * 40 + "*b").matches(["a" * 255])


COMPONENTS = st.text(st.sampled_from("ab"), min_size=1, max_size=3)
GLOBS = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]"]), min_size=1, max_size=4).map("".join)
PATHS = st.lists(COMPONENTS, min_size=1, max_size=3)


@st.composite
def pattern_texts(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.one_of(COMPONENTS, GLOBS), min_size=1, max_size=3))
    return "/" + "/".join(re.sub(r"\*+", "*", part) for part in parts) + draw(st.sampled_from(["", "/**"]))


@given(pattern_texts(), PATHS)
def test_pattern_agrees_with_the_standard_library_on_each_component(text: str, path: list[str]) -> None:
    wanted = text.removesuffix("/**")[1:].split("/")
    fits = len(path) > len(wanted) if text.endswith("/**") else len(path) == len(wanted)
    expected = fits and all(map(fnmatch.fnmatchcase, path, wanted))
    assert parse_pattern(text).matches(path) is expected


@given(st.lists(pattern_texts(), max_size=8), PATHS)
def test_index_finds_exactly_the_patterns_that_match(texts: list[str], path: list[str]) -> None:
    patterns = [parse_pattern(text) for text in texts]
    index = PathIndex((pattern, place) for place, pattern in enumerate(patterns))
    assert sorted(index.find(path)) == [place for place, one in enumerate(patterns) if one.matches(path)]


def test_index_compares_a_name_only_with_wildcards_that_begin_as_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[str] = []

    def note(glob: Glob, component: str) -> bool:
        compared.append(glob.text)
        return True

    monkeypatch.setattr(Glob, "matches", note)
    index = PathIndex((parse_pattern(f"/dev/n{number}x*"), number) for number in range(1_000))
    assert index.find(["dev", "n57xy"]) == [57]
    assert compared == ["n57x*"]


def test_index_finds_a_short_name_once_among_prefixes_of_several_lengths() -> None:
    index = PathIndex((parse_pattern(text), text) for text in ("/ab*", "/abc*", "/a*", "/*"))
    assert sorted(index.find(["ab"])) == ["/*", "/a*", "/ab*"]
