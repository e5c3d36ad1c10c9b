"""A deny of a user holds for that user's subordinate uids, and gives them nothing (threat 25)."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import EVERYBODY, FDBROKER, STRANGER, Broker, allow, as_uid, needs_root, policy

from broker import subordinates
from broker.identity import Accounts, IdentityReader
from broker.subordinates import Owners, Subordinates
from policy import Source, load
from sandboxed import Denied

Start = Callable[..., Broker]

NOBODY = Owners(frozenset(), frozenset())


@pytest.fixture
def subuid(place: Path) -> Path:
    return place / "subuid"


@pytest.mark.parametrize(
    ("text", "uid", "owners"),
    [
        ("root:100000:65536\n", 100000, Owners(frozenset(["root"]), frozenset([0]))),
        ("root:100000:65536\n", 165535, Owners(frozenset(["root"]), frozenset([0]))),
        ("root:100000:65536\n", 99999, NOBODY),
        ("root:100000:65536\n", 165536, NOBODY),
        ("root:100000:65536\n", 0, NOBODY),
        ("1000:100000:65536\n", 100001, Owners(frozenset(), frozenset([1000]))),
        ("root:5:1\n7:5:1\n8:6:1\n", 5, Owners(frozenset(["root"]), frozenset([0, 7]))),
        # An account that cannot be looked up: its name is known, its number is not.
        ("no.such.account:5:1\n", 5, Owners(frozenset(["no.such.account"]), None)),
        ("", 5, NOBODY),
        ("# root:5:1\nroot:x:1\nroot:5\nroot:5:1:1\nroot:5:0\n root:9:1 \n", 5, NOBODY),
        (" root:9:1 \n", 9, Owners(frozenset(["root"]), frozenset([0]))),
    ],
)
def test_owner_is_whoever_the_file_gives_the_uid_to(
    subuid: Path, text: str, uid: int, owners: Owners
) -> None:
    subuid.write_text(text)
    assert Subordinates(str(subuid)).owners(uid) == owners


def test_nobody_is_the_owner_when_there_is_no_such_file(subuid: Path) -> None:
    assert Subordinates(str(subuid)).owners(5) == NOBODY


def test_owner_is_unknown_when_the_file_cannot_be_read(place: Path) -> None:
    assert Subordinates(str(place)).owners(5) == Owners(None, None)


def test_owner_is_unknown_when_the_file_is_too_long_to_be_read(
    subuid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subordinates, "_SUBUID_BYTES", 20)
    subuid.write_text("7:6:1\n" + "root:100000:65536\n")
    assert Subordinates(str(subuid)).owners(100000) == Owners(None, None)


def test_file_is_read_again_when_it_has_changed(subuid: Path) -> None:
    read = Subordinates(str(subuid))
    for number in (7, 8):
        subuid.write_text(f"{number}:5:1\n" * number)
        assert read.owners(5).uids == {number}
    subuid.unlink()
    assert read.owners(5) == NOBODY


@pytest.mark.parametrize(
    ("rule", "names", "uids"),
    [
        ("name: a, deny: all, clients: [{user: root}]", {"root"}, {0}),
        ("name: a, deny: all, clients: [{uid: 0}]", set(), {0}),
        ("name: a, allow: read, paths: /a, clients: any, except_clients: {user: root}", {"root"}, {0}),
        # Where nothing narrows by user, nothing is looked up.
        ("name: a, allow: read, paths: /a, clients: {user: root}", set(), set()),
        ("name: a, deny: all, except_clients: {user: root}", set(), set()),
    ],
)
def test_owner_is_looked_up_when_a_rule_narrows_by_user(
    subuid: Path, rule: str, names: set[str], uids: set[int]
) -> None:
    subuid.write_text("root:100000:65536\n")
    reader = IdentityReader(Accounts(load([Source("a.yaml", policy(rule))])))
    if reader._subordinates is not None:
        reader._subordinates = Subordinates(str(subuid))
    peer = reader.peer(100000, frozenset(), "default")
    assert (peer.owner_names, peer.owner_uids) == (names, uids)
    assert peer.user_names == frozenset()


def with_subuid(file: Path) -> tuple[str, ...]:
    """`fdbroker` where /etc/subuid is this file."""
    command = 'mount --bind "$0" /etc/subuid && exec "$@"'
    start = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
    if shutil.which("unshare") is None or not os.path.exists("/etc/subuid"):
        pytest.skip("there is no unshare, or no /etc/subuid to mount over")
    if subprocess.run([*start, command, file, "true"], check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mount namespaces are refused here")
    return (*start, command, str(file), *FDBROKER)


@needs_root
@pytest.mark.parametrize("deny", ["user: root", "uid: 0"])
def test_client_is_denied_when_its_uid_is_a_subordinate_of_the_denied_user(
    start_broker: Start, subuid: Path, deny: str
) -> None:
    subuid.write_text(f"root:{STRANGER}:1\n")
    zero = allow("zero", "/dev/zero", more="type: char", clients=EVERYBODY)
    only_root = allow("null", "/dev/null", more="type: char", clients=f"{{{deny}}}")
    no = f"name: no, deny: all, paths: [/dev/zero], clients: [{{{deny}}}]"
    broker = start_broker(policy(zero, only_root, no), with_subuid(subuid))

    def is_given(path: str) -> bool:
        with broker.client() as client:
            try:
                client.open_fd(path, ["read"]).close()
            except Denied:
                return False
        return True

    assert not as_uid(STRANGER, lambda: is_given("/dev/zero"))
    assert not as_uid(STRANGER, lambda: is_given("/dev/null"))  # it gets nothing that its owner gets
    assert as_uid(STRANGER - 1, lambda: is_given("/dev/zero"))
