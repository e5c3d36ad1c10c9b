"""The groups of clients that a peer may belong to are found without asking each of them, and none is missed."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policy import Client, Peer, Policy, Source, load
from policy.clientindex import ClientIndex, Group
from policy.clients import allow_admits, deny_concerns
from tests.policy.strategies import client_lists, named, peers, policy_of


def groups_of(policy: Policy) -> list[Group]:
    return [(rule.clients, rule.except_clients) for rule in policy.rules]


@given(st.lists(st.tuples(client_lists, st.one_of(st.none(), client_lists)), max_size=4), peers)
def test_index_finds_those_that_each_would_say_yes(texts: list[tuple[Any, Any]], peer: Peer) -> None:
    rules = [
        {"deny": "all", "clients": clients, **({"except_clients": excepted} if excepted else {})}
        for clients, excepted in texts
    ]
    groups = [*groups_of(policy_of(named([*rules, {"deny": "all"}])))]
    index = ClientIndex(groups)
    admitting = {place for place, group in enumerate(groups) if allow_admits(*group, peer)}
    assert index.admitting(peer) == admitting
    assert index.concerning(peer) == {
        place for place, group in enumerate(groups) if deny_concerns(*group, peer)
    }


def test_index_asks_none_that_names_another_user(monkeypatch: Any) -> None:
    rules = ", ".join(
        f"{{name: r{number}, deny: all, clients: [{{user: u{number}}}]}}" for number in range(1_000)
    )
    groups = groups_of(load([Source("a.yaml", f"version: 1\nrules: [{rules}]")]))
    asked: list[Client] = []
    certainly = Client.certainly_matches

    def note(client: Client, peer: Peer) -> bool:
        asked.append(client)
        return certainly(client, peer)

    index = ClientIndex(groups)
    monkeypatch.setattr(Client, "certainly_matches", note)
    peer = Peer(7, frozenset(["u7"]), frozenset(), frozenset())
    assert [groups[place][0][0].users for place in index.admitting(peer)] == [frozenset(["u7"])]
    assert len(asked) == 1
