"""`fdbroker suggest`: rules for what was refused, never for more, whatever an audit holds."""

import json
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import is_device

from broker.commands import check
from broker.commands import suggest as suggest_command
from broker.commands.suggest import file_lines
from broker.recorded import Reading, Recall, decision_of
from broker.suggesting import Suggestions, Unseen, suggest
from policy import FileType, Object, Policy, Request, Source, load, parse_rights
from policy.problems import PolicyError
from tests.broker.audits import DAY, found, ran, record

OLD = """\
version: 1
rules:
  - {name: hosts, clients: [{uid: 1000}], allow: [read], paths: [/etc/hosts]}
  - {name: no-keys, deny: [read], paths: ["/srv/keys/*"]}
"""


def suggested(*lines: str, policy: str | None = OLD, look: Any = None) -> Suggestions:
    """What is suggested for these records."""
    old = None if policy is None else load([Source("30-old.yaml", policy)])
    recall = None if old is None else Recall(old)
    decisions = [decision_of(number, json.loads(line)) for number, line in enumerate(lines, 1)]
    try:
        return suggest([one for one in decisions if one is not None], old, recall, look)
    finally:
        if recall is not None:
            recall.close()


def text_of(suggestions: Suggestions) -> str:
    return "\n".join(file_lines(suggestions, Reading("-"))) + "\n"


def loaded(suggestions: Suggestions, old: str = OLD) -> Policy:
    return load([Source("30-old.yaml", old), Source("90-new.yaml", text_of(suggestions))])


X = found("/srv/x")


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (record("/srv/x", **X), ("read", "file", "/srv/x")),
        (record("/srv/x", "read write truncate", **X), ("read, write, truncate", "file", "/srv/x")),
        (record("/dev/x", "read ioctl", **found("/dev/x", "char")), ("read, ioctl", "char", "/dev/x")),
        (record("/srv/a*b?[c]{d}", **found("/srv/a*b?[c]{d}")), ("read", "file", "/srv/a[*]b[?][[]c][{]d[}]")),
        (record("/srv/${user}", **found("/srv/${user}")), ("read", "file", "/srv/$[{]user[}]")),
        (record("/srv/**", **found("/srv/**")), ("read", "file", "/srv/[*][*]")),
        (record('/srv/"}, x: [é', **found('/srv/"}, x: [é')), ("read", "file", '/srv/\\"[}], x: [[]é')),
        (record("/dev/by-id/a", link=True, **found("/dev/x", "char")), ("read", "char", "/dev/by-id/a")),
    ],
)  # fmt: skip
def test_rule_names_what_was_asked_for_and_no_more(line: str, rule: tuple[str, str, str]) -> None:
    (one,) = suggested(line).made
    rights, kind, path = rule
    assert one.text.splitlines()[2:] == [
        f"    allow: [{rights}]",
        f"    type: {kind}",
        f'    paths: ["{path}"]',
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (record("/srv/x", rule="30-old/no", **X), "the deny 30-old/no refused it"),
        (record("/srv/keys/x", **found("/srv/keys/x")), "the deny 30-old/no-keys of the policy refuses it"),
        (record("/etc/hosts", **found("/etc/hosts")), "the policy gives it by now: 30-old/hosts"),
        (record("/srv/x", by="broker", reason="a directory"), "the broker gives it to nobody: a directory"),
        (record("/srv/x", reason="it has 2 hard links", **X), "it was not refused for want of a rule: it has 2"),
        (record("/srv/x"), "the record does not say what it is"),
        (record("/srv/x", **found("/srv/y")), "a link leads to /srv/y"),
        (record("/srv/../x", **X), "no request for such a path is ever allowed: '..'"),
        (record("/srv/x\n", **found("/srv/x\n")), "does not show"),
        (record("/srv/\\x", **found("/srv/\\x")), "a backslash is not allowed"),
        (record("/srv/x ", **found("/srv/x ")), "white space"),
        (record("/srv/\udcff", **found("/srv/\udcff")), "no text that encodes to UTF-8"),
        (record("/dev/tty", **found("/dev/tty", "char")), "each process has its own"),
        (record("/srv/x", "append", **X), "does not keep 'allow: append, without write'"),
        (record("/srv/x", "create", **X), "whose the files are that are made"),
        (record("/srv/x", **found("/srv/x", "directory")), "nothing of a directory can be given but list"),
        (record("/srv/x", peer={"socket": "gpu"}, **X), "it came by the socket 'gpu'"),
        (record("/srv/x", peer={"uid": None}, **X), "the uid is not known"),
        (record("/srv/x", peer={"unit": "a b.service"}, **X), "unit is 'a b.service'"),
    ],
)  # fmt: skip
def test_what_no_rule_is_for_is_told_and_left_out(line: str, why: str) -> None:
    suggestions = suggested(line)
    assert suggestions.made == ()
    assert why in suggestions.left_out[0].why
    assert why.replace("\n", "") in " ".join(text_of(suggestions).replace("# ", "").split())
    assert loaded(suggestions).rules == load([Source("30-old.yaml", OLD)]).rules


def test_like_refusals_are_one_rule_with_their_count_and_times() -> None:
    times = [f"{DAY}09:00:00Z", f"{DAY}08:00:00Z", f"{DAY}10:00:00Z"]
    suggestions = suggested(*(record("/srv/x", time=time, optional=["write"], **X) for time in times))
    (one,) = suggestions.made
    assert (one.refusal.times, one.refusal.programs) == (3, ("/usr/bin/x",))
    head = text_of(suggestions).splitlines()
    assert "  # 3 times, 2026-11-23T08:00:00Z to 2026-11-23T10:00:00Z; uid 1000" in "\n".join(head)
    assert "  # rights that it would have liked are not in the rule" in head


def test_client_is_the_account_in_its_unit_or_a_number_that_has_none() -> None:
    root = pwd.getpwuid(0).pw_name
    line = record("/srv/x", peer={"uid": 0, "unit": "web.service"}, **X)
    (named,) = suggested(line).made
    assert f'clients: [{{user: "{root}", unit: "web.service", socket: "default"}}]' in named.text
    (numbered,) = suggested(record("/srv/x", peer={"uid": 64_998}, **X)).made
    assert 'clients: [{uid: "64998", socket: "default"}]' in numbered.text


def test_type_is_looked_at_where_the_record_does_not_say() -> None:
    (one,) = suggested(record("/dev/x"), look=lambda path: Object(path, FileType.CHAR)).made
    assert "    type: char" in one.text
    assert "its type is what lies there now" in one.notes[0]

    def unseen(path: str) -> Object:
        raise Unseen("it is gone")

    assert suggested(record("/dev/x"), look=unseen).left_out[0].why == "it is gone"


# --- laws ------------------------------------------------------------------------------------------------

NASTY = [
    *(
        "a",
        "b",
        "*",
        "**",
        "?",
        "[",
        "]",
        "[a]",
        "{",
        "}",
        "${user}",
        "${home}",
        "\\",
        '"',
        "'",
        "#",
        ": ",
        "- ",
    ),
    *(
        "\n",
        "\r",
        "\t",
        "\x00",
        "\x1b[2J",
        "\x85",
        "\u2028",
        "\ufeff",
        "\u202e",
        "\udcff",
        "é",
        "\U0001f600",
        " ",
    ),
    *(
        "..",
        ".",
        "/",
        "//",
        "x\n  - {name: y, clients: any, allow: [use], paths: ['/**']}",
        "&a",
        "!!x",
        "%",
        "@",
        "`",
    ),
]
texts = st.lists(st.sampled_from(NASTY), min_size=1, max_size=4).map("".join)
rights_of = st.sampled_from(
    ["read", "write", "read write", "use", "edit", "append", "truncate ioctl", "list"]
)


@st.composite
def records(draw: st.DrawFn) -> str:
    path = "/srv/" + draw(texts)
    peer: dict[str, Any] = {"uid": draw(st.sampled_from([0, 1000, 64_998, 2**32 - 1, -1]))}
    peer["unit"] = draw(st.sampled_from([None, "", "web.service"])) or draw(st.none() | texts)
    peer["exe"] = draw(st.none() | texts)
    kind = draw(st.sampled_from(["file", "char", "fifo", "block", "directory"]))
    leads = path if draw(st.integers(0, 3)) else "/srv/" + draw(texts)
    more = draw(
        st.sampled_from([{}, {"rule": draw(texts)}, {"reason": draw(texts)}, {"optional": ["ioctl"]}])
    )
    return record(path, draw(rights_of), peer=peer, **{**found(leads, kind), **more})


@settings(deadline=None, max_examples=60)
@given(st.lists(records(), min_size=1, max_size=4), records())
def test_suggested_file_gives_what_was_refused_and_nothing_else(lines: list[str], other: str) -> None:
    suggestions = suggested(*lines)
    text = text_of(suggestions)
    alone = load([Source("90-new.yaml", text)])
    assert [rule.name for rule in alone.rules] == sorted(one.name for one in suggestions.made)
    together = loaded(suggestions)
    recall = Recall(together)
    try:
        for one in suggestions.made:
            facts = recall.facts(one.refusal.sample)
            assert together.decide(facts.request, facts.peer, facts.object, facts.now).allowed
            assert alone.decide(facts.request, facts.peer, facts.object, facts.now).allowed
        probe = decision_of(1, json.loads(other))
        assert probe is not None
        for rights in ("read", "write", "use", "read write", "truncate"):
            facts = recall.facts(probe)
            request = Request(probe.path, parse_rights(rights.split()))
            if alone.decide(request, facts.peer, facts.object, facts.now).allowed:
                assert any(
                    (one.refusal.sample.uid, one.refusal.sample.path, one.type)
                    == (probe.uid, probe.path, probe.type)
                    and request.needed
                    in parse_rights(word for word in one.text.split("allow: [")[1].split("]")[0].split(", "))
                    for one in suggestions.made
                )
    finally:
        recall.close()


# --- the command -----------------------------------------------------------------------------------------


def run(place: Path, lines: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    (place / "old.yaml").write_text(OLD)
    (place / "audit.jsonl").write_text("".join(f"{line}\n" for line in lines))
    words = ["--policy", str(place / "old.yaml"), *options, str(place / "audit.jsonl")]
    return ran(suggest_command.main, *words)


def test_file_that_is_printed_is_one_that_check_reads(place: Path) -> None:
    answer = run(place, [record("/srv/x", **X), record("/srv/y\n- x", **X), "garbage"])
    assert (answer.returncode, answer.stderr) == (0, "")
    (place / "suggested.yaml").write_text(answer.stdout)
    checked = ran(check.main, str(place / "suggested.yaml"))
    assert checked.stdout.startswith("good: 1 rule")
    assert "# 1 line passed over, no record: line 3" in answer.stdout


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ((), 0),
        (("--user", "1000"), 0),
        (("--user", "1001"), 1),
        (("--path", "/srv/*"), 0),
        (("--path", "/dev/*"), 1),
        (("--since", "2026-11-23T09:12Z"), 0),
        (("--since", "2026-11-23T09:13Z"), 1),
        (("--policy", "/no/such"), 2),
        (("--since", "x"), 2),
    ],
)
def test_status_is_that_of_what_was_chosen(place: Path, options: tuple[str, ...], status: int) -> None:
    assert run(place, [record("/srv/x", **X)], *options).returncode == status


@pytest.mark.skipif(not is_device("/dev/null"), reason="needs /dev/null")
def test_command_looks_at_what_lies_there_and_offline_it_does_not(place: Path) -> None:
    (place / "file").write_text("x")
    (place / "file").chmod(0o644)
    os.mkfifo(place / "fifo")
    lines = [record(f"{place}/{name}") for name in ("file", "fifo", "nothing")] + [record("/proc/self/mem")]
    shown = json.loads(run(place, lines, "--json").stdout)
    assert [(one["path"], one["type"]) for one in shown["rules"]] == [
        (f"{place}/file", "file"),
        (f"{place}/fifo", "fifo"),
    ]
    whys = {one["path"]: one["why"] for one in shown["left_out"]}
    assert "No such file" in whys[f"{place}/nothing"]
    assert "procfs" in whys["/proc/self/mem"]
    assert run(place, lines, "--offline").returncode == 1


def test_policy_with_mistakes_is_unusable(place: Path) -> None:
    with pytest.raises(PolicyError):
        load([Source("x.yaml", "version: 2\n")])
    (place / "bad.yaml").write_text("version: 2\n")
    answer = run(place, [record("/srv/x", **X)], "--policy", str(place / "bad.yaml"))
    assert answer.returncode == 2
    assert "mistakes" in answer.stderr
