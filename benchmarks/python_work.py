"""The Python program that is timed inside of a sandbox and outside of it; it speaks with the driver as work.c does.

It is run by its path and needs the standard library alone: an iteration is one call of `compute`.
"""

import sys
from time import perf_counter_ns

_NUMBERS = 20_000


def compute() -> int:
    """Some milliseconds of arithmetic, calls and small objects."""
    counts: dict[int, int] = {}
    for number in range(_NUMBERS):
        key = number * number % 97
        counts[key] = counts.get(key, 0) + 1
    return sum(sorted(counts.values()))


def main() -> int:
    for line in sys.stdin:
        nanoseconds = []
        for _ in range(int(line.split()[1])):
            start = perf_counter_ns()
            compute()
            nanoseconds.append(perf_counter_ns() - start)
        print(*nanoseconds, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
