"""A control group of the program's own.

Joining, killing and removing are tried with a real group of cgroup v2 where root may make one. On some machines the
controllers are bound to cgroup v1, so that no group of v2 has a limit's file: a plain directory with the files of a
group stands for one there.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sandboxes import WAYS, has_ended, make_sandbox, nothing_left, start_shell

from sandboxed.confinement import cgroup
from sandboxed.confinement.cgroup import Cgroup
from sandboxed.confinement.sandbox import LIMITS, Limits, StartError

OWN_GROUP = cgroup._own_group()
NEEDS_GROUPS = pytest.mark.skipif(
    OWN_GROUP is None or not os.access(OWN_GROUP, os.W_OK),
    reason="needs cgroup v2, and leave to make groups there",
)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def path() -> str:
    """Where a test's group may be."""
    return f"{OWN_GROUP}/fdbroker-test-{os.urandom(8).hex()}"


@NEEDS_GROUPS
def test_process_joins_by_the_fd_and_is_killed_with_the_group(path: str) -> None:
    reader, writer = os.pipe()
    with Cgroup(path, Limits()) as group:
        pid = os.fork()
        if pid == 0:
            try:
                os.write(group.procs, b"0")
                os.fork()
                os.write(writer, b"x")
                signal.pause()
            finally:
                os._exit(1)
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        assert str(pid) in Path(path, "cgroup.procs").read_text().split()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert has_ended(reader)
    os.close(reader)
    assert not os.path.exists(path)


@NEEDS_GROUPS
def test_closing_bears_that_the_group_is_gone_already(path: str) -> None:
    with Cgroup(path, Limits()):
        os.rmdir(path)
    assert not os.path.exists(path)


@NEEDS_GROUPS
def test_caller_is_moved_nowhere(path: str) -> None:
    before = Path("/proc/self/cgroup").read_text()
    with Cgroup(path, Limits()):
        assert Path("/proc/self/cgroup").read_text() == before


@NEEDS_GROUPS
@pytest.mark.parametrize("way", WAYS)
def test_program_and_all_that_it_starts_are_in_the_group_until_the_child_is_closed(
    monkeypatch: pytest.MonkeyPatch, path: str, way: str
) -> None:
    monkeypatch.setattr(Cgroup, "make", lambda limits: Cgroup(path, limits))
    reader, writer = os.pipe()
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, way, keep=(writer,))
        stack.callback(os.waitpid, -1, 0)  # the init, which the closed child leaves to be reaped
        script = f"(printf x >&{writer}; exec sleep infinity) & sleep infinity"
        child = stack.enter_context(start_shell(script, sandbox))
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        assert str(child.pid) in Path(path, "cgroup.procs").read_text().split()
        assert (
            len(Path(path, "cgroup.procs").read_text().split()) >= 3
        )  # with what it left behind, and the init
        child.close()
        assert has_ended(reader)
        assert not os.path.exists(path)
        os.close(reader)


@NEEDS_GROUPS
def test_group_goes_when_the_start_fails(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def fail() -> None:
        raise ValueError("the hook")

    monkeypatch.setattr(Cgroup, "make", lambda limits: Cgroup(path, limits))
    with ExitStack() as stack:
        sandbox = make_sandbox(stack)
        with pytest.raises(StartError, match="the hook"):
            start_shell("exit 0", sandbox, in_child=fail)
        assert not os.path.exists(path)
        with pytest.raises(StartError, match="no such file"):
            start_shell("exit 0", sandbox._replace(readonly=("/no/such",)))
        assert not os.path.exists(path)


@pytest.fixture
def directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plain directory that stands for our own group: new ones in it have the files of a group."""
    make_directory, remove_directory = os.mkdir, os.rmdir

    def mkdir(path: str, mode: int) -> None:
        make_directory(path, mode)
        for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs", "cgroup.kill"):
            Path(path, name).touch()

    def rmdir(path: str) -> None:
        for file in Path(path).iterdir():
            file.rename(place / f"was-{file.name}")
        remove_directory(path)

    (place / "cgroup.subtree_control").write_text("memory pids cpu\n")
    monkeypatch.setattr(cgroup, "_own_group", lambda: str(place))
    monkeypatch.setattr(cgroup.os, "mkdir", mkdir)
    monkeypatch.setattr(cgroup.os, "rmdir", rmdir)
    return place


def written(directory: Path) -> dict[str, str]:
    return {file.name.removeprefix("was-"): file.read_text() for file in directory.glob("was-*")}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(memory=4096), {"memory.max": "4096", "memory.swap.max": "0", "pids.max": ""}),
        (Limits(processes=7), {"memory.max": "", "memory.swap.max": "", "pids.max": "7"}),
        (Limits(memory=1, processes=2), {"memory.max": "1", "memory.swap.max": "0", "pids.max": "2"}),
    ],
)
def test_limits_are_written_into_the_group(directory: Path, limits: Limits, expected: dict[str, str]) -> None:
    group = Cgroup.make(limits)
    assert group is not None
    assert [path.name.startswith("fdbroker-") for path in directory.iterdir() if path.is_dir()] == [True]
    group.close()
    assert written(directory) == {**expected, "cgroup.procs": "", "cgroup.kill": "1"}
    assert [path for path in directory.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("limits", [Limits(), Limits(files=10, scratch=10)])
def test_no_group_is_made_when_there_is_nothing_to_limit(directory: Path, limits: Limits) -> None:
    assert Cgroup.make(limits) is None
    assert [path.name for path in directory.iterdir()] == ["cgroup.subtree_control"]


def test_no_group_is_made_where_the_controllers_are_not_to_be_had(directory: Path) -> None:
    # The kernel would have changed what the file says; a file only keeps what was written into it.
    (directory / "cgroup.subtree_control").write_text("cpu io\n")
    (directory / "cgroup.subtree_control").chmod(0o444)
    assert Cgroup.make(Limits(processes=5)) is None
    assert Cgroup.controllers() == set()
    assert [path.name for path in directory.iterdir()] == ["cgroup.subtree_control"]


def test_no_group_is_made_where_there_is_no_cgroup_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_own_group", lambda: None)
    assert Cgroup.make(Limits(memory=1)) is None
    assert Cgroup.controllers() == set()


def test_no_group_is_made_where_the_caller_may_not_write(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(13, "Permission denied", path)

    (place / "cgroup.subtree_control").write_text("memory pids\n")
    monkeypatch.setattr(cgroup, "_own_group", lambda: str(place))
    monkeypatch.setattr(cgroup.os, "mkdir", refuse)
    assert Cgroup.make(Limits(memory=1)) is None


def test_controllers_are_those_that_a_new_group_would_have(directory: Path) -> None:
    assert Cgroup.controllers() == {"memory", "pids"}


def test_start_makes_a_group_only_with_the_layer_of_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Limits] = []
    monkeypatch.setattr(Cgroup, "make", asked.append)
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, limits=Limits(processes=50))
        for one in (sandbox, sandbox.without(LIMITS)):
            with start_shell("exit 0", one) as child:
                assert child.wait() == 0
    assert asked == [sandbox.limits]
