"""The end of a run: every process of the sandbox goes with it, whichever of them ends first and however it hides.

A pipe tells: all processes of a run hold its other end from the fork on, so it has ended when none of them is left.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from sandboxes import WAYS, has_ended, make_sandbox, nothing_left, python, start_shell, with_python
from support import readable

from sandboxed.confinement import chain
from sandboxed.confinement.environment import clean_environment
from sandboxed.confinement.launch import start
from sandboxed.confinement.sandbox import Sandbox


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture(params=WAYS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox for whoever runs the tests, both ways."""
    with ExitStack() as stack:
        yield make_sandbox(stack, request.param)


# Each leaves something behind that says "x" when it stands, and ends when {end} says so.
HIDING = {
    "child": "(printf x >&{fd}; exec sleep infinity) & {end}",
    "double fork": "((printf x >&{fd}; exec sleep infinity) &) & {end}",
    "session of its own": "setsid bash -c 'printf x >&{fd}; exec sleep infinity' & {end}",
    "signals ignored": "(trap '' TERM HUP INT QUIT; printf x >&{fd}; while :; do sleep infinity; done) & {end}",
    "stopped": "(printf x >&{fd}; kill -STOP $BASHPID; sleep infinity) & {end}",
    "tree": "for a in 1 2 3; do (for b in 1 2 3; do (sleep infinity) & done; wait) & done; printf x >&{fd}; {end}",
}

# Runs away from whoever looks for it: each process is gone when its child is there.
FORK_LOOP = """
import os
if os.fork() == 0:
    for _ in range(2):
        os.fork()
    os.write({fd}, b"x")
    while True:
        if os.fork():
            os._exit(0)
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, Callable[[], None], int]]:
    """A pipe: the reading end, a function that closes the writing end, and that end."""
    reader, writer = os.pipe()
    ends = {writer}

    def close() -> None:
        os.close(writer)
        ends.clear()

    yield reader, close, writer
    for end in (reader, *ends):
        os.close(end)


Pipe = tuple[int, Callable[[], None], int]


@pytest.mark.parametrize("hiding", HIDING)
def test_descendants_are_gone_when_the_program_ends(sandbox: Sandbox, hiding: str, pipe: Pipe) -> None:
    reader, close, writer = pipe
    # The program goes on once it has read "go": then what it leaves behind stands.
    start_end, go_end = os.pipe()
    script = HIDING[hiding].format(fd=writer, end=f"read -u {start_end} word; exit 3")
    with start_shell(script, sandbox._replace(keep=(writer, start_end))) as child:
        close()
        os.close(start_end)
        assert os.read(reader, 1) == b"x"
        assert not has_ended(reader)
        os.write(go_end, b"go\n")
        os.close(go_end)
        assert child.wait() == 3
        assert has_ended(reader)


@pytest.mark.parametrize("hiding", HIDING)
def test_descendants_are_gone_when_the_child_was_killed(sandbox: Sandbox, hiding: str, pipe: Pipe) -> None:
    reader, close, writer = pipe
    script = HIDING[hiding].format(fd=writer, end="sleep infinity")
    with start_shell(script, sandbox._replace(keep=(writer,))) as child:
        close()
        assert os.read(reader, 1) == b"x"
        child.kill()
        assert child.wait() == 128 + signal.SIGKILL
        assert has_ended(reader)


def test_fork_loop_is_gone_when_the_program_ends(sandbox: Sandbox, pipe: Pipe) -> None:
    reader, close, writer = pipe
    looping = with_python(sandbox._replace(keep=(writer,)))
    for _ in range(5):
        command = python(FORK_LOOP.format(fd=writer))
        with start(command, looping, clean_environment(looping)) as child:
            assert child.wait() == 0
    close()
    assert has_ended(reader)


def test_fork_loop_is_gone_when_the_child_was_killed(sandbox: Sandbox, pipe: Pipe) -> None:
    reader, close, writer = pipe
    looping = with_python(sandbox._replace(keep=(writer,)))
    command = python(FORK_LOOP.format(fd=writer) + "import signal; signal.pause()")
    with start(command, looping, clean_environment(looping)) as child:
        close()
        assert os.read(reader, 1) == b"x"
        child.kill()
        assert child.wait() == 128 + signal.SIGKILL
        assert has_ended(reader)


def in_caller(act: Callable[[], None]) -> int:
    """The pid of a process of its own that does `act`: a caller that may be killed."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(1)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("hiding", HIDING)
def test_run_ends_when_its_caller_was_killed(sandbox: Sandbox, hiding: str, pipe: Pipe) -> None:
    reader, close, writer = pipe
    script = HIDING[hiding].format(fd=writer, end="sleep infinity")

    def call() -> None:
        with start_shell(script, sandbox._replace(keep=(writer,))) as child:
            child.wait()

    caller = in_caller(call)
    close()
    assert os.read(reader, 1) == b"x"
    kill(caller)
    assert readable(reader)
    assert os.read(reader, 1) == b""


# (step of the chain by the name that `chain` calls it by, whether behind it, whether the program was told to go)
STEPS = [
    ("check_layers", False, False),
    ("check_layers", True, False),
    ("start", False, False),
    ("_init", False, False),
    ("give_up_privileges", False, False),
    ("give_up_privileges", True, False),
    ("_program", False, False),
    ("enter_domain", False, False),
    ("enter_domain", True, False),
    ("_program", True, True),
    ("execute", False, True),
]


@pytest.mark.parametrize(("step", "after", "told_to_go"), STEPS)
def test_nothing_is_left_when_the_caller_is_killed_on_a_step_of_the_chain(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, step: str, after: bool, told_to_go: bool
) -> None:
    """The process whose step it is stands still until the caller is dead, and then goes on."""
    owner = chain.Chain if hasattr(chain.Chain, step) else chain
    original = getattr(owner, step)
    outside, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def stand_still() -> None:
        os.write(inside.fileno(), b"s")
        os.read(inside.fileno(), 1)

    def slowly(*arguments: object, **options: object) -> object:
        if not after:
            stand_still()
        result = original(*arguments, **options)
        if after:
            stand_still()
        return result

    def call() -> None:
        outside.close()
        script = f"printf ran >&{inside.fileno()}; sleep infinity"
        start_shell(script, sandbox._replace(keep=(inside.fileno(),))).wait()

    monkeypatch.setattr(owner, step, slowly)
    caller = in_caller(call)
    inside.close()
    with outside:
        assert outside.recv(9) == b"s"
        kill(caller)
        with suppress(BrokenPipeError):  # it was the caller's own step
            outside.send(b"g")
        said = until_the_end(outside)
    assert said == b"" or told_to_go  # then it may become a program, which its init ends


def until_the_end(end: socket.socket) -> bytes:
    said = b""
    with suppress(ConnectionResetError):  # the other end has gone, with something that it did not read
        while data := end.recv(9):
            said += data
    return said


def test_run_ends_when_the_caller_is_killed_in_its_own_part(sandbox: Sandbox, pipe: Pipe) -> None:
    reader, close, writer = pipe

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    caller = in_caller(lambda: start_shell("true", sandbox._replace(keep=(writer,)), meanwhile=die).close())
    close()
    assert os.waitstatus_to_exitcode(os.waitpid(caller, 0)[1]) == -signal.SIGKILL
    assert readable(reader)
    assert os.read(reader, 1) == b""


def test_program_cannot_end_or_stop_its_init(sandbox: Sandbox) -> None:
    with start_shell("{ kill -KILL $PPID; kill -STOP $PPID; } 2>/dev/null; exit 4", sandbox) as child:
        assert child.wait() == 4
