"""Who can have what of the objects of this machine, through the broker and around it, as rows to show.

The cells are decisions (`policy.access`); what is added here is who they are for: a row's name is the client in the
rule that gives, and whoever is left is everybody else.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from broker.outside import READ, WRITE, Way
from broker.population import Somebody, of_unknown_marks
from broker.survey import Seen
from policy import ALLOW, Client, Policy, Rights, Rule, Verdict
from policy.access import AccessTable, Reach
from policy.clientwords import client_words
from policy.words import NO_RIGHTS

ACCOUNTS = "accounts"
RULE = "rule"
REST = "rest"

MARKS_COUNT = "some units, programs or labels excepted"

HIDDEN = "it has hard links, and a pattern may deny it by another name"

_Denied = dict[tuple[str, bool], tuple[Rule | None, list[int]]]

# So many accounts are named in a row that no client of a rule gives a name to.
_NAMED = 3


class Row(NamedTuple):
    """One answer, and those who get it."""

    who: str
    kind: str
    """ACCOUNTS: accounts that a rule means. RULE: whom a rule knows by other marks. REST: all other accounts."""
    accounts: tuple[str, ...]
    """Who they are, of those that have an account."""
    meant: int
    """Accounts that the rule's client means; those that are not in `accounts` are excepted or denied."""
    rights: Rights
    rule: Rule | None
    """The rule that gives, or the deny that refuses; None is the default, which refuses."""
    note: str = ""

    @property
    def label(self) -> str:
        """Who, with how many they are."""
        count, of = len(self.accounts), ""
        if self.meant > count:
            of = f" of {self.meant}" + (f": {' '.join(self.accounts)}" if count <= _NAMED else "")
        if self.kind == RULE and not self.accounts:
            return self.who
        if self.who.startswith("user ") and count == self.meant == 1:
            return self.who
        return f"{self.who} ({count}{of})"


class Around(NamedTuple):
    """Accounts that open an object themselves."""

    accounts: tuple[str, ...]
    rights: Rights
    why: str
    """What lets them: root, owner, ACL, a group, everybody."""


class Shown(NamedTuple):
    """An object, and the links to it that may be asked for just as well."""

    seen: Seen
    links: tuple[str, ...] = ()


class Sheet(NamedTuple):
    """Objects of which the same is to be told, and that."""

    objects: tuple[Shown, ...]
    rows: tuple[Row, ...]
    around: tuple[Around, ...]

    @property
    def gives(self) -> bool:
        """Whether somebody gets something through the broker."""
        return any(row.rights for row in self.rows)


class Reaching:
    """Finds the rows of objects for some people, at one time."""

    def __init__(self, policy: Policy, people: Sequence[Somebody], now: float) -> None:
        self._people = people
        peers = [one.peer for one in people]
        self._table = AccessTable(policy, peers, now)
        has_marks = policy.needs_units or policy.needs_exes or policy.needs_labels
        self._strict = AccessTable(policy, of_unknown_marks(people), now) if has_marks else None
        self._accounts = frozenset(number for number, one in enumerate(people) if one.client is None)
        self._meant: dict[Client, frozenset[int]] = {}
        self._around: dict[Way, tuple[Around, ...]] = {}

    def sheets(self, objects: Iterable[Seen]) -> list[Sheet]:
        """The sheets of these objects, in their order; those of which the same is to be told share one."""
        found: dict[object, Sheet] = {}
        for seen in objects:
            sheet = self.sheet(seen)
            key = (
                tuple((*row[:5], row.rule.id if row.rule else "", row.note) for row in sheet.rows),
                sheet.around,
                seen.refusal,
            )
            other = found.get(key)
            found[key] = sheet if other is None else _with(other, seen)
        return list(found.values())

    def sheet(self, seen: Seen) -> Sheet:
        """All rows of one object."""
        around = self._around_of(seen.way) if seen.way is not None else ()
        if seen.refusal:
            return Sheet((Shown(seen),), (), around)
        reaches = self._table.reaches(seen.subject)
        strict = self._strictly(seen)
        rows: list[Row] = []
        denied: _Denied = {}
        grants: dict[tuple[str, int], tuple[Verdict, list[int]]] = {}
        for members, answer in reaches:
            for verdict in answer.grants:
                key = (verdict.rule.id if verdict.rule else "", int(verdict.rights))
                grants.setdefault(key, (verdict, []))[1].extend(members)
            if not answer.grants:
                by = answer.denied_by
                key_of_refusal = (by.id if by else "", answer.hidden)
                denied.setdefault(key_of_refusal, (by, []))[1].extend(members)
        for key in sorted(grants):
            rows += self._granted(*grants[key], strict)
        rows += self._refused_marks(seen, denied)
        return Sheet(
            (Shown(seen),), (*rows, *self._refused_accounts(denied, any(row.rights for row in rows))), around
        )

    def _granted(self, verdict: Verdict, members: list[int], strict: list[Reach] | None) -> list[Row]:
        rule = verdict.rule
        assert rule is not None, "what is given is given by a rule"
        left = dict.fromkeys(sorted(members))
        rows = []
        for client in rule.clients:
            meant = self._meant_by(client)
            own = [one for one in left if one in meant]
            if own:
                left = dict.fromkeys(one for one in left if one not in meant)
                note = MARKS_COUNT if strict and any(not _has(strict[one], verdict) for one in own) else ""
                names = self._names(own)
                rows.append(
                    Row(client_words(client), ACCOUNTS, names, len(meant), verdict.rights, rule, note)
                )
            marked = [one for one in left if self._people[one].client == client]
            rows += self._marked(marked, verdict.rights, rule)
        return rows

    def _meant_by(self, client: Client) -> frozenset[int]:
        known = self._meant.get(client)
        if known is None:
            matching = (one for one in self._accounts if client.certainly_matches(self._people[one].peer))
            known = self._meant[client] = frozenset(matching)
        return known

    def _marked(self, members: Iterable[int], rights: Rights, rule: Rule | None) -> list[Row]:
        by_words: dict[str, list[int]] = {}
        for one in members:
            by_words.setdefault(self._people[one].words, []).append(one)
        return [
            Row(words, RULE, names, len(names), rights, rule)
            for words, ones in by_words.items()
            for names in [self._names(ones)]
        ]

    def _refused_marks(self, seen: Seen, denied: _Denied) -> list[Row]:
        """Whom a rule about the object means by other marks, and who get nothing for a deny."""
        wanted = {
            client
            for rule in self._table.rules_about(seen.subject)
            for client in rule.clients
            if rule.action == ALLOW
        }
        rows = []
        for rule, members in denied.values():
            if rule is not None:
                marked = [one for one in members if self._people[one].client in wanted]
                rows += self._marked(marked, NO_RIGHTS, rule)
        return rows

    def _refused_accounts(self, denied: _Denied, has_others: bool) -> list[Row]:
        rows: list[Row] = []
        for key in sorted(denied, reverse=True):  # the default last
            rule, members = denied[key]
            names = self._names(one for one in members if one in self._accounts)
            if not names:
                continue
            is_last = key == min(denied)
            if is_last:
                who = "everyone else" if has_others or rows else "everyone"
            else:
                who = f"user {' '.join(names)}" if len(names) <= _NAMED else "accounts"
            note = HIDDEN if key[1] else ""
            rows.append(Row(who, REST, names, len(names), NO_RIGHTS, rule, note))
        return rows

    def _names(self, members: Iterable[int]) -> tuple[str, ...]:
        names = (self._people[one].account for one in members)
        return tuple(sorted(name for name in dict.fromkeys(names) if name is not None))

    def _strictly(self, seen: Seen) -> list[Reach] | None:
        """What each gets of whom it is not known what unit, program and label they have."""
        if self._strict is None:
            return None
        found: dict[int, Reach] = {}
        for members, answer in self._strict.reaches(seen.subject):
            found.update(dict.fromkeys(members, answer))
        return [found[number] for number in range(len(self._people))]

    def _around_of(self, way: Way) -> tuple[Around, ...]:
        known = self._around.get(way)
        if known is None:
            known = self._around[way] = around_by(way, [self._people[one] for one in sorted(self._accounts)])
        return known


def _with(sheet: Sheet, seen: Seen) -> Sheet:
    """`sheet` for one more object, or for one more path to one that it has."""
    for place, shown in enumerate(sheet.objects):
        if shown.seen.identities & seen.identities:
            more = shown._replace(links=(*shown.links, seen.subject.path))
            return sheet._replace(objects=(*sheet.objects[:place], more, *sheet.objects[place + 1 :]))
    return sheet._replace(objects=(*sheet.objects, Shown(seen)))


def _has(answer: Reach, verdict: Verdict) -> bool:
    return any(not int(verdict.rights) & ~int(grant.rights) for grant in answer.grants)


def around_by(way: Way, accounts: Iterable[Somebody]) -> tuple[Around, ...]:
    """Those of `accounts` that can open what lies at the end of `way` themselves, by what lets them."""
    found: dict[tuple[int, str, Rights], list[str]] = {}
    for one in accounts:
        uid, gids = one.peer.uid, one.peer.gids
        if uid is None or one.account is None:
            continue
        rights = Rights(0)
        for wanted, right in ((READ, Rights.READ), (WRITE, Rights.WRITE)):
            if way.gives(uid, gids, wanted):
                rights |= right
        if rights:
            place, why = way.node.lets_by(uid, gids or frozenset())
            found.setdefault((place, why, rights), []).append(one.account)
    return tuple(
        Around(tuple(names), rights, why) for (_, why, rights), names in sorted(found.items(), key=_in_order)
    )


def _in_order(item: tuple[tuple[int, str, Rights], list[str]]) -> tuple[int, str, int]:
    (place, why, rights), _ = item
    return place, why, -int(rights)
