"""An embedded broker: supervisor, worker and one client, all below one program, and no daemon.

The client's connection is a socket pair that the client's own process made in the sandbox (`connections`). Who the
client is, is nothing that a pair could tell: the parent, who started it, introduces it. Each message still names its
sender.
"""

import os
import socket
from collections.abc import Collection
from types import TracebackType

from broker.audit import AuditLog, Sink
from broker.confinement_report import Setting
from broker.identity import Accounts, IdentityReader
from broker.supervisor import Supervisor, WorkerDied, complain
from policy import Policy
from sandboxed.child import Child
from sandboxed.confinement.sandbox import LayerMissing, Sandbox
from sandboxed.confinement.session import Session
from sandboxed.signals import Signals


class EmbeddedBroker:
    """A broker for one child. Call serve() when the child runs."""

    def __init__(self, policy: Policy, audit: Sink, weak: Collection[str] = ()) -> None:
        """Start the worker; `audit` is where the records go, which stays the caller's.

        `weak` are the layers that its confinement may do without. Raises LayerMissing for another.
        """
        self._reader = IdentityReader(Accounts(policy))
        self._supervisor = Supervisor(
            policy, AuditLog(audit, complain), setting=Setting(without=frozenset(weak))
        )

    def serve(
        self,
        connection: socket.socket,
        child: Child,
        sandbox: Sandbox,
        missing: list[LayerMissing],
        signals: Signals,
    ) -> int:
        """Serve `child`, which runs in `sandbox`, until it ends; its exit status.

        `connection` is the broker's end of an embedded_pair(), the child's is the other; it stays the caller's.
        `missing` are the layers that the sandbox does without. A worker that fails leaves the child without a
        broker: then the child is ended too.
        """
        groups = os.getgroups() if sandbox.uid is None else ()
        uid = os.getuid() if sandbox.uid is None else sandbox.uid
        gid = os.getgid() if sandbox.gid is None else sandbox.gid
        introduction = self._reader.of_child(uid, gid, groups, child.pid)
        self._supervisor.note(
            "run",
            peer=introduction.shown,
            layers=sorted(sandbox.layers),
            weak={error.layer: error.reason for error in missing},
            network=sandbox.effective_network,
        )
        self._supervisor.introduce(introduction, connection)
        session = Session(child, signals, self._supervisor.watch, self._supervisor.unwatch)
        self._supervisor.watch(child.fileno(), self._supervisor.stop)
        try:
            self._supervisor.run()
        except WorkerDied as error:
            complain(str(error))
            child.kill()
        finally:
            session.end()
        return child.wait()

    def __enter__(self) -> "EmbeddedBroker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._supervisor.end()
        self._reader.close()
