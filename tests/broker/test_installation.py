"""What a program in a sandbox needs besides what every sandbox shows, and what it must not be given."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from support import TREE

from broker.installation import import_trees, needed_by, own_trees, refuse_writable
from sandboxed.confinement.layout import SYSTEM_TREES
from sandboxed.confinement.sandbox import StartError, lies_in


def program(path: Path, content: str = "", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def needs(command: str | Path, path: Iterable[str | Path] = ()) -> set[str]:
    return set(needed_by([str(command)], ":".join(map(str, path)), by_others=False))


def test_program_of_the_system_needs_nothing() -> None:
    assert needs("/usr/bin/env") == needs("env", ["/usr/bin"]) == set()


def test_program_is_shown_alone_and_not_what_lies_beside_it(place: Path) -> None:
    tool = program(place / "bin" / "tool")
    program(place / "bin" / "other")
    assert needs(tool) == needs("tool", ["/no/such", place / "bin"]) == {str(tool)}


@pytest.mark.parametrize("first_line", ["#!{i}\n", "#! {i}\n", "#!{i} -x\n", "#!{i}\nmore\n", "#!{i}"])
def test_script_needs_the_interpreter_of_its_first_line(place: Path, first_line: str) -> None:
    interpreter = program(place / "elsewhere" / "interpreter")
    script = program(place / "script", first_line.format(i=interpreter))
    assert needs(script) == {str(script), str(interpreter)}


@pytest.mark.parametrize(
    "first_line", ["#!\n", "#!relative\n", "#!/no/such\n", "# !/bin/sh\n", "", "#!/bin/sh\n", "\0\xff"]
)
def test_script_needs_nothing_for_a_first_line_that_names_no_interpreter(
    place: Path, first_line: str
) -> None:
    script = program(place / "script", first_line)
    assert needs(script) == {str(script)}


def test_interpreter_of_an_interpreter_is_needed_too_and_a_circle_ends(place: Path) -> None:
    last = program(place / "3" / "last")
    middle = program(place / "2" / "middle", f"#!{last}\n")
    first = program(place / "1" / "first", f"#!{middle}\n")
    assert needs(first) == {str(first), str(middle), str(last)}
    last.write_text(f"#!{first}\n")
    assert needs(first) == {str(first), str(middle), str(last)}


def test_link_needs_what_it_leads_to(place: Path) -> None:
    real = program(place / "real" / "tool")
    (place / "link").symlink_to(real)
    assert needs(place / "link") == {str(place / "link"), str(real)}


def test_program_of_a_python_environment_needs_all_of_it(place: Path) -> None:
    environment = place / "environment"
    python = program(environment / "bin" / "python")
    script = program(environment / "bin" / "tool", f"#!{python}\n")
    assert needs(script) == {str(script), str(python)}
    (environment / "pyvenv.cfg").touch()
    assert needs(script) == {str(environment)}
    outside = program(place / "outside", f"#!{python}\n")
    assert needs(outside) == {str(outside), str(environment)}


def test_first_program_of_the_path_that_can_be_run_counts(place: Path) -> None:
    program(place / "1" / "tool", mode=0o644)
    (place / "2" / "tool").mkdir(parents=True)
    third = program(place / "3" / "tool")
    program(place / "4" / "tool")
    assert needs("tool", [place / name for name in "1234"]) == {str(third)}
    assert needs("no-such", [place / "3"]) == set()


def test_own_trees_hold_the_interpreter_and_the_packages_and_lie_beside_the_system() -> None:
    trees = own_trees()
    for path in (
        sys.executable,
        *(f"{TREE}/{name}/__init__.py" for name in ("sandboxed", "broker", "policy")),
    ):
        assert any(lies_in(path, tree) for tree in (*trees, *SYSTEM_TREES)), path
    assert [tree for tree in trees for system in SYSTEM_TREES if lies_in(tree, system)] == []


def test_import_trees_are_what_is_there_of_the_path(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.chdir(place)
    (place / "here").mkdir()
    path = ["", "here", f"{place}/here", "/no/such", "/usr/lib/python3", f"{place}/../{place.name}"]
    monkeypatch.setattr(sys, "path", path)
    assert import_trees() == [str(place)]
    monkeypatch.setattr(sys, "path", path[:-1])
    assert import_trees() == [f"{place}/here"]


# (what is trusted, what may be written, whether that is refused), below one directory
TRUST = [
    ("policy.yaml", ["work"], False),
    ("work/policy.yaml", ["work"], True),
    ("work/below/policy.yaml", ["other", "work"], True),
    ("work/policy.yaml", ["work/below"], False),
    ("work/policy.yaml", ["work/policy.yaml"], True),
    ("work", ["work"], True),
    ("work-2/policy.yaml", ["work"], False),
    ("work/policy.yaml", ["link-to-work"], True),
    ("link-to-work/policy.yaml", ["work"], True),
    ("link-to-policy.yaml", ["work"], True),
    ("work/not-there.yaml", ["work"], True),
    ("policy.yaml", [], False),
    ("policy.yaml", ["not-there"], False),
    ("policy.yaml", ["."], True),
]


@pytest.mark.parametrize(("trusted", "writable", "refused"), TRUST)
def test_what_is_trusted_lies_in_no_tree_that_may_be_written(
    place: Path, trusted: str, writable: list[str], refused: bool
) -> None:
    for name in ("work/below", "work-2", "other"):
        (place / name).mkdir(parents=True)
    for name in ("policy.yaml", "work/policy.yaml", "work/below/policy.yaml", "work-2/policy.yaml"):
        (place / name).touch()
    (place / "link-to-work").symlink_to(place / "work")
    (place / "link-to-policy.yaml").symlink_to("work/policy.yaml")
    trees = [os.path.normpath(place / name) for name in writable]
    if refused:
        with pytest.raises(StartError, match="which the program may write"):
            refuse_writable([f"{place}/{trusted}"], trees)
    else:
        refuse_writable([f"{place}/{trusted}"], trees)


def test_own_code_is_refused_to_be_written() -> None:
    for tree in (TREE, TREE / "broker", TREE.parent):
        with pytest.raises(StartError, match="which the program may write"):
            refuse_writable(own_trees(), [str(tree)])
