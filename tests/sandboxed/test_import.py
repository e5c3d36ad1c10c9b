"""What importing the client library costs the program that does: modules, in a fresh interpreter."""

import subprocess
import sys

import pytest
from support import TREE

# Dear at start (each some milliseconds), or of another license, or of the broker's side.
NEVER = [
    "argparse", "asyncio", "broker", "contextlib", "ctypes", "dataclasses", "importlib.metadata", "inspect",
    "logging", "msgspec", "multiprocessing", "pathlib", "policy", "prctl", "random", "shutil", "subprocess",
    "tempfile", "threading", "typing", "yaml",
]  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    """The modules that `statement` loads in an interpreter that has loaded nothing but its own."""
    script = (
        f"import sys; sys.path.insert(0, {str(TREE)!r}); before = set(sys.modules); {statement}; "
        "print(*set(sys.modules) - before)"
    )
    # -I and -S: neither the environment nor site-packages adds to it.
    command = [sys.executable, "-I", "-S", "-c", script]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return loaded_by("import sandboxed")


def test_client_library_loads_nothing_outside_the_standard_library(loaded: set[str]) -> None:
    assert {name.split(".")[0] for name in loaded} - sys.stdlib_module_names == {"sandboxed"}


@pytest.mark.parametrize("module", NEVER)
def test_client_library_does_not_load_what_it_does_not_need(loaded: set[str], module: str) -> None:
    assert module not in loaded


def test_client_library_loads_none_of_its_siblings_that_confine(loaded: set[str]) -> None:
    assert {name for name in loaded if name.startswith("sandboxed.")} == {
        "sandboxed.calls",
        "sandboxed.client",
        "sandboxed.descriptors",
        "sandboxed.errors",
        "sandboxed.exchange",
        "sandboxed.limits",
        "sandboxed.wire",
    }


def test_client_library_works_without_site_packages() -> None:
    # Whoever is confined may have no site-packages to read.
    assert "sandboxed" in loaded_by("import sandboxed.client; sandboxed.client.Client")
