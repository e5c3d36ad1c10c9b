"""What many peers can have of an object is what `decide` would answer to each of them, whatever each asks."""

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from policy import ALLOW, FileType, Object, Peer, Policy, Request, Rights, Verdict, parse_rights
from policy.access import AccessTable, Subject, literals
from policy.devices import Device
from policy.words import with_implied
from tests.policy.strategies import (
    DENY_WORDS,
    RuleText,
    Situation,
    granted,
    peers,
    policy_of,
    subsets,
)

ALL_REQUESTS = sorted({parse_rights(words) for words in subsets(DENY_WORDS, 1, len(DENY_WORDS))})
NODE = Object("/dev/ttyUSB0", FileType.CHAR, (), False, Device((188, 0), "tty", {"ID_BUS": "usb"}, ()))
SEVERAL_PEERS = st.lists(peers, min_size=2, max_size=5)


def decided(
    policy: Policy, subject: Subject, peer: Peer, rights: Rights, now: float | None
) -> Verdict | None:
    """What the broker does, in the order in which it does it: None is a refusal."""
    request = Request(subject.path, rights)
    considered = policy.consider(request, peer, now)
    if considered.refusal is not None:
        return None
    found = considered.named(subject.object, subject.same)
    verdict = policy.decide(request, peer, found, now)
    return verdict if verdict.allowed else None


def check(policy: Policy, subject: Subject, known: list[Peer], now: float | None) -> None:
    """Every cell, against a decision of its own."""
    cells = AccessTable(policy, known, now).reaches(subject)
    assert sorted(number for members, _ in cells for number in members) == list(range(len(known)))
    for members, answer in cells:
        for number in members:
            for rights in ALL_REQUESTS:
                verdict = decided(policy, subject, known[number], rights, now)
                cell = [grant for grant in answer.grants if not int(rights) & ~int(grant.rights)]
                assert bool(cell) is (verdict is not None), (rights, answer)
                exact = [grant for grant in cell if int(grant.rights) == with_implied(int(rights))]
                assert all(verdict is not None and verdict.rule is grant.rule for grant in exact)


@given(granted(), SEVERAL_PEERS, st.data())
@settings(max_examples=60)
def test_every_cell_is_what_decide_answers(
    case: tuple[list[RuleText], Situation], more: list[Peer], data: st.DataObject
) -> None:
    texts, situation = case
    policy = policy_of(texts)
    known = [situation.peer, *more]
    others = sorted(literals(policy, known))
    same = data.draw(st.frozensets(st.sampled_from(others), max_size=2)) if others else frozenset()
    check(policy, Subject(situation.request.path, situation.object, same), known, situation.now)


@pytest.mark.parametrize("tells_apart", [True, False])
def test_random_tables_have_peers_of_one_kind_and_of_several(tells_apart: bool) -> None:
    def is_so(case: tuple[tuple[list[RuleText], Situation], list[Peer]]) -> bool:
        (texts, situation), more = case
        known = [situation.peer, *more]
        cells = AccessTable(policy_of(texts), known, situation.now).reaches(
            Subject(situation.request.path, situation.object)
        )
        allowed = any(answer.grants for _, answer in cells)
        return allowed and (len(cells) > 1 if tells_apart else len(cells) < len(known))

    find(
        st.tuples(granted(), SEVERAL_PEERS),
        is_so,
        settings=settings(phases=[Phase.generate], max_examples=2_000, database=None),
    )


def rule(name: str, **keys: object) -> RuleText:
    return {"name": name, "allow": ["read"], "clients": [{"user": "mia"}], "subsystem": "tty", **keys}


MIA = Peer(1042, frozenset(["mia"]), frozenset([50]), frozenset(["lab"]), account_name="mia")
CASES = [
    ("two rules, neither with all", [rule("a", allow=["read", "write"]), rule("b", allow=["read", "ioctl"])],
     {"read+write+append": "a", "read+ioctl": "b"}),
    ("the larger covers the smaller", [rule("a"), rule("b", allow=["use"])], {"read+write+append+ioctl": "b"}),
    ("a deny takes a part", [rule("a", allow=["use"]), {"name": "z", "deny": ["ioctl"]}],
     {"read+write+append": "a"}),
    ("a deny takes all", [rule("a"), {"name": "z", "deny": "all", "subsystem": "tty"}], {}),
    ("another device", [rule("a", subsystem="sound")], {}),
    ("for another", [rule("a", clients=[{"user": "tom"}])], {}),
    ("no rule", [], {}),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_largest_sets_of_rights_are_told(texts: list[RuleText], wanted: dict[str, str]) -> None:
    policy = policy_of(texts)
    ((_, answer),) = AccessTable(policy, [MIA]).reaches(Subject(NODE.path, NODE))
    found = {
        "+".join(right.name.lower() for right in Rights if right in grant.rights and right.name): grant
        for grant in answer.grants
    }
    assert {words: grant.rule.name for words, grant in found.items() if grant.rule} == wanted
    denying = [text["name"] for text in texts if "deny" in text] if not wanted else []
    assert [answer.denied_by.name] == denying if answer.denied_by else not denying
    check(policy, Subject(NODE.path, NODE), [MIA], None)


def test_rules_about_an_object_leave_out_those_for_other_devices() -> None:
    policy = policy_of([rule("a"), rule("b", subsystem="sound"), rule("c", paths=["/srv/*"], type="char")])
    table = AccessTable(policy, [MIA])
    assert [one.name for one in table.rules_about(Subject(NODE.path, NODE))] == ["a"]
    assert all(one.action == ALLOW for one in policy.rules)
