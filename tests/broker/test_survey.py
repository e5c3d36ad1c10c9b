"""What there is to be given: found by the broker's walk, and each cell is what `fdbroker explain` says of that user."""

import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import STRANGER, allow, as_uid, needs_root, policy

from broker.devicefacts import DeviceFacts
from broker.explaining import YES, explained
from broker.peers import PeerFinder
from broker.survey import ABSENT, REFUSED, UNKNOWN, Seen, Survey, Unseen
from policy import Peer, Policy, Request, parse_pattern, parse_rights
from policy.access import AccessTable, literals
from tests.broker.people import NOTHING, NOW, USERS, loaded


def rules_for(place: Path) -> str:
    first, second = (account.pw_name for account in USERS[:2])
    return policy(
        f"name: all, clients: [any], except_clients: [{{user: {second}}}], allow: [read, write],"
        f' type: [file, fifo, char], paths: ["{place}/*", "{place}/*/*"], except_paths: [{place}/kept]',
        allow("cut", f"{place}/file", "edit", clients=f"{{user: {second}}}"),
        allow("own", f"{place}/${{user}}", "read", clients="any"),
        allow("null", "/dev/null", "use", "type: char", f"{{uid: {USERS[2].pw_uid}}}"),
        f"name: kept, deny: all, clients: [{{user: {first}}}], paths: [{place}/secret]",
        f'name: hidden, deny: write, clients: [{{user: {USERS[3].pw_name}}}], paths: ["{place}/x/*"]',
    )


def survey_of(rules: Policy, peers: list[Peer]) -> Survey:
    return Survey(DeviceFacts(rules, shows=True), literals(rules, peers))


def test_every_cell_is_what_explain_says(things: Path) -> None:
    rules = loaded(rules_for(things))
    finder = PeerFinder(rules)
    peers = finder.uids([account.pw_uid for account in USERS])
    before = sorted(os.listdir("/proc/self/fd"))
    survey = survey_of(rules, peers)
    answers: dict[str, set[bool]] = {}
    table = AccessTable(rules, peers, NOW)
    for path in [*(str(one) for one in sorted(things.rglob("*"))), "/dev/null", "/dev/zero"]:
        seen = survey.look(path)
        assert isinstance(seen, Seen)
        for members, answer in table.reaches(seen.subject):
            for number in members:
                for word in ("read", "write", "use", "edit"):
                    rights = parse_rights([word])
                    wanted = explained(rules, Request(path, rights), peers[number], NOW)
                    has = any(not int(rights) & ~int(one.rights) for one in answer.grants)
                    is_given = has and not seen.refusal
                    assert is_given is (wanted.answer == YES), (path, peers[number].uid, word)
                    answers.setdefault(Path(path).name, set()).add(is_given)
    survey.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert [name for name, given in answers.items() if len(given) == 2] != []
    assert answers["link-to-kept"] == {False}


def test_survey_opens_nothing(things: Path) -> None:
    rules = loaded(rules_for(things))
    survey = survey_of(rules, [])
    seen = survey.look(f"{things}/fifo")
    with pytest.raises(OSError, match="No such device or address"):
        os.open(things / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    survey.close()
    assert isinstance(seen, Seen)


@pytest.mark.parametrize(
    ("path", "what"),
    [("nothing", ABSENT), ("file/x", ABSENT), ("loop", ABSENT), ("../x", REFUSED), ("proc", REFUSED)],
)
def test_survey_tells_what_leads_nowhere(things: Path, path: str, what: str) -> None:
    (things / "loop").symlink_to("loop")
    (things / "proc").symlink_to("/proc/self/status")
    survey = survey_of(loaded(NOTHING), [])
    found = survey.look(f"{things}/{path}")
    survey.close()
    assert isinstance(found, Unseen)
    assert found.what == what


@needs_root
def test_survey_tells_what_who_is_not_root_may_not_see(things: Path) -> None:
    (things / "closed").mkdir(mode=0o700)
    (things / "closed/file").write_text("x")
    closed = f"{things}/closed/file"

    def look() -> list[Any]:
        survey = Survey(DeviceFacts(loaded(NOTHING), shows=True), [closed])
        found = survey.look(closed)
        survey.close()
        return [found.what if isinstance(found, Unseen) else "", survey.unknown]

    what, unknown = as_uid(STRANGER, look)
    assert what == UNKNOWN
    assert unknown == [
        f"{closed} may be another name of something: Permission denied, for you, uid {STRANGER}"
    ]


PATTERNS = [
    ("*", {"file", "secret", "kept", "fifo", "link", "open", "hard-link", "link-out", "link-to-kept"}),
    ("f*", {"file", "fifo"}),
    ("*/hard*", {"open/hard-link"}),
    ("op[e]n/**", {"open/hard-link"}),
    ("open/**", {"open/hard-link"}),
    ("link/*", set()),
    ("no/such/*", set()),
]


@pytest.mark.parametrize(("pattern", "wanted"), PATTERNS)
def test_pattern_comes_to_what_it_matches(things: Path, pattern: str, wanted: set[str]) -> None:
    survey = survey_of(loaded(NOTHING), [])
    paths, is_cut = survey.expand(parse_pattern(f"{things}/{pattern}"))
    survey.close()
    assert {path.removeprefix(f"{things}/") for path in paths} - {USERS[3].pw_name} == wanted
    assert not is_cut
    assert not survey.unknown


def test_pattern_that_matches_too_much_is_cut_and_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.survey.OBJECTS_PER_PATTERN", 3)
    for number in range(5):
        (place / f"f{number}").write_text("x")
    survey = survey_of(loaded(NOTHING), [])
    assert survey.expand(parse_pattern(f"{place}/*")) == ([f"{place}/f{number}" for number in range(3)], True)
    monkeypatch.setattr("broker.survey.NAMES_PER_SEARCH", 4)
    assert survey.expand(parse_pattern(f"{place}/g*")) == ([], True)
    survey.close()


def test_accounts_that_the_database_does_not_list_are_found_by_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unlisted = USERS[1]
    monkeypatch.setattr(pwd, "getpwall", lambda: USERS[:1])
    assert [one.uid for one in PeerFinder(loaded(NOTHING)).accounts()] == [USERS[0].pw_uid]
    named = loaded(policy(allow("a", "/x", clients=f"{{user: {unlisted.pw_name}}}")))
    assert [one.uid for one in PeerFinder(named).accounts()] == [USERS[0].pw_uid, unlisted.pw_uid]
    monkeypatch.setattr(
        "grp.getgrnam", lambda name: SimpleNamespace(gr_gid=7, gr_mem=[unlisted.pw_name, "gone"])
    )
    grouped = loaded(policy(allow("a", "/x", clients="{group: lab}")))
    assert [one.uid for one in PeerFinder(grouped).accounts()] == [USERS[0].pw_uid, unlisted.pw_uid]
