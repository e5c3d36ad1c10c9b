"""The attackers are not blind: what nothing stops succeeds, what needs a privilege fails, the witness sees it.

A sandbox passes the attackers' suite by refusing everything, and so would attackers that never succeed at
anything. Here they run as an ordinary uid without a sandbox, with root's capabilities, and in somebody else's
sandbox, which is known to keep some of them away and not others. The tables are in expectations.py.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from attacks.expectations import (
    ATTACKER,
    MACHINE_DECIDES,
    NEEDS_OF_THE_WITNESS,
    ONE_PROCESSOR,
    ONLY_IN_C,
    ONLY_IN_PYTHON,
    PRIVILEGED,
    PROVEN_ELSEWHERE,
    SEEN,
    SUCCEEDS,
    SUCCEEDS_IF,
    as_the_attacker,
    status_of,
)
from attacks.launch import (
    SOURCE,
    Result,
    c_attackers,
    compiled,
    compiler,
    interpreter,
    launch,
    python_attackers,
)
from attacks.witness import Witness
from support import needs_root


class Run(NamedTuple):
    """All that came of one run of the whole suite."""

    results: dict[str, Result]
    saw: list[str]
    description: dict[str, str | int]
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def arena() -> Iterator[Path]:
    """A directory that every uid can reach, with both programs below `programs`."""
    path = Path(tempfile.mkdtemp(prefix="fdbroker-attacks-", dir="/tmp"))
    try:
        path.chmod(0o755)
        programs = path / "programs"
        programs.mkdir()
        programs.chmod(0o755)
        (programs / "attack.py").write_text(SOURCE.read_text())
        (programs / "attack.py").chmod(0o644)
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(scope="module")
def source(arena: Path) -> Path:
    """attack.py, where every uid and every sandbox can read it."""
    return arena / "programs" / "attack.py"


@pytest.fixture(scope="module")
def program(arena: Path) -> Path:
    """attack.c, compiled without a warning."""
    assert compiler(), "the tests need a C compiler"
    return compiled(arena / "programs")


@pytest.fixture
def witness(arena: Path) -> Iterator[Witness]:
    """A witness of this test's own."""
    with Witness(arena, ATTACKER) as made:
        yield made


@pytest.fixture(scope="module", params=["python", "c"])
def unconfined(request: pytest.FixtureRequest, arena: Path, source: Path) -> Run:
    """Every attack of one program, as an ordinary uid that nothing confines."""
    with Witness(arena, ATTACKER) as made:
        description = made.description()
        if request.param == "python":
            command = python_attackers(description, source=source)
        else:
            command = c_attackers(request.getfixturevalue("program"), description)
        return Run(launch(command, made), made.saw(), description, made.secrets)


def must_succeed(name: str, description: dict[str, str | int]) -> bool:
    """Whether this machine is one where the attack has to succeed."""
    needed = NEEDS_OF_THE_WITNESS.get(name)
    if needed is not None and needed not in description:
        return False
    return SUCCEEDS_IF.get(name, lambda: True)()


@pytest.fixture
def unfiltered() -> None:
    """A machine that confines nobody: a container's own filter would stop attackers without our doing."""
    if status_of("Seccomp"):
        pytest.skip("the tests themselves run below a seccomp filter")


@pytest.mark.usefixtures("unfiltered")
@pytest.mark.parametrize("name", sorted(SUCCEEDS))
def test_attack_succeeds_when_nothing_stops_it(unconfined: Run, name: str) -> None:
    if not must_succeed(name, unconfined.description):
        pytest.skip("this machine has not what the attack is about, or lets nobody do it")
    assert unconfined.results[name].succeeded, unconfined.results[name].detail


@pytest.mark.parametrize("name", sorted(PRIVILEGED))
def test_attack_fails_when_it_lacks_the_privilege(unconfined: Run, name: str) -> None:
    assert not unconfined.results[name].succeeded, unconfined.results[name].detail


@pytest.mark.usefixtures("unfiltered")
def test_witness_sees_every_attack_that_leaves_a_mark(unconfined: Run) -> None:
    done = {name for name in SEEN if unconfined.results[name].succeeded} | {
        "left-over",
        "fd-owner-signal-victim",
    }
    if ONE_PROCESSOR:
        done.discard("affinity-victim")
    assert {SEEN[name] for name in done} - set(unconfined.saw) == set()


def test_attackers_tell_no_secret_but_the_witness_s(unconfined: Run) -> None:
    prefix = str(unconfined.description["secret_prefix"])
    told = [result.detail for result in unconfined.results.values() if prefix in result.detail]
    assert told
    assert set(told) <= set(unconfined.secrets.values())


def test_every_attack_stands_in_one_table(unconfined: Run) -> None:
    tables = [SUCCEEDS, set(PRIVILEGED), MACHINE_DECIDES, PROVEN_ELSEWHERE]
    assert sum(map(len, tables)) == len(set().union(*tables)), "an attack stands in two tables"
    elsewhere = ONLY_IN_PYTHON if unconfined.results.keys() >= ONLY_IN_C else ONLY_IN_C
    assert set(unconfined.results) == set().union(*tables) - elsewhere


def listed(*command: str) -> set[str]:
    """The names that a program of attackers prints."""
    return set(
        subprocess.run([*command, "--list"], capture_output=True, text=True, check=True).stdout.split()
    )


def test_both_programs_have_the_same_attacks(source: Path, program: Path) -> None:
    in_python, in_c = listed(interpreter(), "-I", str(source)), listed(str(program))
    assert (in_c - in_python, in_python - in_c) == (ONLY_IN_C, ONLY_IN_PYTHON)


def test_c_attackers_can_be_linked_statically(arena: Path, program: Path) -> None:
    found = subprocess.run([str(compiler()), "-print-file-name=libc.a"], capture_output=True, text=True)
    if "/" not in found.stdout:
        pytest.skip("this machine has no static C library")
    static = arena / "static"
    static.mkdir()
    assert listed(str(compiled(static, static=True))) == listed(str(program))


@pytest.mark.usefixtures("unfiltered")
@pytest.mark.parametrize("name", sorted(SEEN))
def test_witness_sees_the_attack_alone(witness: Witness, source: Path, name: str) -> None:
    result = launch(python_attackers(witness.description(), name, source=source), witness)[name]
    if not result.succeeded and name not in PROVEN_ELSEWHERE:
        assert name in MACHINE_DECIDES or not must_succeed(name, witness.description()), result.detail
        pytest.skip(result.detail)
    if name == "affinity-victim" and ONE_PROCESSOR:
        pytest.skip("with one processor there is nothing to change")
    assert SEEN[name] in witness.saw()


def test_witness_sees_nothing_when_nobody_attacks(witness: Witness) -> None:
    launch(["true"], witness)
    assert witness.saw() == []
    assert witness.saw() == []


def test_witness_sees_a_victim_that_was_stopped_or_ended(witness: Witness) -> None:
    os.kill(witness.victim.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, witness.victim.pid, os.WSTOPPED | os.WNOWAIT)
    assert witness.saw() == ["the victim was stopped"]
    witness.victim.kill()
    os.waitid(os.P_PID, witness.victim.pid, os.WEXITED | os.WNOWAIT)
    assert witness.saw() == ["the victim was stopped", "the victim died"]


def test_description_holds_no_secret(witness: Witness) -> None:
    text = json.dumps(witness.description())
    assert [where for where, secret in witness.secrets.items() if secret in text] == []
    assert len(set(witness.secrets.values())) == len(witness.secrets)


def belongings(arena: Path) -> dict[str, object]:
    """What the tests' process has, some of it only while a witness lives."""
    return {
        "files": sorted(path.name for path in arena.iterdir() if path.name not in ("programs", "static")),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(),
        "fds": sorted(os.listdir("/proc/self/fd")),
        "mounts": [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(arena) in line
        ],
        "hostname": socket.gethostname(),
    }


def left_by(witness: Witness) -> list[str]:
    """What a witness has under names of the machine's, and is still there."""
    made, found = witness.description(), []
    for kind, key in (("shm", "segment"), ("msg", "message_queue"), ("sem", "semaphore")):
        lines = Path("/proc/sysvipc", kind).read_text().splitlines()[1:] if key in made else []
        found += [line for line in lines if int(line.split()[1]) == made[key]]
    # A key that ends (marked i) stays listed for a while.
    keys = Path("/proc/keys").read_text().splitlines() if "key" in made else []
    found += [line for line in keys if f"witness-{witness.name}" in line and "i" not in line.split()[1]]
    if "posix_queue" in made and ctypes.CDLL(None).mq_unlink(f"/{made['posix_queue']}".encode()) == 0:
        found.append("the POSIX message queue")
    return found


def test_witness_leaves_nothing(arena: Path, source: Path) -> None:
    before = belongings(arena)
    with Witness(arena, ATTACKER) as made:
        assert belongings(arena) != before
        launch(python_attackers(made.description(), "left-over", "create-beside", source=source), made)
    assert belongings(arena) == before
    assert left_by(made) == []
    assert made.victim.poll() is not None


@pytest.mark.parametrize("step", ["_make_network", "_make_mount", "_make_victim", "_watch_files"])
def test_witness_leaves_nothing_when_it_fails_half_way(
    arena: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(witness: Witness) -> None:
        raise OSError("no more")

    before = belongings(arena)
    monkeypatch.setattr(Witness, step, fail)
    made = Witness(arena, ATTACKER)
    with pytest.raises(OSError, match="no more"), made:
        pass
    assert belongings(arena) == before
    assert left_by(made) == []


@needs_root
@pytest.mark.usefixtures("unfiltered")
@pytest.mark.parametrize("language", ["python", "c"])
def test_root_reaches_what_needs_a_privilege_and_harms_nothing(
    witness: Witness, source: Path, program: Path, language: str
) -> None:
    mounts, capabilities = Path("/proc/self/mountinfo").read_text(), status_of("CapEff")
    description = witness.description()
    if language == "python":
        command = python_attackers(description, source=source, careful=True)
    else:
        command = c_attackers(program, description, careful=True)
    results = launch(command, witness, uid=0)
    expected = {
        name for name, number in PRIVILEGED.items() if number is not None and capabilities >> number & 1
    }
    assert {name: results[name].detail for name in expected if not results[name].succeeded} == {}
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert "the hostname changed" not in witness.saw()
    if "read-mounted" in results and "mounted_secret" in description:
        assert results["read-mounted"].succeeded


class Elsewhere(NamedTuple):
    """A sandbox that is not ours: its options, and which attacks are known to succeed in it or to fail."""

    options: tuple[str, ...]
    succeed: tuple[str, ...]
    fail: tuple[str, ...]


BUBBLEWRAP = {
    # Reading only is no answer to a socket: its server acts outside.
    "read only": Elsewhere(
        ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        ("unix-stream", "unix-datagram", "unix-datagram-pair", "abstract-stream", "tcp4", "udp4", "read-private",
         "stat-names", "reopen-fds", "parents-of-fds", "hostname", "environment", "home-shared", "kill-victim"),
        ("write-file", "truncate-file", "link-file", "rename-file", "change-mode", "create-beside",
         "new-privileges", "set-uid-programs", "capabilities", "mount-tmpfs"),
    ),
    "with an own root and own namespaces": Elsewhere(
        ("--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
         "--symlink", "usr/bin", "/bin", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "--new-session",
         "--hostname", "sandbox", "--tmpfs", "/tmp"),
        ("parents-of-fds", "reopen-fds", "kill-everyone", "environment", "set-uid-bit"),
        ("unix-stream", "unix-datagram", "unix-datagram-pair", "abstract-stream", "abstract-datagram", "tcp4",
         "tcp6", "tcp-fast-open", "mptcp", "udp4", "netlink-interfaces", "netlink-sockets", "read-private",
         "read-secret", "list-directory", "stat-names", "write-file", "create-beside", "kill-victim",
         "limits-victim", "affinity-victim", "ptrace-victim", "memory-victim", "segment-read", "message-queue",
         "posix-queue", "hostname", "home-shared", "terminal-by-path", "ptmx-of-outside", "devices"),
    ),
}  # fmt: skip


@pytest.mark.usefixtures("unfiltered")
@pytest.mark.parametrize("language", ["python", "c"])
@pytest.mark.parametrize("kind", BUBBLEWRAP)
def test_attackers_tell_sandboxes_apart(
    witness: Witness, arena: Path, source: Path, program: Path, kind: str, language: str
) -> None:
    bwrap, sandbox = shutil.which("bwrap"), BUBBLEWRAP[kind]
    if bwrap is None:
        pytest.skip("bwrap is not installed")
    if not as_the_attacker(bwrap, *BUBBLEWRAP["with an own root and own namespaces"].options, "true"):
        pytest.skip("bwrap can make no namespaces for an ordinary uid here")
    names = [*sandbox.succeed, *sandbox.fail]
    if language == "python":
        command = python_attackers(witness.description(), *names, source=source)
    else:
        command = c_attackers(program, witness.description(), *names)
    programs = str(arena / "programs")
    results = launch([bwrap, *sandbox.options, "--ro-bind", programs, programs, *command], witness)
    assert {name: results[name].detail for name in sandbox.succeed if not results[name].succeeded} == {}
    assert {name: results[name].detail for name in sandbox.fail if results[name].succeeded} == {}
    seen = {SEEN[name] for name in sandbox.succeed if name in SEEN}
    assert set(witness.saw()) == seen
