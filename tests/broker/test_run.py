"""`fdbroker run`: the embedded broker and the connected one, with real programs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import STRANGER, TREE, Broker, allow, as_uid, is_device, needs_root, policy, wait_until

FDBROKER = [sys.executable, "-m", "broker.main"]
SECONDS = 60

# What the confined program does with the library; it runs with the tests' interpreter and tree.
OPEN = "import os, sandboxed; c = sandboxed.connect(); print(os.read(c.open_fd({path!r}, ['read']), 100).decode())"


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """`fdbroker run` to its end."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*FDBROKER, "run", *arguments],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        **options,
    )


@pytest.fixture
def secret(place: Path) -> Path:
    """A file that only its owner may open."""
    path = place / "secret"
    path.write_text("the secret")
    path.chmod(0o600)
    return path


@pytest.fixture
def rules(place: Path, secret: Path) -> str:
    """A policy that gives the secret to the embedded program."""
    path = place / "run.yaml"
    path.write_text(policy(allow("secret", str(secret), clients="any")))
    return str(path)


def test_program_gets_a_file_from_its_embedded_broker_when_the_policy_gives_it(
    rules: str, secret: Path
) -> None:
    ran = run("--policy", rules, "--", sys.executable, "-c", OPEN.format(path=str(secret)))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "the secret\n", "")


def test_program_is_denied_when_the_policy_names_another_file(rules: str, place: Path) -> None:
    ran = run("--policy", rules, "--", sys.executable, "-c", OPEN.format(path=str(place / "run.yaml")))
    assert ran.returncode == 1
    assert "sandboxed.errors.Denied" in ran.stderr


def test_open_command_says_how_to_see_why_it_was_denied_when_the_broker_is_embedded(
    rules: str, place: Path
) -> None:
    command = [*FDBROKER, "open", str(place / "run.yaml"), "--access", "read"]
    ran = run("--policy", rules, "--", *command)
    assert ran.stderr.endswith("fdbroker run --audit - shows why\n")
    ran = run("--policy", rules, "--audit", "-", "--", *command)
    assert '"reason":"no rule gives read: none names this path"' in ran.stderr


@needs_root
def test_program_runs_as_an_unused_uid_without_groups_when_root_starts_it(rules: str) -> None:
    ran = run("--policy", rules, "--", "sh", "-c", "id -u; id -G; grep -E 'Cap|NoNewPrivs' /proc/self/status")
    uid, groups, *status = ran.stdout.split("\n")
    assert 61184 <= int(uid) <= 65519
    assert groups == uid
    assert [line.split()[1].strip("0") for line in status if line.startswith("Cap")] == [""] * 5
    assert "NoNewPrivs:\t1" in status


@needs_root
def test_program_runs_as_the_named_user_when_root_says_so(rules: str) -> None:
    ran = run("--user", str(STRANGER), "--policy", rules, "--", "id", "-u")
    assert ran.stdout == f"{STRANGER}\n"


def test_program_cannot_open_devices_by_itself(rules: str) -> None:
    ran = run(
        "--policy", rules, "--", "sh", "-c", "cat < /dev/tty; cat < /dev/kvm; cat < /dev/null && echo null"
    )
    assert ran.stdout == "null\n"


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 41", 41), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)],
)
def test_exit_status_is_the_programs(rules: str, script: str, status: int) -> None:
    assert run("--policy", rules, "--", "sh", "-c", script).returncode == status


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--policy", "/nonexistent", "--", "true"], 125, "No such file"),
        (["--policy", "RULES"], 125, "no command"),
        (["--policy", "RULES", "--", "no-such-command"], 127, "not found"),
        (["--policy", "RULES", "--", "/etc/passwd"], 126, "cannot be run"),
        (["--socket", "/nonexistent", "--", "true"], 125, "no broker answers"),
        (["--", "true"], 125, "--policy"),
        (["--policy", "RULES", "--user", "no-such-user", "--", "true"], 125, ""),
    ],
)
def test_own_trouble_has_its_exit_status_and_says_what_is_wrong(
    rules: str, arguments: list[str], status: int, says: str
) -> None:
    ran = run(*[rules if word == "RULES" else word for word in arguments])
    assert ran.returncode == status
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_bad_policy_shows_every_mistake_when_run_starts(place: Path) -> None:
    path = place / "bad.yaml"
    path.write_text(
        "version: 1\nrules:\n  - {name: a, alow: [read]}\n  - {name: b, clients: [any], allow: [fly]}\n"
    )
    ran = run("--policy", str(path), "--", "true")
    assert ran.returncode == 125
    assert "bad.yaml:3:" in ran.stderr
    assert "bad.yaml:4:" in ran.stderr


def test_signals_reach_the_program_and_its_end_is_reported(rules: str) -> None:
    script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [*FDBROKER, "run", "--policy", rules, "--", "sh", "-c", script],
        cwd=TREE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 3
        assert process.stdout.read() == "caught\n"


def test_program_and_all_of_its_sandbox_die_when_run_is_killed(rules: str) -> None:
    process = subprocess.Popen(
        [
            *FDBROKER,
            "run",
            "--policy",
            rules,
            "--",
            "sh",
            "-c",
            "sleep 1000 & setsid sleep 1000 & echo; wait",
        ],
        cwd=TREE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        # run, and below it: the worker, the init, the shell and two that sleep
        wait_until(lambda: len(_descendants(process.pid)) >= 5, "all processes of the sandbox")
        others = _descendants(process.pid)
        process.kill()
    for pid in others:
        wait_until(lambda pid=pid: _is_gone(pid), f"the end of {pid}")


def _descendants(pid: int) -> list[int]:
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [one for child in children for one in _descendants(child)]


def _is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def test_audit_goes_to_the_file_when_one_is_named(rules: str, secret: Path, place: Path) -> None:
    audit = place / "audit.jsonl"
    run("--policy", rules, "--audit", str(audit), "--", sys.executable, "-c", OPEN.format(path=str(secret)))
    records = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [one["event"] for one in records] == ["run", "worker", "open"]
    assert (records[2]["verdict"], records[2]["rule"], records[2]["path"]) == (
        "allow",
        "run/secret",
        str(secret),
    )
    assert audit.stat().st_mode & 0o777 == 0o600


def test_work_directory_is_the_only_place_to_write_and_is_removed(rules: str, place: Path) -> None:
    place.chmod(0o1777)  # whoever may write, nobody replaces the policy of another
    script = (
        f'echo x > "$HOME/file" && cat "$HOME/file" && echo "$HOME"; echo y > {place}/file || echo refused'
    )
    ran = run("--policy", rules, "--", "sh", "-c", script)
    written, home, refused = ran.stdout.splitlines()
    assert (written, refused) == ("x", "refused")
    assert not Path(home).exists()


def test_connected_program_is_seen_with_its_own_uid(
    start_broker: Callable[[str], Broker], secret: Path
) -> None:
    broker = start_broker(policy(allow("secret", str(secret))))
    ran = run("--socket", broker.socket, "--", sys.executable, "-c", OPEN.format(path=str(secret)))
    assert (ran.returncode, ran.stdout) == (0, "the secret\n")
    seen = broker.records(event="open")[0]["peer"]["uid"]
    assert seen >= 61184 if os.geteuid() == 0 else seen == os.geteuid()


@needs_root
def test_ordinary_user_gets_an_embedded_broker_with_that_users_rights(place: Path) -> None:
    place.chmod(0o1777)  # whoever may write, nobody replaces the policy of another
    (place / "own").write_text("")

    def start() -> list[object]:
        own = place / "mine"
        own.write_text("my own")
        rules = place / "user.yaml"
        rules.write_text(
            policy(
                allow("own", str(own), "read, write", clients="any"),
                allow("shadow", "/etc/shadow", clients="any"),
            )
        )
        program = (
            "import sandboxed\nc = sandboxed.connect()\n"
            f"print(c.open({str(own)!r}, 'r+').read())\n"
            "try: c.open('/etc/shadow')\nexcept OSError as e: print(type(e).__name__, e.errno)\n"
        )
        os.environ["TMPDIR"] = str(place)
        ran = run("--policy", str(rules), "--", sys.executable, "-c", program)
        return [ran.returncode, ran.stdout, ran.stderr]

    # The broker is the user's own: it may not open /etc/shadow either, and says so as open() would.
    assert as_uid(STRANGER, start) == [0, "my own\nPermissionError 13\n", ""]


@pytest.mark.skipif(not is_device("/dev/net/tun"), reason="this machine has no /dev/net/tun")
@needs_root
def test_confined_program_asks_the_real_device_when_it_was_given_its_fd(place: Path) -> None:
    rules = place / "tun.yaml"
    rules.write_text(policy(allow("tun", "/dev/net/tun", "use", "type: char", clients="any")))
    # TUNGETFEATURES: an ioctl of the real device, which works without privileges.
    program = (
        "import fcntl, sandboxed\nfd = sandboxed.connect().open_fd('/dev/net/tun', ['use'])\n"
        "print(int.from_bytes(fcntl.ioctl(fd, 0x800454cf, bytes(4)), 'little') & 3)\n"
    )
    ran = run("--policy", str(rules), "--", sys.executable, "-c", program)
    assert (ran.stdout, ran.stderr) == ("3\n", "")
