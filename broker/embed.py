"""A program split in two: `embed` makes the running program's parent half a broker, and confines the rest.

    from broker.embed import embed

    client = embed("policy.yaml")          # from here on: no privileges, and a connected client
    with client.open("/dev/kvm", "r+b") as kvm:
        ...

The process that called embed() becomes the broker and ends with the exit status of its confined half, as
OpenSSH's monitor does. Call it early: before threads, and before anything hostile was read.
"""

import contextlib
import os
import sys

from broker.commands.common import Unusable, audit_to, policy_from
from broker.embedded import EmbeddedBroker
from policy import Policy
from sandboxed.child import SignalForwarder, fork_confined, terminal_can_be_injected
from sandboxed.client import Client
from sandboxed.confinement import Confinement, work_directory
from sandboxed.identities import lookup, unused_uid

__all__ = ["Unusable", "embed"]


def embed(
    policy: str | os.PathLike[str] | Policy, *, user: str | None = None, audit: str | None = None
) -> Client:
    """Go on confined, with a client of a broker that serves by `policy`.

    Returns in a new process. Started by root, it runs as `user` (default: an unused uid of its own); its
    working files belong below its HOME, a fresh directory. `audit` is a file for the broker's records, "-"
    for standard error. Raises, before anything is given up: Unusable for a policy that cannot be used,
    sandboxed.identities.IdentityError for a user that there is not, StartError when the confinement
    cannot be had, RuntimeError when other threads run.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("embed() must come before other threads: they would stay behind, privileged")
    loaded = policy if isinstance(policy, Policy) else policy_from(os.fspath(policy))
    if os.geteuid() != 0:
        if user is not None:
            raise Unusable("only root can choose the user: leave `user` out to go on as yourself")
        return _split(loaded, audit, None, None)
    if user is not None:
        found = lookup(user)
        return _split(loaded, audit, found.uid, found.gid)
    with unused_uid() as held:
        return _split(loaded, audit, held.uid, held.gid)


def _split(policy: Policy, audit_path: str | None, uid: int | None, gid: int | None) -> Client:
    with contextlib.ExitStack() as stack:
        audit = audit_to(audit_path, standard=2)
        stack.callback(os.close, audit)
        work = stack.enter_context(work_directory(uid, gid))
        signals = stack.enter_context(SignalForwarder(typed=terminal_can_be_injected()))
        broker = stack.enter_context(EmbeddedBroker(policy, audit))
        child = fork_confined(
            Confinement(uid, gid, work, broker_is_parent=True),
            broker.leave,
            new_session=terminal_can_be_injected(),
        )
        if child is None:
            stack.pop_all()  # all that is the other half's to end
            signals.close()
            os.close(audit)
            os.environ.update(HOME=work, TMPDIR=work)
            return Client(broker.client_end)
        status = broker.serve(child, signals, uid, gid)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit(): what the caller would clean up belongs to the confined half, which has done it.
    os._exit(status)
