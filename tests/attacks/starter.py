"""Runs a command in a sandbox of the layers that are named: `python starter.py JSON CMD…`.

What `fdbroker run` never does, because it fails closed: a sandbox that lacks layers which this machine could give.
JSON has `layers`, `uid` (null for one's own), `readonly`, `network` and `keep`, the fds that the command inherits.
"""

import contextlib
import json
import sys
from collections.abc import Sequence

from sandboxed.confinement.environment import clean_environment
from sandboxed.confinement.launch import start
from sandboxed.confinement.sandbox import NAMESPACES, Sandbox
from sandboxed.confinement.session import SESSION_SIGNALS, attend
from sandboxed.confinement.workdir import work_directory
from sandboxed.signals import Signals


def main(arguments: Sequence[str]) -> int:
    """Run it, and return the command's exit status."""
    wanted = json.loads(arguments[0])
    uid = wanted["uid"]
    sandbox = Sandbox(
        uid=uid,
        gid=uid,
        readonly=tuple(wanted["readonly"]),
        network=wanted["network"],
        keep=tuple(wanted["keep"]),
        layers=frozenset(wanted["layers"]),
    )
    with contextlib.ExitStack() as stack:
        if not sandbox.has(NAMESPACES):
            sandbox = sandbox._replace(work=stack.enter_context(work_directory(uid, uid)))
        signals = stack.enter_context(Signals(SESSION_SIGNALS))
        child = start(arguments[1:], sandbox, clean_environment(sandbox), mask=signals.original_mask)
        with child:
            return attend(child, signals)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
