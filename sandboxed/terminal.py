"""A terminal of the program's own, and its relay to the terminal that the program was started from.

Rules that this module enforces:
- The program never holds the outer terminal: of its standard files those that were it become the new one. What was
  a pipe or a file stays that.
- The outer terminal is raw only while the program may read from it: always, when both standard input and output are
  the terminal; else from the moment when the program asks for input (it is in the background until then), so that
  in `fdbroker run … | less` the keys are less's.
- The outer terminal gets its settings back whenever this process stops or ends.
- A terminal that takes nothing stops the program's writing, and nothing else here.

Out of scope: stopping and going on (`session`). See pty(7), termios(3), credentials(7) on job control.
"""

import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
import tty
from typing import Any

from sandboxed.child import Child

# Bytes that wait in either direction; while there are so many, no more are read.
_WAITING_BYTES = 64 * 1024

# asm-generic/ioctls.h, those that Python does not have: unlock the other end; open the other end, whatever name it has
# in whichever mount namespace.
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441

# Seconds for which a terminal that takes nothing is waited for when the program has ended.
_DRAIN_SECONDS = 10.0

_WINDOW = struct.Struct("HHHH")
_STANDARD_FDS = (0, 1, 2)


def outer() -> int | None:
    """The first of the standard files that is a terminal."""
    return next((fd for fd in _STANDARD_FDS if os.isatty(fd)), None)


def make(like: int, uid: int | None, gid: int | None) -> tuple[int, int]:
    """A new terminal, set as `like` is, that belongs to `uid` and is this session's: its two ends.

    The caller leads a session without a terminal.
    """
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if uid is not None and gid is not None:
        os.fchown(slave, uid, gid)
    termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(like))
    _copy_size(like, slave)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    return master, slave


def take(slave: int) -> None:
    """In the program's process: make `slave` those of the standard files that are terminals, and lead it if wanted."""
    in_front = os.isatty(0) and os.isatty(1)
    for fd in _STANDARD_FDS:
        if os.isatty(fd):
            os.dup2(slave, fd)
    if in_front:
        os.tcsetpgrp(slave, os.getpid())


def _copy_size(source: int, target: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(_WINDOW.size)))


class Relay:
    """The outer terminal and the program's, in the process that both belong to.

    Wait until `fileno` is readable, then call `relay`. Nothing here blocks.
    """

    def __init__(self, child: Child) -> None:
        """Relay for `child`, whose `terminal` is taken over."""
        assert child.terminal is not None
        self._inner, child.terminal = child.terminal, None
        os.set_blocking(self._inner, False)
        self._outer = _own_description(outer())
        self._in_front = os.isatty(0) and os.isatty(1)
        self._settings: list[Any] | None = None  # of the outer terminal, while it is raw
        self._typed = b""
        self._shown = b""
        self._outer_ended = self._inner_ended = False
        self._epoll = select.epoll()
        self._events: dict[int, int] = {}
        if self._in_front:
            self.go_to_front()
        self._watch()

    def fileno(self) -> int:
        """An fd that is readable when there is something to relay."""
        return self._epoll.fileno()

    def relay(self) -> None:
        """Move what can be moved at once."""
        for _ in self._epoll.poll(0):
            break
        self._move()
        self._watch()

    def resize(self) -> None:
        """The outer terminal's size has changed: the kernel tells the program."""
        _copy_size(self._outer, self._inner)

    def go_to_front(self) -> bool:
        """Read what is typed from here on, uncooked; False when another job has the outer terminal."""
        self._in_front = True
        if not self._has_outer():
            return False
        if self._settings is None:
            self._settings = termios.tcgetattr(self._outer)
            with contextlib.suppress(termios.error):
                tty.setraw(self._outer, termios.TCSADRAIN)
        self._watch()
        return True

    def step_back(self) -> None:
        """Give the outer terminal its settings back."""
        settings, self._settings = self._settings, None
        if settings is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._outer, termios.TCSADRAIN, settings)

    @property
    def wants_front(self) -> bool:
        """Whether the program reads from the terminal, once this process's job has it."""
        return self._in_front

    def end(self) -> None:
        """Show what the program has left behind, give the outer terminal its settings back, and close all."""
        room = select.poll()
        room.register(self._outer, select.POLLOUT)
        while not self._outer_ended:
            before = len(self._shown)
            self._move()
            if not self._shown and (self._inner_ended or not before):
                break  # all is shown; where nothing came and yet no end, somebody outside holds the other end
            if self._shown and len(self._shown) == before and not room.poll(_DRAIN_SECONDS * 1000):
                break
        self.step_back()
        self._epoll.close()
        os.close(self._inner)
        os.close(self._outer)

    # --- moving ------------------------------------------------------------------------------------------

    def _has_outer(self) -> bool:
        try:
            return os.tcgetpgrp(self._outer) == os.getpgrp()
        except OSError:
            return True  # it is not our session's, so there is no job control on it

    def _move(self) -> None:
        if self._settings is not None and len(self._typed) < _WAITING_BYTES and not self._outer_ended:
            data = _read(self._outer)
            self._outer_ended = data == b""
            self._typed += data or b""
        if len(self._shown) < _WAITING_BYTES and not self._inner_ended:
            data = _read(self._inner)
            self._inner_ended = data == b""
            self._shown += data or b""
        if self._typed:
            self._typed = self._typed[_write(self._inner, self._typed) :]
        if self._shown:
            self._shown = self._shown[_write(self._outer, self._shown) :]

    def _watch(self) -> None:
        """Wait for what can be moved now, and for nothing else: a condition that lasts would wake us for ever."""
        outer_events = inner_events = 0
        if self._settings is not None and len(self._typed) < _WAITING_BYTES and not self._outer_ended:
            outer_events |= select.EPOLLIN
        if self._shown and not self._outer_ended:
            outer_events |= select.EPOLLOUT
        if len(self._shown) < _WAITING_BYTES and not self._inner_ended:
            inner_events |= select.EPOLLIN
        if self._typed and not self._inner_ended:
            inner_events |= select.EPOLLOUT
        self._set(self._outer, outer_events)
        self._set(self._inner, inner_events)

    def _set(self, fd: int, events: int) -> None:
        if events == self._events.get(fd, 0):
            return
        if not events:
            self._epoll.unregister(fd)  # EPOLLHUP cannot be switched off
        elif self._events.get(fd, 0):
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._events[fd] = events


def _own_description(fd: int | None) -> int:
    """The terminal `fd` again, not blocking: the one that we were given is shared with a shell, which would notice."""
    assert fd is not None
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    for name in (f"/proc/self/fd/{fd}", "/dev/tty"):
        try:
            again = os.open(name, flags)
        except OSError:
            continue
        if os.fstat(again).st_rdev == os.fstat(fd).st_rdev or name == "/dev/tty":
            return again
        os.close(again)
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _read(fd: int) -> bytes | None:
    """What can be read now, None for nothing yet, empty at the end."""
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # how the end of a terminal reads
            return b""
        raise


def _write(fd: int, data: bytes) -> int:
    """How much of `data` was taken; all of it where nobody will ever read it."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)
