"""Signals of a parent that runs a program for somebody: they are the program's, and are taken here to be passed on."""

import os
import signal
import struct
from collections.abc import Iterable, Iterator
from types import TracebackType

from sandboxed import syscalls

# What a parent passes on. Stop signals are not here: a stopped parent is what its user asked for.
FORWARDED_SIGNALS = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

# asm-generic/siginfo.h: sent by the kernel itself
_SI_KERNEL = 0x80

# struct signalfd_siginfo, signalfd(2): ssi_signo, ssi_errno, ssi_code, and what nobody needs here
_SIGNAL_INFO = struct.Struct("Iii116x")
_SIGNAL_INFOS_AT_ONCE = 32


class Signals:
    """Takes signals of this process, to be passed on.

    Make it before the child, and before any other thread, so that no signal is lost; give its `original_mask`
    to the child. Closing it gives the signals back to this process.
    """

    def __init__(self, numbers: Iterable[int] = FORWARDED_SIGNALS) -> None:
        numbers = tuple(numbers)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        self.original_mask = frozenset(map(int, blocked))
        try:
            self.fd = syscalls.signalfd(numbers)
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.original_mask)
            raise

    def fileno(self) -> int:
        """A non-blocking fd that is readable when a signal has come."""
        return self.fd

    def take(self) -> Iterator[tuple[int, bool]]:
        """Each signal that has come, and whether the terminal sent it."""
        while True:
            try:
                data = os.read(self.fd, _SIGNAL_INFOS_AT_ONCE * _SIGNAL_INFO.size)
            except BlockingIOError:
                return
            for number, _, code in _SIGNAL_INFO.iter_unpack(data):
                yield number, code == _SI_KERNEL

    def close(self) -> None:
        """Give the signals back; one that came in between takes its usual effect now."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            signal.pthread_sigmask(signal.SIG_SETMASK, self.original_mask)

    def __enter__(self) -> "Signals":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
