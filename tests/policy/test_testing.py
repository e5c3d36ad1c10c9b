"""A policy's own tests: how they are read, what they find, and which rules they reach."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import FileType, Object, Peer, PolicyError, Request, Source, load, parse_rights
from policy.devices import Device
from policy.problems import Position
from policy.testcases import PolicyTest, load_with_tests
from policy.testing import Result, overruled, run, unreached, why
from tests.policy.strategies import RuleText, Situation, granted, policy_of
from tests.policy.tables import cases

RULES = """\
version: 1
sockets: {gpu: {path: /run/gpu}}
rules: [{name: on, clients: any, allow: read, paths: /a}, {name: off, deny: all, paths: /b}]
tests:
"""

TEXT = """\
version: 1
sockets: {gpu: {path: /run/gpu}}
rules:
  - {name: kvm, clients: [{group: lab}], allow: [read, write], type: char, paths: [/dev/kvm, "/dev/by-id/*"]}
  - {name: more, clients: [{uid: 5}], allow: use, type: char, paths: /dev/kvm}
  - {name: gpu, clients: [{socket: gpu}], allow: read, type: char, paths: /dev/gpu}
  - {name: any, clients: any, allow: read, paths: [/srv/a, /srv/b]}
  - {name: no-guests, deny: read, clients: [{group: guests}]}
  - {name: no-pub, deny: read, paths: /srv/pub}
tests:
"""

DEVICES = """\
version: 1
clients: {lab: {group: lab}, teachers: {group: teachers}}
devices:
  ftdi: {subsystem: tty, udev: {ID_VENDOR_ID: 0403}}
  usb-storage: {type: block, udev: {ID_BUS: usb}}
rules:
  - {name: students, clients: [lab], except_clients: [teachers], allow: [read, write], devices: [ftdi]}
  - {name: disks, clients: [lab], allow: read, type: block, paths: "/dev/sd*"}
  - {name: hubs, clients: [lab], allow: read, attrs: {idVendor: 0403, idProduct: "60*"}}
  - {name: number, clients: [lab], allow: read, device: "10:232"}
  - {name: other-seat, clients: [lab], allow: read, seat: seat1}
  - {name: no-sticks, deny: all, devices: [usb-storage], until: 2026-12-01T18:00+01:00}
tests:
"""

MORE_CLIENTS = """\
version: 1
rules:
  - {name: unit, clients: [{unit: web.service}], allow: read, paths: /a}
  - {name: exe, clients: [{exe: /bin/a, user: mia}], allow: read, paths: /b}
  - {name: label, clients: [{label: "web_t (enforce)"}], allow: read, paths: /c}
  - {name: home, clients: any, allow: read, paths: ["${home}/x", "/srv/${user}"]}
  - {name: soon, clients: [{uid: 5}], allow: read, paths: /e, until: 2026-12-01T18:00+01:00}
  - {name: no-tom, deny: all, paths: ["/home/**", /b, /e], clients: [{user: tom}]}
  - {name: no-web, deny: all, paths: /c, clients: [{unit: web.service}]}
tests:
"""


def loaded(text: str) -> tuple[PolicyTest, ...]:
    return load_with_tests([Source("a.yaml", text)])[1]


def result_of(rules: str, test: str) -> Result:
    """What comes of `test`, written as the inside of a flow mapping."""
    found, tests = load_with_tests([Source("a.yaml", f"{rules}  - {{{test}}}\n")])
    (result,) = run(found.policy, tests)
    return result


# --- how tests are read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("test", "expected"), cases("faulty_tests.txt"))
def test_faulty_test_is_told_with_its_line_and_column(test: str, expected: list[str]) -> None:
    with pytest.raises(PolicyError) as error:
        load_with_tests([Source("a.yaml", f"{RULES}  - {{{'' if test == '{}' else test}}}\n")])
    assert [str(problem) for problem in error.value.problems] == expected


def test_problems_of_rules_and_tests_are_told_together() -> None:
    with pytest.raises(PolicyError) as error:
        load_with_tests(
            [Source("a.yaml", "version: 1\nrules: [{name: r, deny: raed}]\ntests: [{expect: no}]\n")]
        )
    assert {problem.line for problem in error.value.problems} == {2, 3}


@pytest.mark.parametrize("tests", ["{a: b}", "x", ""])
def test_tests_that_are_no_list_are_an_error_for_everybody(tests: str) -> None:
    with pytest.raises(PolicyError, match=r"a\.yaml:2:1: tests is .*, expected a list"):
        load([Source("a.yaml", f"version: 1\ntests: {tests}\n")])


@pytest.mark.parametrize("test", ["{expect: nothing}", "[[[]]]", "x", "{a: {b: {c: d}}, a: 1}", "&a [*a]"])
def test_broker_passes_over_what_tests_say(test: str) -> None:
    text = f"{RULES}  - {test}\nmask: []\nclients: {{late: {{uid: 1}}}}\n"
    assert len(load([Source("a.yaml", text)]).rules) == 2
    with pytest.raises(PolicyError):
        load_with_tests([Source("a.yaml", text)])


def test_broker_finds_mistakes_behind_the_tests_that_it_passes_over() -> None:
    with pytest.raises(PolicyError, match=r"a\.yaml:6:1: unknown key 'late'"):
        load([Source("a.yaml", f"{RULES}  - {{expect: [nothing]}}\nlate: 1\n")])


def test_all_words_of_a_test_are_read() -> None:
    (test,) = loaded(RULES + """\
  - client:
      {user: mia, uid: 5, groups: [lab, users], gids: 7, socket: gpu, unit: web.service, label: "a_t (x)",
       exe: /bin/a, home: /home/mia, subordinate_of: [tom, 6], embedded: true}
    object:
      {path: /dev/kvm, type: char, link: /dev/by-id/x, names: /dev/kvm2, device: 10:232, subsystem: misc,
       udev: {ID_BUS: "*", "ID_X": 0403}, attrs: [{idVendor: 0403}, {}], seat: seat1}
    access: [read, write]
    optional: ioctl
    at: 1970-01-01T00:01Z
    expect: allow
    rule: on
    rights: use
""")  # fmt: skip
    groups, gids = frozenset(("lab", "users")), frozenset((7,))
    assert test == PolicyTest(
        Position("a.yaml", 5, 5),
        0,
        Request("/dev/by-id/x", parse_rights(["read", "write"]), parse_rights(["ioctl"])),
        Peer(
            *(5, frozenset(("mia",)), gids, groups, gids, groups, True, "gpu", True, "mia", "/home/mia"),
            *("web.service", "/bin/a", "a_t (x)", frozenset(("tom",)), frozenset((6,))),
        ),
        Object(
            "/dev/kvm",
            FileType.CHAR,
            ("/dev/kvm2",),
            True,
            Device(
                (10, 232),
                "misc",
                {"ID_BUS": "*", "ID_X": "0403", "ID_SEAT": "seat1"},
                ({"idVendor": "0403"}, {}),
            ),
        ),
        60,
        True,
        "a/on",
        parse_rights(["use"]),
    )


UNKNOWN = Peer(None, None, None, None)


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("user: mia", UNKNOWN._replace(user_names=frozenset(("mia",)), has_account=True, account_name="mia")),
        ("uid: 5", UNKNOWN._replace(uid=5)),
        ("gids: 7", UNKNOWN._replace(gids=frozenset((7,)), account_gids=frozenset((7,)))),
        ("groups: []", UNKNOWN._replace(group_names=frozenset(), account_group_names=frozenset())),
        ("embedded: true", UNKNOWN._replace(embedded=True)),
        ("socket: gpu", UNKNOWN._replace(socket="gpu")),
        ("socket: default", UNKNOWN),
        ("unit: none", UNKNOWN._replace(unit="")),
        ("subordinate_of: tom", UNKNOWN._replace(owner_names=frozenset(("tom",)), owner_uids=None)),
        ("subordinate_of: 6", UNKNOWN._replace(owner_names=None, owner_uids=frozenset((6,)))),
    ],
)
def test_what_a_client_does_not_say_is_unknown(client: str, expected: Peer) -> None:
    test = f"  - {{client: {{{client}}}, object: {{path: /a, type: file}}, access: read, expect: deny}}\n"
    assert loaded(RULES + test)[0].peer == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ("", None),
        (", device: 188:0", Device((188, 0))),
        (", subsystem: tty", Device(None, "tty")),
        (", udev: {}", Device(None, None, {})),
        (", seat: seat1", Device(None, None, {"ID_SEAT": "seat1"})),
        (", attrs: {idVendor: 0403}", Device(None, None, None, ({"idVendor": "0403"},))),
        (", attrs: []", Device(None, None, None, ())),
    ],
)
def test_what_a_device_does_not_say_is_unknown(facts: str, expected: Device | None) -> None:
    test = (
        f"  - {{client: {{uid: 5}}, object: {{path: /a, type: char{facts}}}, access: read, expect: deny}}\n"
    )
    assert loaded(RULES + test)[0].object.device == expected


# --- what they find --------------------------------------------------------------------------------------------


KVM = "object: {path: /dev/kvm, type: char}"
MIA = "client: {user: mia, groups: lab}"
PUB = "client: {user: mia, groups: guests}, object: {path: /srv/pub, type: file}, access: read"
SRV = "object: {path: /srv/a, type: file}, access: read, expect: allow"


@pytest.mark.parametrize(
    ("test", "found"),
    [
        (f"{MIA}, {KVM}, access: read, expect: allow", ""),
        (f"{MIA}, {KVM}, access: read, expect: deny", "allow"),
        (f"{MIA}, {KVM}, access: use, expect: allow", "deny"),
        (f"client: {{uid: 5, groups: lab}}, {KVM}, access: read, optional: ioctl, expect: allow, rule: kvm",
         "allow by a/more"),
        (f"{MIA}, {KVM}, access: read, optional: [write, ioctl], expect: allow, rights: [read, write]", ""),
        (f"{MIA}, {KVM}, access: read, optional: [write, ioctl], expect: allow, rights: use", "allow of read+write"),
        (f"{MIA}, object: {{path: /dev/x, type: char, link: /dev/by-id/x}}, access: read, expect: allow, rule: kvm",
         ""),
        (f"{MIA}, object: {{path: /dev/x, type: char, asked: /dev/by-id/x}}, access: read, expect: allow, rule: kvm",
         "deny by default"),
        ("client: {socket: gpu, groups: []}, object: {path: /dev/gpu, type: char}, access: read, expect: allow", ""),
        # Whether a client whose groups are not said is a guest is unknown.
        ("client: {socket: gpu}, object: {path: /dev/gpu, type: char}, access: read, expect: allow", "deny"),
        (f"client: {{user: mia, groups: []}}, {SRV}", ""),
        # No account is told of.
        (f"client: {{uid: 7, groups: []}}, {SRV}", "deny"),
        # Whether a group of this number is called guests is unknown.
        (f"client: {{user: mia, gids: 7}}, {SRV}", "deny"),
        (f"{MIA}, object: {{path: /srv/a, type: file, names: /srv/pub}}, access: read, expect: allow", "deny"),
        # Both denies refuse; either may be named.
        (f"{PUB}, expect: deny, rule: no-pub", ""),
        (f"{PUB}, expect: deny, rule: a/no-guests", ""),
        (f"{MIA}, object: {{path: /x, type: file}}, access: read, expect: deny, rule: no-pub", "deny by default"),
        # A deny that only takes an optional right away does not refuse.
        (f"{PUB.replace('read', 'write')}, optional: read, expect: deny, rule: no-pub", "deny by default"),
    ],
)  # fmt: skip
def test_test_passes_or_tells_what_came_out(test: str, found: str) -> None:
    result = result_of(TEXT, test)
    assert (result.passed, "" if result.passed else result.found) == (not found, found)


TTY = "path: /dev/ttyUSB0, type: char"
FTDI = f"{TTY}, subsystem: tty, udev: {{ID_VENDOR_ID: 0403}}"
SDA = "path: /dev/sda, type: block"


@pytest.mark.parametrize(
    ("client", "found", "at", "expect"),
    [
        ("user: mia, groups: [lab]", FTDI, "", "allow, rule: students"),
        ("user: mia, groups: [lab]", SDA, "", "deny"),
        ("user: mia, groups: [lab, teachers]", FTDI, "", "deny"),
        # Its groups are not said to be all but teachers.
        ("user: mia", FTDI, "", "deny"),
        ("user: mia, groups: [lab]", TTY, "", "deny"),
        ("user: mia, groups: [lab]", f"{TTY}, udev: {{ID_VENDOR_ID: 0403}}", "", "deny"),
        ("user: mia, groups: [lab]", f"{TTY}, subsystem: tty, udev: {{ID_VENDOR_ID: 0404}}", "", "deny"),
        ("user: mia, groups: [lab]", f"{TTY}, subsystem: tty, udev: {{}}", "", "deny"),
        # Absent is known: a disk with properties, and no bus among them, is no stick.
        ("user: mia, groups: [lab]", f"{SDA}, udev: {{ID_BUS: ata}}", "", "allow, rule: disks"),
        ("user: mia, groups: [lab]", f"{SDA}, udev: {{}}", "", "allow"),
        ("user: mia, groups: [lab]", f"{SDA}, udev: {{ID_BUS: usb}}", "", "deny, rule: no-sticks"),
        ("user: mia, groups: [lab]", f"{SDA}, subsystem: block", "", "deny, rule: no-sticks"),
        # The deny ends, and what it left unknown matters no more.
        ("user: mia, groups: [lab]", SDA, "2026-12-01T16:59:59Z", "deny, rule: no-sticks"),
        ("user: mia, groups: [lab]", SDA, "2026-12-01T17:00Z", "allow, rule: disks"),
        ("user: mia, groups: [lab]", f"{TTY}, attrs: [{{dev: 1}}, {{idVendor: 0403, idProduct: 6001}}]", "", "allow"),
        # All of one device.
        ("user: mia, groups: [lab]", f"{TTY}, attrs: [{{idVendor: 0403}}, {{idProduct: 6001}}]", "", "deny"),
        ("user: mia, groups: [lab]", f"{TTY}, attrs: {{idVendor: 0403, idProduct: 6001}}", "", "allow, rule: hubs"),
        ("user: mia, groups: [lab]", f"{TTY}, device: 10:232", "", "allow, rule: number"),
        ("user: mia, groups: [lab]", f"{TTY}, seat: seat1", "", "allow, rule: other-seat"),
        ("user: mia, groups: [lab]", f"{TTY}, udev: {{ID_X: 1}}", "", "deny"),
    ],
)  # fmt: skip
def test_device_counts_by_the_facts_that_the_test_has(client: str, found: str, at: str, expect: str) -> None:
    when = f", at: {at}" if at else ""
    test = f"client: {{{client}}}, object: {{{found}}}, access: read{when}, expect: {expect}"
    result = result_of(DEVICES, test)
    assert result.found == result.expected


@pytest.mark.parametrize(
    ("client", "path", "more", "expect"),
    [
        ("unit: web.service", "/a", "", "allow"),
        ("unit: none", "/a", "", "deny"),
        ("user: mia", "/a", "", "deny"),
        ("user: mia, exe: /bin/a", "/b", "", "allow"),
        ("user: mia, exe: /bin/b", "/b", "", "deny"),
        ("user: mia, exe: /bin/a, subordinate_of: tom", "/b", "", "deny, rule: no-tom"),
        ("user: mia, exe: /bin/a, subordinate_of: 6", "/b", "", "deny, rule: no-tom"),
        ("user: mia, exe: /bin/a, subordinate_of: [ada, 6]", "/b", "", "allow"),
        # In no unit is known; no word about it is not.
        ('label: "web_t (enforce)", unit: none', "/c", "", "allow"),
        ('label: "web_t (enforce)"', "/c", "", "deny, rule: no-web"),
        ("user: mia, home: /home/mia", "/home/mia/x", "", "allow, rule: home"),
        ("user: mia", "/home/mia/x", "", "deny"),
        ("user: mia", "/srv/mia", "", "allow"),
        ("uid: 5", "/srv/mia", "", "deny"),
        # At no time in particular nothing that ends is given.
        ("uid: 5, user: mia", "/e", "", "deny"),
        ("uid: 5, user: mia", "/e", ", at: 2026-12-01T16:59:59Z", "allow, rule: soon"),
        ("uid: 5, user: mia", "/e", ", at: 2026-12-01T17:00Z", "deny"),
        # Whose account this uid is, is not known.
        ("uid: 5", "/e", ", at: 2026-12-01T16:00Z", "deny, rule: no-tom"),
    ],
)
def test_client_counts_by_the_facts_that_the_test_has(client: str, path: str, more: str, expect: str) -> None:
    test = f"client: {{{client}}}, object: {{path: {path}, type: file}}, access: read{more}, expect: {expect}"
    result = result_of(MORE_CLIENTS, test)
    assert result.found == result.expected


def test_failure_is_explained_by_what_the_test_does_not_say() -> None:
    test = f"client: {{user: mia, groups: [lab]}}, object: {{{SDA}}}, access: read, expect: allow"
    found, (one,) = load_with_tests([Source("a.yaml", f"{DEVICES}  - {{{test}}}\n")])
    explanation = why(found.policy, one)
    assert [rule.name for rule in explanation.denies] == ["no-sticks"]
    assert explanation.reason == "a/no-sticks refuses read"


@settings(max_examples=60)
@given(granted())
def test_expectation_of_what_the_policy_decides_passes_and_of_the_contrary_fails(
    case: tuple[list[RuleText], Situation],
) -> None:
    policy, (request, peer, found, now) = policy_of(case[0]), case[1]
    verdict = policy.decide(request, peer, found, now)
    test = PolicyTest(Position("a.yaml", 1, 1), 0, request, peer, found, now, verdict.allowed, None, None)
    by_rule = test._replace(rule=verdict.rule.id if verdict.rule else None)
    of_rights = by_rule._replace(rights=verdict.rights if verdict.allowed else None)
    contrary = test._replace(allowed=not verdict.allowed)
    results = run(policy, [test, by_rule, of_rights, contrary])
    assert [result.passed for result in results] == [True, True, True, False]
    assert why(policy, test).verdict == verdict


FACTS = ["user: mia", "uid: 5", "groups: [lab]", "gids: [7]", "unit: none", "exe: /bin/a", "home: /home/mia"]
DEVICE_FACTS = ["device: 188:0", "subsystem: tty", "udev: {ID_VENDOR_ID: 0403}", "attrs: {idVendor: 0403}"]


@settings(max_examples=60)
@given(
    st.sets(st.sampled_from(FACTS), min_size=2), st.sets(st.sampled_from(DEVICE_FACTS), min_size=1), st.data()
)
def test_test_that_says_less_is_allowed_no_more(
    client: set[str], facts: set[str], data: st.DataObject
) -> None:
    fewer = sorted(client - {data.draw(st.sampled_from(sorted(client)))})
    less = sorted(facts - {data.draw(st.sampled_from(sorted(facts)))})
    texts = [DEVICES, MORE_CLIENTS, TEXT.replace("paths: /dev/kvm", "paths: /dev/ttyUSB0")]

    def test_of(words: list[str], device: list[str]) -> str:
        shown = ", ".join([TTY, *device])
        return f"client: {{{', '.join(words)}}}, object: {{{shown}}}, access: read, expect: allow"

    for text in texts:
        if not result_of(text, test_of(sorted(client), sorted(facts))).verdict.allowed:
            assert not result_of(text, test_of(fewer, less)).verdict.allowed


# --- which rules they reach ------------------------------------------------------------------------------------


def test_rules_that_no_test_reaches_are_named() -> None:
    found, tests = load_with_tests([Source("a.yaml", TEXT + """\
  - {client: {user: mia, groups: lab}, object: {path: /dev/kvm, type: char}, access: read, expect: allow}
  - {client: {user: mia, groups: guests}, object: {path: /srv/pub, type: file}, access: read, expect: deny}
  - {client: {user: mia}, object: {path: /srv/x, type: file}, access: read, expect: deny}
""")])  # fmt: skip
    assert [rule.name for rule in unreached(found.policy, run(found.policy, tests))] == ["any", "gpu", "more"]


def test_deny_that_takes_an_optional_right_away_is_reached() -> None:
    found, tests = load_with_tests([Source("a.yaml", """\
version: 1
rules:
  - {name: on, clients: [{uid: 5}], allow: [read, write], paths: /a}
  - {name: off, deny: write}
tests:
  - {client: {uid: 5}, object: {path: /a, type: file}, access: read, optional: write, expect: allow, rights: read}
""")])  # fmt: skip
    results = run(found.policy, tests)
    assert (results[0].passed, unreached(found.policy, results)) == (True, [])


# --- several tiers ---------------------------------------------------------------------------------------------


PACKAGE = """\
version: 1
clients: {lab: {uid: 5}}
rules:
  - {name: disks, deny: all, type: block}
  - {name: kvm, clients: [lab], allow: read, type: char, paths: /dev/kvm}
tests:
  - {client: {uid: 5}, object: {path: /dev/sda, type: block}, access: read, expect: deny, rule: disks}
  - {client: {uid: 5}, object: {path: /dev/kvm, type: char}, access: read, expect: allow, rule: kvm}
  - {client: {uid: 5}, object: {path: /dev/kvm, type: char}, access: write, expect: allow}
"""


def failed_of(*sources: Source) -> tuple[list[Result], list[Result]]:
    """The failed tests of a set, and those of them that were overruled."""
    found, tests = load_with_tests(sources)
    failed = [result for result in run(found.policy, tests) if not result.passed]
    return failed, overruled(sources, failed)


def lines(results: list[Result]) -> list[int]:
    return [result.test.position.line for result in results]


def test_test_that_a_higher_tier_made_fail_is_overruled() -> None:
    base = Source("10-base.yaml", PACKAGE, 0)
    assert [lines(one) for one in failed_of(base)] == [[9], []]
    site = "version: 1\nmask: [10-base/disks]\nclients: {lab: {uid: 6}}\n"
    # The last fails with or without the site's file.
    assert [lines(one) for one in failed_of(base, Source("50-site.yaml", site, 2))] == [[7, 8, 9], [7, 8]]


def test_failure_of_a_set_whose_lower_tiers_do_not_load_alone_is_none_that_was_overruled() -> None:
    base = Source("10-base.yaml", PACKAGE.replace("clients: {lab: {uid: 5}}", ""), 0)
    site = Source("50-site.yaml", "version: 1\nclients: {lab: {uid: 6}}\n", 1)
    assert [lines(one) for one in failed_of(base, site)] == [[8, 9], []]


def test_test_of_a_replaced_file_is_not_run() -> None:
    sources = [Source("10-base.yaml", PACKAGE, 0), Source("10-base.yaml", "version: 1\n", 2)]
    assert load_with_tests(sources)[1] == ()


def test_rule_of_another_file_is_named_by_its_id(tmp_path: Path) -> None:
    own = """\
version: 1
tests: [{client: {uid: 5}, object: {path: /dev/kvm, type: char}, access: read, expect: allow, rule: 10-base/kvm}]
"""
    _, tests = load_with_tests([Source("10-base.yaml", PACKAGE, 0), Source("20-own.yaml", own, 0)])
    assert tests[-1].rule == "10-base/kvm"
    with pytest.raises(
        PolicyError, match=r"^20-own\.yaml:2:\d+: unknown rule '20-own/kvm', expected one that is"
    ):
        load_with_tests([Source("10-base.yaml", PACKAGE), Source("20-own.yaml", own.replace("10-base/", ""))])
