"""Another policy, or another worker, in the middle of the work: nothing is lost, and nothing is answered twice."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile import DENIED, Hostile, opening
from support import FDBROKER, Broker, allow, children_of, policy, wait_until

import sandboxed

Start = Callable[..., Broker]

_QUICK = """
import sys, broker.supervisor
broker.supervisor.HANDOVER_SECONDS = 0.5
from broker.main import main
sys.exit(main())
"""
# `fdbroker` that waits for a client no longer than a test can.
QUICK = (sys.executable, "-c", _QUICK)


@pytest.fixture
def start(start_broker: Callable[..., Broker]) -> Start:
    return lambda text, program=FDBROKER: start_broker(text, program, same_processes=False)


def reload(broker: Broker, text: str | None = None) -> dict[str, object]:
    """Write another policy, let the broker read it, and return what it says came of it."""
    before = len(broker.all_records(event="reload"))
    if text is not None:
        new = broker.policy.with_suffix(".new")
        new.write_text(text)
        new.rename(broker.policy)
    os.kill(broker.supervisor, signal.SIGHUP)
    records = wait_until(
        lambda: found if len(found := broker.all_records(event="reload")) > before else None, "the reload"
    )
    return dict(records[-1])


def gives(client: sandboxed.Client, path: Path) -> bool:
    try:
        client.open_fd(str(path), ["read"]).close()
    except PermissionError:
        return False
    return True


def both(place: Path) -> tuple[str, str]:
    for name in ("one", "two"):
        (place / name).write_text(name)
    return policy(allow("a", f"{place}/one")), policy(allow("b", f"{place}/two"))


def test_clients_are_served_by_the_new_policy_on_their_old_connections(start: Start, place: Path) -> None:
    first, second = both(place)
    broker = start(first)
    with broker.client() as one, broker.client() as other:
        assert (gives(one, place / "one"), gives(one, place / "two")) == (True, False)
        told = reload(broker, second)
        assert (told["good"], told["rules"]) == (True, 1)
        for client in (one, other):
            assert (gives(client, place / "one"), gives(client, place / "two")) == (False, True)
        with broker.client() as late:
            assert (gives(late, place / "one"), gives(late, place / "two")) == (False, True)
    wait_until(lambda: len(children_of(broker.supervisor)) == 1, "the old worker to end")


@pytest.mark.parametrize(
    "text", ["version: 1\nrules: [{name: r, allow: [", "version: 1\nrules: [{name: r}]", "version: 2"]
)
def test_policy_with_a_mistake_changes_nothing(start: Start, place: Path, text: str) -> None:
    first, _ = both(place)
    broker = start(first)
    workers = children_of(broker.supervisor)
    with broker.client() as client:
        told = reload(broker, text)
        assert told["good"] is False and ".yaml:" in str(told["error"])
        assert gives(client, place / "one")
    assert children_of(broker.supervisor) == workers
    assert reload(broker, first)["good"] is True


def test_policy_is_not_read_because_its_file_changed(start: Start, place: Path) -> None:
    first, second = both(place)
    broker = start(first)
    broker.policy.write_text(second)
    with broker.client() as client:
        assert gives(client, place / "one")
    with broker.client() as client:
        assert gives(client, place / "one")


def test_grant_of_the_worker_before_can_be_released(start: Start, place: Path) -> None:
    first, _ = both(place)
    broker = start(first)
    with broker.client() as client:
        held = client.open_fd(str(place / "one"), ["read"])
        assert reload(broker)["good"] is True
        again = client.open_fd(str(place / "one"), ["read"])
        assert again.grant != held.grant
        for fd in (held, again):
            client.release(fd)
    assert {one["grant"] for one in broker.records(event="release")} == {held.grant, again.grant}


def test_message_that_came_in_part_is_served_whole_by_the_worker_that_has_it(
    start: Start, place: Path
) -> None:
    """The rest comes after the reload: the worker that read the first half answers, by its policy."""
    first, second = both(place)
    broker = start(first)
    message = opening(place / "one")
    with Hostile(broker) as client:
        client.send(message[:10])
        wait_until(lambda: client.unread_by_broker() == 0, "the worker to read it")
        assert reload(broker, second)["good"] is True
        client.send(message[10:])
        reply, fds = client.receive()
        assert "parameters" in reply and len(fds) == 1, reply
        os.close(fds[0])
        assert client.error(opening(place / "one")) == DENIED


def test_reply_that_is_unread_at_a_reload_goes_before_the_next(start: Start, place: Path) -> None:
    first, _ = both(place)
    broker = start(first)
    with Hostile(broker) as client:
        client.send(opening(place / "one"))
        wait_until(lambda: broker.all_records(event="open"), "the first reply")
        assert reload(broker)["good"] is True
        client.send(opening(place / "two"))
        threading.Event().wait(0.1)
        assert len(broker.all_records(event="open")) == 1, "an fd would follow an unread reply"
        reply, fds = client.receive()
        assert len(fds) == 1, reply
        os.close(fds[0])
        reply, fds = client.receive()
        assert reply["error"] == DENIED and not fds


def test_clients_lose_no_request_when_the_policy_is_read_all_the_time(start: Start, place: Path) -> None:
    """Two policies in turn, under which one file is always given and another never."""
    (place / "always").write_text("always")
    always = allow("always", f"{place}/always")
    texts = [policy(always, allow(name, f"{place}/{name}")) for name in ("one", "two")]
    broker = start(texts[0])
    done = threading.Event()
    faults: list[str] = []
    served = [0] * 8

    def work(number: int) -> None:
        with broker.client() as client:
            while not done.is_set():
                try:
                    if not gives(client, place / "always"):
                        faults.append("what is always given was refused")
                    if gives(client, place / "never"):
                        faults.append("what is never given was given")
                except Exception as error:
                    faults.append(repr(error))
                    return
                served[number] += 2

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(served))]
    for thread in threads:
        thread.start()
    for turn in range(12):
        assert reload(broker, texts[turn % 2])["good"] is True
    done.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert all(served)
    given = {"event": "open", "path": f"{place}/always"}
    wait_until(lambda: len(broker.all_records(**given)) == sum(served) // 2, "as many records as opens")
    grants = [one["grant"] for one in broker.all_records(**given)]
    assert len(set(grants)) == len(grants)


def test_client_that_never_finishes_its_message_is_closed_and_keeps_nobody_waiting(
    start: Start, place: Path
) -> None:
    first, second = both(place)
    broker = start(first, QUICK)
    with Hostile(broker) as idle:
        idle.send(opening(place / "one")[:10])
        wait_until(lambda: idle.unread_by_broker() == 0, "the worker to read it")
        assert reload(broker, second)["good"] is True
        with broker.client() as client:
            assert gives(client, place / "two")
        assert idle.is_hung_up_on()
    wait_until(lambda: len(children_of(broker.supervisor)) == 1, "the old worker to end")


def test_sockets_of_the_new_policy_are_made_and_those_of_the_old_one_go(start: Start, place: Path) -> None:
    (place / "one").write_text("one")
    socket = "sockets: {%s: {path: %s, mode: 0600}}\n"
    rule = "name: a, clients: [{{socket: {name}}}], allow: [read], paths: [{place}/one]"
    broker = start(policy(rule.format(name="x", place=place), head=socket % ("x", place / "x.sock")))
    with sandboxed.connect(str(place / "x.sock")) as client:
        assert gives(client, place / "one")
    told = reload(broker, policy(rule.format(name="y", place=place), head=socket % ("y", place / "y.sock")))
    assert told["good"] is True, told
    with sandboxed.connect(str(place / "y.sock")) as client:
        assert gives(client, place / "one")
    assert not (place / "x.sock").exists()
    taken = policy(rule.format(name="z", place=place), head=socket % ("z", place / "nowhere/deep/z.sock"))
    assert reload(broker, taken)["good"] is False
    with sandboxed.connect(str(place / "y.sock")) as client:
        assert gives(client, place / "one")


# --- workers that die ------------------------------------------------------------------------------------


@pytest.fixture
def killed(start: Start, place: Path) -> Iterator[Broker]:
    broker = start(both(place)[0])
    with broker.client() as client:
        assert gives(client, place / "one")
        os.kill(broker.worker, signal.SIGKILL)
        with pytest.raises((ConnectionError, sandboxed.ProtocolError, EOFError, OSError)):
            for _ in range(3):  # its connection ends; it is not left waiting for an answer
                client.open_fd(str(place / "one"), ["read"]).close()
    yield broker


def test_new_requests_are_answered_when_the_worker_was_killed(killed: Broker, place: Path) -> None:
    with killed.client() as client:
        assert gives(client, place / "one")
    assert killed.records(event="worker-ended")[0]["status"] == signal.SIGKILL
    wait_until(lambda: len(killed.all_records(event="open", verdict="allow")) == 2, "both records")


def test_policy_is_read_again_when_the_worker_was_killed(killed: Broker, place: Path) -> None:
    assert reload(killed, both(place)[1])["good"] is True
    with killed.client() as client:
        assert gives(client, place / "two")


def test_worker_that_dies_again_and_again_is_started_with_pauses(start: Start, place: Path) -> None:
    broker = start(both(place)[0])
    for _ in range(4):
        worker = wait_until(lambda: children_of(broker.supervisor), "a worker")[0]
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda dead=worker: dead not in children_of(broker.supervisor), "its end")
    wait_until(lambda: len(broker.all_records(event="worker-ended")) == 4, "all records")
    with broker.client() as client:
        assert gives(client, place / "one")
    seqs = [one["seq"] for one in broker.all_records()]
    assert seqs == list(range(1, len(seqs) + 1))


def test_policy_can_be_read_again_when_the_worker_of_the_one_before_died_before_it_served(
    start: Start, place: Path
) -> None:
    first, second = both(place)
    broker = start(first)

    def dies_early() -> bool:
        """Reload, and kill the new worker as soon as it is there; whether that came before it served."""
        before, reloads = set(broker.workers()), len(broker.all_records(event="reload"))
        os.kill(broker.supervisor, signal.SIGHUP)
        (new,) = wait_until(lambda: set(broker.workers()) - before, "the new worker")
        os.kill(new, signal.SIGKILL)
        wait_until(lambda: len(broker.all_records(event="reload")) > reloads, "what came of the reload")
        wait_until(lambda: len(broker.workers()) == 1, "one worker to be left")
        return broker.all_records(event="reload")[-1]["good"] is False

    wait_until(dies_early, "a worker that dies early enough")
    assert reload(broker, second)["good"] is True
    with broker.client() as client:
        assert gives(client, place / "two")
