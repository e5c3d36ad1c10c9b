"""A program that goes on confined in a fork of itself; several runs at once; what the init shows of its caller."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sandboxes import WAYS, make_sandbox, nothing_left, run, start_shell
from support import TREE

from sandboxed import syscalls
from sandboxed.confinement import chain, layers, privileges
from sandboxed.confinement.launch import fork_confined
from sandboxed.confinement.sandbox import NAMESPACES, Sandbox, StartError

_PR_GET_DUMPABLE = 3


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture(params=WAYS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox for whoever runs the tests, both ways."""
    with ExitStack() as stack:
        yield make_sandbox(stack, request.param)


def in_confined_half(
    sandbox: Sandbox, act: Callable[[], None], in_child: Callable[[], None] | None = None
) -> int:
    """The exit status of a confined half of this program that does `act`: 0 unless it raises."""
    other = fork_confined(sandbox, in_child)
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
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEPT", "yes")
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    with open("/etc/passwd", encoding="utf-8") as file:

        def look_around() -> None:
            assert os.environ["KEPT"] == "yes"
            assert file.read(4) == "root"
            assert callable(signal.getsignal(signal.SIGUSR1))
            status = privileges.parse_status(Path("/proc/self/status").read_text())
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == "2"
            assert int(status["CapEff"], 16) == int(status["SigBlk"], 16) == 0
            assert os.geteuid() != 0
            Path(sandbox.home, "file").write_text("x")
            for path in ("/usr/new", f"{os.path.dirname(sandbox.home)}/new"):
                with pytest.raises(OSError, match=r"Permission denied|Read-only"):
                    os.open(path, os.O_RDWR | os.O_CREAT)
            with pytest.raises(PermissionError):
                os.kill(os.getppid(), 0)

        assert in_confined_half(sandbox, look_around) == 0
    signal.signal(signal.SIGUSR1, previous)


def test_forked_half_that_cannot_be_confined_never_returns(sandbox: Sandbox, place: Path) -> None:
    place.chmod(0o777)
    lost = sandbox._replace(writable=(str(place),), readonly=("/no/such/directory",))
    with pytest.raises(StartError):
        in_confined_half(lost, (place / "returned").touch)
    assert list(place.iterdir()) == []


def test_none_of_the_chain_can_be_looked_into_while_it_changes(sandbox: Sandbox) -> None:
    def closed() -> None:
        assert syscalls.prctl(_PR_GET_DUMPABLE) == 0
        # The init's, and where there is one of its own /proc shows it as the first of all.
        with pytest.raises(PermissionError):
            os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)

    assert in_confined_half(sandbox, closed, in_child=closed) == 0
    assert syscalls.prctl(_PR_GET_DUMPABLE) == 0  # nor the caller, whose uid the program may have


@pytest.mark.parametrize("step", ["_enter_sandbox", "_make_terminal", "_program"])
def test_none_of_the_chain_can_be_looked_into_from_its_first_step_on(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    original = getattr(chain.Chain, step)

    def checked(*arguments: object) -> object:
        assert syscalls.prctl(_PR_GET_DUMPABLE) == 0
        return original(*arguments)

    monkeypatch.setattr(chain.Chain, step, checked)
    before = syscalls.prctl(_PR_GET_DUMPABLE)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    try:
        with start_shell("exit 0", sandbox) as child:
            assert child.wait() == 0
    finally:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, before)


def test_parent_that_ended_before_the_confinement_is_noticed() -> None:
    # In a process of its own: what it asks for is its death.
    program = "from sandboxed.confinement import layers; layers.die_with(1 << 30)"
    result = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(TREE)}, stderr=subprocess.PIPE, check=False
    )
    assert b"StartError: the parent ended" in result.stderr


def test_two_runs_at_once_see_nothing_of_each_other() -> None:
    with ExitStack() as stack:
        first, second = (make_sandbox(stack, writable=()) for _ in range(2))
        reader, writer = os.pipe()
        with open(writer, "wb", buffering=0) as word, open(reader, "rb", buffering=0):
            # The first lives until the second has ended, and then is as it was.
            command = (
                f"touch ~/mine /tmp/mine /dev/shm/mine; read -u {reader}; test -e ~/mine -a -e /tmp/mine"
            )
            one = stack.enter_context(start_shell(command, first._replace(keep=(reader,))))
            look = "ls ~ /tmp /dev/shm; kill -0 -1 2>&1; ls -d /proc/[0-9]*"
            status, text = run(["bash", "-c", look], second)
            assert status == 0
            assert "mine" not in text
            assert len([line for line in text.splitlines() if line.startswith("/proc/")]) <= 3
            word.write(b"\n")
            assert one.wait() == 0


# Starts a shell in a sandbox; its own command line and environment hold a secret.
CALLER = """
import os, sys
from contextlib import ExitStack
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from sandboxes import make_sandbox, run
with ExitStack() as stack:
    print(run(["bash", "-c", sys.argv[3]], make_sandbox(stack, sys.argv[2]))[1])
"""

LOOK_AT_INIT = """
init=$(sed -n 's/^PPid:\\t//p' /proc/$$/status)
echo "cmdline: $(tr -d '\\0' < /proc/$init/cmdline)"
for name in environ mem maps fd/0 auxv; do cat /proc/$init/$name > /dev/null 2>&1 && echo "open: $name"; done
ls /proc/$init/fd /proc/$init/cwd/ /proc/$init/root/ 2>/dev/null
echo done
"""


@pytest.mark.parametrize("way", WAYS)
def test_init_shows_nothing_of_its_caller(way: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CALLER, str(TREE), way, LOOK_AT_INIT, "SECRET-ARGUMENT"],
        env={**os.environ, "SECRET": "SECRET-VARIABLE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split("\n") == ["cmdline: ", "done", "", ""]


def test_confinement_asks_for_scopes_where_nothing_else_keeps_signals_inside(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    monkeypatch.setattr(syscalls, "landlock_abi", lambda: 5)
    needs = not sandbox.has(NAMESPACES)
    with pytest.raises(StartError, match="ABI 5") if needs else ExitStack():
        layers.check_layers(sandbox)
    with pytest.raises(StartError, match="ABI 5"):
        layers.check_layers(sandbox._replace(network="host"))
