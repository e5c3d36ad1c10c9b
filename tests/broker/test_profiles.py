"""Where profiles are found: ready ones by name, the administrator's before ours, and any file by its path."""

import os
from pathlib import Path

import pytest
from support import TREE

from broker import profiles
from broker.limits import PROFILE_BYTES
from broker.policyfiles import UnreadablePolicy
from broker.profiles import find
from policy import PolicyError

READY = ["command-line", "daemon", "network-client"]


@pytest.fixture
def directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The administrator's directory, which need not be there."""
    path = place / "profiles.d"
    path.mkdir()
    monkeypatch.setattr(profiles, "ADMINISTRATORS", str(path))
    return path


def write(path: Path, description: str = "mine") -> Path:
    path.write_text(f"version: 1\ndescription: {description}\n")
    return path


@pytest.mark.parametrize("name", READY)
@pytest.mark.usefixtures("directory")
def test_ready_profile_is_found_by_its_name(name: str) -> None:
    assert find(name) == find(str(TREE / "policy" / "profiles" / f"{name}.yaml"))


def test_administrators_profile_is_found_and_wins(directory: Path) -> None:
    write(directory / "daemon.yaml")
    write(directory / "site-2.yaml", "more")
    assert (find("daemon").description, find("site-2").description) == ("mine", "more")


@pytest.mark.parametrize("text", ["", "version: 1\nnte: none\n", "rules: []\n"])
def test_administrators_profile_with_mistakes_is_not_passed_over(directory: Path, text: str) -> None:
    (directory / "daemon.yaml").write_text(text)
    with pytest.raises(PolicyError, match=r"^daemon\.yaml:\d+:\d+: "):
        find("daemon")


@pytest.mark.parametrize("target", ["/dev/null", "/nowhere/at/all"])
def test_administrators_link_to_nothing_takes_the_name_away(directory: Path, target: str) -> None:
    (directory / "daemon.yaml").symlink_to(target)
    with pytest.raises(UnreadablePolicy, match=r"daemon\.yaml: (not a regular file|No such file)"):
        find("daemon")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every directory")
def test_directory_that_cannot_be_searched_is_an_error_and_not_ours(directory: Path) -> None:
    directory.chmod(0)
    try:
        with pytest.raises(UnreadablePolicy, match="Permission denied"):
            find("daemon")
    finally:
        directory.chmod(0o700)


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_ready_profile_is_found_without_an_administrators_directory(directory: Path, kind: str) -> None:
    directory.rmdir()
    if kind == "a file":
        directory.touch()
    assert find("daemon").description
    assert [ready.name for ready in profiles.names()] == READY


def test_file_is_found_by_its_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place / "own.yaml")
    write(place / "plain")
    monkeypatch.chdir(place)
    for path in (f"{place}/own.yaml", "own.yaml", "./own.yaml", "./plain"):
        assert find(path).description == "mine"


def test_name_is_never_looked_for_where_the_caller_stands(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place / "daemon")
    write(place / "daemon.yaml")
    monkeypatch.chdir(place)
    assert find("daemon").description != "mine"


@pytest.mark.parametrize(
    "name", ["deamon", "Daemon", "", "..", "daemon.yml", "a b", "daemon\n", "\x1b[2J", "ä"]
)
@pytest.mark.usefixtures("directory")
def test_name_that_there_is_not_is_told_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UnreadablePolicy) as error:
        find(name)
    assert str(error.value).startswith(f"there is no profile {name!r}, expected one of {', '.join(READY)} ")
    assert str(error.value).isprintable()


@pytest.mark.usefixtures("directory")
def test_misspelt_name_is_told_the_nearest() -> None:
    with pytest.raises(UnreadablePolicy, match=r"; did you mean 'daemon'\?$"):
        find("deamon")


def test_file_that_is_none_is_told(place: Path) -> None:
    os.mkfifo(place / "fifo.yaml")
    (place / "directory.yaml").mkdir()
    (place / "large.yaml").write_bytes(b"version: 1\n".ljust(PROFILE_BYTES + 1, b"#"))
    for name, reason in [
        ("fifo.yaml", "not a regular file"),
        ("directory.yaml", "not a regular file|Is a directory"),
        ("large.yaml", f"larger than {PROFILE_BYTES} bytes"),
        ("missing.yaml", "No such file or directory"),
    ]:
        with pytest.raises(UnreadablePolicy, match=f"{name}: ({reason})$"):
            find(f"{place}/{name}")


def test_file_of_the_largest_size_is_read(place: Path) -> None:
    (place / "large.yaml").write_bytes(b"version: 1\n".ljust(PROFILE_BYTES, b"#"))
    assert find(f"{place}/large.yaml") == profiles.Profile()


def test_names_are_those_of_both_places_with_their_descriptions(directory: Path) -> None:
    write(directory / "daemon.yaml")
    write(directory / "a-first.yaml", "more")
    (directory / "broken.yaml").write_text("no")
    (directory / "looped.yaml").symlink_to("looped.yaml")
    write(directory / "Not_a_name.yaml")
    write(directory / "not-a-profile.txt")
    found = dict(profiles.names())
    assert list(found) == ["a-first", "broken", "command-line", "daemon", "looped", "network-client"]
    assert (found["a-first"], found["daemon"]) == ("more", "mine")
    for name in ("broken", "looped"):
        assert found[name] == f"(cannot be used: `fdbroker run --profile {name}` tells why)"


def test_finding_leaves_no_file_open(directory: Path) -> None:
    (directory / "broken.yaml").write_text("no")
    before = sorted(os.listdir("/proc/self/fd"))
    profiles.names()
    assert sorted(os.listdir("/proc/self/fd")) == before
