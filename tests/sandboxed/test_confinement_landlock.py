"""The Landlock domain, with every ABI that the running kernel can play."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxed import syscalls
from sandboxed.confinement import landlock
from sandboxed.confinement.landlock import Access, Domain, Scope

ABI = syscalls.landlock_abi()
SUCCEEDED = 0


def outcome_in_child(act: Callable[[], object]) -> int:
    """The errno with which `act` fails in a process of its own, or 0."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            act()
            status = SUCCEEDED
        except OSError as error:
            status = error.errno or 254
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def restricted(domain: Domain, act: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        syscalls.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
        domain.restrict()
        return act()

    return run


def test_rights_grow_with_the_abi() -> None:
    counts = {abi: landlock.handled_access(abi).bit_count() for abi in range(8)}
    assert counts == {0: 0, 1: 13, 2: 14, 3: 15, 4: 15, 5: 16, 6: 16, 7: 16}
    assert landlock.handled_scopes(5) == Scope(0)
    assert landlock.handled_scopes(6) == Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET


def test_domain_is_refused_without_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "landlock_abi", lambda: 0)
    with pytest.raises(landlock.Unavailable, match=r"Linux 5\.13"):
        Domain()


@pytest.mark.parametrize("abi", range(1, ABI + 1))
def test_domain_of_each_abi_refuses_what_no_rule_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abi: int
) -> None:
    monkeypatch.setattr(syscalls, "landlock_abi", lambda: abi)
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for directory in (inside, outside):
        directory.mkdir()
        (directory / "file").write_text("content")
    with Domain() as domain:
        domain.allow(str(inside), landlock.WRITE_TREE)

        def outcome(act: Callable[[], object]) -> int:
            return outcome_in_child(restricted(domain, act))

        assert outcome(lambda: (inside / "new").write_text("x")) == SUCCEEDED
        assert outcome(lambda: (inside / "file").read_text()) == SUCCEEDED
        assert outcome(lambda: (outside / "new").write_text("x")) == errno.EACCES
        assert outcome(lambda: (outside / "file").read_text()) == errno.EACCES
        assert outcome(lambda: os.listdir(outside)) == errno.EACCES
        assert outcome(lambda: (outside / "file").unlink()) == errno.EACCES
        truncated = outcome(lambda: os.truncate(outside / "file", 0))
        assert truncated == (errno.EACCES if abi >= 3 else SUCCEEDED)
        signaled = outcome(lambda: os.kill(os.getppid(), 0))
        assert signaled == (errno.EPERM if abi >= 6 else SUCCEEDED)


def test_rule_names_the_path_that_it_failed_for(tmp_path: Path) -> None:
    with Domain() as domain:
        with pytest.raises(FileNotFoundError, match="absent"):
            domain.allow(str(tmp_path / "absent"), Access.READ_FILE)
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(OSError, match=r"Invalid argument, for '.*file'") as caught:
            domain.allow(str(file), Access.READ_DIR)
        assert caught.value.errno == errno.EINVAL


def test_rule_does_not_follow_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    with Domain() as domain, pytest.raises(OSError, match="Invalid argument"):
        domain.allow(str(tmp_path / "link"), landlock.READ_TREE)


def test_domain_leaves_no_fd_behind(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with Domain() as domain:
        domain.allow(str(tmp_path), landlock.READ_TREE)
        domain.close()
    assert os.listdir("/proc/self/fd") == before
