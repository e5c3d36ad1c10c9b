"""What a program in a sandbox needs besides what every sandbox shows: its own files, and fdbroker's.

Rules that this module enforces:
- A command outside of the system's trees is shown alone, with the interpreter that its first line names, and with
  the whole of a Python environment that it belongs to; never the directory that it lies in.
- What the broker trusts (policy files, the audit, its own code) lies in no tree that the program may write:
  it would be read again at the next start.
"""

import os
import stat
import sys
from collections.abc import Iterable, Sequence

import sandboxed
from sandboxed.child import find_command
from sandboxed.layout import SYSTEM_TREES
from sandboxed.sandbox import StartError, lies_in

# Bytes of a script's first line that the kernel looks at (execve(2)).
_FIRST_LINE_BYTES = 256


def own_trees() -> list[str]:
    """Where fdbroker and its interpreter lie: the program may run `fdbroker open` and import `sandboxed`.

    Of a checkout that is all of it: Python lists the directory that a package lies in before it imports it.
    """
    packages = os.path.dirname(os.path.dirname(os.path.abspath(sandboxed.__file__)))
    return _beside_the_system([sys.prefix, sys.base_prefix, packages])


def import_trees() -> list[str]:
    """What this Python program may still import: its path, as far as it is there."""
    return _beside_the_system(
        [os.path.abspath(entry) for entry in sys.path if entry and os.path.exists(entry)]
    )


def needed_by(command: Sequence[str], path: str, *, by_others: bool) -> list[str]:
    """The files that `command` needs to start, looked for in `path`.

    `by_others`: it will run as another user, who finds in `path` only what everybody can reach. A command that is
    named by its own path is shown to that user all the same.
    """
    for candidate in find_command(command[0], path):
        if not (os.path.isfile(candidate) and os.access(candidate, os.X_OK)):
            continue
        if by_others and "/" not in command[0] and not _everybody_reaches(candidate):
            continue
        return _beside_the_system(_needs(os.path.abspath(candidate)))
    return []


def shown_path(path: str, shown: Iterable[str]) -> str:
    """Of the PATH `path` the directories that are there for a program which is shown `shown`; may be empty."""
    trees = (*SYSTEM_TREES, *shown)
    return ":".join(
        directory
        for directory in path.split(":")
        if any(lies_in(directory, tree) or lies_in(tree, directory) for tree in trees)
    )


def _everybody_reaches(file: str) -> bool:
    above = os.path.realpath(file)
    while above != "/":
        if not os.stat(above).st_mode & stat.S_IXOTH:
            return False
        above = os.path.dirname(above)
    return True


def _needs(program: str) -> list[str]:
    found = []
    for _ in range(4):  # an interpreter may be a script itself, as often as the kernel bears it
        found += [program, os.path.realpath(program), *_python_environment(program)]
        interpreter = _interpreter(program)
        if interpreter is None:
            break
        program = interpreter
    return found


def _python_environment(program: str) -> list[str]:
    """The virtual environment whose interpreter `program` is."""
    root = os.path.dirname(os.path.dirname(program))
    return [root] if os.path.isfile(os.path.join(root, "pyvenv.cfg")) else []


def _interpreter(program: str) -> str | None:
    try:
        with open(program, "rb") as file:
            line = file.read(_FIRST_LINE_BYTES).partition(b"\n")[0]
    except OSError:
        return None
    words = line[2:].split()
    return os.fsdecode(words[0]) if line.startswith(b"#!") and words and words[0].startswith(b"/") else None


def _beside_the_system(paths: Iterable[str]) -> list[str]:
    """Those of `paths` that are there and that no sandbox shows by itself."""
    kept = []
    for path in paths:
        path = os.path.normpath(path)
        if path != "/" and os.path.exists(path) and not any(lies_in(path, tree) for tree in SYSTEM_TREES):
            kept.append(path)
    return [
        path for path in dict.fromkeys(kept) if not any(path != one and lies_in(path, one) for one in kept)
    ]


def refuse_writable(trusted: Iterable[str], trees: Sequence[str]) -> None:
    """Raise StartError if one of `trusted` lies in one of `trees`, by whatever name."""
    identities = {identity: tree for tree in trees if (identity := _identity(tree)) is not None}
    for path in trusted:
        above = os.path.realpath(path)
        while True:
            tree = identities.get(_identity(above) or (0, 0))
            if tree is not None:
                raise StartError(
                    f"{path} lies in {tree}, which the program may write: it could change what is trusted the next "
                    "time; give a tree without it"
                )
            if above == "/":
                break
            above = os.path.dirname(above)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
