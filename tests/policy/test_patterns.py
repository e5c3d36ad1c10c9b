"""The shape of paths, and path patterns."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import PatternError, Source, load, parse_pattern
from policy.entries import Entry
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


def index_of(*texts: str, groups: int = 1) -> tuple[PathIndex, list[Entry]]:
    (rule,) = load([Source("a.yaml", "version: 1\nrules: [{name: r, deny: all}]")]).rules
    entries = [Entry(rule, place, parse_pattern(text), place % groups) for place, text in enumerate(texts)]
    return PathIndex(((entry.pattern, entry) for entry in entries), possibly=False), entries


@given(
    st.lists(pattern_texts(), max_size=8),
    PATHS,
    st.sampled_from([1, 3]),
    st.sampled_from([1, 30]),
    st.sets(st.sampled_from(range(3))),
)
def test_index_finds_exactly_the_patterns_that_match(
    texts: list[str], path: list[str], groups: int, copies: int, wanted: set[int]
) -> None:
    index, entries = index_of(*texts * copies, groups=groups)
    asked = "/" + "/".join(path)
    found = [entry for entry in index.find(asked, wanted) if entry.group in wanted]
    matching = [entry for entry in entries if entry.pattern is not None and entry.pattern.matches(path)]
    assert sorted(entry.rights for entry in found) == [
        entry.rights for entry in matching if entry.group in wanted
    ]
    assert index.has(asked) is bool(matching)


def test_index_looks_at_none_of_other_groups_where_many_share_a_pattern() -> None:
    for text in ("/srv/file", "/srv/*", "/srv/**"):
        index, entries = index_of(*[text] * 1_000, groups=100)
        assert index.find("/srv/file", {7}) == entries[7::100]
        assert len(index.find("/srv/file", set(range(1, 2_000)))) == 990


def test_index_compares_a_name_only_with_wildcards_that_begin_as_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[str] = []

    def note(glob: Glob, component: str) -> bool:
        compared.append(glob.text)
        return True

    monkeypatch.setattr(Glob, "matches", note)
    index, entries = index_of(*(f"/dev/n{number}x*" for number in range(1_000)))
    assert index.find("/dev/n57xy", {0}) == [entries[57]]
    assert compared == ["n57x*"]


def test_index_finds_a_short_name_once_among_prefixes_of_several_lengths() -> None:
    index, _ = index_of("/ab*", "/abc*", "/a*", "/*")
    found = [entry.pattern.text for entry in index.find("/ab", {0}) if entry.pattern is not None]
    assert sorted(found) == ["/*", "/a*", "/ab*"]
