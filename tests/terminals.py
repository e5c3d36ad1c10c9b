"""A terminal with a shell at it, for tests that type and look, as a user does.

The shell is a bash with job control on a pty of its own. It edits no lines, so that the terminal has the same settings
at every prompt, and its prompt tells the last exit status and cannot be mistaken for the echo of what was typed.
"""

from __future__ import annotations  # Terminal.type hides the builtin in its class

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from support import wait_until

SECONDS = 60
PROMPT = r"ready (\d+)> "
SHELL = ("bash", "--noprofile", "--norc", "--noediting", "-i")

_READ_BYTES = 65536
# What is typed at once: the kernel's queue of a terminal has 4096 bytes.
_TYPED_BYTES = 1024


class Terminal:
    """A pty, and the command that was started on it: its controlling terminal, and its standard files."""

    def __init__(
        self, command: Sequence[str] = SHELL, size: tuple[int, int] = (24, 80), cwd: str | Path = "/"
    ) -> None:
        """Start `command`, which finds a terminal of `size`: rows, columns."""
        self.seen = b""  # and not expected yet
        self.before = b""  # what was shown before what was expected last
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            try:
                for number in (signal.SIGPIPE, signal.SIGXFSZ):
                    signal.signal(
                        number, signal.SIG_DFL
                    )  # Python ignores them, and so would all that we start
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
                os.chdir(cwd)
                environment = {**os.environ, "PS1": "ready $?> ", "TERM": "dumb", "HISTFILE": ""}
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)
        os.set_blocking(self._master, False)

    def type(self, text: str | bytes) -> None:
        """Type `text`; what the terminal shows meanwhile is kept."""
        waiting = text.encode() if isinstance(text, str) else text
        while waiting:
            readable, writable = self._wait(select.POLLIN | select.POLLOUT, f"to type {waiting[:80]!r}")
            if readable:
                self._read()
            if writable:
                waiting = waiting[os.write(self._master, waiting[:_TYPED_BYTES]) :]

    def expect(self, pattern: str) -> re.Match[bytes]:
        """Wait until the terminal has shown `pattern`, and forget everything up to its end."""
        deadline = time.monotonic() + SECONDS
        while True:
            match = re.search(pattern.encode(), self.seen, re.DOTALL)
            if match:
                self.before = self.seen[: match.start()]
                self.seen = self.seen[match.end() :]
                return match
            self._wait(select.POLLIN, f"for {pattern!r}", deadline)
            self._read()

    def prompt(self) -> int:
        """Wait for the shell's prompt; the exit status that it tells."""
        return int(self.expect(PROMPT)[1])

    def enter(self, line: str) -> None:
        """Type `line`, and take its echo away."""
        self.type(line + "\n")
        self.expect(re.escape(line) + r"\r\n")

    def run(self, line: str) -> tuple[int, str]:
        """Enter `line` at the prompt and wait for the next; its exit status, and what the terminal showed."""
        self.enter(line)
        return self.prompt(), self.before.decode("utf-8", "replace")

    def bring_back(self) -> None:
        """Bring the shell's job to the front, and wait until it has the terminal and runs."""
        self.enter("fg")
        self.expect(r"^[^\r]+\r\n")  # the shell says which job
        wait_until(lambda: self.is_raw, "the job to take the terminal")
        wait_until(lambda: "T" not in map(state, descendants(self.pid)), "all of the job to run")

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size, as a window does."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def settings(self) -> list[Any]:
        """The terminal's settings (termios)."""
        return termios.tcgetattr(self._master)

    @property
    def is_raw(self) -> bool:
        """Whether each key goes to the reader as it is, without an echo."""
        return not self.settings[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    @property
    def front(self) -> int:
        """The process group that is in the foreground."""
        return os.tcgetpgrp(self._master)

    def job(self) -> int:
        """The one child of the shell, once it is there and its group is in the foreground."""

        def look() -> int | None:
            found = children(self.pid)
            return found[0] if len(found) == 1 and self.front == os.getpgid(found[0]) else None

        return int(wait_until(look, "the job in the foreground"))

    def hang_up(self) -> None:
        """Let the terminal vanish, as a closed window does."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def close(self) -> None:
        """End the shell and all that it started, whatever happened."""
        below = descendants(self.pid)  # some may have gone to sessions of their own
        self.hang_up()
        for pid in (*members(self.pid), *below, self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        os.waitpid(self.pid, 0)
        wait_until(
            lambda: not members(self.pid) and {state(pid) for pid in below} <= {"Z"},
            "the end of the terminal's processes",
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, events: int, what: str, deadline: float | None = None) -> tuple[bool, bool]:
        poll = select.poll()
        poll.register(self._master, events)
        seconds = SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
        ready = poll.poll(seconds * 1000)
        if not ready:
            raise AssertionError(f"waited in vain {what}; the terminal shows {self.seen[-2000:]!r}")
        found = ready[0][1]
        return bool(found & (select.POLLIN | select.POLLHUP)), bool(found & select.POLLOUT)

    def _read(self) -> None:
        try:
            self.seen += os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise AssertionError(f"the terminal's last user has ended; it shows {self.seen!r}") from error


def fields(pid: int) -> list[str]:
    """What /proc/PID/stat says behind the name: state, parent, group, session, terminal, …; [] of no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state(pid: int) -> str:
    """The state letter of proc(5); Z for what is gone."""
    return (fields(pid) or ["Z"])[0]


def members(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = fields(int(name))
            if stat and stat[0] not in "ZX" and int(stat[3]) == session:
                found.append(int(name))
    return found


def children(pid: int) -> list[int]:
    """The children of a process, none when it has ended."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid: int) -> list[int]:
    """All processes below this one, also those in namespaces of their own."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def used(pid: int) -> str:
    """The processor time that a process has had, in nanoseconds (schedstat); nothing once it is gone."""
    try:
        return Path(f"/proc/{pid}/schedstat").read_text().split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def come_to_rest(*pids: int) -> None:
    """Wait until the processes sleep, and use no processor time at all while others could run.

    One that spins is never seen asleep with the same time used; how fast the machine is does not matter.
    """

    def look() -> list[tuple[str, str]]:
        return [(state(pid), used(pid)) for pid in pids if state(pid) != "Z"]

    last: list[list[tuple[str, str]]] = []

    def rest() -> bool:
        last.append(look())
        del last[:-8]
        return len(last) == 8 and all(one == last[0] for one in last) and all(s == "S" for s, _ in last[0])

    wait_until(rest, f"processes {pids} to rest; the last looks: {last}")
