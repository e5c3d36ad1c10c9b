"""What the parent of a confined program does for it until it ends: signals, job control, the terminal.

Rules that this module enforces:
- What the terminal sends reaches the program's whole process group, once, as if it came from the program's own
  terminal; what another process sends reaches the program alone.
- A program that is stopped stops this process's job too, and both go on together; one that asks for input gets the
  terminal if this job has it, and waits for it otherwise.

See credentials(7) on sessions, setpgid(2) on job control.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable

from sandboxed import init
from sandboxed.child import Child
from sandboxed.signals import FORWARDED_SIGNALS, Signals
from sandboxed.terminal import Relay

# Job control goes through here too: the program's terminal is not the one at which its user stops it.
SESSION_SIGNALS = (*FORWARDED_SIGNALS, signal.SIGTSTP, signal.SIGWINCH)

_MESSAGE_BYTES = 16


class Session:
    """One program and its parent. `end` must be called when the program has ended."""

    def __init__(
        self,
        child: Child,
        signals: Signals,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
    ) -> None:
        """`watch(fd, handler)` is the caller's event loop's: it calls `handler` whenever `fd` can be read.

        `unwatch(fd)` ends that.
        """
        assert child.control is not None
        self._child = child
        self._control = child.control
        self._control.setblocking(False)
        self._signals = signals
        self._unwatch = unwatch
        self._relay = Relay(child) if child.terminal is not None else None
        watch(signals.fileno(), self._forward)
        watch(self._control.fileno(), self._hear)
        if self._relay is not None:
            watch(self._relay.fileno(), self._relay.relay)

    def end(self) -> None:
        """Show what the program left to be shown, and give the terminal back."""
        if self._relay is not None:
            self._relay.end()
            self._relay = None

    def _forward(self) -> None:
        for number, typed in self._signals.take():
            if number == signal.SIGWINCH and self._relay is not None:
                self._relay.resize()
            elif typed or number == signal.SIGTSTP:
                self._tell(init.SIGNAL, number)
            else:
                self._child.signal(number)

    def _tell(self, what: bytes, number: int = 0) -> None:
        with contextlib.suppress(OSError):  # it has ended, which is on its way here
            self._control.send(init.pack(what, number))

    def _hear(self) -> None:
        try:
            message = self._control.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            # The init is about to be gone: until the kernel has taken its namespaces down, this would wake us for ever.
            self._unwatch(self._control.fileno())
            return
        what, number = init.unpack(message)
        if what != init.STOPPED:
            return
        wants_terminal = number in (signal.SIGTTIN, signal.SIGTTOU)
        if not (wants_terminal and self._relay is not None and self._relay.go_to_front()):
            self._stop(number)
        if self._relay is not None and self._relay.wants_front:
            self._tell(init.FOREGROUND)
        else:
            self._tell(init.SIGNAL, signal.SIGCONT)

    def _stop(self, number: int) -> None:
        """Stop this process's job as the program was stopped, and take the terminal up when it goes on."""
        if self._relay is not None:
            self._relay.step_back()
        if number == signal.SIGSTOP:
            number = signal.SIGTSTP  # which the kernel does not deliver where nobody could let us go on
        before = signal.signal(number, signal.SIG_DFL)
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(0, number)  # returns when the shell lets us go on
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(number, before)
        if self._relay is not None:
            self._relay.resize()
            if self._relay.wants_front:
                self._relay.go_to_front()


def attend(child: Child, signals: Signals) -> int:
    """Do all that for `child` until it ends, and return its exit status as `Child.wait` does."""
    poll = select.poll()
    handlers: dict[int, Callable[[], None]] = {}

    def watch(fd: int, handler: Callable[[], None]) -> None:
        handlers[fd] = handler
        poll.register(fd, select.POLLIN)

    session = Session(child, signals, watch, poll.unregister)
    poll.register(child, select.POLLIN)
    try:
        while True:
            for fd, _ in poll.poll():
                if fd == child.fileno():
                    return child.wait()
                handlers[fd]()
    finally:
        session.end()
