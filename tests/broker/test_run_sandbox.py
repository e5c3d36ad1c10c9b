"""What `fdbroker run` gives its program besides the policy: options, profiles, layers that are missing, --dry-run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import STRANGER, TREE, Broker, allow, needs_root, policy

FDBROKER = [sys.executable, "-m", "broker.main"]
SECONDS = 60
AS_ROOT = os.geteuid() == 0

REFUSING = [sys.executable, "-I", str(TREE / "tests" / "refusing.py")]
UNSHARE, LANDLOCK = "unshare", "landlock_create_ruleset"


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """`fdbroker run` to its end."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*FDBROKER, "run", *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        **options,
    )


def run_refused(call: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`fdbroker run` where the kernel refuses a system call, as a container's filter does."""
    return subprocess.run(
        [*REFUSING, call, *FDBROKER, "run", *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture
def rules(place: Path) -> str:
    """A policy that gives the embedded program a file."""
    path = place / "policy" / "run.yaml"
    path.parent.mkdir()
    path.write_text(policy(allow("names", "/etc/hostname", clients="any")))
    return str(path)


@pytest.fixture
def shared(place: Path) -> Path:
    """A directory that everybody may use, with a file."""
    path = place / "shared"
    path.mkdir()
    path.chmod(0o777)
    (path / "file").write_text("content")
    (path / "file").chmod(0o666)
    (path / "below").mkdir()
    (path / "below" / "file").touch()
    for name, target in (("link", "/etc"), ("to-dev", "/dev"), ("to-root", "/")):
        (path / name).symlink_to(target)
    return path


def test_program_reads_what_is_shown_read_only_and_cannot_write_it(rules: str, shared: Path) -> None:
    script = (
        f"cat {shared}/file; echo x > {shared}/file || rm {shared}/file || touch {shared}/new || echo refused"
    )
    ran = run("--policy", rules, "--ro", str(shared), "--", "sh", "-c", script)
    assert ran.stdout == "contentrefused\n"
    assert (shared / "file").read_text() == "content"


def test_program_writes_what_is_shown_for_writing(rules: str, shared: Path) -> None:
    ran = run("--policy", rules, "--rw", str(shared), "--", "sh", "-c", f"echo new > {shared}/file; pwd")
    assert (ran.stdout, (shared / "file").read_text()) == ("/sandbox\n", "new\n")


def test_program_cannot_touch_what_is_kept_in_a_tree_that_it_may_write(rules: str, shared: Path) -> None:
    (shared / "kept").mkdir()
    (shared / "kept").chmod(0o777)
    (shared / "kept" / "file").write_text("kept")
    script = (
        f"cd {shared}; echo new > file; for do in 'rm -r kept' 'mv kept other' 'touch kept/new'; do $do; done"
    )
    ran = run("--policy", rules, "--rw", str(shared), "--ro", str(shared / "kept"), "--", "sh", "-c", script)
    assert ran.returncode != 0
    assert sorted(os.listdir(shared)) == ["below", "file", "kept", "link", "to-dev", "to-root"]
    assert [path.read_text() for path in (shared / "file", shared / "kept" / "file")] == ["new\n", "kept"]
    assert os.listdir(shared / "kept") == ["file"]


def test_program_starts_where_its_user_stands_when_that_is_shown(rules: str, shared: Path) -> None:
    command = [*FDBROKER, "run", "--policy", rules, "--ro", ".", "--", "sh", "-c", "pwd; cat file"]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    ran = subprocess.run(
        command, cwd=shared, capture_output=True, text=True, timeout=SECONDS, env=environment
    )
    assert ran.stdout == f"{shared}\ncontent"


@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o644), (0o022, 0o644), (0o077, 0o600)])
def test_program_makes_files_as_its_user_would_and_never_for_others_to_write(
    rules: str, shared: Path, umask: int, mode: int
) -> None:
    run("--policy", rules, "--rw", str(shared), "--", "touch", str(shared / "new"), umask=umask)
    assert (shared / "new").stat().st_mode & 0o777 == mode


def test_program_starts_where_its_user_stands_when_something_below_is_shown(rules: str, shared: Path) -> None:
    command = [
        *FDBROKER,
        "run",
        "--policy",
        rules,
        "--ro",
        "below/file",
        "--",
        "sh",
        "-c",
        "pwd; ls -A . below",
    ]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    ran = subprocess.run(
        command, cwd=shared, capture_output=True, text=True, timeout=SECONDS, env=environment
    )
    assert ran.stdout == f"{shared}\n.:\nbelow\n\nbelow:\nfile\n"


def test_work_directory_is_home_and_what_lies_there_stays(rules: str, shared: Path) -> None:
    ran = run(
        "--policy", rules, "--work", str(shared), "--", "sh", "-c", "echo $HOME; echo kept > $HOME/kept"
    )
    assert (ran.stdout, (shared / "kept").read_text()) == (f"{shared}\n", "kept\n")


def test_home_and_temporary_files_are_gone_and_nobody_elses(rules: str) -> None:
    script = "touch ~/a /tmp/a /dev/shm/a; ls ~ /tmp /dev/shm"
    for _ in range(2):
        ran = run("--policy", rules, "--", "sh", "-c", script)
        assert ran.stdout.split() == ["/dev/shm:", "a", "/sandbox:", "a", "/tmp:", "a"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rw", "PLACE"], "could change what is trusted"),
        (["--rw", "PLACE/policy"], "could change what is trusted"),
        (["--work", "PLACE/policy"], "could change what is trusted"),
        (["--rw", str(TREE)], "could change what is trusted"),
        (
            ["--rw", "PLACE/shared", "--ro", "PLACE/shared/below/file"],
            "could put something else in its place",
        ),
        (["--rw", "PLACE/shared", "--ro", "PLACE/shared/link"], "could put something else in its place"),
        (["--rw", "PLACE/shared", "--ro", "PLACE/shared/../shared"], "both read-only and written"),
        (["--work", "PLACE/shared", "--ro", "PLACE/shared"], "both read-only and written"),
        (["--ro", "PLACE/shared/to-dev"], "devices are the policy's"),
        (["--ro", "PLACE/shared/to-root"], "would be no sandbox"),
        (["--ro", "/"], "would be no sandbox"),
        (["--ro", "/dev/null"], "devices are the policy's"),
        (["--rw", "/proc"], "cannot be shown"),
        (["--ro", "PLACE/nothing"], "there is no such file"),
        (["--ro", "/sandbox-parent/.."], "would be no sandbox"),
        (["--net", "everything"], "invalid choice"),
        (["--weak", "everything"], "invalid choice"),
        (["--profile", "no-such-profile"], "no-such-profile"),
        (["--json"], "--dry-run"),
        (["--env", "=value"], "there is no NAME"),
        (["--env", "FDBROKER_SOCKET=/elsewhere"], "fdbroker's own to set"),
    ],
)
def test_run_refuses_and_says_why(
    rules: str, place: Path, shared: Path, arguments: list[str], says: str
) -> None:
    ran = run("--policy", rules, *[word.replace("PLACE", str(place)) for word in arguments], "--", "true")
    assert (ran.returncode, ran.stdout) == (125, "")
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_file_that_is_no_program_is_told_from_one_that_is_not_there(rules: str, shared: Path) -> None:
    for name, status, says in (("file", 126, "it is not executable (chmod +x it"), ("no", 127, "not found")):
        ran = run("--policy", rules, "--", str(shared / name))
        assert (ran.returncode, says in ran.stderr) == (status, True)


def test_policy_is_found_in_a_writable_tree_by_any_name(rules: str, place: Path) -> None:
    (place / "other-name").symlink_to(place / "policy")
    ran = run("--policy", str(place / "other-name" / "run.yaml"), "--rw", str(place / "policy"), "--", "true")
    assert (ran.returncode, "could change what is trusted" in ran.stderr) == (125, True)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_run_works_when_its_caller_has_closed_standard_files(rules: str, closed: str) -> None:
    for command, status in ((["sh", "-c", "exit 3"], 3), (["no-such-command"], 127)):
        line = [*FDBROKER, "run", "--policy", rules, "--", *command]
        ran = subprocess.run(
            ["sh", "-c", f'"$@" {closed}', "sh", *line],
            cwd=TREE,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (ran.returncode, ran.stdout) == (status, "")
        assert "Traceback" not in ran.stderr


def test_environment_is_an_allow_list_and_what_was_asked_for(rules: str) -> None:
    environment = {
        **os.environ,
        "SSH_AUTH_SOCK": "/run/agent",
        "PASSED": "by name",
        "LD_PRELOAD": "",
        "SECRET": "x",
    }
    arguments = ["--env", "PASSED", "--env", "SET=a=b", "--env", "NOT_THERE", "--", "env"]
    ran = run("--policy", rules, *arguments, env=environment)
    given = dict(line.split("=", 1) for line in ran.stdout.splitlines())
    assert (given["PASSED"], given["SET"], given["HOME"], given["TMPDIR"]) == (
        "by name",
        "a=b",
        "/sandbox",
        "/tmp",
    )
    assert not {
        "SSH_AUTH_SOCK",
        "SECRET",
        "LD_PRELOAD",
        "NOT_THERE",
        "USER",
        "DBUS_SESSION_BUS_ADDRESS",
    } & set(given)


PORTS = """
import socket
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
print(socket.create_connection(listener.getsockname(), 5).getpeername()[0])
"""


@pytest.mark.parametrize(("network", "works"), [("loopback", True), ("none", False), ("host", True)])
def test_program_has_the_network_that_was_given(rules: str, network: str, works: bool) -> None:
    ran = run("--policy", rules, "--net", network, "--", sys.executable, "-I", "-c", PORTS)
    assert (ran.stdout == "127.0.0.1\n") == works


@pytest.mark.parametrize(("network", "seen"), [("loopback", {"lo"}), ("none", {"lo"}), ("host", None)])
def test_program_sees_the_interfaces_of_its_network(rules: str, network: str, seen: set[str] | None) -> None:
    ran = run("--policy", rules, "--net", network, "--", "sh", "-c", "cat /proc/net/dev")
    here = _interfaces(Path("/proc/net/dev").read_text())
    assert _interfaces(ran.stdout) == (here if seen is None else seen)


def _interfaces(text: str) -> set[str]:
    return {line.split(":")[0].strip() for line in text.splitlines() if ":" in line}


def test_profile_gives_what_it_names_and_options_go_first(rules: str, place: Path, shared: Path) -> None:
    profile = place / "profile.yaml"
    profile.write_text(
        f"version: 1\nro: [{shared}]\nset: {{GIVEN: by the profile}}\nnet: none\nlimits: {{files: 64}}\n"
    )
    script = f"cat {shared}/file; echo $GIVEN; ulimit -n"
    ran = run("--policy", rules, "--profile", str(profile), "--", "sh", "-c", script)
    assert ran.stdout == "contentby the profile\n64\n"
    ran = run(
        *("--policy", rules, "--profile", str(profile), "--net", "loopback", "--env", "GIVEN=here"),
        *("--", "sh", "-c", "echo $GIVEN"),
    )
    assert ran.stdout == "here\n"


@pytest.mark.parametrize("name", ["command-line", "daemon", "network-client"])
def test_ready_profiles_start_a_program(rules: str, name: str) -> None:
    ran = run("--policy", rules, "--profile", name, "--", sys.executable, "-c", "print(sum(range(1000)))")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "499500\n", "")


def test_name_of_a_profile_is_no_file_that_is_called_so(rules: str, shared: Path) -> None:
    (shared / "daemon").touch()
    command = [*FDBROKER, "run", "--policy", rules, "--profile", "daemon", "--rw", ".", "--", "true"]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    ran = subprocess.run(
        command, cwd=shared, capture_output=True, text=True, timeout=SECONDS, env=environment
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_run_shows_every_mistake_of_a_profile(rules: str, place: Path) -> None:
    profile = place / "profile.yaml"
    profile.write_text("version: 1\nnett: host\nlimits: {memory: much}\n")
    ran = run("--policy", rules, "--profile", str(profile), "--", "true")
    assert ran.returncode == 125
    assert "profile.yaml:2:1" in ran.stderr
    assert "profile.yaml:3:" in ran.stderr


def test_script_gets_its_interpreter_and_nothing_beside_it(rules: str, place: Path) -> None:
    script = place / "script"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\nprint(os.listdir(os.path.dirname(sys.argv[0])))\n"
    )
    script.chmod(0o755)
    (place / "beside").write_text("not shown")
    ran = run("--policy", rules, "--", str(script))
    assert (ran.stdout, ran.stderr) == ("['script']\n", "")


# --- layers that the machine cannot give -----------------------------------------------------------------------


@pytest.mark.parametrize(("call", "layer"), [(UNSHARE, "namespaces"), (LANDLOCK, "landlock")])
def test_run_does_not_start_when_a_layer_is_missing(rules: str, call: str, layer: str) -> None:
    ran = run_refused(call, "--policy", rules, "--", "echo", "started")
    assert (ran.returncode, ran.stdout) == (125, "")
    assert f"cannot give the layer '{layer}'" in ran.stderr
    assert f"--weak {layer}" in ran.stderr


@pytest.mark.parametrize(("call", "layer"), [(UNSHARE, "namespaces"), (LANDLOCK, "landlock")])
def test_weak_run_is_told_and_written_in_the_audit(rules: str, place: Path, call: str, layer: str) -> None:
    audit = place / "audit.jsonl"
    arguments = ["--policy", rules, "--audit", str(audit), "--weak", layer, "--", "fdbroker", "--version"]
    ran = run_refused(call, *arguments[:-2], "echo", "started")
    assert (ran.returncode, ran.stdout) == (0, "started\n")
    assert f"goes on without the layer '{layer}'" in ran.stderr
    record = json.loads(audit.read_text().splitlines()[0])
    assert record["event"] == "run"
    assert list(record["weak"]) == [layer]
    assert layer not in record["layers"]


def test_run_does_not_take_a_layer_away_that_the_machine_has(rules: str, place: Path) -> None:
    audit = place / "audit.jsonl"
    ran = run(
        "--policy", rules, "--audit", str(audit), "--weak", "namespaces", "--", "sh", "-c", "echo $$; pwd"
    )
    assert (ran.stdout, ran.stderr) == ("2\n/sandbox\n", "")
    record = json.loads(audit.read_text().splitlines()[0])
    assert (record["weak"], "namespaces" in record["layers"]) == ({}, True)


def test_run_does_not_start_when_nothing_is_left_to_hold_the_program(rules: str) -> None:
    weak = ["--weak", "namespaces", "--weak", "landlock", "--weak", "seccomp"]
    command = [*REFUSING, f"{UNSHARE},{LANDLOCK}", *FDBROKER, "run", "--policy", rules, *weak, "--", "true"]
    ran = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=SECONDS, check=False)
    # As root the program has another uid than its broker, and seccomp still holds it.
    assert (ran.returncode == 0) == AS_ROOT
    assert AS_ROOT or "nothing would keep it from sending the broker signals" in ran.stderr


def test_program_without_namespaces_asks_its_broker_all_the_same(rules: str) -> None:
    program = "import sandboxed; print(sandboxed.connect().open('/etc/hostname').read(), end='')"
    arguments = ["--policy", rules, "--weak", "namespaces", "--", sys.executable, "-c", program]
    ran = run_refused(UNSHARE, *arguments)
    assert ran.stdout == Path("/etc/hostname").read_text()


def test_program_without_namespaces_makes_no_sockets_and_leaves_no_process(rules: str) -> None:
    mark = f"1000.{os.getpid()}"  # no other process's on this machine
    program = (
        "import os, socket\n"
        "for make in (lambda: socket.socket(socket.AF_UNIX), lambda: socket.socket(),\n"
        "             lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)):\n"
        "    try: make(); print('made')\n"
        "    except OSError as error: print(error.errno)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    if os.fork() == 0: os.execvp('sleep', ['sleep', '{mark}'])\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    arguments = ["--policy", rules, "--weak", "namespaces", "--", sys.executable, "-c", program]
    ran = run_refused(UNSHARE, *arguments)
    assert ran.stdout.split() == ["97", "97", "1"]
    assert [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in _command_line(pid)] == []


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


# --- --dry-run -------------------------------------------------------------------------------------------------


def test_dry_run_shows_what_the_program_would_have_and_starts_nothing(rules: str, shared: Path) -> None:
    mark = shared / "mark"
    arguments = [
        "--policy",
        rules,
        "--rw",
        str(shared),
        "--net",
        "none",
        "--dry-run",
        "--",
        "touch",
        str(mark),
    ]
    ran = run(*arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not mark.exists()
    for words in ("/usr", str(shared), "read and write", "none, not even a loopback", "ABI", "HOME", "touch"):
        assert words in ran.stdout


def test_dry_run_prints_json_for_machines(rules: str, shared: Path) -> None:
    ran = run("--policy", rules, "--ro", str(shared), "--dry-run", "--json", "--", "true")
    shown = json.loads(ran.stdout)
    assert {"path": str(shared), "access": "read", "every": False} in shown["files"]
    assert shown["trouble"] is None
    assert all(layer["on"] for layer in shown["layers"].values())
    assert shown["network"] == "loopback"


def test_dry_run_shows_what_the_policy_gives_this_program(rules: str, place: Path) -> None:
    assert "/etc/hostname: read (file)" in run("--policy", rules, "--dry-run", "--", "true").stdout
    others = place / "others.yaml"
    others.write_text(policy(allow("names", "/etc/hostname", clients="{uid: 4000000000}")))
    ran = run("--policy", str(others), "--dry-run", "--json", "--", "true")
    assert (ran.returncode, json.loads(ran.stdout)["gives"]) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--policy", "RULES", "--", "no-such-command"], "no-such-command: command not found"),
        (["--policy", "RULES", "--", "/etc"], "/etc: cannot be run"),
        (["--policy", "/no-such-policy", "--", "true"], "the policy cannot be read"),
        (["--socket", "/no-such-socket", "--", "true"], "no broker answers at /no-such-socket"),
    ],
)
def test_dry_run_says_what_would_keep_the_program_from_starting(
    rules: str, arguments: list[str], says: str
) -> None:
    ran = run("--dry-run", *[rules if word == "RULES" else word for word in arguments])
    assert (ran.returncode, ran.stderr) == (125, "")
    assert says in ran.stdout.split("It would not start: ")[1]


def test_dry_run_says_where_the_program_starts_and_where_its_broker_is(place: Path, shared: Path) -> None:
    socket = place / "socket"
    socket.touch()
    command = [*FDBROKER, "run", "--socket", str(socket), "--ro", "file", "--dry-run", "--json", "--", "true"]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    ran = subprocess.run(
        command, cwd=shared, capture_output=True, text=True, timeout=SECONDS, env=environment
    )
    shown = json.loads(ran.stdout)
    assert (shown["directory"], shown["broker"]) == (str(shared), {"socket": str(socket)})
    assert shown["environment"]["FDBROKER_SOCKET"] == str(socket)
    assert {"path": str(socket), "access": "connect", "every": False} in shown["files"]


def test_dry_run_prints_json_when_something_cannot_be_shown(rules: str) -> None:
    ran = run("--policy", rules, "--ro", "/no/such/file", "--dry-run", "--json", "--", "true")
    assert ran.returncode == 125
    assert "no such file" in json.loads(ran.stdout)["trouble"]


def test_dry_run_says_which_layer_is_missing(rules: str) -> None:
    ran = run_refused(UNSHARE, "--policy", rules, "--dry-run", "--", "true")
    assert ran.returncode == 125
    assert "It would not start" in ran.stdout
    assert "--weak namespaces" in ran.stdout


# --- with a broker that runs -------------------------------------------------------------------------------------


def test_program_connects_anew_at_the_socket_that_it_is_shown(start_broker: Callable[[str], Broker]) -> None:
    broker = start_broker(policy(allow("names", "/etc/hostname")))
    program = (
        "import os, sandboxed\n"
        "for where in (os.environ['FDBROKER_SOCKET'], None):\n"
        "    with sandboxed.connect(where) as client: print(client.open('/etc/hostname').read(), end='')\n"
    )
    ran = run("--socket", broker.socket, "--", sys.executable, "-c", program)
    assert (ran.stdout, ran.stderr) == (2 * Path("/etc/hostname").read_text(), "")


@needs_root
def test_program_of_root_is_seen_by_the_broker_as_the_user_it_runs_as(
    start_broker: Callable[[str], Broker],
) -> None:
    broker = start_broker(policy(allow("names", "/etc/hostname", clients=f"{{uid: {STRANGER}}}")))
    command = [sys.executable, "-c", "import sandboxed; sandboxed.connect().open('/etc/hostname')"]
    assert run("--user", str(STRANGER), "--socket", broker.socket, "--", *command).returncode == 0
    assert run("--socket", broker.socket, "--", *command).returncode == 1
