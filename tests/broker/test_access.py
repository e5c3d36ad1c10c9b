"""The command `fdbroker access`."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from support import FDBROKER, TREE, allow, policy

from broker.commands.access import EXPANSIONS
from broker.commands.access_words import MARKED
from broker.survey import NAMES_PER_SEARCH, OBJECTS_PER_PATTERN
from tests.broker.people import USERS


def access(things: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    rules = things / "30-site.yaml"
    if not rules.exists():
        head = "devices: {memory: {type: char, device: '1:*'}, other: {device: '1:250'}}\n"
        rules.write_text(
            policy(
                allow("null", "/dev/null", "use", "type: char", "any"),
                allow("file", f"{things}/f*", clients=f"{{uid: {USERS[0].pw_uid}}}"),
                allow("gone", f"{things}/gone"),
                head=head,
            )
        )
    return subprocess.run(
        [*FDBROKER, "access", "--policy", str(rules), *words], cwd=TREE, capture_output=True, text=True
    )


def paths(ran: subprocess.CompletedProcess[str]) -> list[str]:
    return [one["path"] for sheet in json.loads(ran.stdout)["sheets"] for one in sheet["objects"]]


def test_command_shows_all_that_can_be_given(things: Path) -> None:
    ran = access(things, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert paths(ran) == ["/dev/null", f"{things}/file"]
    told = json.loads(ran.stdout)
    assert told["sheets"][0]["rows"][0]["who"] == "any account"
    assert told["sheets"][0]["rows"][0]["rule"] == {"id": "30-site/null", "file": "30-site.yaml", "line": 4}
    assert [one["path"] for one in told["absent"]] == [f"{things}/gone"]
    text = access(things).stdout
    assert "/dev/null char 1:3" in text
    assert re.search(r"^any account \(\d+\) +read write ioctl +- +30-site/null$", text, re.MULTILINE)
    assert f"not there: {things}/gone: No such file or directory" in text


def test_command_shows_what_was_named_whoever_gets_it(things: Path) -> None:
    ran = access(things, "--json", "--path", f"{things}/file", f"{things}/secret", f"{things}/no")
    assert ran.returncode == 0
    assert paths(ran) == [f"{things}/file", f"{things}/secret"]
    assert access(things, "--path", f"{things}/secret").returncode == 1


def test_command_shows_the_nodes_of_a_device_group(things: Path) -> None:
    ran = access(things, "--json", "--device", "memory")
    assert ran.returncode == 0
    assert {"/dev/null", "/dev/zero"} <= set(paths(ran))
    assert access(things, "--device", "other").returncode == 1


def test_command_shows_what_one_user_gets(things: Path) -> None:
    name = USERS[1].pw_name
    ran = access(things, "--user", name, "--json")
    assert (ran.returncode, paths(ran)) == (0, ["/dev/null"])
    assert all(row["accounts"] == [name] for row in json.loads(ran.stdout)["sheets"][0]["rows"])
    assert re.search(
        r"^/dev/null char 1:3.* read write ioctl +- +30-site/null +read write$",
        access(things, "--user", name).stdout,
        re.MULTILINE,
    )
    page = things / "page.html"
    assert access(things, "--user", name, "--html", str(page)).stdout == ""
    assert f"What {name} gets" in page.read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--user", "no-such-user"], "there is no user 'no-such-user'"),
        (["--user", "4000000000"], "uid 4000000000 has no account"),
        (
            ["--device", "memori"],
            "no device group 'memori'; there are: memory, other; did you mean 'memory'?",
        ),
        (["--html", "/no/such/directory/x.html"], "/no/such/directory/x.html cannot be written"),
    ],
)
def test_command_refuses_what_it_cannot_use(things: Path, words: list[str], told: str) -> None:
    ran = access(things, "--json", *words)
    assert ran.returncode == 2
    assert told in ran.stderr
    assert json.loads(ran.stdout)["sheets"] is None


def test_bounds_in_the_document_are_those_of_the_code() -> None:
    text = " ".join((TREE / "docs/access.md").read_text().split())
    assert f"of one pattern the first {OBJECTS_PER_PATTERN} objects" in text
    assert f"({EXPANSIONS:,} accounts for one with a variable)" in text
    assert f"the first {NAMES_PER_SEARCH:,} names" in text
    assert MARKED in text
    assert f"of each pattern the first {OBJECTS_PER_PATTERN}" in access_help()


def access_help() -> str:
    ran = subprocess.run([*FDBROKER, "access", "--help"], cwd=TREE, capture_output=True, text=True)
    return " ".join(ran.stdout.split())
