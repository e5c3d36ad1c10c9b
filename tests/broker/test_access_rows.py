"""Whose the rows of `fdbroker access` are, and who goes around the broker."""

import re
import stat

import pytest
from support import policy

from broker.outside import Permissions, Way
from broker.peers import PeerFinder
from broker.population import Somebody, everybody
from broker.reaching import ACCOUNTS, REST, RULE, Reaching, Sheet, around_by
from broker.survey import Seen
from policy import Rights, Source, load
from policy.access import Subject
from tests.broker.people import DIRECTORIES, LAB, NODE, NOTHING, NOW, PEOPLE, loaded, seen


def sheet_of(*rules: str, people: list[Somebody] = PEOPLE, found: Seen | None = None) -> Sheet:
    text = policy(*rules) if rules else NOTHING
    return Reaching(loaded(text), people, NOW).sheet(found or seen())


def lines(sheet: Sheet) -> list[str]:
    return [
        f"{row.label}: {' '.join(right.name or '' for right in row.rights if right.name != 'APPEND').lower() or '-'}"
        f" {row.rule.name if row.rule else 'default'}"
        for row in sheet.rows
    ]


TEACHERS = 'name: teachers, clients: [{group: teachers}], allow: use, type: char, paths: ["/dev/ttyUSB*"]'
ROWS = [
    ("no rule", [], ["everyone (5): - default"]),
    ("a group", [LAB], ["group lab (2): read write lab", "everyone else (3): - default"]),
    ("two groups", [LAB, TEACHERS],
     ["group lab (1 of 2: mia): read write lab", "group teachers (1): read write ioctl teachers",
      "everyone else (3): - default"]),
    ("an exception", [f"{LAB}, except_clients: [{{group: teachers}}]"],
     ["group lab (1 of 2: mia): read write lab", "everyone else (4): - default"]),
    ("a user", ["name: a, clients: [{user: mia}], allow: read, type: char, paths: [/dev/ttyUSB0]"],
     ["user mia: read a", "everyone else (4): - default"]),
    ("users", ["name: a, clients: [{user: [mia, eve]}, {group: lab}], allow: read, type: char, paths: [/dev/ttyUSB0]"],
     ["user eve,mia (2): read a", "group lab (1 of 2: tom): read a", "everyone else (2): - default"]),
    ("a deny of one", [LAB, "name: no, deny: all, clients: [{user: mia}]"],
     ["group lab (1 of 2: tom): read write lab", "user mia: - no", "everyone else (3): - default"]),
    ("a deny of all", [LAB, "name: no, deny: all"], ["user mia tom (2): - no", "everyone else (3): - default"]),
    ("a deny of a part", [TEACHERS, "name: no, deny: ioctl, subsystem: tty"],
     ["group teachers (1): read write teachers", "everyone else (4): - default"]),
    ("over", [f"{LAB}, until: 2020-01-01T00:00Z"], ["everyone (5): - default"]),
    ("another device", [LAB.replace("paths", "subsystem: sound, paths")], ["everyone (5): - default"]),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "wanted"), [one[1:] for one in ROWS], ids=[one[0] for one in ROWS])
def test_rows_say_whose_they_are(rules: list[str], wanted: list[str]) -> None:
    sheet = sheet_of(*rules)
    assert lines(sheet) == wanted
    # Everybody is in one row or more: in several, with rights that no one of them has all of.
    assert {name for row in sheet.rows for name in row.accounts} == {one.account for one in PEOPLE}


def test_object_that_the_broker_never_gives_has_no_rows() -> None:
    sheet = sheet_of(LAB, found=seen(refusal="not on devtmpfs"))
    assert (sheet.rows, sheet.gives, bool(sheet.around)) == ((), False, True)


def test_objects_alike_share_a_sheet_and_links_are_told_with_their_object() -> None:
    other = NODE._replace(path="/dev/ttyUSB1")
    link = seen()._replace(subject=Subject("/dev/ttyUSB99", NODE))
    sheets = Reaching(loaded(policy(LAB)), PEOPLE, NOW).sheets([seen(), seen(other), seen(mode=0o600), link])
    assert [[(one.seen.subject.path, one.links) for one in sheet.objects] for sheet in sheets] == [
        [("/dev/ttyUSB0", ("/dev/ttyUSB99",)), ("/dev/ttyUSB1", ())],
        [("/dev/ttyUSB0", ())],
    ]


MARKS = [
    ("{unit: web.service}", [("unit web.service", ())]),
    ("{unit: [a.service, b.service]}", [("unit a.service,b.service", ())]),
    ("{exe: /bin/x, unit: a.service}", [("unit a.service and exe /bin/x", ())]),
    ("{label: web_t}", [("label web_t", ())]),
    ("{socket: gpu}", [("socket gpu", ())]),
    ("{user: root, unit: a.service}", [("user root and unit a.service", ("root",))]),
    ("{uid: 4000000-4000100}", [("uid 4000000-4000100", ())]),
    ("{uid: 4000000-4000100, unit: a.service}", [("uid 4000000-4000100 and unit a.service", ())]),
    ("{gid: 4000000}", [("gid 4000000", ())]),
    ("{user: no-such-user}", []),
    ("{user: no-such-user, unit: a.service}", []),
    ("{group: no-such-group}", []),
    ("{user: root}", []),
    ("any", []),
]


@pytest.mark.parametrize(("client", "wanted"), MARKS)
def test_whom_rules_know_by_other_marks_has_rows_of_its_own(
    client: str, wanted: list[tuple[str, tuple[str, ...]]]
) -> None:
    rule = f"name: a, clients: [{client}], allow: [read], type: char, paths: [/dev/ttyUSB0]"
    head = "sockets: {gpu: {path: /run/fdbroker/gpu.sock}}\n"
    rules = load([Source("30-site.yaml", policy(rule, head=head))])
    people = everybody(rules, PeerFinder(rules))
    sheet = Reaching(rules, people, NOW).sheet(seen())
    assert [(row.who, row.accounts) for row in sheet.rows if row.kind == RULE] == wanted
    assert all(row.rights == Rights.READ for row in sheet.rows if row.kind == RULE)


def test_range_of_uids_is_split_where_rules_tell_them_apart() -> None:
    rules = loaded(
        policy(
            "name: a, clients: [{uid: 4000000-4000100}], allow: read, type: char, paths: [/dev/ttyUSB0]",
            "name: no, deny: all, clients: [{uid: 4000050-4000200}]",
        )
    )
    sheet = Reaching(rules, everybody(rules, PeerFinder(rules)), NOW).sheet(seen())
    assert lines(sheet)[:2] == ["uid 4000000-4000049: read a", "uid 4000050-4000100: - no"]


def test_deny_of_a_unit_is_told_and_does_not_hide_what_the_account_has_else() -> None:
    unit = "name: no, deny: all, clients: [{unit: web.service}]"
    (row, rest) = sheet_of(LAB, unit).rows
    assert (row.accounts, row.note) == (("mia", "tom"), "some units, programs or labels excepted")
    assert (rest.kind, rest.note) == (REST, "")


def test_names_by_groups_of_a_login_are_accounts() -> None:
    assert [row.kind for row in sheet_of(LAB).rows] == [ACCOUNTS, REST]


def test_link_to_a_node_is_told_with_it_and_apart_where_it_gives_something_else() -> None:
    link = seen()._replace(subject=Subject("/dev/serial/x", NODE._replace(last_link=True, names=())))
    rule = 'name: by-id, clients: [{user: mia}], allow: read, type: char, paths: ["/dev/serial/*"]'
    sheets = Reaching(loaded(policy(rule)), PEOPLE, NOW).sheets([seen(), link])
    assert [lines(sheet)[0] for sheet in sheets] == ["everyone (5): - default", "user mia: read by-id"]


ACL_MIA = ((0x01, 6, 0), (0x02, 4, 1042), (0x04, 6, 0), (0x10, 7, 0), (0x20, 0, 0))
AROUND = [
    ("a group's", Permissions(stat.S_IFCHR | 0o660, 0, 20),
     [("root", ["root"], "rw"), ("group dialout", ["bob"], "rw")]),
    ("an owner's", Permissions(stat.S_IFCHR | 0o600, 1042, 0), [("root", ["root"], "rw"), ("owner", ["mia"], "rw")]),
    ("everybody's to read", Permissions(stat.S_IFREG | 0o644, 0, 0),
     [("root", ["root"], "rw"), ("everybody", ["mia", "tom", "bob", "eve"], "r")]),
    ("one that keeps its group out", Permissions(stat.S_IFREG | 0o606, 0, 20),
     [("root", ["root"], "rw"), ("everybody", ["mia", "tom", "eve"], "rw")]),
    ("one with an ACL", Permissions(stat.S_IFCHR | 0o670, 0, 0, ACL_MIA),
     [("root", ["root"], "rw"), ("ACL", ["mia"], "r")]),
    ("to write alone", Permissions(stat.S_IFIFO | 0o620, 0, 20),
     [("root", ["root"], "rw"), ("group dialout", ["bob"], "w")]),
]  # fmt: skip


def around(way: Way) -> list[tuple[str, list[str], str]]:
    letters = {Rights.READ: "r", Rights.WRITE: "w"}
    return [
        (
            re.sub("group 20$", "group dialout", one.why),
            list(one.accounts),
            "".join(letters[right] for right in one.rights),
        )
        for one in around_by(way, PEOPLE)
    ]


@pytest.mark.parametrize(("node", "wanted"), [one[1:] for one in AROUND], ids=[one[0] for one in AROUND])
def test_who_opens_a_node_without_the_broker_is_told(
    node: Permissions, wanted: list[tuple[str, list[str], str]]
) -> None:
    assert around(Way(DIRECTORIES, node)) == wanted


def test_who_may_not_search_a_directory_above_opens_nothing() -> None:
    closed = (*DIRECTORIES, ("/dev/x", Permissions(stat.S_IFDIR | 0o710, 0, 50)))
    open_to_all = Permissions(stat.S_IFREG | 0o644, 0, 0)
    assert around(Way(closed, open_to_all)) == [("root", ["root"], "rw"), ("everybody", ["mia", "tom"], "r")]
