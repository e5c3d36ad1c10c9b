"""`broker.embed`: a program split in two, tried in programs of its own (it ends the process that calls it)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import TREE, policy

SECONDS = 60

SPLIT = """
import os, sys
from broker.embed import embed
client = embed({rules!r}, audit={audit!r})
"""


@pytest.fixture
def secret(place: Path) -> Path:
    """A file that only its owner may open."""
    path = place / "secret"
    path.write_text("the secret")
    path.chmod(0o600)
    return path


def split(place: Path, secret: Path, program: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that goes on, confined, with `program`."""
    rules = place / "embed.yaml"
    rules.write_text(policy(f"name: secret, clients: [any], allow: [read, write], paths: [{secret}]"))
    text = SPLIT.format(rules=str(rules), audit=str(place / "audit.jsonl")) + program
    return subprocess.run(
        [sys.executable, "-c", text], cwd=TREE, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_confined_half_opens_what_the_policy_gives(place: Path, secret: Path) -> None:
    ran = split(place, secret, f"print(client.open({str(secret)!r}, 'r+').read())")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "the secret\n", "")
    assert '"rule":"embed/secret"' in (place / "audit.jsonl").read_text()


def test_confined_half_has_no_privileges(place: Path, secret: Path) -> None:
    program = f"""
status = open('/proc/self/status').read()
assert 'NoNewPrivs:\\t1' in status and 'CapEff:\\t0000000000000000' in status, status
for path, flags in (({str(secret)!r}, os.O_RDWR), ('/dev/net/tun', os.O_RDWR), ('/dev/kvm', os.O_RDWR)):
    try:
        os.open(path, flags)
        raise AssertionError(path)
    except OSError as error:
        assert error.errno in (13, 2), error
os.close(os.open(os.environ['HOME'] + '/file', os.O_CREAT | os.O_WRONLY))
print(os.geteuid())
"""
    ran = split(place, secret, program)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert int(ran.stdout) >= 61184 if os.geteuid() == 0 else int(ran.stdout) == os.geteuid()


def test_confined_half_holds_nothing_of_the_brokers(place: Path, secret: Path) -> None:
    """Above all not the connection over which the supervisor introduces clients to its worker."""
    program = """
import stat
kinds = []
for name in os.listdir('/proc/self/fd'):
    try:
        kinds.append(os.readlink('/proc/self/fd/' + name).split(':')[0])
    except FileNotFoundError:
        pass
print(sorted(kind for kind in kinds if not kind.startswith('/')))
"""
    ran = split(place, secret, program)
    # Its standard output and error are the pipes; its standard input is ours; the socket is the client's.
    assert ran.stdout in ("['pipe', 'pipe', 'socket']\n", "['pipe', 'pipe', 'pipe', 'socket']\n"), ran.stdout


@pytest.mark.parametrize(("program", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 15)", 143)])
def test_exit_status_is_that_of_the_confined_half(
    place: Path, secret: Path, program: str, status: int
) -> None:
    assert split(place, secret, program).returncode == status


def test_program_is_told_and_stays_whole_when_the_policy_is_bad(place: Path) -> None:
    rules = place / "bad.yaml"
    rules.write_text("version: 7\n")
    program = (
        "from broker.embed import Unusable, embed\n"
        f"try: embed({str(rules)!r})\nexcept Unusable as error: print('still here:', error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.stdout.startswith("still here: the policy has mistakes:")
    assert "bad.yaml:1:" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("net='internet'", "expected one of none, loopback, host"),
        ("weak='namespaces'", "expected a list: ['namespaces']"),
        ("weak=['name-spaces']", "'name-spaces', expected of namespaces, landlock"),
        ("ro='/srv'", "expected a list: ['/srv']"),
        ("rw='/srv'", "expected a list: ['/srv']"),
    ],
)
def test_program_is_told_when_an_argument_is_a_slip(place: Path, arguments: str, says: str) -> None:
    rules = place / "embed.yaml"
    rules.write_text(policy("name: any, clients: [any], allow: [read], paths: [/srv/file]"))
    program = (
        "from broker.embed import Unusable, embed\n"
        f"try: embed({str(rules)!r}, {arguments})\nexcept Unusable as error: print('still here:', error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.stdout.startswith("still here: ")
    assert says in ran.stdout


def test_program_is_told_when_it_has_threads(place: Path, secret: Path) -> None:
    rules = place / "embed.yaml"
    rules.write_text(policy(f"name: secret, clients: [any], allow: [read], paths: [{secret}]"))
    program = (
        "import threading\nfrom broker.embed import embed\n"
        "hold = threading.Event()\nthread = threading.Thread(target=hold.wait)\nthread.start()\n"
        f"try: embed({str(rules)!r})\nexcept RuntimeError as error: print(error)\nhold.set()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "before other threads" in ran.stdout


def test_example_runs(place: Path, secret: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "examples/split_program.py", str(secret)],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "alone: No such file or directory" in ran.stdout
    assert secret.read_text() == "the secreta line from the confined half\n"
