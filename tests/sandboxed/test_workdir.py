"""A program's directory on the disk: fresh, its own, and gone at the end whatever malice filled it."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sandboxes import nothing_left
from support import STRANGER, needs_root

from sandboxed.confinement import workdir
from sandboxed.confinement.workdir import remove_tree, work_directory


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    with nothing_left():
        yield


def test_work_directory_is_private_and_goes_with_all_that_is_in_it() -> None:
    with work_directory(None, None) as path, work_directory(None, None) as other:
        assert path != other
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
        assert os.stat(path).st_uid == os.geteuid()
        assert os.listdir(path) == []
        Path(path, "file").write_text("x")
    assert not os.path.lexists(path)
    assert not os.path.lexists(other)


def test_work_directory_goes_when_its_use_fails() -> None:
    with pytest.raises(KeyboardInterrupt), work_directory(None, None) as path:
        raise KeyboardInterrupt
    assert not os.path.lexists(path)


def test_work_directory_is_nobody_elses_when_its_name_is_taken(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: bytes(count))
    monkeypatch.setenv("TMPDIR", str(place))
    with work_directory(None, None) as path:
        with pytest.raises(FileExistsError), work_directory(None, None):
            pass
        assert os.path.isdir(path)


def test_work_directory_stays_when_a_fork_leaves_it() -> None:
    with ExitStack() as stack:
        path = stack.enter_context(work_directory(None, None))
        pid = os.fork()
        if pid == 0:
            try:
                stack.close()  # as a confined half does, which has its caller's frames
            finally:
                os._exit(0 if os.path.isdir(path) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not os.path.exists(path)


@needs_root
def test_work_directory_of_root_ignores_tmpdir(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(place))
    with work_directory(STRANGER, STRANGER) as path:
        assert os.path.dirname(path) == "/tmp"
        assert os.stat(path).st_uid == os.stat(path).st_gid == STRANGER


@pytest.mark.parametrize(
    ("tmpdir", "parent"), [("{place}", "{place}"), ("relative", "/tmp"), ("", "/tmp"), (None, "/tmp")]
)
def test_work_directory_of_a_user_lies_in_an_absolute_tmpdir(
    monkeypatch: pytest.MonkeyPatch, place: Path, tmpdir: str | None, parent: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if tmpdir is None:
        monkeypatch.delenv("TMPDIR", raising=False)
    else:
        monkeypatch.setenv("TMPDIR", tmpdir.format(place=place))
    with work_directory(None, None) as path:
        assert os.path.dirname(path) == parent.format(place=place)


def fill_with_malice(path: str, target: Path) -> None:
    """Links to `target`, directories without permissions, and more levels than a path or a stack can take."""
    os.symlink(target, os.path.join(path, "link"))
    os.mkfifo(os.path.join(path, "fifo"))
    os.makedirs(os.path.join(path, "closed", "inner"))
    os.symlink(target / "file", os.path.join(path, "closed", "inner", "link"))
    os.chmod(os.path.join(path, "closed", "inner"), 0)
    os.chmod(os.path.join(path, "closed"), 0)
    Path(path, os.fsdecode(b"\xff\n..")).touch()
    here = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(1200):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.symlink(target, "link", dir_fd=here)
    os.close(here)


def test_work_directory_full_of_malice_is_removed_and_no_link_followed(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    monkeypatch.setattr(workdir, "REMOVAL_SECONDS", 600.0)  # a busy disk is no malice
    (place / "file").write_text("content")
    with work_directory(None, None) as path:
        fill_with_malice(path, place)
        os.chmod(path, 0)
    assert not os.path.lexists(path)
    assert (place / "file").read_text() == "content"


def test_removal_follows_no_link_in_the_place_of_the_directory(place: Path) -> None:
    (place / "target").mkdir()
    (place / "target" / "file").touch()
    (place / "link").symlink_to(place / "target")
    with pytest.raises(NotADirectoryError):
        remove_tree(str(place / "link"))
    assert (place / "target" / "file").exists()


def test_removal_gives_up_with_an_error_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    (place / "one" / "two" / "three").mkdir(parents=True)
    monkeypatch.setattr(workdir, "REMOVAL_SECONDS", -1.0)
    with pytest.raises(OSError, match="cannot remove everything"):
        remove_tree(str(place))
    assert place.exists()
