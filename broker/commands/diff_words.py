"""A difference of policies as text for a terminal, and as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from broker.commands.rule_words import clients_words, objects_words
from broker.onmachine import Settled
from broker.textlines import columns, counted, printable_line
from policy import DEFAULT_SOCKET, Peer, Rule, rights_words
from policy.clientwords import listed
from policy.diff import BY_RULES, NOT_DECIDED, SOCKET, TERMS, Gain
from policy.termwords import rule_terms
from policy.witnesses import Witness

ON_THIS_MACHINE = "on this machine"

_SHOWN = 3


class Line(NamedTuple):
    """What one rule, or what several by other names of their objects, give or gave more."""

    gains: tuple[Gain, ...]
    settled: Settled | None
    """What the machine says, where the rules left it open and it was asked."""

    @property
    def basis(self) -> str:
        """BY_RULES, ON_THIS_MACHINE or NOT_DECIDED."""
        if self.gains[0].basis == BY_RULES:
            return BY_RULES
        return NOT_DECIDED if self.settled is None or self.settled.differs is None else ON_THIS_MACHINE

    @property
    def differs(self) -> bool:
        """Whether it is a difference, or may be one."""
        return self.settled is None or self.settled.differs is not False


def lines_of(pairs: Iterable[tuple[Gain, Settled | None]]) -> list[Line]:
    """One line for each gain; those that are open for the sake of the same denies share one."""
    together: dict[tuple[str, ...], list[tuple[Gain, Settled | None]]] = {}
    for number, (gain, settled) in enumerate(pairs):
        is_open = settled is None or settled.differs is None
        same = gain.by_names_alone and gain.basis == NOT_DECIDED and is_open and gain.denies
        key = tuple(deny.id for deny in gain.denies) if same else (str(number), "")
        together.setdefault(key, []).append((gain, settled))
    return [Line(tuple(gain for gain, _ in some), some[0][1]) for some in together.values()]


def as_text(granted: Sequence[Line], taken: Sequence[Line], digests: tuple[str, str], offline: bool) -> str:
    """Lines of what is granted (+) and taken (-), each with the reason below it; no name can break one."""
    shown = [("+", line) for line in granted if line.differs] + [
        ("-", line) for line in taken if line.differs
    ]
    open_lines = sum(line.basis == NOT_DECIDED for _, line in shown)
    head = (
        f"{sum(sign == '+' for sign, _ in shown)} granted, {sum(sign == '-' for sign, _ in shown)} taken"
        if shown
        else "no difference"
    )
    not_decided = f", {open_lines} of them not decided" if open_lines else ""
    lines = [f"{head}{not_decided}    policy {digests[0]} -> {digests[1]}"]
    rows = [[_sign(sign, line), *_columns(line)] for sign, line in shown]
    table = columns([["", "WHO", "RIGHTS", "WHAT", "TERMS", "RULE"], *rows]) if rows else []
    lines += table[:1]
    for row, (_, line) in zip(table[1:], shown, strict=True):
        lines += [row, *(f"    {reason}" for reason in _reasons(line))]
    equal = [line for line in [*granted, *taken] if not line.differs]
    if equal:
        rules = [gain.rule.id for line in equal for gain in line.gains if gain.rule is not None]
        lines.append(f"no difference on this machine: {listed(list(dict.fromkeys(rules)))}")
    if offline and open_lines:
        lines.append("without --offline this machine's users and nodes would be asked as well")
    return "\n".join(map(printable_line, lines))


def _sign(sign: str, line: Line) -> str:
    return f"{sign}?" if line.basis == NOT_DECIDED else sign


def _columns(line: Line) -> list[str]:
    first = line.gains[0]
    if first.kind == SOCKET:
        return [f"whoever can open socket {first.socket}", "connect", "", "", ""]
    rules = [gain.rule for gain in line.gains if gain.rule is not None]
    if len(rules) > 1:
        who = listed(list(dict.fromkeys(clients_words(rule) for rule in rules)))
        return [who, "", f"what {len(rules)} rules give", "", listed([rule.id for rule in rules])]
    rule = rules[0]
    return [
        clients_words(rule),
        " ".join(rights_words(first.rights)),
        objects_words(rule),
        " ".join(rule_terms(rule)) or "-",
        f"{rule.id} {rule.file}:{rule.line}",
    ]


def _reasons(line: Line) -> list[str]:
    gain = line.gains[0]
    reasons = [f"{_basis_words(line)}: {_why(gain)}"]
    example = gain.example or (line.settled.example if line.settled else None)
    if example is not None:
        reasons.append(f"for example {example_words(example)}")
    return reasons


def _basis_words(line: Line) -> str:
    settled = line.settled
    if line.basis == ON_THIS_MACHINE and settled is not None:
        users, objects = settled.users, settled.objects
        return (
            f"{ON_THIS_MACHINE}, {counted(len(users), 'user')} ({listed(users[:_SHOWN])}) and "
            f"{counted(len(objects), 'object')} ({listed(objects[:_SHOWN])})"
        )
    if line.basis == NOT_DECIDED and settled is not None:
        return f"{NOT_DECIDED}, {settled.why}"
    return line.basis


def _why(gain: Gain) -> str:
    if gain.kind in (TERMS, SOCKET):
        return "; ".join(gain.terms)
    whys = []
    if gain.denies:
        by = listed([deny.id for deny in gain.denies])
        how = " by another name of the object (a link, a hard link) alone" if gain.by_names_alone else ""
        whys.append(f"no longer refused by {by}{how}")
    elif gain.by_names_alone:
        whys.append(
            "exceptions are gone that it can meet by another name of the object (a link, a hard link) alone"
        )
    if any(int(gain.rights) & ~int(one.rights) == 0 for one in gain.before):
        return "; ".join(whys)
    if gain.before:
        gave = [f"{'+'.join(rights_words(one.rights & gain.rights))} by {one.id}" for one in gain.before]
        whys.append(f"the other policy gives no more than {listed(gave)}")
    elif not gain.by_names_alone:
        whys.append("no one rule of the other policy gives all of it")
    return "; ".join(whys)


def example_words(example: Witness) -> str:
    """A request in one line."""
    request, peer, found, _ = example
    leads = f" -> {found.path}" if found.path != request.path else ""
    kind = f" ({found.type.value})" if found.type else ""
    return f"{'+'.join(rights_words(request.needed))} of {request.path}{leads}{kind} for {_somebody(peer)}"


def _somebody(peer: Peer) -> str:
    names = "".join(f" {name}" for name in sorted(peer.user_names or ()))
    parts = [f"uid {peer.uid}{names}"]
    groups = [
        *sorted(peer.group_names or ()),
        *([] if peer.group_names else map(str, sorted(peer.gids or ()))),
    ]
    parts += [f"groups {listed(groups)}"] if groups else []
    parts += [f"socket {peer.socket}"] if peer.socket != DEFAULT_SOCKET else []
    parts += [f"unit {peer.unit}"] if peer.unit else []
    return ", ".join(parts)


def as_json(granted: Sequence[Line], taken: Sequence[Line], digests: tuple[str, str]) -> dict[str, Any]:
    """Everything, for one JSON object."""
    return {
        "old": digests[0],
        "new": digests[1],
        "granted": [_line_json(line) for line in granted if line.differs],
        "taken": [_line_json(line) for line in taken if line.differs],
        "same_on_this_machine": [
            gain.rule.id
            for line in [*granted, *taken]
            if not line.differs
            for gain in line.gains
            if gain.rule is not None
        ],
    }


def _line_json(line: Line) -> dict[str, Any]:
    gain, settled = line.gains[0], line.settled
    example = gain.example or (settled.example if settled else None)
    return {
        "kind": gain.kind,
        "decided": line.basis,
        "rules": [_rule_json(one.rule) for one in line.gains if one.rule is not None],
        "socket": gain.socket or None,
        "rights": rights_words(gain.rights),
        "terms": list(gain.terms),
        "before": [_given_json(one, gain) for one in gain.before] if len(line.gains) == 1 else [],
        "no_longer_refused_by": [one.id for one in gain.denies],
        "by_another_name_alone": gain.by_names_alone,
        "reason": _why(gain),
        "users": list(settled.users) if settled else [],
        "objects": list(settled.objects) if settled else [],
        "not_decided": settled.why if settled and settled.why else None,
        "example": _example_json(example),
    }


def _rule_json(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "file": rule.file,
        "line": rule.line,
        "who": clients_words(rule),
        "what": objects_words(rule),
        "terms": " ".join(rule_terms(rule)),
    }


def _given_json(rule: Rule, gain: Gain) -> dict[str, Any]:
    return {"rule": rule.id, "rights": rights_words(rule.rights & gain.rights)}


def _example_json(example: Witness | None) -> dict[str, Any] | None:
    if example is None:
        return None
    request, peer, found, now = example
    return {
        "path": request.path,
        "access": rights_words(request.needed),
        "object": found.path,
        "type": found.type.value if found.type else None,
        "peer": {
            key: sorted(value) if isinstance(value, frozenset) else value
            for key, value in peer._asdict().items()
        },
        "time": now,
    }
