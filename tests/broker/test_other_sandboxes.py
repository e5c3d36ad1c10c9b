"""The broker serves programs that somebody else's sandbox holds, by its one socket; and `run` works inside of one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import STRANGER, TREE, Broker, allow, as_uid, needs_root, policy

SECONDS = 60
FDBROKER = [sys.executable, "-m", "broker.main"]
OPEN = "import sys, sandboxed; print(sandboxed.connect(sys.argv[1]).open(sys.argv[2]).read(), end='')"

pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="needs bubblewrap, which `make test` installs when root runs it"
)


def bwrap(socket: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """`command` below bubblewrap, with the system, this checkout, and one socket of the outside."""
    links = [
        word for name in ("bin", "sbin", "lib", "lib64") for word in ("--symlink", f"usr/{name}", f"/{name}")
    ]
    shown = ["--ro-bind", "/usr", "/usr", *links, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    own = ["--ro-bind", str(TREE), str(TREE), "--bind", socket, "/run/broker.sock"]
    return subprocess.run(
        ["bwrap", "--unshare-all", "--die-with-parent", *shown, *own, "--", *command],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture
def given(place: Path) -> Path:
    """A file that only its owner may open, and that no sandbox shows."""
    path = place / "given"
    path.write_text("from the broker")
    path.chmod(0o600)
    return path


def test_program_in_bubblewrap_gets_a_file_by_the_one_socket_that_it_is_shown(
    start_broker: Callable[[str], Broker], given: Path
) -> None:
    broker = start_broker(policy(allow("given", str(given))))
    ran = bwrap(broker.socket, sys.executable, "-c", OPEN, "/run/broker.sock", str(given))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "from the broker", "")
    assert broker.records(event="open")[0]["peer"]["uid"] == os.geteuid()


def test_shell_in_bubblewrap_gets_a_file_with_fdbroker_open(
    start_broker: Callable[[str], Broker], given: Path
) -> None:
    broker = start_broker(policy(allow("given", str(given))))
    arguments = ["--socket", "/run/broker.sock", "--access", "read", "--", "cat"]
    ran = bwrap(broker.socket, *FDBROKER, "open", str(given), *arguments)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "from the broker", "")


@needs_root
def test_ordinary_user_runs_our_sandbox_inside_of_bubblewrap(
    start_broker: Callable[[str], Broker], given: Path
) -> None:
    broker = start_broker(policy(allow("given", str(given), clients=f"{{uid: {STRANGER}}}")))

    def nested() -> list[object]:
        run = [*FDBROKER, "run", "--socket", "/run/broker.sock", "--", sys.executable, "-c", OPEN]
        ran = bwrap(broker.socket, *run, "/run/broker.sock", str(given))
        return [ran.returncode, ran.stdout, ran.stderr]

    assert as_uid(STRANGER, nested) == [0, "from the broker", ""]


@needs_root
def test_root_of_a_namespace_with_no_other_uids_is_told_so(
    start_broker: Callable[[str], Broker], given: Path
) -> None:
    broker = start_broker(policy(allow("given", str(given))))
    ran = bwrap(broker.socket, *FDBROKER, "run", "--socket", "/run/broker.sock", "--", "true")
    assert ran.returncode == 125
    assert "has no uids from" in ran.stderr
