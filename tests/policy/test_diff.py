"""Differences of two policies: what is told as no gain is none, and each example is one."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policy import Policy
from policy.devices import Device
from policy.diff import BY_RULES, RIGHTS, Gain, gains
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

# What a rule may say of a device, and devices that it may be said of.
SELECTORS: list[Any] = [
    {"subsystem": "tty"},
    {"subsystem": ["tty", "usb*"]},
    {"udev": {"ID_BUS": "usb"}},
    {"udev": {"ID_BUS": "[up]*", "ID_V": "1"}},
    {"device": "188:*"},
    {"device": ["188:0", "4:1"]},
    {"seat": "seat0"},
    {"attrs": {"idVendor": "0403"}},
    {"type": "char", "subsystem": "tty"},
]
DEVICES = [None, Device()] + [
    Device(number, subsystem, properties, attributes)
    for number, subsystem in (((188, 0), "tty"), ((4, 1), "usbmisc"), (None, None))
    for properties in (None, {}, {"ID_BUS": "usb", "ID_V": "1"}, {"ID_BUS": "pci", "ID_SEAT": "seat1"})
    for attributes in (None, ({"idVendor": "0403"}, {"idVendor": None}), ({"idVendor": "1"},))
]


EXAMPLES = 150


def with_devices(rule: RuleText, key: str, selectors: list[Any]) -> RuleText:
    kinds = {} if "deny" in rule or "type" in rule else {"type": ["char", "block"]}
    return {**rule, **kinds, key: selectors}


@st.composite
def changed(draw: st.DrawFn) -> Pair:
    """Rules, the same after a change or two, and a situation in which they may differ."""
    rules, situation = draw(granted())
    device_keys = st.sampled_from(["devices", "except_devices"])
    selectors = st.lists(st.sampled_from(SELECTORS), min_size=1, max_size=2)

    def maybe_of_devices(rule: RuleText) -> RuleText:
        if draw(st.integers(0, 3)):
            return rule
        return with_devices(rule, draw(device_keys), draw(selectors))

    unnamed = [{key: value for key, value in rule.items() if key != "name"} for rule in rules]
    old = [maybe_of_devices(rule) for rule in unnamed]
    new = list(old)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(new)))
        how = draw(st.sampled_from(["add", "drop", "change", "change", "change", "remove"]))
        if how == "add" or at == len(new):
            new.insert(at, maybe_of_devices(draw(st.one_of(allows, denies))))
        elif how == "drop":
            del new[at]
        elif how == "change":
            new[at] = change(draw, new[at])
        else:
            keys = [key for key in new[at] if key.startswith("except_") or key == "until"]
            new[at] = {key: value for key, value in new[at].items() if key not in keys[:1]}
    found = situation.object._replace(device=draw(st.sampled_from(DEVICES)))
    peer = situation.peer
    if peer.user_names:  # a user that is known by name has an account, and a number
        peer = peer._replace(has_account=True)
    return named(old), named(new), situation._replace(object=found, peer=peer)


def change(draw: st.DrawFn, rule: RuleText) -> RuleText:
    key = draw(st.sampled_from(["clients", "except_clients", "paths", "except_paths", "rights"]))
    if key == "rights":
        other = draw(allows if "allow" in rule else denies)
        action = "allow" if "allow" in rule else "deny"
        return {**rule, action: other[action]}
    values = draw(client_lists if key.endswith("clients") else pattern_lists)
    kept = rule.get(key, [])
    return {**rule, key: draw(st.sampled_from([values, [*kept, *values], kept[:1] or values]))}


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
