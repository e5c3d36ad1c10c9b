"""What a sandbox is given beside the system: refusals, links that lead astray, and where the program starts."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sandboxes import STARTERS, WAYS, has_ended, make_sandbox, nothing_left, run
from support import as_uid, needs_root

from sandboxed.confinement import layout
from sandboxed.confinement.layout import Shown, plan
from sandboxed.confinement.sandbox import HOME, NAMESPACES, LayerMissing, Sandbox, StartError


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def tree(place: Path) -> Path:
    """A directory with two others, and links between them and elsewhere."""
    place.chmod(0o777)
    for name in ("a", "a/inner", "b", "b/x"):
        (place / name).mkdir()
        (place / name).chmod(0o777)
    (place / "a/file").write_text("a's")
    (place / "b/x/file").write_text("x's")
    for name, target in {
        "to-root": "/",
        "to-proc": "/proc",
        "to-dev": "/dev/shm",
        "through-proc": f"/proc/self/root{place}",
        "dangling": "/no/such",
        "to-b": f"{place}/b",
        "a/link": f"{place}/b",
        "loop": f"{place}/loop",
    }.items():
        (place / name).symlink_to(target)
    return place


# (readonly, writable, work, what the refusal says), with {t} for the tree.
REFUSALS = [
    ("relative", "", None, "absolute"),
    ("{t}/./a", "", None, "absolute"),
    ("{t}/../etc", "", None, "absolute"),
    ("{t}/a/", "", None, "absolute"),
    ("{t}//a", "", None, "absolute"),
    ("//etc", "", None, "absolute"),
    ("/", "", None, "no sandbox"),
    ("", "/", None, "no sandbox"),
    ("", "", "/", "no sandbox"),
    ("/proc", "", None, "the sandbox's own"),
    ("/proc/self", "", None, "the sandbox's own"),
    ("", "/proc/sys", None, "the sandbox's own"),
    ("/dev", "", None, "the policy's to give"),
    ("/dev/kvm", "", None, "the policy's to give"),
    ("", "/dev/shm", None, "the policy's to give"),
    ("", "", "/dev/shm", "the policy's to give"),
    ("{t}/none", "", None, "no such file"),
    ("", "{t}/none", None, "no such file"),
    ("", "", "{t}/none", "no such file"),
    ("{t}/a", "{t}/a", None, "name it once"),
    ("{t}/a/inner", "{t}", None, "could put something else in its place"),
    ("{t}/a/file", "", "{t}", "could put something else in its place"),
    ("{t}/to-b", "{t}", None, "could put something else in its place"),
    (HOME, "", None, "give --work"),
    # A name is what it leads to.
    ("{t}/to-root", "", None, "no sandbox"),
    ("", "{t}/to-root", None, "no sandbox"),
    ("", "", "{t}/to-root", "no sandbox"),
    ("{t}/to-proc", "", None, "the sandbox's own"),
    ("{t}/to-proc/self", "", None, "the sandbox's own"),
    ("", "{t}/to-dev", None, "the policy's to give"),
]


@pytest.mark.parametrize(("readonly", "writable", "work", "says"), REFUSALS)
def test_plan_refuses(tree: Path, readonly: str, writable: str, work: str | None, says: str) -> None:
    def named(paths: str) -> tuple[str, ...]:
        return tuple(paths.format(t=tree).split())

    sandbox = Sandbox(readonly=named(readonly), writable=named(writable))
    sandbox = sandbox._replace(work=None if work is None else work.format(t=tree))
    with pytest.raises(StartError, match=says) as caught:
        plan(sandbox)
    assert not isinstance(caught.value, LayerMissing)
    if sandbox.home != HOME:
        with pytest.raises(StartError, match=f"{says}|only namespaces can keep it"):
            plan(sandbox.without(NAMESPACES))


# (readonly, writable, work, what is shown of the tree besides the system: + what may be written)
SHOWN = [
    ("{t}/a", "", None, ["a"]),
    ("{t}/a {t}/a", "", None, ["a"]),
    ("{t}/a {t}/a/inner", "", None, ["a"]),
    ("{t}/a/inner", "{t}/a", None, ["+a", "a/inner"]),
    ("", "{t}/a {t}/a/inner", None, ["+a"]),
    ("", "{t}/a", "{t}/a/inner", ["+a"]),
    ("{t}/a", "{t}/a/inner", None, ["a", "+a/inner"]),
    ("{t}/a/file", "", "{t}/b", ["+b", "a/file"]),
    ("", "{t}/b", "{t}/b", ["+b"]),
    ("/usr/bin /etc/ssl/certs", "", None, []),
    ("{t}/to-b", "", None, ["to-b"]),
]


@pytest.mark.parametrize(("readonly", "writable", "work", "shown"), SHOWN)
def test_plan_shows(tree: Path, readonly: str, writable: str, work: str | None, shown: list[str]) -> None:
    def named(paths: str) -> tuple[str, ...]:
        return tuple(paths.format(t=tree).split())

    sandbox = Sandbox(readonly=named(readonly), writable=named(writable))
    planned = plan(sandbox._replace(work=None if work is None else work.format(t=tree)))
    found = [item for item in planned if item.path.startswith(str(tree))]
    assert [("+" if item.writable else "") + os.path.relpath(item.path, tree) for item in found] == shown
    assert [item for item in planned if item.writable and item.system] == []


def test_plan_lets_what_was_given_hide_what_every_sandbox_shows() -> None:
    planned = plan(Sandbox(readonly=("/etc", "/usr")))
    assert [item for item in planned if item.path.startswith("/etc")] == [Shown("/etc", False, False)]
    assert Shown("/usr", False, False) in planned
    depths = [item.path.count("/") for item in planned]
    assert depths == sorted(depths)


def test_plan_names_resolvers_only_with_the_hosts_network() -> None:
    for network, wanted in (("none", False), ("loopback", False), ("host", True)):
        paths = {item.path for item in plan(Sandbox(network=network))}
        assert set(layout.NETWORK_FILES) <= paths if wanted else not set(layout.NETWORK_FILES) & paths


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize("way", WAYS)
def test_given_paths_are_what_they_lead_to_and_no_more(tree: Path, starter: int, way: str) -> None:
    look = (
        f"cat {tree}/to-b/x/file {tree}/a/file; touch {tree}/to-b/new {tree}/a/new; "
        f"cat {tree}/a/link/x/file; ls {tree}/b; mkdir {tree}/new; echo; "
        f"echo x > {tree}/a/inner/new && cat {tree}/a/inner/new"
    )

    def show() -> str:
        with ExitStack() as stack:
            sandbox = make_sandbox(
                stack, way, readonly=(f"{tree}/to-b", f"{tree}/a"), writable=(f"{tree}/a/inner",)
            )
            return run(["sh", "-c", f"({look}) 2>/dev/null"], sandbox)[1]

    # Without a root of its own a name that leads to what was shown reaches it.
    more = "" if way == WAYS[0] else "x'sx\n"
    assert as_uid(starter, show) == f"x'sa's{more}\nx\n"
    assert sorted(path.name for path in tree.rglob("new")) == ["new"]


@pytest.mark.parametrize("name", ["dangling", "loop", "through-proc/none"])
def test_start_says_which_path_cannot_be_shown(tree: Path, name: str) -> None:
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, readonly=(f"{tree}/{name}",))
        with pytest.raises(StartError, match=f"{name} cannot be shown") as caught:
            run(["true"], sandbox)
        assert not isinstance(caught.value, LayerMissing)


def test_start_says_which_path_cannot_be_shown_when_a_link_leads_out_of_the_new_root(tree: Path) -> None:
    """And not that the machine has no namespaces, which might be accepted."""
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, readonly=(f"{tree}/a",), writable=(f"{tree}/a/link/x",))
        with pytest.raises(StartError, match="a/link/x cannot be shown") as caught:
            run(["true"], sandbox)
        assert not isinstance(caught.value, LayerMissing)
    assert sorted(os.listdir(tree / "b")) == ["x"]


# (where the caller stands, what was given, where the program starts), with {t} for the tree
PLACES = [
    ("{t}/a", {}, "{h}"),
    ("{t}/a", {"readonly": ("{t}/a",)}, "{t}/a"),
    ("{t}/a/inner", {"readonly": ("{t}/a",)}, "{t}/a/inner"),
    ("{t}/a", {"writable": ("{t}/a",)}, "{t}/a"),
    ("{t}/a", {"work": "{t}/a"}, "{t}/a"),
    ("{t}/a/inner", {"work": "{t}/a"}, "{t}/a/inner"),
    ("{t}/b", {"work": "{t}/a"}, "{t}/a"),
    ("/usr", {}, "{h}"),
    ("/etc", {}, "{h}"),
    ("/", {}, "{h}"),
    ("/tmp", {}, "{h}"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("cwd", "given", "starts"), PLACES)
def test_program_starts_where_its_caller_stood_if_that_was_given(
    tree: Path, monkeypatch: pytest.MonkeyPatch, way: str, cwd: str, given: dict[str, object], starts: str
) -> None:
    monkeypatch.chdir(cwd.format(t=tree))
    fields = {
        name: value.format(t=tree) if isinstance(value, str) else tuple(one.format(t=tree) for one in value)  # type: ignore[attr-defined]
        for name, value in given.items()
    }
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, way, **fields)
        assert run(["pwd", "-P"], sandbox) == (0, starts.format(t=tree, h=sandbox.home) + "\n")


@pytest.mark.parametrize("way", WAYS)
@needs_root
def test_program_starts_at_home_when_the_given_directory_is_closed_to_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (tree / "a").chmod(0o700)
    monkeypatch.chdir(tree / "a")
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, way, readonly=(f"{tree}/a",))
        assert run(["pwd", "-P"], sandbox) == (0, f"{sandbox.home}\n")


@pytest.mark.parametrize("way", WAYS)
def test_program_starts_at_home_when_its_caller_stands_nowhere(tree: Path, way: str) -> None:
    def from_nowhere() -> list[object]:
        (tree / "gone").mkdir()
        os.chdir(tree / "gone")
        (tree / "gone").rmdir()
        with ExitStack() as stack:
            sandbox = make_sandbox(stack, way)
            return [*run(["pwd", "-P"], sandbox), sandbox.home]

    status, said, home = as_uid(os.geteuid(), from_nowhere)
    assert (status, said) == (0, f"{home}\n")


def test_work_stays_and_scratch_goes(tree: Path) -> None:
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, work=f"{tree}/a")
        assert (
            run(["sh", "-c", "echo kept > ~/new; echo lost > /tmp/new; echo ~"], sandbox)[1] == f"{tree}/a\n"
        )
    assert (tree / "a/new").read_text() == "kept\n"
    assert not Path("/tmp/new").exists()


def test_socket_is_shown_alone(tree: Path) -> None:
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, socket=f"{tree}/a/file")
        assert run(["sh", "-c", f"ls {tree}; ls {tree}/a"], sandbox) == (0, "a\nfile\n")


def test_scratch_is_gone_with_the_run_and_held_by_nobody() -> None:
    reader, writer = os.pipe()
    with ExitStack() as stack:
        sandbox = make_sandbox(stack, keep=(writer,))
        assert run(["sh", "-c", "echo x > ~/x; echo x > /dev/shm/x"], sandbox) == (0, "")
    os.close(writer)
    assert has_ended(reader)
    os.close(reader)
