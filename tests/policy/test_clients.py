"""What is known of a peer, against the conditions on it."""

import pytest

from policy import Client, Peer
from policy.clients import allow_admits, deny_concerns

NOBODY = Peer(None, None, None, None)
MIA = Peer(1000, frozenset(["mia"]), frozenset([50]), frozenset(["lab"]), frozenset(), frozenset(), True)
DROPPED = Peer(1000, frozenset(["mia"]), frozenset(), frozenset(), frozenset([50]), frozenset(["lab"]), True)
UNLISTED = Peer(1000, frozenset(["mia"]), frozenset(), frozenset(), None, None, None)


def names(*texts: str) -> frozenset[str]:
    return frozenset(texts)


@pytest.mark.parametrize(
    ("client", "peer", "certainly", "possibly"),
    [
        (Client(users=names("mia", "tom")), MIA, True, True),
        (Client(users=names("tom")), MIA, False, False),
        (Client(users=names("tom")), NOBODY, False, True),
        (Client(uids=((1000, 1000),)), MIA, True, True),
        (Client(uids=((0, 5), (999, 1001))), MIA, True, True),
        (Client(uids=((0, 999),)), MIA, False, False),
        (Client(uids=((0, 999),)), NOBODY, False, True),
        (Client(groups=names("lab")), MIA, True, True),
        (Client(groups=names("adm")), MIA, False, False),
        (Client(groups=names("lab")), DROPPED, False, True),
        (Client(groups=names("adm")), DROPPED, False, False),
        (Client(groups=names("adm")), UNLISTED, False, True),
        (Client(gids=((50, 60),)), MIA, True, True),
        (Client(gids=((50, 60),)), DROPPED, False, True),
        (Client(gids=((60, 70),)), DROPPED, False, False),
        (Client(gids=((60, 70),)), UNLISTED, False, True),
        (Client(sockets=names("default")), MIA, True, True),
        (Client(sockets=names("gpu")), NOBODY, False, False),
        (Client(users=names("tom")), MIA._replace(owner_names=names("tom")), False, True),
        (Client(users=names("tom")), MIA._replace(owner_names=None), False, True),
        (Client(uids=((5, 7),)), MIA._replace(owner_uids=frozenset([7])), False, True),
        (Client(uids=((5, 7),)), MIA._replace(owner_uids=None), False, True),
        (Client(uids=((5, 7),)), MIA._replace(owner_uids=frozenset([8])), False, False),
        (Client(units=names("a.service")), MIA._replace(unit="a.service"), True, True),
        (Client(units=names("a.service")), MIA._replace(unit=""), False, False),
        (Client(units=names("a.service")), MIA, False, True),
        (Client(exes=names("/a")), MIA._replace(exe="/a"), True, True),
        (Client(exes=names("/a"), labels=names("x")), MIA._replace(exe="/a", label="y"), False, False),
        (Client(any_account=True), MIA, True, True),
        (Client(any_account=True), UNLISTED, False, True),
        (Client(any_account=True), Peer(7, names(), frozenset(), names(), has_account=False), False, False),
        (Client(any_account=True), Peer(None, None, None, None, embedded=True), True, True),
        (Client(users=names("mia"), sockets=names("gpu")), MIA, False, False),
        (Client(users=names("mia"), uids=((1000, 1000),)), Peer(1000, None, None, None), False, True),
    ],
)
def test_client_matches_certainly_and_possibly(
    client: Client, peer: Peer, certainly: bool, possibly: bool
) -> None:
    assert client.certainly_matches(peer) is certainly
    assert client.possibly_matches(peer) is possibly
    # Where it widens: an allow's clients, a deny's exceptions.
    assert allow_admits((client,), (), peer) is certainly
    assert deny_concerns((), (client,), peer) is not certainly
    # Where it narrows: a deny's clients, an allow's exceptions.
    assert deny_concerns((client,), (), peer) is possibly
    assert allow_admits((Client(sockets=names(peer.socket)),), (client,), peer) is not possibly


def test_allow_without_clients_admits_nobody_and_deny_without_clients_concerns_everybody() -> None:
    assert not allow_admits((), (), MIA)
    assert deny_concerns((), (), NOBODY)
