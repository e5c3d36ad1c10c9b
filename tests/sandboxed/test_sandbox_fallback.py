"""What a program may do where the machine gives no namespaces: told from the inside, for root and an ordinary user."""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from refusing import refuse_calls
from sandboxes import STARTERS, make_sandbox, python, run, with_python
from support import as_uid

from sandboxed.confinement import layout, privileges
from sandboxed.confinement.sandbox import NAMESPACES
from sandboxed.confinement.weak import start_accepting
from sandboxed.confinement.workdir import work_directory

PROBE = """
import ctypes, errno, json, os, socket, sys
outside, seen, given, broker, caller, port, *harmless = sys.argv[1:]

def outcome(act, *arguments):
    try:
        result = act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    if isinstance(result, int) and result > 2:
        os.close(result)
    return "ok"

def make(path):
    return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)

def connect(family, kind, address):
    with socket.socket(family, kind) as one:
        one.connect(address)

home = os.environ["HOME"]
mark = os.path.basename(os.path.dirname(outside)) + "-new"
death = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(death))
print(json.dumps({
    "read": {path: outcome(os.open, path, os.O_RDONLY) for path in
             ("/etc/passwd", "/etc/shadow", "/etc/hostname", outside + "/file", outside, "/home", "/root", "/run",
              "/var", "/sys", "/dev", "/dev/shm", "/tmp", "/")},
    "system": {path: outcome(os.open, path, os.O_RDONLY) for path in
               ("/usr/bin", os.path.realpath("/bin/sh"), "/etc/ssl/certs", seen, seen + "/file", given, home)
               if os.path.exists(path)},
    "outside": {
        "write": outcome(os.open, outside + "/file", os.O_WRONLY),
        "truncate": outcome(os.truncate, outside + "/file", 0),
        "create": outcome(make, outside + "/new"),
        "mkdir": outcome(os.mkdir, outside + "/directory"),
        "remove": outcome(os.unlink, outside + "/file"),
        "rename": (make(home + "/moving"), outcome(os.rename, home + "/moving", outside + "/moved"))[1],
        "link": outcome(os.link, outside + "/file", home + "/linked"),
        "seen": outcome(make, seen + "/new"),
        "tmp": outcome(make, "/tmp/" + mark),
        "shm": outcome(make, "/dev/shm/" + mark),
        "proc": outcome(os.open, "/proc/self/comm", os.O_WRONLY),
    },
    "own": {
        "create": outcome(make, home + "/f"),
        "truncate": outcome(os.truncate, home + "/f", 10),
        "mkdir": outcome(os.mkdir, home + "/d"),
        "move": outcome(os.rename, home + "/f", home + "/d/f"),
        "given": outcome(make, given + "/new"),
        "fifo": outcome(os.mkfifo, home + "/p"),
        "link": outcome(os.symlink, "/etc", home + "/l"),
    },
    "home": [oct(os.stat(home).st_mode & 0o7777), os.stat(home).st_uid == os.getuid(), home == os.environ["TMPDIR"]],
    "harmless": {name: outcome(os.open, "/dev/" + name, os.O_RDWR) for name in harmless},
    "devices": {name: outcome(os.open, "/dev/" + name, os.O_RDWR) for name in
                ("kvm", "mem", "console", "ptmx", "net/tun", "fuse", "loop-control", "tty")
                if os.path.exists("/dev/" + name)},
    "sockets": {
        "broker's file": outcome(connect, socket.AF_UNIX, socket.SOCK_STREAM, broker),
        "abstract": outcome(connect, socket.AF_UNIX, socket.SOCK_STREAM, chr(0) + broker),
        "tcp": outcome(connect, socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(port))),
        "udp": outcome(connect, socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", int(port))),
        "pair": outcome(lambda: [end.close() for end in socket.socketpair()]),
    },
    "others": {
        "signal": outcome(os.kill, int(caller), 0),
        "init": outcome(os.kill, os.getppid(), 0),
        "environ": outcome(os.open, f"/proc/{caller}/environ", os.O_RDONLY),
        "mem": outcome(os.open, f"/proc/{caller}/mem", os.O_RDONLY),
        "fd": outcome(os.listdir, f"/proc/{caller}/fd"),
        "limits": outcome(lambda: __import__("resource").prlimit(int(caller), 7)),
    },
    "death": death.value,
    "status": open("/proc/self/status").read(),
}))
"""

Facts = dict[str, Any]


@pytest.fixture(scope="module", params=STARTERS)
def facts(request: pytest.FixtureRequest) -> Iterator[Facts]:
    """What the probe says. The machine refuses namespaces for real."""
    place = Path(tempfile.mkdtemp(prefix="fdbroker-test-", dir="/tmp"))
    path = str(place / "socket")
    with (
        ExitStack() as stack,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.create_server(("127.0.0.1", 0)) as tcp,
    ):
        stack.callback(shutil.rmtree, place)
        for directory in ("/tmp", "/dev/shm"):  # where nothing is to be made
            stack.callback(Path(directory, f"{place.name}-new").unlink, missing_ok=True)
        place.chmod(0o777)
        named.bind(path)
        abstract.bind(f"\0{path}")
        os.chmod(path, 0o777)
        for listener in (named, abstract):
            listener.listen()
        for name in ("outside", "seen", "given"):
            (place / name).mkdir()
            (place / name / "file").write_text("content")
            for one in (place / name, place / name / "file"):
                one.chmod(0o777)

        def look() -> str:
            with ExitStack() as stack:
                shown = {"readonly": (f"{place}/seen",), "writable": (f"{place}/given",), "socket": path}
                sandbox = with_python(make_sandbox(stack, **shown))
                refuse_calls(["unshare"])
                work = stack.enter_context(work_directory(sandbox.uid, sandbox.gid))
                arguments = [f"{place}/{name}" for name in ("outside", "seen", "given", "socket")]
                arguments += [str(os.getpid()), str(tcp.getsockname()[1]), *layout.HARMLESS_DEVICES]
                status, text = run(python(PROBE, *arguments), sandbox.without(NAMESPACES)._replace(work=work))
                assert status == 0, text
                return text

        facts = json.loads(as_uid(request.param, look))
        yield {**facts, "content": (place / "outside/file").read_text(), "starter": request.param}


def test_program_reads_the_system_and_what_it_was_given(facts: Facts) -> None:
    assert set(facts["system"].values()) == {"ok"}, facts["system"]


def test_program_reads_nothing_else(facts: Facts) -> None:
    assert set(facts["read"].values()) <= {"EACCES", "ENOENT"}, facts["read"]


def test_program_changes_nothing_outside(facts: Facts) -> None:
    assert set(facts["outside"].values()) <= {"EACCES", "EXDEV", "EPERM"}, facts["outside"]
    assert facts["content"] == "content"


def test_program_writes_in_its_directory_and_in_what_it_was_given(facts: Facts) -> None:
    assert set(facts["own"].values()) == {"ok"}, facts["own"]
    assert facts["home"] == ["0o700", True, True]


def test_program_opens_no_device_but_the_harmless(facts: Facts) -> None:
    assert facts["harmless"] == dict.fromkeys(layout.HARMLESS_DEVICES, "ok")
    assert set(facts["devices"].values()) <= {"EACCES"}, facts["devices"]


def test_program_makes_no_socket_that_reaches_anybody(facts: Facts) -> None:
    reaching = {name: outcome for name, outcome in facts["sockets"].items() if name != "pair"}
    assert set(reaching.values()) <= {"EPERM", "EACCES", "EAFNOSUPPORT"}, reaching


def test_program_reaches_no_other_process(facts: Facts) -> None:
    assert set(facts["others"].values()) <= {"EPERM", "EACCES"}, facts["others"]


def test_program_has_no_privilege_and_dies_with_its_init(facts: Facts) -> None:
    status = privileges.parse_status(facts["status"])
    assert [status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [""] * 4
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert facts["death"] == 9
    if facts["starter"] == 0:
        assert (status["Groups"], status["CapBnd"].strip("0")) == ("", "")


@pytest.mark.parametrize("starter", STARTERS)
def test_program_without_landlock_too_is_held_by_the_filter_and_its_uid(starter: int, place: Path) -> None:
    script = "id -u; python3 -c 'import socket; socket.socket()' 2>&1 | tail -1; unshare -U true 2>/dev/null || echo no"

    def look() -> list[Any]:
        with ExitStack() as stack:
            sandbox = make_sandbox(stack)
            refuse_calls(["unshare", "landlock_create_ruleset"])
            said: list[str] = []

            def attempt(wanted: Any) -> None:
                said.append(run(["sh", "-c", script], wanted)[1])

            start_accepting(("namespaces", "landlock"), sandbox, attempt, stack)
            return [sandbox.uid or os.geteuid(), said]

    uid, said = as_uid(starter, look)
    assert len(said) == 1
    own, refused, no = said[0].splitlines()
    assert (own, no) == (str(uid), "no")
    assert "Error" in refused
