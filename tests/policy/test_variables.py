"""Variables in paths: text from an account is never a pattern, and what is not known never widens."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policy import FileType, Object, Peer, Request, parse_rights
from policy.paths import split
from policy.patterns import parse_pattern
from policy.variables import certainly, possibly, variables_of
from tests.policy.strategies import named, policy_of

NOBODY: frozenset[Any] = frozenset()
READ = parse_rights(["read"])


def peer(name: str | None = "mia", home: str | None = "/home/mia", uid: int | None = 1000) -> Peer:
    return Peer(uid, NOBODY, NOBODY, NOBODY, account_name=name, home=home)


MIA, STRANGER = peer(), peer(None, None, None)


@pytest.mark.parametrize(
    ("pattern", "who", "path", "certain", "possible"),
    [
        ("/srv/${user}/x", MIA, "/srv/mia/x", True, True),
        ("/srv/${user}/x", MIA, "/srv/tom/x", False, False),
        ("/srv/${user}/x", STRANGER, "/srv/mia/x", False, True),
        ("/srv/${user}/x", STRANGER, "/srv/mia/y", False, False),
        ("/run/user/${uid}/**", MIA, "/run/user/1000/a/b", True, True),
        ("/run/user/${uid}/**", MIA, "/run/user/1001/a", False, False),
        ("/run/user/${uid}/**", STRANGER, "/run/user/0/a", False, True),
        ("/var/mail/${user}.*", MIA, "/var/mail/mia.lock", True, True),
        ("/var/mail/${user}.*", peer("m*"), "/var/mail/mia.lock", False, False),
        ("/var/mail/${user}.*", peer("m*"), "/var/mail/m*.lock", True, True),
        ("/var/mail/*${user}*", STRANGER, "/var/mail/x", False, True),
        ("${home}", MIA, "/home/mia", True, True),
        ("${home}/.ssh/**", MIA, "/home/mia/.ssh/id", True, True),
        ("${home}/.ssh/**", MIA, "/home/tom/.ssh/id", False, False),
        # A home that is not known could be anywhere, two levels deep.
        ("${home}/.ssh/**", STRANGER, "/home/tom/.ssh/id", False, True),
        ("${home}/.ssh/**", STRANGER, "/a/b/c/d/.ssh/id", False, True),
        ("${home}/.ssh/**", STRANGER, "/root/.ssh/id", False, False),
        ("${home}/.ssh/**", STRANGER, "/home/tom/.ssh", False, False),
        ("${home}", STRANGER, "/home/tom", False, True),
        ("${home}", STRANGER, "/root", False, False),
        # /, /dev and /root are no homes.
        ("${home}/**", peer(home="/"), "/etc/shadow", False, False),
        ("${home}/**", peer(home="/dev"), "/dev/sda", False, False),
        ("${home}/**", peer(home="/root"), "/root/.ssh/id", False, True),
        ("${home}/*", peer(home="/*/*"), "/home/mia/x", False, False),
        # Accounts with names that are none.
        ("/srv/${user}", peer("a/b"), "/srv/a/b", False, False),
        ("/srv/${user}/b", peer(".."), "/srv/../b", False, True),
        ("/srv/${user}", peer(""), "/srv/a", False, True),
        ("/srv/${user}/**", peer("**"), "/srv/a/b", False, False),
    ],
)
def test_pattern_matches_what_it_means_for_the_peer(
    pattern: str, who: Peer, path: str, certain: bool, possible: bool
) -> None:
    parsed, variables = parse_pattern(pattern), variables_of(who)
    known = certainly(parsed, variables)
    assert (known is not None and known.matches(split(path))) is certain
    assert possibly(parsed, variables).matches(split(path)) is possible
    assert not parsed.matches(split(path))  # what is not expanded matches nothing


names = st.one_of(st.text(), st.text("*?[]!{}-a\\/.$", max_size=6))


@given(names, names, st.sampled_from(["/srv/${user}", "/srv/${user}/x", "/a/${user}.x"]))
@example("*", "mia", "/srv/${user}")
@example("[!x]", "m", "/srv/${user}")
def test_user_name_gives_no_path_but_its_own(name: str, other: str, pattern: str) -> None:
    policy = policy_of(named([{"allow": "read", "clients": [{"uid": "1000"}], "paths": [pattern]}]))
    path = pattern.replace("${user}", other)
    verdict = policy.decide(Request(path, READ), peer(name), Object(path, FileType.FILE))
    assert verdict.allowed <= (name == other)


@given(names, names, names)
def test_home_gives_nothing_outside_of_itself(home: str, directory: str, leaf: str) -> None:
    rule = {"allow": "read", "clients": [{"uid": "1000"}], "paths": ["${home}/**"]}
    path = f"/{directory}/{leaf}"
    verdict = policy_of(named([rule])).decide(
        Request(path, READ), peer(home=f"/home/{home}"), Object(path, FileType.FILE)
    )
    assert verdict.allowed <= path.startswith(f"/home/{home}/")


def test_describe_tells_the_peers_own_paths_and_leaves_out_what_it_has_none_of() -> None:
    clients = [{"socket": "default"}]
    policy = policy_of(
        named(
            [
                {"allow": "read", "clients": clients, "paths": ["/srv/${user}", "/srv/pub"]},
                {"allow": "read", "clients": clients, "paths": ["${home}/x"]},
            ]
        )
    )
    told = [
        [pattern.text for rule in policy.describe(who) for pattern in rule.paths] for who in (MIA, STRANGER)
    ]
    assert told == [["/srv/mia", "/srv/pub", "/home/mia/x"], ["/srv/pub"]]


def test_object_is_looked_for_under_the_denied_and_excepted_names_of_the_peer() -> None:
    allow = {"allow": "read", "clients": [{"socket": "default"}], "paths": ["/srv/**"]}
    policy = policy_of(
        named([{**allow, "except_paths": ["/srv/${uid}/key"]}, {"deny": "all", "paths": ["${home}/key"]}])
    )
    found = [policy.consider(Request("/srv/a", READ), who).literals for who in (MIA, STRANGER)]
    assert found == [("/home/mia/key", "/srv/1000/key"), ()]


def test_own_device_of_a_process_is_not_named_by_a_variable() -> None:
    rule = {"allow": "read", "clients": [{"uid": "1000"}], "paths": ["/dev/${user}"], "type": "char"}
    policy = policy_of(named([rule]))
    for name, allowed in (("tty", False), ("tty1", True)):
        path = f"/dev/{name}"
        verdict = policy.decide(Request(path, READ), peer(name), Object(path, FileType.CHAR))
        assert verdict.allowed is allowed
