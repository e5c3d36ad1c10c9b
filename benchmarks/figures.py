"""The figures: robust statistics over interleaved rounds, as a table for people and as JSON for tools.

Pure: numbers in, text out. A round gives two numbers: the median of its iterations, which is what a caller
usually waits, and their mean, which also bears what the broker puts off and does for many at once (it writes
the audit so). A variant's figure is the median of its rounds, its spread their 10th and 90th percentile.
A ratio is the median of the ratios round by round, each to the floor of the same round, so that a drift of
the machine's speed cancels out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import nan
from statistics import mean, median, quantiles

FLOOR = "floor"


@dataclass(slots=True)
class Rounds:
    """The rounds of one variant, in order: the median and the mean of each."""

    medians: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    def add(self, iterations: Sequence[float]) -> None:
        """Add a round by the times of its iterations."""
        self.medians.append(median(iterations))
        self.means.append(mean(iterations))


@dataclass(frozen=True, slots=True)
class Target:
    """The most that a figure's median should be, in times the floor or in the figure's own unit."""

    limit: float
    of_floor: bool

    def __str__(self) -> str:
        return f"<= {self.limit:g} x" if self.of_floor else f"<= {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. Times are in `unit`; `low` and `high` are the medians' spread.

    `missing` says why nothing could be measured; the numbers then are none.
    """

    name: str
    title: str
    unit: str
    median: float
    low: float
    high: float
    mean: float
    median_ratio: float | None = None
    mean_ratio: float | None = None
    target: Target | None = None
    missing: str | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        value = self.median_ratio if self.target.of_floor else self.median
        return value is not None and value <= self.target.limit


def figure(
    name: str,
    title: str,
    unit: str,
    rounds: Rounds,
    *,
    floor: Rounds | None = None,
    target: Target | None = None,
) -> Figure:
    """The figure of one variant from its rounds, of which there must be two at least.

    `floor` has the floor's rounds in the same order, if the variant is to be compared with it.
    """
    tenths = quantiles(rounds.medians, n=10, method="inclusive")
    return Figure(
        name,
        title,
        unit,
        median(rounds.medians),
        tenths[0],
        tenths[-1],
        median(rounds.means),
        median_ratio=_ratio(rounds.medians, floor.medians) if floor else None,
        mean_ratio=_ratio(rounds.means, floor.means) if floor else None,
        target=target,
    )


def _ratio(rounds: Sequence[float], floor_rounds: Sequence[float]) -> float:
    return median(own / floor for own, floor in zip(rounds, floor_rounds, strict=True))


def no_figure(name: str, title: str, unit: str, reason: str) -> Figure:
    """The line of a variant that could not be measured."""
    return Figure(name, title, unit, nan, nan, nan, nan, missing=reason)


def as_table(figures: Iterable[Figure], floor: str = FLOOR) -> str:
    """The figures as an aligned table. `floor` is what the ratios are to."""
    ratio = f"x {floor}"
    headings = ("", "median", "10 % - 90 % of rounds", ratio, "mean", ratio, "target for the median")
    rows = [_cells(item) for item in figures]
    # What no line has needs no column.
    columns = [column for column in range(len(headings)) if any(row[column] for row in rows)]
    lines = [tuple(row[column] for column in columns) for row in (headings, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    left = [column in (0, len(headings) - 1) for column in columns]
    return "\n".join(_aligned(line, widths, left) for line in lines)


def _cells(item: Figure) -> tuple[str, ...]:
    if item.missing is not None:
        return (item.title, "-", "", "", "", "", item.missing)
    return (
        item.title,
        f"{item.median:.2f} {item.unit}",
        f"{item.low:.2f} - {item.high:.2f}",
        "" if item.median_ratio is None else f"{item.median_ratio:.2f}",
        f"{item.mean:.2f} {item.unit}",
        "" if item.mean_ratio is None else f"{item.mean_ratio:.2f}",
        "" if item.target is None else f"{item.target} {'reached' if item.reached else 'NOT REACHED'}",
    )


def _aligned(line: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    """The titles and the targets to the left, the numbers to the right."""
    cells = (
        text.ljust(width) if is_left else text.rjust(width)
        for text, width, is_left in zip(line, widths, left, strict=True)
    )
    return "  ".join(cells).rstrip()


def as_json(figures: Iterable[Figure], machine: Mapping[str, object]) -> dict[str, object]:
    """What the JSON file holds: the figures, and the machine and the effort they are of."""
    lines = [_rounded(_measured(item)) for item in figures]
    return {"machine": dict(machine), "figures": lines}


def _measured(item: Figure) -> dict[str, object]:
    if item.missing is not None:
        return {"name": item.name, "title": item.title, "missing": item.missing}
    return {**asdict(item), "reached": item.reached}


def _rounded(line: dict[str, object]) -> dict[str, object]:
    # Three digits are nanoseconds; the rest is what floating point makes of them.
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}
