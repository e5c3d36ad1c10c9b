"""What lint finds by asking the machine, and how `fdbroker check` shows findings."""

import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import EVERYBODY, FDBROKER, SECONDS, STRANGER, TREE, allow, needs_root, policy

from broker import lint_machine
from broker.commands.check_findings import explained_code
from broker.linting import Linted, findings
from policy import Source, load
from policy.findings import CODES, NOTE

NOW = time.time()
NOTES = {one.code for one in CODES.values() if one.severity == NOTE}
MEMBERS = "{group: root}"


def linted(*rules: str, offline: bool = False) -> Linted:
    text = policy(*(rule if rule.startswith("name:") else f"name: r, {rule}" for rule in rules))
    return findings(load([Source("10-test.yaml", text)]), NOW, offline=offline)


def codes(*rules: str) -> list[str]:
    """The codes of findings that are more than notes."""
    return [one.code for one in linted(*rules).findings if one.code not in NOTES]


def messages(*rules: str) -> dict[str, str]:
    return {one.code: one.message for one in linted(*rules).findings}


def reading(path: Path | str, clients: str = EVERYBODY, more: str = "") -> str:
    return f"clients: [{clients}], allow: read, paths: ['{path}']{more}"


def denying(path: Path | str, more: str = "") -> str:
    return f"deny: all, paths: ['{path}']{more}"


# Accounts


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("clients: [{user: root, group: root}], allow: read, paths: [/etc/passwd]", []),
        ("clients: [{user: [root, no-such]}], allow: read, paths: [/etc/passwd]", ["unknown-account"]),
        ("clients: [{group: no-such}], allow: read, paths: [/etc/passwd]", ["unknown-account"]),
        ("clients: [{group: no-such}], deny: all", ["unknown-denied-account"]),
        ("deny: all, except_clients: [{user: no-such}]", ["unknown-account"]),
        (
            "clients: [any], except_clients: [{user: no-such}], allow: read, paths: [/etc/passwd]",
            ["unknown-denied-account"],
        ),
    ],
)
def test_account_that_is_not_there_is_found(rule: str, expected: list[str]) -> None:
    assert codes(rule) == expected


# Directories


@needs_root
@pytest.mark.parametrize(
    ("mode", "uid", "gid", "who"),
    [
        (0o755, 0, 0, ""),
        (0o757, 0, 0, "everybody"),
        (0o775, 0, STRANGER, f"group {STRANGER}"),
        (0o755, STRANGER, 0, f"user {STRANGER}"),
        (0o555, STRANGER, 0, f"user {STRANGER}"),
    ],
)
def test_directory_that_others_can_write_is_found(
    place: Path, mode: int, uid: int, gid: int, who: str
) -> None:
    theirs = place / "theirs"
    (theirs / "below").mkdir(parents=True)
    (theirs / "below" / "file").write_text("x")
    os.chown(theirs, uid, gid)
    theirs.chmod(mode)
    file = theirs / "below" / "file"
    expected = f"{theirs} is {mode:04o} " if who else ""
    for rule, code in (
        (reading(file), "allow-below-writable"),
        (reading(theirs / "below" / "*"), "allow-below-writable"),
        (reading(theirs / "**"), "pattern-in-writable"),
        (denying(file), "deny-below-writable"),
        (denying(theirs / "**"), "deny-below-writable"),
    ):
        message = messages(rule).get(code, "")
        assert message.startswith(expected), (rule, message)
        assert message.endswith(f"so {who} can write it") if who else not message, (rule, message)


@needs_root
def test_clients_that_cannot_write_escape_no_deny(place: Path) -> None:
    theirs = place / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("x")
    os.chown(theirs, STRANGER, 0)
    for clients, is_found in (
        ([f"{{uid: {STRANGER}}}"], True),
        (["{uid: 5}", f"{{uid: 60000-{STRANGER}}}"], True),
        (["{uid: 5}"], False),
        (["{user: root}"], False),
        (["{unit: web.service}"], True),
        ([f"{{uid: {STRANGER}, group: root}}"], True),  # whose groups nobody knows
    ):
        rule = denying(theirs / "file", f", clients: [{', '.join(clients)}]")
        assert ("deny-below-writable" in codes(rule)) is is_found, clients
        chosen = reading(theirs / "**", ", ".join(clients))
        assert ("pattern-in-writable" in codes(chosen)) is is_found, clients


@needs_root
def test_sticky_directory_keeps_what_is_roots(place: Path) -> None:
    place.chmod(0o1777)
    (place / "roots").write_text("x")
    (place / "theirs").write_text("x")
    os.chown(place / "theirs", STRANGER, 0)
    (place / "link").symlink_to("roots")
    kept = [name for name in ("roots", "theirs", "missing", "link") if not codes(denying(place / name))]
    assert kept == ["roots"]
    assert "pattern-in-writable" in codes(reading(place / "*"))


@needs_root
def test_directory_behind_a_link_is_looked_at(place: Path) -> None:
    open_to_all, closed = place / "open", place / "closed"
    for directory in (open_to_all, closed):
        directory.mkdir()
        (directory / "file").write_text("x")
    open_to_all.chmod(0o777)
    (closed / "link").symlink_to(open_to_all)
    assert codes(denying(closed / "file")) == []
    assert messages(denying(closed / "link" / "file"))["deny-below-writable"].startswith(
        f"{open_to_all} is 0777"
    )


@needs_root
def test_user_whom_an_acl_lets_write_is_found(place: Path) -> None:
    (place / "file").write_text("x")
    # Version 2; owner rwx, user STRANGER rwx, group r-x, mask rwx, others r-x.
    entries = [(1, 7, -1), (2, 7, STRANGER), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
    data = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + (id & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, bits, id in entries
    )
    try:
        os.setxattr(place, "system.posix_acl_access", data)
    except OSError:
        pytest.skip("no ACLs on this file system")
    assert messages(denying(place / "file"))["deny-below-writable"].endswith(
        f"so user {STRANGER} can write it"
    )


def test_directories_of_who_looks_are_the_brokers(place: Path) -> None:
    (place / "file").write_text("x")
    assert codes(reading(place / "file"), f"name: d, {denying(place / 'file', ', type: char')}") == []


# What paths lead to


def test_path_is_compared_with_what_is_there(place: Path) -> None:
    (place / "directory").mkdir()
    (place / "file").write_text("x")
    (place / "link").symlink_to("file")
    (place / "dangling").symlink_to("nothing")
    told = messages(
        "clients: [any], allow: read, type: file, paths: ["
        + ", ".join(str(place / name) for name in ("directory", "link", "dangling", "missing"))
        + "]"
    )
    assert told["path-of-another-type"] == f"{place}/directory is of type directory"
    assert told["link-leads-out"] == f"{place}/link leads to {place}/file"
    missing = f"{place}/nothing, to which {place}/dangling leads, is not there, {place}/missing is not there"
    assert told["path-missing"] == missing
    assert codes(f"clients: [any], allow: read, paths: [{place}/link, {place}/file]") == []
    assert codes(denying(place / "directory", ", type: file")) == []


GIVEN = 'clients: [any], allow: read, paths: ["{place}/**"]'
BOTH = '["{place}/directory", "{place}/directory/**"]'


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        (f"{GIVEN}, except_paths: ['{{place}}/directory']", True),
        (f"{GIVEN}, except_paths: {BOTH}", False),
        (f"{GIVEN}, except_paths: ['{{place}}/file']", False),
        ("clients: [any], allow: read, paths: ['{place}/*'], except_paths: ['{place}/directory']", False),
        (f"{GIVEN} | deny: all, paths: ['{{place}}/directory']", True),
        (f"{GIVEN} | deny: all, paths: {BOTH}", False),
        (f"{GIVEN} | deny: all, paths: '{{place}}/directory' | deny: all, paths: '{{place}}/d*/**'", False),
        (
            f"{GIVEN} | deny: all, paths: '{{place}}/directory' "
            "| deny: all, clients: [{{user: root}}], paths: '{place}/d*/**'",
            True,
        ),
        (f"{GIVEN} | deny: all, type: file, paths: ['{{place}}/directory']", False),
        ("deny: all, paths: ['{place}/directory']", False),
    ],
)
def test_directory_that_is_denied_alone_is_told_where_its_content_is_given(
    place: Path, rules: str, found: bool
) -> None:
    (place / "directory").mkdir()
    (place / "file").write_text("x")
    numbered = [
        f"name: r{number}, {rule}" for number, rule in enumerate(rules.format(place=place).split(" | "))
    ]
    assert ("directory-alone" in codes(*numbered)) is found


def test_what_nobody_is_given_is_found(place: Path) -> None:
    assert codes("clients: [any], allow: read, type: [file, directory], paths: [/etc]") == ["never-given"]
    assert "never-given" in codes(
        "clients: [any], allow: read, type: [char, file, fifo], paths: [/dev/stdin]"
    )


def test_what_cannot_be_looked_at_is_neither_good_nor_bad(place: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can look at everything")
    hidden = "/root/.ssh/id"
    found = linted(reading(hidden))
    assert [one.code for one in found.findings] == []
    assert found.unseen[-1] == f"{hidden}: Permission denied"


# The kernel


@pytest.mark.parametrize(
    ("abi", "what", "expected"),
    [
        (0, "allow: read, type: char", "kernel-cannot-restrict"),
        (4, "allow: read, type: char", "kernel-cannot-restrict"),
        (5, "allow: read, type: char", "right-not-kept"),
        (4, "allow: use, type: char", None),
        (2, "allow: [read, write], type: file", "kernel-cannot-restrict"),
        (3, "allow: [read, write], type: file", "right-not-kept"),
        (2, "allow: edit, type: file", None),
        (2, "allow: read, type: file", None),
    ],
)
def test_restriction_is_held_against_the_kernel(
    monkeypatch: pytest.MonkeyPatch, abi: int, what: str, expected: str | None
) -> None:
    monkeypatch.setattr(lint_machine, "landlock_abi", lambda: abi)
    told = messages(f"clients: [any], {what}, paths: ['/srv/fdbroker-test-*']")
    assert [code for code in told if code in ("kernel-cannot-restrict", "right-not-kept")] == [
        expected
    ] * bool(expected)


# The command


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FDBROKER, "check", *map(str, arguments)],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def written(place: Path, rules: Sequence[str]) -> Path:
    path = place / "30-site.yaml"
    path.write_text(policy(*rules))
    return path


def test_check_fails_for_a_finding_until_it_is_accepted(place: Path) -> None:
    wide = "name: wide, clients: [any], allow: read, paths: ['/etc/**']"
    ran = check(written(place, [wide]))
    assert ran.returncode == 1
    assert ran.stdout.splitlines() == [
        "30-site.yaml:3: warning: wide-path: rule 30-site/wide: it gives what lies in /etc/**",
        f"    {CODES['wide-path'].remedy} See docs/lint.md#wide-path",
    ]
    assert ran.stderr.startswith("1 warning; a rule takes one on with 'accept: [CODE]'")
    ran = check(written(place, [f"{wide}, accept: [wide-path]"]))
    assert ran.returncode == 0
    assert ran.stdout.startswith("30-site.yaml:3: accepted: wide-path: rule 30-site/wide: ")
    assert ran.stdout.splitlines()[-1].startswith("good: 1 rule in 1 file")


def test_check_shows_notes_when_they_are_wanted(place: Path) -> None:
    path = written(place, [allow("it", f"{place}/missing", clients="any")])
    ran = check(path)
    assert (ran.returncode, ran.stderr) == (0, "1 note (path-missing); --notes shows them\n")
    assert ran.stdout.startswith("good: ")
    ran = check("--notes", path)
    assert ran.stdout.startswith(
        f"30-site.yaml:3: note: path-missing: rule 30-site/it: {place}/missing is not there\n"
    )
    assert ran.returncode == 0


def test_check_as_json_has_all_findings(place: Path) -> None:
    rules = ["name: wide, clients: [any], allow: read, paths: ['/etc/**', /no/such], accept: wide-path"]
    ran = check("--json", written(place, rules))
    shown = json.loads(ran.stdout)
    assert (ran.returncode, shown["good"], shown["unseen"]) == (0, True, [])
    assert [(one["code"], one["severity"], one["accepted"]) for one in shown["findings"]] == [
        ("path-missing", "note", False),
        ("wide-path", "warning", True),
    ]
    assert {key: shown["findings"][1][key] for key in ("file", "line", "rule", "see")} == {
        "file": "30-site.yaml",
        "line": 3,
        "rule": "30-site/wide",
        "see": "docs/lint.md#wide-path",
    }


def test_check_prints_no_control_character_of_a_name(place: Path) -> None:
    (place / "\x1b[2J").write_text("x")
    (place / "link").symlink_to("\x1b[2J")
    path = written(place, [allow("r", f"{place}/link", clients="any")])
    for options in (["--notes"], ["--json"]):
        ran = check(*options, path)
        assert "link-leads-out" in ran.stdout
        assert "\x1b" not in ran.stdout + ran.stderr


def test_check_offline_asks_the_machine_nothing(place: Path) -> None:
    rules = ["name: r, clients: [{user: no-such}], allow: read, paths: [/no/such], accept: path-missing"]
    path = written(place, rules)
    assert check(path).returncode == 1
    ran = check("--offline", "--json", path)
    assert (ran.returncode, json.loads(ran.stdout)["findings"]) == (0, [])


def test_explanation_of_a_code_stands_in_the_documentation_too() -> None:
    text = (TREE / "docs" / "lint.md").read_text()
    sections = {part.split("\n", 1)[0]: " ".join(part.split()) for part in text.split("\n### ")[1:]}
    assert list(sections) == list(CODES)
    for code, one in CODES.items():
        assert f"{code} **{one.severity}**" in sections[code]
        assert (", asks the machine." in sections[code]) is one.of_machine, code
        explained = explained_code(code)
        assert explained.startswith(f"{code} ({one.severity})\n{one.meaning}")
        assert one.meaning in sections[code], code


def test_check_explains_a_code_and_knows_no_other() -> None:
    ran = check("--explain", "wide-path")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.endswith("See docs/lint.md#wide-path\n")
    ran = check("--explain", "wide-paths")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.match("fdbroker check: there is no finding 'wide-paths'; did you mean 'wide-path'?", ran.stderr)


def test_broker_that_serves_imports_no_lint(place: Path) -> None:
    script = (
        "import sys; import broker.commands.serve, broker.worker, broker.supervisor; "
        "from policy import Source, load; load([Source('a.yaml', 'version: 1')]); "
        "print(*(name for name in sys.modules if 'lint' in name or name == 'policy.findings'))"
    )
    ran = subprocess.run([FDBROKER[0], "-c", script], cwd=TREE, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
