"""Rules and calls that are bent: rights from several rules, oneway opens, batches, modes, questions.

What must not be touched is watched by the kernel: inotify(7) reports each open of a file, and the access
time of a symbolic link tells that it was read.
"""

import ctypes
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hostile import DENIED, INVALID, OPEN_FAILED, Hostile, call, opening, read_and_close
from support import Broker, allow, policy, wait_until

Start = Callable[..., Broker]

_libc = ctypes.CDLL(None, use_errno=True)
_IN_ALL_EVENTS = 0xFFF


class Watch:
    """What inotify reports of a file or directory."""

    def __init__(self, path: Path) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0
        assert _libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_ALL_EVENTS) >= 0

    def events(self) -> list[int]:
        """The masks of the events since the last look."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        masks = []
        while data:
            _, mask, _, length = struct.unpack_from("iIII", data)
            masks.append(mask)
            data = data[16 + length :]
        return masks

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def watching(path: Path) -> Iterator[Watch]:
    watch = Watch(path)
    try:
        yield watch
    finally:
        watch.close()


@pytest.fixture
def file(place: Path) -> Path:
    """A file that rules speak of."""
    path = place / "file"
    path.write_text("content")
    path.chmod(0o600)
    return path


def outcome(broker: Broker, message: bytes) -> tuple[str, int] | str:
    """The access mode and the rights of the fd that an Open gives, or its error."""
    with Hostile(broker) as client:
        reply, fds = client.ask(message)
        if not fds:
            return str(reply["error"])
        mode = fcntl.fcntl(fds[0], fcntl.F_GETFL) & os.O_ACCMODE
        os.close(fds[0])
        return "+".join(reply["parameters"]["rights"]), mode


# --- rights of several rules -----------------------------------------------------------------------------


def test_client_gets_no_sum_of_rights_when_two_rules_give_half_each(start_broker: Start, file: Path) -> None:
    broker = start_broker(
        policy(
            allow("reader", str(file), "read"),
            allow("writer", str(file), "write"),
            allow("cutter", str(file), "read, truncate"),
        )
    )
    assert outcome(broker, opening(file, ["read"])) == ("read", os.O_RDONLY)
    assert outcome(broker, opening(file, ["write"])) == ("write", os.O_WRONLY)
    for access in (["read", "write"], ["read", "append"], ["edit"], ["write", "truncate"], ["use"]):
        assert outcome(broker, opening(file, access)) == DENIED
    # Nor by way of what would be welcome.
    assert outcome(broker, opening(file, ["read"], optional=["write"])) == ("read", os.O_RDONLY)
    assert outcome(broker, opening(file, ["write"], optional=["read", "truncate"])) == ("write", os.O_WRONLY)
    assert outcome(broker, opening(file, ["read"], optional=["truncate", "write"])) == (
        "read+truncate",
        os.O_RDONLY,
    )


def test_client_gets_one_rules_rights_when_each_rule_would_do(start_broker: Start, file: Path) -> None:
    broker = start_broker(
        policy(
            allow("a", str(file), "read"), allow("b", str(file), "read, write"), allow("c", str(file), "edit")
        )
    )
    assert outcome(broker, opening(file, ["read"], optional=["write"])) == ("read+write", os.O_RDWR)
    record = broker.records(event="open", verdict="allow")[0]
    assert (record["rule"], record["rights"]) == ("test/b", ["read", "write"])


def test_client_gets_no_write_when_a_deny_lists_append(start_broker: Start, file: Path) -> None:
    """Whoever may not append may not write, which would do the same and more."""
    broker = start_broker(
        policy(allow("all", str(file), "edit"), f"name: no, deny: [append], paths: [{file}]")
    )
    assert outcome(broker, opening(file, ["read", "write"])) == DENIED
    assert outcome(broker, opening(file, ["append"])) == DENIED
    assert outcome(broker, opening(file, ["read"], optional=["write"])) == ("read", os.O_RDONLY)


def test_client_cannot_write_when_its_fd_is_for_reading(start_broker: Start, file: Path) -> None:
    broker = start_broker(policy(allow("reader", str(file), "read")))
    with Hostile(broker) as client:
        _, fds = client.ask(opening(file))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fds[0], b"x")
        with pytest.raises(OSError, match="Invalid argument"):
            os.ftruncate(fds[0], 0)
        os.close(fds[0])
    assert file.read_text() == "content"


# --- opens that must not happen --------------------------------------------------------------------------


def test_client_gets_nothing_when_its_open_is_oneway(start_broker: Start, file: Path) -> None:
    broker = start_broker(policy(allow("reader", str(file), "read")))
    request = {"path": str(file), "access": ["read"]}
    with Hostile(broker) as client, watching(file) as watch:
        client.send(
            call("Open", request, oneway=True) + call("OpenMany", {"requests": [request]}, oneway=True)
        )
        # The next reply is the next call's: a oneway call has none.
        reply, fds = client.ask(call("Describe"))
        assert ("peer" in reply["parameters"], fds) == (True, [])
        assert watch.events() == []
        assert client.content(opening(file)) == "content"
        assert watch.events() != []
    assert len(broker.records(event="open")) == 1
    assert [one["reason"] for one in broker.records(event="oneway")] == [
        "a oneway Open",
        "a oneway OpenMany",
    ]


def test_client_gets_no_reply_when_another_method_is_oneway(start_broker: Start) -> None:
    broker = start_broker(policy(allow("none", "/none")))
    with Hostile(broker) as client:
        client.send(
            call("Describe", oneway=True) * 3 + call("Nothing", oneway=True) + call("Check", {}, oneway=True)
        )
        assert client.error(call("Nothing")) == "org.varlink.service.MethodNotFound"


def test_client_gets_nothing_when_it_asks_for_an_upgrade(start_broker: Start, file: Path) -> None:
    broker = start_broker(policy(allow("reader", str(file), "read")))
    with Hostile(broker) as client, watching(file) as watch:
        message = call("Open", {"path": str(file), "access": ["read"]}, upgrade=True)
        assert client.error(message) == "org.varlink.service.MethodNotImplemented"
        assert watch.events() == []


def test_client_gets_none_of_65_when_64_is_the_most(start_broker: Start, file: Path) -> None:
    broker = start_broker(policy(allow("reader", str(file), "read")))
    request = {"path": str(file), "access": ["read"]}
    with Hostile(broker) as client:
        with watching(file) as watch:
            assert client.error(call("OpenMany", {"requests": [request] * 65})) == INVALID
            assert watch.events() == []
        reply, fds = client.ask(call("OpenMany", {"requests": [request] * 64}))
        assert len(fds) == len(reply["parameters"]["results"]) == 64
        for fd in fds:
            os.close(fd)
        assert client.ask(call("OpenMany", {"requests": []})) == ({"parameters": {"results": []}}, [])
    wait_until(lambda: len(broker.all_records(event="open")) == 64, "a record for each")
    assert len({record["grant"] for record in broker.records(event="open")}) == 64


def test_client_opens_none_when_one_request_of_many_is_malformed(start_broker: Start, file: Path) -> None:
    broker = start_broker(policy(allow("reader", str(file), "read")))
    requests: list[Any] = [{"path": str(file), "access": ["read"]}] * 3
    with Hostile(broker) as client, watching(file) as watch:
        for wrong in ({"path": 1, "access": []}, {"path": "/x", "access": ["fly"]}, {"path": "/x"}, None):
            assert client.error(call("OpenMany", {"requests": [*requests, wrong]})) == INVALID
        assert watch.events() == []


@pytest.mark.parametrize("mode", [0, 0o644, 0o777, 0o1777, 0o4755, 0o6777, 0o7777])
def test_client_changes_no_mode_when_it_names_one(start_broker: Start, file: Path, mode: int) -> None:
    broker = start_broker(policy(allow("all", f"{file.parent}/*", "edit")))
    before = file.stat()
    assert outcome(broker, opening(file, ["read", "write"], mode=mode)) == ("read+write", os.O_RDWR)
    missing = file.parent / "missing"
    assert outcome(broker, opening(missing, ["write"], mode=mode, flags=["excl"])) == OPEN_FAILED
    assert not missing.exists()
    after = file.stat()
    assert (after.st_mode, after.st_size, after.st_ctime_ns) == (before.st_mode, 7, before.st_ctime_ns)


def test_client_gets_only_named_flags_when_it_tries_every_word(start_broker: Start, file: Path) -> None:
    """Every open flag that there is, by name: those that change rights or create are no words."""
    broker = start_broker(policy(allow("all", str(file), "edit")))
    accepted = set()
    words = [name[2:].lower() for name in dir(os) if name.startswith("O_")]
    with Hostile(broker) as client:
        for word in words:
            reply, fds = client.ask(opening(file, ["read"], flags=[word]))
            for fd in fds:
                os.close(fd)
            if reply.get("error") != INVALID:
                accepted.add(word)
    assert accepted == {"direct", "directory", "dsync", "excl", "nofollow", "nonblock", "sync"}
    assert file.read_text() == "content"


def test_client_gets_no_directory_when_rules_and_flags_ask_for_one(start_broker: Start, place: Path) -> None:
    (place / "directory").mkdir()
    broker = start_broker(policy(allow("all", f"{place}/**", "read", "type: [file, directory]")))
    assert outcome(broker, opening(place / "directory")) == DENIED
    assert outcome(broker, opening(place / "directory", flags=["directory"])) == DENIED


# --- questions -------------------------------------------------------------------------------------------


def test_check_reads_no_link_when_it_asks_about_one(start_broker: Start, place: Path, file: Path) -> None:
    link = place / "link"
    link.symlink_to("file")
    os.utime(link, ns=(0, 10**18), follow_symlinks=False)
    broker = start_broker(policy(allow("all", f"{place}/*", "read")))
    with Hostile(broker) as client, watching(file) as watch:
        for path in (link, file, place / "missing", "/etc/shadow"):
            reply, _ = client.ask(call("Check", {"path": str(path), "access": ["read"]}))
            assert reply["parameters"] == {"allowed": str(path).startswith(str(place))}
        client.ask(call("Describe"))
        assert link.lstat().st_atime_ns == 0
        assert watch.events() == []
        # The same with an open, which must be seen, or the test proves nothing.
        assert client.content(opening(link)) == "content"
        assert watch.events() != []
        if link.lstat().st_atime_ns == 0:
            pytest.skip("this file system keeps no access times of links")


def test_describe_touches_nothing_when_rules_name_what_is_there(
    start_broker: Start, place: Path, file: Path
) -> None:
    broker = start_broker(policy(allow("all", f"{place}/*", "read"), allow("file", str(file))))
    with Hostile(broker) as client, watching(place) as around, watching(file) as watch:
        around.events()
        reply, _ = client.ask(call("Describe"))
        assert len(reply["parameters"]["resources"]) == 2
        assert watch.events() == []


def test_refusal_is_the_same_when_the_file_is_and_is_not_there(
    start_broker: Start, place: Path, file: Path
) -> None:
    broker = start_broker(policy(allow("other", "/other"), f"name: no, deny: all, paths: [{file}]"))
    with Hostile(broker) as client:
        answers = [
            client.ask(opening(path))
            for path in (
                file,
                place / "missing",
                place,
                place / "file/below",
                "/etc/shadow",
                "/nonexistent/x",
            )
        ]
    assert answers == [({"error": DENIED, "parameters": {}}, [])] * len(answers)


# --- grants ----------------------------------------------------------------------------------------------


def test_client_cannot_release_when_the_grant_is_anothers_or_gone(start_broker: Start, file: Path) -> None:
    broker = start_broker(policy(allow("reader", str(file), "read")))
    with Hostile(broker) as owner, Hostile(broker) as other:
        reply, fds = owner.ask(opening(file))
        grant = reply["parameters"]["grant"]
        assert other.error(call("Release", {"grant": grant})) == INVALID
        assert owner.ask(call("Release", {"grant": grant})) == ({"parameters": {}}, [])
        assert owner.error(call("Release", {"grant": grant})) == INVALID
        for odd in (
            f" {grant}",
            grant[1:],
            f"g0{grant[1:]}",
            f"g+{grant[1:]}",
            f"{grant}\0",
            "g",
            "g1e1",
            "",
        ):
            assert owner.error(call("Release", {"grant": odd})) == INVALID
        # Releasing revokes nothing.
        assert read_and_close(reply, fds) == "content"


def test_client_keeps_a_bounded_number_of_grants_when_it_never_releases(
    start_broker: Start, file: Path
) -> None:
    broker = start_broker(policy(allow("reader", str(file), "read")))
    batch = call("OpenMany", {"requests": [{"path": str(file), "access": ["read"]}] * 64})
    grants: list[str] = []
    with Hostile(broker) as client:
        for _ in range(70):
            reply, fds = client.ask(batch)
            for fd in fds:
                os.close(fd)
            grants += [result["grant"] for result in reply["parameters"]["results"]]
        assert client.error(call("Release", {"grant": grants[0]})) == INVALID
        assert client.ask(call("Release", {"grant": grants[-1]}))[0] == {"parameters": {}}


def test_client_gets_a_close_on_exec_duplicate_of_nothing_else_when_it_opens(
    start_broker: Start, file: Path
) -> None:
    """Each open has a file description of its own: an offset that one client moves is no other's."""
    broker = start_broker(policy(allow("reader", str(file), "read")))
    with Hostile(broker) as one, Hostile(broker) as two:
        _, first = one.ask(opening(file))
        _, second = two.ask(opening(file))
        os.lseek(first[0], 3, os.SEEK_SET)
        assert os.read(second[0], 10) == b"content"
        assert stat.S_ISREG(os.fstat(first[0]).st_mode)
        os.close(first[0])
        os.close(second[0])
