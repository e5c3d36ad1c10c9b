"""Which decisions of an audit another policy would change, grouped."""

from collections.abc import Iterable
from typing import NamedTuple

from broker.recorded import ALLOW, BUSY, DENY, FAILED, Decision, Recall
from policy import ALLOW as POLICY_ALLOW
from policy import FileType, Policy, Rights, Rule, rights_words
from policy.clientwords import listed
from policy.explain import explain
from policy.keeping import given_rights
from policy.replaying import DENIED, NOT_KNOWN, Facts, Judgement, judged
from policy.words import with_implied

GIVEN = "given"
REFUSED = "refused"
RIGHTS = "other rights"
UNKNOWN = "not known"
CHANGES = (GIVEN, REFUSED, RIGHTS, UNKNOWN)

# Different groups that are kept, and answers that are remembered.
GROUPS = 100_000
_KEPT = 100_000


class Group(NamedTuple):
    """Like decisions that would change alike."""

    change: str
    """GIVEN: refused then, given by the new policy. REFUSED: the other way round. RIGHTS: given with other ones.
    UNKNOWN: what the record holds does not tell."""
    sample: Decision
    was: str
    would: str
    times: int
    first: float | None
    last: float | None


class Replay(NamedTuple):
    """What came of an audit."""

    decisions: int
    unchanged: int
    undecided: int
    """Decisions that no policy made: a limit answered."""
    groups: tuple[Group, ...]
    dropped: int
    """Decisions that would change in groups beyond GROUPS."""


class _Answer(NamedTuple):
    change: str | None
    was: str
    would: str


class Replayer:
    """Holds decisions against one policy."""

    def __init__(self, policy: Policy, recall: Recall) -> None:
        self._policy = policy
        # What this version cannot give, a rule does not give, whatever it says.
        self._rules = [
            rule._replace(rights=given_rights(rule)) if rule.action == POLICY_ALLOW else rule
            for rule in policy.rules
        ]
        self._recall = recall
        self._known: dict[object, _Answer] = {}

    def replay(self, decisions: Iterable[Decision]) -> Replay:
        """Return what would change."""
        groups: dict[object, Group] = {}
        count = unchanged = undecided = dropped = 0
        for decision in decisions:
            count += 1
            if decision.verdict == BUSY:
                undecided += 1
                continue
            answer = self._answer(decision)
            if answer.change is None:
                unchanged += 1
                continue
            key = (*answer, decision.uid, decision.unit, decision.path, decision.needed, decision.optional)
            group = groups.get(key)
            if group is not None:
                groups[key] = _with(group, decision.time)
            elif len(groups) < GROUPS:
                groups[key] = Group(
                    answer.change, decision, answer.was, answer.would, 1, decision.time, decision.time
                )
            else:
                dropped += 1
        ordered = sorted(
            groups.values(), key=lambda one: (CHANGES.index(one.change), -one.times, one.sample.line)
        )
        return Replay(count, unchanged, undecided, tuple(ordered), dropped)

    def _answer(self, decision: Decision) -> _Answer:
        now = decision.time
        span = None if now is None else self._policy.same_around(now)
        key = decision._replace(line=0, time=None), span
        answer = self._known.get(key)
        if answer is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            answer = self._known[key] = self._judged(decision)
        return answer

    def _judged(self, decision: Decision) -> _Answer:
        facts = self._recall.facts(decision)
        judgement = judged(self._rules, facts)
        was = _was(decision)
        if decision.verdict == DENY:
            return self._after_refusal(decision, facts, judgement, was)
        if judgement.answer == DENIED:
            return _Answer(REFUSED, was, self._why_denied(facts, judgement))
        if judgement.answer == NOT_KNOWN:
            return _Answer(UNKNOWN, was, _why_unknown(facts, judgement))
        if decision.verdict == FAILED or decision.rights is None:
            return _Answer(None, was, "")
        return _rights_answer(decision, judgement, was)

    def _after_refusal(self, decision: Decision, facts: Facts, judgement: Judgement, was: str) -> _Answer:
        # Of a directory nothing but its names is ever given.
        stays = decision.by_broker or (
            decision.type is FileType.DIRECTORY and Rights.LIST not in decision.needed
        )
        if judgement.answer == DENIED or stays:
            return _Answer(None, was, "")
        if judgement.answer == NOT_KNOWN:
            return _Answer(UNKNOWN, was, _why_unknown(facts, judgement))
        if decision.rule is None and not decision.by_default and not decision.lexical:
            return _Answer(UNKNOWN, was, f"its rules allow it; the broker refused: {decision.reason}")
        return _Answer(GIVEN, was, _given_words(judgement.rule, None))

    def _why_denied(self, facts: Facts, judgement: Judgement) -> str:
        if judgement.rule is not None:
            return f"denied by {judgement.rule.id} {judgement.rule.file}:{judgement.rule.line}"
        found = explain(self._policy, facts.request, facts.peer, facts.object, facts.now)
        if not found.near:
            return "denied by default: no rule names it"
        near = found.near[0]
        miss = near.misses[0]
        return f"denied by default: {near.rule.id} {miss.condition}: {miss.how}"


def _rights_answer(decision: Decision, judgement: Judgement, was: str) -> _Answer:
    given = with_implied(int(decision.rights or 0))
    if judgement.rights is None:
        if decision.optional:
            return _Answer(UNKNOWN, was, "allowed; which of the optional rights is not known")
        return _Answer(None, was, "")
    if given == int(judgement.rights):
        return _Answer(None, was, "")
    return _Answer(RIGHTS, was, _given_words(judgement.rule, judgement.rights))


def _was(decision: Decision) -> str:
    if decision.verdict in (ALLOW, FAILED):
        by = f" by {decision.rule}" if decision.rule else ""
        rights = f" {'+'.join(rights_words(decision.rights))}" if decision.rights else ""
        failed = ", and failed" if decision.verdict == FAILED else ""
        return f"allowed{rights}{by}{failed}"
    if decision.rule is not None:
        return f"denied by {decision.rule}"
    return "denied by default" if decision.by_default else f"denied: {decision.reason}"


def _given_words(rule: Rule | None, rights: Rights | None) -> str:
    given = f" {'+'.join(rights_words(rights))}" if rights is not None else ""
    by = f" by {rule.id} {rule.file}:{rule.line}" if rule is not None else ""
    return f"allowed{given}{by}"


def _why_unknown(facts: Facts, judgement: Judgement) -> str:
    rules = judgement.open_rules
    missing = list(dict.fromkeys(what for rule in rules for what in _missing(rule, facts)))
    why = f": {', '.join(missing)}" if missing else ""
    return f"not known: it depends on {listed([rule.id for rule in rules])}, and the record lacks facts{why}"


def _missing(rule: Rule, facts: Facts) -> Iterable[str]:
    peer, found = facts.peer, facts.object
    clients = rule.clients + rule.except_clients
    known = {
        "users": (peer.user_names, "what the user's name was"),
        "uids": (peer.uid, "the uid"),
        "groups": (peer.group_names, "the groups"),
        "gids": (peer.gids, "the groups"),
        "units": (peer.unit, "the unit"),
        "exes": (peer.exe, "the program"),
        "labels": (peer.label, "the label"),
    }
    for field, (fact, words) in known.items():
        if fact is None and any(getattr(client, field) is not None for client in clients):
            yield words
    if any(client.any_account for client in clients) and peer.has_account is None:
        yield "whether there is an account"
    if rule.until is not None and facts.now is None:
        yield "the time"
    if facts.lexical:
        return
    if found is None:
        yield "what the path leads to"
        return
    if found.type is None:
        yield "the type of the object"
    if not facts.names_known and (rule.paths or rule.except_paths):
        yield "its other names"
    if rule.device is not None or rule.devices is not None or rule.except_devices:
        yield "the device's properties"
    if any(pattern.variables for pattern in rule.paths + rule.except_paths):
        yield "what a variable stands for"


def _with(group: Group, time: float | None) -> Group:
    times = [one for one in (group.first, group.last, time) if one is not None]
    return group._replace(
        times=group.times + 1, first=min(times, default=None), last=max(times, default=None)
    )
