"""A worker that was taken over: what it reaches is what the policy gives, and each layer sees to its part."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import TREE, Broker, allow, needs_root, policy, wait_until

import sandboxed
from broker import permissions
from broker.permissions import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, READ, WRITE, AclEntry, Guarded
from broker.worker_filter import JUDGED, NUMBERS, build
from sandboxed.confinement import syscall_numbers

IS_ROOT = os.geteuid() == 0


@contextlib.contextmanager
def attacked(place: Path, layer: str) -> Iterator[list[str]]:
    """The names of the attacks that succeeded in a worker without `layer`; it serves all the same."""
    given, beside, outside = place / "given", place / "beside", place / "outside"
    for directory in (given, outside):
        directory.mkdir()
    (given / "file").write_text("content")
    beside = given / "beside"
    beside.write_text("of root")
    beside.chmod(0o600)
    (given / "to-unlink").write_text("")
    (outside / "secret").write_text("secret")
    rules = place / "rules.yaml"
    rules.write_text(policy(allow("file", str(given / "file"))))
    address = str(place / "sock")
    program = [
        sys.executable,
        str(TREE / "tests/broker/attacking_worker.py"),
        str(outside / "secret"),
        str(beside),
    ]
    process = subprocess.Popen(
        [*program, layer, "serve", "--policy", str(rules), "--socket", address, "--audit", str(place / "audit")],
        cwd=TREE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(TREE)},
    )  # fmt: skip
    with process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            succeeded = next((line for line in lines if line.startswith("ATTACKS ")), "ATTACKS null")
            found = json.loads(succeeded.removeprefix("ATTACKS "))
            assert found is not None, "the worker ended before it attacked"
            with sandboxed.connect(address) as client, client.open_fd(str(given / "file"), ["read"]) as fd:
                assert os.read(fd, 100) == b"content"
            yield found
        finally:
            process.terminate()


def test_worker_that_was_taken_over_gets_nothing_out(place: Path) -> None:
    with attacked(place, "none") as succeeded:
        # An ordinary user's worker has that user's uid: what lies beside the policy's files is in its domain.
        assert set(succeeded) == (set() if IS_ROOT else {"read-beside"})


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("seccomp", {"socket-unix", "datagram-pair", "executable-memory", "memfd", "io-uring", "clone3"}),
        ("landlock", {"read-outside"}),
        pytest.param("privileges", {"read-beside"}, marks=needs_root),
    ],
)
def test_attack_on_the_machine_succeeds_when_a_layer_of_the_worker_is_taken_away(
    place: Path, layer: str, expected: set[str]
) -> None:
    with attacked(place, layer) as succeeded:
        assert expected <= set(succeeded)


@needs_root
def test_worker_has_its_own_uid_and_what_the_rules_need(
    start_broker: Callable[[str], Broker], place: Path
) -> None:
    secret = place / "secret"
    secret.write_text("content")
    secret.chmod(0o600)
    broker = start_broker(policy(allow("secret", str(secret)), allow("null", "/dev/null", more="type: char")))
    with broker.client() as client, client.open_fd(str(secret), ["read"]) as fd:
        assert os.read(fd, 100) == b"content"
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{broker.worker}/status").read_text().splitlines()
        if ":\t" in line
    )
    told = broker.records(event="worker")[0]["confinement"]
    assert status["Uid"].split() == [str(told["uid"])] * 4 and told["uid"] != 0
    assert told["capabilities"] == {"CAP_DAC_READ_SEARCH": ["test/secret"]}
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 1 << CAP_DAC_READ_SEARCH
    assert int(status["CapBnd"], 16) == int(status["CapAmb"], 16) == int(status["CapInh"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"].split()) == ("1", "2", [])
    assert os.readlink(f"/proc/{broker.worker}/ns/net") != os.readlink("/proc/self/ns/net")


@needs_root
def test_worker_needs_no_capability_when_a_group_will_do(
    start_broker: Callable[[str], Broker], place: Path
) -> None:
    file = place / "file"
    file.write_text("content")
    os.chown(file, 0, 60123)
    file.chmod(0o660)
    broker = start_broker(policy(allow("file", str(file), "read, write")))
    with broker.client() as client, client.open_fd(str(file), ["read", "write"]) as fd:
        assert os.read(fd, 100) == b"content"
    told = broker.records(event="worker")[0]["confinement"]
    assert (told["capabilities"], told["groups"]) == ({}, {"60123": ["test/file"]})


@needs_root
def test_worker_can_look_up_a_denied_name_where_root_alone_may(
    start_broker: Callable[[str], Broker], place: Path
) -> None:
    """A hard link is denied by the file's other name: a worker that cannot see that one would give it."""
    closed = place / "closed"
    closed.mkdir(0o700)
    (closed / "secret").write_text("secret")
    os.link(closed / "secret", place / "link")
    deny = f"name: no, deny: all, paths: [{json.dumps(str(closed / 'secret'))}]"
    broker = start_broker(policy(allow("link", str(place / "link")), deny))
    with broker.client() as client, pytest.raises(sandboxed.Denied):
        client.open_fd(str(place / "link"), ["read"])


@needs_root
def test_client_gets_a_device_that_came_later_when_the_worker_was_confined_anew(
    start_broker: Callable[[str], Broker],
) -> None:
    node = Path(f"/dev/fdbroker-test-{os.getpid()}")
    broker = start_broker(policy(allow("null", str(node), more="type: char")))
    os.mknod(node, 0o600 | 0o020000, os.makedev(1, 3))
    try:
        with broker.client() as client:

            def opened() -> bool:
                with contextlib.suppress(PermissionError):
                    client.open_fd(str(node), ["read"]).close()
                    return True
                return False

            assert not opened()  # its domain does not name it
            wait_until(opened, "the next worker to reach it, on the same connection")
        [broker.worker] = wait_until(
            lambda: [one for one in [_only_child(broker.supervisor)] if one], "the first one to end"
        )
        assert len(broker.all_records(event="worker")) == 2
    finally:
        node.unlink()
        broker.stop()


def _only_child(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if len(children) == 1 else None


def test_broker_does_not_start_when_a_layer_of_the_worker_is_missing(place: Path) -> None:
    rules = place / "rules.yaml"
    rules.write_text(policy(allow("null", "/dev/null", more="type: char")))
    command = [
        sys.executable, "-I", str(TREE / "tests/refusing.py"), "landlock_create_ruleset",
        sys.executable, "-m", "broker.main", "serve", "--policy", str(rules), "--socket", str(place / "sock"),
    ]  # fmt: skip
    refused = subprocess.run(command, cwd=TREE, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "cannot give the layer 'landlock'" in refused.stderr
    weak = subprocess.Popen(
        [*command, "--weak", "landlock"], cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with weak:
        assert weak.stdout is not None and weak.stderr is not None
        assert "goes without the layer 'landlock'" in weak.stderr.readline()
        confinement = json.loads(weak.stdout.readline())["confinement"]
        assert confinement["without"]["landlock"] == "accepted"
        weak.terminate()
    assert weak.returncode == 0


# (mode, uid, gid, ACL), whether uid 7 of group 8 may do it, the group that would let it, the capability
PERMISSIONS = [
    (Guarded(0o100400, 7, 0), READ, True, None, CAP_DAC_READ_SEARCH),
    (Guarded(0o100077, 7, 8), READ, False, None, CAP_DAC_READ_SEARCH),
    (Guarded(0o100640, 0, 8), READ, True, None, CAP_DAC_READ_SEARCH),
    (Guarded(0o100640, 0, 9), READ, False, 9, CAP_DAC_READ_SEARCH),
    (Guarded(0o100640, 0, 9), READ | WRITE, False, None, CAP_DAC_OVERRIDE),
    (Guarded(0o100604, 0, 8), READ, False, None, CAP_DAC_READ_SEARCH),
    (Guarded(0o100604, 0, 9), READ, True, 9, CAP_DAC_READ_SEARCH),
    (Guarded(0o040700, 0, 0), 1, False, None, CAP_DAC_READ_SEARCH),
    # group::--- and group:9:rw- under mask::r--: the mode's group bits are the mask
    (Guarded(0o100640, 0, 5, (AclEntry(4, 0, 0), AclEntry(8, 6, 9), AclEntry(16, 4, 0), AclEntry(32, 0, 0))),
     READ, False, 9, CAP_DAC_READ_SEARCH),
    (Guarded(0o100640, 0, 5, (AclEntry(4, 0, 0), AclEntry(8, 6, 9), AclEntry(16, 4, 0), AclEntry(32, 0, 0))),
     WRITE, False, None, CAP_DAC_OVERRIDE),
    (Guarded(0o100640, 0, 5, (AclEntry(2, 4, 7), AclEntry(4, 0, 0), AclEntry(16, 4, 0), AclEntry(32, 0, 0))),
     READ, True, None, CAP_DAC_READ_SEARCH),
]  # fmt: skip


@pytest.mark.parametrize(("guarded", "wanted", "allowed", "group", "capability"), PERMISSIONS)
def test_permissions_are_the_kernels(
    guarded: Guarded, wanted: int, allowed: bool, group: int | None, capability: int
) -> None:
    assert permissions.may(guarded, 7, {8}, wanted) is allowed
    if not allowed:
        assert permissions.group_that_lets(guarded, 7, {8}, wanted) == group
    assert permissions.capability_that_lets(guarded.mode, wanted) == capability


@pytest.mark.parametrize("machine", syscall_numbers.ARCHITECTURES)
def test_numbers_of_the_workers_calls_are_those_of_libseccomp(machine: str) -> None:
    import ctypes

    library = ctypes.CDLL("libseccomp.so.2")
    architecture = syscall_numbers.ARCHITECTURES[machine]
    column = 0 if machine == "x86_64" else 1
    for name, row in NUMBERS.items():
        number = library.seccomp_syscall_resolve_name_arch(architecture.audit_arch, name.encode())
        assert row[column] == (number if number >= 0 else None), name
    assert set(JUDGED) <= set(NUMBERS)
    assert build(architecture)
