"""What the parent of a confined program does for it until it ends: signals, job control, the terminal.

Rules that this module enforces:
- What the terminal sends reaches the program's whole process group, once, as if it came from the program's own
  terminal; what another process sends reaches the program alone.
- A program that is stopped stops this process's job too, and both go on together; one that asks for input gets the
  terminal if this job has it, and waits for it otherwise. Where nobody could let the job go on, it reads an end.

See credentials(7) on sessions, setpgid(2) on job control.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable

from sandboxed.child import Child
from sandboxed.confinement import init
from sandboxed.confinement.terminal import Relay
from sandboxed.signals import FORWARDED_SIGNALS, Signals

# Job control goes through here too: the program's terminal is not the one at which its user stops it.
SESSION_SIGNALS = (*FORWARDED_SIGNALS, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)

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
        self._told_to_stop = False
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
            elif number == signal.SIGCONT:
                self._went_on()
            elif typed or number == signal.SIGTSTP:
                self._told_to_stop |= number == signal.SIGTSTP
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
        if what == init.STOPPED:
            self._stopped(number)
        elif what == init.IN_FRONT and self._relay is not None:
            self._relay.hold_keys(False)

    def _stopped(self, number: int) -> None:
        # A program that was to stop, and had stopped to ask for input already, would forget the one with the other.
        wants_terminal = number in (signal.SIGTTIN, signal.SIGTTOU) and not self._told_to_stop
        in_front = wants_terminal and self._relay is not None and self._relay.go_to_front()
        if not in_front:
            has_stopped = self._stop(number)
            in_front = self._relay is not None and self._relay.in_front
            if wants_terminal and not has_stopped and self._relay is not None:
                self._relay.end_input()
                in_front = True
        self._let_go_on(in_front)

    def _let_go_on(self, in_front: bool) -> None:
        if in_front and self._relay is not None:
            # ^Z now would find nobody, or be undone by what lets the program go on.
            self._relay.hold_keys(True)
        self._tell(init.FOREGROUND if in_front else init.BACKGROUND)

    def _stop(self, number: int) -> bool:
        """Stop this process's job as the program was stopped, and take the terminal up when it goes on.

        False when the kernel does not stop it, because nobody could let it go on.
        """
        self._told_to_stop = False
        if self._relay is not None:
            self._relay.catch_up()
            self._relay.step_back()
        if number == signal.SIGSTOP:
            number = signal.SIGTSTP  # which the kernel does not deliver where nobody could let us go on
        before = signal.signal(number, signal.SIG_DFL)
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(0, number)  # returns when the shell lets us go on
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(number, before)
        has_stopped = signal.sigtimedwait({signal.SIGCONT}, 0) is not None
        if self._relay is not None and self._relay.wants_front:
            self._relay.go_to_front()
        return has_stopped

    def _went_on(self) -> None:
        """After a SIGSTOP, which nobody hears: the terminal may be set otherwise by now, or be another job's."""
        if self._relay is None or not self._relay.wants_front:
            return
        was_in_front = self._relay.in_front
        if self._relay.go_to_front() is not was_in_front:
            self._let_go_on(not was_in_front)


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
