"""The supervisor's end of one worker: the process, and the two channels to it.

What a worker says is bytes, and few of them: that it serves, which connections it has left, and audit records. It may
have been taken over, so anything else ends it, and fds that it sends are closed.
"""

import contextlib
import os
import signal
import socket
import sys

from broker.audit import audit_pipe
from broker.confinement_report import AS_IT_COMES, Confinement, Setting
from broker.connections import refuse_fds
from broker.introduction import ANEW, CONFINEMENT_BYTES, READY, SAID_BYTES, connection_of
from broker.worker_process import run_worker
from policy import Policy
from sandboxed.descriptors import send_with_fds


class WorkerBroken(Exception):
    """The worker said what no worker says."""


class Worker:
    """A worker, as its supervisor sees it."""

    def __init__(self, policy: Policy, generation: int, setting: Setting = AS_IT_COMES) -> None:
        """Start it. Raises OSError."""
        self.policy = policy
        self.generation = generation
        self.confinement: Confinement | None = None  # how it is confined, once it said so: it serves then
        self.wants_confinement_anew = False
        self.finishing = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.records, record_end = audit_pipe()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # where Python was started without it
                stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            run_worker(policy, theirs, record_end, generation, setting)
        theirs.close()
        os.close(record_end)
        self._control.setblocking(False)
        refuse_fds(self._control)
        self.pidfd = os.pidfd_open(self.pid)

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        return self.confinement is not None

    def fileno(self) -> int:
        """The channel that it speaks on."""
        return self._control.fileno()

    def said(self) -> list[tuple[bytes, int]]:
        """Hear what it says of connections: DONE or REFUSED, and a number, for each. Raises WorkerBroken."""
        said = []
        while message := self._heard():
            if self.confinement is None:
                # It had no client yet who could have taken it over.
                self.confinement = _confinement_of(message)
                continue
            if message == ANEW:
                self.wants_confinement_anew = True
                continue
            try:
                said.append(connection_of(message))
            except ValueError as error:
                raise WorkerBroken(str(error)) from None
        return said

    def _heard(self) -> bytes:
        try:
            # No room for fds: the kernel closes what is sent.
            message, _, flags, _ = self._control.recvmsg(SAID_BYTES if self.ready else CONFINEMENT_BYTES)
        except OSError:
            return b""  # nothing; or it is gone, as its pidfd tells
        if flags:
            raise WorkerBroken("it sent file descriptors, or too much")
        return message

    def introduce(self, message: bytes, connection: socket.socket) -> None:
        """Hand it a connection. Raises BlockingIOError when it is behind, and OSError."""
        send_with_fds(self._control, message, [connection.fileno()])

    def tell(self, message: bytes) -> bool:
        """Say something to it; False when it is behind, or gone."""
        try:
            self._control.send(message)
        except (BlockingIOError, BrokenPipeError):
            return False
        return True

    def let_go(self) -> None:
        """Say nothing more: it ends then."""
        self._control.close()

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end; its status as by waitid(2), 0 where that is not known."""
        with contextlib.suppress(ChildProcessError):
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            return ended.si_status if ended is not None else 0
        return 0

    def close(self) -> None:
        """Free what was held for it."""
        self._control.close()
        os.close(self.records)
        os.close(self.pidfd)


def _confinement_of(message: bytes) -> Confinement:
    if message.startswith(READY):
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            return Confinement.decoded(message[len(READY) :])
    raise WorkerBroken("it did not say how it is confined")
