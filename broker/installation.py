"""What a program in a sandbox needs besides what every sandbox shows: its own files, and fdbroker's.

Rules that this module enforces:
- A command outside of the system's trees is shown alone, with the interpreter that its first line names, and with
  the whole of a Python environment that it belongs to; never the directory that it lies in. That line is the
  hostile program's: it is read as the kernel reads it, and names nothing but a file that can be executed.
- What the broker trusts (policy files, the audit, the broker's socket, its own code) lies in no tree that the program
  may write, nor does a link that leads to it, and no such tree lies in it: it would be read again at the next start.
"""

import os
import re
import stat
import sys
from collections.abc import Iterable, Sequence

import sandboxed
from sandboxed.child import find_command
from sandboxed.confinement.layout import SYSTEM_TREES, passed
from sandboxed.confinement.sandbox import StartError, lies_in

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
    """What the kernel runs `program` with; None unless that is a file which can be executed.

    Only spaces and tabs part the line's words, see load_script() in fs/binfmt_script.c. Behind a link '..' is not what
    it looks like, and whose names go up like that means to mislead.
    """
    try:
        with open(program, "rb") as file:
            line = file.read(_FIRST_LINE_BYTES).partition(b"\n")[0]
    except OSError:
        return None
    name = os.fsdecode(re.split(rb"[ \t\0]", line[2:].lstrip(b" \t"))[0])
    if not line.startswith(b"#!") or not name.startswith("/") or ".." in name.split("/"):
        return None
    return name if os.path.isfile(name) and os.access(name, os.X_OK) else None


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


def own_code() -> list[str]:
    """What runs with our privileges at the next start. Of a checkout, what lies beside its packages does not."""
    packages = os.path.dirname(os.path.dirname(os.path.abspath(sandboxed.__file__)))
    libraries = [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")]
    ours = [os.path.join(packages, name) for name in ("broker", "policy", "sandboxed")]
    return [*ours, *libraries, os.path.dirname(os.__file__), sys.executable]


def refuse_writable(trusted: Iterable[str], trees: Sequence[str]) -> None:
    """Raise StartError if one of `trusted`, or a link on the way to it, lies in one of `trees`, by whatever name.

    So it does if a tree lies in our own code or in a directory of `trusted`'s.
    """
    identities = {identity: tree for tree in trees if (identity := _identity(tree)) is not None}
    code = own_code()
    beside = own_trees()  # these have what is their user's own beside the code
    named = [path for path in trusted if path not in beside]
    for path in (*beside, *named, *code) if identities else ():
        for place in passed(path):
            tree = identities.get(_identity(place) or (0, 0))
            if tree is not None:
                raise StartError(
                    f"{path} lies in {tree}, which the program may write: it could change what is trusted the next "
                    "time; give a tree without it"
                )
    outer = {identity: path for path in (*named, *code) if (identity := _identity(path)) is not None}
    for tree in trees:
        for place in passed(tree):
            around = outer.get(_identity(place) or (0, 0))
            if around is not None:
                raise StartError(
                    f"{tree}, which the program may write, lies in {around}: it could change what is trusted the next "
                    "time; give another tree"
                )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
