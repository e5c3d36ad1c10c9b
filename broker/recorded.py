"""Decisions that an audit holds, read back: what was asked, by whom, what was found, and what was answered.

The file may be anybody's: each line is read by itself and checked; one that is no record is counted and passed over.
Nothing that is read is trusted to be short, printable, or a path.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from broker.auditlines import lines_of, moment_of, record_of
from broker.identity import Accounts, IdentityReader
from broker.peers import user_name
from broker.textlines import counted
from policy import DEFAULT_SOCKET, FileType, Object, Peer, Policy, Request, Rights, parse_rights
from policy.devices import DEVICE_TYPES, Device
from policy.replaying import Facts

ALLOW = "allow"
DENY = "deny"
# Allowed, and then the open failed.
FAILED = "failed"
BUSY = "busy"

# Places of lines that are no records, which are told.
_PLACES = 20

# How the decision for want of a rule begins in records that do not say who refused.
_BY_DEFAULT = "no rule gives "
_GONE = " (deleted)"


class Decision(NamedTuple):
    """One record of an open, or of a question by name alone; None is what the record does not hold."""

    line: int
    time: float | None
    verdict: str
    """ALLOW, DENY, FAILED or BUSY."""
    path: str
    needed: Rights
    optional: Rights
    lexical: bool
    """Whether it was asked by name alone."""
    uid: int | None
    gids: frozenset[int] | None
    socket: str
    embedded: bool
    unit: str | None
    exe: str | None
    label: str | None
    resolved: str | None
    type: FileType | None
    device: tuple[int, int] | None
    names: tuple[str, ...]
    names_known: bool
    link: bool | None
    rights: Rights | None
    rule: str | None
    reason: str
    by_broker: bool
    """Whether it was refused whatever a policy says."""

    @property
    def by_default(self) -> bool:
        """Whether it was refused because no rule gave it."""
        return (
            self.verdict == DENY
            and self.rule is None
            and not self.by_broker
            and self.reason.startswith(_BY_DEFAULT)
        )

    @property
    def request(self) -> Request:
        return Request(self.path, self.needed, self.optional)


class Reading:
    """One pass over an audit. What it counts is whole when the last decision was handed out."""

    def __init__(self, name: str) -> None:
        """`name` is a file's, or "-" for standard input."""
        self._name = name
        self.decisions = 0
        self.others = 0
        """Records of other events."""
        self.broken = 0
        """Lines that are no records."""
        self.places: list[int] = []
        """The numbers of the first of those."""
        self.unwritten = 0
        """Refusals that the audit says were counted and not written."""
        self.lost = 0
        """Records that the audit says are missing, because it could not be written."""

    def __iter__(self) -> Iterator[Decision]:
        """Yield the decisions. Raises Unusable where the file cannot be read."""
        for number, line in lines_of(self._name):
            if not line.strip():
                continue
            record = record_of(line)
            decision = None if record is None else decision_of(number, record)
            if decision is not None:
                self.decisions += 1
                yield decision
            elif record is not None and record.get("event") not in ("open", "check"):
                self.others += 1
                count = record.get("count")
                if record.get("event") == "refusals-not-written" and type(count) is int:
                    self.unwritten += count
                if record.get("event") == "records-lost" and type(count) is int:
                    self.lost += count
            else:
                self.broken += 1
                self.places += [number] if len(self.places) < _PLACES else []

    def faults(self) -> list[str]:
        """What the reader of an answer should know of its ground."""
        told = []
        if self.broken:
            more = " and more" if self.broken > len(self.places) else ""
            told.append(
                f"{counted(self.broken, 'line')} passed over, no record: "
                f"line {', '.join(map(str, self.places))}{more}"
            )
        if self.unwritten:
            told.append(f"{self.unwritten} refusals were counted in the audit and not written")
        if self.lost:
            told.append(f"{self.lost} records were lost while the audit could not be written")
        return told


def decision_of(line: int, record: dict[str, Any]) -> Decision | None:
    """The decision that a record holds; None where it holds none, or not what each must."""
    try:
        return _checked(line, record) if record["event"] in ("open", "check") else None
    except (KeyError, TypeError, ValueError):
        return None


def _checked(line: int, record: dict[str, Any]) -> Decision:
    peer = _of(dict, record["peer"])
    verdict = _of(str, record["verdict"])
    if verdict not in (ALLOW, DENY, FAILED, BUSY):
        raise ValueError
    kind = record.get("type")
    device = record.get("device")
    names = [] if record.get("names") is None else _of(list, record["names"])
    given = record.get("rights")
    unit, exe, label = (_maybe(str, peer.get(key)) for key in ("unit", "exe", "label"))
    return Decision(
        line,
        moment_of(record.get("time")),
        verdict,
        _of(str, record["path"]),
        _rights(record["access"]),
        _rights(record.get("optional") or []),
        record["event"] == "check",
        _maybe(int, peer.get("uid")),
        None if peer.get("gids") is None else frozenset(_of(int, one) for one in _of(list, peer["gids"])),
        _of(str, peer.get("socket") or DEFAULT_SOCKET),
        peer.get("embedded") is True,
        unit,
        None if exe is None or exe.endswith(_GONE) else exe,
        label,
        _maybe(str, record.get("resolved")),
        None if kind is None else FileType(kind),
        None if device is None else _number(_of(str, device)),
        tuple(_of(str, one) for one in names if one is not None),
        # Records say of what type an object is since they tell its names.
        kind is not None and None not in names,
        record.get("link") is True if kind is not None else None,
        None if given is None else _rights(given),
        _maybe(str, record.get("rule")),
        _of(str, record.get("reason") or ""),
        record.get("by") == "broker",
    )


def _of(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _maybe(kind: type[Any], value: Any) -> Any:
    return None if value is None else _of(kind, value)


def _rights(words: Any) -> Rights:
    return parse_rights(_of(str, word) for word in _of(list, words))


def _number(text: str) -> tuple[int, int]:
    major, minor = text.split(":")
    return int(major), int(minor)


class Recall:
    """Makes of a record what a policy takes: facts that it holds, and of its uid what the account database says now."""

    def __init__(self, policy: Policy, accounts: bool = True) -> None:
        """Without `accounts` nothing is looked up: what names of users and groups stand for is not known then."""
        known = Accounts(policy)
        known.needs_accounts = known.needs_account_groups = True
        self._reader = IdentityReader(known) if accounts else None

    def close(self) -> None:
        """Close what is held for looking accounts up."""
        if self._reader is not None:
            self._reader.close()

    def facts(self, decision: Decision) -> Facts:
        """What is known of the request."""
        found = None
        if decision.resolved is not None:
            device = None if decision.device is None else Device(decision.device)
            kind = decision.type
            if kind is None and device is None:
                device = Device()
            found = Object(
                decision.resolved,
                kind,
                decision.names,
                bool(decision.link),
                device if kind is None or kind in DEVICE_TYPES else None,
            )
        return Facts(
            decision.request,
            self._peer(decision),
            None if decision.lexical else found,
            decision.names_known,
            decision.link is not None,
            decision.lexical,
            decision.time,
        )

    def _peer(self, decision: Decision) -> Peer:
        peer = Peer(
            decision.uid, None, decision.gids, None, None, None, None, owner_names=None, owner_uids=None
        )
        if self._reader is not None and decision.uid is not None and 0 <= decision.uid < 2**32 - 1:
            gids = decision.gids
            known = self._reader.peer(decision.uid, gids or frozenset(), decision.socket, decision.embedded)
            # To show who it is: a name more than the policy has changes no verdict.
            named = known
            if known.user_names is not None:
                named = known._replace(user_names=known.user_names | {user_name(decision.uid)})
            peer = named if gids is not None else named._replace(gids=None, group_names=None)
        return peer._replace(
            socket=decision.socket,
            embedded=decision.embedded,
            unit=decision.unit,
            exe=decision.exe,
            label=decision.label,
        )
