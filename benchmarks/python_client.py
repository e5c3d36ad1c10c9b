"""The Python client that is timed: `python -m benchmarks.python_client PATH SOCKET`.

It speaks with the driver as client.c does: a number of iterations on each line of standard input, and for
each a line with the nanoseconds of every iteration, from the call until the passed fd is closed. Each
round has a connection of its own, because grants end with theirs.
"""

from __future__ import annotations

import os
import signal
import sys
from time import perf_counter_ns

import sandboxed

_WARM_UP_NANOSECONDS = 5_000_000  # as in client.c, with its reason
_ROUND_DEADLINE = 60  # seconds until a round that a broker has left hanging ends by SIGALRM


def run_round(client: sandboxed.Client, path: str, iterations: int) -> list[int]:
    """Open and close `path` that many times; returns the nanoseconds of each."""
    access = ["read", "write"]
    nanoseconds = []
    for _ in range(iterations):
        start = perf_counter_ns()
        client.open_fd(path, access).close()
        nanoseconds.append(perf_counter_ns() - start)
    return nanoseconds


def verify(client: sandboxed.Client, path: str) -> None:
    """Raise RuntimeError unless the broker passes an fd of `path`."""
    with client.open_fd(path, ["read", "write"]) as fd:
        if not os.path.samestat(os.fstat(fd), os.stat(path)):
            raise RuntimeError("the fd that came is of another file")


def warm_up(client: sandboxed.Client, path: str) -> None:
    """Open and close `path` for some milliseconds."""
    end = perf_counter_ns() + _WARM_UP_NANOSECONDS
    while perf_counter_ns() < end:
        run_round(client, path, 1)


def main(arguments: list[str]) -> int:
    path, socket_path = arguments
    for line in sys.stdin:
        signal.alarm(_ROUND_DEADLINE)
        with sandboxed.connect(socket_path) as client:
            verify(client, path)
            warm_up(client, path)
            nanoseconds = run_round(client, path, int(line))
        signal.alarm(0)
        print(*nanoseconds, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
