"""How a test starts the attackers: the two programs, their command lines, and what they answered.

    with Witness(place, uid) as witness:
        command = python_attackers(witness.description(), "unix-stream", "tcp4")
        results = launch([*sandbox, *command], witness)
        assert not results["tcp4"].succeeded, results["tcp4"].detail
        assert witness.saw() == []

The sandbox, if any, stands before the command. The attackers' fd 0 is the witness's terminal, which also
controls their session; an intermediate shell of their own uid is their parent, unless a sandbox is.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from attacks.witness import Witness

SOURCE = Path(__file__).resolve().with_name("attack.py")
SECONDS = 300  # every attack has a deadline of its own; this ends what hangs altogether
WARNINGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")

# A parent that an attack may try itself on. It does not become the program: its exit status is asked for.
PARENT = ("/bin/sh", "-c", '"$@"; exit $?', "sh")


class Result(NamedTuple):
    """What became of one attack."""

    succeeded: bool
    detail: str


def interpreter() -> str:
    """The Python that any uid can run: the one that a virtual environment points to."""
    return os.path.realpath(sys.executable)


def compiler() -> str | None:
    """The C compiler; None where there is none."""
    return shutil.which("gcc") or shutil.which("cc")


def compiled(place: Path, static: bool = False) -> Path:
    """attack.c, built in `place` for every uid. Raises CalledProcessError with what the compiler says."""
    program = place / ("attack-static" if static else "attack")
    command = [str(compiler()), *WARNINGS, *(["-static"] if static else []), "-o", str(program)]
    subprocess.run([*command, str(SOURCE.with_suffix(".c"))], check=True, capture_output=True, text=True)
    program.chmod(0o755)
    return program


def python_attackers(
    description: Mapping[str, str | int],
    *names: str,
    source: Path = SOURCE,
    careful: bool = False,
) -> list[str]:
    """The command that runs attack.py; without names, every attack. `source`: where the attacker finds it."""
    options = ["--careful"] if careful else []
    return [interpreter(), "-I", str(source), *options, json.dumps(dict(description)), *names]


def c_attackers(
    program: Path, description: Mapping[str, str | int], *names: str, careful: bool = False
) -> list[str]:
    """The command that runs the compiled attackers; without names, every attack."""
    options = ["--careful"] if careful else []
    only = [word for name in names for word in ("--only", name)]
    return [str(program), *options, *only, *(f"{key}={value}" for key, value in description.items())]


def launch(
    command: Sequence[str],
    witness: Witness,
    uid: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Result]:
    """Run attackers, by default as the witness's uid and with the outside's environment; what each came to.

    Two fds are passed on as a careless starter would: a file to read only, and a directory.
    """
    uid = witness.uid if uid is None else uid
    search = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    identity = {} if uid == os.geteuid() else {"user": uid, "group": uid, "extra_groups": []}
    finished = subprocess.run(
        [*PARENT, *command],
        stdin=witness.terminal,
        capture_output=True,
        env=search | (witness.environment() if environment is None else dict(environment)),
        cwd="/",
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        pass_fds=(witness.read_only_fd, witness.directory_fd),
        timeout=SECONDS,
        text=True,
        **identity,  # type: ignore[call-overload]
    )
    if finished.returncode != 0:
        raise AssertionError(f"the attackers ended with {finished.returncode}: {finished.stderr}")
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    return {line["attack"]: Result(line["succeeded"], line["detail"]) for line in lines}
