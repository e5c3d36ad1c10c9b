"""Variables in paths, with a real broker: each client gets its own, and odd homes are none (threat 9)."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from support import EVERYBODY, STRANGER, Broker, allow, as_uid, needs_root, policy

from sandboxed import Denied

Start = Callable[..., Broker]

# Accounts of every Debian whose "home" is a directory of the system's, and what could be had below it.
_ODD_HOMES = {"sys": "/dev/null", "bin": "/bin/true", "daemon": "/usr/sbin/nologin", "_apt": "/nonexistent/x"}


def reader_of(broker: Broker, path: str | Path) -> Callable[[], bool]:
    """Tells whether the one who calls it may open `path`."""

    def is_given() -> bool:
        with broker.client() as client:
            try:
                client.open_fd(str(path), ["read"]).close()
            except Denied:
                return False
        return True

    return is_given


def test_client_gets_the_file_that_is_named_after_it_and_no_other(start_broker: Start, place: Path) -> None:
    other = os.geteuid() + 1
    for number in (os.geteuid(), other):
        (place / str(number)).touch()
    broker = start_broker(policy(allow("own", f"{place}/${{uid}}")))
    assert reader_of(broker, place / str(os.geteuid()))()
    assert not reader_of(broker, place / str(other))()
    with broker.client() as client:
        assert client.describe()["resources"][0]["paths"] == [f"{place}/{os.geteuid()}"]


@needs_root
def test_client_without_an_account_gets_nothing_that_a_user_name_gives(
    start_broker: Start, place: Path
) -> None:
    for name in ("root", "", "None", str(STRANGER)):
        (place / f"{name}.key").touch()
    broker = start_broker(policy(allow("own", f"{place}/${{user}}.key")))
    assert reader_of(broker, place / "root.key")()
    for name in ("root", "None", str(STRANGER)):
        assert not as_uid(STRANGER, reader_of(broker, place / f"{name}.key"))


@needs_root
def test_client_without_an_account_is_denied_what_a_deny_by_user_name_could_mean(
    start_broker: Start, place: Path
) -> None:
    (place / "tom").mkdir()
    for leaf in ("key", "pub"):
        (place / "tom" / leaf).touch()
    deny = f"name: no, deny: all, paths: ['{place}/${{user}}/key']"
    broker = start_broker(policy(allow("all", f"{place}/**"), deny))
    assert reader_of(broker, place / "tom/key")()  # root's name is another
    assert not as_uid(STRANGER, reader_of(broker, place / "tom/key"))
    assert as_uid(STRANGER, reader_of(broker, place / "tom/pub"))


@needs_root
@pytest.mark.parametrize("name", _ODD_HOMES)
def test_account_gets_nothing_when_its_home_is_a_directory_of_the_systems(
    start_broker: Start, name: str
) -> None:
    uid = pwd.getpwnam(name).pw_uid
    broker = start_broker(policy(allow("home", "${home}/**", more="type: [file, char]")))
    assert not as_uid(uid, reader_of(broker, _ODD_HOMES[name]))
    for path in ("/etc/shadow", "/dev/zero", "/etc/passwd", "/bin/sh"):
        assert not as_uid(uid, reader_of(broker, path))


@needs_root
def test_root_gets_nothing_by_its_home_when_that_is_one_level_deep(start_broker: Start, place: Path) -> None:
    """/root is no deeper than /dev: a rule for it names it. That the broker serves at all is what is seen here too."""
    assert pwd.getpwuid(0).pw_dir == "/root"
    (place / "free").touch()
    broker = start_broker(
        policy(allow("home", "${home}/**"), allow("free", f"{place}/free", clients=EVERYBODY))
    )
    assert not reader_of(broker, "/root/.profile")()
    assert reader_of(broker, place / "free")()
