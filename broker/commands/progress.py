"""A bar on the terminal for what takes long; nothing at all where standard error is no terminal."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TextIO, TypeVar

Item = TypeVar("Item")

# Seconds until the bar appears, so that what is quick shows none, and from one drawing to the next.
_PATIENCE = 0.3
_EVERY = 0.1

_WIDTH = 30
_CLEAR_LINE = "\r\x1b[K"


def tracked(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield `items`, and show on standard error how many of them were taken; `what` are they, as "tests"."""
    terminal = sys.stderr
    if terminal is None or not terminal.isatty():
        yield from items
        return
    is_drawn = False
    try:
        due = time.monotonic() + _PATIENCE
        for number, item in enumerate(items):
            now = time.monotonic()
            if now >= due:
                _draw(terminal, number, len(items), what)
                is_drawn, due = True, now + _EVERY
            yield item
    finally:
        if is_drawn:
            print(_CLEAR_LINE, end="", file=terminal, flush=True)


def _draw(terminal: TextIO, done: int, total: int, what: str) -> None:
    filled = _WIDTH * done // total
    bar = "#" * filled + "." * (_WIDTH - filled)
    print(f"{_CLEAR_LINE}[{bar}] {done} of {total} {what}", end="", file=terminal, flush=True)
