"""What every subcommand shares: telling the user what is wrong."""

import sys

from broker.unusable import Unusable

__all__ = ["Unusable", "printable_line", "say"]


def say(command: str, message: object) -> None:
    """Tell the user, on standard error."""
    if sys.stderr is not None:  # None would be standard output, which is the command's
        print(f"{f'fdbroker {command}'.rstrip()}: {message}", file=sys.stderr, flush=True)


def printable_line(line: str) -> str:
    """`line` without what a terminal would obey or cannot show, as escape sequences and line ends."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
