"""`fdbroker explain`: it says what the broker would answer, sees no more than it may, and opens nothing."""

import errno
import json
import os
import select
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import EVERYBODY, FDBROKER, STRANGER, TREE, allow, as_uid, needs_root, policy

from broker.commands.explain_words import as_text
from broker.explaining import NO, NOT_KNOWN, YES, Explained, explained
from broker.messages import Asked
from broker.opener import Opener
from broker.outside import Permissions
from broker.peers import PeerFinder
from broker.plans import Plan
from broker.unusable import Unusable
from policy import Policy, Request, Rights, Source, load

READ = Rights.READ


def rules_for(place: Path) -> str:
    """A policy about the things of `things()`."""
    return policy(
        allow("all", f"{place}/**", "use", "type: [file, fifo, char, directory]"),
        allow("procfs", "/proc/self/status"),
        allow("stdin", "/dev/stdin", "read", "type: [char, file, fifo]"),
        allow("null", "/dev/null", "use", "type: char"),
        f"name: secret, deny: all, paths: [{place}/secret]",
        f"name: elsewhere, deny: all, paths: [{place}/no/such]",
    )


def loaded(text: str) -> Policy:
    return load([Source("10-test.yaml", text)])


@pytest.fixture
def things(place: Path) -> Path:
    """A directory with one thing of each sort."""
    (place / "file").write_text("x")
    (place / "secret").write_text("x")
    (place / "directory").mkdir()
    os.link(place / "secret", place / "hard-link")
    os.mkfifo(place / "fifo")
    (place / "link").symlink_to("file")
    (place / "link-to-secret").symlink_to("secret")
    (place / "link-out").symlink_to("/etc/passwd")
    (place / "link-to-nothing").symlink_to("nothing")
    (place / "loop").symlink_to("loop")
    (place / "below").symlink_to("directory")
    return place


THINGS = [
    *("file", "secret", "directory", "hard-link", "fifo", "link", "link-to-secret", "link-out"),
    *(
        "link-to-nothing",
        "loop",
        "below",
        "nothing",
        "file/x",
        "directory/nothing",
        "below/nothing",
        "../etc/passwd",
    ),
]
SYSTEM = ["/proc/self/status", "/dev/stdin", "/dev/null", "/dev/zero", "/etc/passwd", "relative", "/"]


@pytest.mark.parametrize("name", [*THINGS, *SYSTEM])
@pytest.mark.parametrize("rights", [READ, Rights.READ | Rights.TRUNCATE])
def test_answer_is_what_the_opener_does(things: Path, name: str, rights: Rights) -> None:
    path = name if name in SYSTEM else f"{things}/{name}"
    rules = loaded(rules_for(things))
    peer = PeerFinder(rules).caller(None)
    answer = explained(rules, Request(path, rights), peer)
    opener = Opener(rules)
    try:
        outcome = opener.open(Plan(Asked(path, rights, Rights(0), 0), peer))
    finally:
        opener.close()
    if outcome.fd >= 0:
        os.close(outcome.fd)
    assert answer.answer == (NO if outcome.verdict == "deny" else YES)
    assert (answer.answer == YES and bool(answer.sight.failure)) is (outcome.verdict == "failed")
    if outcome.verdict == "allow":
        assert answer.explanation.verdict.rule is outcome.rule


def test_explanation_opens_nothing_and_leaves_nothing_open(things: Path) -> None:
    # Whoever opened the FIFO for reading would be seen by a writer that does not wait.
    rules = loaded(rules_for(things))
    before = sorted(os.listdir("/proc/self/fd"))
    assert explained(rules, Request(f"{things}/fifo", READ), PeerFinder(rules).caller(None)).answer == YES
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError) as error:
        os.open(things / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    assert error.value.errno == errno.ENXIO


def explain(things: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    rules = things / "rules.yaml"
    if not rules.exists():
        rules.write_text(rules_for(things))
    return subprocess.run(
        [*FDBROKER, "explain", "--policy", str(rules), *words],
        cwd=TREE,
        capture_output=True,
        text=True,
        **options,
    )


def rows(ran: subprocess.CompletedProcess[str]) -> dict[str, str]:
    lines = ran.stdout.splitlines()
    return {"": lines[0], **{line[:8].strip(): line[8:] for line in lines[1:]}}


def test_command_tells_that_it_is_allowed(things: Path) -> None:
    ran = explain(things, f"{things}/file", "read")
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = rows(ran)
    assert shown[""].startswith("ALLOWED by rule: rules/all gives read    policy ")
    assert shown["object"] == f"{things}/file file"
    assert shown["peer"].startswith(f"uid {os.geteuid()}")


def test_command_tells_the_hard_link_by_which_a_deny_refuses(things: Path) -> None:
    ran = explain(things, f"{things}/hard-link", "read")
    shown = rows(ran)
    assert ran.returncode == 1
    assert shown[""].startswith("DENIED by rule: rules/secret refuses read")
    assert shown["name"] == f"{things}/secret"
    assert shown["but for"].startswith("rules/all  rules.yaml:3")


def test_command_tells_what_the_nearest_rule_lacks_and_what_would_be_allowed(things: Path) -> None:
    ran = explain(things, f"{things}/file", "read,truncate")
    shown = rows(ran)
    assert ran.returncode == 1
    assert shown[""].startswith("DENIED by default: no one rule gives read+truncate")
    assert shown["near"] == "rules/all  rules.yaml:3  lacks: truncate"
    assert shown["instead"] == "read: allowed by rules/all"


def test_command_tells_that_what_is_not_there_fails(things: Path) -> None:
    ran = explain(things, f"{things}/nothing", "read")
    assert ran.returncode == 0
    assert "opening it fails" in rows(ran)[""]


def test_command_tells_what_the_broker_gives_to_nobody(things: Path) -> None:
    ran = explain(things, f"{things}/directory", "read")
    assert ran.returncode == 1
    assert rows(ran)[""].startswith("DENIED by the broker: a directory fd is never handed out")


def test_command_tells_everything_as_json(things: Path) -> None:
    ran = explain(things, "--json", "--optional", "truncate", f"{things}/link", "read")
    shown = json.loads(ran.stdout)
    assert (ran.returncode, shown["answer"], shown["rights"]) == (0, "allowed", ["read"])
    assert shown["object"] == {
        "path": f"{things}/file",
        "type": "file",
        "device": None,
        "names": [f"{things}/file"],
        "subsystem": None,
        "udev": None,
        "groups": [],
    }
    assert shown["rule"] == {"id": "rules/all", "file": "rules.yaml", "line": 3}
    assert shown["near"][0]["misses"] == [{"condition": "lacks", "how": "truncate"}]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--user", "no-such-user", "/x", "read"], "there is no user 'no-such-user'"),
        (["--user", "4294967295", "/x", "read"], "4294967295 is no user's number: the last is 4294967294"),
        (["--group", "no-such-group", "/x", "read"], "there is no group 'no-such-group'"),
        (["--socket", "gpu", "/x", "read"], "the policy has no socket 'gpu'; there are: default"),
        (["--pid", "4194305", "/x", "read"], "process 4194305: No such process"),
        (["--pid", "0", "/x", "read"], "process 0: Invalid argument"),
        (["--pid", "99999999999999999999", "/x", "read"], "process 99999999999999999999: no such number"),
        (["--pid", "1", "--group", "0", "/x", "read"], "--group goes with --user"),
        (["/x", "reed"], "unknown right 'reed', expected one of "),
    ],
)
def test_command_refuses_what_it_cannot_use(things: Path, words: list[str], told: str) -> None:
    ran = explain(things, *words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"fdbroker explain: {told}")


def test_command_refuses_a_policy_with_mistakes(things: Path) -> None:
    (things / "rules.yaml").write_text("version: 2\n")
    ran = explain(things, "/x", "read")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "rules.yaml:1:10: " in ran.stderr


def test_name_that_would_drive_the_terminal_is_escaped(things: Path) -> None:
    (things / "a\x1b[2Jb\nc").write_text("x")
    ran = explain(things, f"{things}/a\x1b[2Jb\nc", "read")
    assert "\x1b" not in ran.stdout
    assert rows(ran)["object"] == f"{things}/a\\x1b[2Jb\\nc file"


# Who


def ended_child() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie, whose pid is still its own
    return pid


def test_process_that_has_ended_has_no_groups(things: Path) -> None:
    pid = ended_child()
    try:
        with pytest.raises(Unusable, match=f"process {pid} has ended"):
            PeerFinder(loaded(rules_for(things))).process(pid)
    finally:
        os.waitpid(pid, 0)


def test_process_is_who_it_is_now(things: Path) -> None:
    peer = PeerFinder(loaded(rules_for(things))).process(os.getpid())
    assert (peer.uid, peer.gids) == (os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


@needs_root
def test_process_has_the_kernels_groups_and_not_those_of_its_account(things: Path) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([50, 60])
        os.setresgid(70, 71, 70)
        os.setresuid(STRANGER, 1, STRANGER)
        os.write(writer, b"x")
        select.select([], [], [])
        os._exit(0)
    try:
        os.read(reader, 1)
        peer = PeerFinder(loaded(rules_for(things))).process(pid)
        assert (peer.uid, peer.gids) == (1, frozenset((50, 60, 71)))
        assert peer.account_gids is not None and 50 not in peer.account_gids
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


def test_user_has_the_groups_of_a_login_or_those_that_were_named(things: Path) -> None:
    finder = PeerFinder(loaded(rules_for(things)))
    assert finder.user("root", None).gids == finder.user("0", None).account_gids
    named = finder.user("root", ["0", "12345"])
    assert named.gids == frozenset((0, 12345))
    assert named.account_gids == finder.user("root", None).gids


# What an ordinary user may not see


@needs_root
def test_who_may_not_look_is_told_that_it_is_not_known(things: Path) -> None:
    (things / "directory").chmod(0o700)
    (things / "directory" / "x").write_text("x")
    rules = loaded(rules_for(things))

    def ask() -> list[Any]:
        answer: Explained = explained(
            rules, Request(f"{things}/directory/x", READ), PeerFinder(rules).caller(None)
        )
        return [answer.answer, as_text(answer, "0")]

    answer, text = as_uid(STRANGER, ask)
    assert answer == NOT_KNOWN
    assert text.startswith("NOT KNOWN: by its name alone 10-test/all gives read")
    assert f"Permission denied, for you, uid {STRANGER}" in text


@needs_root
def test_who_may_not_look_at_a_denied_name_is_told_that_it_may_be_the_object(things: Path) -> None:
    (things / "directory").chmod(0o700)
    rules = loaded(
        policy(
            allow("all", f"{things}/**"),
            f"name: hidden, deny: all, paths: [{things}/directory/x], clients: [{EVERYBODY}]",
        )
    )

    def ask() -> list[Any]:
        answer = explained(rules, Request(f"{things}/file", READ), PeerFinder(rules).caller(None))
        return [answer.answer, answer.sight.unknown]

    answer, unknown = as_uid(STRANGER, ask)
    assert (answer, len(unknown)) == (YES, 1)
    assert unknown[0].startswith(f"{things}/directory/x may be another name of it: Permission denied")


# Outside the broker

NO_GROUPS: frozenset[int] = frozenset()
ACL = ((0x01, 6, 0), (0x02, 6, 7), (0x04, 4, 0), (0x08, 6, 50), (0x10, 6, 0), (0x20, 0, 0))
MASKED = ((0x01, 6, 0), (0x02, 6, 7), (0x04, 6, 0), (0x08, 6, 50), (0x10, 4, 0), (0x20, 0, 0))


@pytest.mark.parametrize(
    ("mode", "acl", "uid", "gids", "wanted", "expected"),
    [
        (0o000, (), 0, NO_GROUPS, 6, True),
        (0o600, (), 1000, NO_GROUPS, 6, True),
        (0o066, (), 1000, NO_GROUPS, 4, False),  # the owner's bits alone count for the owner
        (0o606, (), 5, frozenset((20,)), 4, False),  # and the group's for the group
        (0o660, (), 5, frozenset((20,)), 6, True),
        (0o604, (), 5, NO_GROUPS, 4, True),
        (0o604, (), 5, NO_GROUPS, 6, False),
        (0o660, (), 5, None, 4, None),
        (0o666, (), 5, None, 4, True),
        (0o600, (), 5, None, 4, False),
        (0o660, ACL, 7, NO_GROUPS, 6, True),
        (0o660, ACL, 5, frozenset((20,)), 4, True),
        (0o660, ACL, 5, frozenset((20,)), 6, False),
        (0o660, ACL, 5, frozenset((50,)), 6, True),
        (0o660, ACL, 5, NO_GROUPS, 4, False),
        (0o640, MASKED, 7, NO_GROUPS, 6, False),
        (0o640, MASKED, 5, frozenset((50,)), 4, True),
    ],
)
def test_permissions_give_what_the_kernel_would(
    mode: int,
    acl: tuple[tuple[int, int, int], ...],
    uid: int,
    gids: frozenset[int] | None,
    wanted: int,
    expected: bool,
) -> None:
    assert Permissions(0o100000 | mode, 1000, 20, acl).give(uid, gids, wanted) is expected


@needs_root
@pytest.mark.parametrize("mode", [0o000, 0o004, 0o040, 0o044, 0o400, 0o644, 0o444])
@pytest.mark.parametrize("groups", [(), (50,)])
@pytest.mark.parametrize("reachable", [True, False])
def test_outside_is_what_an_open_would_find(
    things: Path, mode: int, groups: tuple[int, ...], reachable: bool
) -> None:
    target = things / "directory" / "x"
    target.write_text("x")
    os.chown(target, 1, 50)
    target.chmod(mode)
    (things / "directory").chmod(0o711 if reachable else 0o700)
    rules = loaded(rules_for(things))
    peer = PeerFinder(rules).user(str(STRANGER), [str(STRANGER), *map(str, groups)])
    found = explained(rules, Request(str(target), READ), peer).sight.outside

    def opens() -> bool:
        try:
            os.close(os.open(target, os.O_RDONLY))
            return True
        except PermissionError:
            return False

    assert found is not None
    assert found.possible is as_uid(STRANGER, opens, groups)


@needs_root
def test_outside_reads_the_acl_of_a_file(things: Path) -> None:
    entries = ((0x01, 6, -1), (0x02, 4, STRANGER), (0x04, 0, -1), (0x10, 4, -1), (0x20, 0, -1))
    data = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, id & 0xFFFFFFFF) for tag, bits, id in entries
    )
    try:
        os.setxattr(things / "file", "system.posix_acl_access", data)
    except OSError:
        pytest.skip("the file system has no ACLs")
    ran = explain(things, "--user", str(STRANGER), f"{things}/file", "read")
    assert " with an ACL" in rows(ran)["outside"]
    assert rows(ran)["outside"].endswith(f"{STRANGER} can open it without the broker")
