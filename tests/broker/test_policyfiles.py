"""Which files make up a policy, and who else could change one: tiers, masks, links, owners, modes, mounts."""

import ctypes
import json
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import FDBROKER, SECONDS, STRANGER, TREE, as_uid, needs_root

from broker import policyfiles, trust
from broker.policyfiles import PolicyFiles, UnreadablePolicy, load_files, read_paths, read_tiers
from policy import PolicyError
from sandboxed.syscalls import unshare

BASE = """\
version: 1
clients: {lab: {user: mia}}
rules:
  - {name: disks, deny: all, type: block, paths: ["/dev/**"]}
  - {name: kvm, clients: [lab], allow: use, type: char, paths: [/dev/kvm]}
"""
OWN = "version: 1\nrules: [{name: own, deny: all}]\n"
USER = os.geteuid()
# Who the message says a file should belong to, and the owner that its command names.
EXPECTED, OWNER = ("root", "root") if USER == 0 else (f"root or {USER}", str(USER))
WHO = {0o020: "its group can write it", 0o002: "everybody can write it", 0o022: "everybody can write it"}

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS = 0x20000


@pytest.fixture
def tiers(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Three directories that stand for the system's: of packages, of this boot, of the administrator."""
    directories = [place / name / "policy.d" for name in ("usr", "run", "etc")]
    for directory in directories:
        directory.mkdir(parents=True)
    monkeypatch.setattr(policyfiles, "TIERS", tuple(map(str, directories)))
    yield directories
    for directory in directories:  # as a test may have closed it
        if directory.is_dir() and not directory.is_symlink():
            directory.chmod(0o755)


def ids(files: PolicyFiles) -> list[str]:
    return [rule.id for rule in load_files(files).policy.rules]


def told(files: PolicyFiles) -> list[str]:
    with pytest.raises(PolicyError) as error:
        load_files(files)
    return [str(problem) for problem in error.value.problems]


def fdbroker(tiers: list[Path], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, with other directories for the system's."""
    script = (
        f"import sys; from broker import policyfiles; policyfiles.TIERS = {tuple(map(str, tiers))}\n"
        "from broker.main import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=TREE, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


# --- tiers ---------------------------------------------------------------------------------------------------


def test_tiers_are_those_of_the_documents() -> None:
    assert policyfiles.TIERS == (
        "/usr/share/fdbroker/policy.d",
        "/run/fdbroker/policy.d",
        "/etc/fdbroker/policy.d",
    )
    for document in ("docs/policy.md", "SECURITY.md"):
        assert all(tier in (TREE / document).read_text() for tier in policyfiles.TIERS)


def test_file_of_a_higher_tier_replaces_that_of_a_lower(tiers: list[Path]) -> None:
    for number, tier in enumerate(tiers):
        (tier / "a.yaml").write_text(OWN.replace("own", f"r{number}"))
        assert ids(read_tiers()) == [f"a/r{number}"]
    replaced = [(one.path, by.path) for one, by in read_tiers().replaced]
    assert replaced == [(str(tier / "a.yaml"), str(tiers[2] / "a.yaml")) for tier in tiers[:2]]


@pytest.mark.parametrize("target", [None, "/dev/null", "../../null"])
def test_empty_file_or_link_to_null_masks_the_file_of_its_name(
    tiers: list[Path], place: Path, target: str | None
) -> None:
    (tiers[0] / "a.yaml").write_text("not even: [yaml")
    (place / "null").symlink_to("/dev/null")
    if target is None:
        (tiers[2] / "a.yaml").touch()
    else:
        (tiers[2] / "a.yaml").symlink_to(target)
    assert ids(read_tiers()) == []


def test_mask_and_redefinition_reach_the_lower_tier(tiers: list[Path]) -> None:
    (tiers[0] / "10-base.yaml").write_text(BASE)
    (tiers[1] / "20-run.yaml").write_text("version: 1\nmask: [10-base/disks]\nclients: {lab: {user: tom}}\n")
    loaded = load_files(read_tiers())
    (rule,) = loaded.policy.rules
    assert (rule.id, rule.clients[0].users) == ("10-base/kvm", frozenset(["tom"]))


def test_tier_that_is_not_there_is_no_error(tiers: list[Path]) -> None:
    (tiers[2] / "a.yaml").write_text(OWN)
    tiers[0].rmdir()
    tiers[1].rmdir()
    tiers[1].parent.rmdir()
    assert ids(read_tiers()) == ["a/own"]


def test_no_policy_at_all_is_said(tiers: list[Path]) -> None:
    (tiers[1] / ".hidden.yaml").write_text(OWN)
    with pytest.raises(
        UnreadablePolicy, match=r"^there is no policy: no file NAME\.yaml lies in .*/etc/policy\.d"
    ):
        read_tiers()
    for command in ("serve", "check", "cat"):
        ran = fdbroker(tiers, command)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "there is no policy" in ran.stderr


def test_directory_without_a_policy_is_said(tiers: list[Path]) -> None:
    with pytest.raises(UnreadablePolicy, match=f"^there is no policy: no file NAME.yaml lies in {tiers[0]}$"):
        read_paths([str(tiers[0])])


@pytest.mark.parametrize("what", ["directory", "file"])
def test_link_that_leads_nowhere_is_a_problem_and_never_nothing(tiers: list[Path], what: str) -> None:
    # What was to replace, mask or deny something must not be left out in silence.
    (tiers[0] / "a.yaml").write_text(OWN)
    path = tiers[2] / "a.yaml"
    if what == "directory":
        path = tiers[2]
        path.rmdir()
    path.symlink_to("gone")
    assert told(read_tiers()) == [f"{path}: a link leads to nothing"]


def test_what_is_no_file_is_a_problem_among_the_others(tiers: list[Path]) -> None:
    (tiers[2] / "a.yaml").mkdir()
    os.mkfifo(tiers[2] / "b.yaml")
    (tiers[2] / "c.yaml").symlink_to("/dev/zero")
    (tiers[2] / "d.yaml").symlink_to("d.yaml")
    (tiers[2] / "e.yaml").write_text("x")
    found = told(read_tiers())
    assert [one.removeprefix(f"{tiers[2]}/") for one in found[:4]] == [
        *(f"{name}.yaml: not a regular file" for name in "abc"),
        "d.yaml: Too many levels of symbolic links",
    ]
    assert found[4].startswith("e.yaml:1:1: ")


def test_names_that_are_no_policy_files_are_told_and_dot_names_are_not(tiers: list[Path]) -> None:
    for name in ("a.yaml", "b.yml", "-c.yaml", ".d.yaml", "e.yaml~", "f g.yaml", "é.yaml", "x\ny.yaml"):
        (tiers[1] / name).write_text(OWN)
    files = read_tiers()
    assert [file.name for file in files.files] == ["a.yaml"]
    assert files.ignored == [
        *(f"{tiers[1]}/{name}" for name in ("-c.yaml", "b.yml", "e.yaml~", "f g.yaml")),
        ascii(f"{tiers[1]}/x\ny.yaml"),
        f"{tiers[1]}/é.yaml",
    ]


def test_serve_reads_the_tiers_and_tells_of_ignored_names(tiers: list[Path], place: Path) -> None:
    (tiers[0] / "a.yaml").write_text(OWN)
    (tiers[0] / "README").write_text("")
    (tiers[1] / "b.yaml").write_text("version: 1\nmask: [a/owl]\n")
    ran = fdbroker(tiers, "serve", "--socket", str(place / "s"))
    assert ran.returncode == 2
    assert (
        "unknown rule 'a/owl', expected the id of a rule of a lower tier; did you mean 'a/own'?" in ran.stderr
    )
    (tiers[1] / "b.yaml").write_text("")
    ran = fdbroker(tiers, "serve", "--socket", "/proc/no/s")
    assert ran.returncode == 2
    assert f"fdbroker: {tiers[0]}/README is ignored: policy files are named " in ran.stderr


def test_paths_of_a_command_line_are_one_tier(tiers: list[Path]) -> None:
    (tiers[0] / "10-base.yaml").write_text(BASE)
    (tiers[2] / "b.yaml").write_text("version: 1\nmask: [10-base/disks]\n")
    (problem,) = told(read_paths([str(tier) for tier in tiers]))
    assert problem.startswith(
        "b.yaml:2:8: rule '10-base/disks' is one of the same tier, at 10-base.yaml:4:12:"
    )


def test_config_map_is_read_through_its_links_and_its_updates_are_seen(tiers: list[Path]) -> None:
    # As Kubernetes mounts one: each name leads through ..data, which is exchanged for another.
    directory = tiers[2]
    for version in ("..2026_1", "..2026_2"):
        (directory / version).mkdir()
        (directory / version / "a.yaml").write_text(OWN.replace("own", f"r{version[-1]}"))
    (directory / "..data").symlink_to("..2026_1")
    (directory / "a.yaml").symlink_to("..data/a.yaml")
    assert (ids(read_tiers()), read_tiers().ignored) == (["a/r1"], [])
    (directory / "..data_tmp").symlink_to("..2026_2")
    (directory / "..data_tmp").rename(directory / "..data")
    assert ids(read_tiers()) == ["a/r2"]


def test_set_does_not_load_when_its_directory_changes_meanwhile(
    tiers: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiers[1] / "a.yaml").write_text(OWN)
    os.utime(tiers[1], (1, 1))
    reopened = policyfiles.reopened

    def adding(entry: trust.Entry) -> int:
        (tiers[1] / "b.yaml").write_text(OWN)
        return reopened(entry)

    monkeypatch.setattr(policyfiles, "reopened", adding)
    assert told(read_tiers()) == [f"{tiers[1]}: changed while it was read: try again"]


def test_tier_that_cannot_be_listed_is_a_problem(tiers: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(walk: trust.TrustWalk, directory: trust.Entry) -> list[str]:
        raise FileNotFoundError(2, "no /proc", directory.path)

    monkeypatch.setattr(trust.TrustWalk, "names", failing)
    assert told(read_tiers()) == sorted(f"{tier}: no /proc" for tier in tiers)


# --- trust ---------------------------------------------------------------------------------------------------


@pytest.fixture
def file(place: Path) -> Path:
    """A policy, below two directories of its own."""
    path = place / "above" / "policy.d" / "a.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(OWN)
    return path


def read_both(path: Path) -> Iterator[PolicyFiles]:
    """The file and its directory, as `--policy` takes either."""
    yield from (read_paths([str(path)]), read_paths([str(path.parent)]))


@pytest.mark.parametrize("mode", [0o020, 0o002, 0o022])
@pytest.mark.parametrize("up", [0, 1, 2])
def test_policy_does_not_load_when_others_can_write_it_or_a_directory_above(
    file: Path, up: int, mode: int
) -> None:
    path = [file, *file.parents][up]
    path.chmod(path.stat().st_mode | mode)
    for files in read_both(file):
        (problem,) = told(files)
        assert problem.startswith(f"{path}: {WHO[mode]} (mode 0{path.stat().st_mode & 0o7777:o}): run chmod ")
        subprocess.run(["sh", "-c", problem.partition(": run ")[2]], check=True)
        for again in read_both(file):
            assert ids(again) == ["a/own"]
        path.chmod(path.stat().st_mode | mode)


@needs_root
@pytest.mark.parametrize("up", [0, 1, 2])
def test_policy_does_not_load_when_it_or_a_directory_above_is_anothers(file: Path, up: int) -> None:
    path = [file, *file.parents][up]
    for _ in range(2):
        os.chown(path, STRANGER, 0)
        for files in read_both(file):
            assert told(files) == [f"{path}: belongs to uid {STRANGER}, expected root: run chown root {path}"]
        subprocess.run(["sh", "-c", f"chown root {path}"], check=True)
        for files in read_both(file):
            assert ids(files) == ["a/own"]


@needs_root
def test_policy_of_an_ordinary_user_is_that_users_own_or_roots(file: Path) -> None:
    def judge() -> list[str]:
        return [str(one) for one in read_paths([str(file)]).problems]

    os.chown(file, STRANGER, STRANGER)
    assert as_uid(STRANGER, judge) == []
    assert as_uid(STRANGER + 1, judge) == [
        f"{file}: belongs to uid {STRANGER}, expected root or {STRANGER + 1}: run chown {STRANGER + 1} {file}"
    ]
    assert len(judge()) == 1
    os.chown(file, 0, 0)
    assert as_uid(STRANGER, judge) == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["run", "--policy", "PATH", "--", "true"], 125), (["serve", "--policy", "PATH"], 2), (["check", "PATH"], 1),
     (["cat", "PATH"], 1)],
)  # fmt: skip
def test_command_refuses_a_policy_that_others_can_write(
    file: Path, arguments: list[str], status: int
) -> None:
    file.chmod(0o664)
    arguments = [str(file) if word == "PATH" else word for word in arguments]
    ran = subprocess.run(
        [*FDBROKER, *arguments], cwd=TREE, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert ran.returncode == status
    assert f"{file}: its group can write it (mode 0664): run chmod g-w {file}\n" in ran.stdout + ran.stderr


def test_command_of_the_message_mends_a_path_with_odd_characters(place: Path) -> None:
    path = place / "it's $HOME; a `b`.yaml"
    path.write_text(OWN)
    path.chmod(0o666)
    (problem,) = told(read_paths([str(path)]))
    subprocess.run(["sh", "-c", problem.partition(": run ")[2]], check=True)
    assert path.stat().st_mode & 0o7777 == 0o644


def test_problem_of_a_path_that_is_not_printable_is_one_line(place: Path) -> None:
    path = os.path.join(os.fsencode(place), b"a\n\xff.yaml")
    Path(os.fsdecode(path)).write_text(OWN)
    os.chmod(path, 0o666)
    (problem,) = told(read_paths([os.fsdecode(path)]))
    assert problem.isprintable()


def test_everything_that_is_wrong_is_told_at_once(tiers: list[Path]) -> None:
    (tiers[0] / "a.yaml").write_text("version: 2\n")
    (tiers[0] / "a.yaml").chmod(0o666)
    (tiers[2] / "b.yaml").write_text("version: 2\n")
    tiers[2].chmod(0o777)
    tiers[1].parent.chmod(0o775)
    assert [one.partition(": ")[0] for one in told(read_tiers())] == [
        str(tiers[2]),
        str(tiers[1].parent),
        str(tiers[0] / "a.yaml"),
        "a.yaml:1:10",
        "b.yaml:1:10",
    ]


def test_directories_above_the_target_of_a_link_are_looked_at_too(file: Path, place: Path) -> None:
    target = place / "elsewhere" / "b.yaml"
    target.parent.mkdir()
    file.rename(target)
    file.symlink_to("../../elsewhere/b.yaml")
    for files in read_both(file):
        assert ids(files) == ["a/own"]
    target.parent.chmod(0o777)
    for files in read_both(file):
        assert [one.partition(": ")[0] for one in told(files)] == [str(target.parent)]
    target.parent.chmod(0o755)
    file.parent.chmod(0o777)
    for files in read_both(file):
        assert [one.partition(": ")[0] for one in told(files)] == [str(file.parent)]


def test_replaced_file_need_not_be_trusted_and_its_directory_must(tiers: list[Path]) -> None:
    (tiers[0] / "a.yaml").write_text(OWN)
    (tiers[0] / "a.yaml").chmod(0o666)
    (tiers[2] / "a.yaml").write_text(OWN)
    assert ids(read_tiers()) == ["a/own"]
    tiers[0].chmod(0o777)
    assert len(told(read_tiers())) == 1


def test_sticky_directory_is_trusted_for_what_others_cannot_replace(file: Path) -> None:
    file.parent.parent.chmod(0o1777)
    for files in read_both(file):
        assert ids(files) == ["a/own"]


def test_sticky_directory_is_not_trusted_for_the_names_in_it(file: Path) -> None:
    # Anybody could add a file. One that is named there stays what it is.
    file.parent.chmod(0o1777)
    assert ids(read_paths([str(file)])) == ["a/own"]
    (problem,) = told(read_paths([str(file.parent)]))
    assert problem.endswith(f": run chmod go-w {file.parent}")


@needs_root
def test_link_in_a_sticky_directory_counts_by_its_own_owner(file: Path, place: Path) -> None:
    link = place / "sticky" / "link.yaml"
    link.parent.mkdir()
    link.parent.chmod(0o1777)
    link.symlink_to(file)
    assert ids(read_paths([str(link)])) == ["link/own"]
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    assert told(read_paths([str(link)])) == [
        f"{link}: belongs to uid {STRANGER}, expected root: run chown -h root {link}"
    ]
    os.chown(file, STRANGER, STRANGER)
    assert len(told(read_paths([str(link)]))) == 2


def test_acl_that_lets_somebody_write_shows_in_the_groups_bits(file: Path) -> None:
    # Version 2, then tag, permissions and id of: owner, a user, group, mask, others (acl(5), linux/posix_acl_xattr.h).
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, 6, STRANGER), (4, 4, nobody), (0x10, 6, nobody), (0x20, 4, nobody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(file, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")
    (problem,) = told(read_paths([str(file)]))
    assert problem == f"{file}: its group can write it (mode 0664): run chmod g-w {file}"
    subprocess.run(["chmod", "g-w", str(file)], check=True)
    assert ids(read_paths([str(file)])) == ["a/own"]
    # The entry is still there, but its mask lets nothing of it through.
    assert struct.pack("<HHI", 2, 6, STRANGER) in os.getxattr(file, "system.posix_acl_access")
    if USER == 0:
        assert as_uid(STRANGER, lambda: os.access(file, os.W_OK)) is False


def test_what_was_judged_is_what_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = trust.TrustWalk._judge_mode

    def swapping(walk: trust.TrustWalk, entry: trust.Entry) -> None:
        judge(walk, entry)
        if stat.S_ISREG(entry.status.st_mode):
            file.unlink()
            file.write_text(OWN.replace("own", "forged"))
            file.chmod(0o666)

    monkeypatch.setattr(trust.TrustWalk, "_judge_mode", swapping)
    assert ids(read_paths([str(file)])) == ["a/own"]


def test_reading_leaves_no_fd_open(tiers: list[Path]) -> None:
    (tiers[0] / "a.yaml").write_text(OWN)
    (tiers[0] / "l.yaml").symlink_to("a.yaml")
    (tiers[1] / "b.yaml").symlink_to("gone")
    (tiers[2] / "c.yaml").symlink_to("c.yaml")
    (tiers[2] / "d.yaml").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    read_tiers()
    with pytest.raises(UnreadablePolicy):
        read_paths([str(tiers[0] / "a.yaml"), str(tiers[0] / "gone.yaml")])
    assert len(os.listdir("/proc/self/fd")) == before


def mounted(look: Callable[[], object], *mounts: tuple[str, str, str, int]) -> object:
    """What `look` returns in a mount namespace with these mounts: source, type, target, flags."""
    libc = ctypes.CDLL(None, use_errno=True)

    def inside() -> object:
        unshare(CLONE_NEWNS)
        for source, kind, target, flags in (("none", "", "/", MS_REC | MS_PRIVATE), *mounts):
            if libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None) != 0:
                raise OSError(ctypes.get_errno(), f"mount {target}")
        return look()

    return as_uid(os.geteuid(), inside)


@needs_root
def test_command_without_a_path_reads_the_systems_directories() -> None:
    def look() -> list[str]:
        for tier, text in (
            (policyfiles.TIERS[0], BASE),
            (policyfiles.TIERS[1], "version: 1\nmask: [a/disks]\n"),
        ):
            os.makedirs(tier)
            Path(tier, "a.yaml" if text == BASE else "b.yaml").write_text(text)
        ran = subprocess.run([*FDBROKER, "cat"], cwd=TREE, capture_output=True, text=True, check=False)
        return [ran.stdout, ran.stderr]

    if os.path.exists(policyfiles.TIERS[2]):
        pytest.skip("this machine has a policy of its own")
    shown, complaints = mounted(look, ("none", "tmpfs", "/usr/share", 0), ("none", "tmpfs", "/run", 0))
    assert "a/kvm" in shown, complaints


@needs_root
@pytest.mark.parametrize("read_only", [True, False])
def test_read_only_mount_of_another_file_system_will_do(file: Path, read_only: bool) -> None:
    # As a container has its ConfigMap: everybody could write in the directory, were it not mounted so.
    directory = str(file.parent)

    def look() -> list[str]:
        file.write_text(OWN)
        if read_only:
            subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
        return [str(one) for one in read_paths([directory]).problems]

    found = mounted(look, ("none", "tmpfs", directory, 0))
    expected = f"{directory}: everybody can write it (mode 1777): run chmod go-w {directory}"
    assert found == ([] if read_only else [expected])


@needs_root
def test_read_only_view_of_the_root_file_system_proves_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # So a service with ProtectSystem=strict sees what everybody else can write.
    here = tmp_path_factory.mktemp("view")
    if os.stat(here).st_dev != os.stat("/").st_dev:
        pytest.skip("/tmp is another file system than /")
    file = here / "a.yaml"
    file.write_text(OWN)
    file.chmod(0o666)
    found = mounted(
        lambda: [str(one) for one in read_paths([str(file)]).problems],
        (str(here), "", str(here), MS_BIND),
        ("none", "", str(here), MS_REMOUNT | MS_BIND | MS_RDONLY),
    )
    assert found == [f"{file}: everybody can write it (mode 0666): run chmod go-w {file}"]


# --- cat -----------------------------------------------------------------------------------------------------


@pytest.fixture
def layered(tiers: list[Path]) -> list[Path]:
    """A set in which a higher tier does all that it can do to a lower one."""
    (tiers[0] / "10-base.yaml").write_text(BASE)
    (tiers[0] / "20-more.yaml").write_text(OWN)
    (tiers[1] / "20-more.yaml").symlink_to("/dev/null")
    (tiers[2] / "90-site.yaml").write_text(
        "version: 1\nmask: [10-base/disks]\nclients: {lab: {user: tom}}\nrules: [{name: none, deny: all}]\n"
    )
    return tiers


def test_cat_shows_what_counts_and_what_does_not(layered: list[Path]) -> None:
    ran = fdbroker(layered, "cat")
    assert (ran.returncode, ran.stderr) == (0, "")
    usr, run, etc = layered
    blocks = [block.splitlines() for block in ran.stdout.split("\n\n")]
    assert blocks[0][0].endswith(": 2 rules in force")
    assert [[line.split() for line in block] for block in blocks[1:]] == [
        [
            ["files,", "the", "highest", "tier", "last"],
            [f"{usr}/10-base.yaml"],
            [f"{usr}/20-more.yaml", "replaced", "by", f"{run}/20-more.yaml"],
            [f"{run}/20-more.yaml", "empty"],
            [f"{etc}/90-site.yaml"],
        ],
        [["masked", "rules"], ["10-base/disks", "10-base.yaml:4", "by", "90-site.yaml:2"]],
        [["redefined", "names"], ["client", "lab", "10-base.yaml:2", "by", "90-site.yaml:3"]],
        [
            ["rules", "in", "force"],
            [
                "10-base/kvm",
                "10-base.yaml:5",
                "allow",
                "read",
                "write",
                "ioctl",
                "/dev/kvm",
                "char",
                "for",
                "user",
                "tom",
            ],
            ["90-site/none", "90-site.yaml:4", "deny", "all", "everything", "for", "everybody"],
        ],
    ]


def test_cat_as_json_says_the_same(layered: list[Path]) -> None:
    ran = fdbroker(layered, "cat", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = json.loads(ran.stdout)
    assert shown["policy"] == json.loads(fdbroker(layered, "check", "--json").stdout)["policy"]
    assert [(one["tier"], one["empty"]) for one in shown["files"]] == [
        (str(tier), tier == layered[1]) for tier in (layered[0], layered[0], layered[1], layered[2])
    ]
    assert shown["masked"] == [
        {
            "rule": "10-base/disks",
            "place": {"file": "10-base.yaml", "line": 4},
            "by": {"file": "90-site.yaml", "line": 2},
        }
    ]
    assert [rule["id"] for rule in shown["rules"]] == ["10-base/kvm", "90-site/none"]


def test_cat_of_paths_shows_them_alone(layered: list[Path]) -> None:
    ran = fdbroker(layered, "cat", str(layered[0] / "20-more.yaml"))
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[-1].split() == [
        "20-more/own",
        "20-more.yaml:2",
        "deny",
        "all",
        "everything",
        "for",
        "everybody",
    ]
    assert "masked" not in ran.stdout


def test_cat_shows_devices_exceptions_and_the_end_of_a_rule(layered: list[Path]) -> None:
    (layered[2] / "50-exam.yaml").write_text(
        "version: 1\ndevices: {sticks: {type: block, udev: {ID_BUS: usb}}}\nrules:\n"
        "  - {name: a, deny: all, devices: [sticks], until: 2036-12-01T18:00+01:00}\n"
        '  - {name: b, clients: [{uid: 7}], allow: read, paths: ["/srv/**"], except_paths: ["/srv/secret/**"]}\n'
    )
    lines = fdbroker(layered, "cat").stdout.splitlines()
    a, b = (next(line.split() for line in lines if f"50-exam/{name} " in line)[2:] for name in "ab")
    assert " ".join(a) == "deny all type block and ID_BUS=usb for everybody until: 2036-12-01T17:00:00Z"
    assert " ".join(b) == "allow read /srv/** but not /srv/secret/** for uid 7"


def test_cat_of_a_set_with_mistakes_shows_those(layered: list[Path]) -> None:
    (layered[2] / "a.yaml").write_text("version: 3\n")
    for options in ([], ["--json"]):
        ran, checked = (fdbroker(layered, command, *options) for command in ("cat", "check"))
        assert (ran.returncode, ran.stdout) == (1, checked.stdout)
        assert "a.yaml" in ran.stdout
