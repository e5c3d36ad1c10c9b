"""The command `fdbroker` as its users meet it: help, mistakes, and `fdbroker check`."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import FDBROKER, TREE, allow, policy

from broker.main import COMMANDS
from broker.version import VERSION

GOOD = policy(allow("zero", "/dev/zero", "use", "type: char"), allow("hosts", "/etc/hosts"))
BAD = """\
version: 1
clients:
  lab: {grop: lab}
rules:
  - {name: one, clients: [lab, teachers], allow: [reed], paths: [/srv/x]}
  - {name: one, clients: [any], allow: [read], paths: [relative]}
  - {name: two, clients: [any], allow: [read], paths: [/srv/../x], colour: red}
"""


def fdbroker(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run([*FDBROKER, *arguments], cwd=TREE, capture_output=True, text=True, **options)


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_names_each_command_and_the_exit_statuses(word: str) -> None:
    ran = fdbroker(word)
    assert (ran.returncode, ran.stderr) == (0, "")
    for name, (_, what) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(what)}$", ran.stdout, re.MULTILINE)
    assert "exit status: 0 yes, 1 no" in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 110


def test_command_whose_output_nobody_reads_gives_no_answer_by_its_status() -> None:
    """A traceback would end it with 1, which is a "no"."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run(
            [*FDBROKER, "schema"], cwd=TREE, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30
        )
    finally:
        os.close(writer)
    assert (ran.returncode, ran.stderr) == (120, "")


def test_nothing_to_do_is_shown_how_to_use_it() -> None:
    ran = fdbroker()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: fdbroker COMMAND")


def test_version_is_shown() -> None:
    assert fdbroker("--version").stdout == f"fdbroker {VERSION}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_its_exit_statuses(name: str) -> None:
    ran = fdbroker(name, "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"usage: fdbroker {name} ")
    assert "exit status" in ran.stdout


@pytest.mark.parametrize(
    "words", [["nothing"], ["--verbose"], [""], ["Serve"], ["serve.py"], ["broker.main"]]
)
def test_unknown_command_names_those_that_there_are(words: list[str]) -> None:
    ran = fdbroker(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"fdbroker: no command {words[0]!r}; there are: {', '.join(COMMANDS)}\n"


@pytest.mark.parametrize("name", ["serve", "check"])
def test_unknown_option_is_unusable_input(name: str) -> None:
    ran = fdbroker(name, "--no-such-option")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--no-such-option" in ran.stderr


def test_command_imports_nothing_of_the_others() -> None:
    script = "import sys, broker.main; broker.main.main(['--version']); print(*sys.modules)"
    ran = subprocess.run([FDBROKER[0], "-c", script], cwd=TREE, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert not {"yaml", "msgspec", "prctl", "argparse", "socket", "policy", "sandboxed"} & loaded


def test_start_of_a_command_loads_no_more_than_it_needs() -> None:
    # Each of these takes some milliseconds, of which everybody who starts a program waits. And what reads a
    # client's messages is the worker's: the supervisor should not even hold it.
    script = "import sys, broker.commands.run, broker.commands.policies, broker.embedded; print(*sys.modules)"
    ran = subprocess.run([FDBROKER[0], "-c", script], cwd=TREE, capture_output=True, text=True, check=True)
    slow = {"argparse", "dataclasses", "inspect", "hashlib", "pathlib", "difflib", "traceback", "msgspec"}
    of_the_worker = {"broker.worker", "broker.messages", "broker.connection", "broker.service"}
    of_the_starter = {
        "sandboxed.confinement.chain",
        "sandboxed.confinement.newroot",
        "sandboxed.confinement.layers",
        "prctl",
    }
    of_the_administrator = {"policy.shapes", "policy.fileschema", "policy.termwords", "ipaddress"}
    of_the_administrator |= {"policy.explain", "policy.testcases", "broker.explaining", "broker.peers"}
    of_the_administrator |= {"policy.diff", "policy.replaying", "policy.suggesting", "broker.recorded"}
    assert not (slow | of_the_worker | of_the_starter | of_the_administrator) & set(ran.stdout.split())


def test_schema_is_printed_for_people_and_in_one_line() -> None:
    shown, in_line = fdbroker("schema"), fdbroker("schema", "--json")
    assert (shown.returncode, shown.stderr, in_line.returncode, in_line.stderr) == (0, "", 0, "")
    assert json.loads(shown.stdout) == json.loads(in_line.stdout)
    assert shown.stdout == (TREE / "docs/policy.schema.json").read_text()
    assert len(in_line.stdout.splitlines()) == 1


# --- check -------------------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return path


def test_check_of_a_good_policy_says_so(good: Path) -> None:
    ran = fdbroker("check", str(good))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"good: 2 rules in 1 file, policy [0-9a-f]+\n", ran.stdout)


def test_check_of_a_good_policy_as_json(good: Path) -> None:
    ran = fdbroker("check", "--json", str(good))
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = json.loads(ran.stdout)
    assert {**shown, "policy": ""} == {
        **{"good": True, "problems": [], "files": 1, "rules": 2, "policy": ""},
        **{"findings": [], "unseen": []},
        **{"tests": 0, "failed": [], "overruled": []},
    }
    assert re.fullmatch("[0-9a-f]+", shown["policy"])


def test_check_shows_all_mistakes_at_once_with_their_places(bad: Path) -> None:
    ran = fdbroker("check", str(bad))
    assert ran.returncode == 1
    lines = ran.stdout.splitlines()
    assert all(re.match(r"bad\.yaml:\d+:\d+: \S", line) for line in lines), lines
    found = [(int(line.split(":")[1]), line) for line in lines]
    expected = [
        (3, "grop"),
        (5, "teachers"),
        (5, "reed"),
        (6, "one"),
        (6, "relative"),
        (7, "'..'"),
        (7, "colour"),
    ]
    for number, part in expected:
        assert any(line == number and part in text for line, text in found), (number, part, lines)
    assert f"{len(lines)} mistakes found" in ran.stderr


def test_check_shows_the_column_of_a_mistake(bad: Path) -> None:
    ran = fdbroker("check", "--json", str(bad))
    assert ran.returncode == 1
    shown = json.loads(ran.stdout)
    assert shown["good"] is False
    places = BAD.splitlines()
    (unknown,) = [one for one in shown["problems"] if "colour" in one["message"]]
    assert (unknown["file"], unknown["line"]) == ("bad.yaml", 7)
    assert unknown["column"] == places[6].index("colour") + 1
    (word,) = [one for one in shown["problems"] if "reed" in one["message"]]
    assert word["column"] == places[4].index("reed") + 1
    assert "read" in word["message"]


def test_check_shows_the_mistakes_of_all_files(tmp_path: Path, good: Path, bad: Path) -> None:
    (tmp_path / "worse.yaml").write_text("version: [1\n")
    ran = fdbroker("check", str(tmp_path))
    assert ran.returncode == 1
    named = {line.split(":")[0] for line in ran.stdout.splitlines()}
    assert named == {"bad.yaml", "worse.yaml"}


def test_check_of_a_directory_warns_of_names_that_it_ignores(tmp_path: Path, good: Path) -> None:
    for name in ("good.yml", "-x.yaml", "README"):
        (tmp_path / name).write_text("version: 7\n")
    (tmp_path / ".hidden.yaml").write_text("version: 7\n")
    ran = fdbroker("check", str(tmp_path))
    assert ran.returncode == 0
    assert [line.split(" is ignored")[0] for line in ran.stderr.splitlines()] == [
        f"fdbroker check: {tmp_path / name}" for name in ("-x.yaml", "README", "good.yml")
    ]


def test_check_names_what_it_ignores_where_there_is_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text("version: 1\n")
    ran = fdbroker("check", str(tmp_path))
    assert ran.returncode == 2
    assert ran.stderr.endswith(f"lies in {tmp_path} (ignored by their names: {tmp_path}/good.yml)\n")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_reader_that_has_read_enough_is_no_trouble(options: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [*FDBROKER, "schema", *options], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writing)
    assert ran.stderr == b""


@pytest.mark.parametrize("name", ["no-such.yaml", "no-such-directory/x.yaml"])
def test_check_of_what_is_not_there_is_unusable_input(tmp_path: Path, name: str) -> None:
    ran = fdbroker("check", str(tmp_path / name))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"fdbroker check: {tmp_path / name}: No such file or directory\n"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_check_of_what_is_no_regular_file_is_unusable_input(path: str) -> None:
    ran = fdbroker("check", path)
    assert (ran.returncode, ran.stderr) == (2, f"fdbroker check: {path}: not a regular file\n")


def test_check_of_a_fifo_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    assert fdbroker("check", str(tmp_path / "fifo.yaml"), timeout=20).returncode == 2


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"version: \x00", b"5", b"[]", b"rules: []\n", b"version: 2\n"]
)
def test_check_of_any_bytes_is_an_answer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    ran = fdbroker("check", str(tmp_path / "x.yaml"))
    assert ran.returncode == 1
    assert re.match(r"x\.yaml:\d+:\d+: ", ran.stdout)
    assert "Traceback" not in ran.stderr


def test_check_of_an_empty_file_finds_no_rule_and_no_mistake(tmp_path: Path) -> None:
    # In a directory of policies an empty file masks another of its name.
    (tmp_path / "x.yaml").write_bytes(b"")
    ran = fdbroker("check", str(tmp_path / "x.yaml"))
    assert ran.returncode == 0
    assert ran.stdout.startswith("good: 0 rules in 1 file")
