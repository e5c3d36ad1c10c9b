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
import socket
import sys
from collections.abc import Collection, Iterable

from broker.commands.common import audit_file, say
from broker.commands.policies import audit_to, policy_to_serve, servable
from broker.connections import made_inside, make_inside
from broker.embedded import EmbeddedBroker
from broker.installation import import_trees, own_trees, refuse_writable
from broker.unusable import Unusable
from policy import Policy
from sandboxed.child import Child
from sandboxed.client import Client
from sandboxed.confinement.identities import lookup, unused_uid
from sandboxed.confinement.launch import fork_confined
from sandboxed.confinement.sandbox import (
    LAYERS,
    LOOPBACK,
    NETWORKS,
    LayerMissing,
    Sandbox,
    StartError,
    lies_in,
)
from sandboxed.confinement.session import SESSION_SIGNALS
from sandboxed.confinement.weak import start_accepting
from sandboxed.signals import Signals

__all__ = ["LayerMissing", "StartError", "Unusable", "embed"]


def embed(
    policy: str | os.PathLike[str] | Policy,
    *,
    user: str | None = None,
    audit: str | None = None,
    ro: Iterable[str | os.PathLike[str]] = (),
    rw: Iterable[str | os.PathLike[str]] = (),
    work: str | os.PathLike[str] | None = None,
    net: str = LOOPBACK,
    weak: Collection[str] = (),
) -> Client:
    """Go on in a sandbox, with a client of a broker that serves by `policy`.

    Returns in a new process, the confined half. It is in a root of its own, as the program of `fdbroker run` is:
    it sees the system, what its modules may still be imported from, and `ro`; it writes in its HOME (`work`, or a
    fresh directory in memory), in /tmp and in `rw`. `net` is "none", "loopback" or "host". Started by root, it
    runs as `user` (default: an unused uid of its own). `audit` is a file for the broker's records, "-" for
    standard error. `weak` names layers to do without where the machine cannot give them.

    Raises, before anything is given up: Unusable for a policy that cannot be used and for words that `net` and
    `weak` do not know,
    sandboxed.confinement.identities.IdentityError for a user that there is not, LayerMissing and StartError when the
    sandbox cannot be had, RuntimeError when other threads run.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("embed() must come before other threads: they would stay behind, privileged")
    _check(net, weak, ro, rw)
    loaded = servable(policy) if isinstance(policy, Policy) else policy_to_serve(os.fspath(policy))
    trusted = [*own_trees(), *([] if isinstance(policy, Policy) else [os.fspath(policy)])]
    trusted += [path for path in (audit_file(audit), _own_program()) if path is not None]
    writable = [os.path.abspath(path) for path in rw]
    home = None if work is None else os.path.abspath(work)
    seen = [os.path.abspath(path) for path in ro]
    refuse_writable(trusted, [*writable, *([home] if home else [])])
    needed = [
        path
        for path in (*own_trees(), *import_trees())
        if not any(lies_in(path, tree) for tree in (*seen, *writable, *([home] if home else [])))
    ]
    sandbox = Sandbox(
        readonly=tuple(dict.fromkeys((*seen, *needed))),
        writable=tuple(writable),
        work=home,
        network=net,
        broker_is_parent=True,
    )
    if os.geteuid() != 0:
        if user is not None:
            raise Unusable("only root can choose the user: leave `user` out to go on as yourself")
        return _split(loaded, audit, sandbox, weak)
    if user is not None:
        found = lookup(user)
        return _split(loaded, audit, sandbox._replace(uid=found.uid, gid=found.gid, user=user), weak)
    with unused_uid() as held:
        return _split(loaded, audit, sandbox._replace(uid=held.uid, gid=held.gid), weak)


def _check(net: str, weak: Collection[str], *paths: object) -> None:
    """Raise Unusable for what a slip could give: taken as it is, it would mean something else, or nothing."""
    if net not in NETWORKS:
        raise Unusable(f"net is {net!r}, expected one of {', '.join(NETWORKS)}")
    for given in (weak, *paths):
        if isinstance(given, (str, bytes, os.PathLike)):
            raise Unusable(f"{given!r} is one word, expected a list: [{given!r}]")
    unknown = [layer for layer in weak if layer not in LAYERS]
    if unknown:
        raise Unusable(f"weak has {unknown[0]!r}, expected of {', '.join(LAYERS)}")


def _own_program() -> str | None:
    """The file of the program that is split, which runs with all privileges at the next start."""
    return getattr(sys.modules.get("__main__"), "__file__", None)


def _split(policy: Policy, audit_path: str | None, sandbox: Sandbox, weak: Collection[str]) -> Client:
    with contextlib.ExitStack() as stack:
        audit = audit_to(audit_path, standard=2)
        stack.callback(audit.close)
        courier, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(courier)
        stack.enter_context(theirs)
        signals = stack.enter_context(Signals(SESSION_SIGNALS))
        # The broker is made afterwards: of what is its own the confined half has had the policy and the audit's fd.

        def attempt(wanted: Sandbox) -> Child | None:
            return fork_confined(wanted, lambda: make_inside(theirs))

        child, sandbox, missing = start_accepting(weak, sandbox, attempt, stack)
        if child is None:
            stack.pop_all()  # all that is the other half's to end
            signals.close()
            courier.close()
            audit.close()
            os.environ.update(HOME=sandbox.home, TMPDIR=sandbox.temporary)
            return Client(socket.socket(fileno=theirs.detach()))
        stack.enter_context(child)
        stack.callback(child.kill)
        theirs.close()
        for error in missing:
            say("embed", f"goes on without the layer {error.layer!r}, as `weak` says: {error.reason}")
        ours = stack.enter_context(made_inside(courier))
        broker = stack.enter_context(EmbeddedBroker(policy, audit, weak))
        status = broker.serve(ours, child, sandbox, missing, signals)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # where Python was started without it
            stream.flush()
    # Not sys.exit(): what the caller would clean up belongs to the confined half, which has done it.
    os._exit(status)
