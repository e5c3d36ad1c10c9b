"""Lines of text for people: what a terminal may be given, columns, and counts.

Enforced here: no name that somebody else chose can break a line, or have the terminal do something.
"""

from collections.abc import Sequence


def printable_line(line: str) -> str:
    """`line` without what a terminal would obey or cannot show, as escape sequences and line ends."""
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each of `rows`, at least one, all of one length: their cells stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def counted(number: int, what: str) -> str:
    """How many of `what` there are: "1 file", "2 files"."""
    return f"{number} {what}{'' if number == 1 else 's'}"
