"""The ready policies: each can be served as it is, says what it is for, and uses the groups that it says it does.

That their tests pass and reach each rule, and that nothing is found, `fdbroker check` says, in
tests/broker/test_check.py.
"""

import re
from pathlib import Path

import pytest

from policy import DENY, Source, load
from policy.keeping import kept, unkept
from policy.lint import lint

TREE = Path(__file__).parents[2]
SHIPPED = (TREE / "policy" / "groups" / "10-devices.yaml").read_text()
READY = sorted((TREE / "policy" / "examples").glob("*.yaml"))
DOCUMENT = (TREE / "docs" / "examples.md").read_text()
each_ready = pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)

# In a ready policy: a group that says the same as a shipped one.
_SAME = re.compile(r"^  ([\w-]+):.*  # shipped: ([\w-]+)$", re.MULTILINE)


def comments(path: Path) -> str:
    """What stands above the first key, as one line."""
    head = path.read_text().partition("\nversion: 1\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    return " ".join(line.lstrip("# ") for line in head.splitlines())


def selectors(text: str, group: str) -> object:
    """What a file's group of devices selects."""
    use = Source("use.yaml", f"version: 1\nrules:\n  - {{name: r, deny: all, devices: [{group}]}}\n", 1)
    (rule,) = [rule for rule in load([Source("a.yaml", text), use]).rules if rule.file == "use.yaml"]
    return rule.devices


@each_ready
def test_ready_policy_can_be_served(path: Path) -> None:
    loaded = load([Source(path.name, path.read_bytes())])
    served = kept(loaded)
    # And it loses no rule by that: each gives what it says, or accepts what it does without.
    assert [rule.id for rule in served.rules] == [rule.id for rule in loaded.rules]


@each_ready
def test_ready_policy_says_what_to_change_and_what_a_holder_can_still_do(path: Path) -> None:
    told = comments(path)
    assert "To change: " in told
    assert "What a holder can still do: " in told or "What is not kept from them: " in told


@each_ready
def test_ready_policy_accepts_nothing_without_a_word(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if "accept:" in line:
            assert "#" in line or "#" in lines[number - 1], line


def test_ready_policies_accept_only_what_is_not_kept_or_is_wide() -> None:
    for path in READY:
        loaded = load([Source(path.name, path.read_bytes())])
        for rule in loaded.rules:
            lost = {one.code for one in unkept(rule)} | {
                one.code for one in lint(loaded, None) if one.rule == rule.id
            }
            assert rule.accept <= lost


@pytest.mark.parametrize(
    ("path", "own", "shipped"),
    [
        pytest.param(path, own, shipped, id=f"{path.stem}-{own}")
        for path in READY
        for own, shipped in _SAME.findall(path.read_text())
    ],
)
def test_group_that_says_so_is_the_shipped_one(path: Path, own: str, shipped: str) -> None:
    assert selectors(path.read_text(), own) == selectors(SHIPPED, shipped)


def test_shipped_groups_that_ready_policies_speak_of_are_there() -> None:
    names = set(re.findall(r"^  ([\w-]+):", SHIPPED, re.MULTILINE))
    spoken = {
        name
        for path in READY
        for name in re.findall(r"shipped group ([a-z-]+[a-z])", path.read_text().replace("\n#", ""))
    }
    assert spoken
    assert spoken <= names


def test_ready_policies_declare_no_name_of_the_shipped_groups() -> None:
    # Or copying one would change what the rules of others mean by it.
    sources = [Source(path.name, path.read_bytes()) for path in READY]
    load([*sources, Source("10-devices.yaml", SHIPPED)])


def test_document_has_a_line_for_each_ready_policy_and_each_shipped_group() -> None:
    names = set(re.findall(r"^  ([\w-]+):", SHIPPED, re.MULTILINE))
    told = re.findall(r"^\| (.*?) \| ", DOCUMENT, re.MULTILINE)
    links = [link for cell in told for link in re.findall(r"\]\(\.\./policy/examples/([\w.-]+)\)", cell)]
    groups = [name for cell in told for name in re.findall(r"`([\w-]+)`", cell) if "](" not in cell]
    assert sorted(links) == [path.name for path in READY]
    assert sorted(groups) == sorted(names)


def test_exam_refuses_disks_by_what_they_are_and_not_by_their_names() -> None:
    loaded = load([Source("exam-day.yaml", (TREE / "policy/examples/exam-day.yaml").read_bytes())])
    denies = [rule for rule in loaded.rules if rule.action == DENY]
    assert denies
    assert not any(rule.paths for rule in denies)
