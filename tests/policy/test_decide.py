"""Decisions as tables: one policy, one line for each case, denials beside grants."""

import pytest

from policy import (
    FileType,
    Object,
    Peer,
    Policy,
    Request,
    Rights,
    Source,
    Verdict,
    load,
    parse_rights,
    rights_words,
)
from tests.policy.strategies import policy_of

TEXT = """\
version: 1
clients:
  lab: {group: lab}
sockets:
  gpu: {path: /run/gpu.sock}
rules:
  - {name: kvm, clients: [lab], allow: [use], type: char, paths: [/dev/kvm]}
  - {name: tty, clients: [lab], allow: [read, write], type: char, paths: ["/dev/tty*", "/dev/serial/by-id/*"]}
  - {name: tty-use, clients: [{user: root}], allow: [use], type: char, paths: [/dev/tty, "/dev/**"]}
  - {name: disks, clients: [lab], allow: [read], type: [block, char], paths: [/dev/disk/by-id/*]}
  - {name: gpu, clients: [{socket: gpu}], allow: [use], type: char, paths: ["/dev/dri/**"]}
  - name: srv
    clients: [lab]
    except_clients: [{user: tom}]
    allow: [edit]
    paths: ["/srv/**"]
    except_paths: [/srv/secret, "/srv/secret/**"]
  - {name: srv-read, clients: [lab], allow: [read], paths: ["/srv/*"]}
  - {name: append-only-reading, clients: [lab], allow: [read, ioctl], paths: [/srv/log]}
  - {name: no-log, deny: [append], paths: [/srv/log]}
  - {name: no-pub, deny: [read], paths: ["/srv/pub/**"], except_paths: ["/srv/pub/free/*"], clients: [lab]}
  - {name: no-fifos, deny: all, type: fifo}
  - {name: no-guests, deny: all, clients: [{group: guests}], paths: ["/srv/**"]}
"""

NONE: frozenset[str] = frozenset()


def peer(user: str = "mia", groups: str = "lab", socket: str = "default") -> Peer:
    known = frozenset(groups.split())
    return Peer(1000, frozenset([user]), frozenset(), known, frozenset(), known, True, socket)


MIA, TOM, ROOT, GPU, GUEST = (
    peer(),
    peer("tom"),
    peer("root", ""),
    peer(socket="gpu"),
    peer(groups="lab guests"),
)
F, C, B = FileType.FILE, FileType.CHAR, FileType.BLOCK


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load([Source("30-site.yaml", TEXT)])


def request(path: str, needed: str, optional: str = "") -> Request:
    return Request(path, parse_rights(needed.split()), parse_rights(optional.split()))


def shown(verdict: Verdict) -> str:
    """Return "rule: rights" for a grant, the reason for a refusal."""
    if not verdict.allowed:
        assert verdict.rights == Rights(0)
        return verdict.reason
    assert verdict.rule is not None
    return f"{verdict.rule.name}: {' '.join(rights_words(verdict.rights))}"


@pytest.mark.parametrize(
    ("who", "path", "needed", "kind", "expected"),
    [
        (MIA, "/dev/kvm", "use", C, "kvm: read write ioctl"),
        (MIA, "/dev/kvm", "read", C, "kvm: read"),
        (MIA, "/dev/kvm", "append", C, "kvm: append"),
        (MIA, "/dev/kvm", "read truncate", C, "no rule gives read+truncate"),
        (ROOT, "/dev/kvm", "read", C, "tty-use: read"),
        (GPU, "/dev/dri/card0", "use", C, "gpu: read write ioctl"),
        (
            MIA,
            "/dev/dri/card0",
            "read",
            C,
            "no rule gives read: none that names this path is for this client",
        ),
        (MIA, "/dev/none", "read", C, "no rule gives read: none that names this path is for this client"),
        (MIA, "/etc/passwd", "read", F, "no rule gives read: none names this path"),
        (
            MIA,
            "/dev/kvm",
            "read",
            F,
            "no rule gives read: none matches what the path leads to, '/dev/kvm', file",
        ),
        (MIA, "/dev/kvm", "read", None, "denied by 30-site/no-fifos"),
        # Rights of srv and append-only-reading never add up.
        (MIA, "/srv/log", "read ioctl", F, "append-only-reading: read ioctl"),
        (MIA, "/srv/log", "truncate ioctl", F, "no rule gives truncate+ioctl"),
        # Whoever may not append may not write.
        (MIA, "/srv/log", "write", F, "denied by 30-site/no-log"),
        (MIA, "/srv/a/b", "edit", F, "srv: read write truncate"),
        (MIA, "/srv/a", "read", F, "srv: read"),
        (TOM, "/srv/a", "read", F, "srv-read: read"),
        (TOM, "/srv/a/b", "read", F, "no rule gives read: none that names this path is for this client"),
        (MIA, "/srv/secret", "edit", F, "no rule gives read+write+truncate"),
        (MIA, "/srv/secret/x", "read", F, "no rule gives read"),
        (MIA, "/srv/pub/x", "read", F, "denied by 30-site/no-pub"),
        (MIA, "/srv/pub/free/x", "read", F, "srv: read"),
        (MIA, "/srv/pub/free/x/y", "read", F, "denied by 30-site/no-pub"),
        (GUEST, "/srv/a", "read", F, "denied by 30-site/no-guests"),
        (MIA, "/srv/a", "", F, "the request needs no right"),
        (MIA, "/srv/../etc/passwd", "read", F, "path: '..' is not allowed"),
        (MIA, "/srv/\0", "read", F, "path: a NUL is not allowed"),
        (MIA, "/srv/\udcff", "read", F, "path: it is no text that encodes to UTF-8"),
    ],
)
def test_request_for_what_the_path_names(
    policy: Policy, who: Peer, path: str, needed: str, kind: FileType | None, expected: str
) -> None:
    assert shown(policy.decide(request(path, needed), who, Object(path, kind))) == expected


LEADS = "no rule gives read: none matches what the path leads to, "


@pytest.mark.parametrize(
    ("who", "asked", "found", "expected"),
    [
        # udev's links: the last component only, to the rule's one type, below /dev, matched without "**".
        (MIA, "/dev/serial/by-id/x", Object("/dev/acm0", C, last_link=True), "tty: read"),
        (MIA, "/dev/serial/by-id/x", Object("/dev/ttyS0", C), "tty: read"),
        (MIA, "/dev/serial/by-id/x", Object("/dev/acm0", C), f"{LEADS}'/dev/acm0', char"),
        (MIA, "/dev/serial/by-id/x", Object("/dev/sda", B, last_link=True), f"{LEADS}'/dev/sda', block"),
        (MIA, "/dev/serial/by-id/x", Object("/dev/f", F, last_link=True), f"{LEADS}'/dev/f', file"),
        (MIA, "/dev/serial/by-id/x", Object("/mnt/sda", C, last_link=True), f"{LEADS}'/mnt/sda', char"),
        (MIA, "/dev/serial/by-id/x", Object("/dev/tty", C, last_link=True), f"{LEADS}'/dev/tty', char"),
        (MIA, "/dev/disk/by-id/x", Object("/dev/sda", B, last_link=True), f"{LEADS}'/dev/sda', block"),
        (GPU, "/dev/dri/by-path/x", Object("/dev/mem", C, last_link=True), f"{LEADS}'/dev/mem', char"),
        (GPU, "/dev/dri/by-path/x", Object("/dev/dri/card0", C, last_link=True), "gpu: read"),
        # Other links: both names in one rule.
        (MIA, "/srv/a", Object("/srv/b/c", F, last_link=True), "srv: read"),
        (TOM, "/srv/a", Object("/srv/b/c", F, last_link=True), f"{LEADS}'/srv/b/c', file"),
        (MIA, "/srv/a", Object("/etc/shadow", F, last_link=True), f"{LEADS}'/etc/shadow', file"),
        (MIA, "/srv/a", Object("/srv/secret/x", F), f"{LEADS}'/srv/secret/x', file"),
        (MIA, "/srv/a/b", Object("/srv/a/b", F, names=("/srv/secret/x",)), f"{LEADS}'/srv/a/b', file"),
        # A deny on any name; its exception for the name that it is about.
        (MIA, "/srv/a", Object("/srv/pub/x", F), "denied by 30-site/no-pub"),
        (MIA, "/srv/a", Object("/srv/b", F, names=("/srv/pub/x",)), "denied by 30-site/no-pub"),
        (MIA, "/srv/a", Object("/srv/pub/free/x", F), "srv: read"),
        (MIA, "/srv/pub/free/x", Object("/srv/pub/x", F), "denied by 30-site/no-pub"),
        # A deny by type, also of an unknown one.
        (MIA, "/srv/a", Object("/srv/a", FileType.FIFO), "denied by 30-site/no-fifos"),
        (MIA, "/srv/a", Object("/srv/a", None), "denied by 30-site/no-fifos"),
        # What is no absolute path is in no rule.
        (MIA, "/srv/a", Object("srv/a", F), f"{LEADS}'srv/a', file"),
        (MIA, "/srv/a", Object("/", F), f"{LEADS}'/', file"),
    ],
)
def test_request_for_what_the_path_leads_to(
    policy: Policy, who: Peer, asked: str, found: Object, expected: str
) -> None:
    assert shown(policy.decide(request(asked, "read"), who, found)) == expected


@pytest.mark.parametrize(
    ("needed", "optional", "path", "kind", "expected"),
    [
        ("read", "write ioctl", "/dev/kvm", C, "kvm: read write ioctl"),
        ("read", "truncate", "/dev/kvm", C, "kvm: read"),
        ("read", "write", "/srv/log", F, "append-only-reading: read"),
        ("read", "ioctl", "/srv/log", F, "append-only-reading: read ioctl"),
        ("read", "truncate", "/srv/log", F, "srv: read truncate"),
        # Two rights of srv against one of append-only-reading.
        ("read", "truncate write ioctl", "/srv/a", F, "srv: read write truncate"),
        ("read", "read", "/srv/a", F, "srv: read"),
    ],
)
def test_optional_rights_choose_the_rule_and_are_dropped_by_denies(
    policy: Policy, needed: str, optional: str, path: str, kind: FileType, expected: str
) -> None:
    assert shown(policy.decide(request(path, needed, optional), MIA, Object(path, kind))) == expected


def test_optional_write_counts_as_one_right_though_it_implies_append() -> None:
    rules = [
        {"name": "a", "allow": ["read", "ioctl"], "clients": ["any"], "paths": ["/a"]},
        {"name": "b", "allow": ["read", "write"], "clients": ["any"], "paths": ["/a"]},
    ]
    verdict = policy_of(rules).decide(request("/a", "read", "write ioctl"), MIA, Object("/a", F))
    assert shown(verdict) == "a: read ioctl"


@pytest.mark.parametrize(
    "path", ["/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd", "/dev/fd/3", "/dev/tty"]
)
def test_what_is_each_process_s_own_matches_no_wildcard(policy: Policy, path: str) -> None:
    expected = "tty-use: read" if path == "/dev/tty" else "no rule gives read: none names this path"
    assert shown(policy.decide(request(path, "read"), ROOT, Object(path, C))) == expected


def test_link_is_no_way_to_what_is_each_process_s_own(policy: Policy) -> None:
    asked = request("/dev/mine", "read")
    assert shown(policy.decide(asked, ROOT, Object("/dev/tty2", C))) == "tty-use: read"
    assert not policy.decide(asked, ROOT, Object("/dev/fd/0", C, last_link=True)).allowed


@pytest.mark.parametrize(
    ("who", "path", "needed", "expected"),
    [
        (MIA, "/dev/kvm", "use", "/dev"),
        (MIA, "/srv/a/b", "read", "/srv"),
        (MIA, "/dev/serial/by-id/x", "read", "/dev/serial/by-id"),
        (ROOT, "/dev/serial/by-id/x", "read", "/dev"),
        (MIA, "/srv/pub/free/x", "read", "/srv"),
        (MIA, "/srv/pub/x", "read", "denied by 30-site/no-pub"),
        (GUEST, "/srv/a", "read", "denied by 30-site/no-guests"),
        (MIA, "/srv/log", "write", "denied by 30-site/no-log"),
        (MIA, "/etc/passwd", "read", "no rule gives read: none names this path"),
        (MIA, "/srv/secret/x", "read", "no rule gives read"),
        (MIA, "relative", "read", "path: it is not absolute"),
    ],
)
def test_consideration_gives_a_root_or_a_final_refusal(
    policy: Policy, who: Peer, path: str, needed: str, expected: str
) -> None:
    considered = policy.consider(request(path, needed), who)
    assert (considered.refusal.reason if considered.refusal else considered.literal_root) == expected


def test_consideration_hands_out_the_literals_that_concern_this_peer_and_these_rights() -> None:
    policy = load([Source("a.yaml", """\
version: 1
clients: {all: {socket: default}}
rules:
  - {name: a, clients: [all], allow: [use], type: char, paths: [/dev/*], except_paths: [/dev/x, /dev/y*]}
  - {name: b, deny: [ioctl], paths: [/dev/b, /dev/c*, /dev/b2]}
  - {name: d, deny: [read], paths: [/dev/d, /dev/b], clients: [{user: mia}]}
  - {name: e, deny: [read], paths: [/dev/e], except_clients: [{user: mia}]}
""")])  # fmt: skip
    for who, needed, optional, literals in [
        (MIA, "read", "", ("/dev/d", "/dev/b")),
        (MIA, "read", "ioctl", ("/dev/b", "/dev/b2", "/dev/d")),
        (TOM, "read", "", ("/dev/e",)),
        (TOM, "write", "", ()),
    ]:
        found = policy.consider(request("/dev/a", needed, optional), who).literals
        # The exceptions of the allow are looked for under every name as well.
        assert found == (*literals, "/dev/x")


@pytest.mark.parametrize(
    ("who", "path", "needed", "optional", "expected"),
    [
        (MIA, "/dev/kvm", "read", "ioctl", "kvm: read ioctl"),
        (MIA, "/srv/a", "read", "", "srv: read"),
        (MIA, "/srv/log", "read", "append", "append-only-reading: read"),
        (GUEST, "/srv/a", "read", "", "denied by 30-site/no-guests"),
        (MIA, "/etc/x", "read", "", "no rule gives read: none names this path"),
    ],
)
def test_lexical_verdict_counts_a_deny_only_when_it_is_certain(
    policy: Policy, who: Peer, path: str, needed: str, optional: str, expected: str
) -> None:
    assert shown(policy.decide(request(path, needed, optional), who, None)) == expected


def test_lexical_verdict_counts_a_deny_of_everything_among_many_of_single_devices() -> None:
    numbers = [
        f"  - {{name: a{minor}, deny: read, paths: [/dev/x], device: '1:{minor}'}}" for minor in range(20)
    ]
    rest = """\
  - {name: all, deny: read, paths: [/dev/x]}
  - {name: x, clients: [any], allow: read, type: char, paths: [/dev/x]}
"""
    policy = load([Source("a.yaml", "\n".join(["version: 1", "rules:", *numbers, rest]))])
    for verdict in (
        policy.decide(request("/dev/x", "read"), MIA, None),
        policy.consider(request("/dev/x", "read"), MIA).refusal,
    ):
        assert verdict is not None
        assert verdict.reason == "denied by a/all"


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (MIA, ["append-only-reading", "disks", "kvm", "srv", "srv-read", "tty"]),
        (TOM, ["append-only-reading", "disks", "kvm", "srv-read", "tty"]),
        (ROOT, ["tty-use"]),
        (Peer(None, None, None, None), []),
    ],
)
def test_description_lists_the_allows_for_a_peer(policy: Policy, who: Peer, expected: list[str]) -> None:
    assert [rule.name for rule in policy.describe(who)] == expected


@pytest.mark.parametrize(
    ("rule", "users", "groups", "accounts", "account_groups"),
    [
        ("clients: [{user: [mia, tom]}], allow: read, paths: [/a]", "mia tom", "", False, False),
        ("clients: [{group: lab}], allow: read, paths: [/a]", "", "lab", False, False),
        ("clients: [any], except_clients: [{gid: 5}], allow: read, paths: [/a]", "", "", True, True),
        ("clients: [{group: lab, user: x}], deny: all", "x", "lab", False, True),
        ("except_clients: [{group: lab}], deny: all", "", "lab", False, False),
        ("except_clients: any, deny: all", "", "", True, False),
    ],
)
def test_policy_says_which_facts_its_rules_need(
    rule: str, users: str, groups: str, accounts: bool, account_groups: bool
) -> None:
    head = "version: 1\nclients: {unused: {user: nobody, group: none}}\n"
    policy = load([Source("a.yaml", f"{head}rules:\n  - {{name: a, {rule}}}\n")])
    assert policy.user_names == frozenset(users.split())
    assert policy.group_names == frozenset(groups.split())
    assert policy.needs_accounts is accounts
    assert policy.needs_account_groups is account_groups


def test_facts_about_many_peers_are_forgotten_and_found_again(policy: Policy) -> None:
    asked, found = request("/srv/a", "read"), Object("/srv/a", F)
    for uid in range(1_100):
        other = Peer(uid, frozenset(["mia"]), frozenset(), frozenset(["lab"]), frozenset(), NONE)
        assert policy.decide(asked, other, found).allowed
    assert shown(policy.decide(asked, GUEST, found)) == "denied by 30-site/no-guests"
