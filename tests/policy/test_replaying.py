"""What is said of a record holds however its missing facts are filled in."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policy import DENY, FileType, Object, Peer, Rights
from policy.devices import Device
from policy.replaying import ALLOWED, DENIED, NOT_KNOWN, Facts, judged
from tests.policy.strategies import RuleText, Situation, granted, named, policy_of, rule_lists, situations

Case = tuple[list[RuleText], Situation]

FACTS = [
    *("uid", "user_names", "gids", "group_names", "account_gids", "account_group_names", "has_account"),
    *("account_name", "home", "unit", "exe", "label", "owner_names", "owner_uids"),
]


cases: st.SearchStrategy[Case] = st.one_of(granted(), st.tuples(rule_lists.map(named), situations()))


def without(draw: st.DrawFn, situation: Situation) -> Facts:
    """What a record may have of it."""
    lost = draw(st.sets(st.sampled_from(FACTS), max_size=4))
    peer: Peer = situation.peer._replace(**dict.fromkeys(lost))
    found: Object | None = situation.object
    names_known = link_known = True
    what = draw(st.sampled_from(["", "", "object", "type", "names", "link", "device"]))
    assert found is not None
    if what == "object":
        found = None
    elif what == "type":
        found = found._replace(type=None)
    elif what == "names":
        found, names_known = found._replace(names=()), False
    elif what == "link":
        found, link_known = found._replace(last_link=False), False
    elif what == "device":
        found = found._replace(device=None)
    now = None if draw(st.integers(0, 9)) == 0 else situation.now
    return Facts(situation.request, peer, found, names_known, link_known, now=now)


@settings(deadline=None)
@given(cases, st.data())
def test_judgement_is_the_decision_whatever_was_not_recorded(case: Case, data: st.DataObject) -> None:
    rules, situation = case
    policy = policy_of(rules)
    verdict = situation.decided_by(policy)
    facts = data.draw(st.composite(without)(situation))
    judgement = judged(policy.rules, facts)
    if judgement.answer != NOT_KNOWN:
        assert (judgement.answer == ALLOWED) is verdict.allowed
        assert judgement.rights is None or judgement.rights == verdict.rights
        assert judgement.rule is None or judgement.rule.action == DENY or judgement.rule == verdict.rule


COMPLETE = Peer(
    1000, *[frozenset[Any]()] * 5, True, account_name="a", home="/srv/a", unit="", exe="/bin/b", label="x_t"
)


@settings(deadline=None)
@given(cases)
def test_judgement_is_known_when_all_facts_are(case: Case) -> None:
    rules, situation = case
    policy = policy_of(rules)
    held = situation.peer._asdict()
    peer = Peer(**{key: getattr(COMPLETE, key) if value is None else value for key, value in held.items()})
    found = situation.object._replace(
        type=situation.object.type or FileType.CHAR,
        device=Device((1, 0), "tty", {}, ({},)),
    )
    now = situation.now or 0.0
    judgement = judged(policy.rules, Facts(situation.request, peer, found, now=now))
    verdict = policy.decide(situation.request, peer, found, now)
    assert judgement.answer == (ALLOWED if verdict.allowed else DENIED)
    assert judgement.rights in (None, verdict.rights)


@settings(deadline=None)
@given(cases, st.data())
def test_judgement_of_what_was_asked_by_name_is_the_lexical_decision(case: Case, data: st.DataObject) -> None:
    rules, situation = case
    policy = policy_of(rules)
    lost = data.draw(st.sets(st.sampled_from(FACTS), max_size=3))
    peer = situation.peer._replace(**dict.fromkeys(lost))
    judgement = judged(policy.rules, Facts(situation.request, peer, None, lexical=True, now=situation.now))
    verdict = policy.decide(situation.request, situation.peer, None, situation.now)
    if judgement.answer != NOT_KNOWN:
        assert (judgement.answer == ALLOWED) is verdict.allowed
        assert judgement.rights in (None, verdict.rights, Rights(0))
