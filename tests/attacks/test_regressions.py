"""Ways out of the sandbox that were found by trying, one test for each: what was found stays shut."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import TREE, Broker, allow, policy

FDBROKER = [sys.executable, "-m", "broker.main"]
SECONDS = 60


@pytest.fixture
def rules(place: Path) -> str:
    """A policy that gives a harmless file."""
    path = place / "policy" / "run.yaml"
    path.parent.mkdir()
    path.write_text(policy(allow("names", "/etc/hostname", clients="any")))
    return str(path)


@pytest.fixture
def tree(place: Path) -> Path:
    """A directory that the program may write, whoever it is."""
    path = place / "tree"
    path.mkdir()
    path.chmod(0o777)
    return path


REFUSING = [sys.executable, "-I", str(TREE / "tests" / "refusing.py")]


def run(*arguments: str, refused: str | None = None, **options: object) -> "subprocess.CompletedProcess[str]":
    """`fdbroker run` to its end, where the kernel refuses the system call `refused`."""
    outer = [] if refused is None else [*REFUSING, refused]
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*outer, *FDBROKER, "run", *arguments],
        **{
            "cwd": "/",
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "timeout": SECONDS,
            "check": False,
            **options,
        },
    )


# --- what a hostile file has shown to it ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["odd-space", "carriage-return", "up-behind-a-link", "directory", "no-program"]
)
def test_program_is_shown_nothing_by_its_first_line_when_that_names_no_interpreter(
    rules: str, place: Path, kind: str
) -> None:
    home = place / "home"
    evil = home / "evil"
    (evil / "deep" / "a" / "b").mkdir(parents=True)
    (evil / "deep" / "bin").mkdir()
    (evil / "deep" / "pyvenv.cfg").touch()
    (home / "secret").write_text("the secret")
    (evil / "link").symlink_to(home)
    (evil / "up").symlink_to("deep/a/b")
    shutil.copy("/bin/sh", evil / "link\vx")
    shutil.copy("/bin/sh", evil / "link\rx")
    shutil.copy("/bin/sh", evil / "deep" / "bin" / "sh")
    interpreter = {
        "odd-space": f"{evil}/link\vx",
        "carriage-return": f"{evil}/link\rx",
        "up-behind-a-link": f"{evil}/up/../../bin/sh",
        "directory": str(home),
        "no-program": f"{home}/secret",
    }[kind]
    tool = evil / "tool"
    tool.write_bytes(f"#!{interpreter}\ncat {home}/secret\n".encode())
    tool.chmod(0o755)
    shown = run("--policy", rules, "--dry-run", "--json", "--", str(tool)).stdout
    assert f'"{home}"' not in shown
    assert f'"{home}/secret"' not in shown
    assert run("--policy", rules, "--", str(tool)).stdout == ""


# --- what is trusted at the next start --------------------------------------------------------------------------


def test_program_cannot_replace_the_link_by_which_the_policy_is_named(rules: str, tree: Path) -> None:
    (tree / "run.yaml").symlink_to(rules)
    ran = run("--policy", str(tree / "run.yaml"), "--rw", str(tree), "--", "true")
    assert (ran.returncode, "could change what is trusted" in ran.stderr) == (125, True)


def test_program_cannot_write_a_file_of_the_directory_that_is_the_policy(rules: str) -> None:
    ran = run("--policy", str(Path(rules).parent), "--rw", rules, "--", "true")
    assert (ran.returncode, "could change what is trusted" in ran.stderr) == (125, True)


def test_program_cannot_write_the_audit_when_that_is_not_there_yet(rules: str, tree: Path) -> None:
    ran = run("--policy", rules, "--audit", str(tree / "audit"), "--rw", str(tree), "--", "true")
    assert (ran.returncode, "could change what is trusted" in ran.stderr) == (125, True)
    assert not (tree / "audit").exists()


def test_embedding_program_cannot_write_its_audit(rules: str, tree: Path) -> None:
    split = (
        f"from broker.embed import embed\nembed({rules!r}, audit={str(tree / 'audit')!r}, rw=[{str(tree)!r}])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", split], cwd=TREE, capture_output=True, text=True, timeout=SECONDS
    )
    assert "could change what is trusted" in ran.stderr


def test_embedding_program_cannot_write_the_file_that_it_is(rules: str, tree: Path) -> None:
    program = tree / "program.py"
    program.write_text(
        f"import sys\nsys.path.append({str(TREE)!r})\n"
        f"from broker.embed import embed\nembed({rules!r}, rw=[{str(tree)!r}])"
    )
    ran = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=SECONDS)
    assert "could change what is trusted" in ran.stderr


@pytest.mark.parametrize("part", ["broker", "broker/commands", "policy/profiles", "sandboxed"])
def test_program_cannot_write_a_part_of_fdbroker(rules: str, part: str) -> None:
    ran = run("--policy", rules, "--rw", str(TREE / part), "--", "true")
    assert (ran.returncode, "could change what is trusted" in ran.stderr) == (125, True)


def test_program_is_not_led_to_another_socket_when_the_brokers_lies_in_its_tree(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(tree / "bus"))
        bus.listen()
        (tree / "broker.sock").symlink_to(tree / "bus")
        ran = run("--socket", str(tree / "broker.sock"), "--rw", str(tree), "--", "true")
    assert (ran.returncode, "could change what is trusted" in ran.stderr) == (125, True)


# --- what is to stay as it is -----------------------------------------------------------------------------------


def test_program_cannot_rename_what_keeps_a_file_when_writable_trees_nest(rules: str, tree: Path) -> None:
    (tree / "below").mkdir()
    (tree / "below" / "kept").touch()
    options = ["--rw", f"{tree}", "--rw", f"{tree}/below", "--ro", f"{tree}/below/kept"]
    # Which of the trees was seen as the one above came of the hashes of their names.
    for seed in range(6):
        ran = run("--policy", rules, *options, "--", "true", env={**os.environ, "PYTHONHASHSEED": str(seed)})
        assert (ran.returncode, "could put something else in its place" in ran.stderr) == (125, True)


@pytest.mark.parametrize("name", ["other/kept", "shortcut"])
def test_program_cannot_write_what_is_kept_when_a_link_names_it(
    rules: str, place: Path, tree: Path, name: str
) -> None:
    (tree / "kept").touch()
    (place / "other").symlink_to(tree)
    (place / "shortcut").symlink_to(tree / "kept")
    ran = run("--policy", rules, "--rw", str(tree), "--ro", str(place / name), "--", "true")
    assert (ran.returncode, f"name it by {tree}" in ran.stderr) == (125, True)


# --- what is inherited ------------------------------------------------------------------------------------------

# A connected TCP socket lets go of its peer, and is connected to somebody else of the host's network.
CONNECT_ANEW = """
import ctypes, socket, sys
inherited = socket.socket(fileno=0)
ctypes.CDLL(None).connect(0, bytes(16), 16)  # AF_UNSPEC
inherited.connect(("127.0.0.1", int(sys.argv[1])))
print("connected")
"""


@pytest.mark.parametrize(("network", "reaches"), [("loopback", False), ("none", False), ("host", True)])
def test_program_reaches_no_network_by_the_socket_that_is_its_standard_input(
    rules: str, network: str, reaches: bool
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as peer,
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_connection(peer.getsockname()) as inherited,
    ):
        command = [sys.executable, "-c", CONNECT_ANEW, str(other.getsockname()[1])]
        ran = run("--policy", rules, "--net", network, "--", *command, stdin=inherited)
    assert (ran.returncode == 0, ran.stdout == "connected\n") == (reaches, reaches)
    assert reaches or "standard input is a network's socket" in ran.stderr


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_program_without_namespaces_inherits_no_socket_that_reaches_others(rules: str, kind: int) -> None:
    with socket.socket(socket.AF_UNIX, kind) as inherited:
        ran = run("--policy", rules, "--weak", "namespaces", "--", "true", refused="unshare", stdin=inherited)
    assert (ran.returncode, "can be connected to any other" in ran.stderr) == (125, True)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ran = run("--policy", rules, "--weak", "namespaces", "--", "true", refused="unshare", stdin=theirs)
    assert ran.returncode == 0


# Every socket answers it, of whatever family, for the network that it was made in.
INTERFACES = """
import array, fcntl, struct
room = array.array("B", bytes(4096))
answer = fcntl.ioctl(connection, 0x8912, struct.pack("iL", 4096, room.buffer_info()[0]))  # SIOCGIFCONF
print(struct.unpack("iL", answer)[0])
"""


@pytest.mark.parametrize("embedded", [True, False])
def test_program_without_a_network_learns_no_interfaces_from_its_connection(
    rules: str, start_broker: Callable[[str], Broker], embedded: bool
) -> None:
    by = ["--policy", rules] if embedded else ["--socket", start_broker(Path(rules).read_text()).socket]
    program = f"import os\nconnection = int(os.environ['FDBROKER_FD'])\n{INTERFACES}"
    ran = run(*by, "--net", "none", "--", sys.executable, "-c", program)
    assert (ran.stdout, ran.stderr) == ("0\n", "")


def test_embedding_program_learns_no_interfaces_from_its_connection(rules: str) -> None:
    split = f"from broker.embed import embed\nclient = embed({rules!r}, net='none')\n"
    program = f"{split}connection = client._connection.fileno()\n{INTERFACES}"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=TREE, capture_output=True, text=True, timeout=SECONDS
    )
    assert (ran.stdout, ran.stderr) == ("0\n", "")


# --- the rest of the machine ------------------------------------------------------------------------------------

LOWER_THE_LIMIT = """
import ctypes, mmap, resource, struct
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
libc = ctypes.CDLL(None)
libc.syscall.restype = ctypes.c_long
# The same, from where the lower half of the address is 0.
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
page = libc.mmap(1 << 32, 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000, -1, 0)
assert page == 1 << 32
libc.syscall(ctypes.c_long(PRLIMIT64), 0, resource.RLIMIT_CORE, ctypes.c_void_p(page), 0)
print(resource.getrlimit(resource.RLIMIT_CORE))
"""
PRLIMIT64 = {"x86_64": 302, "aarch64": 261}[os.uname().machine]


def test_program_does_not_start_the_machines_core_dump_handler_when_it_crashes(rules: str) -> None:
    # 0 would not keep the kernel from starting it, as root and outside, if core_pattern is a pipe; 1 does.
    program = LOWER_THE_LIMIT.replace("PRLIMIT64", str(PRLIMIT64))
    assert run("--policy", rules, "--", sys.executable, "-c", program).stdout == "(1, 1)\n"


EXHAUST = """
import ctypes, fcntl, os, resource, sys
try:
    fcntl.fcntl(os.open(sys.argv[1], os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
    print("lease")
except OSError:
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
terminals = 0
try:
    while terminals < 1000:
        os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        terminals += 1
except OSError:
    pass
print(terminals < 300, ctypes.CDLL(None).syscall(ctypes.c_long(IO_SETUP), 1, ctypes.byref(ctypes.c_ulong())))
"""
IO_SETUP = {"x86_64": 206, "aarch64": 0}[os.uname().machine]


def test_program_takes_no_terminals_requests_or_leases_from_the_machine(rules: str, place: Path) -> None:
    (place / "shown").touch()
    command = [sys.executable, "-c", EXHAUST.replace("IO_SETUP", str(IO_SETUP)), str(place / "shown")]
    assert run("--policy", rules, "--ro", str(place / "shown"), "--", *command).stdout == "True -1\n"


# --- odd callers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_program_has_its_connection_beside_the_standard_files_when_those_were_closed(
    rules: str, closed: tuple[int, ...]
) -> None:
    close = " ".join(f"{fd}>&-" for fd in closed)
    command = [*FDBROKER, "run", "--policy", rules, "--audit", "-", "--", "sh", "-c", "exit $FDBROKER_FD"]
    shell = ["sh", "-c", f'exec "$@" {close}', "sh", *command]
    ran = subprocess.run(shell, cwd="/", capture_output=True, timeout=SECONDS, check=False)
    assert 2 < ran.returncode < 100


def test_work_directory_may_have_any_name(rules: str, place: Path) -> None:
    work = os.fsencode(place) + b"/\xff:\n"
    os.mkdir(work)
    os.chmod(work, 0o777)
    ran = run("--policy", rules, "--work", os.fsdecode(work), "--", "pwd", text=False)
    assert (ran.returncode, ran.stdout) == (0, work + b"\n")
