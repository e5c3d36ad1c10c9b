"""The two steps of the hot path mean the same in C and in Python: each test runs against both."""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from broker import hotpath
from sandboxed.descriptors import receive_with_fds
from sandboxed.syscalls import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS

RESOLVE = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

open_same = pytest.mark.parametrize("open_same", [hotpath._open_same, hotpath.open_same], ids=["python", "c"])
record_and_pass = pytest.mark.parametrize(
    "record_and_pass", [hotpath._record_and_pass, hotpath.record_and_pass], ids=["python", "c"]
)


def test_c_is_what_the_broker_uses_after_make_setup() -> None:
    assert hotpath.COMPILED
    assert hotpath.open_same is not hotpath._open_same


def fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("content")
    return path


@open_same
@pytest.mark.parametrize(
    "flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_NONBLOCK]
)
def test_same_object_is_opened_with_exactly_the_flags(open_same, file: Path, flags: int) -> None:  # type: ignore[no-untyped-def]
    fd = open_same(os.fsencode(file), hotpath.expected(flags, RESOLVE, file.stat()))
    try:
        assert os.path.samestat(os.fstat(fd), file.stat())
        assert os.get_blocking(fd) is not bool(flags & os.O_NONBLOCK)
        assert not os.get_inheritable(fd)
        got = fcntl.fcntl(fd, fcntl.F_GETFL)
        assert got & (os.O_ACCMODE | os.O_APPEND) == flags & (os.O_ACCMODE | os.O_APPEND)
    finally:
        os.close(fd)


@open_same
@pytest.mark.parametrize("field", range(6))
def test_object_that_differs_in_one_fact_is_not_opened(open_same, file: Path, field: int) -> None:  # type: ignore[no-untyped-def]
    facts = list(hotpath.EXPECTED.unpack(hotpath.expected(os.O_RDONLY, RESOLVE, file.stat())))
    facts[3 + field] += 1
    before = fds()
    assert open_same(os.fsencode(file), hotpath.EXPECTED.pack(*facts)) == -1
    assert fds() == before


@open_same
def test_name_that_became_a_link_is_not_opened_although_it_leads_to_the_object(open_same, file: Path) -> None:  # type: ignore[no-untyped-def]
    expected = hotpath.expected(os.O_RDONLY, RESOLVE, file.stat())
    directory = file.parent / "directory"
    directory.symlink_to(file.parent)
    assert open_same(os.fsencode(directory / "file"), expected) == -1


@open_same
def test_fifo_in_the_place_of_the_object_does_not_stall(open_same, file: Path) -> None:  # type: ignore[no-untyped-def]
    expected = hotpath.expected(os.O_RDONLY, RESOLVE, file.stat())
    file.unlink()
    os.mkfifo(file)
    assert stat.S_ISFIFO(file.stat().st_mode)
    before = fds()
    assert open_same(os.fsencode(file), expected) == -1
    assert fds() == before


@open_same
@pytest.mark.parametrize("path", [b"/no/such/file", b"", b"x" * 5000])
def test_name_that_cannot_be_opened_gives_no_fd(open_same, file: Path, path: bytes) -> None:  # type: ignore[no-untyped-def]
    assert open_same(path, hotpath.expected(os.O_RDONLY, RESOLVE, file.stat())) == -1


class Ends:
    """An audit pipe, a connection, and an fd to pass."""

    def __init__(self, file: Path) -> None:
        self.reader, self.audit = os.pipe()
        os.set_blocking(self.audit, False)
        os.set_blocking(self.reader, False)
        self.ours, self.theirs = socket.socketpair()
        self.fd = os.open(file, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.audit)
        self.ours.close()
        self.theirs.close()


@record_and_pass
def test_record_comes_before_the_fd_which_is_closed_here(record_and_pass, file: Path) -> None:  # type: ignore[no-untyped-def]
    ends = Ends(file)
    try:
        assert record_and_pass(ends.audit, b"record\n", ends.ours, b"reply\0", ends.fd) == 6
        assert os.read(ends.reader, 100) == b"record\n"
        data, passed = receive_with_fds(ends.theirs, 100, 1)
        assert data == b"reply\0"
        assert os.read(passed[0], 100) == b"content"
        os.close(passed[0])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(ends.fd)
    finally:
        ends.close()


@record_and_pass
@pytest.mark.parametrize("size", [8, 5000], ids=["full pipe", "more than a pipe takes whole"])
def test_nothing_is_passed_when_the_record_cannot_be_handed_over(
    record_and_pass, file: Path, size: int
) -> None:  # type: ignore[no-untyped-def]
    ends = Ends(file)
    try:
        if size == 8:
            with pytest.raises(BlockingIOError):
                while True:
                    os.write(ends.audit, bytes(4096))
        assert record_and_pass(ends.audit, b"r" * size, ends.ours, b"reply\0", ends.fd) == -1
        os.close(ends.fd)  # still open, and ours
        ends.theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            ends.theirs.recv(100)
    finally:
        ends.close()


@record_and_pass
def test_fd_is_closed_when_the_client_is_gone(record_and_pass, file: Path) -> None:  # type: ignore[no-untyped-def]
    ends = Ends(file)
    try:
        ends.theirs.close()
        with pytest.raises(OSError, match="Broken pipe") as caught:
            record_and_pass(ends.audit, b"record\n", ends.ours, b"reply\0", ends.fd)
        assert caught.value.errno == errno.EPIPE
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(ends.fd)
    finally:
        ends.close()
