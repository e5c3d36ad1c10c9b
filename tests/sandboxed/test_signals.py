"""Signals that a parent takes for its program."""

import os
import signal
from collections.abc import Iterator

import pytest
from sandboxes import nothing_left
from support import as_uid, readable

from sandboxed import syscalls
from sandboxed.signals import FORWARDED_SIGNALS, Signals


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    with nothing_left():
        yield


def test_every_signal_is_taken_and_who_sent_it_told() -> None:
    with Signals() as signals:
        assert list(signals.take()) == []
        for number in FORWARDED_SIGNALS:
            os.kill(os.getpid(), number)
            assert readable(signals.fileno())
            assert list(signals.take()) == [(number, False)]
        for number in FORWARDED_SIGNALS:
            os.kill(os.getpid(), number)
        assert sorted(signals.take()) == sorted((number, False) for number in FORWARDED_SIGNALS)
        assert not readable(signals.fileno(), 0)


def test_no_handler_runs_while_signals_are_taken() -> None:
    handled: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    try:
        with Signals():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert handled == []
        assert handled == [signal.SIGUSR1]  # nobody took it, so it takes its usual effect
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_original_mask_is_what_was_blocked_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        with Signals() as signals:
            assert signals.original_mask == {*map(int, before), signal.SIGUSR2}
            assert set(FORWARDED_SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {*before, signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_only_the_named_signals_are_taken() -> None:
    with Signals([signal.SIGWINCH]) as signals:
        os.kill(os.getpid(), signal.SIGWINCH)
        assert list(signals.take()) == [(signal.SIGWINCH, False)]
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_closing_twice_is_closing_once() -> None:
    signals = Signals()
    signals.close()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signals.close()
    assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_mask_is_given_back_when_no_fd_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(numbers: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(syscalls, "signalfd", fail)
    with pytest.raises(OSError, match="Too many"):
        Signals()


def test_signal_typed_at_a_terminal_is_told_from_a_sent_one() -> None:
    def at_a_terminal() -> list[list[object]]:
        pid, terminal = os.forkpty()
        if pid == 0:
            with Signals() as signals:
                os.write(1, b"ready")
                readable(signals.fileno())
                taken = list(signals.take())
                os._exit(0 if taken == [(signal.SIGINT, True)] else 1)
        seen = b""
        while b"ready" not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        return [[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]]

    assert as_uid(os.geteuid(), at_a_terminal) == [[0]]
