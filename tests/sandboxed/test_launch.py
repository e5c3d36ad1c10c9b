"""Starting a program in a sandbox: what reaches the program, and what does not."""

import os
import select
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sandboxes import WAYS, make_sandbox, nothing_left, python, run, start_shell, with_python
from support import needs_root, wait_until

from sandboxed.child import CommandNotExecutable, CommandNotFound
from sandboxed.confinement import privileges
from sandboxed.confinement.environment import clean_environment
from sandboxed.confinement.launch import start
from sandboxed.confinement.sandbox import Sandbox, StartError
from sandboxed.signals import Signals


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture(params=WAYS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox for whoever runs the tests, both ways."""
    with ExitStack() as stack:
        yield make_sandbox(stack, request.param)


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exit 255", 255)],
)
def test_child_ends_with_the_status_of_its_program(sandbox: Sandbox, script: str, status: int) -> None:
    with start_shell(script, sandbox) as child:
        assert child.wait() == status
        assert child.wait() == status
        child.signal(signal.SIGTERM)  # to nobody
        child.kill()


def test_start_tells_not_found_when_the_command_is_nowhere(sandbox: Sandbox) -> None:
    for command in ("no-such-command", "/no/such/command", ""):
        with pytest.raises(CommandNotFound, match="command not found") as caught:
            start([command], sandbox, clean_environment(sandbox))
        assert caught.value.exit_status == 127


def test_start_tells_not_found_when_a_directory_of_the_path_is_closed(sandbox: Sandbox, place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0)
    shown = sandbox._replace(readonly=(str(place),))
    try:
        with pytest.raises(CommandNotFound):
            start(["no-such"], shown, clean_environment(shown, {"PATH": f"{closed}:/usr/bin"}))
    finally:
        closed.chmod(0o700)  # or its owner could not look whether it is empty


@pytest.mark.parametrize("content", ["no program", "#!/no/such/interpreter\n"])
@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_start_tells_not_executable_when_the_file_is_no_program(
    sandbox: Sandbox, place: Path, content: str, mode: int
) -> None:
    file = place / "file"
    file.write_text(content)
    file.chmod(mode)
    shown = sandbox._replace(readonly=(str(place),))
    for command in (str(file), "file"):
        with pytest.raises(CommandNotExecutable, match=f"{file}: cannot be run") as caught:
            start([command], shown, clean_environment(shown, {"PATH": str(place)}))
        assert caught.value.exit_status == 126


def test_start_looks_for_the_command_in_the_path_of_the_environment(sandbox: Sandbox, place: Path) -> None:
    program = place / "program"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    shown = sandbox._replace(readonly=(str(place),))
    with start(["program"], shown, clean_environment(shown, {"PATH": f"/no/such:{place}"})) as child:
        assert child.wait() == 9


def test_start_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="no command"):
        start([], Sandbox(), {})
    with pytest.raises(ValueError, match="directory on the disk"):
        start(["true"], Sandbox().without("namespaces"), {})


@needs_root
def test_root_does_not_start_a_program_as_root(sandbox: Sandbox) -> None:
    with pytest.raises(StartError, match="uid 0"):
        start_shell("exit 0", sandbox._replace(uid=None, gid=None))


def test_hook_connects_as_the_new_uid_and_its_socket_reaches_the_program(
    sandbox: Sandbox, place: Path
) -> None:
    path = str(place / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as connection:
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen()
        number = connection.fileno()
        keeping = sandbox._replace(keep=(number,), socket=path)
        command = ["bash", "-c", f"echo hello >&{number}"]
        with start(command, keeping, clean_environment(sandbox), lambda: connection.connect(path)) as child:
            accepted, _ = listener.accept()
            with accepted:
                peer = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                assert accepted.recv(100) == b"hello\n"
            assert child.wait() == 0
            uid = os.geteuid() if sandbox.uid is None else sandbox.uid
            assert struct.unpack("3i", peer)[:2] == (child.pid, uid)


def in_child_process(act: object) -> int:
    """The exit status of a process of its own that does `act`."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = act()  # type: ignore[operator]
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_standard_fds_that_are_missing_become_dev_null(sandbox: Sandbox) -> None:
    script = 'for n in 0 1 2; do test "$(readlink /proc/$$/fd/$n)" = /dev/null || exit 8; done'

    def without_standard_fds() -> int:
        os.closerange(0, 3)
        hidden = os.open("/etc/passwd", os.O_RDONLY)  # 0, close-on-exec: no standard input
        assert hidden == 0
        with start_shell(script, sandbox) as child:
            return child.wait()

    assert in_child_process(without_standard_fds) == 0


@pytest.mark.parametrize(("fd", "name"), [(0, "input"), (1, "output"), (2, "error")])
def test_start_refuses_a_directory_as_a_standard_file(sandbox: Sandbox, fd: int, name: str) -> None:
    def with_directory() -> int:
        os.dup2(os.open("/", os.O_RDONLY | os.O_DIRECTORY), fd)
        try:
            start_shell("exit 0", sandbox)
        except StartError as error:
            return 0 if f"standard {name} is a directory" in str(error) else 1
        return 2

    assert in_child_process(with_directory) == 0


def test_program_has_no_fds_but_the_standard_ones_and_those_that_were_kept(sandbox: Sandbox) -> None:
    with ExitStack() as stack:
        leak = stack.enter_context(open("/etc/passwd", encoding="utf-8"))
        os.set_inheritable(leak.fileno(), True)
        kept = stack.enter_context(open("/etc/group", encoding="utf-8")).fileno()
        keeping = with_python(sandbox._replace(keep=(kept,)))
        look = f"import os; print(sorted(os.listdir('/proc/self/fd')), len(os.read({kept}, 4)))"
        status, text = run(python(look), keeping)
        # One more is the list's own, which takes the lowest free number.
        assert status == 0
        listed = [int(word) for word in text.partition("]")[0].strip("[").replace("'", "").split(",")]
        assert len(listed) == 5
        assert {0, 1, 2, kept} < set(listed)
        assert text.split()[-1] == "4"


def test_program_gets_default_dispositions_and_the_mask_that_it_was_given(
    sandbox: Sandbox, place: Path
) -> None:
    place.chmod(0o777)
    shown = sandbox._replace(writable=(str(place),))
    copy = ["cp", "/proc/self/status", f"{place}/status"]  # no shell: some reset the mask
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handled = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with Signals() as signals:
            mask = {*signals.original_mask, signal.SIGUSR2}
            with start(copy, shown, clean_environment(shown), mask=mask) as child:
                assert child.wait() == 0
    finally:
        signal.signal(signal.SIGHUP, previous)
        signal.signal(signal.SIGUSR1, handled)
    status = privileges.parse_status((place / "status").read_text())
    assert int(status["SigBlk"], 16) == 1 << (signal.SIGUSR2 - 1)
    assert int(status["SigCgt"], 16) == 0
    # GNU make starts its children with 32 and 33, the C library's own signals, ignored.
    ignored = int(status["SigIgn"], 16) & ~(1 << 31 | 1 << 32)
    assert ignored == 1 << (signal.SIGHUP - 1)  # nohup's wish, not Python's SIGPIPE


def test_signal_before_the_program_runs_ends_it_and_calls_no_handler(sandbox: Sandbox) -> None:
    handled: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    try:
        with pytest.raises(StartError, match="ended before"):
            start(["true"], sandbox, clean_environment(sandbox), lambda: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert handled == []


def test_exit_status_is_known_when_the_caller_ignores_its_children(sandbox: Sandbox) -> None:
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with start_shell("exit 5", sandbox) as child:
            assert child.wait() == 5
    finally:
        signal.signal(signal.SIGCHLD, previous)


def test_program_begins_only_when_the_caller_has_done_its_part(sandbox: Sandbox) -> None:
    reader, writer = os.pipe()
    with open(reader, encoding="ascii") as said:
        with open(writer, "wb", buffering=0):
            keeping = sandbox._replace(keep=(writer,))

            def meanwhile() -> None:
                # The hook has run, and the program's process sleeps: there is nothing left for it but the word to go.
                assert os.read(reader, 1) == b"h"
                wait_until(lambda: set(states_of_grandchildren()) == {"S"}, "the program's process to wait")
                assert not has_data(reader)

            def hook() -> None:
                os.write(writer, b"h")

            command = ["bash", "-c", f"echo began >&{writer}"]
            child = start(command, keeping, clean_environment(sandbox), hook, meanwhile=meanwhile)
        with child:
            assert said.read() == "began\n"
            assert child.wait() == 0


def has_data(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def states_of_grandchildren() -> list[str]:
    found = []
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for grandchild in Path(f"/proc/{child}/task/{child}/children").read_text().split():
            found.append(Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[0])
    return found
