"""Differences of two policies: what is told as no gain is none, and each example is one."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import Policy, Source, load
from policy.diff import BY_RULES, NOT_DECIDED, RIGHTS, SOCKET, TERMS, Gain, gains
from policy.loosening import looser
from policy.terms import NO_TERMS, Terms
from policy.within_clients import NO_NAMES, Names
from policy.witnesses import Witness
from tests.policy.strategies import (
    RuleText,
    Situation,
    allows,
    client_lists,
    denies,
    granted,
    named,
    pattern_lists,
    policy_of,
)

Pair = tuple[list[RuleText], list[RuleText], Situation]

EXAMPLES = 150


@st.composite
def changed(draw: st.DrawFn) -> Pair:
    """Rules, the same after a change or two, and a situation in which they may differ."""
    rules, situation = draw(granted())
    old = [{key: value for key, value in rule.items() if key != "name"} for rule in rules]
    new = list(old)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(new)))
        how = draw(st.sampled_from(["add", "drop", "change", "change", "change", "remove"]))
        if how == "add" or at == len(new):
            new.insert(at, draw(st.one_of(allows, denies)))
        elif how == "drop":
            del new[at]
        elif how == "change":
            new[at] = change(draw, new[at])
        else:
            keys = [key for key in new[at] if key.startswith("except_") or key == "until"]
            new[at] = {key: value for key, value in new[at].items() if key not in keys[:1]}
    peer = situation.peer
    if peer.user_names:  # a user that is known by name has an account
        peer = peer._replace(has_account=True)
    return named(old), named(new), situation._replace(peer=peer)


def change(draw: st.DrawFn, rule: RuleText) -> RuleText:
    key = draw(st.sampled_from(["clients", "except_clients", "paths", "except_paths", "rights"]))
    if key == "rights":
        other = draw(allows if "allow" in rule else denies)
        action = "allow" if "allow" in rule else "deny"
        return {**rule, action: other[action]}
    values = draw(client_lists if key.endswith("clients") else pattern_lists)
    kept = rule.get(key, [])
    # Paths of an allow for devices want a type beside them.
    kinds = {"type": ["char", "block"]} if key == "paths" and "allow" in rule and "type" not in rule else {}
    return {**rule, **kinds, key: draw(st.sampled_from([values, [*kept, *values], kept[:1] or values]))}


def differs(witness: Witness, before: Policy, after: Policy) -> bool:
    request, peer, found, now = witness
    return (
        after.decide(request, peer, found, now).allowed
        and not before.decide(request, peer, found, now).allowed
    )


def sound(before: Policy, after: Policy, situation: Situation) -> list[Gain]:
    """Hold what is told of a change against one situation; the gains."""
    found = gains(before, after)
    for gain in found:
        assert (gain.basis == BY_RULES) is (gain.example is not None or gain.kind != RIGHTS)
        assert gain.example is None or differs(gain.example, before, after)
    verdict = situation.decided_by(after)
    if verdict.allowed and not situation.decided_by(before).allowed:
        # Several rules may give it: each that does so alone must be told.
        told = {gain.rule.id for gain in found if gain.kind == RIGHTS and gain.rule is not None}
        assert verdict.rule is not None and verdict.rule.id in told
    return found


@settings(max_examples=EXAMPLES, deadline=None)
@given(changed())
def test_situation_that_only_one_policy_allows_is_among_the_gains(pair: Pair) -> None:
    old, new, situation = policy_of(pair[0]), policy_of(pair[1]), pair[2]
    sound(old, new, situation)
    sound(new, old, situation)


# Tables


def changes(old: list[str], new: list[str]) -> list[tuple[str, str, str]]:
    """What each rule of `new` gives more, and of `old`: its sign, its name, and how that was decided."""

    def policy(rules: list[str]) -> Policy:
        text = "".join(f"  - {{{rule}}}\n" for rule in rules)
        return load([Source("a.yaml", f"version: 1\nrules:\n{text}" if rules else "version: 1\n")])

    before, after = policy(old), policy(new)
    return [
        (sign, gain.rule.name, gain.basis)
        for sign, found in (("+", gains(before, after)), ("-", gains(after, before)))
        for gain in found
        if gain.rule is not None
    ]


def rule(
    name: str = "r", clients: str = "user: mia", rights: str = "read", more: str = "paths: [/srv/a]"
) -> str:
    return f"name: {name}, clients: [{{{clients}}}], allow: [{rights}], {more}"


GRANTED, TAKEN, OPEN = ("+", "r", BY_RULES), ("-", "r", BY_RULES), ("+", "r", NOT_DECIDED)
ALL = rule(more='paths: ["/srv/**"]')


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([rule()], [rule()], []),
        ([rule()], [rule("other"), rule()], []),
        ([rule(clients="user: [mia, tom]")], [rule(clients="user: mia"), rule("s", clients="user: tom")], []),
        ([rule(clients="uid: 5-9")], [rule(clients="uid: [5-7, 8, 9]")], []),
        ([rule(more="paths: [/srv/a, /srv/b]")], [rule(more='paths: ["/srv/[ab]"]')], []),
        ([rule(more='paths: ["/srv/*"]')], [rule(more='paths: ["/srv/?", "/srv/??*"]')], []),
        ([rule()], [rule(rights="use")], [GRANTED]),
        ([rule(rights="use")], [rule()], [TAKEN]),
        ([rule()], [rule(more='paths: ["/srv/?"]')], [GRANTED]),
        ([rule()], [rule(clients="user: [mia, tom]")], [GRANTED]),
        ([rule(clients="group: lab, user: mia")], [rule()], [GRANTED]),
        ([], [rule()], [GRANTED]),
        ([rule()], [], [TAKEN]),
        ([rule(), "name: d, deny: all, paths: [/srv/a]"], [rule()], [GRANTED]),
        ([rule(), "name: d, deny: all"], [rule()], [GRANTED]),
        ([rule(), "name: d, deny: all, type: block"], [rule()], []),
        ([rule(), "name: d, deny: [write]"], [rule()], []),
        ([rule(), "name: d, deny: all, paths: [/srv/b]"], [rule()], [OPEN]),
        ([ALL, 'name: d, deny: all, paths: ["/srv/b*"]'], [ALL, 'name: d, deny: all, paths: ["/srv/*"]'], [TAKEN]),
        ([ALL, "name: d, deny: all, paths: [/srv/b]"], [ALL, 'name: d, deny: all, paths: ["/**"]'], [TAKEN]),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: all", "name: e, deny: all, paths: [/x]"], []),
        ([rule(more="paths: [/srv/a], until: 2030-01-01T00:00Z")], [rule()], [GRANTED]),
        ([rule(more="paths: [/dev/a], type: [char, block]")], [rule(more="paths: [/dev/a], type: char")],
         [GRANTED, TAKEN]),  # a link to a device counts for a rule of one type alone
        ([rule(more="subsystem: tty")], [rule(more="subsystem: tty, udev: {A: 1}")], [TAKEN]),
        ([rule(more="devices: [{subsystem: tty}]")], [rule(more="subsystem: tty")], []),
        ([rule(more='udev: {A: ["1", "2"]}')], [rule(more='udev: {A: "[12]"}')], []),
        ([rule(more='device: ["8:*"]')], [rule(more='device: ["8:0", "8:1"]')], [TAKEN]),
        ([rule(more="paths: [/dev/tty], type: char")], [rule(more='paths: ["/dev/tt?"], type: char')],
         [GRANTED, TAKEN]),  # each process has a /dev/tty of its own
        ([rule(more='paths: ["/srv/${user}"]')], [rule(more='paths: ["/srv/*"]')], [GRANTED]),
        ([rule(more='paths: ["/srv/*"]')], [rule(more='paths: ["/srv/${user}"]')], [TAKEN]),
        ([rule(more="paths: [/srv/a], except_paths: [/srv/a]")], [], []),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: all, except_clients: [{user: mia}]"], [GRANTED]),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: all, except_clients: [{unit: a.scope}]"], [GRANTED]),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: all, clients: [{user: mia}]"], []),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: all, clients: [{user: tom}]"], [GRANTED]),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: all, type: [file, char]"], []),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: all, type: char"], [GRANTED]),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: [write]"], [GRANTED]),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: all, until: 2030-01-01T00:00Z"], [GRANTED]),
        ([rule(), "name: d, deny: all"], [rule(), "name: d, deny: all, except_paths: [/srv/a]"], [GRANTED]),
        ([ALL, "name: d, deny: all, paths: [/srv/b]"], [ALL, 'name: d, deny: all, paths: ["/srv/?"]'], [OPEN, TAKEN]),
        ([rule(more="subsystem: tty"), "name: d, deny: all"],
         [rule(more="subsystem: tty"), "name: d, deny: all, subsystem: [tty, usb]"], []),
        ([rule(more="subsystem: tty"), "name: d, deny: all"],
         [rule(more="subsystem: tty"), "name: d, deny: all, except_devices: [{udev: {A: x}}]"], [GRANTED]),
    ],
)  # fmt: skip
def test_changes_are_told_and_what_is_the_same_is_not(old: list[str], new: list[str], expected: Any) -> None:
    assert changes(old, new) == expected


@pytest.mark.parametrize(
    ("new", "old", "words"),
    [
        (NO_TERMS, NO_TERMS, ()),
        (Terms(lease=3600), Terms(lease=1800), ("lease 1h, was 30m",)),
        (Terms(lease=1800), Terms(), ()),
        (Terms(), Terms(lease=90), ("lease none, was 90s",)),
        (Terms(), Terms(exclusive=True), ("exclusive none, was yes",)),
        (Terms(exclusive=True), Terms(), ()),
        (Terms(preempt=True), Terms(), ("preempt yes, was none",)),
        (Terms(open_limit=3), Terms(open_limit=2), ("limits.open 3, was 2",)),
        (Terms(revoke="try"), Terms(revoke="required"), ("revoke try, was required",)),
        (Terms(revoke="required"), Terms(), ()),
        (Terms(tun="vpn0"), Terms(tun="vpn1"), ("tun vpn0, was vpn1",)),
    ],
)
def test_looser_terms_are_told(new: Terms, old: Terms, words: tuple[str, ...]) -> None:
    assert looser(new, old) == words


def test_same_rights_under_looser_terms_are_a_gain() -> None:
    (one,) = load([Source("a.yaml", f"version: 1\nrules: [{{{rule()}}}]\n")]).rules
    strict = Policy([one._replace(terms=Terms(lease=1800, exclusive=True))], {}, "")
    (gain,) = gains(strict, Policy([one], {}, ""))
    assert (gain.kind, gain.basis) == (TERMS, BY_RULES)
    assert gain.terms == ("lease none, was 30m", "exclusive none, was yes")
    assert gains(Policy([one], {}, ""), strict) == []


@pytest.mark.parametrize(
    ("old", "new", "basis"),
    [
        ("mode: 0660", "mode: 0666", BY_RULES),
        ("mode: 0666", "mode: 0660", None),
        ("group: adm", "group: lab", NOT_DECIDED),
        ("mode: 0660", "mode: 0664", None),
    ],
)
def test_socket_that_more_can_reach_is_a_gain(old: str, new: str, basis: str | None) -> None:
    def policy(socket: str) -> Policy:
        sockets = f"sockets: {{gpu: {{path: /run/gpu, {socket}}}}}"
        rules = f"rules: [{{{rule(clients='socket: gpu')}}}]"
        return load([Source("a.yaml", f"version: 1\n{sockets}\n{rules}\n")])

    found = gains(policy(old), policy(new))
    assert [(gain.kind, gain.basis) for gain in found] == ([(SOCKET, basis)] if basis else [])


def test_names_of_accounts_are_numbers_where_they_are_known() -> None:
    def policy(client: str) -> Policy:
        return load([Source("a.yaml", f"version: 1\nrules: [{{{rule(clients=client)}}}]\n")])

    by_name, by_number = policy("user: mia"), policy("uid: 1000-1001")
    assert [gain.basis for gain in gains(by_number, by_name)] == [BY_RULES]
    assert gains(by_number, by_name, Names({"mia": 1000}, {})) == []
    (gain,) = gains(by_name, by_number, Names({"mia": 1000}, {}))
    assert gain.example is not None and gain.example.peer.uid == 1001
    assert gains(by_number, by_name, NO_NAMES) != []
