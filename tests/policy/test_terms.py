"""Terms: what files say is what rules have, in words and back; what a version does not keep needs to be accepted."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import FLAGS
from policy import (
    FileType,
    Object,
    Peer,
    Policy,
    PolicyError,
    Request,
    Rights,
    Rule,
    Source,
    load,
    parse_rights,
)
from policy.findings import CODES
from policy.keeping import UNKEPT, given_rights, kept, refusals, unkept
from policy.terms import FLAG_WORDS, NO_TERMS, Address, Creation, Serial, Terms
from policy.termwords import as_written, duration_text, in_words, written

WHO = "clients: [{uid: 0-4294967294}]"


def rule(more: str) -> Rule:
    (found,) = load([Source("a.yaml", f"version: 1\nrules:\n  - {{name: r, {more}}}\n")]).rules
    return found


def allow(rights: str, more: str) -> Rule:
    return rule(f"{WHO}, allow: [{rights}], {more}")


FILE = "paths: [/a]"
LINE = "type: char, paths: [/dev/ttyS0]"

# What an allow has, the terms that it means, and how a column shows them.
SAID = [
    ("read", f"{FILE}, lease: 30m", Terms(lease=1800), "30m"),
    ("read", f"{FILE}, lease: 90s, renewable: true", Terms(lease=90, renewable=True), "90s, renewable"),
    ("read", f"{FILE}, lease: 120m", Terms(lease=7200), "2h"),
    ("read", f"{FILE}, lease: 1d", Terms(lease=86_400), "1d"),
    ("read", f"{FILE}, exclusive: true, preempt: 'true'", Terms(exclusive=True, preempt=True), "exclusive, preempt"),
    ("read", f"{FILE}, exclusive: false, renewable: false", NO_TERMS, ""),
    ("read", f"{FILE}, limits: {{open: 2}}", Terms(open_limit=2), "open 2"),
    ("read", f"{FILE}, limits: {{open: 2, per_second: 0010}}", None, ""),
    ("read", f"{FILE}, limits: {{per_second: 10}}", Terms(rate_limit=10), "10 a second"),
    ("read", f"{FILE}, revoke: try", Terms(revoke="try"), "revoke try"),
    ("read", f"{FILE}, revoke: kill", Terms(revoke="kill"), "revoke kill"),
    ("read", f"{FILE}, revoke: required, relay: true", Terms(revoke="required", relay=True), "revoke required, relay"),
    ("read", f"{LINE}, revoke: required", Terms(revoke="required"), "revoke required"),
    ("read", f"{FILE}, snapshot: true, revoke: kill", Terms(revoke="kill", snapshot=True), "revoke kill, snapshot"),
    ("use", f"{LINE}, serial: {{baud: 9600, frame: 8E1, raw: true}}",
     Terms(serial=Serial(9600, "8E1", True)), "serial 9600 8E1 raw"),
    ("use", f"{LINE}, serial: {{raw: false}}", Terms(serial=Serial()), "serial"),
    ("read, write", "tun: {name: vpn0}, netns: broker", Terms(tun="vpn0", netns_broker=True), "tun vpn0, netns broker"),
    ("append, create", f"{FILE}, create: {{owner: web, group: adm, mode: 0640}}, temporary: true",
     Terms(create=Creation("web", "adm", 0o640), temporary=True), "created web:adm 0640, temporary"),
    ("read", f"{FILE}, flags: [sync, nonblock]", Terms(flags=frozenset(("sync", "nonblock"))), "flags nonblock sync"),
    ("connect", "type: socket, paths: [/run/s], as: broker", Terms(as_broker=True), "as broker"),
    ("listen", 'addresses: ["tcp:0.0.0.0:80", "tcp:[::]:443"]',
     Terms(addresses=(Address("0.0.0.0", 80), Address("::", 443))), ""),
]  # fmt: skip


@pytest.mark.parametrize(("rights", "more", "expected", "shown"), SAID)
def test_terms_are_what_the_file_says(rights: str, more: str, expected: Terms | None, shown: str) -> None:
    if expected is None:
        with pytest.raises(PolicyError, match="expected a whole number"):
            allow(rights, more)
        return
    terms = allow(rights, more).terms
    assert terms == expected
    assert ", ".join(in_words(terms)) == shown


@pytest.mark.parametrize(("rights", "more", "expected"), [one[:3] for one in SAID if one[2]])
def test_terms_that_are_written_out_are_read_as_the_same(rights: str, more: str, expected: Terms) -> None:
    found = allow(rights, more)
    objects = [part for part in (FILE, LINE, "type: socket, paths: [/run/s]") if more.startswith(part)]
    assert allow(rights, ", ".join([*objects, *as_written(found.terms)])).terms == found.terms
    values: dict[str, Any] = json.loads(json.dumps(written(found.terms)))
    assert allow(rights, ", ".join([*objects, json.dumps(values)[1:-1]])).terms == found.terms


@given(st.integers(1, 366 * 86_400))
def test_duration_is_read_as_what_it_was_written_for(seconds: int) -> None:
    assert allow("read", f"{FILE}, lease: {duration_text(seconds)}").terms.lease == seconds


def test_flags_are_those_of_the_wire() -> None:
    assert set(FLAG_WORDS) == set(FLAGS)


def test_rule_with_tun_is_for_the_device_that_makes_interfaces() -> None:
    found = allow("use", "tun: {name: vpn0}")
    assert [path.text for path in found.paths] == ["/dev/net/tun"]
    assert found.types == frozenset((FileType.CHAR,))


# Addresses


@pytest.mark.parametrize("action", [f"{WHO}, allow", "deny"])
def test_rule_with_addresses_decides_nothing_about_paths(action: str) -> None:
    ports = rule(f'{action}: listen, addresses: ["tcp:0.0.0.0:80"]')
    everything = allow("use", "paths: [/**]")._replace(id="a/z")
    policy = Policy([everything, ports], {}, "")
    peer = Peer(5, frozenset(), frozenset(), frozenset())
    for needed in (Rights.READ, Rights.LISTEN):
        request = Request("/a", needed)
        verdict = policy.decide(request, peer, Object("/a", FileType.FILE))
        assert verdict.allowed is (needed == Rights.READ)
        assert verdict.rule is (everything if verdict.allowed else None)
        assert ports not in policy.describe(peer)


# What is kept

LOG = "append, create"
CREATED = f"{FILE}, create: {{mode: 0640}}"
NEEDS = [
    ("read", FILE, ""),
    ("use, truncate", LINE, ""),
    ("read", f"{FILE}, revoke: try, exclusive: false", ""),
    ("read", f"{FILE}, lease: 1m, renewable: true", "lease"),
    ("read", f"{FILE}, exclusive: true", "exclusive"),
    ("read", f"{FILE}, preempt: true", "preempt"),
    ("read", f"{FILE}, limits: {{open: 1}}", "limits"),
    ("read", f"{FILE}, revoke: required, relay: true", "relay revoke"),
    ("read", f"{FILE}, revoke: kill", "revoke"),
    ("read", f"{FILE}, snapshot: true", "snapshot"),
    ("read", f"{LINE}, serial: {{raw: true}}", "serial"),
    ("read", "tun: {name: vpn0}, netns: broker", "tun"),
    (LOG, f"{CREATED}, temporary: true", "append create temporary"),
    ("write, create", CREATED, "create"),
    ("append", FILE, "append"),
    ("read", f"{FILE}, flags: sync", "flags"),
    ("list", "type: directory, paths: [/srv]", "list"),
    ("connect, read", "type: [socket, file], paths: [/srv/x], as: broker", "connect"),
    ("listen", 'addresses: "tcp:0.0.0.0:80"', "listen"),
]


@pytest.mark.parametrize(("rights", "more", "codes"), NEEDS)
def test_policy_is_served_when_all_is_kept_or_accepted(rights: str, more: str, codes: str) -> None:
    needed = [f"unkept-{code}" for code in codes.split()]
    found = allow(rights, more)
    assert sorted(one.code for one in unkept(found)) == needed
    policy = Policy([found], {}, "")
    assert len(refusals(policy)) == len(needed)
    for code in needed:
        but_one = found._replace(accept=frozenset(needed) - {code})
        with pytest.raises(PolicyError) as error:
            kept(Policy([but_one], {}, ""))
        (problem,) = error.value.problems
        assert str(problem).startswith("a.yaml:3: rule 'r': this version does not keep '")
        assert f"'accept: [{code}]'" in problem.message
    accepting = allow(rights, f"{more}, accept: [{', '.join(CODES)}]")
    served = kept(Policy([accepting], {}, "")).rules
    assert served == tuple(one for one in [accepting._replace(rights=given_rights(accepting))] if one.rights)


def test_every_code_of_what_is_not_kept_is_needed_by_something() -> None:
    assert {f"unkept-{code}" for _, _, codes in NEEDS for code in codes.split()} == set(UNKEPT)
    assert set(UNKEPT) <= set(CODES)


# Terms that have no code: what they are about has one, or is kept as it stands.
COVERED = {"renewable", "create", "as_broker", "netns_broker", "addresses"}
SOME: dict[str, Any] = {
    **dict.fromkeys(("lease", "open_limit", "rate_limit"), 1),
    **{
        "revoke": "required",
        "serial": Serial(),
        "tun": "vpn0",
        "create": Creation(),
        "flags": frozenset(["sync"]),
    },
    "addresses": (Address("::", 80),),
}


@pytest.mark.parametrize("field", Terms._fields)
def test_no_term_is_ignored_in_silence(field: str) -> None:
    """A term that is added to the language is kept, or has a code."""
    found = allow("read", FILE)._replace(terms=Terms(**{field: SOME.get(field, True)}))
    assert bool(unkept(found)) is (field not in COVERED)
    assert found.terms != NO_TERMS
    assert written(found.terms) or field == "create"
    assert in_words(found.terms) or field in ("create", "addresses")


def test_deny_is_kept_whatever_it_lists() -> None:
    policy = load(
        [Source("a.yaml", "version: 1\nrules: [{name: r, deny: all}, {name: s, deny: [list, append]}]\n")]
    )
    assert kept(policy) is policy


@given(st.sets(st.sampled_from([*Rights])))
def test_right_that_cannot_be_given_is_never_granted_by_what_is_served(rights: set[Rights]) -> None:
    words = [str(one.name).lower() for one in rights] or ["read"]
    every = parse_rights(words)
    found = allow("read", "paths: [/**]")._replace(
        rights=every, accept=frozenset(UNKEPT), types=frozenset(FileType)
    )
    served = kept(Policy([found], {}, ""))
    peer = Peer(5, frozenset(), frozenset(), frozenset())
    for right in Rights:
        verdict = served.decide(Request("/a", right, parse_rights(words)), peer, Object("/a", FileType.FILE))
        able = Rights.READ | Rights.TRUNCATE | Rights.IOCTL
        able |= Rights.WRITE | Rights.APPEND if Rights.WRITE in every else Rights(0)
        assert verdict.allowed is (right in every and right in able)
        assert verdict.rights in able


def test_all_that_is_not_kept_of_all_rules_is_told_at_once() -> None:
    rules = "".join(
        f"  - {{name: r{number}, {WHO}, allow: read, {FILE}, lease: 1m, exclusive: true}}\n"
        for number in range(3)
    )
    with pytest.raises(PolicyError) as error:
        kept(load([Source("a.yaml", f"version: 1\nrules:\n{rules}")]))
    assert [(problem.line, problem.column) for problem in error.value.problems] == [
        (line, 0) for line in (3, 3, 4, 4, 5, 5)
    ]
