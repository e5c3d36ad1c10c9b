"""`fdbroker check`: the tests of a policy, their coverage, drafts, and a policy of another machine."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import SECONDS, TREE, allow, policy, wait_until

from broker import policyfiles
from broker.commands import check, progress
from broker.commands.check_reading import NOT_LOOKED_AT_OFFLINE

EXAMPLES = sorted((TREE / "policy" / "examples").glob("*.yaml"))
GOOD = policy(allow("zero", "/dev/zero", "use", "type: char"), allow("hosts", "/etc/hosts"))
TESTED = (
    GOOD
    + """\
  - {name: no-disks, deny: all, type: block}
tests:
  - {client: {uid: 5}, object: {path: /dev/zero, type: char}, access: use, expect: allow, rule: zero}
  - {client: {uid: 5}, object: {path: /etc/hosts, type: file}, access: read, expect: allow, rule: hosts}
"""
)
FAILING = (
    "  - {client: {uid: 5}, object: {path: /etc/hosts, type: file}, access: [read, write], expect: allow}\n"
)
DISKS = "  - {client: {uid: 5}, object: {path: /dev/sda, type: block}, access: read, expect: deny, rule: no-disks}\n"
DRAFT = "version: 1\nrules: [{name: r, deny: all, clients: [lab]}]\n"


class Ran:
    """What came of `fdbroker check`."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status = status
        self.output = output
        self.errors = errors

    @property
    def json(self) -> Any:
        return json.loads(self.output)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """The command, in this process."""

    def runs(*arguments: object) -> Ran:
        status = check.main([str(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    return runs


@pytest.fixture
def good(place: Path) -> Path:
    path = place / "good.yaml"
    path.write_text(TESTED)
    return path


@pytest.fixture
def tiers(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three directories that stand for the system's, none of which is there yet."""
    directories = [place / name / "policy.d" for name in ("usr", "run", "etc")]
    monkeypatch.setattr(policyfiles, "TIERS", tuple(map(str, directories)))
    return directories


def written(directory: Path, name: str, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(text)
    return directory / name


# --- tests and their coverage ----------------------------------------------------------------------------------


def test_check_runs_the_tests_of_a_policy(run: Any, good: Path) -> None:
    ran = run(good)
    assert (ran.status, ran.errors) == (0, "")
    assert re.fullmatch(r"good: 3 rules in 1 file, policy [0-9a-f]+, 2 tests passed\n", ran.output)


def test_check_shows_a_failed_test_with_its_place_and_why(run: Any, good: Path) -> None:
    good.write_text(TESTED + FAILING)
    ran = run(good)
    assert (ran.status, ran.errors) == (1, "1 of 3 tests failed\n")
    first, *why = ran.output.splitlines()
    line = (TESTED + FAILING).count("\n")
    assert first == f"good.yaml:{line}:5: the test failed: expected allow, came out deny"
    assert "    reason  denied by default: no one rule gives read+write" in why
    assert "    near    good/hosts  good.yaml:4  lacks: write" in why


def test_check_shows_all_facts_of_a_failed_test(run: Any, good: Path) -> None:
    good.write_text(TESTED + """\
  - client: {user: mia, groups: [lab], unit: none}
    object: {path: /dev/sda, type: block, device: 8:0, subsystem: block, udev: {ID_BUS: "\\x1b[2Jusb"}, attrs: {a: b}}
    access: read
    optional: ioctl
    at: 2026-12-01T18:00+01:00
    expect: allow
""")  # fmt: skip
    lines = run(good).output.splitlines()
    assert "    object  /dev/sda block 8:0 block ID_BUS=\\x1b[2Jusb attrs{a}=b" in lines
    assert "    asked   /dev/sda read, would like ioctl" in lines
    assert "    at      2026-12-01T17:00:00Z" in lines
    assert any(re.match("    client  uid not known mia; kernel groups lab; ", line) for line in lines)
    assert (
        "    denies  good/no-disks  good.yaml:5  read write create truncate ioctl list connect listen"
        in lines
    )


def test_check_shows_a_failed_test_as_json(run: Any, good: Path) -> None:
    good.write_text(TESTED + FAILING)
    ran = run("--json", good)
    (failed,) = ran.json["failed"]
    assert (ran.status, ran.json["good"], ran.json["tests"]) == (1, False, 3)
    assert (failed["expected"], failed["found"], failed["line"]) == ("allow", "deny", 9)
    assert failed["near"][0]["misses"] == [{"condition": "lacks", "how": "write"}]


def test_check_explains_no_more_failures_than_anybody_reads(run: Any, good: Path) -> None:
    good.write_text(TESTED + FAILING * 25)
    lines = run(good).output.splitlines()
    assert sum("the test failed" in line for line in lines) == 25
    assert sum(line.startswith("    reason") for line in lines) == 20
    assert lines[-1] == "the first 20 are explained; mend these, and check again"
    shown = run("--json", good).json["failed"]
    assert (len(shown), sum("reason" in one for one in shown)) == (25, 20)


def test_check_shows_rules_that_no_test_reaches_when_it_is_asked(run: Any, good: Path) -> None:
    ran = run("--coverage", good)
    assert (ran.status, ran.errors) == (1, "1 of 3 rules in no test\n")
    assert ran.output == "good.yaml:5: no test is refused by good/no-disks\n"
    shown = run("--coverage", "--json", good).json
    assert (shown["good"], shown["uncovered"]) == (
        False,
        [{"id": "good/no-disks", "file": "good.yaml", "line": 5}],
    )
    good.write_text(TESTED + DISKS)
    assert run("--coverage", good).status == 0
    assert run("--coverage", "--json", good).json["uncovered"] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_ready_policy_passes_its_own_tests_which_reach_each_of_its_rules(run: Any, path: Path) -> None:
    ran = run("--offline", "--coverage", "--json", path)
    assert (ran.status, ran.errors) == (0, "")
    expected = re.findall(r"expect: (\w+)", path.read_text())
    assert (ran.json["tests"], set(expected)) == (len(expected), {"allow", "deny"})


def test_ready_policies_are_one_good_set(run: Any) -> None:
    assert run("--offline", "--coverage", TREE / "policy" / "examples").status == 0


def test_check_tells_of_tests_that_a_higher_tier_overruled(run: Any, tiers: list[Path]) -> None:
    written(tiers[0], "10-base.yaml", TESTED + DISKS)
    written(tiers[2], "50-site.yaml", "version: 1\nmask: [10-base/no-disks]\n")
    ran = run()
    assert (ran.status, ran.errors) == (0, "")
    told, good = ran.output.splitlines()
    assert told == (
        "10-base.yaml:9:5: overruled by a higher tier: expected deny by 10-base/no-disks, came out deny by default"
    )
    assert good.endswith(", 2 tests passed")
    assert [one["line"] for one in run("--json").json["overruled"]] == [9]


def test_check_tells_which_mask_a_failed_test_met(run: Any, tiers: list[Path]) -> None:
    written(tiers[0], "10-base.yaml", GOOD)
    asked = "client: {uid: 5}, object: {path: /etc/hosts, type: file}, access: read"
    test = f"{{{asked}, expect: allow, rule: 10-base/hosts}}"
    written(tiers[2], "50-site.yaml", f"version: 1\nmask: [10-base/hosts]\ntests: [{test}]\n")
    ran = run()
    assert ran.status == 1
    assert "    masked  10-base/hosts  10-base.yaml:4 by 50-site.yaml:2" in ran.output.splitlines()


def test_check_shows_mistakes_of_tests_and_rules_together_and_runs_none(run: Any, good: Path) -> None:
    good.write_text(
        TESTED.replace("expect: allow, rule: zero", "expect: yes").replace("deny: all", "deny: al")
    )
    ran = run("--json", good)
    assert (ran.status, ran.json["good"]) == (1, False)
    assert [one["line"] for one in ran.json["problems"]] == [5, 7]


def test_daemon_and_the_other_commands_load_nothing_that_tests_a_policy() -> None:
    script = (
        "import sys, broker.commands.serve, broker.worker, broker.commands.cat, broker.commands.explain\n"
        "print(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=TREE, capture_output=True, text=True, check=True, timeout=SECONDS
    )
    loaded = set(ran.stdout.split())
    assert not {"policy.testing", "policy.testcases", "policy.testfacts"} & loaded
    assert not {name for name in loaded if name.startswith("broker.commands.check")}


# --- drafts ----------------------------------------------------------------------------------------------------


def test_check_takes_a_draft_as_the_file_of_a_name_in_the_set(run: Any, place: Path) -> None:
    directory = place / "set"
    written(directory, "10-base.yaml", "version: 1\nclients: {lab: {group: lab}}\n")
    written(directory, "20-old.yaml", DRAFT)
    draft = written(place, "draft", DRAFT.replace("[lab]}", "[lab, ghost]}, {name: r, deny: all}"))
    ran = run(directory, "--as", "20-old.yaml", draft)
    assert ran.status == 1
    places = [line.split(": ")[0] for line in ran.output.splitlines()]
    assert places == ["20-old.yaml:2:45", "20-old.yaml:2:61"]
    draft.write_text(DRAFT)
    for name, rules in (("20-old.yaml", 1), ("30-new.yaml", 2)):
        ran = run("--json", directory, "--as", name, draft)
        assert (ran.json["problems"], ran.json["rules"], ran.json["files"]) == ([], rules, rules + 1)


def test_check_takes_several_drafts_that_need_each_other(run: Any, place: Path) -> None:
    directory = place / "set"
    written(directory, "10-base.yaml", "version: 1\n")
    one, other = (
        written(place, "one", DRAFT),
        written(place, "other", "version: 1\nclients: {lab: {uid: 5}}\n"),
    )
    assert run(directory, "--as", "20-a.yaml", one).status == 1
    assert run(directory, "--as", "20-a.yaml", one, "--as", "20-b.yaml", other).status == 0
    ran = run(directory, "--as", "20-a.yaml", one, "--as", "20-a.yaml", other)
    assert (ran.status, ran.output) == (2, "")
    assert ran.errors == "fdbroker check: --as 20-a.yaml is there twice: a set has one file of a name\n"


def test_draft_is_one_of_the_administrators_in_the_systems_set(
    run: Any, place: Path, tiers: list[Path]
) -> None:
    written(tiers[0], "10-base.yaml", TESTED + DISKS)
    draft = written(place, "draft", "version: 1\nmask: [10-base/no-disks]\n")
    # As a file of the lowest tier it could mask nothing.
    assert run("--as", "50-site.yaml", draft).status == 0
    assert run("--as", "10-base.yaml", draft).output.startswith("10-base.yaml:2:8: unknown rule ")
    draft.write_text("")
    assert run("--json", "--as", "10-base.yaml", draft).json["rules"] == 0


def test_draft_may_be_the_first_file_of_a_set(run: Any, place: Path, tiers: list[Path]) -> None:
    draft = written(place, "draft", GOOD)
    assert run("--as", "10-first.yaml", draft).status == 0
    assert run().status == 2


def test_draft_need_not_be_trusted_yet_and_takes_the_faults_of_what_it_replaces(
    run: Any, place: Path, tiers: list[Path]
) -> None:
    draft = written(place, "draft", GOOD)
    draft.chmod(0o666)
    written(tiers[2], "10-a.yaml", GOOD).chmod(0o666)
    assert run().status == 1
    assert run("--as", "20-b.yaml", draft).status == 1
    assert run("--as", "10-a.yaml", draft).status == 0


@pytest.mark.parametrize("name", ["20-old", "../x.yaml", ".x.yaml", "", "/x.yaml", "\x1b[2J.yaml"])
def test_draft_under_a_name_that_no_policy_file_has_is_unusable_input(
    run: Any, good: Path, name: str
) -> None:
    ran = run(good, "--as", name, good)
    assert (ran.status, ran.output) == (2, "")
    assert ran.errors.startswith(f"fdbroker check: --as {name!a}: policy files are named ")


def test_draft_that_is_not_there_is_unusable_input(run: Any, good: Path) -> None:
    ran = run("--json", good, "--as", "x.yaml", "/no/such")
    assert (ran.status, ran.errors) == (2, "fdbroker check: /no/such: No such file or directory\n")
    assert ran.json == {"good": False, "problems": [], "error": "/no/such: No such file or directory"}


# --- for another machine ---------------------------------------------------------------------------------------


def test_offline_check_does_not_look_who_may_write_the_files(run: Any, good: Path) -> None:
    good.chmod(0o666)
    assert run(good).status == 1
    ran = run("--offline", good)
    assert ran.status == 0
    assert ran.errors == f"fdbroker check: offline, not looked at: {', '.join(NOT_LOOKED_AT_OFFLINE)}\n"
    ran = run("--offline", "--json", good)
    assert (ran.errors, ran.json["not_looked_at"]) == ("", list(NOT_LOOKED_AT_OFFLINE))
    assert "not_looked_at" not in run("--json", written(good.parent, "b.yaml", GOOD)).json


def test_offline_check_of_the_systems_own_directories_is_unusable_input(
    run: Any, place: Path, tiers: list[Path]
) -> None:
    written(tiers[2], "a.yaml", GOOD)
    for more in ([], ["--as", "b.yaml", written(place, "draft", GOOD)]):
        ran = run("--offline", *more)
        assert (ran.status, ran.output) == (2, "")
        assert ran.errors.endswith(": name the files or directories to check\n")


def test_offline_check_tells_what_it_does_not_look_at_beside_mistakes(run: Any, good: Path) -> None:
    good.write_text("version: 2\n")
    ran = run("--offline", good)
    assert (ran.status, len(ran.output.splitlines())) == (1, 1)
    assert "offline, not looked at: " in ran.errors


# --- progress --------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of a terminal that standard error is."""
    master, slave = pty.openpty()
    with open(slave, "w") as errors:
        # pytest puts a stderr of its own into sys between this and the test.
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=errors))
        yield master
    os.close(master)


def shown(master: int, until: str) -> str:
    """What the terminal shows, once that ends in `until`: what is written comes over piece by piece."""
    os.set_blocking(master, False)
    pieces: list[str] = []

    def look() -> bool:
        with contextlib.suppress(BlockingIOError):
            pieces.append(os.read(master, 65_536).decode())
        return "".join(pieces).endswith(until)

    wait_until(look, f"the terminal to show {until!r}")
    return "".join(pieces)


def test_progress_of_reading_and_of_tests_is_drawn_on_a_terminal_and_taken_away(
    terminal: int, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    monkeypatch.setattr(progress, "_EVERY", 0)
    written(good.parent, "later.yaml", "version: 1\nclients: {lab: {uid: 5}}\n")
    assert check.main([str(good.parent)]) == 0
    clear = "\r\x1b[K"
    *bars, rest = shown(terminal, f"2 of 3 rules{clear}").split(clear)
    assert [re.sub(r"^\[#*\.*\] ", "", bar) for bar in bars if bar] == [
        *(f"{line} of 12 lines" for line in (1, 3, 4, 5, 7, 8, 10, 11)),
        *("0 of 2 tests", "1 of 2 tests"),
        *(f"{rule} of 3 rules" for rule in range(3)),
    ]
    assert f"[{'#' * 15}{'.' * 15}] 1 of 2 tests" in bars
    assert (rest, all(len(re.sub(r"[^#.]", "", bar)) == 30 for bar in bars if bar)) == ("", True)
    assert clear not in capsys.readouterr().out


def test_progress_of_what_ends_early_is_taken_away(terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    items = progress.tracked([1, 2, 3], "things")
    assert next(items) == 1
    items.close()  # type: ignore[attr-defined]
    assert shown(terminal, "0 of 3 things\r\x1b[K").count("things") == 1


def test_progress_of_what_is_quick_shows_nothing(terminal: int) -> None:
    assert list(progress.tracked(range(5), "things")) == [0, 1, 2, 3, 4]
    progress.sys.stderr.write("the end")
    progress.sys.stderr.flush()
    assert shown(terminal, "the end") == "the end"


def test_progress_shows_nothing_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    assert list(progress.tracked("abc", "things")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress.tracked("abc", "things")) == ["a", "b", "c"]
