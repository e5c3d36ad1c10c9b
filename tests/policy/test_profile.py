"""Sandbox profiles: what one says is what is read, everything wrong with it is told, and no bytes do anything else."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from policy import PolicyError, Source, document, problems
from policy.profile import Limits, Profile, load_profile
from tests.policy.tables import cases

HEAD = "version: 1\n"
HERE = Path(__file__).parent
SHIPPED = sorted((HERE.parents[1] / "policy" / "profiles").glob("*.yaml"))
CORPUS = sorted((HERE / "corpus").iterdir())


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers, since which one is there depends on how it was built."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(document, "_LOADER", getattr(yaml, request.param))


def loaded(text: str | bytes) -> Profile:
    return load_profile(Source("a.yaml", text))


def told(text: str | bytes) -> list[str]:
    with pytest.raises(PolicyError) as error:
        loaded(text)
    return [str(problem) for problem in error.value.problems]


@pytest.mark.usefixtures("parser")
def test_profile_of_every_word_is_read() -> None:
    assert loaded("""\
version: 1
description: A tool that works on the files it is given
ro: [/srv/data, /usr/share/a b]
rw: /srv/out
env: [EDITOR, _x9, PATH]
set: {PYTHONDONTWRITEBYTECODE: 1, MODE: 0660, ANSWER: no, NOTHING: '', LD_LIBRARY_PATH: /opt/lib, "TWO": "a\\nb"}
net: loopback
limits: {memory: 512M, processes: 64, files: 256, scratch: 64K}
""") == Profile(
        description="A tool that works on the files it is given",
        readonly=("/srv/data", "/usr/share/a b"),
        writable=("/srv/out",),
        environment=("EDITOR", "_x9", "PATH"),
        variables=(
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("MODE", "0660"),
            ("ANSWER", "no"),
            ("NOTHING", ""),
            ("LD_LIBRARY_PATH", "/opt/lib"),
            ("TWO", "a\nb"),
        ),
        network="loopback",
        limits=Limits(memory=512 * 2**20, processes=64, files=256, scratch=64 * 2**10),
    )


def test_profile_that_says_nothing_has_the_defaults() -> None:
    assert loaded(HEAD) == Profile() == Profile("", (), (), (), (), None, Limits(None, None, None, None))


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("ro: [/process, /srv/dev, /srv/proc]", "readonly", ("/process", "/srv/dev", "/srv/proc")),
        ("ro: '/srv/a$b~c'", "readonly", ("/srv/a$b~c",)),
        ("ro: [/srv, /srv/a, /srvb]", "readonly", ("/srv", "/srv/a", "/srvb")),
        ("env: [LD, PYTHONUNBUFFERED, LC_ALL, HOMER]", "environment", ("LD", "PYTHONUNBUFFERED", "LC_ALL", "HOMER")),
        ("set: {LD_PRELOAD: /a.so, PYTHONPATH: /a}", "variables", (("LD_PRELOAD", "/a.so"), ("PYTHONPATH", "/a"))),
        ("set: {A: null, B: '~'}", "variables", (("A", "null"), ("B", "~"))),
        ("net: none", "network", "none"),
        ("net: host", "network", "host"),
        ("limits: {memory: 4194304}", "limits", Limits(memory=4 * 2**20)),
        ("limits: {memory: 4096G, scratch: 1024G}", "limits", Limits(memory=2**42, scratch=2**40)),
        ("limits: {processes: 1, files: 16}", "limits", Limits(processes=1, files=16)),
        ("limits: {processes: 4194304, files: 1048576}", "limits", Limits(processes=2**22, files=2**20)),
    ],
)  # fmt: skip
def test_line_of_a_profile_gives_its_value(line: str, name: str, value: object) -> None:
    assert getattr(loaded(f"{HEAD}{line}\n"), name) == value


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(("text", "expected"), cases("faulty_profiles.txt"))
def test_faulty_profile_is_told_with_its_line_and_column(text: str, expected: list[str]) -> None:
    assert told(text) == expected


@pytest.mark.parametrize("text", ["", "# nothing\n", b"\xef\xbb\xbf", "\n\n", "{}"])
def test_file_without_content_is_no_profile(text: str | bytes) -> None:
    assert told(text) == [
        "a.yaml:1:1: the file says nothing, expected 'version: 1' and what the program gets"
    ]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("line", ['ro: "/\\ud800"', 'set: {A: "\\ud800"}', "set: {A: }"])
def test_value_that_the_parsers_place_differently_is_told_all_the_same(line: str) -> None:
    (problem,) = told(f"{HEAD}{line}\n")
    assert problem.startswith("a.yaml:2:")


@pytest.mark.parametrize(
    ("size", "fault"),
    [(4096, ""), (4097, "it is longer than 4096 bytes")],
)
def test_value_of_a_variable_is_bounded(size: int, fault: str) -> None:
    text = f"{HEAD}set: {{A: {'x' * size}}}\n"
    if fault:
        assert told(text)[0].endswith(f": {fault}")
    else:
        assert loaded(text).variables == (("A", "x" * size),)


def test_all_problems_of_a_profile_are_told_at_once_in_order() -> None:
    text = f"{HEAD}ro: [a, /b, /b]\nnet: x\nlimits: {{files: 1}}\nnone: 1\n"
    assert [problem.split(": ")[0] for problem in told(text)] == [
        f"a.yaml:{place}" for place in ("2:6", "2:13", "3:6", "4:17", "5:1")
    ]


def test_profile_with_too_many_problems_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "PROBLEMS_PER_FILE", 5)
    found = told(f"{HEAD}ro: [{'x, ' * 50}y]\n")
    assert len(found) == 5
    assert found[4].endswith(": this file has 5 problems or more; the rest is not shown")


# Whatever the bytes of a file are, loading it ends in a profile or in problems with places.

KEYS = [
    *("version", "description", "ro", "rw", "env", "set", "net", "limits", "memory", "processes", "files"),
    *("scratch", "rules", "PATH", "HOME", "LD_PRELOAD", "a b", "<<", "", "~"),
]
VALUES = [
    *("1", "/srv", "/srv/a", "/proc", "/dev/kvm", "/a/**", "/a\0", "/", "..", "EDITOR", "LC_*", "LD_PRELOAD"),
    *(
        "none",
        "loopback",
        "host",
        "512M",
        "0",
        "64",
        "1K",
        "x" * 300,
        "\ud800",
        "é",
        "${user}",
        "null",
        "",
        "\\",
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

texts = st.lists(st.sampled_from(TOKENS), max_size=40).map("".join)
trees: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)
files = st.dictionaries(st.sampled_from(KEYS), trees, max_size=8).map(lambda tree: {"version": "1", **tree})


def assert_loads_or_is_told(text: str | bytes) -> None:
    try:
        loaded(text)
    except PolicyError as error:
        lines = 1 + len(text.splitlines())
        assert error.problems
        for problem in error.problems:
            assert 1 <= problem.line <= lines
            assert problem.column >= 1
            assert problem.message.isprintable()
            assert len(problem.message) < 500


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_file_of_the_policies_corpus_is_told(path: Path) -> None:
    assert_loads_or_is_told(path.read_bytes())


@given(st.binary(max_size=60))
def test_any_bytes_are_a_profile_or_told(data: bytes) -> None:
    assert_loads_or_is_told(data)


@given(texts)
@example("version: 1\nro:\n- /a: &a *a")
def test_any_sequence_of_tokens_is_a_profile_or_told(text: str) -> None:
    assert_loads_or_is_told(text)


@given(files)
def test_any_tree_of_words_is_a_profile_or_told(tree: dict[str, Any]) -> None:
    assert_loads_or_is_told(json.dumps(tree, ensure_ascii=False))


names = st.from_regex(r"[A-Za-z0-9_]{1,9}", fullmatch=True)
paths = st.from_regex(r"/srv(/[a-z.]{3,5}){1,3}", fullmatch=True)
# JSON writes what is beyond U+FFFF in two halves, which YAML does not know.
values = st.text(st.characters(min_codepoint=1, max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=20)
profiles = st.builds(
    lambda paths, split, names, given, network, limits: Profile(
        "x", tuple(paths[:split]), tuple(paths[split:]), tuple(names), tuple(given.items()), network, limits
    ),
    st.lists(paths, unique=True, max_size=6),
    st.integers(0, 6),
    st.lists(names.map(lambda name: f"p_{name}"), unique=True, max_size=4),
    st.dictionaries(names.map(lambda name: f"s_{name}"), values, max_size=4),
    st.sampled_from([None, "none", "loopback", "host"]),
    st.builds(
        Limits,
        st.none() | st.integers(2**22, 2**42),
        st.none() | st.integers(1, 2**22),
        st.none() | st.integers(16, 2**20),
        st.none() | st.integers(2**16, 2**40),
    ),
)


def written(profile: Profile) -> str:
    """The profile as a file: JSON is YAML where everything but ASCII is escaped."""
    limits = {
        name: str(value)
        for name in Limits.__struct_fields__
        if (value := getattr(profile.limits, name)) is not None
    }
    keys = {
        "version": "1",
        "description": profile.description,
        "ro": profile.readonly,
        "rw": profile.writable,
        "env": profile.environment,
        "set": dict(profile.variables),
        "net": profile.network,
        "limits": limits,
    }
    return json.dumps({key: value for key, value in keys.items() if value}, ensure_ascii=True)


@given(
    profiles.filter(lambda profile: all(ord(c) < 0x10000 for _, value in profile.variables for c in value))
)
def test_profile_that_was_written_is_read_as_it_was(profile: Profile) -> None:
    assert loaded(written(profile)) == profile


# Ready profiles


def test_ready_profiles_are_there() -> None:
    assert [path.stem for path in SHIPPED] == ["command-line", "daemon", "network-client"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_ready_profile_loads_and_sets_network_and_all_limits(path: Path) -> None:
    profile = load_profile(Source(path.name, path.read_bytes()))
    assert profile.description
    assert profile.network is not None
    assert None not in (getattr(profile.limits, name) for name in Limits.__struct_fields__)
    assert (profile.readonly, profile.writable, profile.environment, profile.variables) == ((), (), (), ())


def uncommented(text: str) -> str:
    """The file with the lines that it shows as examples: those of a comment that hold nothing but a key."""
    return "".join(
        line.removeprefix("# ") if line.startswith(("# ro: ", "# rw: ", "# env: ")) else line
        for line in text.splitlines(keepends=True)
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_lines_that_a_ready_profile_shows_load_too(path: Path) -> None:
    text = path.read_text()
    assert uncommented(text) != text
    assert loaded(uncommented(text)) != loaded(text)
