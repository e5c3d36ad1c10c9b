"""A terminal of the program's own, and its relay to the terminal that the program was started from.

Rules that this module enforces:
- The program never holds the outer terminal: of its standard files those that were it become the new one. What was
  a pipe or a file stays that.
- The outer terminal is raw only while the program may read from it: from the start, when both standard input and
  output are the terminal and this job has it; else from the moment when the program asks for input (it is in the
  background until then), so that in `fdbroker run … | less` the keys are less's.
- Where others may write to the outer terminal, it still treats output as they expect.
- The outer terminal gets its settings back whenever this process stops or ends, unless another job has it.
- A terminal that takes nothing stops the program's writing, and nothing else here.
- When the outer terminal is hung up, the program's is too.

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

# And: which device a terminal is, although it was opened as /dev/tty.
_TIOCGDEV = 0x80045432

# Of the settings in Python's termios: what is done to output.
_OFLAG = 1

_READ_BYTES = 4096

# A terminal takes as much without waiting, when it says that it has room.
_PIECE_BYTES = 256

# How many times a program reads an end of its input, where it can have none.
_ENDS = 64

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


def is_in_front() -> bool:
    """Whether a program that is started now may read from the terminal before it asks for input."""
    return os.isatty(0) and os.isatty(1) and _is_ours(0)


def take(slave: int, in_front: bool) -> None:
    """In the program's process: make `slave` those of the standard files that are terminals, and lead it if wanted."""
    for fd in _STANDARD_FDS:
        if os.isatty(fd):
            os.dup2(slave, fd)
    if in_front:
        os.tcsetpgrp(slave, os.getpid())


def _copy_size(source: int, target: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(_WINDOW.size)))


def _is_ours(fd: int) -> bool:
    """Whether this process's job has the terminal `fd`."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True  # it is not our session's, so there is no job control on it


class Relay:
    """The outer terminal and the program's, in the process that both belong to.

    Wait until `fileno` is readable, then call `relay`. Nothing but `end` waits.
    """

    def __init__(self, child: Child) -> None:
        """Relay for `child`, whose `terminal` is taken over."""
        assert child.terminal is not None
        self._inner, child.terminal = child.terminal, None
        os.set_blocking(self._inner, False)
        self._outer, self._outer_blocks = _own_description(outer())
        self._settings: list[Any] | None = None  # what the outer terminal gets back
        self._raw: list[Any] | None = None  # what it was set to meanwhile
        self._typed = b""
        self._shown = b""
        self._hung_up = self._inner_ended = False
        self._epoll = select.epoll()
        self._events: dict[int, int] = {}
        self._shared = not os.isatty(1)  # others may write to it, as less does for us
        self._keys_held = False
        self.in_front = False  # what is typed is the program's
        self.wants_front = os.isatty(0) and os.isatty(1)  # it is to be, once this job has the terminal
        if self.wants_front:
            self.go_to_front()
        self._watch()

    def fileno(self) -> int:
        """An fd that is readable when there is something to relay."""
        return self._epoll.fileno()

    def relay(self) -> None:
        """Move what can be moved at once."""
        self._take_typed()
        self._show()
        self._watch()

    def catch_up(self) -> None:
        """Show what the program has written so far, as far as the outer terminal takes it."""
        for _ in range(_WAITING_BYTES // _READ_BYTES):
            if not self._show():
                break

    def resize(self) -> None:
        """The outer terminal's size has changed: the kernel tells the program."""
        if not self._hung_up:
            _copy_size(self._outer, self._inner)

    def go_to_front(self) -> bool:
        """Read what is typed from here on, uncooked; False when another job has the outer terminal."""
        self.wants_front = True
        self.in_front = _is_ours(self._outer)
        if self.in_front:
            self._make_raw()
            self.resize()  # who is in the background is not told of another size
        self._watch()
        return self.in_front

    def hold_keys(self, hold: bool) -> None:
        """Leave what is typed where it is, or no longer: the program's terminal is not ready for it."""
        self._keys_held = hold
        self._watch()

    def step_back(self) -> None:
        """Read no more, and give the outer terminal its settings back."""
        settings, self._settings, self._raw = self._settings, None, None
        self.in_front = False
        if settings is not None and _is_ours(self._outer):
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._outer, termios.TCSANOW, settings)
        self._watch()

    def end_input(self) -> None:
        """Let the program read ends of its input: nobody can give it more."""
        if not self._hung_up:
            self._typed += termios.tcgetattr(self._inner)[6][termios.VEOF] * _ENDS
        self._watch()

    def end(self) -> None:
        """Show what the program has left behind, give the outer terminal its settings back, and close all."""
        with contextlib.suppress(termios.error):
            if self._raw is not None and termios.tcgetattr(self._outer) != self._raw:
                self._settings = self._raw = None  # a shell has set it otherwise while we were stopped
        room = select.poll()
        room.register(self._outer, select.POLLOUT)
        while self._show() or (self._shown and room.poll(_DRAIN_SECONDS * 1000)):
            pass  # where nothing comes and yet no end, somebody outside holds the other end
        self.step_back()
        self._epoll.close()
        if not self._hung_up:
            os.close(self._inner)
        os.close(self._outer)

    # --- the outer terminal ------------------------------------------------------------------------------

    def _make_raw(self) -> None:
        try:
            current = termios.tcgetattr(self._outer)
            if current == self._raw:
                return
            # A shell that stopped us without our knowledge (SIGSTOP) has set it otherwise meanwhile.
            tty.setraw(self._outer, termios.TCSANOW)  # without waiting until all output was taken
            self._settings, self._raw = current, termios.tcgetattr(self._outer)
            if self._shared:
                self._raw[_OFLAG] = current[_OFLAG]
                termios.tcsetattr(self._outer, termios.TCSANOW, self._raw)
        except termios.error:
            self._look_for_hangup()

    def _look_for_hangup(self) -> None:
        """After a refusal: hang the program up too, if that was the reason."""
        look = select.poll()
        look.register(self._outer, 0)
        if self._hung_up or not look.poll(0):
            return
        self._set(self._outer, 0)
        self._set(self._inner, 0)
        os.close(self._inner)
        self._hung_up = self._inner_ended = True
        self._typed = self._shown = b""

    def _outer_is(self, event: int) -> bool:
        """Whether the outer terminal can be read, or written, without waiting for it."""
        if not self._outer_blocks:
            return True  # then it says so itself
        look = select.poll()
        look.register(self._outer, event)
        return bool(look.poll(0))

    # --- moving ------------------------------------------------------------------------------------------

    def _wants_typed(self) -> bool:
        return self.in_front and not self._keys_held and len(self._typed) < _WAITING_BYTES

    def _take_typed(self) -> None:
        if self._wants_typed() and self._outer_is(select.POLLIN):
            data = _read(self._outer)
            if data == b"":
                self._look_for_hangup()
            self._typed += data or b""
        if self._typed and not self._inner_ended:
            written = _write(self._inner, self._typed)
            self._typed = self._typed[written:] if written >= 0 else b""

    def _show(self) -> bool:
        """Take some of what the program wrote, and show some; whether there was any of that."""
        moved = False
        if len(self._shown) < _WAITING_BYTES and not self._inner_ended:
            data = _read(self._inner)
            self._inner_ended = data == b""
            self._shown += self._as_written(data or b"")
            moved = bool(data)
        if self._shown and self._outer_is(select.POLLOUT):
            piece = self._shown[:_PIECE_BYTES] if self._outer_blocks else self._shown
            written = _write(self._outer, piece)
            if written < 0:
                self._look_for_hangup()
            self._shown = self._shown[written if written >= 0 else len(piece) :]
            moved = moved or written != 0
        return moved

    def _as_written(self, data: bytes) -> bytes:
        """Without what our terminal has made of line ends, where the outer one does that too."""
        return data.replace(b"\r\n", b"\n") if self._raw is None or self._shared else data

    def _watch(self) -> None:
        """Wait for what can be moved now, and for nothing else: a condition that lasts would wake us for ever."""
        if self._hung_up:
            return
        outer_events = inner_events = 0
        if self._wants_typed():
            outer_events |= select.EPOLLIN
        if self._shown:
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


def _own_description(fd: int | None) -> tuple[int, bool]:
    """The terminal `fd` again, and whether it blocks.

    The one that we were given is shared with a shell, which would notice another mode. It is used as it is only where
    it cannot be opened again: it belongs to somebody else (su), and is not the terminal of this session.
    """
    assert fd is not None
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    for name in (f"/proc/self/fd/{fd}", "/dev/tty"):
        try:
            again = os.open(name, flags)
        except OSError:
            continue
        if _device(again) == _device(fd):
            return again, False
        os.close(again)
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3), True


def _device(fd: int) -> bytes:
    try:
        return fcntl.ioctl(fd, _TIOCGDEV, bytes(4))
    except OSError:
        return b""


def _read(fd: int) -> bytes | None:
    """What can be read now, None for nothing yet, empty at the end."""
    try:
        return os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # how the end of a terminal reads
            return b""
        raise


def _write(fd: int, data: bytes) -> int:
    """How much of `data` was taken; -1 where it is refused."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError:
        return -1
