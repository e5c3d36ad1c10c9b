"""What the supervisor does for administrators: it tells what it knows, and does the few things that it can be told.

Asked by the admin process (`broker.admin_process`), which parses what administrators send.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from broker.admin_link import AdminLink, Answer
from broker.admin_process import run_admin
from broker.audit import AuditLog, audit_pipe
from broker.listeners import Listener
from broker.reloading import Reloaded, Reloader
from broker.supervisor import Supervisor, complain
from broker.version import VERSION


class Administration:
    """The admin process, and the answers to what it asks."""

    def __init__(
        self,
        supervisor: Supervisor,
        reloader: Reloader,
        audit: AuditLog,
        listener: Listener,
        drift: Callable[[str], str],
        policy_path: str | None,
    ) -> None:
        """Start the process, which answers at `listener`. Raises OSError.

        `drift` tells there how the policy's files differ from the policy of that digest; `policy_path` is where they
        are, or None for the system's directories.
        """
        self._supervisor = supervisor
        self._reloader = reloader
        self._audit = audit
        self._listener = listener
        self._started = time.time()
        self._policy_path = policy_path
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = audit_pipe()
        os.set_blocking(reader, True)
        listener.socket.setblocking(True)
        self._pid = os.fork()
        if self._pid == 0:
            run_admin(listener.socket, theirs, reader, drift)
        theirs.close()
        os.close(reader)
        self._pidfd = os.pidfd_open(self._pid)
        self._link = AdminLink(
            ours,
            writer,
            {"status": self._status, "grants": self._grants, "revoke": self._revoke, "reload": self._reload},
        )
        audit.show = self._link.show
        supervisor.watch(self._link.fileno(), self._asked)

    def close(self) -> None:
        """End the process, and take its socket away."""
        self._link.close()
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        self._listener.close()

    def _asked(self) -> None:
        if not self._link.requests_waiting():
            complain(
                "the admin process ended: nobody answers administrators until the broker is started anew"
            )
            self._listener.close()
            self._supervisor.unwatch(self._link.fileno())

    def _status(self, request: dict[str, Any], answer: Answer) -> None:
        supervisor, last = self._supervisor, self._reloader.last
        policy = supervisor.policy
        answer(
            {
                "version": VERSION,
                "pid": os.getpid(),
                "started": self._started,
                "policy": policy.digest,
                "policy_path": self._policy_path,
                "rules": len(policy.rules),
                "sockets": supervisor.sockets(),
                "reloads": supervisor.reloads,
                "last_reload": None if last is None else last._asdict(),
                "workers": supervisor.workers(),
                "restarts": supervisor.restarts,
                "confinement": None if supervisor.confinement is None else supervisor.confinement.fields(),
                "connections": supervisor.connections(),
                "grants": supervisor.grant_count(),
                "grants_forgotten": supervisor.grants.forgotten,
                "audit_records": self._audit.count,
                "audit_failing": self._audit.failing,
                "records_missed": self._link.missed,
            }
        )

    def _grants(self, request: dict[str, Any], answer: Answer) -> None:
        supervisor = self._supervisor
        answer({"grants": supervisor.granted(), "forgotten": supervisor.grants.forgotten})

    def _revoke(self, request: dict[str, Any], answer: Answer) -> None:
        ended = self._supervisor.end_grant(str(request.get("grant")))
        answer({} if ended is None else {"path": ended[0], "connection": ended[1]})

    def _reload(self, request: dict[str, Any], answer: Answer) -> None:
        def done(reloaded: Reloaded) -> None:
            answer(
                {
                    "good": reloaded.good,
                    "policy": reloaded.digest,
                    "rules": reloaded.rules,
                    "error": reloaded.error,
                }
            )

        self._reloader.ask(done)
