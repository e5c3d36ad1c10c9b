"""A rule that lint calls unable to decide is the rule of no verdict."""

from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from policy import Policy, Source, load
from policy.findings import CODES
from policy.lint_dead import NEVER_DECIDES, never_deciding
from tests.policy.strategies import MOMENTS, RuleText, Situation, granted, named, policy_of, rule_lists

FINDING = settings(phases=[Phase.generate], max_examples=5_000, database=None, deadline=None)

# What a rule that is made from another keeps of it.
KEPT = ["clients", "paths", "type", "devices", "device", "subsystem", "udev", "attrs", "seat", "except_paths"]
KEPT += ["except_devices", "except_clients", "until"]


def as_deny(rule: RuleText, kept: list[str], words: Any) -> RuleText:
    return {"deny": words, **{key: value for key, value in rule.items() if key in kept}}


def excepting_itself(rule: RuleText, key: str) -> RuleText:
    return {**rule, f"except_{key}": rule[key]} if key in rule else rule


@st.composite
def crowded(draw: st.DrawFn) -> tuple[list[RuleText], Situation]:
    """Rules of which some are made from others, so that they meet; and a situation for them."""
    rules, situation = draw(granted())
    rules += named(draw(rule_lists))[: 4 - len(rules)]
    for rule in list(rules):
        made = draw(
            st.sampled_from(["deny", "deny", "same", "paths", "clients", "devices", "type", "nothing"])
        )
        if made == "deny":
            kept = draw(st.sets(st.sampled_from(KEPT)))
            rules.append(
                as_deny(rule, sorted(kept), draw(st.sampled_from(["all", "read", ["write", "ioctl"]])))
            )
        elif made == "same":
            rules.append({**rule, **draw(st.sampled_from([{}, {"until": next(iter(MOMENTS))}]))})
        elif made == "type":
            rules.append({**rule, "type": ["block"], "devices": [{"type": "char", "seat": "seat0"}]})
        elif made != "nothing":
            rules.append(excepting_itself(rule, made))
    return named([{key: value for key, value in rule.items() if key != "name"} for rule in rules]), situation


def dead(policy: Policy, now: float | None) -> dict[str, str]:
    return {one.rule: one.code for one in never_deciding(policy.rules, now) if one.code in NEVER_DECIDES}


@settings(max_examples=150, deadline=None)
@given(crowded())
def test_rule_that_never_decides_is_the_rule_of_no_verdict(case: tuple[list[RuleText], Situation]) -> None:
    rules, situation = case
    policy = policy_of(rules)
    verdict = situation.decided_by(policy)
    if verdict.rule is not None:
        assert verdict.rule.id not in dead(policy, situation.now)
        # What never decides whatever the time does not either, also when that is unknown.
        assert verdict.rule.id not in dead(policy, None)


@st.composite
def met(draw: st.DrawFn) -> tuple[list[RuleText], Situation]:
    """An allow that gives, and a rule that says nearly the same of it: in one of its keys it may say something else."""
    rules, situation = draw(granted())
    extras = draw(st.sampled_from([{}, {}, *EXTRAS]))
    allow = {**rules[0], **extras}
    other = {key: value for key, value in allow.items() if key in KEPT and draw(st.booleans())}
    key = draw(st.sampled_from(list(OTHERS)))
    other[key] = draw(st.sampled_from(OTHERS[key]))
    words = draw(st.sampled_from(["all", "all", ["read", "append"], "truncate"]))
    if draw(st.integers(0, 3)):
        return [allow, {**other, "name": "d", "deny": words}], situation
    return [allow, {**allow, **other, "name": draw(st.sampled_from(["d", "z"]))}], situation


OTHERS: dict[str, list[Any]] = {
    "clients": [
        ["any"],
        [{"user": "mia"}],
        [{"socket": "default", "group": "lab"}],
        [{"uid": "1000"}, "any"],
    ],
    "paths": [
        [one] for one in ["/**", "/*/**", "/*/*", "/srv/**", "/srv/*", "/srv/a/*", "/srv/a/**", "/dev/?"]
    ],
    "except_paths": [["/srv/*"], ["/dev/**"], ["/srv/a/b"], ["/*/a"]],
    "type": [["file"], ["char", "block"], ["block"]],
    "except_clients": [[{"user": "mia"}], [{"uid": "1000-1001"}], ["any"]],
    "until": list(MOMENTS),
    "devices": [[{"subsystem": "tty"}], [{"udev": {"BUS": "usb"}}], ["adapters"]],
    "except_devices": [[{"subsystem": "tty"}], [{"device": "1:*"}]],
    "subsystem": ["tty", "usb"],
}
EXTRAS = [{key: value} for key in ("except_clients", "until", "except_paths") for value in OTHERS[key]]
EXTRAS += [{"devices": value, "type": ["char", "block"]} for value in OTHERS["devices"]]


@settings(max_examples=400, deadline=None)
@given(met())
def test_allow_that_gives_is_not_dead_whatever_another_rule_says(
    case: tuple[list[RuleText], Situation],
) -> None:
    rules, situation = case
    policy = policy_of(rules)
    verdict = situation.decided_by(policy)
    assert verdict.rule is None or verdict.rule.id not in dead(policy, situation.now)


@pytest.mark.parametrize("code", sorted(NEVER_DECIDES))
def test_cases_reach_every_way_of_never_deciding_beside_a_verdict(code: str) -> None:
    def is_such(case: tuple[list[RuleText], Situation]) -> bool:
        rules, situation = case
        policy = policy_of(rules)
        return code in dead(policy, situation.now).values() and situation.decided_by(policy).rule is not None

    find(crowded(), is_such, settings=FINDING)


LAB = "clients: {group: lab}"
TWO = "clients: {user: [mia, tom]}"


def codes_of_first(*rules: str) -> set[str]:
    """The codes of the rule `z`, which comes after the others by its id."""
    lines = [
        f"  - {{name: {'z' if not number else f'r{number}'}, {rule}}}" for number, rule in enumerate(rules)
    ]
    policy = load([Source("a.yaml", "\n".join(["version: 1", "rules:", *lines]))])
    return {one.code for one in never_deciding(policy.rules, 1e9) if one.rule == "a/z"}


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([f"{TWO}, allow: read, paths: /a, until: 1999-01-01T00:00Z"], "rule-is-over"),
        ([f"{TWO}, allow: read, paths: /a, until: 2999-01-01T00:00Z"], ""),
        ([f"{TWO}, allow: read, paths: [/a/b, '/a/*/c'], except_paths: '/a/**'"], "paths-all-excepted"),
        ([f"{TWO}, allow: read, paths: '/a/sda*', except_paths: '/a/sd*'"], "paths-all-excepted"),
        ([f"{TWO}, allow: read, paths: '/a/sd*', except_paths: '/a/sda*'"], ""),
        ([f"{TWO}, allow: read, paths: '/a/**', except_paths: '/a/*'"], ""),
        ([f"{TWO}, allow: read, paths: '/a/*', except_paths: '/a/**'"], "paths-all-excepted"),
        ([f"{TWO}, allow: read, paths: ['/a/${{user}}'], except_paths: '/a/*'"], "paths-all-excepted"),
        ([f"{TWO}, allow: read, paths: ['${{home}}/x'], except_paths: '/*/*/**'"], ""),
        ([f"{TWO}, allow: read, paths: ['${{home}}/x'], except_paths: '/**'"], "paths-all-excepted"),
        (["deny: all, paths: ['/a/${user}'], except_paths: '/a/${user}'"], ""),  # denies who has no name
        (["deny: all, paths: ['/a/${user}'], except_paths: '/a/*'"], "paths-all-excepted"),
        ([f"{TWO}, allow: read, paths: /a, except_clients: {{user: [mia, tom, ada]}}"], "clients-all-excepted"),
        ([f"{TWO}, allow: read, paths: /a, except_clients: {{user: mia}}"], ""),
        (["clients: {user: mia, group: lab}, allow: read, paths: /a, except_" + LAB], "clients-all-excepted"),
        ([f"{LAB}, deny: read, paths: /a, except_{LAB}"], "deny-spares-all"),
        ([f"{LAB}, allow: read, subsystem: tty, except_devices: {{subsystem: tty}}"], "devices-all-excepted"),
        ([f"{LAB}, allow: read, paths: /dev/a, type: block, devices: {{type: char, seat: a}}"], "no-device-type"),
        ([f"{LAB}, allow: read, paths: /dev/a, type: [block, char], devices: {{type: char, seat: a}}"], ""),
        (["deny: read, type: file, subsystem: tty"], "deny-spares-all"),
        # Shadowed, by one deny and by several together.
        ([f"{LAB}, allow: read, paths: /a/b", "deny: all, paths: '/a/**'"], "shadowed"),
        ([f"{LAB}, allow: read, paths: /a/b", "deny: all"], "shadowed"),
        ([f"{LAB}, allow: read, paths: /a", "deny: all, paths: '/a/**'"], ""),
        ([f"{LAB}, allow: read, paths: [/a/b, /c]", "deny: all, paths: '/a/**'"], ""),
        ([f"{LAB}, allow: read, paths: [/a/b, /c]", "deny: all, paths: '/a/**'", "deny: read, paths: /c"], "shadowed"),
        ([f"{LAB}, allow: edit, paths: /a", "deny: read, paths: /a"], ""),
        ([f"{LAB}, allow: edit, paths: /a", "deny: read, paths: /a", "deny: [append, truncate]"], "shadowed"),
        ([f"{LAB}, allow: [read, write], paths: /a", "deny: [read, write], paths: /a, until: 2999-01-01T00:00Z"], ""),
        ([f"{TWO}, allow: read, paths: /a", "deny: all, clients: {user: mia}"], ""),
        ([f"{TWO}, allow: read, paths: /a", "deny: all, clients: {user: mia}", "deny: all, clients: {user: tom}"],
         "shadowed"),
        (["clients: {user: mia, group: lab}, allow: read, paths: /a", f"deny: all, {LAB}"], "shadowed"),
        ([f"{LAB}, allow: read, paths: /a", "deny: all, clients: {user: mia, group: lab}"], ""),
        ([f"{LAB}, allow: read, paths: /a", f"deny: all, paths: /a, except_{LAB}"], ""),
        ([f"{LAB}, allow: read, paths: /a", "deny: all, type: char"], ""),
        ([f"{LAB}, allow: read, paths: /a, type: char", "deny: all, type: [char, block]"], "shadowed"),
        ([f"{LAB}, allow: read, paths: '/a/*'", "deny: all, paths: '/a/*', except_paths: /a/x"], ""),
        ([f"{LAB}, allow: read, paths: '/a/*', except_paths: /a/x", "deny: all, paths: '/a/*', except_paths: /a/x"],
         "shadowed"),
        ([f"{LAB}, allow: read, subsystem: tty", "deny: all, subsystem: tty"], "shadowed"),
        ([f"{LAB}, allow: read, subsystem: 'tty*'", "deny: all, subsystem: tty"], ""),
        ([f"{LAB}, allow: read, devices: [{{seat: a}}, {{seat: b}}]", "deny: all, devices: {seat: a}"], ""),
        ([f"{LAB}, allow: read, devices: {{seat: a}}", "deny: all, devices: [{seat: a}, {seat: b}]"], "shadowed"),
        ([f"{LAB}, allow: read, paths: '/a/${{user}}'", "deny: all, paths: '/a/${user}'"], "shadowed"),
        # An address is no path.
        ([f"{LAB}, allow: read, paths: /a", "deny: listen, addresses: 'tcp:0.0.0.0:80'"], ""),
        # Said already.
        ([f"{LAB}, allow: read, paths: [/a, /b]", f"{LAB}, allow: [read, write], paths: [/b, /a]"], "repeated"),
        ([f"{LAB}, allow: [read, write], paths: /a", f"{LAB}, allow: read, paths: /a"], ""),
        ([f"{TWO}, allow: read, paths: /a", "clients: {user: mia}, allow: read, paths: /a"], ""),
        ([f"{TWO}, allow: read, paths: /a", "clients: {user: mia}, allow: read, paths: /a",
          "clients: {user: tom}, allow: read, paths: /a"], "repeated"),
        ([f"{LAB}, deny: read, paths: /a", "deny: all, paths: /a"], "repeated"),
        ([f"{LAB}, allow: read, paths: /a", f"{LAB}, allow: read, paths: /a, limits: {{open: 1}}"], ""),
        ([f"{LAB}, allow: read, paths: /a, lease: 1h", f"{LAB}, allow: read, paths: /a, lease: 2h"], ""),
    ],
)  # fmt: skip
def test_rule_is_called_dead_when_it_is(rules: list[str], code: str) -> None:
    assert codes_of_first(*rules) == ({code} if code else set())


def test_codes_of_dead_rules_are_codes() -> None:
    assert CODES.keys() >= NEVER_DECIDES
