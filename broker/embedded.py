"""An embedded broker: supervisor, worker and one client, all below one program, and no daemon.

The client's connection is a socket pair, so the kernel would name its maker as the peer: the parent, who
started the client, introduces it instead. Each message still names its sender.
"""

import os
import socket
from types import TracebackType

from broker.audit import AuditLog
from broker.identity import Accounts, IdentityReader
from broker.listeners import refuse_fds
from broker.supervisor import Supervisor, WorkerDied, complain
from policy import Policy
from sandboxed.child import Child, SignalForwarder


class EmbeddedBroker:
    """A broker for one child. Make it before the child, give the child `client_end`, and call serve()."""

    def __init__(self, policy: Policy, audit: int) -> None:
        """Start the worker; `audit` is an fd for the records and stays the caller's."""
        self._reader = IdentityReader(Accounts(policy))
        self._supervisor = Supervisor(policy, AuditLog(audit, complain))
        self._broker_end, self.client_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._broker_end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        refuse_fds(self._broker_end)
        self._broker_end.setblocking(False)

    def serve(self, child: Child, signals: SignalForwarder, uid: int | None, gid: int | None) -> int:
        """Serve `child`, which runs as `uid` and `gid` (None: ours), until it ends; its exit status.

        A worker that fails leaves the child without a broker: then the child is ended too.
        """
        self.client_end.close()
        groups = os.getgroups() if uid is None else ()
        introduction = self._reader.of_child(
            os.getuid() if uid is None else uid, os.getgid() if gid is None else gid, groups, child.pid
        )
        self._supervisor.introduce(introduction, self._broker_end)
        self._supervisor.watch(child.pidfd, self._supervisor.stop)
        self._supervisor.watch(signals.fd, lambda: signals.forward(child))
        try:
            self._supervisor.run()
        except WorkerDied as error:
            complain(str(error))
            child.signal(9)
        return child.wait()

    def leave(self) -> None:
        """In a forked child: close what is the broker's, all but `client_end`.

        The supervisor's connection to its worker above all: over it clients are introduced.
        """
        self._broker_end.close()
        self._supervisor.leave()

    def __enter__(self) -> "EmbeddedBroker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._broker_end.close()
        self.client_end.close()
        self._supervisor.end()
