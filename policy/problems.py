"""What is wrong with a policy: problems with their places, collected so that all of them are told at once.

A problem says what was found and what was expected. Nothing here decides what a problem is.
"""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple, NoReturn

from .nodes import Node

# Problems that are told for one file. A file with more is no policy but something else; nobody reads on.
PROBLEMS_PER_FILE = 1_000

# Words that are compared with a misspelled one: comparing is slow, and a set may name 100,000 clients.
COMPARED_WORDS = 200

# Characters of a faulty value that a message repeats.
SHOWN_CHARACTERS = 60


class Position(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Problem(NamedTuple):
    """One thing that is wrong, and where; line and column count from 1.

    Both are 0 where a file as a whole is meant; the column alone is 0 where a rule as a whole is.
    """

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f":{self.line}" if self.line else ""
        place += f":{self.column}" if self.column else ""
        return f"{self.file}{place}: {self.message}"


class PolicyError(Exception):
    """A set of files that does not load. `problems` holds everything that is wrong with any of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


class Report:
    """Collects the problems of a set of files."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._counts: dict[str, int] = {}

    def add(self, position: Position, message: str) -> None:
        """Note a problem. What a file has beyond PROBLEMS_PER_FILE is dropped, and the last one says so."""
        count = self._counts.get(position.file, 0) + 1
        self._counts[position.file] = count
        if count == PROBLEMS_PER_FILE:
            message = f"this file has {PROBLEMS_PER_FILE} problems or more; the rest is not shown"
        if count <= PROBLEMS_PER_FILE:
            self.problems.append(Problem(*position, message))

    def is_full(self, file: str) -> bool:
        """Tell whether further problems of `file` would be dropped."""
        return self._counts.get(file, 0) >= PROBLEMS_PER_FILE


class Abandoned(Exception):
    """The rest of a file cannot be read; the report says why."""


class FileReport:
    """The report, for the reader of one file."""

    def __init__(self, file: str, report: Report) -> None:
        self.file = file
        self._report = report

    def at(self, node: Node, message: str) -> None:
        """Note a problem at the place of `node`. Raises Abandoned when this file's problems are too many."""
        if self._report.is_full(self.file):
            raise Abandoned
        self._report.add(self.position(node), message)

    def abandon(self, line: int, column: int, message: str) -> NoReturn:
        """Note a problem after which reading on makes no sense, and raise Abandoned."""
        self._report.add(Position(self.file, line, column), message)
        raise Abandoned

    def position(self, node: Node) -> Position:
        """Return the place of `node`."""
        return Position(self.file, node.line, node.column)


def shown(value: str) -> str:
    """Return `value` quoted for a message: one line, printable, of bounded length."""
    if len(value) > SHOWN_CHARACTERS:
        return repr(value[:SHOWN_CHARACTERS]) + "…"
    return repr(value)


def one_of(words: Iterable[str], found: str) -> str:
    """Return the tail of a message about the unknown word `found`: what was expected, and what is nearest."""
    known = list(words)
    expected = f"one of {', '.join(known)}" if len(known) > 1 else known[0]
    return f"expected {expected}{did_you_mean(known, found)}"


def did_you_mean(words: Iterable[str], found: str) -> str:
    """Return "; did you mean …?" with the one of `words` that is nearest to `found`, or nothing."""
    from difflib import get_close_matches  # only a mistake pays for it

    near = get_close_matches(found[:SHOWN_CHARACTERS], islice(words, COMPARED_WORDS), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
