"""The fixtures that all tests share."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support import FDBROKER, Broker

# A policy that its group can write does not load; and that is what some users' umask makes.
os.umask(0o022)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every uid can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="fdbroker-test-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def start_broker(place: Path) -> Iterator[Callable[..., Broker]]:
    """Starts brokers, and checks each for leaks at the end."""
    brokers: list[Broker] = []

    def start(
        policy: str,
        program: Sequence[str] = FDBROKER,
        options: Sequence[str] = (),
        same_processes: bool = True,
    ) -> Broker:
        broker = Broker(place, policy, program, options)
        broker.same_processes = same_processes
        brokers.append(broker)
        return broker

    try:
        yield start
        for broker in brokers:
            if broker.process.poll() is None:
                broker.assert_unharmed()
                assert broker.stop() == 0
    finally:
        for broker in brokers:
            broker.kill()
