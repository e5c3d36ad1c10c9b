"""Ways out of the sandbox that were found by trying, one test for each: what was found stays shut."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import allow, policy

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


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """`fdbroker run` to its end."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*FDBROKER, "run", *arguments],
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


@pytest.mark.parametrize("kind", ["odd-space", "carriage-return", "up-behind-a-link", "directory", "no-program"])
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
