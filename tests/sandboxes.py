"""What the tests of the sandbox share: sandboxes for whoever runs them, and what a run must not leave behind."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import STRANGER, needs_root

from broker.installation import own_trees
from sandboxed import syscalls
from sandboxed.child import Child
from sandboxed.confinement.environment import clean_environment
from sandboxed.confinement.identities import unused_uid
from sandboxed.confinement.launch import start
from sandboxed.confinement.sandbox import NAMESPACES, Sandbox
from sandboxed.confinement.workdir import work_directory

# Both ways to hold a program: in namespaces, and where the machine has none.
WAYS = ("namespaces", "fall-back")

# Who starts a sandbox: whoever runs the tests, and an ordinary user if that was root.
STARTERS = [
    pytest.param(os.geteuid(), id="own-uid"),
    pytest.param(STRANGER, id="ordinary-uid", marks=needs_root),
]


def make_sandbox(stack: ExitStack, way: str = WAYS[0], **fields: Any) -> Sandbox:
    """A sandbox for this process's uid. What the fall-back needs on the disk goes with `stack`."""
    uid = stack.enter_context(unused_uid()).uid if os.geteuid() == 0 else None
    sandbox = Sandbox(uid=uid, gid=uid, **fields)
    if way != WAYS[0]:
        sandbox = sandbox.without(NAMESPACES)
        if sandbox.work is None:
            sandbox = sandbox._replace(work=stack.enter_context(work_directory(uid, uid)))
    return sandbox


def python(script: str, *arguments: str) -> list[str]:
    """The command that runs `script` with the tests' interpreter."""
    return [sys.executable, "-I", "-c", script, *arguments]


def with_python(sandbox: Sandbox) -> Sandbox:
    """The same sandbox, with the tests' interpreter in it."""
    return sandbox._replace(readonly=(*sandbox.readonly, *own_trees()))


def start_shell(script: str, sandbox: Sandbox, **options: Any) -> Child:
    """A shell in `sandbox` that runs `script`; bash, since others take no fd beyond 9."""
    return start(["bash", "-c", script], sandbox, clean_environment(sandbox), **options)


def run(command: list[str], sandbox: Sandbox, extra: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status and output of `command`."""
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as output:
        with open(writer, "wb", buffering=0):
            os.set_inheritable(writer, True)
            to_pipe = ["bash", "-c", f'exec "$@" 1>&{writer} 2>&1 {writer}>&-', "bash", *command]
            environment = clean_environment(sandbox, extra)
            child = start(to_pipe, sandbox._replace(keep=(*sandbox.keep, writer)), environment)
        with child:
            text = output.read()
            return child.wait(), text


def has_ended(fd: int) -> bool:
    """Whether no process holds the other end of the pipe `fd` any more, at this moment."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def traces() -> dict[str, Any]:
    """What a start could leave in the process that makes it."""
    mounts = Path("/proc/self/mountinfo").read_text().split("\n")[:-1]
    task = Path("/proc/self/task")
    return {
        "fds": os.listdir("/proc/self/fd"),
        "children": [(task / one / "children").read_text() for one in os.listdir(task)],
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "subreaper": syscalls.get_child_subreaper(),
        "mounts": [line for line in mounts if line.split()[4] in ("/tmp", "/tmp/scratch", "/proc")],
        "root": os.stat("/").st_ino,
    }


@contextmanager
def nothing_left() -> Iterator[None]:
    """Asserts that this process is as it was before."""
    before = traces()
    yield
    assert traces() == before
