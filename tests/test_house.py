"""The rules of the house, as tests: linters, import directions, purity, docstrings, pinned packages.

They hold for every file of the checkout, so they need no list that somebody must keep. What a rule is good
for stands beside it. How the code behaves is the other tests' business.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Who may import what, beside the standard library. The arrows run one way: the privileged side knows the
# other two, which know neither it nor each other.
MAY_IMPORT = {
    "policy": {"policy", "msgspec", "yaml", "_sha2"},  # the last is CPython's, since 3.12
    "sandboxed": {"sandboxed", "prctl"},
    "broker": {"broker", "policy", "sandboxed", "msgspec", "prctl", "pyudev"},
}

# A decision depends on its arguments alone: policy/ has no door to the machine it runs on.
IMPURE_MODULES = {
    "asyncio", "ctypes", "datetime", "fcntl", "getpass", "glob", "grp", "io", "logging", "mmap",
    "multiprocessing", "os", "pathlib", "platform", "posix", "pwd", "random", "resource", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "stat", "subprocess", "sys", "tempfile", "threading", "time",
    "uuid",
}  # fmt: skip
IMPURE_CALLS = {"__import__", "eval", "exec", "input", "open", "print"}

NOT_OURS = {".git", ".venv", "__pycache__", "build", "dist"}


def files_of_the_checkout() -> Iterator[Path]:
    """Every file but what git ignores. The copy that the tests run in as another uid has no git to ask."""
    for directory, subdirectories, names in os.walk(ROOT):
        subdirectories[:] = [
            name
            for name in subdirectories
            if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info")) and name != ".hypothesis"
        ]
        yield from (Path(directory, name) for name in names)


def modules(package: str = "") -> list[Path]:
    found = [path for path in files_of_the_checkout() if path.suffix == ".py"]
    return sorted(path for path in found if path.is_relative_to(ROOT / package))


def shown(path: Path, line: int | None = None) -> str:
    return str(path.relative_to(ROOT)) + (f":{line}" if line else "")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Top-level package and line of every absolute import, also of those inside functions."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0], node.lineno


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_ruff_finds_nothing() -> None:
    result = run_module("ruff", "check", "--no-cache", "--output-format=concise")
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy_strict_finds_nothing() -> None:
    result = run_module("mypy", "--strict", *MAY_IMPORT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_package_imports_only_what_it_may(package: str) -> None:
    sources = modules(package)
    assert sources, f"no module found in {package}/"
    allowed = MAY_IMPORT[package] | sys.stdlib_module_names
    assert [
        f"{shown(path, line)} imports {name}"
        for path in sources
        for name, line in imports(path)
        if name not in allowed
    ] == []


def test_policy_imports_nothing_that_reaches_the_machine() -> None:
    assert [
        f"{shown(path, line)} imports {name}"
        for path in modules("policy")
        for name, line in imports(path)
        if name in IMPURE_MODULES
    ] == []


def test_policy_calls_nothing_that_reaches_the_machine() -> None:
    assert [
        f"{shown(path, node.lineno)} calls {node.func.id}()"
        for path in modules("policy")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS
    ] == []


def test_client_library_loads_the_standard_library_alone() -> None:
    # An application that links to us takes on neither our dependencies nor the license of python-prctl.
    script = "import sys; before = set(sys.modules); import sandboxed; print(*(set(sys.modules) - before))"
    result = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "sandboxed" in loaded
    assert loaded - sys.stdlib_module_names == {"sandboxed"}


def test_every_module_says_what_it_is_for() -> None:
    assert [shown(path) for path in modules() if not ast.get_docstring(parse(path))] == []


def test_no_file_names_the_host_of_a_package_registry() -> None:
    # Where packages come from is the builder's choice; a mirror must not be bypassed. The names are put
    # together here so that this file passes.
    hosts = [
        ".".join(labels)
        for labels in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("deb", "debian", "org"),
            ("security", "debian", "org"),
            ("npmjs", "org"),
            ("crates", "io"),
        )
    ]
    pattern = re.compile("|".join(map(re.escape, hosts)).encode(), re.IGNORECASE)
    assert [shown(path) for path in files_of_the_checkout() if pattern.search(path.read_bytes())] == []


def pinned(name: str) -> dict[str, str]:
    """Requirements of one file: the name, in small letters, and what it is held to."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    lines = text.replace("\\\n", " ").splitlines()
    entries = [line for line in lines if line and not line.lstrip().startswith("#")]
    return {entry.split("==")[0].lower(): entry for entry in entries}


@pytest.mark.parametrize("name", ["build.txt", "runtime.txt", "test.txt"])
def test_requirement_is_pinned_by_version_and_hash(name: str) -> None:
    requirements = pinned(name)
    assert requirements
    well_formed = re.compile(r"[\w.-]+==[\w.]+ (; [^-]+ )?( *--hash=sha256:[0-9a-f]{64})+ *", re.ASCII)
    assert [entry for entry in requirements.values() if not well_formed.fullmatch(entry)] == []


def test_requirements_hold_the_versions_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = {
        "build.txt": project["build-system"]["requires"] + project["dependency-groups"]["build"],
        "runtime.txt": project["project"]["dependencies"],
        "test.txt": project["dependency-groups"]["test"],
    }
    for name, requirements in wanted.items():
        held = pinned(name)
        for requirement in requirements:
            assert held[requirement.split("==")[0].lower()].startswith(requirement.lower() + " "), name
