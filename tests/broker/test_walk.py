"""The walk and the mount table, one object at a time. What the policy makes of it: test_threat_links.py."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.limits import LINKS
from broker.mounts import MountTable
from broker.walk import Walked, Walker, WalkFailed, WalkRefused


@pytest.fixture
def walker() -> Iterator[Walker]:
    before = set(os.listdir("/proc/self/fd"))
    made = Walker()
    yield made
    made.close()
    assert set(os.listdir("/proc/self/fd")) == before


def walk(walker: Walker, path: object) -> Walked:
    """The walk, with its fd closed again."""
    walked = walker.walk(str(path))
    assert os.path.samestat(os.fstat(walked.fd), walked.status)
    os.close(walked.fd)
    return walked


def test_plain_name_is_found_as_it_stands(walker: Walker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    walked = walk(walker, tmp_path / "file")
    assert (walked.path, walked.names, walked.last_link) == (str(tmp_path / "file"), (), False)


def test_device_below_dev_is_guarded_by_root(walker: Walker) -> None:
    walked = walk(walker, "/dev/null")
    assert walked.guarded
    assert walked.status.st_rdev == os.makedev(1, 3)


def test_file_in_a_directory_that_others_write_is_not_guarded(walker: Walker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    tmp_path.chmod(0o777)
    assert not walk(walker, tmp_path / "file").guarded


@pytest.mark.parametrize(
    ("links", "asked", "found", "names", "last"),
    [
        ({"l": "d/f"}, "l", "d/f", ["d/f"], True),
        ({"l": "d"}, "l/f", "d/f", ["d/f"], False),
        ({"l": "m", "m": "d/f"}, "l", "d/f", ["m", "d/f"], False),
        ({"d/l": "../d/f"}, "d/l", "d/f", ["d/f"], True),
        ({"d/l": ".."}, "d/l/d/f", "d/f", ["d/f"], False),
        ({"l": "d/../d/./f"}, "l", "d/f", ["d/f"], True),
        ({"l": "BASE/d/f"}, "l", "d/f", ["d/f"], True),
    ],
)
def test_every_name_on_the_way_is_known(
    walker: Walker,
    tmp_path: Path,
    links: dict[str, str],
    asked: str,
    found: str,
    names: list[str],
    last: bool,
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    for name, target in links.items():
        (tmp_path / name).symlink_to(target.replace("BASE", str(tmp_path)))
    walked = walk(walker, tmp_path / asked)
    assert walked.path == str(tmp_path / found)
    assert walked.names == tuple(str(tmp_path / name) for name in names)
    assert walked.last_link is last
    assert not walked.guarded


def test_link_to_the_root_ends_at_the_root(walker: Walker, tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("/../..")
    assert walk(walker, tmp_path / "l").path == "/"


@pytest.mark.parametrize(
    ("name", "number", "links"),
    [("none", errno.ENOENT, 0), ("file/x", errno.ENOTDIR, 0), ("loop", errno.ELOOP, LINKS + 1),
     ("dangling", errno.ENOENT, 1), ("x" * 300, errno.ENAMETOOLONG, 0)],
)  # fmt: skip
def test_failed_walk_says_why_and_how_many_links_led_there(
    walker: Walker, tmp_path: Path, name: str, number: int, links: int
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(WalkFailed) as caught:
        walker.walk(str(tmp_path / name))
    assert (caught.value.errno, caught.value.links) == (number, links)


@pytest.mark.parametrize("target", ["/proc/self/status", "/proc/self/fd/0", "/proc/1/root/etc/passwd"])
def test_procfs_is_never_entered(walker: Walker, tmp_path: Path, target: str) -> None:
    (tmp_path / "l").symlink_to(target)
    for path in (target, str(tmp_path / "l")):
        with pytest.raises(WalkRefused):
            walker.walk(path)


def test_name_that_is_no_unicode_is_found(walker: Walker, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    (tmp_path / "l").symlink_to(os.fsdecode(name))
    assert walk(walker, tmp_path / "l").path == os.fsdecode(name)


def test_mount_table_knows_what_answers_at_once() -> None:
    table = MountTable()
    try:
        assert table.answers_at_once(b"/dev")
        assert table.answers_at_once(b"/")
        assert not table.answers_at_once(b"/no/mount/point")
    finally:
        table.close()
