"""Explanations: they never say other than the decision does, and they name what each rule misses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import (
    ALLOW,
    Client,
    FileType,
    Object,
    Peer,
    Policy,
    Request,
    Rule,
    Source,
    load,
    parse_rights,
    rights_words,
)
from policy.devices import DeviceSelector
from policy.explain import (
    ALLOWED,
    DENIED_BY_DEFAULT,
    DENIED_BY_RULE,
    MALFORMED,
    Explanation,
    explain,
    literals_to_try,
)
from tests.policy.strategies import RuleText, Situation, granted, named, policy_of, rule_lists, situations

Case = tuple[list[RuleText], Situation]
cases: st.SearchStrategy[Case] = st.one_of(granted(), st.tuples(rule_lists.map(named), situations()))


def explained(policy: Policy, situation: Situation) -> Explanation:
    return explain(policy, situation.request, situation.peer, situation.object, situation.now)


def alone(rule: Rule) -> Policy:
    return Policy([rule], {}, "")


# Laws


@given(cases)
def test_explanation_has_the_verdict_of_the_decision(case: Case) -> None:
    policy, situation = policy_of(case[0]), case[1]
    explanation = explained(policy, situation)
    verdict = situation.decided_by(policy)
    assert explanation.verdict == verdict
    assert (explanation.decision == ALLOWED) is verdict.allowed
    assert (explanation.decision == DENIED_BY_RULE) is (not verdict.allowed and verdict.rule is not None)


@given(cases)
def test_near_rule_never_gives_what_was_asked_for_and_overruled_one_does(case: Case) -> None:
    policy, (request, peer, found, now) = policy_of(case[0]), case[1]
    explanation = explain(policy, request, peer, found, now)
    if explanation.verdict.allowed:
        request = request._replace(needed=request.needed | request.optional)
    for near in explanation.near:
        assert near.misses and not alone(near.rule).decide(request, peer, found, now).allowed
    for rule in explanation.overruled:
        assert alone(rule).decide(request, peer, found, now).allowed
    if not explanation.verdict.allowed:
        giving = [
            rule
            for rule in policy.rules
            if rule.action == ALLOW and alone(rule).decide(request, peer, found, now).allowed
        ]
        assert list(explanation.overruled) == giving


@given(cases)
def test_denies_of_an_explanation_are_those_that_refuse_when_they_are_alone(case: Case) -> None:
    policy, (request, peer, found, now) = policy_of(case[0]), case[1]
    explanation = explain(policy, request, peer, found, now)
    every_right = request._replace(needed=request.needed | request.optional)
    refusing = [
        rule
        for rule in policy.rules
        if alone(rule).decide(every_right, peer, found, now).rule is rule and rule.action != ALLOW
    ]
    assert list(explanation.denies) == refusing
    assert explanation.nearest_deny is None or (not refusing and explanation.nearest_deny.misses)


@given(cases)
def test_rights_instead_are_allowed_and_no_more_would_be(case: Case) -> None:
    policy, (request, peer, found, now) = policy_of(case[0]), case[1]
    explanation = explain(policy, request, peer, found, now)
    if explanation.verdict.allowed:
        assert explanation.instead is None
        return
    freely = [
        right
        for right in request.needed
        if policy.decide(Request(request.path, right), peer, found, now).allowed
    ]
    assert bool(freely) is (explanation.instead is not None)
    if explanation.instead is not None:
        again = policy.decide(Request(request.path, explanation.instead.rights), peer, found, now)
        assert again == explanation.instead
        assert explanation.instead.rights in request.needed
        for right in request.needed & ~explanation.instead.rights:
            more = Request(request.path, explanation.instead.rights | right)
            assert not policy.decide(more, peer, found, now).allowed


@given(cases, st.data())
def test_other_names_count_where_the_broker_would_try_them_and_nowhere_else(
    case: Case, data: st.DataObject
) -> None:
    policy, (request, peer, found, now) = policy_of(case[0]), case[1]
    literals = literals_to_try(policy, request, peer, now)
    same = data.draw(st.lists(st.sampled_from(literals), unique=True)) if literals else []
    explanation = explain(policy, request, peer, found, now, same)
    considered = policy.consider(request, peer, now)
    if considered.refusal is not None:
        assert not explanation.verdict.allowed
        return
    assert set(considered.literals) <= set(literals)
    assert explanation.verdict == policy.decide(request, peer, considered.named(found, same), now)


@given(cases)
def test_explanation_without_an_object_is_the_lexical_verdict(case: Case) -> None:
    policy, (request, peer, _, now) = policy_of(case[0]), case[1]
    explanation = explain(policy, request, peer, None, now)
    assert explanation.verdict == policy.decide(request, peer, None, now)
    assert all(near.misses for near in explanation.near)


def test_conditions_of_rules_clients_and_selectors_are_those_that_explain_and_diff_know() -> None:
    # Whoever adds one teaches policy/explain.py what to say of it, and policy/within*.py how to compare it: what these
    # do not know must be equal, so that what is told stays right.
    conditions = {"rights", "types", "paths", "except_paths", "clients", "except_clients", "until"}
    conditions |= {"device", "devices", "except_devices"}
    assert set(Rule._fields) - conditions == {"id", "file", "line", "name", "action", "terms", "accept"}
    known = {"users", "uids", "groups", "gids", "sockets", "any_account", "units", "exes", "labels"}
    assert set(Client._fields) == known
    selector = {"types", "numbers", "subsystems", "properties", "attributes", "seats"}
    assert set(DeviceSelector._fields) == selector


# Tables

TEXT = """\
version: 1
clients:
  lab: {group: lab}
  teachers: {group: teachers}
sockets:
  gpu: {path: /run/gpu.sock}
rules:
  - name: students
    clients: [lab]
    except_clients: [teachers]
    allow: [read, write]
    type: char
    paths: ["/dev/ttyUSB*"]
    except_paths: [/dev/ttyUSB7]
  - {name: teachers, clients: [teachers], allow: [use], type: char, paths: ["/dev/ttyUSB*", "/dev/serial/by-id/*"]}
  - {name: gpu, clients: [{socket: gpu}], allow: [use], type: char, paths: ["/dev/dri/*"]}
  - {name: mine, clients: [{uid: [5, 1000-1999], user: tom}], allow: [read], paths: ["/srv/**"]}
  - {name: accounts, clients: [any], allow: [read], paths: [/etc/hosts]}
  - {name: consoles, clients: [lab], allow: [read], type: char, paths: ["/dev/t*y"]}
  - {name: no-sticks, deny: all, type: block, paths: ["/dev/**"]}
  - {name: no-guests, deny: [read], clients: [{group: guests}], paths: ["/srv/**"], except_paths: [/srv/pub]}
"""


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load([Source("30-site.yaml", TEXT)])


def peer(user: str = "mia", groups: str = "lab", uid: int | None = 1042, socket: str = "default") -> Peer:
    known = frozenset(groups.split())
    return Peer(uid, frozenset([user]), frozenset(), known, frozenset(), known, True, socket)


MIA, TEACHER = peer(), peer("ada", "lab teachers")
F, C, B = FileType.FILE, FileType.CHAR, FileType.BLOCK


@pytest.mark.parametrize(
    ("who", "path", "rights", "kind", "rule", "expected"),
    [
        (MIA, "/dev/ttyUSB0", "use", C, "students", "lacks: ioctl"),
        (MIA, "/dev/ttyUSB0", "use", C, "teachers", "clients: group teachers, has lab"),
        (MIA, "/dev/ttyUSB0", "read", B, "students", "type: char, is block"),
        (MIA, "/dev/ttyUSB0", "read", None, "students", "type: char, is not known"),
        (MIA, "/dev/ttyUSB7", "write", C, "students", "except_paths: /dev/ttyUSB7, is /dev/ttyUSB7"),
        (TEACHER, "/dev/ttyUSB0", "truncate", C, "students", "except_clients: group teachers"),
        (peer(groups=""), "/dev/ttyUSB0", "read", C, "students", "clients: group lab, has none"),
        (MIA._replace(group_names=None), "/dev/ttyUSB0", "read", C, "students", "clients: group lab, not known"),
        (MIA, "/dev/dri/card0", "use", C, "gpu", "clients: socket gpu, came by default"),
        (MIA, "/srv/x", "read", F, "mine", "clients: user tom, is mia"),
        (peer(uid=7), "/srv/x", "read", F, "mine", "clients: user tom, is mia; and uid 5,1000-1999, is 7"),
        (MIA._replace(has_account=False), "/etc/hosts", "read", F, "accounts", "clients: any account, has none"),
        (MIA, "/etc/passwd", "read", F, "accounts", "paths: /etc/hosts, asked for /etc/passwd"),
        (
            MIA,
            "/dev/tty",
            "read",
            C,
            "consoles",
            "paths: /dev/t*y, each process has a /dev/tty of its own: it counts named literally alone",
        ),
    ],
)  # fmt: skip
def test_near_allow_names_what_it_misses(
    policy: Policy, who: Peer, path: str, rights: str, kind: FileType | None, rule: str, expected: str
) -> None:
    explanation = explain(policy, Request(path, parse_rights([rights])), who, Object(path, kind))
    found = {near.rule.name: near.misses[0] for near in explanation.near}
    assert f"{found[rule].condition}: {found[rule].how}" == expected


@pytest.mark.parametrize(
    ("who", "path", "kind", "rule", "expected"),
    [
        (MIA, "/dev/kvm", C, "no-sticks", "type: block, is char"),
        (MIA, "/srv/x", F, "no-guests", "clients: group guests, has lab"),
        (peer(groups="guests"), "/srv/pub", F, "no-guests", "except_paths: /srv/pub, is /srv/pub"),
        (peer(groups="guests"), "/etc/x", F, "no-guests", "paths: /srv/**, asked for /etc/x"),
    ],
)
def test_nearest_deny_names_what_it_misses(
    policy: Policy, who: Peer, path: str, kind: FileType, rule: str, expected: str
) -> None:
    nearest = explain(policy, Request(path, parse_rights(["read"])), who, Object(path, kind)).nearest_deny
    assert nearest is not None
    assert nearest.rule.name == rule
    assert f"{nearest.misses[0].condition}: {nearest.misses[0].how}" == expected


@pytest.mark.parametrize(
    ("path", "rights", "optional", "kind", "decision", "reason"),
    [
        ("/dev/ttyUSB0", "read", "", C, ALLOWED, "30-site/students gives read"),
        ("/dev/ttyUSB0", "read", "write ioctl", C, ALLOWED, "30-site/students gives read+write, without ioctl"),
        ("/dev/ttyUSB0", "use", "", C, DENIED_BY_DEFAULT, "no one rule gives read+write+ioctl"),
        ("/dev/sda", "read", "", B, DENIED_BY_RULE, "30-site/no-sticks refuses read"),
        ("relative", "read", "", F, MALFORMED, "path: it is not absolute"),
        ("/dev/null", "", "", C, MALFORMED, "the request needs no right"),
    ],
)  # fmt: skip
def test_decision_is_told_in_words(
    policy: Policy, path: str, rights: str, optional: str, kind: FileType, decision: str, reason: str
) -> None:
    request = Request(path, parse_rights(rights.split()), parse_rights(optional.split()))
    explanation = explain(policy, request, MIA, Object(path, kind))
    assert (explanation.decision, explanation.reason) == (decision, reason)


def test_largest_part_that_would_be_allowed_is_told(policy: Policy) -> None:
    request = Request("/dev/ttyUSB0", parse_rights(["use", "truncate"]))
    instead = explain(policy, request, MIA, Object("/dev/ttyUSB0", C)).instead
    assert instead is not None
    assert rights_words(instead.rights) == ["read", "write"]


def test_rule_that_names_a_link_tells_where_it_leads() -> None:
    policy = load(
        [Source("a.yaml", "version: 1\nrules: [{name: r, clients: any, allow: read, paths: /srv/link}]")]
    )
    explanation = explain(policy, Request("/srv/link", parse_rights(["read"])), MIA, Object("/etc/shadow", F))
    (near,) = explanation.near
    assert near.misses == (("paths", "/srv/link, leads to /etc/shadow"),)


def test_far_rules_are_not_named(policy: Policy) -> None:
    explanation = explain(policy, Request("/dev/kvm", parse_rights(["truncate"])), MIA, Object("/dev/kvm", C))
    assert explanation.near == ()


# What a rule may miss besides

MORE = """\
version: 1
rules:
  - {name: course, until: "2026-12-01T18:00+01:00", clients: [{group: lab}], allow: read, paths: [/srv/course/**]}
  - {name: own, clients: [{group: lab}], allow: read, paths: ["${home}/**"]}
  - {name: spool, clients: [{group: lab}], allow: read, paths: ["/spool/${user}/*"], except_paths: ["/spool/*/${uid}"]}
  - {name: web, clients: [{unit: web.service}], allow: read, paths: [/web/a]}
  - {name: program, clients: [{exe: /bin/a, user: mia}], allow: read, paths: [/program/a]}
  - {name: labelled, clients: [{label: web_t}], allow: read, paths: [/labelled/a]}
  - {name: others, clients: [{group: lab}], except_clients: [{user: tom}], allow: read, paths: [/others/a]}
  - {name: exam, until: "2026-12-01T17:00Z", deny: all, paths: ["/**"]}
"""
END = 1_796_144_400.0
AT_HOME = MIA._replace(account_name="mia", home="/home/mia")


@pytest.mark.parametrize(
    ("who", "path", "now", "rule", "expected"),
    [
        (MIA, "/srv/course/a", END, "course", "until: over since 2026-12-01T17:00:00Z"),
        (MIA, "/srv/course/a", None, "course", "until: 2026-12-01T17:00:00Z, the time is not known"),
        (MIA, "/home/mia/a", END, "own", "paths: ${home}/** (cannot be expanded: ${home} not known)"),
        (AT_HOME, "/home/tom/a", END, "own", "paths: ${home}/** (here /home/mia/**), asked for /home/tom/a"),
        (MIA._replace(account_name="a\nb"), "/spool/x/a", END, "spool",
         "paths: /spool/${user}/* (cannot be expanded)"),
        (AT_HOME, "/spool/mia/1042", END, "spool",
         "except_paths: /spool/*/${uid} (here /spool/*/1042), is /spool/mia/1042"),
        (AT_HOME._replace(uid=None), "/spool/mia/7", END, "spool",
         "except_paths: /spool/*/${uid} (cannot be expanded: ${uid} not known), is /spool/mia/7"),
        (MIA, "/web/a", END, "web", "clients: unit web.service, not known"),
        (MIA._replace(unit=""), "/web/a", END, "web", "clients: unit web.service, is none"),
        (MIA._replace(exe="/bin/b"), "/program/a", END, "program", "clients: exe /bin/a, is /bin/b"),
        (MIA._replace(label="x_t"), "/labelled/a", END, "labelled", "clients: label web_t, is x_t"),
        (MIA._replace(owner_names=frozenset(["tom"])), "/others/a", END, "others",
         "except_clients: user tom, by whose subordinate uid it is"),
        (MIA._replace(owner_names=None), "/others/a", END, "others",
         "except_clients: user tom, not known not to be"),
    ],
)  # fmt: skip
def test_near_allow_names_the_end_the_variable_or_the_fact_that_it_misses(
    who: Peer, path: str, now: float | None, rule: str, expected: str
) -> None:
    policy = load([Source("40-more.yaml", MORE)])
    explanation = explain(policy, Request(path, parse_rights(["read"])), who, Object(path, F), now)
    found = {near.rule.name: near.misses[0] for near in (*explanation.near,)}
    assert f"{found[rule].condition}: {found[rule].how}" == expected


def test_nearest_deny_may_be_over() -> None:
    policy = load([Source("40-more.yaml", MORE)])
    request = Request("/srv/course/a", parse_rights(["read"]))
    before = explain(policy, request, MIA, Object("/srv/course/a", F), END - 1)
    assert before.decision == DENIED_BY_RULE
    assert [rule.name for rule in before.overruled] == ["course"]
    nearest = explain(policy, request, MIA, Object("/srv/course/a", F), END).nearest_deny
    assert nearest is not None and nearest.misses == (("until", "over since 2026-12-01T17:00:00Z"),)
