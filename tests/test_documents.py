"""The examples of README and docs do what they say."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support import TREE, allow, is_device, needs_root, policy

import sandboxed
from broker import profiles
from broker.limits import REFUSALS_BURST, REFUSALS_PER_SECOND
from broker.messages import FLAGS
from broker.version import VERSION
from policy import PolicyError, Source, load
from policy.keeping import UNKEPT
from policy.lint import judged, lint
from policy.profile import Limits, Profile, load_profile
from policy.termfields import ADDRESS_FIELDS, TERM_FIELDS
from policy.testcases import load_with_tests
from policy.testing import run, unreached
from sandboxed.limits import BATCH_REQUESTS, MESSAGE_BYTES

DOCUMENTS = sorted([*TREE.glob("*.md"), *TREE.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")

# What packages may say, for examples of what an administrator does with it; and what fdbroker ships.
LOWER_TIER = [
    Source(
        "10-base.yaml",
        "version: 1\nclients: {lab: {group: lab}}\nrules: [{name: disks, deny: all, type: block}]\n",
    ),
    Source("10-devices.yaml", (TREE / "policy/groups/10-devices.yaml").read_bytes()),
]


def blocks(language: str) -> list[pytest.param]:  # type: ignore[valid-type]
    """Every example in `language`, named for its document and place there."""
    return [
        pytest.param(match[2], id=f"{path.relative_to(TREE)}-{number}")
        for path in DOCUMENTS
        for number, match in enumerate(BLOCK.finditer(path.read_text()))
        if match[1] == language
    ]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_policy_or_profile_of_a_document_loads(text: str) -> None:
    # What has rules is a policy, all else a profile: each refuses the other's keys, so nothing passes for neither.
    if re.search("^rules:", text, re.MULTILINE):
        loaded, tests = load_with_tests([*LOWER_TIER, Source("example.yaml", text, 1)])
        own = [rule for rule in loaded.policy.rules if rule.file == "example.yaml"]
        assert own
        results = run(loaded.policy, tests)
        assert [result.found for result in results if not result.passed] == []
        assert not tests or not set(own) & set(unreached(loaded.policy, results))
    else:
        assert load_profile(Source("example.yaml", text)) != Profile()


@pytest.mark.parametrize("text", blocks("yaml"))
def test_policy_of_a_document_has_no_finding_that_it_does_not_accept(text: str) -> None:
    if re.search("^rules:", text, re.MULTILINE):
        whole = load([*LOWER_TIER, Source("example.yaml", text, 1)])
        found = judged(whole, lint(whole, None), machine_asked=False)
        assert [one for one in found if one.fails] == []


@pytest.mark.parametrize("text", blocks("json"))
def test_json_of_a_document_is_json(text: str) -> None:
    json.loads(text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(TREE)))
def test_links_of_a_document_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@needs_root
@pytest.mark.skipif(
    not (is_device("/dev/kvm") and is_device("/dev/hwrng")),
    reason="the example opens /dev/kvm and /dev/hwrng",
)
def test_python_of_the_readme_runs(place: Path) -> None:
    rules = place / "kvm.yaml"
    rules.write_text(
        policy(
            allow("kvm", "/dev/kvm", "use", "type: char", "any"),
            allow("random", "/dev/hwrng", "read", "type: char", "any"),
        )
    )
    asking, split = [example.values[0] for example in blocks("python") if "README" in str(example.id)]
    run = [
        sys.executable,
        "-m",
        "broker.main",
        "run",
        "--policy",
        str(rules),
        "--",
        sys.executable,
        "-c",
        asking,
    ]
    ran = subprocess.run(run, cwd=TREE, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "['read', 'write', 'ioctl']" in ran.stdout
    assert "no use to ask for /dev/mem" in ran.stdout

    alone = f"import sys; sys.path.insert(0, '{TREE}')\n" + split.replace('"kvm.yaml"', repr(str(rules)))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", alone],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "name=" in ran.stdout


def test_numbers_of_the_documents_are_those_of_the_code() -> None:
    wire, audit = (TREE / "docs/wire.md").read_text(), (TREE / "docs/audit.md").read_text()
    assert f"{MESSAGE_BYTES:,} bytes" in wire
    assert f"{BATCH_REQUESTS} requests" in wire
    assert f"first {REFUSALS_BURST:,} and then {REFUSALS_PER_SECOND} a second" in audit
    assert all(f"`{flag}`" in wire for flag in FLAGS)


def test_codes_of_what_is_not_kept_are_documented_with_what_is_true_instead() -> None:
    text = (TREE / "docs/policy.md").read_text()
    for code, instead in UNKEPT.items():
        (row,) = [line for line in text.splitlines() if line.startswith("| ") and f"`{code}`" in line]
        assert instead in row


def test_keys_of_a_rule_are_documented() -> None:
    text = (TREE / "docs/policy.md").read_text()
    for key in (*TERM_FIELDS, *ADDRESS_FIELDS, "accept"):
        assert f"\n| `{key}` | " in text, key


def test_shipped_interface_is_the_documented_one() -> None:
    text = (Path(sandboxed.__file__).parent / "org.fdbroker.Broker.varlink").read_text()
    assert text.startswith("#")
    for method in ("Open", "OpenMany", "Check", "Release", "Describe"):
        assert f"method {method}(" in text
        assert method in (TREE / "docs/wire.md").read_text()


def test_threats_of_the_security_document_name_tests_that_exist() -> None:
    text = (TREE / "SECURITY.md").read_text()
    named = set(re.findall(r"`((?:tests/)?[\w/]+\.py)::(test_\w+)`", text))
    assert len(named) > 20
    for path, name in named:
        assert f"def {name}(" in (TREE / path).read_text(), f"{path}::{name}"


def test_make_targets_of_the_readme_exist() -> None:
    listed = subprocess.run(
        ["make", "help"], cwd=TREE, capture_output=True, text=True, check=True, env=os.environ
    )
    for target in re.findall(r"^make (\w+)", (TREE / "README.md").read_text(), re.MULTILINE):
        assert f"make {target}" in listed.stdout


def test_digest_of_the_readmes_policy_is_what_check_prints(place: Path) -> None:
    text = (TREE / "README.md").read_text()
    rules = place / "web.yaml"
    rules.write_text(next(match[2] for match in BLOCK.finditer(text) if match[1] == "yaml"))
    ran = subprocess.run(
        [sys.executable, "-m", "broker.main", "check", str(rules)],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout.strip() in text


def test_failed_test_of_the_policy_document_is_shown_as_there(place: Path) -> None:
    text = (TREE / "docs/policy.md").read_text().partition("## Testing a policy\n")[2]
    example, sample = [match[2] for match in BLOCK.finditer(text)][:2]
    (place / "30-site.yaml").write_text(example.replace("deny, rule: no-sticks", "allow"))
    ran = subprocess.run(
        [sys.executable, "-m", "broker.main", "check", str(place / "30-site.yaml")],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    command, *told = sample.splitlines()
    assert command == "$ fdbroker check 30-site.yaml"
    # What is found besides depends on the machine's groups and on the day.
    shown = (ran.stdout + ran.stderr).splitlines()
    assert [line for line in shown if line in told] == told


def test_explanation_of_a_ready_policy_is_shown_as_it_is() -> None:
    text = (TREE / "docs/examples.md").read_text()
    (sample,) = [match[2] for match in BLOCK.finditer(text) if match[1] == "console"]
    command, *told = sample.splitlines()
    ran = subprocess.run(
        [sys.executable, "-m", "broker.main", *command.removeprefix("$ fdbroker ").split()],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    # A machine with udev says more of the device.
    for shown, line in zip(ran.stdout.splitlines(), told, strict=True):
        assert shown.startswith(line)


def test_shell_of_the_examples_document_checks_what_is_there(place: Path) -> None:
    text = (TREE / "docs/examples.md").read_text()
    shells = [match[2] for match in BLOCK.finditer(text) if match[1] == "sh"]
    draft = place / "draft.yaml"
    (copied,) = re.findall(r"^cp (\S+) draft.yaml", shells[0], re.MULTILINE)
    draft.write_bytes((TREE / copied).read_bytes())
    offline = [sys.executable, "-m", "broker.main", "check", "--offline", "--coverage"]
    for more in ([str(draft)], [str(TREE / "policy/groups"), "--as", "30-lab.yaml", str(draft)]):
        ran = subprocess.run(
            [*offline, *more], cwd=TREE, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stdout
    (installed,) = re.findall(
        r"^install -D -m 644 (\S+) -t /usr/share/fdbroker/policy.d$", shells[-1], re.MULTILINE
    )
    assert (TREE / installed).exists()
    shipped = tomllib.loads((TREE / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "policy"
    ]
    assert any((TREE / installed).relative_to(TREE / "policy").match(pattern) for pattern in shipped)


def test_version_is_the_same_wherever_it_stands() -> None:
    assert f'\nversion = "{VERSION}"\n' in (TREE / "pyproject.toml").read_text()


def test_profiles_of_the_document_are_those_that_are_ready() -> None:
    text = (TREE / "docs/profiles.md").read_text()
    shipped = {path.stem for path in Path(profiles.SHIPPED).glob("*.yaml")}
    assert set(re.findall(r"^\| `([a-z-]+)` \| (?:a|the) ", text, re.MULTILINE)) == shipped
    assert profiles.ADMINISTRATORS in text


def test_bounds_of_the_profiles_document_are_those_of_the_code() -> None:
    text = (TREE / "docs/profiles.md").read_text()
    bounds = re.findall(r"^\| `(\w+)` \|.*\| `?(\d+[KMG]?)`? to `?(\d+[KMG]?)`? \|$", text, re.MULTILINE)
    assert [name for name, _, _ in bounds] == list(Limits.__struct_fields__)
    for name, least, most in bounds:
        for bound in (least, most):
            load_profile(Source("a.yaml", f"version: 1\nlimits: {{{name}: {bound}}}\n"))
        for beyond in (
            f"{int(least.rstrip('KMG')) - 1}{least.lstrip('0123456789')}",
            f"{int(most.rstrip('KMG')) + 1}{most.lstrip('0123456789')}",
        ):
            with pytest.raises(PolicyError):
                load_profile(Source("a.yaml", f"version: 1\nlimits: {{{name}: {beyond}}}\n"))
