"""Lines of an audit, for tests of the commands that read one."""

import io
import json
import subprocess
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

DEFAULT = "no rule gives read: none names this path"
DAY = "2026-11-23T"


def record(path: str, access: str = "read", verdict: str = "deny", **more: Any) -> str:
    """One line: an open of uid 1000 that was refused for want of a rule, but for what is given."""
    peer = {"uid": 1000, "gid": 1000, "pid": 7, "gids": [1000], "socket": "default", "exe": "/usr/bin/x"}
    values: dict[str, Any] = {
        "seq": 1,
        "time": f"{DAY}09:12:07.510889Z",
        "event": "open",
        "peer": {**peer, **more.pop("peer", {})},
        "path": path,
        "access": access.split(),
        "verdict": verdict,
    }
    if verdict == "allow":
        values["rights"] = access.split()
    elif "rule" not in more:
        values["reason"] = DEFAULT
    return json.dumps({**values, **more})


def found(path: str, kind: str = "file", **more: Any) -> dict[str, Any]:
    """What a record says of an object that was looked at."""
    return {"resolved": path, "type": kind, **more}


def ran(main: Callable[[Sequence[str]], int], *words: str) -> subprocess.CompletedProcess[str]:
    """What a command does with these words, in this process: a start of its own for each case would take long."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as end:  # argparse's
            status = int(end.code or 0)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
