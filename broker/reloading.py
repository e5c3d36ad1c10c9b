"""Serving by another policy without an interruption.

Rules that this module enforces:
- a policy is read, checked whole and given its sockets and its worker before anything of the one in force changes;
- whatever is wrong with it changes nothing, and is told to whoever asked and on standard error;
- it is read when somebody asks for that, and never because a file changed: a deny that is just being moved from one
  file to another would be in none.

The policy is read in a thread, so that connections are accepted and records written meanwhile.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from broker.identity import Accounts, IdentityReader
from broker.listeners import Listener, ListenError, default_declaration, listen
from broker.supervisor import Supervisor, complain
from broker.textlines import counted
from broker.unusable import Unusable
from policy import Policy, SocketDeclaration


class Reloaded(NamedTuple):
    """What came of reading the policy again."""

    good: bool
    digest: str  # of the policy in force afterwards
    rules: int
    error: str  # what is wrong with the new one; or nothing
    at: float  # seconds since 1970


class Sockets:
    """The sockets that a policy asks for, and the default one."""

    def __init__(self, default_path: str) -> None:
        self._default = default_declaration(default_path)
        self.listening: dict[SocketDeclaration, Listener] = {}

    def missing(self, policy: Policy) -> dict[SocketDeclaration, Listener]:
        """Make those that `policy` asks for and that are not there. Raises ListenError, and has made none then."""
        made: dict[SocketDeclaration, Listener] = {}
        try:
            for declaration in self._wanted(policy):
                if declaration not in self.listening:
                    self._refuse_changed(declaration)
                    made[declaration] = listen(declaration)
        except BaseException:
            for listener in made.values():
                listener.close()
            raise
        return made

    def superfluous(self, policy: Policy) -> list[SocketDeclaration]:
        """Those that `policy` does not ask for."""
        wanted = self._wanted(policy)
        return [declaration for declaration in self.listening if declaration not in wanted]

    def _wanted(self, policy: Policy) -> list[SocketDeclaration]:
        return [self._default, *policy.sockets.values()]

    def _refuse_changed(self, declaration: SocketDeclaration) -> None:
        for other in self.listening:
            if other.path == declaration.path:
                raise ListenError(
                    f"socket {declaration.name}: the owner, group or mode of a socket that is there cannot change "
                    "while the broker serves: give it another path, or restart the broker"
                )


class Reloader:
    """Reads the policy again, one time after the other."""

    def __init__(
        self, supervisor: Supervisor, load: Callable[[], Policy], sockets: Sockets, reader: IdentityReader
    ) -> None:
        """`load` reads the policy whole; it raises Unusable. `reader` is the one in use."""
        self._supervisor = supervisor
        self._load = load
        self._sockets = sockets
        self._reader = reader
        self._done: list[Callable[[Reloaded], None]] = []
        # Those who asked when the files were being read already: what they wrote may not be in it.
        self._next: list[Callable[[Reloaded], None]] = []
        self._thread: threading.Thread | None = None
        self._read: Policy | Unusable | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.last: Reloaded | None = None
        """What came of the last one."""
        supervisor.watch(self._wake, self._was_read)
        supervisor.may_fork = lambda: self._thread is None
        supervisor.confine_anew = self.confine_anew

    def ask(self, done: Callable[[Reloaded], None]) -> None:
        """Read the policy as it is from now on; `done` is told what came of it."""
        if self._thread is not None or self._done:
            self._next.append(done)
            return
        self._begin([done])

    def confine_anew(self) -> None:
        """Serve by the same policy with a worker that reaches what there is by now. A reload does as much."""
        if self._thread is None and not self._done:
            with contextlib.suppress(OSError):
                self._supervisor.replace(
                    self._supervisor.policy, self._reader.of_connection, lambda good: None
                )

    def close(self) -> None:
        """Wait until nothing is read any more, and close what is held."""
        if self._thread is not None:
            self._thread.join()
        self._reader.close()
        os.close(self._wake)

    def _begin(self, done: list[Callable[[Reloaded], None]]) -> None:
        self._done = done
        self._thread = threading.Thread(target=self._read_policy, name="policy")
        self._thread.start()

    def _read_policy(self) -> None:
        try:
            self._read = self._load()
        except Unusable as error:
            self._read = error
        except BaseException as error:  # whatever it is, the broker serves on
            self._read = Unusable(f"the policy cannot be read: {error!r}")
        finally:
            os.eventfd_write(self._wake, 1)

    def _was_read(self) -> None:
        os.eventfd_read(self._wake)
        assert self._thread is not None
        self._thread.join()  # no worker is forked beside another thread
        self._thread = None
        read, self._read = self._read, None
        try:
            if not isinstance(read, Policy):
                raise read if read is not None else Unusable("the policy was not read")
            made = self._sockets.missing(read)
        except (Unusable, ListenError) as error:
            self._ended(str(error))
            return
        reader = None
        try:
            reader = IdentityReader(Accounts(read))
            self._supervisor.replace(
                read, reader.of_connection, lambda good: self._replaced(read, made, reader, good)
            )
        except OSError as error:
            self._drop(made, reader)
            self._ended(f"no worker can be started for it: {error}")

    def _replaced(
        self,
        policy: Policy,
        made: dict[SocketDeclaration, Listener],
        reader: IdentityReader | None,
        good: bool,
    ) -> None:
        if not good or reader is None:
            self._drop(made, reader)
            self._ended("its worker ended before it served")
            return
        for declaration in self._sockets.superfluous(policy):
            self._supervisor.listen_no_more(self._sockets.listening.pop(declaration))
        for declaration, listener in made.items():
            self._sockets.listening[declaration] = listener
            self._supervisor.listen_at(listener)
        self._reader.close()
        self._reader = reader
        self._ended("")

    @staticmethod
    def _drop(made: dict[SocketDeclaration, Listener], reader: IdentityReader | None) -> None:
        for listener in made.values():
            listener.close()
        if reader is not None:
            reader.close()

    def _ended(self, error: str) -> None:
        policy = self._supervisor.policy
        self.last = Reloaded(not error, policy.digest, len(policy.rules), error, time.time())
        if error:
            complain(f"the policy was not loaded again, {policy.digest} stays in force: {error}")
        else:
            complain(f"serving by policy {policy.digest}: {counted(len(policy.rules), 'rule')}")
        wrong = {"error": error} if error else {}
        self._supervisor.note(
            "reload", good=not error, policy=policy.digest, rules=len(policy.rules), **wrong
        )
        waiting, self._done = self._done, []
        for done in waiting:
            done(self.last)
        if self._next:
            following, self._next = self._next, []
            self._begin(following)
