"""A policy that says more than this version keeps is served by nobody, unless its rules accept that; tools read it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import EVERYBODY, FDBROKER, SECONDS, TREE, Broker, policy

import sandboxed
from broker.commands.policies import policy_from, policy_to_serve, servable
from broker.unusable import Unusable
from policy import Request, Rights, Source, load, rights_words
from policy.keeping import kept, refusals
from tests.broker.test_explain import PeerFinder, explained

REFUSED = [
    "rule 'leased': this version does not keep 'exclusive': others may have the object open at the same time; "
    "'accept: [unkept-exclusive]' in the rule has it in force like that",
    "rule 'leased': this version does not keep 'lease': a grant lasts as long as its connection; "
    "'accept: [unkept-lease]' in the rule has it in force like that",
    "rule 'names': this version does not keep 'allow: list': who needs the right is refused; "
    "'accept: [unkept-list]' in the rule has it in force like that",
]


@pytest.fixture
def secret(place: Path) -> Path:
    path = place / "secret"
    path.write_text("the secret")
    return path


def rules(place: Path, accept: bool = False) -> str:
    leased, names = (
        (", accept: [unkept-lease, unkept-exclusive]", ", accept: unkept-list") if accept else ("", "")
    )
    return policy(
        f"name: leased, clients: [any, {EVERYBODY}], allow: read, paths: [{place}/secret], "
        f"lease: 1h, exclusive: true{leased}",
        f"name: names, clients: {EVERYBODY}, allow: [read, list], type: [file, directory], paths: [{place}]{names}",
    )


def written(place: Path, accept: bool = False) -> str:
    path = place / "10-test.yaml"
    path.write_text(rules(place, accept))
    return str(path)


def fdbroker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FDBROKER, *words], cwd=TREE, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_policy_that_is_not_kept_is_not_served_and_each_rule_is_told(secret: Path) -> None:
    path = written(secret.parent)
    with pytest.raises(Unusable) as error:
        policy_to_serve(path)
    lines = str(error.value).splitlines()
    assert lines[0] == "the policy has rules that say more than this version keeps:"
    assert lines[1:] == [
        f"  10-test.yaml:{line}: {told}" for line, told in zip((3, 3, 4), REFUSED, strict=True)
    ]
    assert len(policy_from(path).rules) == 2


@pytest.mark.parametrize("words", [["serve", "--socket", "/nowhere/s"], ["run", "--dry-run"], ["run"]])
def test_command_that_serves_refuses_to_start(secret: Path, words: list[str]) -> None:
    command = ["--", "true"] if words[0] == "run" else []
    ran = fdbroker(*words, "--policy", written(secret.parent), *command)
    assert ran.returncode == (2 if words[0] == "serve" else 125)
    assert all(told in ran.stdout + ran.stderr for told in REFUSED)


@pytest.mark.parametrize("given", ["path", "policy"])
def test_program_that_is_to_be_split_stays_whole(secret: Path, given: str) -> None:
    path = written(secret.parent)
    what = "path" if given == "path" else "load([Source('10-test.yaml', open(path).read())])"
    program = f"""
from broker.embed import Unusable, embed
from policy import Source, load
path = {path!r}
try:
    embed({what})
except Unusable as error:
    print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert all(told in ran.stdout for told in REFUSED)


def test_rule_that_accepts_it_is_in_force_but_for_rights_that_nobody_gives(secret: Path) -> None:
    broker = Broker(secret.parent, rules(secret.parent, accept=True))
    try:
        with broker.client() as client:
            with client.open(str(secret)) as file:
                assert file.read() == "the secret"
            for access in (["read", "list"], ["read"]):
                with pytest.raises(sandboxed.Denied):
                    client.open_fd(str(secret.parent), access)
        assert broker.records(verdict="allow")[0]["rule"] == "test/leased"
    finally:
        broker.kill()


def test_policy_that_accepts_its_codes_is_the_same_to_all(secret: Path) -> None:
    loaded = policy_from(written(secret.parent, accept=True))
    assert refusals(loaded) == []
    assert [rule.id for rule in servable(loaded).rules] == ["10-test/leased", "10-test/names"]
    assert servable(loaded).digest == loaded.digest


# The tools


def test_check_shows_what_is_not_kept_until_it_is_accepted(secret: Path) -> None:
    ran = fdbroker("check", written(secret.parent))
    assert ran.returncode == 1
    found = [line.split(": ")[1:3] for line in ran.stdout.splitlines() if not line.startswith(" ")]
    assert found == [["error", code] for code in ("unkept-exclusive", "unkept-lease", "unkept-list")]
    accepted = fdbroker("check", written(secret.parent, accept=True))
    assert accepted.returncode == 0
    assert accepted.stdout.count(": accepted: unkept-") == 3


def test_cat_shows_terms_as_they_were_written(secret: Path) -> None:
    path = written(secret.parent, accept=True)
    ran = fdbroker("cat", path)
    shown = next(line for line in ran.stdout.splitlines() if f" {secret} " in line)
    assert shown.endswith("  lease: 1h, exclusive: true, accept: [unkept-exclusive, unkept-lease]")
    leased, names = json.loads(fdbroker("cat", "--json", path).stdout)["rules"]
    assert leased["terms"] == {"lease": "1h", "exclusive": True}
    assert (names["terms"], names["accept"]) == ({}, ["unkept-list"])


def test_explanation_shows_the_terms_of_the_rule_that_gives_and_which_are_not_kept(secret: Path) -> None:
    path = written(secret.parent)
    ran = fdbroker("explain", "--policy", path, str(secret), "read")
    assert ran.returncode == 0
    assert "\nterms   1h, exclusive\n" in ran.stdout
    unkept = "\nunkept  lease: a grant lasts as long as its connection (unkept-lease, not accepted: this policy is not"
    assert unkept in ran.stdout
    shown = json.loads(fdbroker("explain", "--policy", path, "--json", str(secret), "read").stdout)
    assert shown["terms"] == {"lease": "1h", "exclusive": True}
    assert [(one["code"], one["accepted"]) for one in shown["unkept"]] == [
        ("unkept-lease", False),
        ("unkept-exclusive", False),
    ]


def test_right_that_this_version_cannot_give_is_explained_as_refused(secret: Path) -> None:
    loaded = policy_from(written(secret.parent, accept=True))
    peer = PeerFinder(loaded).caller(None)
    answer = explained(loaded, Request(str(secret.parent), Rights.LIST), peer)
    assert (answer.answer, answer.sight.refusal) == ("denied", "this version cannot give list")


@pytest.mark.parametrize(
    ("needed", "optional", "given"),
    [
        (Rights.APPEND, Rights(0), "a/b append"),
        (Rights.READ, Rights.APPEND, "a/b read append"),
        (Rights.READ, Rights.APPEND | Rights.IOCTL, "a/c read ioctl"),
        (Rights.READ, Rights(0), "a/a read"),
    ],
)
def test_explanation_names_the_rule_that_the_broker_takes_when_another_lists_what_it_cannot_give(
    secret: Path, needed: Rights, optional: Rights, given: str
) -> None:
    rules = f"""\
version: 1
rules:
  - {{name: a, clients: [any, {EVERYBODY}], allow: [read, append], paths: ["{secret}"], accept: [unkept-append]}}
  - {{name: b, clients: [any, {EVERYBODY}], allow: write, paths: ["{secret}"]}}
  - {{name: c, clients: [any, {EVERYBODY}], allow: [read, ioctl], paths: ["{secret}"]}}
"""
    if Rights.IOCTL not in optional:
        rules = rules.replace("allow: write", "allow: [read, write]")
    loaded = load([Source("a.yaml", rules)])
    request, peer = Request(str(secret), needed, optional), PeerFinder(loaded).caller(None)
    told = explained(loaded, request, peer)
    served = kept(loaded).decide(request, peer, told.sight.object)
    for verdict in (told.explanation.verdict, served):
        assert verdict.rule is not None
        assert f"{verdict.rule.id} {' '.join(rights_words(verdict.rights))}" == given
    assert (told.answer, told.sight.refusal) == ("allowed", "")


def test_explanation_suggests_no_right_that_the_broker_cannot_give(secret: Path) -> None:
    rule = f'{{name: a, clients: [{EVERYBODY}], allow: [read, append], paths: ["{secret}"], accept: [unkept-append]}}'
    loaded = load([Source("a.yaml", f"version: 1\nrules: [{rule}]\n")])
    told = explained(
        loaded, Request(str(secret), Rights.READ | Rights.WRITE), PeerFinder(loaded).caller(None)
    )
    assert told.explanation.instead is not None
    assert told.explanation.instead.rights == Rights.READ
