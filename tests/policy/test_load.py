"""What a malformed policy is told: each message with its place, all of them at once."""

import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from policy import (
    ALLOW,
    DENY,
    FileType,
    PolicyError,
    Rights,
    SocketDeclaration,
    Source,
    document,
    load,
    parse_rights,
    problems,
)
from tests.policy.tables import cases

HEAD = "version: 1\n"
RULE = "name: r, clients: [any], allow: read, paths: [/a]"


@pytest.fixture(autouse=True, params=["C", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both of PyYAML's parsers, since which one is there depends on how it was built."""
    if request.param == "C" and not yaml.__with_libyaml__:
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(document, "_LOADER", yaml.CSafeLoader if request.param == "C" else yaml.SafeLoader)
    return str(request.param)


def told(*texts: str | bytes) -> list[str]:
    """Return the problems of a set of files named a.yaml, b.yaml, …"""
    with pytest.raises(PolicyError) as error:
        load([Source(f"{chr(97 + place)}.yaml", text) for place, text in enumerate(texts)])
    assert str(error.value) == "\n".join(map(str, error.value.problems))
    return [str(problem) for problem in error.value.problems]


def in_rule(more: str) -> str:
    """Return a policy of one rule, which stands in line 3 from column 5 on."""
    return f"{HEAD}rules:\n  - {{{more}}}\n"


def test_policy_of_every_word_is_read() -> None:
    policy = load([Source("30-site.yaml", """\
version: 1
clients:
  lab: {user: [mia, "no", tom$], uid: [7, 100000-165535], group: lab, gid: 0-4294967294, socket: [gpu, default]}
sockets:
  gpu: {path: /run/fdbroker/gpu.sock, owner: root, group: gpu, mode: 0640}
  bare: {path: /run/bare}
rules:
  - name: everything
    clients: [lab, {uid: 5}, any]
    except_clients: {user: eve}
    allow: [read, write, truncate, ioctl, append]
    type: [char, block]
    paths: [/dev/a, "/dev/b*"]
    except_paths: /dev/b1
  - {name: deny-all, deny: all}
  - {name: short, allow: use, clients: any, paths: /a}
""")])  # fmt: skip
    deny, rule, short = policy.rules
    assert [rule.id for rule in policy.rules] == ["30-site/deny-all", "30-site/everything", "30-site/short"]
    assert (rule.file, rule.line, rule.action, rule.name) == ("30-site.yaml", 8, ALLOW, "everything")
    assert rule.rights == parse_rights(["use", "edit"])
    assert rule.types == frozenset((FileType.CHAR, FileType.BLOCK))
    assert [pattern.text for pattern in rule.paths + rule.except_paths] == ["/dev/a", "/dev/b*", "/dev/b1"]
    lab, inline, anyone = rule.clients
    assert lab.users == frozenset(("mia", "no", "tom$"))
    assert (lab.groups, lab.sockets) == (frozenset(("lab",)), frozenset(("gpu", "default")))
    assert (lab.uids, lab.gids) == (((7, 7), (100000, 165535)), ((0, 4294967294),))
    assert (inline.uids, inline.users, anyone.any_account) == (((5, 5),), None, True)
    assert [client.users for client in rule.except_clients] == [frozenset(("eve",))]
    assert (deny.action, deny.rights, deny.types, deny.paths, deny.clients) == (
        DENY,
        Rights(511),
        None,
        (),
        (),
    )
    assert short.types == frozenset((FileType.FILE,))
    assert policy.sockets == {
        "gpu": SocketDeclaration("gpu", "/run/fdbroker/gpu.sock", "root", "gpu", 0o640),
        "bare": SocketDeclaration("bare", "/run/bare", None, None, 0o660),
    }


@pytest.mark.parametrize(("text", "mode"), [("0000", 0), ("000", 0), ("600", 0o600), ("0666", 0o666)])
def test_mode_of_a_socket_is_octal_and_none_at_all_is_kept(text: str, mode: int) -> None:
    policy = load([Source("a.yaml", f"{HEAD}sockets: {{a: {{path: /a, mode: {text}}}}}\n")])
    assert policy.sockets["a"].mode == mode


@pytest.mark.parametrize("text", ["", "# nothing\n", "# nothing\r\n", b"\xef\xbb\xbf", "\n\n"])
def test_file_without_content_declares_nothing(text: str | bytes) -> None:
    assert load([Source("a.yaml", text)]).rules == ()


@pytest.mark.parametrize(("rule", "expected"), cases("faulty_rules.txt"))
def test_faulty_rule_is_told_with_its_line_and_column(rule: str, expected: list[str]) -> None:
    names = "clients: {lab: {user: mia}}\nsockets: {gpu: {path: /run/gpu}}\n"
    assert told(in_rule(rule) + names) == expected


@pytest.mark.parametrize("word", ["create", "list", "connect", "listen"])
def test_every_right_may_be_denied(word: str) -> None:
    (rule,) = load([Source("a.yaml", in_rule(f"name: r, deny: {word}"))]).rules
    assert rule.rights == parse_rights([word])


@pytest.mark.parametrize(("text", "expected"), cases("faulty_files.txt"))
def test_faulty_file_is_told_with_its_line_and_column(text: str, expected: list[str]) -> None:
    assert told(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (b"version: 1\n# \xff\n", "2:3", "byte 0xff is not UTF-8"),
        (b"version: 1\n\xc3\xa4\xc3\xa4 \xc3(\n", "2:4", "byte 0xc3 is not UTF-8"),
        (b"version: 1\n#\x0b\x0c\n# \xff\n", "3:3", "byte 0xff is not UTF-8"),
        ("version: 1\n# \ud800\n", "2:3", "this is no text that encodes to UTF-8"),
        ("version: 1\n# \x07\n", "2:3", "the character '\\x07' is not allowed"),
        ("version: 1\n# a\u2028x: 1\n", "2:4", "the character '\\u2028' is not allowed"),
        ("version: 1\r\n# a\rx: 1\n", "2:4", "the character '\\r' is not allowed"),
        ("version: 1\nx: 'y\n", "3:1", "this is not YAML: while "),
        ("version: 1\n\tx: 1\n", "2:1", "this is not YAML: "),
        ("version: 1\nx\n", "3:1", "this is not YAML: "),
    ],
)
def test_what_is_not_yaml_is_told_with_its_place(text: str | bytes, place: str, message: str) -> None:
    (problem,) = told(text)
    assert problem.startswith(f"a.yaml:{place}: {message}")


@pytest.mark.parametrize("value", ["/dev/tty[0-9]", "tcp:[::]:443, x", "@x", "`x`", "%x", "*", "a: b: c"])
def test_value_that_needs_quotes_is_told_so(value: str) -> None:
    problems_told = told(in_rule(f"name: r, deny: all, paths: [{value}]"))
    assert "; quote values that hold one of [ ] { } : * & ! @ ` %" in problems_told[0]


def test_value_that_was_quoted_is_read() -> None:
    (rule,) = load([Source("a.yaml", in_rule("name: r, deny: all, paths: ['/dev/tty[0-9]']"))]).rules
    assert rule.paths[0].text == "/dev/tty[0-9]"


def test_scalars_are_text_and_never_what_yaml_makes_of_them() -> None:
    text = in_rule("name: 0403, deny: all, clients: [{user: [no, on, y, True]}], paths: /0x1F")
    (rule,) = load([Source("a.yaml", text)]).rules
    assert rule.name == "0403"
    assert rule.clients[0].users == frozenset(("no", "on", "y", "True"))
    assert rule.paths[0].text == "/0x1F"


@pytest.mark.parametrize("value", ["0017", "1_000", "0b1", "1e3", "1.0", "+5", "-5", "5-", "2026-12-01"])
def test_number_that_yaml_would_convert_is_no_uid(value: str) -> None:
    assert told(in_rule(f"name: r, deny: all, clients: [{{uid: {value}}}]"))[0].startswith(
        "a.yaml:3:42: uid is "
    )


def test_all_problems_of_all_files_are_told_at_once_in_order() -> None:
    rule = "name: r, clients: [ghost], allow: raed"
    places = [problem.split(": ")[0] for problem in told(in_rule(rule), in_rule(rule), "x")]
    expected = ["3:5", "3:25", "3:40"]
    assert places == [f"{file}:{place}" for file in ("a.yaml", "b.yaml") for place in expected] + [
        "c.yaml:1:1"
    ]


def test_names_lead_from_file_to_file_in_any_order() -> None:
    using = Source("10-a.yaml", in_rule("name: r, deny: all, clients: [lab]"))
    declaring = Source(
        "20-b.yaml", f"{HEAD}clients: {{lab: {{socket: gpu}}}}\nsockets: {{gpu: {{path: /run/gpu}}}}\n"
    )
    for files in ([using, declaring], [declaring, using]):
        (rule,) = load(files).rules
        assert rule.clients[0].sockets == frozenset(("gpu",))


def test_faulty_client_is_declared_all_the_same() -> None:
    text = f"{HEAD}clients: {{lab: {{user: 5}}}}\nrules: [{{name: r, deny: all, clients: [lab]}}]\n"
    assert told(text) == [
        "a.yaml:2:23: user is '5', expected an account's name (numbers belong under uid or gid)"
    ]


def test_digest_names_the_text_and_not_the_order() -> None:
    one, two = Source("a.yaml", in_rule(RULE)), Source("b.yaml", HEAD)
    digests = [load(files).digest for files in ([one, two], [two, one], [one], [two], [])]
    assert digests[0] == digests[1]
    assert len(set(digests[1:])) == 4
    assert load([Source("a.yaml", in_rule(RULE).encode())]).digest == digests[2]


def test_ids_of_two_files_with_one_stem_collide() -> None:
    with pytest.raises(
        PolicyError, match=r"y/a\.yaml:3:12: rule 'a/r' is declared twice, first at x/a\.yaml:3:12"
    ):
        load([Source("x/a.yaml", in_rule(RULE)), Source("y/a.yaml", in_rule(RULE))])


# Bombs: an error and little memory, never the memory.


def test_bomb_of_anchors_is_an_error_without_being_expanded() -> None:
    lines = ["a0: &a0 [x]"] + [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 20)
    ]
    tracemalloc.start()
    try:
        found = told(HEAD + "\n".join(lines) + "\n")
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 2_000_000
    assert "a.yaml:2:5: the anchor '&a0' is not allowed" in found
    assert "a.yaml:3:10: the alias '*a0' is not allowed: write the value out" in found


@pytest.mark.parametrize(("opening", "place"), [("[", "3:35"), ("{a: ", "3:125"), ("- ", "3:65")])
def test_nesting_beyond_the_limit_is_an_error(opening: str, place: str) -> None:
    assert told(f"{HEAD}rules:\n  - {opening * 100_000}\n") == [f"a.yaml:{place}: nested more than 32 deep"]


def test_nesting_in_what_is_passed_over_costs_nothing() -> None:
    text = f"{HEAD}rules: []\nrules: {'[' * 300}{']' * 300}\n"
    assert told(text) == ["a.yaml:3:1: duplicate key 'rules', first on line 2"]


@pytest.mark.parametrize(
    ("before", "place"), [("tests: ", "2:1008"), ("? ", "2:1003"), ("rules: []\nrules: ", "3:1008")]
)
def test_nesting_in_what_is_passed_over_ends_where_it_would_cost_much_time(before: str, place: str) -> None:
    found = told(f"{HEAD}{before}{'[' * 100_000}")
    assert found[-1] == f"a.yaml:{place}: nested more than 1000 deep"


def test_file_over_the_size_limit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "FILE_BYTES", 20)
    assert load([Source("a.yaml", HEAD.ljust(20, "#"))]).rules == ()
    assert told(HEAD.ljust(21, "#")) == ["a.yaml:1:1: the file has 21 bytes, expected at most 20"]


def test_entry_over_the_value_limit_is_an_error_and_many_entries_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(document, "VALUES_PER_ENTRY", 20)
    rules = "".join(f"  - {{name: r{number}, deny: all}}\n" for number in range(50))
    assert len(load([Source("a.yaml", f"{HEAD}rules:\n{rules}")]).rules) == 50
    (problem,) = told(in_rule(f"name: r, deny: all, paths: [{', '.join(['/a'] * 30)}]"))
    assert problem.endswith(": more than 20 values in one entry")


def test_file_with_too_many_problems_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "PROBLEMS_PER_FILE", 5)
    found = told(f"{HEAD}rules: [{'x, ' * 50}y]\n", "x")
    assert len(found) == 6
    assert found[4].endswith(": this file has 5 problems or more; the rest is not shown")
    assert found[5].startswith("b.yaml:1:1:")


def test_unknown_names_beyond_the_problem_limit_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "PROBLEMS_PER_FILE", 5)
    assert len(told(in_rule(f"name: r, deny: all, clients: [{', '.join(['ghost'] * 50)}]"))) == 5


# Ready policies

EXAMPLES = sorted((Path(__file__).parents[2] / "policy" / "examples").glob("*.yaml"))


def test_examples_are_there() -> None:
    assert len(EXAMPLES) >= 3


def example_sources() -> Iterable[Source]:
    return [Source(path.name, path.read_bytes()) for path in EXAMPLES]


@pytest.mark.parametrize("source", example_sources(), ids=lambda source: source.name)
def test_example_loads_and_grants_something(source: Source) -> None:
    assert any(rule.action == ALLOW for rule in load([source]).rules)


def test_examples_load_together() -> None:
    assert len(load(example_sources()).rules) == sum(
        len(load([source]).rules) for source in example_sources()
    )
