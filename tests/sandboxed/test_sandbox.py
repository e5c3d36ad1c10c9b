"""What a program finds in its root, told from the inside: when root starts it, and when an ordinary user does."""

import json
import os
import resource
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, chdir
from pathlib import Path
from typing import Any

import pytest
from sandboxes import STARTERS, make_sandbox, python, run, with_python
from support import as_uid

from broker.installation import own_trees
from sandboxed.confinement import layout, privileges, resources
from sandboxed.confinement.sandbox import HOME, SCRATCH_BYTES, Limits

# Tells everything that it can find out about itself, as JSON. The first argument is a directory
# shown read-only, the second one that was given for writing.
PROBE = """
import errno, grp, json, os, pwd, resource, socket, stat, sys
seen, given = sys.argv[1:3]
named = json.loads(sys.argv[3])

def outcome(act, *arguments):
    try:
        result = act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    if isinstance(result, int) and result > 2:
        os.close(result)
    return "ok"

def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        return errno.errorcode[error.errno]

def make(path):
    return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)

def resolve():
    with socket.socket() as listener, socket.socket() as caller:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        caller.connect(listener.getsockname())

def node(path):
    status = os.lstat(path)
    return [stat.filemode(status.st_mode), status.st_uid]

def everything(top):
    return sorted(os.listdir(top))

def loose(top):
    # Files on the root's own file system.
    own = os.lstat("/").st_dev
    for path in sorted(top + "/" + name for name in os.listdir(top or "/")):
        status = os.lstat(path)
        if status.st_dev == own and stat.S_ISDIR(status.st_mode):
            yield from loose(path)
        elif status.st_dev == own and stat.S_ISREG(status.st_mode):
            yield path

home = os.environ["HOME"]
umask = os.umask(0)
os.umask(umask)
print(json.dumps({
    "root": everything("/"),
    "loose": list(loose("")),
    "etc": everything("/etc"),
    "dev": everything("/dev"),
    "lists": {top: everything(top) for top in (home, "/tmp", "/dev/shm")},
    "uid": os.getuid(),
    "gid": os.getgid(),
    "groups": os.getgroups(),
    "account": pwd.getpwuid(os.getuid()),
    "group": grp.getgrgid(os.getgid()).gr_name,
    "accounts": [[one.pw_name, one.pw_uid] for one in pwd.getpwall()],
    "names": [one.gr_name for one in grp.getgrall()],
    "environment": dict(os.environ),
    "cwd": os.getcwd(),
    "umask": umask,
    "host": socket.gethostname(),
    "hosts": read("/etc/hosts"),
    "network": outcome(resolve),
    "net": [line.split()[0] for line in read("/proc/net/dev").splitlines()[2:]],
    "pids": [name for name in os.listdir("/proc") if name.isdigit()],
    "parent": os.getppid(),
    "namespaces": {name: os.readlink("/proc/self/ns/" + name) for name in os.listdir("/proc/self/ns")},
    "status": read("/proc/self/status"),
    "mounts": read("/proc/self/mountinfo"),
    "masked": {path: read(path) for path in named["masked"] if os.path.lexists(path)},
    "limits": {str(kind): resource.getrlimit(kind) for kind in named["kinds"]},
    "size": [os.statvfs(p).f_blocks * os.statvfs(p).f_frsize for p in (home, "/tmp", "/dev/shm")],
    "same": len({os.stat(p).st_dev for p in (home, "/tmp", "/dev/shm")}),
    "modes": {p: node(p) for p in (home, "/tmp", "/dev/shm")},
    "devices": {p: [node("/dev/" + p)[0][0], outcome(os.open, "/dev/" + p, os.O_RDWR)] for p in named["harmless"]},
    "others": {p: outcome(os.open, "/dev/" + p, os.O_RDONLY) for p in named["others"]},
    "links": {p: os.readlink(p) for p in named["links"]},
    "write": {
        "/new": outcome(make, "/new"),
        "/etc/new": outcome(make, "/etc/new"),
        "/etc/passwd": outcome(os.open, "/etc/passwd", os.O_WRONLY),
        "/usr/new": outcome(make, "/usr/new"),
        "/dev/new": outcome(make, "/dev/new"),
        "/proc": outcome(os.open, "/proc/self/comm", os.O_WRONLY),
        "/proc/sys": outcome(os.open, "/proc/sys/kernel/hostname", os.O_WRONLY),
        "seen": outcome(make, seen + "/new"),
        "seen below": outcome(make, seen + "/below/new"),
        "seen file": outcome(os.open, seen + "/file", os.O_RDWR),
        "unlink": outcome(os.unlink, seen + "/file"),
    },
    "own": {
        "home": outcome(make, home + "/new"),
        "tmp": outcome(make, "/tmp/new"),
        "shm": outcome(make, "/dev/shm/new"),
        "given": outcome(make, given + "/new"),
        "rename": outcome(os.rename, home + "/new", home + "/newer"),
        "mkdir": outcome(os.mkdir, given + "/directory"),
        "move": outcome(os.rename, given + "/new", given + "/directory/new"),
        "fifo": outcome(os.mkfifo, home + "/fifo"),
        "link": outcome(os.symlink, "/etc", home + "/link"),
    },
    "node": outcome(os.mknod, given + "/null", 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
    "seen": everything(seen),
    "content": read(seen + "/file"),
}))
"""

NAMED = {
    "masked": layout.MASKED,
    "kinds": [kind for kind, _, _ in resources.RESOURCE_LIMITS],
    "harmless": layout.HARMLESS_DEVICES,
    "others": ("kvm", "mem", "console", "net/tun", "fuse", "loop-control", "sda", "vda", "log", "pts/0"),
    "links": [path for path, _ in layout.DEVICE_LINKS],
}


@pytest.fixture(scope="module", params=STARTERS)
def facts(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What the probe says of a sandbox as most programs have it."""
    place = Path(tempfile.mkdtemp(prefix="fdbroker-test-", dir="/tmp"))
    try:
        place.chmod(0o755)
        for name in ("seen", "given", "not-given"):
            (place / name).mkdir()
            (place / name / "below").mkdir()
            (place / name / "file").write_text(name)
            for path in (place / name, place / name / "below", place / name / "file"):
                path.chmod(0o777)

        def look() -> list[Any]:
            os.umask(0)
            with chdir("/"), ExitStack() as stack:
                shown = {"readonly": (f"{place}/seen",), "writable": (f"{place}/given",)}
                sandbox = with_python(make_sandbox(stack, **shown))
                command = python(PROBE, f"{place}/seen", f"{place}/given", json.dumps(NAMED))
                status, text = run(command, sandbox)
                assert status == 0, text
                return [sandbox.uid or os.geteuid(), json.loads(text)]

        uid, facts = as_uid(request.param, look)
        made = sorted(str(path.relative_to(place / "given")) for path in (place / "given").rglob("*"))
        yield {**facts, "expected uid": uid, "starter": request.param, "place": place, "made": made}
    finally:
        shutil.rmtree(place)


Facts = dict[str, Any]


def test_root_shows_the_system_and_nothing_else(facts: Facts) -> None:
    trees = [tree for tree in layout.SYSTEM_TREES if os.path.lexists(tree)]
    own = ["/dev", "/etc", "/proc", "/tmp", HOME]
    # The tests' interpreter and tree were shown too, wherever they are.
    assert set(facts["root"]) == {path.split("/")[1] for path in [*trees, *own, *own_trees()]}
    written = {"passwd", "group", "nsswitch.conf", "hostname", "hosts"}
    assert set(facts["etc"]) <= {path.split("/")[2] for path in layout.SYSTEM_FILES} | written
    # Besides those there is nothing but mounts, and directories and links that lead to them.
    assert facts["loose"] == sorted(f"/etc/{name}" for name in written)


def test_shown_directories_can_be_read_and_not_written(facts: Facts) -> None:
    assert facts["seen"] == ["below", "file"]
    assert facts["content"] == "seen"
    assert set(facts["write"].values()) <= {"EROFS", "EACCES"}, facts["write"]


def test_given_directory_and_own_places_can_be_written(facts: Facts) -> None:
    assert set(facts["own"].values()) == {"ok"}, facts["own"]
    assert facts["made"] == ["below", "directory", "directory/new", "file"]
    assert facts["node"] in ("EPERM", "EACCES")


def test_own_places_are_empty_and_of_one_size_in_memory(facts: Facts) -> None:
    assert facts["lists"][HOME] == facts["lists"]["/dev/shm"] == []
    assert len(facts["lists"]["/tmp"]) <= 1  # what was shown of the real one
    assert facts["size"] == [SCRATCH_BYTES] * 3
    assert facts["same"] == 1
    assert facts["modes"] == {
        HOME: ["drwx------", facts["expected uid"]],
        "/tmp": ["drwxrwxrwt", facts["expected uid"]],
        "/dev/shm": ["drwxrwxrwt", facts["expected uid"]],
    }


def test_devices_are_the_harmless_ones(facts: Facts) -> None:
    links = {path.removeprefix("/dev/") for path, _ in layout.DEVICE_LINKS}
    assert set(facts["dev"]) == {*layout.HARMLESS_DEVICES, "tty", "pts", "shm", *links}
    assert facts["devices"] == {name: ["c", "ok"] for name in layout.HARMLESS_DEVICES}
    assert set(facts["others"].values()) == {"ENOENT"}
    assert facts["links"] == dict(layout.DEVICE_LINKS)


def mounts_of(facts: Facts) -> list[tuple[str, set[str], str]]:
    """Where, with which options, and of which type."""
    lines = [line.split(" - ") for line in facts["mounts"].splitlines()]
    return [(left.split()[4], set(left.split()[5].split(",")), right.split()[0]) for left, right in lines]


def test_no_mount_has_set_id_files_and_only_the_devices_have_devices(facts: Facts) -> None:
    mounts = mounts_of(facts)
    assert len(mounts) > 10
    assert [path for path, options, _ in mounts if "nosuid" not in options] == []
    # The masks are the null device.
    devices = {f"/dev/{name}" for name in (*layout.HARMLESS_DEVICES, "tty", "pts")} | set(layout.MASKED)
    assert [path for path, options, _ in mounts if "nodev" not in options and path not in devices] == []


def test_only_own_and_given_places_are_mounted_for_writing(facts: Facts) -> None:
    may_be = {HOME, "/tmp", "/dev/shm", "/dev/pts", f"{facts['place']}/given"}
    may_be |= {f"/dev/{name}" for name in (*layout.HARMLESS_DEVICES, "tty")}
    assert {path for path, options, _ in mounts_of(facts) if "rw" in options} <= may_be


def test_proc_shows_the_program_and_its_init_alone(facts: Facts) -> None:
    assert facts["parent"] == 1
    assert len(facts["pids"]) <= 3
    assert [(path, "ro" in options) for path, options, kind in mounts_of(facts) if kind == "proc"] == [
        ("/proc", True)
    ]
    assert set(facts["masked"].values()) <= {""}
    assert "/proc/keys" in facts["masked"]


def test_program_has_every_namespace_of_its_own(facts: Facts) -> None:
    shared = {
        name for name, link in facts["namespaces"].items() if os.readlink(f"/proc/self/ns/{name}") == link
    }
    # root stays in its user namespace: a change of uid does there what an ordinary user needs a map for.
    assert {name for name in shared if not name.startswith("time")} == (
        {"user"} if facts["starter"] == 0 else set()
    )


def test_program_has_no_privilege(facts: Facts) -> None:
    status = privileges.parse_status(facts["status"])
    assert [status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [""] * 4
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["SigBlk"], 16) == 0
    assert facts["uid"] == facts["expected uid"]
    assert set(status["Uid"].split()) == {str(facts["uid"])}
    assert set(status["Gid"].split()) == {str(facts["gid"])}
    if facts["starter"] == 0:
        assert status["CapBnd"].strip("0") == ""
        assert facts["groups"] == []
        assert 61184 <= facts["uid"] <= 65519


def test_program_has_limits_and_a_umask_of_its_own(facts: Facts) -> None:
    for kind, soft, hard in resources.RESOURCE_LIMITS:
        now_soft, now_hard = facts["limits"][str(kind)]
        assert 0 <= now_soft <= soft
        assert 0 <= now_hard <= hard
    assert facts["umask"] == 0o077  # what a sandbox says that nobody asked for another


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ((100, 200), Limits(), [(100, 200)]),
        ((resource.RLIM_INFINITY, None), Limits(), [(1024, 4096)]),
        ((1000, 2000), Limits(files=300), [(300, 300)]),
        ((100, 200), Limits(files=300), [(100, 200)]),
    ],
)
def test_limits_only_go_down(
    own: tuple[int, int | None], limits: Limits, expected: list[tuple[int, int]]
) -> None:
    def look() -> list[list[int]]:
        soft, hard = own[0], resource.getrlimit(resource.RLIMIT_NOFILE)[1] if own[1] is None else own[1]
        with ExitStack() as stack:
            sandbox = with_python(make_sandbox(stack, limits=limits))
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (hard if soft == resource.RLIM_INFINITY else soft, hard)
            )
            script = "import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
            return [[int(word) for word in run(python(script), sandbox)[1].split()]]

    found = as_uid(os.geteuid(), look)
    for (soft, hard), (most_soft, most_hard) in zip(found, expected, strict=True):
        assert soft <= most_soft
        assert hard <= most_hard
        assert own[1] is None or (soft, hard) == (most_soft, most_hard)


def test_limits_of_one_process_and_one_user_reach_the_program() -> None:
    script = "ulimit -d; ulimit -u; ulimit -n"
    with ExitStack() as stack:
        limits = Limits(memory=512 * 1024 * 1024, processes=50, files=64)
        assert run(["bash", "-c", script], make_sandbox(stack, limits=limits))[1].split() == [
            "524288",
            "50",
            "64",
        ]


def test_program_has_an_account_and_no_others_are_named(facts: Facts) -> None:
    uid, gid = facts["uid"], facts["gid"]
    assert facts["account"] == ["sandbox", "x", uid, gid, "", HOME, "/bin/sh"]
    assert facts["group"] == "sandbox"
    assert sorted(facts["accounts"]) == sorted([["root", 0], ["nobody", 65534], ["sandbox", uid]])
    assert sorted(facts["names"]) == ["nogroup", "root", "sandbox"]


def test_program_starts_at_home_with_a_clean_environment(facts: Facts) -> None:
    assert facts["cwd"] == facts["environment"]["HOME"] == HOME
    assert facts["environment"]["TMPDIR"] == "/tmp"
    allowed = {"PATH", "HOME", "TMPDIR", "LANG", "TERM", "TZ", "COLUMNS", "LINES", "PWD", "SHLVL", "_"}
    assert {name for name in facts["environment"] if not name.startswith("LC_")} <= allowed


def test_program_has_a_loopback_and_a_host_name_of_its_own(facts: Facts) -> None:
    assert facts["host"] == "sandbox"
    assert facts["hosts"] == "127.0.0.1 localhost sandbox\n::1 localhost\n"
    assert facts["net"] == ["lo:"]
    assert facts["network"] == "ok"


@pytest.mark.parametrize("starter", STARTERS)
def test_scratch_has_one_limit_for_all_its_places(starter: int) -> None:
    fill = "for p in ~ /tmp /dev/shm; do head -c 400000 /dev/zero > $p/f || echo full; done 2>/dev/null"

    def look() -> str:
        with ExitStack() as stack:
            sandbox = make_sandbox(stack, limits=Limits(scratch=1024 * 1024))
            return run(["bash", "-c", fill], sandbox)[1]

    assert as_uid(starter, look) == "full\n"


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("none", ["refused", "lo:", "hosts"]),
        ("loopback", ["refused", "lo:", "hosts"]),
        ("host", ["connected", "all", "no hosts of its own"]),
    ],
)
def test_network_is_what_was_asked_for(starter: int, network: str, says: list[str]) -> None:
    script = (
        "import os, socket, sys\n"
        "try: socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close(); print('connected')\n"
        "except OSError: print('refused')\n"
        "names = [line.split()[0] for line in open('/proc/net/dev').read().splitlines()[2:]]\n"
        "print('lo:' if names == ['lo:'] and sys.argv[2] == 'own' else 'all')\n"
        "print('hosts' if 'localhost sandbox' in open('/etc/hosts').read() else 'no hosts of its own')\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])

        def look() -> list[str]:
            with ExitStack() as stack:
                sandbox = with_python(make_sandbox(stack, network=network))
                own = "own" if sandbox.has_own_network else "host"
                return run(python(script, port, own), sandbox)[1].split("\n")[:-1]

        assert as_uid(starter, look) == says


def test_set_id_bits_of_a_shown_file_give_nothing(place: Path) -> None:
    program = place / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, readonly=(str(place),))
        expected = os.geteuid() if sandbox.uid is None else sandbox.uid
        assert run([str(program), "-u"], sandbox) == (0, f"{expected}\n")
        assert stat.S_IMODE(program.stat().st_mode) == 0o4755
