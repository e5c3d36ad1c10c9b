"""Names that lead elsewhere: symbolic and magic links, hard links, nodes made where everybody may write.

The attacker writes into a directory that a rule names, and asks for what lies there. The broker runs as root
(or as whoever runs the tests), so every link that it followed without thought would give its own rights away.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile import DENIED, OPEN_FAILED, Hostile, opening
from support import STRANGER, Broker, allow, as_uid, needs_root, policy

Start = Callable[..., Broker]

ALL_FILES = "type: [file, char, block, fifo, directory, socket]"


def refusal(broker: Broker, path: object, access: tuple[str, ...] = ("read",)) -> str:
    """The error of an Open that must give no fd."""
    with Hostile(broker) as client:
        return client.error(opening(path, access))


def gets(broker: Broker, path: object, access: tuple[str, ...] = ("read",)) -> os.stat_result:
    """What an Open that must succeed gives."""
    with Hostile(broker) as client:
        reply, fds = client.ask(opening(path, access))
        assert len(fds) == 1, reply
        try:
            return os.fstat(fds[0])
        finally:
            os.close(fds[0])


@pytest.fixture
def shared(place: Path) -> Path:
    """A directory that everybody may write into, as clients have it."""
    path = place / "shared"
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.fixture
def secret(place: Path) -> Path:
    """What no rule gives."""
    path = place / "secret"
    path.write_text("secret")
    path.chmod(0o600)
    return path


# --- symbolic links --------------------------------------------------------------------------------------


def test_link_gives_nothing_when_it_leads_out_of_the_rule(
    start_broker: Start, shared: Path, secret: Path
) -> None:
    broker = start_broker(policy(allow("shared", f"{shared}/**", more=ALL_FILES)))
    (shared / "sub").mkdir()
    (shared / "absolute").symlink_to(secret)
    (shared / "relative").symlink_to("../secret")
    (shared / "sub/up").symlink_to("../..")
    (shared / "twice").symlink_to("absolute")
    (shared / "through").symlink_to(f"sub/../../{secret.name}")
    (shared / "missing").symlink_to("/nonexistent")
    (shared / "shadow").symlink_to("/etc/shadow")
    (shared / "root").symlink_to("/")
    names = (
        "absolute",
        "relative",
        "sub/up/secret",
        "twice",
        "through",
        "missing",
        "shadow",
        "root/etc/passwd",
    )
    assert {name: refusal(broker, shared / name) for name in names} == dict.fromkeys(names, DENIED)


def test_link_gives_the_file_when_both_names_match_one_rule(start_broker: Start, shared: Path) -> None:
    broker = start_broker(policy(allow("shared", f"{shared}/**")))
    (shared / "file").write_text("content")
    (shared / "link").symlink_to("file")
    assert stat.S_ISREG(gets(broker, shared / "link").st_mode)


def test_link_gives_nothing_when_each_name_matches_another_rule(start_broker: Start, shared: Path) -> None:
    broker = start_broker(policy(allow("a", str(shared / "link")), allow("b", str(shared / "file"))))
    (shared / "file").write_text("content")
    (shared / "link").symlink_to("file")
    assert refusal(broker, shared / "link") == DENIED


def test_links_end_in_a_refusal_when_they_go_in_circles(start_broker: Start, shared: Path) -> None:
    broker = start_broker(policy(allow("shared", f"{shared}/**")))
    (shared / "a").symlink_to("b")
    (shared / "b").symlink_to("a")
    assert refusal(broker, shared / "a") == DENIED


def test_link_tells_nothing_when_its_target_is_or_is_not_there(start_broker: Start, shared: Path) -> None:
    """Denied and OpenFailed would tell what exists outside of the rule."""
    broker = start_broker(policy(allow("shared", f"{shared}/**")))
    targets = ("/etc/passwd", "/nonexistent", "/etc/passwd/x", "/etc", "/root", "/proc/1/environ")
    for number, target in enumerate(targets):
        (shared / f"link{number}").symlink_to(target)
    assert {refusal(broker, shared / f"link{number}") for number in range(len(targets))} == {DENIED}
    assert refusal(broker, shared / "missing") == OPEN_FAILED


def test_client_gets_eloop_when_it_asks_for_no_links(start_broker: Start, shared: Path) -> None:
    broker = start_broker(policy(allow("shared", f"{shared}/**")))
    (shared / "file").write_text("content")
    (shared / "link").symlink_to("file")
    with Hostile(broker) as client:
        reply, fds = client.ask(opening(shared / "link", flags=["nofollow"]))
        assert (reply["parameters"]["name"], fds) == ("ELOOP", [])


# --- magic links and procfs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/proc",
        "/proc/self/fd/0",
        "/proc/self/environ",
        "/proc/thread-self/fd/1",
        "/proc/1/root/etc/passwd",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd",
        "/proc/self/exe",
        "/proc/version",
        "/proc/sys/kernel/core_pattern",
        "/dev/fd/0",
        "/dev/fd/2",
        "/dev/fd",
        "/dev/stdin",
        "/dev/stdout",
        "/dev/stderr",
        "/etc/mtab",
    ],
)
def test_procfs_is_never_entered_when_a_rule_gives_everything(
    everything: Broker, shared: Path, name: str
) -> None:
    assert refusal(everything, name) == DENIED
    link = shared / "link"
    link.symlink_to(name)
    assert refusal(everything, link) == DENIED
    link.unlink()


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker whose administrator gives everybody everything, and names what means something else to each."""
    named = ("/dev/fd/0", "/dev/fd/2", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/etc/mtab")
    rules = [allow(f"r{number}", name, "use", ALL_FILES) for number, name in enumerate(named)]
    broker = Broker(
        tmp_path_factory.mktemp("everything"), policy(allow("all", "/**", "use", ALL_FILES), *rules)
    )
    try:
        yield broker
        broker.assert_unharmed()
        assert broker.stop() == 0
    finally:
        broker.kill()


@pytest.mark.parametrize("name", ["/dev/tty", "/dev/fd/0", "/dev/stdin", "/dev/stdout", "/dev/stderr"])
def test_device_of_the_asking_process_is_denied_when_a_pattern_gives_it(
    start_broker: Start, name: str
) -> None:
    broker = start_broker(
        policy(allow("dev", "/dev/*", "use", "type: char"), allow("below", "/dev/**", "use", "type: char"))
    )
    assert refusal(broker, name) == DENIED
    assert broker.records(event="open", path=name)[0]["reason"].startswith("no rule gives")


def test_cgroupfs_is_never_entered_when_a_rule_gives_it(start_broker: Start) -> None:
    if not os.path.isdir("/sys/fs/cgroup"):
        pytest.skip("no cgroup file system is mounted")
    broker = start_broker(policy(allow("sys", "/sys/**", "use", ALL_FILES)))
    found = [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.partition(" - ")[2].startswith("cgroup")
    ]
    for mount_point in found:
        assert refusal(broker, f"{mount_point}/cgroup.procs") == DENIED


def test_sysfs_link_gives_nothing_when_the_rule_names_the_class_alone(start_broker: Start) -> None:
    """/sys/class/net/lo is a link into /sys/devices, where drivers have their unbind files."""
    broker = start_broker(
        policy(
            allow("class", "/sys/class/net/*/mtu"),
            allow("below", "/sys/class/**"),
            allow("mem", "/sys/class/mem/*/dev"),
        )
    )
    assert refusal(broker, "/sys/class/net/lo/mtu") == DENIED
    assert refusal(broker, "/sys/class/mem/null/dev") == DENIED
    assert refusal(broker, "/sys/class/mem/null/../../../kernel/notes") == DENIED


def test_sysfs_link_gives_the_file_when_one_rule_names_both(start_broker: Start) -> None:
    broker = start_broker(
        "version: 1\nrules:\n  - {name: mtu, clients: [{uid: 0-4294967294}], allow: [read],"
        ' paths: ["/sys/class/net/*/mtu", "/sys/devices/virtual/net/*/mtu"]}\n'
    )
    assert stat.S_ISREG(gets(broker, "/sys/class/net/lo/mtu").st_mode)


# --- links to devices, as udev makes them ----------------------------------------------------------------


@pytest.fixture
def udev_link() -> Iterator[Path]:
    """A link below /dev, in a directory of root's, to /dev/null: as udev makes them in by-id/."""
    directory = Path(f"/dev/fdbroker-test-{os.getpid()}")
    directory.mkdir(mode=0o755)
    link = directory / "by-id"
    try:
        link.symlink_to("../null")
        yield link
    finally:
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        for left in directory.iterdir():
            left.unlink()
        directory.rmdir()


@needs_root
def test_udev_link_gives_the_device_when_the_rule_names_link_and_type(
    start_broker: Start, udev_link: Path
) -> None:
    broker = start_broker(policy(allow("link", f"{udev_link.parent}/*", "use", "type: char")))
    assert gets(broker, udev_link, ("read", "write", "ioctl")).st_rdev == os.makedev(1, 3)
    record = broker.records(event="open", verdict="allow")[0]
    assert (record["path"], record["resolved"], record["device"]) == (str(udev_link), "/dev/null", "1:3")


@needs_root
@pytest.mark.parametrize(
    ("pattern", "more"),
    [
        ("{0}/**", "type: char"),
        ("{0}/*", "type: block"),
        ("{0}/*", "type: [char, block]"),
        ("{0}/*", "type: file"),
    ],
    ids=["a pattern of any depth", "another type", "two types", "files"],
)
def test_udev_link_gives_nothing_when_the_rule_is_wider(
    start_broker: Start, udev_link: Path, pattern: str, more: str
) -> None:
    broker = start_broker(policy(allow("link", pattern.format(udev_link.parent), "use", more)))
    assert refusal(broker, udev_link) == DENIED


@needs_root
def test_udev_link_gives_nothing_when_a_parent_is_a_link(start_broker: Start, udev_link: Path) -> None:
    broker = start_broker(policy(allow("link", f"{udev_link.parent}/sub/*", "use", "type: char")))
    (udev_link.parent / "sub").symlink_to("..")
    assert refusal(broker, udev_link.parent / "sub/null") == DENIED


@needs_root
def test_udev_link_gives_nothing_when_it_leads_over_a_second_link(
    start_broker: Start, udev_link: Path
) -> None:
    broker = start_broker(policy(allow("link", f"{udev_link.parent}/*", "use", "type: char")))
    (udev_link.parent / "second").symlink_to("by-id")
    # Both names match the rule, and the object does not: only one last link may lead there.
    assert refusal(broker, udev_link.parent / "second") == DENIED


@needs_root
def test_udev_link_gives_nothing_when_a_deny_names_the_device(start_broker: Start, udev_link: Path) -> None:
    broker = start_broker(
        policy(
            allow("link", f"{udev_link.parent}/*", "use", "type: char"),
            "name: no, deny: all, paths: [/dev/null]",
        )
    )
    assert refusal(broker, udev_link) == DENIED


def test_link_gives_no_device_when_a_client_can_make_it(start_broker: Start, shared: Path) -> None:
    """The rule means nodes in a directory; whoever writes there would choose any device of that type."""
    broker = start_broker(policy(allow("nodes", f"{shared}/*", "use", "type: char")))
    (shared / "node").symlink_to("/dev/null")
    assert refusal(broker, shared / "node") == DENIED


# --- device nodes and hard links -------------------------------------------------------------------------


@needs_root
def test_device_node_is_refused_when_it_lies_outside_of_dev(start_broker: Start, shared: Path) -> None:
    rules = [allow(f"r{kind}", f"{shared}/**", "use", f"type: {kind}") for kind in ("char", "block")]
    broker = start_broker(policy(*rules, allow("shm", "/dev/shm/**", "use", "type: char")))
    os.mknod(shared / "char", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(shared / "block", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    for name in ("char", "block"):
        assert refusal(broker, shared / name) == DENIED
        assert "devtmpfs" in broker.records(event="open", path=f"{shared}/{name}")[0]["reason"]
    # A tmpfs, as devtmpfs is one for statfs(2).
    in_memory = Path(f"/dev/shm/fdbroker-test-{os.getpid()}")
    try:
        os.mknod(in_memory, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        assert refusal(broker, in_memory) == DENIED
    finally:
        in_memory.unlink(missing_ok=True)


@needs_root
def test_device_node_is_refused_when_the_rule_gives_files(start_broker: Start, shared: Path) -> None:
    broker = start_broker(
        policy(allow("all", "/**", "use"), f'name: b, clients: [any], allow: [use], paths: ["{shared}/**"]')
    )
    os.mknod(shared / "node", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert refusal(broker, shared / "node") == DENIED
    assert refusal(broker, "/dev/null") == DENIED


@needs_root
def test_device_is_denied_when_another_node_of_it_has_another_name(
    start_broker: Start, udev_link: Path
) -> None:
    """A deny that names a node means the device, whatever node is asked for."""
    node = udev_link.parent / "another"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    broker = start_broker(
        policy(allow("all", "/dev/**", "use", "type: char"), "name: no, deny: [write], paths: [/dev/null]")
    )
    assert gets(broker, node).st_rdev == os.makedev(1, 3)
    assert refusal(broker, node, ("read", "write")) == DENIED
    assert refusal(broker, "/dev/null", ("write",)) == DENIED
    assert gets(broker, "/dev/zero", ("write",)).st_rdev == os.makedev(1, 5)


def test_file_is_denied_when_it_is_asked_for_by_a_hard_link(
    start_broker: Start, place: Path, shared: Path
) -> None:
    protected = place / "protected"
    protected.write_text("protected")
    broker = start_broker(
        policy(allow("shared", f"{shared}/**"), f"name: no, deny: all, paths: [{protected}]")
    )
    (shared / "other").write_text("other")
    os.link(protected, shared / "hard")
    assert refusal(broker, shared / "hard") == DENIED
    assert stat.S_ISREG(gets(broker, shared / "other").st_mode)


@pytest.mark.parametrize(
    ("rules", "given"),
    [
        ([], True),
        (['name: no, deny: all, paths: ["{place}/kept/*"]'], False),
        (['name: no, deny: all, paths: ["{place}/kept/*"], type: [char, file]'], False),
        (['name: no, deny: all, paths: ["{place}/kept/*"], type: char'], True),
        (['name: no, deny: all, paths: ["{place}/kept/*"], devices: [{{udev: {{ID_BUS: usb}}}}]'], True),
        (['name: no, deny: write, paths: ["{place}/kept/*"]'], True),
        (['name: no, deny: all, paths: ["{place}/kept/*"], clients: [{{uid: "4000000000"}}]'], True),
        (['name: no, deny: all, paths: ["{place}/kept/*"], until: 2020-01-01T00:00Z'], True),
        (
            ["name: no, deny: all, paths: [{place}/another]"],
            True,
        ),  # that can be looked at, and is another file
    ],
)
def test_file_with_several_links_is_denied_when_a_pattern_may_mean_it(
    start_broker: Start, place: Path, shared: Path, rules: list[str], given: bool
) -> None:
    """Who writes a directory links a file there that a pattern keeps back; the name kept back is not asked for."""
    (place / "kept").mkdir()
    (place / "kept/file").write_text("kept")
    (place / "another").write_text("another")
    (shared / "single").write_text("single")
    (shared / "directory").mkdir(mode=0o755)
    for directory in (shared, shared / "directory"):
        os.link(place / "kept/file", directory / "hard")
    broker = start_broker(
        policy(allow("shared", f"{shared}/**"), *(rule.format(place=place) for rule in rules))
    )
    if given:
        assert stat.S_ISREG(gets(broker, shared / "hard").st_mode)
    else:
        assert refusal(broker, shared / "hard") == DENIED
        assert "hard links" in broker.records(event="open", path=f"{shared}/hard")[0]["reason"]
    assert gets(broker, shared / "single").st_nlink == 1
    # Nobody but root and the broker's own user could have made this one.
    assert stat.S_ISREG(gets(broker, shared / "directory/hard").st_mode)


@pytest.mark.parametrize("deny", ["deny: all", "deny: read, type: fifo"])
def test_fifo_with_several_links_is_denied_when_a_pattern_may_mean_it(
    start_broker: Start, place: Path, shared: Path, deny: str
) -> None:
    (place / "kept").mkdir()
    os.mkfifo(place / "kept/fifo")
    os.link(place / "kept/fifo", shared / "hard")
    os.mkfifo(shared / "single")
    broker = start_broker(
        policy(
            allow("shared", f"{shared}/*", "read", "type: fifo"),
            f'name: no, {deny}, paths: ["{place}/kept/*"]',
        )
    )
    assert refusal(broker, shared / "hard") == DENIED
    assert stat.S_ISFIFO(gets(broker, shared / "single").st_mode)


def test_file_with_several_links_is_denied_when_an_exception_may_mean_it(
    start_broker: Start, place: Path, shared: Path
) -> None:
    (shared / "kept").mkdir()
    (shared / "kept/file").write_text("kept")
    os.link(shared / "kept/file", shared / "hard")
    excepting = f'{allow("shared", f"{shared}/**")}, except_paths: ["{shared}/kept/*"]'
    broker = start_broker(policy(excepting, allow("other", f"{place}/*")))
    assert refusal(broker, shared / "hard") == DENIED


def test_file_is_denied_when_a_name_on_the_walk_is(start_broker: Start, shared: Path) -> None:
    broker = start_broker(
        policy(allow("shared", f"{shared}/**"), f'name: no, deny: all, paths: ["{shared}/closed/**"]')
    )
    (shared / "closed").mkdir()
    (shared / "closed/file").write_text("x")
    (shared / "closed/way-out").symlink_to("../open")
    (shared / "open").write_text("open")
    (shared / "way-in").symlink_to("closed/file")
    (shared / "around").symlink_to("closed/way-out")
    for name in ("closed/file", "closed/way-out", "way-in", "around"):
        assert refusal(broker, shared / name) == DENIED
    assert stat.S_ISREG(gets(broker, shared / "open").st_mode)


def test_file_is_denied_when_the_directory_was_renamed_around_the_deny(
    start_broker: Start, shared: Path
) -> None:
    """The deny's literal names a file: that file stays denied by its own identity while the name leads there."""
    (shared / "a").mkdir()
    (shared / "a/file").write_text("x")
    broker = start_broker(
        policy(allow("shared", f"{shared}/**"), f'name: no, deny: all, paths: ["{shared}/a/file"]')
    )
    (shared / "a").rename(shared / "b")
    (shared / "a").symlink_to("b")
    assert refusal(broker, shared / "b/file") == DENIED


def test_client_never_gets_another_file_when_names_are_swapped_all_the_time(
    start_broker: Start, shared: Path, secret: Path
) -> None:
    broker = start_broker(policy(allow("shared", f"{shared}/*")))
    (shared / "good").write_text("good")
    (shared / "bad").symlink_to(secret)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.close(writer)
            os.set_blocking(reader, False)
            while True:
                for name in ("good", "bad"):
                    temporary = shared / f"new-{name}"
                    os.link(shared / name, temporary, follow_symlinks=False)
                    os.rename(temporary, shared / "name")
                with contextlib.suppress(BlockingIOError):
                    if os.read(reader, 1) == b"":
                        break
        os._exit(0)
    os.close(reader)
    seen = set()
    try:
        with Hostile(broker) as client:
            for _ in range(1000):
                reply, fds = client.ask(opening(shared / "name"))
                if fds:
                    seen.add(os.read(fds[0], 10))
                    os.close(fds[0])
                else:
                    seen.add(reply["error"])
    finally:
        os.close(writer)
        os.waitpid(pid, 0)
    assert seen <= {b"good", DENIED, OPEN_FAILED}
    assert {b"good", DENIED} <= seen


@needs_root
def test_stranger_gets_no_more_by_links_than_by_names_when_root_serves(
    start_broker: Start, shared: Path, secret: Path
) -> None:
    broker = start_broker(policy(allow("shared", f"{shared}/**")))

    def attack() -> list[str]:
        (shared / "link").symlink_to(secret)
        (shared / "mine").write_text("mine")
        with Hostile(broker) as client:
            return [client.error(opening(shared / "link")), client.content(opening(shared / "mine"))]

    assert as_uid(STRANGER, attack) == [DENIED, "mine"]
