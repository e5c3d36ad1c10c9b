"""`fdbroker diff`: what is shown, how it was decided, and what a machine adds to the rules."""

import json
import os
import pwd
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support import is_device, needs_root

from broker.commands.diff import main
from broker.onmachine import Machine, Settled, known_names
from policy import Policy, Source, load
from policy.diff import NOT_DECIDED, gains
from tests.broker.audits import ran

OWN = pwd.getpwuid(0).pw_name


def policy(*rules: str) -> str:
    return "version: 1\nrules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules)


def loaded(*rules: str) -> Policy:
    return load([Source("10-test.yaml", policy(*rules))])


def diff(place: Path, old: str, new: str, *options: str) -> subprocess.CompletedProcess[str]:
    (place / "old.yaml").write_text(old)
    (place / "new.yaml").write_text(new)
    words = [*options, str(place / "old.yaml"), str(place / "new.yaml")]
    return ran(main, *words)


KVM = "name: kvm, clients: [{uid: 1000}], allow: [use], type: char, paths: [/dev/kvm]"
KVM_READ = KVM.replace("[use]", "[read]")
HOSTS = "name: hosts, clients: [{uid: 1000}], allow: [read], paths: [/etc/hosts]"
NO_DISKS = 'name: no-disks, deny: all, type: block, paths: ["/dev/**"]'


@pytest.mark.parametrize(
    ("old", "new", "options", "status", "signs"),
    [
        ((KVM, HOSTS), (HOSTS, KVM), (), 0, ""),
        ((KVM_READ,), (KVM,), (), 1, "+"),
        ((KVM,), (KVM_READ,), (), 1, "-"),
        ((KVM,), (KVM_READ,), ("--no-widening",), 0, "-"),
        ((KVM_READ,), (KVM,), ("--no-widening",), 1, "+"),
        ((KVM, NO_DISKS), (KVM,), (), 0, ""),
        ((KVM,), (HOSTS,), ("--offline",), 1, "+-"),
    ],
)
def test_status_and_signs_of_a_change(
    place: Path, old: Any, new: Any, options: Any, status: int, signs: str
) -> None:
    answer = diff(place, policy(*old), policy(*new), *options)
    assert (answer.returncode, answer.stderr) == (status, "")
    assert "".join(line[0] for line in answer.stdout.splitlines()[1:] if line[0] in "+-") == signs


def test_line_has_who_rights_what_and_rule_and_a_request_that_shows_it(place: Path) -> None:
    answer = diff(place, policy(KVM_READ), policy(KVM), "--offline")
    _, columns, line, why, example = answer.stdout.splitlines()
    assert columns.split() == ["WHO", "RIGHTS", "WHAT", "TERMS", "RULE"]
    assert line.split("  ")[1:2] == ["uid 1000"]
    assert "read write ioctl" in line and "/dev/kvm char" in line and "new/kvm new.yaml:3" in line
    assert why == "    by rules: the other policy gives no more than read by old/kvm"
    assert example.startswith("    for example ") and "/dev/kvm (char) for uid 1000" in example


def test_json_has_the_lines_with_how_each_was_decided(place: Path) -> None:
    answer = diff(place, policy(KVM_READ), policy(KVM, HOSTS), "--json", "--offline")
    shown = json.loads(answer.stdout)
    assert answer.returncode == 1 and shown["taken"] == []
    granted = {one["rules"][0]["id"]: one for one in shown["granted"]}
    assert granted.keys() == {"new/kvm", "new/hosts"}
    kvm = granted["new/kvm"]
    assert (kvm["decided"], kvm["rights"]) == ("by rules", ["read", "write", "ioctl"])
    assert kvm["before"] == [{"rule": "old/kvm", "rights": ["read"]}]
    assert kvm["example"]["path"] == "/dev/kvm"


def test_control_characters_of_a_policy_are_escaped(place: Path) -> None:
    odd = 'name: odd, clients: [{label: "x y"}], allow: [read], paths: [/srv/x]'
    text = policy(odd).replace("/srv/x", '"/srv/é"')
    answer = diff(place, policy(HOSTS), text, "--offline")
    assert answer.stdout.replace("\n", "").isprintable()


@pytest.mark.parametrize("words", [[], ["a.yaml", "b.yaml", "c.yaml"], ["/no/such.yaml", "/no/such.yaml"]])
def test_unusable_input_is_told(words: list[str]) -> None:
    answer = ran(main, *words)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr


def test_mistakes_of_either_policy_are_unusable_input(place: Path) -> None:
    answer = diff(place, policy(KVM), "version: 2\n", "--json")
    assert answer.returncode == 2
    assert "mistakes" in answer.stderr
    assert json.loads(answer.stdout)["granted"] is None


# --- this machine ------------------------------------------------------------------------------------------


def settled(old: Policy, new: Policy) -> list[Settled]:
    """What the machine says of each gain that the rules leave open."""
    now = time.time()
    found = [gain for gain in gains(old, new, known_names(old, new), now) if gain.basis == NOT_DECIDED]
    machine = Machine(old, new, now)
    try:
        return [machine.settle(gain) for gain in found]
    finally:
        machine.close()


def test_name_and_number_of_an_account_are_one_on_the_machine_that_has_it(place: Path) -> None:
    by_name = f"name: hosts, clients: [{{user: {OWN}}}], allow: [read], paths: [/etc/hosts]"
    by_number = by_name.replace(f"user: {OWN}", "uid: 0")
    assert diff(place, policy(by_name), policy(by_number)).returncode == 0
    assert diff(place, policy(by_name), policy(by_number), "--offline").returncode == 1


@needs_root
@pytest.mark.skipif(not is_device("/dev/null"), reason="needs /dev/null")
def test_deny_that_is_no_other_name_here_makes_no_difference_here() -> None:
    null = "name: null, clients: [{uid: 0}], allow: [read], type: char, paths: [/dev/null]"
    deny = "name: hosts, deny: all, paths: [/etc/hosts]"
    old, new = loaded(null, deny), loaded(null)
    assert [one.by_names_alone for one in gains(old, new)] == [True]
    assert settled(old, new) == [Settled(False)]


@needs_root
def test_deny_of_a_hard_link_makes_a_difference_here(place: Path) -> None:
    (place / "file").write_text("x")
    os.link(place / "file", place / "other")
    given = f"name: file, clients: [{{uid: 0}}], allow: [read], paths: [{place}/file]"
    old, new = loaded(given, f"name: other, deny: all, paths: [{place}/other]"), loaded(given)
    (found,) = settled(old, new)
    assert found.differs is True
    assert (found.users, found.objects) == ((OWN,), (f"{place}/file",))
    assert found.example is not None and found.example.peer.uid == 0


@needs_root
def test_account_that_a_rule_names_counts_when_the_database_lists_none(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server of accounts answers for each, and may list none.
    monkeypatch.setattr(pwd, "getpwall", list)
    (place / "file").write_text("x")
    os.link(place / "file", place / "other")
    given = f"name: file, clients: [{{user: {OWN}}}], allow: [read], paths: [{place}/file]"
    old, new = loaded(given, f"name: other, deny: all, paths: [{place}/other]"), loaded(given)
    (found,) = settled(old, new)
    assert (found.differs, found.users) == (True, (OWN,))


def test_what_depends_on_a_unit_is_not_decided_here(place: Path) -> None:
    given = f"name: file, clients: [{{unit: web.service}}], allow: [read], paths: [{place}/file]"
    old, new = loaded(given, f"name: other, deny: all, paths: [{place}/other]"), loaded(given)
    (found,) = settled(old, new)
    assert found.differs is None
    assert "unit" in found.why


def test_files_below_a_directory_are_not_gone_through(place: Path) -> None:
    (place / "other").write_text("x")
    os.link(place / "other", place / "third")
    given = f'name: file, clients: [{{uid: 0}}], allow: [read], paths: ["{place}/sub/**"]'
    old, new = loaded(given, f"name: other, deny: all, paths: [{place}/other]"), loaded(given)
    (found,) = settled(old, new)
    assert found.differs is None
    assert found.why == f"what lies below {place}/sub is not looked at"


@needs_root
def test_file_with_links_that_others_can_make_is_given_when_no_pattern_keeps_it_back(place: Path) -> None:
    # The broker gives no such file while a pattern denies or excepts: it may have a name that the pattern means.
    place.chmod(0o777)
    (place / "file").write_text("x")
    os.link(place / "file", place / "other")
    given = f"name: file, clients: [{{uid: 0}}], allow: [read], paths: [{place}/file]"
    old, new = loaded(given, 'name: keys, deny: all, paths: ["/srv/keys/*"]'), loaded(given)
    (found,) = settled(old, new)
    assert (found.differs, found.objects) == (True, (f"{place}/file",))
