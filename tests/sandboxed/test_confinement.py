"""What a confined program finds, told from the inside, when root starts it and when an ordinary user does."""

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxed import confinement
from sandboxed.confinement import Confinement, clean_environment, remove_tree, work_directory

ROOT = Path(__file__).parents[2]
ORDINARY_UID = 65533
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start as another uid")

# Starts a probe confined. Its own umask, fds and limits are careless on purpose.
STARTER = """
import json, os, sys
from contextlib import ExitStack
from sandboxed import child, identities
from sandboxed.confinement import Confinement, clean_environment, work_directory

probe, arguments = sys.argv[1], sys.argv[2:]
os.umask(0)
leak = os.open("/etc/passwd", os.O_RDONLY)
os.set_inheritable(leak, True)
kept, written = os.pipe()
os.write(written, b"kept")
with ExitStack() as stack:
    uid = stack.enter_context(identities.unused_uid()).uid if os.geteuid() == 0 else None
    work = stack.enter_context(work_directory(uid, uid))
    environment = clean_environment(work, {"FDBROKER_FD": str(kept)}, ["PASSED"])
    command = [sys.executable, "-I", "-c", probe, str(kept), *arguments]
    started = stack.enter_context(child.start(command, Confinement(uid, uid, work, (kept,)), environment))
    sys.exit(started.wait())
"""

# Tells everything that it can find out about itself, as JSON.
PROBE = """
import ctypes, errno, json, os, resource, sys
kept, outside, device_names = int(sys.argv[1]), sys.argv[2], sys.argv[3].split()

def outcome(act):
    try:
        result = act()
    except OSError as error:
        return errno.errorcode[error.errno]
    if isinstance(result, int) and result > 2:
        os.close(result)
    return "ok"

def status():
    with open("/proc/self/status") as file:
        return {k: v.strip() for k, _, v in (line.partition(":") for line in file)}

def fds():
    return [fd for fd in map(int, os.listdir("/proc/self/fd")) if outcome(lambda: os.fstat(fd)) == "ok"]

work = os.environ["HOME"]
death = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(death))
umask = os.umask(0)
facts = {
    "fds": fds(),
    "kept": os.read(kept, 9).decode(),
    "status": status(),
    "environment": dict(os.environ),
    "umask": umask,
    "death": death.value,
    "cwd": os.getcwd(),
    "limits": {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")},
    "devices": {name: outcome(lambda: os.open("/dev/" + name, os.O_RDWR)) for name in device_names},
    "listing_dev": outcome(lambda: os.listdir("/dev")),
    "reading_etc": outcome(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    "reading_sys": outcome(lambda: os.listdir("/sys")),
    "outside": {
        "read": outcome(lambda: os.open(outside + "/file", os.O_RDONLY)),
        "write": outcome(lambda: os.open(outside + "/file", os.O_WRONLY)),
        "truncate": outcome(lambda: os.truncate(outside + "/file", 0)),
        "create": outcome(lambda: os.open(outside + "/new", os.O_CREAT | os.O_WRONLY)),
        "mkdir": outcome(lambda: os.mkdir(outside + "/newdir")),
        "remove": outcome(lambda: os.unlink(outside + "/file")),
        "rename_out": outcome(lambda: (os.close(os.open(work + "/a", os.O_CREAT)),
                                       os.rename(work + "/a", outside + "/a"))),
    },
    "work": {
        "mode": os.stat(work).st_mode & 0o7777,
        "owner": os.stat(work).st_uid,
        "create": outcome(lambda: os.open(work + "/f", os.O_CREAT | os.O_WRONLY)),
        "truncate": outcome(lambda: os.truncate(work + "/f", 10)),
        "mkdir": outcome(lambda: os.mkdir(work + "/d")),
        "move": outcome(lambda: os.rename(work + "/f", work + "/d/f")),
        "remove": outcome(lambda: os.unlink(work + "/d/f")),
        "fifo": outcome(lambda: os.mkfifo(work + "/p")),
        "link": outcome(lambda: os.symlink("/etc", work + "/l")),
    },
    "signal_to_parent": outcome(lambda: os.kill(os.getppid(), 0)),
    "uid": os.getuid(),
}
print(json.dumps(facts))
"""

FORBIDDEN_DEVICES = ("kvm", "tty", "loop-control", "ptmx", "net/tun", "fuse", "mem", "console")


def run_confined(probe: str, *arguments: str, user: int | None = None, cwd: str = "/") -> str:
    """What a confined `probe` prints, started by `user` (None: whoever runs the tests)."""
    result = subprocess.run(
        [sys.executable, "-c", STARTER, probe, *arguments],
        capture_output=True,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "SECRET": "x", "PASSED": "y", "LC_TIME": "C", "USER": "me"},
        text=True,
        check=True,
        user=user,
        group=user,
        extra_groups=None if user is None else (),
    )
    return result.stdout


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory that file permissions leave open to everybody, with such a file in it."""
    directory = Path("/tmp") / f"outside-{os.urandom(8).hex()}"
    directory.mkdir()
    directory.chmod(0o777)
    file = directory / "file"
    file.write_text("content")
    file.chmod(0o666)
    yield directory
    remove_tree(str(directory))


@pytest.fixture(params=[None, pytest.param(ORDINARY_UID, marks=NEEDS_ROOT)], ids=["own-uid", "ordinary-uid"])
def facts(request: pytest.FixtureRequest, outside: Path) -> dict[str, Any]:
    devices = " ".join((*FORBIDDEN_DEVICES, *confinement.HARMLESS_DEVICES))
    facts: dict[str, Any] = json.loads(run_confined(PROBE, str(outside), devices, user=request.param))
    facts["starter"] = os.geteuid() if request.param is None else request.param
    facts["content"] = (outside / "file").read_text()
    return facts


def test_confined_program_has_no_privilege(facts: dict[str, Any]) -> None:
    status = facts["status"]
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert status["NoNewPrivs"] == "1"
    if facts["starter"] == 0:
        assert int(status["CapBnd"], 16) == 0
        assert status["Groups"] == ""
        assert 61184 <= facts["uid"] <= 65519
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(facts["uid"])}
    else:
        assert facts["uid"] == facts["starter"]


def test_confined_program_opens_no_device_but_the_harmless(facts: dict[str, Any]) -> None:
    for name in FORBIDDEN_DEVICES:
        there = Path("/dev", name).exists()
        assert facts["devices"][name] == ("EACCES" if there else "ENOENT"), name
    for name in confinement.HARMLESS_DEVICES:
        assert facts["devices"][name] == "ok", name
    assert facts["listing_dev"] == "EACCES"


def test_confined_program_reads_the_system(facts: dict[str, Any]) -> None:
    assert facts["reading_etc"] == facts["reading_sys"] == facts["outside"]["read"] == "ok"


def test_confined_program_changes_nothing_outside_its_work_directory(facts: dict[str, Any]) -> None:
    outcomes = dict(facts["outside"])
    del outcomes["read"]
    assert set(outcomes.values()) <= {"EACCES", "EXDEV"}, outcomes
    assert facts["content"] == "content"


def test_confined_program_writes_in_its_work_directory(facts: dict[str, Any]) -> None:
    work = facts["work"]
    assert (work.pop("mode"), work.pop("owner")) == (0o700, facts["uid"])
    assert set(work.values()) == {"ok"}, work
    assert not Path(facts["environment"]["HOME"]).exists()


def test_confined_program_has_only_the_fds_that_were_kept(facts: dict[str, Any]) -> None:
    kept = int(facts["environment"]["FDBROKER_FD"])
    assert sorted(facts["fds"]) == sorted({0, 1, 2, kept})
    assert facts["kept"] == "kept"


def test_confined_program_has_a_clean_environment(facts: dict[str, Any]) -> None:
    environment = facts["environment"]
    environment.pop("LC_CTYPE", None)  # Python's own coercion of the C locale
    assert set(environment) == {"PATH", "HOME", "TMPDIR", "LC_TIME", "PASSED", "FDBROKER_FD"}
    assert environment["PATH"] == confinement.DEFAULT_PATH
    assert environment["HOME"] == environment["TMPDIR"]


def test_confined_program_has_limits_umask_and_clean_signals(facts: dict[str, Any]) -> None:
    names = {getattr(resource, name): name for name in dir(resource) if name.startswith("RLIMIT_")}
    for kind, soft, hard in confinement.RESOURCE_LIMITS:
        now_soft, now_hard = facts["limits"][names[kind]]
        assert 0 <= now_soft <= soft
        assert 0 <= now_hard <= hard
    assert facts["umask"] == 0o077
    assert int(facts["status"]["SigBlk"], 16) == 0
    # Bits 12 and 24 are SIGPIPE and SIGXFSZ, which the probe's own Python ignores.
    # GNU make starts its children with 32 and 33, the C library's own signals, ignored.
    assert int(facts["status"]["SigIgn"], 16) & ~(1 << 12 | 1 << 24 | 1 << 31 | 1 << 32) == 0


def test_confined_program_dies_with_its_parent_which_it_cannot_signal(facts: dict[str, Any]) -> None:
    assert facts["death"] == 9
    assert facts["signal_to_parent"] == "EPERM"


@NEEDS_ROOT
def test_confined_program_starts_in_its_work_directory_when_the_other_is_closed_to_it(outside: Path) -> None:
    inner = outside / "closed" / "open"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    probe = "import os; print(os.getcwd() == os.environ['HOME'])"
    assert run_confined(probe, cwd=str(inner)).strip() == "True"
    inner.parent.chmod(0o755)
    assert run_confined("import os; print(os.getcwd())", cwd=str(inner)).strip() == str(inner)


@pytest.mark.parametrize("user", [None, pytest.param(ORDINARY_UID, marks=NEEDS_ROOT)])
def test_shell_redirects_to_dev_null_and_pipes_in_confinement(user: int | None) -> None:
    script = "echo x > /dev/null && head -c 4 /dev/zero | wc -c && echo done > $HOME/f && cat $HOME/f"
    probe = f"import subprocess; print(subprocess.check_output(['sh', '-c', {script!r}], text=True))"
    assert run_confined(probe, user=user).split() == ["4", "done"]


def test_confinement_refuses_half_an_identity() -> None:
    with pytest.raises(ValueError, match="together"):
        Confinement(uid=1000, gid=None, work="/tmp")


def test_environment_is_an_allow_list_with_extras_on_top() -> None:
    passing = {"PATH": "/opt/bin", "LANG": "C", "LC_ALL": "C", "ASKED_FOR": "1"}
    personal = {"USER": "me", "LOGNAME": "me", "HOME": "/root", "TMPDIR": "/var/tmp"}
    loading = {"LD_PRELOAD": "x.so", "PYTHONPATH": "/x"}
    inherited = {**passing, **personal, **loading, "TZ": "UTC"}
    environment = clean_environment("/work", {"TZ": "CET"}, ["ASKED_FOR", "MISSING"], inherited)
    assert environment == {**passing, "TZ": "CET", "HOME": "/work", "TMPDIR": "/work"}


def test_limits_are_never_raised() -> None:
    unlimited = resource.RLIM_INFINITY
    assert confinement._lower(unlimited, 5) == 5
    assert confinement._lower(3, 5) == 3
    assert confinement._lower(7, 5) == 5


def test_work_directory_is_private_and_goes_with_all_that_is_in_it() -> None:
    with work_directory(None, None) as path:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
        assert os.stat(path).st_uid == os.geteuid()
        Path(path, "file").write_text("x")
    assert not os.path.lexists(path)


@NEEDS_ROOT
def test_work_directory_of_root_ignores_tmpdir(monkeypatch: pytest.MonkeyPatch, outside: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(outside))
    with work_directory(ORDINARY_UID, ORDINARY_UID) as path:
        assert os.path.dirname(path) == "/tmp"
        assert os.stat(path).st_uid == os.stat(path).st_gid == ORDINARY_UID


def fill_with_malice(path: str, target: Path) -> None:
    """Links to `target`, directories without permissions, and more levels than a path or a stack can take."""
    os.symlink(target, os.path.join(path, "link"))
    os.mkfifo(os.path.join(path, "fifo"))
    os.makedirs(os.path.join(path, "closed", "inner"))
    os.symlink(target / "file", os.path.join(path, "closed", "inner", "link"))
    os.chmod(os.path.join(path, "closed", "inner"), 0)
    os.chmod(os.path.join(path, "closed"), 0)
    here = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.symlink(target, "link", dir_fd=here)
    os.close(here)


def test_work_directory_full_of_malice_is_removed_and_no_link_followed(outside: Path) -> None:
    fds = os.listdir("/proc/self/fd")
    with work_directory(None, None) as path:
        fill_with_malice(path, outside)
    assert not os.path.lexists(path)
    assert (outside / "file").read_text() == "content"
    assert os.listdir("/proc/self/fd") == fds


def test_removal_gives_up_with_an_error_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, outside: Path
) -> None:
    (outside / "one" / "two" / "three").mkdir(parents=True)
    with monkeypatch.context() as hasty:
        hasty.setattr(confinement, "REMOVAL_SECONDS", -1.0)
        with pytest.raises(OSError, match="cannot remove everything"):
            remove_tree(str(outside))
    assert outside.exists()
