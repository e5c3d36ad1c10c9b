"""The laws of the language, sentence by sentence, held against random policies and situations."""

import json
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from policy import (
    ALLOW,
    FileType,
    Object,
    Peer,
    PolicyError,
    Request,
    Rights,
    Source,
    counting,
    index,
    load,
    load_set,
    parse_rights,
)
from policy.devices import Device
from tests.policy import oracle
from tests.policy.strategies import (
    MOMENTS,
    OPEN_WORDS,
    PATHS,
    RuleText,
    Situation,
    TieredFile,
    allows,
    client_lists,
    denies,
    devices,
    granted,
    named,
    optional_rights,
    paths,
    pattern_lists,
    peers,
    policy_of,
    rule_lists,
    situations,
    source,
    tiered_sets,
    times,
    wanted_rights,
)

Case = tuple[list[RuleText], Situation]
PEER_FACTS = [
    "uid",
    "user_names",
    "gids",
    "group_names",
    "account_gids",
    "account_group_names",
    "has_account",
    "account_name",
    "home",
    "unit",
    "exe",
    "label",
    "owner_names",
    "owner_uids",
]

Values = TypeVar("Values", bound=NamedTuple)


def replace(values: Values, **changes: Any) -> Values:
    return values._replace(**changes)


def is_allow(rule: RuleText) -> bool:
    return "allow" in rule


# Without these the laws could hold for want of a case. Only whether one is found matters, not which.
FINDING = settings(phases=[Phase.generate], max_examples=5_000, database=None)


@pytest.mark.parametrize("allowed", [True, False])
def test_cases_reach_every_verdict(allowed: bool) -> None:
    find(
        granted(), lambda case: len(case[0]) > 2 and case[1].allowed_by(case[0]) is allowed, settings=FINDING
    )


def test_cases_reach_a_grant_through_a_link_that_the_rule_names_only_at_one_end() -> None:
    def is_such(case: Case) -> bool:
        rules, situation = case
        without_link = replace(situation, object=replace(situation.object, last_link=False))
        return situation.allowed_by(rules) and not without_link.allowed_by(rules)

    def by_link(case: Case) -> Case:
        return case[0], replace(case[1], object=replace(case[1].object, last_link=True))

    find(granted().map(by_link), is_such, settings=FINDING)


def test_cases_reach_an_optional_right_that_a_deny_takes_away() -> None:
    def is_such(case: Case) -> bool:
        rules, situation = case
        verdict = situation.decided_by(policy_of(rules))
        freely = situation.decided_by(policy_of([rule for rule in rules if is_allow(rule)]))
        return verdict.allowed and verdict.rights != freely.rights

    find(granted(), is_such, settings=FINDING)


@given(granted())
def test_verdict_is_that_of_the_plain_reading(case: Case) -> None:
    rules, situation = case
    verdict = situation.decided_by(policy_of(rules))
    expected = oracle.decide(rules, situation.request, situation.peer, situation.object, situation.now)
    granted_by = (verdict.rights, verdict.rule.name) if verdict.allowed and verdict.rule else None
    assert granted_by == expected


# Sentence 1


@given(granted(), st.randoms(use_true_random=False))
def test_law_1_order_of_rules_changes_nothing(case: Case, random: Any) -> None:
    rules, situation = case
    shuffled = random.sample(rules, len(rules))
    assert situation.decided_by(policy_of(shuffled)).reason == situation.decided_by(policy_of(rules)).reason


@given(granted(), st.integers(0, 5))
def test_law_1_order_of_files_changes_nothing(case: Case, cut: int) -> None:
    rules, situation = case
    files = [source(rules[:cut], "10-first.yaml"), source(rules[cut:], "20-second.yaml", declares=False)]
    one, other = load(files), load(reversed(files))
    assert one.digest == other.digest
    assert one.rules == other.rules
    assert situation.decided_by(one) == situation.decided_by(other)


@pytest.mark.parametrize("section", ["clients: {lab: {user: mia}}", "sockets: {gpu: {path: /run/gpu}}"])
def test_law_1_name_declared_twice_is_an_error_in_any_order(section: str) -> None:
    files = [Source(name, f"version: 1\n{section}\n") for name in ("10-a.yaml", "20-b.yaml")]
    for order in (files, files[::-1]):
        with pytest.raises(PolicyError) as error:
            load(order)
        assert "20-b.yaml:2:" in str(error.value)
        assert "is declared twice, first at 10-a.yaml:2:" in str(error.value)


TieredCase = tuple[list[TieredFile], Situation]


def flattened(files: list[TieredFile]) -> list[Source]:
    """The plain reading of tiers: a set of one tier that means the same."""
    counts = [file for file in files if file.tier == max(one.tier for one in files if one.name == file.name)]
    masks = {rule for file in counts for rule in file.mask}
    lab = max(((file.tier, file) for file in counts if file.lab), key=lambda one: one[0])[1]
    return [
        file._replace(
            tier=0,
            mask=[],
            lab=file.lab if file is lab else None,
            rules=[rule for rule, name in zip(file.rules, file.ids(), strict=True) if name not in masks],
        ).source()
        for file in counts
    ]


@given(tiered_sets())
def test_law_1_tiers_mean_what_their_plain_reading_does(case: TieredCase) -> None:
    files, situation = case
    one, other = load([file.source() for file in files]), load(flattened(files))
    assert one.rules == other.rules
    assert situation.decided_by(one) == situation.decided_by(other)


@given(tiered_sets(), st.randoms(use_true_random=False))
def test_law_1_order_within_and_between_tiers_changes_nothing(case: TieredCase, random: Any) -> None:
    files, situation = case
    one = load_set([file.source() for file in files])
    other = load_set([file.source() for file in random.sample(files, len(files))])
    assert one.policy.rules == other.policy.rules
    assert (one.policy.digest, one.masked, one.redefined) == (
        other.policy.digest,
        other.masked,
        other.redefined,
    )
    assert situation.decided_by(one.policy) == situation.decided_by(other.policy)


@given(tiered_sets(), denies, st.integers(0, 2))
def test_law_10_deny_of_any_tier_never_grants(case: TieredCase, deny: RuleText, tier: int) -> None:
    files, situation = case
    sources = [file.source() for file in files]
    more = [*sources, source(named([deny]), "99-deny.yaml", declares=False)._replace(tier=tier)]
    assert situation.decided_by(load(more)).allowed <= situation.decided_by(load(sources)).allowed


@given(tiered_sets())
def test_law_10_mask_of_an_allow_never_grants(case: TieredCase) -> None:
    files, situation = case
    sources = [file.source() for file in files]
    tier_of = {file.name: file.tier for file in counting(sources)[0]}
    before = load(sources)
    lower = [rule.id for rule in before.rules if rule.action == ALLOW and tier_of[rule.file] < 2]
    mask = Source("60-mask.yaml", json.dumps({"version": "1", "mask": lower}), 2)
    assert situation.decided_by(load([*sources, mask])).allowed <= situation.decided_by(before).allowed


def test_cases_of_tiers_reach_masks_redefinitions_and_replaced_files() -> None:
    def is_such(case: TieredCase) -> bool:
        sources = [file.source() for file in case[0]]
        found = load_set(sources)
        return bool(found.masked and found.redefined and counting(sources)[1] and found.policy.rules)

    find(tiered_sets(), is_such, settings=FINDING)


# Sentence 2


NARROWING = st.fixed_dictionaries(
    {}, optional={"except_clients": client_lists, "except_paths": pattern_lists}
)


@given(granted(), NARROWING)
def test_law_2_exception_of_an_allow_never_grants(case: Case, exceptions: RuleText) -> None:
    rules, situation = case
    narrowed = {**rules[0], **exceptions}
    assert situation.allowed_by([narrowed]) <= situation.allowed_by(rules[:1])


@given(granted(), denies, NARROWING)
def test_law_2_exception_of_a_deny_never_refuses(case: Case, deny: RuleText, exceptions: RuleText) -> None:
    rules, situation = case
    plain = {key: value for key, value in deny.items() if not key.startswith("except_")}
    without = named([*rules[:1], plain])
    excepted = named([*rules[:1], {**plain, **exceptions}])
    assert situation.allowed_by(without) <= situation.allowed_by(excepted)


@given(granted(), denies, st.sampled_from(["paths", "clients", "type"]))
def test_law_2_matcher_of_a_deny_never_refuses(case: Case, deny: RuleText, matcher: str) -> None:
    rules, situation = case
    without = {key: value for key, value in deny.items() if key != matcher}
    assert situation.allowed_by(named([rules[0], without])) <= situation.allowed_by(named([rules[0], deny]))


ENDINGS = st.tuples(st.sampled_from(list(MOMENTS)), st.sampled_from([0.0, 1.0, 3600.0]))


@given(granted(), st.one_of(allows, denies), ENDINGS, st.booleans())
def test_law_2_rule_that_is_over_is_as_if_it_were_not_there(
    case: Case, rule: RuleText, ending: tuple[str, float], first: bool
) -> None:
    rules, situation = case
    until, later = ending
    situation = replace(situation, now=MOMENTS[until] + later)
    with_it = [{**rule, "name": "a" if first else "z", "until": until}, *rules]
    one, other = policy_of(rules), policy_of(with_it)
    assert situation.decided_by(other)[:3] == situation.decided_by(one)[:3]
    considered = [
        policy.consider(situation.request, situation.peer, situation.now) for policy in (one, other)
    ]
    assert considered[0][1:] == considered[1][1:]
    assert (considered[0].refusal is None) is (considered[1].refusal is None)
    described = [policy.describe(situation.peer, situation.now) for policy in (one, other)]
    assert described[0] == described[1]


@given(granted(), st.one_of(allows, denies), ENDINGS)
def test_law_2_rule_whose_end_is_still_to_come_is_as_if_it_had_none(
    case: Case, rule: RuleText, ending: tuple[str, float]
) -> None:
    rules, situation = case
    until, earlier = ending
    situation = replace(situation, now=MOMENTS[until] - earlier - 0.5)
    rule = {key: value for key, value in rule.items() if key != "until"}
    one, other = (policy_of(named([*rules, text])) for text in (rule, {**rule, "until": until}))
    assert situation.decided_by(one).reason == situation.decided_by(other).reason
    assert situation.decided_by(one)[:2] == situation.decided_by(other)[:2]
    considered = [
        policy.consider(situation.request, situation.peer, situation.now) for policy in (one, other)
    ]
    # The order in which other names are looked for means nothing.
    sets = [
        found._replace(
            refusal=None,
            deny_literals=tuple(sorted(found.deny_literals)),
            exception_literals=tuple(sorted(found.exception_literals)),
        )
        for found in considered
    ]
    assert sets[0] == sets[1]


@given(granted(), times, times)
def test_law_2_verdict_is_the_same_all_over_a_span(
    case: Case, now: float | None, other: float | None
) -> None:
    """What is remembered of a verdict lives as long as the span in which it was found."""
    rules, situation = case
    policy = policy_of(rules)
    first, end = policy.same_around(now or 0.0)
    assert first <= (now or 0.0) < end
    if first <= (other or 0.0) < end:
        verdicts = [replace(situation, now=at or 0.0).decided_by(policy) for at in (now, other)]
        assert verdicts[0] == verdicts[1]


# Sentence 3


@given(granted(), times)
def test_law_3_time_that_is_unknown_never_grants(case: Case, now: float | None) -> None:
    rules, situation = case
    unknown = replace(situation, now=None)
    assert unknown.allowed_by(rules) <= replace(situation, now=now).allowed_by(rules)


@given(granted(), st.sets(st.sampled_from(PEER_FACTS), min_size=1))
def test_law_3_fact_about_a_peer_that_is_unknown_never_grants(case: Case, forgotten: set[str]) -> None:
    rules, situation = case
    unknown: dict[str, Any] = dict.fromkeys(forgotten)
    ignorant = replace(situation, peer=replace(situation.peer, **unknown))
    assert ignorant.allowed_by(rules) <= situation.allowed_by(rules)


@given(granted())
def test_law_3_type_that_is_unknown_is_never_granted(case: Case) -> None:
    rules, situation = case
    assert not replace(situation, object=replace(situation.object, type=None)).allowed_by(rules)


@given(granted(), denies)
def test_law_3_type_that_is_unknown_is_denied_by_a_deny_of_any_type(case: Case, deny: RuleText) -> None:
    rules, situation = case
    typed, untyped = ({**deny, "type": ["char"]}, {key: deny[key] for key in deny if key != "type"})
    unknown = replace(situation, object=replace(situation.object, type=None))
    verdicts = [unknown.decided_by(policy_of(named([rules[0], one]))) for one in (typed, untyped)]
    assert verdicts[0].reason == verdicts[1].reason


@given(granted(), st.sets(st.sampled_from(Device._fields), min_size=1))
def test_law_3_fact_about_a_device_that_is_unknown_never_grants(case: Case, forgotten: set[str]) -> None:
    rules, situation = case
    unknown: dict[str, Any] = dict.fromkeys(forgotten)
    device = situation.object.device
    for ignorant in (None, None if device is None else replace(device, **unknown)):
        seen = replace(situation, object=replace(situation.object, device=ignorant))
        assert seen.allowed_by(rules) <= situation.allowed_by(rules)


@given(granted(), st.one_of(st.none(), devices))
def test_law_3_what_is_no_device_is_known_to_have_no_fact_of_one(case: Case, device: Device | None) -> None:
    rules, situation = case
    if situation.object.type not in (FileType.CHAR, FileType.BLOCK, None):
        other = replace(situation, object=replace(situation.object, device=device))
        policy = policy_of(rules)
        assert other.decided_by(policy) == situation.decided_by(policy)
        assert not policy.needs_device_facts(situation.request, situation.peer, situation.object)


@given(granted(), devices)
def test_law_3_facts_that_are_not_needed_change_nothing(case: Case, device: Device) -> None:
    rules, situation = case
    known = situation.object.device
    number = Device(None if known is None else known.number)
    plain = replace(situation, object=replace(situation.object, device=number))
    policy = policy_of(rules)
    if policy.needs_device_facts(situation.request, situation.peer, plain.object):
        return
    full = replace(device, number=number.number)
    facts = replace(situation, object=replace(situation.object, device=full))
    assert plain.decided_by(policy) == facts.decided_by(policy)


# Sentence 4


@given(granted(), peers)
def test_law_4_groups_of_the_account_database_never_grant(case: Case, other: Peer) -> None:
    rules, situation = case
    nothing_narrows: frozenset[Any] = frozenset()
    peer = replace(situation.peer, account_gids=nothing_narrows, account_group_names=nothing_narrows)
    more = replace(peer, account_gids=other.account_gids, account_group_names=other.account_group_names)
    assert replace(situation, peer=more).allowed_by(rules) <= replace(situation, peer=peer).allowed_by(rules)


@given(granted())
def test_law_4_peer_that_drops_its_groups_escapes_no_deny(case: Case) -> None:
    rules, situation = case
    peer = replace(
        situation.peer, gids=situation.peer.account_gids, group_names=situation.peer.account_group_names
    )
    dropped = replace(peer, gids=frozenset(), group_names=frozenset())
    assert replace(situation, peer=dropped).allowed_by(rules) <= replace(situation, peer=peer).allowed_by(
        rules
    )


@given(granted(), st.frozensets(st.sampled_from(["mia", "tom"])), st.frozensets(st.sampled_from([5, 1000])))
def test_law_4_being_somebodys_subordinate_never_grants(
    case: Case, owner_names: frozenset[str], owner_uids: frozenset[int]
) -> None:
    rules, situation = case
    alone = replace(situation.peer, owner_names=frozenset(), owner_uids=frozenset())
    owned = replace(alone, owner_names=owner_names, owner_uids=owner_uids)
    assert replace(situation, peer=owned).allowed_by(rules) <= replace(situation, peer=alone).allowed_by(
        rules
    )


# Sentence 5


@given(granted())
def test_law_5_nothing_is_touched_that_would_be_refused_by_its_path(case: Case) -> None:
    rules, situation = case
    policy = policy_of(rules)
    refusal = policy.consider(situation.request, situation.peer, situation.now).refusal
    if refusal is not None:
        assert not refusal.allowed
        assert not situation.decided_by(policy).allowed


@given(granted())
def test_law_5_one_rule_matches_both_paths_when_no_link_explains_it(case: Case) -> None:
    rules, situation = case
    plain = replace(situation, object=replace(situation.object, last_link=False))
    rule = plain.decided_by(policy_of(rules)).rule
    if rule is not None and plain.allowed_by(rules):
        for path in (plain.request.path, plain.object.path):
            assert any(
                oracle.path_matches(pattern.text, path, plain.peer, narrows=False) for pattern in rule.paths
            )


@given(granted(), st.sampled_from(["asked", "resolved", "met"]))
def test_law_5_deny_of_any_name_refuses(case: Case, which: str) -> None:
    rules, situation = case
    if which == "met":
        situation = replace(situation, object=replace(situation.object, names=("/some/name",)))
    path = {"asked": situation.request.path, "resolved": situation.object.path, "met": "/some/name"}[which]
    assert not situation.allowed_by(named([*rules, {"deny": "all", "paths": [path]}]))


# Sentence 6


@given(granted(), optional_rights)
def test_law_6_optional_rights_never_refuse(case: Case, optional: Rights) -> None:
    rules, situation = case
    other = replace(situation, request=replace(situation.request, optional=optional))
    assert other.allowed_by(rules) is situation.allowed_by(rules)


@given(granted(), st.sampled_from(OPEN_WORDS))
def test_law_6_denied_right_is_refused_when_needed_and_dropped_when_optional(case: Case, word: str) -> None:
    rules, situation = case
    right = parse_rights([word])
    with_deny = named([*rules, {"deny": word}])
    verdict = situation.decided_by(policy_of(with_deny))
    if right & situation.request.needed:
        assert not verdict.allowed
    else:
        assert verdict.allowed is situation.allowed_by(rules)
        assert not right & verdict.rights


# Sentence 7


@given(granted())
def test_law_7_request_is_allowed_iff_one_allow_alone_allows_it(case: Case) -> None:
    rules, situation = case
    refusing = [rule for rule in rules if not is_allow(rule)]
    alone = [situation.allowed_by([rule, *refusing]) for rule in rules if is_allow(rule)]
    assert situation.allowed_by(rules) is any(alone)


# Sentence 8


@given(granted())
def test_law_8_most_optional_rights_then_not_exclusive_then_the_longest_lease_then_the_smallest_id_win(
    case: Case,
) -> None:
    rules, situation = case
    refusing = [rule for rule in rules if not is_allow(rule)]
    alone = [situation.decided_by(policy_of([rule, *refusing])) for rule in rules if is_allow(rule)]
    able = [
        (
            -optional_count(situation, verdict.rights),
            verdict.rule.terms.exclusive,
            -(verdict.rule.terms.lease or float("inf")),
            verdict.rule.id,
            verdict,
        )
        for verdict in alone
        if verdict.allowed and verdict.rule is not None
    ]
    if able:
        assert situation.decided_by(policy_of(rules)) == min(able)[-1]


def optional_count(situation: Situation, rights: Rights) -> int:
    """Write counts once: the append in it is not another right."""
    extra = rights & ~situation.request.needed
    return len([right for right in extra if not (right is Rights.APPEND and Rights.WRITE in extra)])


# Sentence 9


@given(granted())
def test_law_9_fd_carries_the_needed_and_granted_optional_rights_of_one_rule(case: Case) -> None:
    rules, situation = case
    verdict = situation.decided_by(policy_of(rules))
    if not verdict.allowed:
        assert verdict.rights == Rights(0)
        return
    assert verdict.rule is not None
    assert situation.request.needed in verdict.rights
    assert verdict.rights in situation.request.needed | situation.request.optional
    assert verdict.rights in verdict.rule.rights
    assert Rights.WRITE not in verdict.rights or Rights.APPEND in verdict.rights


# Sentence 10


@given(granted())
def test_law_9_fd_carries_the_terms_of_the_rule_that_gives_it_and_of_no_other(case: Case) -> None:
    rules, situation = case
    verdict = situation.decided_by(policy_of(rules))
    if verdict.allowed:
        assert verdict.rule is not None
        alone = [rule for rule in rules if rule["name"] == verdict.rule.name]
        assert verdict.rule.terms == policy_of(alone).rules[0].terms


@given(granted(), denies)
def test_law_10_adding_a_deny_never_grants(case: Case, deny: RuleText) -> None:
    rules, situation = case
    before, after = (situation.decided_by(policy_of(one)) for one in (rules, named([*rules, deny])))
    assert after.allowed <= before.allowed


@given(granted(), st.data())
def test_law_10_removing_an_allow_never_grants(case: Case, data: st.DataObject) -> None:
    rules, situation = case
    removed = data.draw(st.sampled_from([rule for rule in rules if is_allow(rule)]))
    assert situation.allowed_by([rule for rule in rules if rule is not removed]) <= situation.allowed_by(
        rules
    )


@given(granted(), st.data())
def test_law_10_removing_an_allow_never_grants_whatever_the_object_is_also_called(
    case: Case, data: st.DataObject
) -> None:
    """The broker looks for the object under the literal names of denies and exceptions: those of the rules that are."""
    rules, situation = case
    same = data.draw(st.sets(st.sampled_from(PATHS), min_size=1, max_size=2))
    number = data.draw(st.integers(0, len(rules) - 1))
    fewer = [rule for place, rule in enumerate(rules) if place != number or "deny" in rule]

    def opens(texts: list[RuleText]) -> bool:
        policy, (request, peer, found, now) = policy_of(texts), situation
        considered = policy.consider(request, peer, now)
        if considered.refusal is not None:
            return False
        plain = found._replace(names=(), excepted_as=())
        return policy.decide(request, peer, considered.named(plain, same), now).allowed

    assert opens(fewer) <= opens(rules)


@given(granted(), allows)
def test_law_10_adding_an_allow_never_refuses(case: Case, allow: RuleText) -> None:
    rules, situation = case
    assert situation.allowed_by(rules) <= situation.allowed_by(named([*rules, allow]))


@given(granted(), wanted_rights)
def test_law_10_more_rights_are_never_easier(case: Case, more: Rights) -> None:
    rules, situation = case
    greedy = replace(situation, request=replace(situation.request, needed=situation.request.needed | more))
    assert greedy.allowed_by(rules) <= situation.allowed_by(rules)


@given(granted())
def test_law_10_knowing_of_no_link_never_grants(case: Case) -> None:
    rules, situation = case
    plain = replace(situation, object=replace(situation.object, last_link=False))
    assert plain.allowed_by(rules) <= situation.allowed_by(rules)


@given(granted(), paths)
def test_law_10_another_name_of_the_object_never_grants(case: Case, name: str) -> None:
    rules, situation = case
    more = replace(situation, object=replace(situation.object, names=(*situation.object.names, name)))
    assert more.allowed_by(rules) <= situation.allowed_by(rules)


@given(rule_lists, situations())
def test_law_10_what_was_decided_before_changes_nothing(texts: list[RuleText], situation: Situation) -> None:
    policy = policy_of(named(texts))
    first = situation.decided_by(policy)
    for uid in range(3):
        policy.decide(situation.request, replace(situation.peer, uid=uid), situation.object, situation.now)
    assert situation.decided_by(policy) == first
    assert situation.decided_by(policy_of(named(texts))) == first


@given(granted())
def test_keeping_rules_by_their_clients_and_devices_changes_no_verdict(case: Case) -> None:
    rules, situation = case
    request, peer, now = situation.request, situation.peer, situation.now
    plain = policy_of(rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_CROWD", 0)  # two rules under one pattern are a crowd, and one is
        kept = policy_of(rules)
        assert situation.decided_by(kept) == situation.decided_by(plain)
        assert kept.consider(request, peer, now) == plain.consider(request, peer, now)
        assert kept.decide(request, peer, None, now) == plain.decide(request, peer, None, now)
        needs = [one.needs_device_facts(request, peer, situation.object) for one in (kept, plain)]
        assert needs[0] == needs[1]


@given(granted())
def test_lexical_refusal_holds_for_every_object(case: Case) -> None:
    rules, situation = case
    policy = policy_of(rules)
    if not policy.decide(situation.request, situation.peer, None, situation.now).allowed:
        assert not situation.decided_by(policy).allowed


def test_lexical_verdict_and_consideration_agree() -> None:
    policy = policy_of(
        named([{"allow": "use", "clients": [{"user": "mia"}], "paths": ["/dev/a"], "type": "char"}])
    )
    mia = Peer(1000, frozenset(["mia"]), frozenset(), frozenset())
    for path, allowed in (("/dev/a", True), ("/dev/b", False)):
        request = Request(path, parse_rights(["use"]))
        assert policy.decide(request, mia, None).allowed is allowed
        assert (policy.consider(request, mia).refusal is None) is allowed
        assert policy.decide(request, mia, Object(path, FileType.CHAR)).allowed is allowed
