"""Opens that may keep their caller waiting, each in a process of its own that is killed at its deadline.

A name on a dead FUSE or NFS mount puts whoever touches it to sleep. So the worker forks, the child decides
and opens as the worker would have, hands over the outcome with the fd, and ends. Rules that this module
enforces: at most so many at once, in all and for one uid; at its deadline each is given up and its client told;
the worker never waits. A child counts until it is really gone: what sleeps so deep that SIGKILL does not end
it goes on to cost the one who asked for it.

The worker may send no signals (`broker.worker_filter`): a child sets its own alarm, and dies with the worker.
"""

import errno
import os
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from broker.limits import HELPER_GRACE_SECONDS, HELPER_SECONDS, HELPERS, HELPERS_PER_UID
from broker.opener import Opener
from broker.outcome import Outcome
from broker.plans import Plan
from broker.walk import decoded, encoded
from policy import FileType, Policy, Rights
from sandboxed.descriptors import close_all, receive_with_fds, send_with_fds
from sandboxed.syscalls import PR_SET_PDEATHSIG, close_all_but, prctl

_ANSWER_BYTES = 65536

# What the child waits for, so that one that cannot be watched is never begun.
_GO = b"go"


class _Answer(msgspec.Struct):
    """An outcome on its way from the child: the rule by its place in the policy."""

    verdict: str
    rights: int
    rule: int | None
    reason: str
    errno: int
    path: bytes | None
    device: int | None
    kind: str | None
    names: list[str | None]
    link: bool
    by_broker: bool


class Helper:
    """One open that is under way in a process of its own."""

    def __init__(
        self, plan: Plan, opener: Opener, policy: Policy, done: Callable[[Outcome], None], deadline: float
    ) -> None:
        """Start it; `done` gets the outcome. Raises OSError when no process can be made."""
        self.uid = plan.peer.uid
        self.deadline = deadline
        self.done = done
        self._policy = policy
        self.given_up = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            try:
                pid = os.fork()
                if pid == 0:
                    self._socket.close()
                    _child(theirs, plan, opener, policy)
                self.pidfd = self._pidfd_of(pid)
                self._socket.send(_GO)
            except OSError:
                self._socket.close()
                raise

    def outcome(self) -> Outcome:
        """What the child found; called when it has ended."""
        try:
            data, fds = receive_with_fds(self._socket, _ANSWER_BYTES, 1)
        except OSError as error:
            return _failed(error.errno or errno.EIO)
        if not data:
            return _failed(errno.EIO)
        answer = msgspec.msgpack.decode(data, type=_Answer)
        if (answer.verdict == "allow") != (len(fds) == 1):
            close_all(fds)
            return _failed(errno.EMFILE)
        return Outcome(
            answer.verdict,
            fds[0] if fds else -1,
            Rights(answer.rights),
            None if answer.rule is None else self._policy.rules[answer.rule],
            answer.reason,
            answer.errno,
            None if answer.path is None else decoded(answer.path),
            answer.device,
            None if answer.kind is None else FileType(answer.kind),
            tuple(answer.names),
            answer.link,
            answer.by_broker,
        )

    def _pidfd_of(self, child: int) -> int:
        """Its pidfd. Raises OSError, and then has ended the child: nothing could watch it."""
        try:
            return os.pidfd_open(child)
        except OSError:
            self._socket.close()  # it has not been told to begin
            os.waitpid(child, 0)
            raise

    def close(self) -> None:
        """Free what was held for the child; one that has ended is no zombie afterwards."""
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        os.close(self.pidfd)
        self._socket.close()


class Helpers:
    """All opens that are under way in processes of their own."""

    def __init__(self, opener: Opener, policy: Policy, clock: Callable[[], float]) -> None:
        """`clock` gives seconds and never goes back."""
        self._opener = opener
        self._policy = policy
        self._clock = clock
        self.running: dict[int, Helper] = {}  # by the pidfd, which can be read when the child has ended

    def start(self, plan: Plan, done: Callable[[Outcome], None]) -> int | None:
        """Start the open of `plan` and return the pidfd to watch, or None at the limit."""
        mine = sum(helper.uid == plan.peer.uid for helper in self.running.values())
        if len(self.running) >= HELPERS or mine >= HELPERS_PER_UID:
            return None
        try:
            helper = Helper(plan, self._opener, self._policy, done, self._clock() + HELPER_SECONDS)
        except OSError:
            return None
        self.running[helper.pidfd] = helper
        return helper.pidfd

    def finish(self, pidfd: int) -> None:
        """The child behind `pidfd` has ended: hand on what came of it."""
        helper = self.running.pop(pidfd)
        try:
            outcome = None if helper.given_up else helper.outcome()
        finally:
            helper.close()
        if outcome is not None:
            helper.done(outcome)

    def next_deadline(self) -> float | None:
        """When the next child has to be killed, on the given clock."""
        return min((one.deadline for one in self.running.values() if not one.given_up), default=None)

    def give_up_overdue(self) -> None:
        """Report ETIMEDOUT for every child whose time is up."""
        now = self._clock()
        for helper in list(self.running.values()):
            if helper.deadline <= now and not helper.given_up:
                helper.given_up = True  # its alarm rings by now
                helper.done(_failed(errno.ETIMEDOUT))

    def end_all(self) -> None:
        """Forget every child: they end with this process."""
        for helper in self.running.values():
            helper.close()
        self.running.clear()


def _failed(number: int) -> Outcome:
    return Outcome("failed", errno=number, reason=f"in a process of its own: {os.strerror(number)}")


def _child(answer_to: socket.socket, plan: Plan, opener: Opener, policy: Policy) -> Any:
    """The whole life of the child; it never returns."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a worker that is killed leaves none behind
        signal.signal(
            signal.SIGALRM, signal.SIG_DFL
        )  # a program that embeds the broker may have had other plans
        signal.setitimer(signal.ITIMER_REAL, HELPER_SECONDS + HELPER_GRACE_SECONDS)
        close_all_but({0, 1, 2, answer_to.fileno(), *opener.fds()})
        if answer_to.recv(len(_GO)) != _GO:
            return
        outcome = opener.open_slowly(plan)
        data = msgspec.msgpack.encode(
            _Answer(
                outcome.verdict,
                int(outcome.rights),
                None if outcome.rule is None else policy.rules.index(outcome.rule),
                outcome.reason,
                outcome.errno,
                None if outcome.path is None else encoded(outcome.path),
                outcome.device,
                None if outcome.kind is None else outcome.kind.value,
                list(outcome.names),
                outcome.link,
                outcome.by_broker,
            )
        )
        if outcome.verdict == "allow":
            send_with_fds(answer_to, data, [outcome.fd])
        else:
            answer_to.send(data)
    except BaseException:  # the last chance to say why
        traceback.print_exc()
    finally:
        os._exit(0)
