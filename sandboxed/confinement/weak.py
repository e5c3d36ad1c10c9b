"""Starting with fewer layers than were asked for, where the machine cannot give them and that was accepted by name."""

import contextlib
from collections.abc import Callable, Collection

from sandboxed.child import Child
from sandboxed.confinement.sandbox import NAMESPACES, LayerMissing, Sandbox
from sandboxed.confinement.workdir import work_directory


def start_accepting(
    accepted: Collection[str],
    sandbox: Sandbox,
    attempt: Callable[[Sandbox], Child | None],
    stack: contextlib.ExitStack,
) -> tuple[Child | None, Sandbox, list[LayerMissing]]:
    """What `attempt` gives for `sandbox`, the sandbox that it came to, and the layers that it does without.

    Without namespaces a program that was given no directory gets one on the disk; `stack` removes it. Raises
    LayerMissing for a layer that is not among `accepted`, and what `attempt` raises.
    """
    missing: list[LayerMissing] = []
    while True:
        if not sandbox.has(NAMESPACES) and sandbox.work is None:
            directory = stack.enter_context(work_directory(sandbox.uid, sandbox.gid))
            sandbox = sandbox._replace(work=directory)
        try:
            return attempt(sandbox), sandbox, missing
        except LayerMissing as error:
            if error.layer not in accepted or not sandbox.has(error.layer):
                raise
            missing.append(error)
            sandbox = sandbox.without(error.layer)
