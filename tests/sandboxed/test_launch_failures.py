"""Failures on every step of the chain: raised in the caller, and nothing left behind."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from refusing import refuse_calls
from sandboxes import WAYS, has_ended, make_sandbox, nothing_left, start_shell
from support import STRANGER, as_uid, needs_root

from sandboxed.confinement import chain, launch, namespaces
from sandboxed.confinement.sandbox import LayerMissing, Sandbox, StartError
from sandboxed.confinement.weak import start_accepting


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture(params=WAYS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox for whoever runs the tests, both ways."""
    with ExitStack() as stack:
        yield make_sandbox(stack, request.param)


def fails_to_start(sandbox: Sandbox, **options: object) -> StartError:
    """The error of a start that must fail and leave nothing: no fd, no process, no mount, and no program that ran."""
    reader, writer = os.pipe()
    try:
        with nothing_left(), pytest.raises(StartError) as caught:
            start_shell(f"echo ran >&{writer}", sandbox._replace(keep=(writer,)), **options)
        os.close(writer)
        writer = -1
        assert has_ended(reader)  # of the processes that held the other end there is none
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    return caught.value


NAMESPACES_MISSING = ("namespaces", "Operation not permitted")
FAILS = (None, "Operation not permitted")

# (way, the system call that the machine refuses, the layer that is missing for it, what the message says)
REFUSED = [
    (WAYS[0], "unshare", *NAMESPACES_MISSING),
    (WAYS[0], "sethostname", *NAMESPACES_MISSING),
    (WAYS[0], "mount", *NAMESPACES_MISSING),
    (WAYS[0], "open_tree", *NAMESPACES_MISSING),
    (WAYS[0], "mount_setattr", *NAMESPACES_MISSING),
    (WAYS[0], "move_mount", *NAMESPACES_MISSING),
    (WAYS[0], "pivot_root", *NAMESPACES_MISSING),
    (WAYS[0], "umount2", *NAMESPACES_MISSING),
    *((way, "clone", None, "cannot fork") for way in WAYS),
    *((way, "setsid", *FAILS) for way in WAYS),
    *((way, "setpgid", *FAILS) for way in WAYS),
    *((way, "capset", *FAILS) for way in WAYS),
    *((way, "pidfd_open", *FAILS) for way in WAYS),
    *((way, "execve", None, "cannot be run") for way in WAYS),
    *((way, "seccomp", "seccomp", "cannot be filtered") for way in WAYS),
    *((way, "landlock_create_ruleset", "landlock", "does not offer Landlock") for way in WAYS),
    *((way, "landlock_add_rule", *FAILS) for way in WAYS),
    *((way, "landlock_restrict_self", *FAILS) for way in WAYS),
    *(pytest.param(way, "setresuid", *FAILS, marks=needs_root) for way in WAYS),
    *(pytest.param(way, "setresgid", *FAILS, marks=needs_root) for way in WAYS),
]


@pytest.mark.parametrize(("way", "call", "layer", "says"), REFUSED)
def test_start_raises_what_the_machine_refuses(way: str, call: str, layer: str | None, says: str) -> None:
    def start_without_it() -> list[str | None]:
        with ExitStack() as stack:
            sandbox = make_sandbox(stack, way)
            refuse_calls([call])
            error = fails_to_start(sandbox)
            if isinstance(error, LayerMissing):
                assert error.help
                assert f"--weak {error.layer}" in str(error)
                assert error.reason in str(error)
            return [getattr(error, "layer", None), str(error)]

    found, message = as_uid(os.geteuid(), start_without_it)
    assert found == layer, message
    assert says in message


@needs_root
def test_ordinary_user_is_told_which_layer_is_missing() -> None:
    def start_without_it() -> list[str]:
        with ExitStack() as stack:
            sandbox = make_sandbox(stack)
            refuse_calls(["unshare"])
            error = fails_to_start(sandbox)
            assert isinstance(error, LayerMissing)
            return [error.layer, error.help]

    layer, help = as_uid(STRANGER, start_without_it)
    assert layer == "namespaces"
    assert "as root" in help


@pytest.mark.parametrize(
    ("settings", "helps"),
    [
        ({}, "Start it as root, or outside of the container"),
        (
            {"unprivileged_userns_clone": "0"},
            "sysctl kernel.unprivileged_userns_clone=1, or start it as root",
        ),
        ({"apparmor_restrict_unprivileged_userns": "1"}, "AppArmor profile"),
        ({"max_user_namespaces": "0"}, "sysctl user.max_user_namespaces=10000"),
        ({"unprivileged_userns_clone": "1", "max_user_namespaces": "100"}, "outside of the container"),
    ],
)
def test_missing_namespaces_name_the_setting_that_refused_them(
    monkeypatch: pytest.MonkeyPatch, place: Path, settings: dict[str, str], helps: str
) -> None:
    for name, value in settings.items():
        (place / name).write_text(f"{value}\n")
    elsewhere = tuple((f"{place}/{Path(path).name}", *rest) for path, *rest in namespaces._REFUSALS)
    monkeypatch.setattr(namespaces, "_REFUSALS", elsewhere)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert helps in namespaces.missing(PermissionError(1, "Operation not permitted")).help


def test_start_raises_what_the_hook_raises(sandbox: Sandbox) -> None:
    for text in ("é" * 10_000, "\N{GRINNING FACE}" * 10_000, "\udcff", "short"):

        def fail(text: str = text) -> None:
            raise ValueError(f"the hook says {text}")

        assert f"ValueError: the hook says {text[:10]}" in str(fails_to_start(sandbox, in_child=fail))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError, StartError])
def test_what_is_raised_meanwhile_ends_the_chain(sandbox: Sandbox, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("meanwhile")

    reader, writer = os.pipe()
    with nothing_left(), pytest.raises(kind, match="meanwhile"):
        start_shell("exit 0", sandbox._replace(keep=(writer,)), meanwhile=fail)
    os.close(writer)
    assert has_ended(reader)
    os.close(reader)


def test_what_is_raised_meanwhile_ends_a_chain_that_hangs(sandbox: Sandbox) -> None:
    reader, writer = os.pipe()

    def hang() -> None:
        os.write(writer, b"h")
        signal.pause()

    def fail() -> None:
        assert os.read(reader, 1) == b"h"
        raise KeyboardInterrupt

    with nothing_left(), pytest.raises(KeyboardInterrupt):
        start_shell("exit 0", sandbox._replace(keep=(writer,)), in_child=hang, meanwhile=fail)
    os.close(writer)
    assert has_ended(reader)
    os.close(reader)


@pytest.mark.parametrize("terminal", [False, True])
def test_start_fails_or_works_with_however_few_fds(sandbox: Sandbox, terminal: bool) -> None:
    """Each limit makes another open of the start the first that fails."""

    def start_with_few() -> list[str]:
        if terminal:
            os.dup2(os.openpty()[1], 0)
        resource_limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        outcomes = []
        for spare in range(70):
            with nothing_left():
                lowest_free = os.dup(0)
                os.close(lowest_free)
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + spare, resource_limits[1]))
                try:
                    with start_shell("exit 0", sandbox) as child:
                        assert (child.terminal is not None) == terminal
                        outcomes.append(f"exit {child.wait()}")
                except StartError:
                    outcomes.append("StartError")
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, resource_limits)
        return outcomes

    outcomes = as_uid(os.geteuid(), start_with_few)
    assert set(outcomes) == {"StartError", "exit 0"}


def step_that_fails(target: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(target, name, fail)


@pytest.mark.parametrize(
    "name",
    ["give_up_privileges", "hide_arguments", "_prepare_fds", "reset_signals", "enter_domain", "execute"],
)
def test_start_raises_what_fails_on_a_step_of_the_chain(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    step_that_fails(chain, name, monkeypatch)
    error = fails_to_start(sandbox)
    assert "Input/output error" in str(error)
    assert error.exit_status == 125


def test_start_does_without_the_layers_that_were_accepted() -> None:
    def start_without_them() -> list[object]:
        with nothing_left(), ExitStack() as stack:
            sandbox = make_sandbox(stack)
            refuse_calls(["unshare", "landlock_create_ruleset"])
            accepted = ("landlock", "namespaces")

            def attempt(wanted: Sandbox) -> launch.Child:
                return start_shell("test $PWD = $HOME -a -O $HOME", wanted)

            child, weaker, missing = start_accepting(accepted, sandbox, attempt, stack)
            assert child is not None
            with child:
                status = child.wait()
            work = weaker.home
            assert os.path.isdir(work)
        return [
            status,
            sorted(error.layer for error in missing),
            sorted(sandbox.layers - weaker.layers),
            work,
        ]

    status, missing, gone, work = as_uid(os.geteuid(), start_without_them)
    assert (status, missing, gone) == (0, ["landlock", "namespaces"], ["landlock", "namespaces"])
    assert not os.path.exists(work)


@pytest.mark.parametrize("accepted", [(), ("landlock",)])
def test_start_does_without_no_layer_that_was_not_accepted(accepted: tuple[str, ...]) -> None:
    def start_without_it() -> str:
        with ExitStack() as stack:
            sandbox = make_sandbox(stack)
            refuse_calls(["unshare"])
            attempt: Callable[[Sandbox], launch.Child] = lambda wanted: start_shell("exit 0", wanted)  # noqa: E731
            with pytest.raises(LayerMissing) as caught:
                start_accepting(accepted, sandbox, attempt, stack)
            return caught.value.layer

    assert as_uid(os.geteuid(), start_without_it) == "namespaces"


def test_nothing_is_started_when_too_little_would_hold_the_program() -> None:
    bare = Sandbox(work="/tmp", layers=frozenset())
    with pytest.raises(StartError, match="nothing would hold"):
        start_shell("exit 0", bare)
    same_uid = Sandbox(work="/tmp", broker_is_parent=True, layers=frozenset({"seccomp"}))
    with pytest.raises(StartError, match=r"Linux 6\.12"):
        start_shell("exit 0", same_uid)
