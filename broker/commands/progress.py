"""A bar on the terminal for what takes long; nothing at all where standard error is no terminal."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

# Seconds until a bar appears, so that what is quick shows none, and from one drawing to the next.
_PATIENCE = 0.3
_EVERY = 0.1

_WIDTH = 30
_CLEAR_LINE = "\r\x1b[K"


class Bar(contextlib.AbstractContextManager["Bar"]):
    """How much of something is done. Its end takes it off the terminal."""

    def __init__(self, total: int, what: str) -> None:
        """Of `total` of `what`, as "tests", none is done yet."""
        self._total = total
        self._what = what
        self._terminal = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None
        self._due = time.monotonic() + _PATIENCE
        self._is_drawn = False

    def show(self, done: int) -> None:
        """Draw that so many are done, if it is time to draw."""
        if self._terminal is None:
            return
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _EVERY
            self._is_drawn = True
            filled = _WIDTH * min(done, self._total) // max(self._total, 1)
            bar = "#" * filled + "." * (_WIDTH - filled)
            self._print(f"{_CLEAR_LINE}[{bar}] {done} of {self._total} {self._what}")

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        if self._is_drawn:
            self._print(_CLEAR_LINE)

    def _print(self, text: str) -> None:
        print(text, end="", file=self._terminal, flush=True)


def tracked(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield `items`, and show how many of them were taken; `what` are they, as "tests"."""
    with Bar(len(items), what) as bar:
        for number, item in enumerate(items):
            bar.show(number)
            yield item
