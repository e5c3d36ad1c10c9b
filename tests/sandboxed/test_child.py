"""Starting, signaling and waiting for a confined child; and a program that forks into two."""

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sandboxed import child, identities, privileges, syscalls
from sandboxed.child import (
    Child,
    CommandNotExecutable,
    CommandNotFound,
    SignalForwarder,
    StartError,
    fork_confined,
    start,
    wait_with_signals,
)
from sandboxed.confinement import Confinement, clean_environment, work_directory

ROOT = Path(__file__).parents[2]
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start as another uid")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    fds, mask = os.listdir("/proc/self/fd"), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert os.listdir("/proc/self/fd") == fds
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def confined() -> Iterator[Confinement]:
    """A confinement for whoever runs the tests."""
    with ExitStack() as stack:
        uid = stack.enter_context(identities.unused_uid()).uid if os.geteuid() == 0 else None
        work = stack.enter_context(work_directory(uid, uid))
        yield Confinement(uid, uid, work)


def start_shell(script: str, confined: Confinement) -> Child:
    return start(["sh", "-c", script], confined, clean_environment(confined.work))


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exit 255", 255)],
)
def test_child_ends_with_the_status_of_its_program(confined: Confinement, script: str, status: int) -> None:
    with start_shell(script, confined) as started:
        assert started.wait() == status
        assert started.wait() == status
        started.signal(signal.SIGTERM)  # to nobody


def test_start_tells_that_the_command_is_not_there(confined: Confinement) -> None:
    for command in ("no-such-command", "/no/such/command", ""):
        with pytest.raises(CommandNotFound, match="command not found") as caught:
            start([command], confined, clean_environment(confined.work))
        assert caught.value.exit_status == 127


def test_start_tells_not_found_when_a_directory_of_the_path_is_closed(confined: Confinement) -> None:
    closed = Path(confined.work, "closed")
    closed.mkdir(mode=0)
    environment = clean_environment(confined.work, {"PATH": f"{closed}:/usr/bin"})
    with pytest.raises(CommandNotFound):
        start(["no-such-command"], confined, environment)


@pytest.mark.parametrize("content", ["no program", "#!/no/such/interpreter\n"])
@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_start_tells_that_the_command_is_not_executable(
    confined: Confinement, content: str, mode: int
) -> None:
    file = Path(confined.work, "file")
    file.write_text(content)
    file.chmod(mode)
    for command in (str(file), "file"):
        environment = clean_environment(confined.work, {"PATH": confined.work})
        with pytest.raises(CommandNotExecutable, match=f"{file}: cannot be run") as caught:
            start([command], confined, environment)
        assert caught.value.exit_status == 126


def test_start_looks_for_the_command_in_the_path_of_the_environment(confined: Confinement) -> None:
    program = Path(confined.work, "program")
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    environment = clean_environment(confined.work, {"PATH": f"/no/such:{confined.work}"})
    with start(["program"], confined, environment) as started:
        assert started.wait() == 9


def test_start_raises_what_failed_before_the_program_ran(confined: Confinement) -> None:
    mark = Path(confined.work, "ran")
    with pytest.raises(StartError, match="No such file") as caught:
        start(["touch", str(mark)], Confinement(confined.uid, confined.gid, "/no/such/directory"), {})
    assert caught.value.exit_status == 125

    def fail() -> None:
        raise ValueError("the hook says " + "é" * 10_000)

    with pytest.raises(StartError, match="ValueError: the hook says é"):
        start(["touch", str(mark)], confined, {}, fail)
    assert not mark.exists()


def test_nothing_runs_without_landlock(confined: Confinement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "landlock_abi", lambda: 0)
    with pytest.raises(StartError, match="does not offer Landlock"):
        start_shell("exit 0", confined)
    with pytest.raises(StartError, match="does not offer Landlock"):
        fork_confined(confined)


def test_broker_of_the_same_uid_is_refused_where_signals_reach_it(
    confined: Confinement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "landlock_abi", lambda: 5)
    same_uid = Confinement(None, None, confined.work, broker_is_parent=True)
    with pytest.raises(StartError, match=r"Linux 6\.12"):
        start_shell("exit 0", same_uid)


@NEEDS_ROOT
def test_root_does_not_start_a_program_as_root(confined: Confinement) -> None:
    with pytest.raises(StartError, match="uid 0"):
        start_shell("exit 0", Confinement(None, None, confined.work))


def test_start_refuses_an_empty_command(confined: Confinement) -> None:
    with pytest.raises(ValueError, match="no command"):
        start([], confined, {})


def test_hook_connects_as_the_new_uid_and_its_socket_reaches_the_program(confined: Confinement) -> None:
    environment = clean_environment(confined.work)
    path = f"/tmp/fdbroker-test-{os.urandom(8).hex()}"

    def connect() -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        os.set_inheritable(connection.fileno(), True)
        environment["FDBROKER_FD"] = str(connection.detach())

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        try:
            os.chmod(path, 0o666)
            listener.listen()
            command = ["sh", "-c", 'eval "echo hello >&$FDBROKER_FD"']
            with start(command, confined, environment, connect) as started:
                connection, _ = listener.accept()
                with connection:
                    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                    assert connection.recv(100) == b"hello\n"
                assert started.wait() == 0
                uid = os.geteuid() if confined.uid is None else confined.uid
                assert struct.unpack("3i", peer)[:2] == (started.pid, uid)
        finally:
            os.unlink(path)


def test_standard_fds_that_are_missing_become_dev_null(confined: Confinement) -> None:
    """In a process of its own, since it closes its standard fds."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.closerange(0, 3)
            hidden = os.open("/etc/passwd", os.O_RDONLY)  # 0, close-on-exec: no standard input
            assert hidden == 0
            script = "for n in 0 1 2; do test $(readlink /proc/self/fd/$n) = /dev/null || exit 8; done"
            # readlink's own fd 1 is the pipe of $( ), so ask for the shell's.
            script = script.replace("/proc/self", "/proc/$$")
            with start_shell(script, confined) as started:
                status = started.wait()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_program_gets_default_dispositions_and_the_original_mask(confined: Confinement) -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handled = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        copy = ["cp", "/proc/self/status", f"{confined.work}/s"]  # no shell: some reset the mask
        environment = clean_environment(confined.work)
        with (
            SignalForwarder() as forwarder,
            start(copy, confined, environment, mask=forwarder.original_mask) as started,
        ):
            assert started.wait() == 0
    finally:
        signal.signal(signal.SIGHUP, previous)
        signal.signal(signal.SIGUSR1, handled)
    status = privileges.parse_status(Path(confined.work, "s").read_text())
    assert int(status["SigBlk"], 16) == int(status["SigCgt"], 16) == 0
    # GNU make starts its children with 32 and 33, the C library's own signals, ignored.
    ignored = int(status["SigIgn"], 16) & ~(1 << 31 | 1 << 32)
    assert ignored == 1 << (signal.SIGHUP - 1)  # nohup's wish, not Python's SIGPIPE


def test_signal_before_the_program_runs_ends_the_child_and_calls_no_handler(confined: Confinement) -> None:
    handled: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    try:
        environment = clean_environment(confined.work)
        with start(["true"], confined, environment, lambda: signal.raise_signal(signal.SIGUSR1)) as started:
            assert started.wait() == 128 + signal.SIGUSR1
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert handled == []


# Writes the name of each signal that it gets, after saying that it is ready for them.
ECHO_SIGNALS = """
import os, signal
names = "SIGTERM SIGHUP SIGINT SIGQUIT SIGUSR1 SIGUSR2 SIGWINCH".split()
numbers = [getattr(signal, name) for name in names]
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
output = int(os.environ["FD"])
os.write(output, b"ready\\n")
while True:
    os.write(output, signal.Signals(signal.sigwait(numbers)).name.encode() + b"\\n")
"""


class Echo:
    """A confined program that says which signals it gets."""

    def __init__(self, confined: Confinement, stack: ExitStack, mask: frozenset[int]) -> None:
        reader, said = os.pipe()
        self._lines = stack.enter_context(os.fdopen(reader, encoding="ascii"))
        environment = clean_environment(confined.work, {"FD": str(said)})
        keeping = Confinement(confined.uid, confined.gid, confined.work, (said,))
        command = [sys.executable, "-I", "-c", ECHO_SIGNALS]
        self.child = stack.enter_context(start(command, keeping, environment, mask=mask))
        stack.callback(self.child.wait)
        stack.callback(self.child.signal, signal.SIGKILL)
        os.close(said)
        assert self.line() == "ready"

    def line(self) -> str:
        return self._lines.readline().strip()


def test_forwarder_passes_every_signal_on(confined: Confinement) -> None:
    with ExitStack() as stack:
        forwarder = stack.enter_context(SignalForwarder())
        echo = Echo(confined, stack, forwarder.original_mask)
        for number in child.FORWARDED_SIGNALS:
            os.kill(os.getpid(), number)
            forwarder.forward(echo.child)
            assert echo.line() == number.name


@pytest.mark.parametrize(
    ("number", "code", "passed"),
    [
        (signal.SIGINT, 0x80, False),
        (signal.SIGQUIT, 0x80, False),
        (signal.SIGWINCH, 0x80, False),
        (signal.SIGHUP, 0x80, True),
        (signal.SIGINT, 0, True),
        (signal.SIGTERM, 0, True),
    ],
)
def test_forwarder_does_not_double_what_the_terminal_sent(
    monkeypatch: pytest.MonkeyPatch, number: int, code: int, passed: bool
) -> None:
    sent: list[int] = []
    recorder = type("Recorder", (), {"signal": lambda self, value: sent.append(value)})()
    with SignalForwarder() as forwarder:
        monkeypatch.setattr(forwarder, "_read", lambda: iter([(number, code)]))
        forwarder.forward(recorder)
    assert sent == ([number] if passed else [])


def test_signal_typed_at_a_terminal_reaches_the_program_once(confined: Confinement) -> None:
    """A real terminal: the kernel sends SIGINT to both, and the parent must keep its own to itself."""
    pid, terminal = os.forkpty()
    if pid == 0:
        status = 1
        try:
            with ExitStack() as stack:
                forwarder = stack.enter_context(SignalForwarder())
                echo = Echo(confined, stack, forwarder.original_mask)
                os.write(1, b"ready")
                assert echo.line() == "SIGINT"
                forwarder.forward(echo.child)
                echo.child.signal(signal.SIGUSR1)
                assert echo.line() == "SIGUSR1"
                status = 0
        finally:
            os._exit(status)
    try:
        read_until(terminal, b"ready")
        os.write(terminal, b"\x03")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)


def read_until(fd: int, wanted: bytes) -> None:
    seen = b""
    while wanted not in seen:
        seen += os.read(fd, 4096)  # EIO when the other side has ended


def test_waiting_passes_signals_until_the_program_ends(confined: Confinement) -> None:
    with ExitStack() as stack:
        forwarder = stack.enter_context(SignalForwarder())
        echo = Echo(confined, stack, forwarder.original_mask)
        os.kill(os.getpid(), signal.SIGTERM)
        witness = os.fork()
        if witness == 0:
            # Sees from outside what this process passes on, then ends the program.
            answer = echo.line()
            echo.child.signal(signal.SIGKILL)
            os._exit(0 if answer == "SIGTERM" else 1)
        assert wait_with_signals(echo.child, forwarder) == 128 + signal.SIGKILL
        assert os.waitstatus_to_exitcode(os.waitpid(witness, 0)[1]) == 0


def test_waiting_without_a_forwarder_gives_the_status(confined: Confinement) -> None:
    with start_shell("exit 3", confined) as started:
        assert wait_with_signals(started) == 3


def test_program_dies_with_its_parent(confined: Confinement) -> None:
    reader, writer = os.pipe()
    keeping = Confinement(confined.uid, confined.gid, confined.work, (writer,))
    pid = os.fork()
    if pid == 0:
        try:
            start(["sleep", "infinity"], keeping, clean_environment(confined.work))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with open(reader, "rb") as file:
        assert file.read() == b""  # the end of the pipe: its last holder, the program, is gone


def in_confined_half(confined: Confinement, act: Callable[[], None]) -> int:
    """The exit status of a confined half of this program that does `act`: 0 unless it raises."""
    other = fork_confined(confined)
    if other is None:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    with other:
        return other.wait()


def test_forked_half_goes_on_confined_with_its_fds_and_environment(
    confined: Confinement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPT", "yes")
    with open("/etc/passwd", encoding="utf-8") as file:

        def look_around() -> None:
            assert os.environ["KEPT"] == "yes"
            assert file.read(4) == "root"
            status = privileges.parse_status(Path("/proc/self/status").read_text())
            assert status["NoNewPrivs"] == "1"
            assert int(status["CapEff"], 16) == int(status["SigBlk"], 16) == 0
            assert os.geteuid() != 0
            Path(confined.work, "file").write_text("x")
            for path in ("/dev/ptmx", "/dev/tty", "/tmp/fdbroker-new-file"):
                with pytest.raises(PermissionError):
                    os.open(path, os.O_RDWR | os.O_CREAT)
            with pytest.raises(PermissionError):
                os.kill(os.getppid(), 0)

        assert in_confined_half(confined, look_around) == 0
    assert Path(confined.work, "file").read_text() == "x"


def test_forked_half_that_cannot_be_confined_never_returns(confined: Confinement) -> None:
    returned = Path(confined.work, "returned")
    lost = Confinement(confined.uid, confined.gid, "/no/such/directory")
    with pytest.raises(StartError):
        in_confined_half(lost, returned.touch)
    assert not returned.exists()


def test_parent_that_ended_before_the_confinement_is_noticed() -> None:
    # In a process of its own: what it asks for is its death.
    program = "from sandboxed import confinement; confinement.die_with(1 << 30)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, check=False)
    assert b"ConfinementError: the parent ended" in result.stderr
