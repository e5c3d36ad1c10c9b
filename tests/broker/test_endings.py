"""Rules that end: what was decided before is no longer good when one of them has ended."""

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from support import Broker, allow, policy, wait_until

from broker.endings import EndingOpener, opener_for
from broker.messages import Asked
from broker.opener import Opener
from broker.plans import Plan
from policy import Peer, Rights, Source, load
from sandboxed import Denied

Start = Callable[..., Broker]

END = 1_796_144_400
UNTIL = "until: 2026-12-01T18:00+01:00"
# A node below directories that root alone can change: what is decided of it is remembered.
ZERO = allow("zero", "/dev/zero", more="type: char")
ZERO_UNTIL = allow("zero", "/dev/zero", more=f"type: char, {UNTIL}")
NOT_ZERO_UNTIL = f"name: no, deny: all, paths: [/dev/zero], {UNTIL}"
SOMEBODY = Peer(1000, frozenset(), frozenset(), frozenset())


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = END - 0.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def plan() -> Plan:
    return Plan(Asked("/dev/zero", Rights.READ, Rights(0), 0), SOMEBODY)


def opener_by(clock: Clock, *rules: str) -> Iterator[EndingOpener]:
    opener = EndingOpener(load([Source("a.yaml", policy(*rules))]), clock)
    yield opener
    opener.close()


def verdict(opener: Opener, plan: Plan) -> str:
    """How an open ends that is made as a connection makes it: "known" when the answer was remembered."""
    fd = opener.open_known(plan)
    if fd >= 0:
        os.close(fd)
        return "known"
    outcome = opener.open(plan)
    if outcome.fd >= 0:
        os.close(outcome.fd)
    return outcome.verdict


def test_opener_forgets_an_object_when_the_allow_has_ended(clock: Clock, plan: Plan) -> None:
    for opener in opener_by(clock, ZERO_UNTIL):
        assert [verdict(opener, plan) for _ in range(3)] == ["allow", "known", "known"]
        clock.now = END
        assert [verdict(opener, plan) for _ in range(2)] == ["deny", "deny"]


def test_opener_refuses_no_longer_when_the_deny_has_ended(clock: Clock, plan: Plan) -> None:
    for opener in opener_by(clock, ZERO, NOT_ZERO_UNTIL):
        assert verdict(opener, plan) == "deny"
        clock.now = END
        assert [verdict(opener, plan) for _ in range(2)] == ["allow", "known"]


def test_opener_refuses_again_when_the_clock_is_set_back(clock: Clock, plan: Plan) -> None:
    for opener in opener_by(clock, ZERO, NOT_ZERO_UNTIL):
        clock.now = END + 3600
        assert [verdict(opener, plan) for _ in range(2)] == ["allow", "known"]
        clock.now = END - 1
        assert verdict(opener, plan) == "deny"


def test_opener_decides_once_more_when_a_rule_has_ended_that_is_about_something_else(
    clock: Clock, plan: Plan
) -> None:
    other = allow("other", "/dev/null", more=f"type: char, {UNTIL}")
    for opener in opener_by(clock, ZERO, other):
        assert [verdict(opener, plan) for _ in range(2)] == ["allow", "known"]
        clock.now = END
        assert [verdict(opener, plan) for _ in range(2)] == ["allow", "known"]


@pytest.mark.parametrize(("rule", "kind"), [(ZERO, Opener), (ZERO_UNTIL, EndingOpener)])
def test_opener_asks_the_clock_at_each_open_when_the_policy_says_until(rule: str, kind: type[Opener]) -> None:
    opener = opener_for(load([Source("a.yaml", policy(rule))]))
    opener.close()
    assert type(opener) is kind


def ending(seconds: int) -> str:
    """`until:` in so many seconds from now, or one more."""
    return f"until: {datetime.fromtimestamp(int(time.time()) + 1 + seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def is_given(broker: Broker) -> bool:
    with broker.client() as client:
        try:
            client.open_fd("/dev/zero", ["read"]).close()
        except Denied:
            return False
    return True


def test_client_is_denied_when_the_rule_ended_that_gave_it_the_device(start_broker: Start) -> None:
    broker = start_broker(policy(allow("zero", "/dev/zero", more=f"type: char, {ending(2)}")))
    with broker.client() as client:
        for _ in range(3):
            client.open_fd("/dev/zero", ["read"]).close()
        assert client.check("/dev/zero", ["read"])
        wait_until(lambda: not is_given(broker), "the rule to end")
        with pytest.raises(Denied):
            client.open_fd("/dev/zero", ["read"])
        assert not client.check("/dev/zero", ["read"])
        assert client.describe()["resources"] == []
    assert broker.records(verdict="deny")[0]["reason"].endswith("those that name this path are over")


def test_client_is_given_the_device_when_the_deny_ended_that_kept_it_away(start_broker: Start) -> None:
    broker = start_broker(policy(ZERO, f"name: no, deny: all, paths: [/dev/zero], {ending(2)}"))
    assert not is_given(broker)
    wait_until(lambda: is_given(broker), "the rule to end")
