"""What each method does: one table from method names to functions. No I/O but the opens themselves.

A call ends in an answer: the bytes of a reply and the fds that ride with it. Opens are counted as grants,
and each decision becomes an audit record before its fd may leave.
"""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import sandboxed
from broker import messages
from broker.answers import (
    INTERFACES,
    SERVICE,
    Answer,
    audit_busy,
    busy,
    errno_name,
    error_answer,
    invalid_parameter,
    refused_result,
    reply_tail,
    service_error,
    unknown,
)
from broker.limits import GRANTS_PER_CONNECTION, PATH_BYTES
from broker.messages import PREFIX, InvalidParameter, OpenParameters
from broker.opener import Opener
from broker.outcome import Outcome, outcome_fields
from broker.plans import Plan, PlanCache, Plans
from broker.records import AuditPipe, AuditUnavailable, RefusalLimit, fields
from broker.version import VERSION
from policy import Peer, Policy, Request, rights_words
from sandboxed.descriptors import close_all


def _description(interface: str) -> str:
    with open(os.path.join(os.path.dirname(sandboxed.__file__), f"{interface}.varlink")) as file:
        return file.read()


# Read when the module is loaded: a confined worker may not open files.
_DESCRIPTIONS = {name: _description(name) for name in INTERFACES}


# What became of one request: its plan, its fd (ours until it is answered), and the outcome; no outcome for an
# object that was decided on before.
Decision = tuple[Plan, int, Outcome | None]


class Client:
    """What the service knows of one connection."""

    __slots__ = ("grants", "number", "open_head", "peer", "peer_fields", "plans", "uid")

    def __init__(self, number: int, peer: Peer, uid: int, shown: dict[str, Any], plans: Plans) -> None:
        self.number = number
        self.peer = peer
        self.uid = uid
        self.peer_fields = fields({"peer": shown})
        self.open_head = b'{"event":"open","connection":%d,' % number + self.peer_fields
        self.plans = plans  # of all connections with this identity
        self.grants: dict[int, str] = {}  # number → path as shown, the oldest first


class Service:
    """Answers calls by one policy."""

    def __init__(self, policy: Policy, opener: Opener, audit: AuditPipe, first_grant: int = 1) -> None:
        """`first_grant` is the number of the first grant: no other worker may have given it."""
        self._policy = policy
        self._opener = opener
        self.audit = audit
        self._grants = itertools.count(first_grant)
        self._plans = PlanCache()
        self.refusals = RefusalLimit(time.monotonic)

    def client(self, number: int, peer: Peer, uid: int, shown: dict[str, Any]) -> Client:
        """A client on the connection of that number. `shown` is what the audit says of its identity."""
        return Client(number, peer, uid, shown, self._plans.of(peer))

    # --- opening -----------------------------------------------------------------------------------------

    def plan(self, client: Client, request: OpenParameters) -> Plan:
        """The plan for a request. Raises InvalidParameter."""
        return Plan(messages.understand(request), client.peer)

    def remember(self, client: Client, message: bytes, plans: Plan | list[Plan]) -> None:
        """Keep the plans for an Open or OpenMany that came as `message`, NUL and all."""
        client.plans = self._plans.remember(client.peer, message, plans)

    def grant_known(self, client: Client, plan: Plan, started: int) -> tuple[bytes, bytes]:
        """Record and reply for an Open whose object was decided on before, and whose fd is open.

        `started` is time.perf_counter_ns() when the call came. The record must be handed over first.
        """
        number = next(self._grants)
        grants = client.grants
        grants[number] = plan.shown
        if len(grants) > GRANTS_PER_CONNECTION:
            _forget_oldest(grants)
        return (
            b'%b%b"grant":"g%d","us":%d}\n'
            % (client.open_head, plan.known_fields, number, (time.perf_counter_ns() - started) // 1000),
            b'{"parameters":{"fileDescriptor":0,"grant":"g%d%b}\0' % (number, plan.reply_tail),
        )

    def answer_known(self, client: Client, record: bytes, reply: bytes, fd: int) -> Answer:
        """The answer, where the record could not be handed over at once."""
        try:
            self.audit.write(record)
        except AuditUnavailable:
            client.grants.popitem()  # the last one, which is not given after all
            close_all((fd,))
            return audit_busy()
        return Answer(reply, (fd,))

    def answer_open(self, client: Client, decision: Decision, started: int) -> Answer:
        """The answer to an Open that was decided the long way. Its record is handed over first."""
        results, fds = self._account_for(client, (decision,), started)
        outcome = decision[2]
        if results is None:
            return audit_busy()
        if fds:
            return Answer(b'{"parameters":%b}\0' % results[0], fds)
        if outcome is None or outcome.verdict == "deny":
            return error_answer("Denied")
        if outcome.verdict == "busy":
            return busy(outcome.reason)
        return error_answer("OpenFailed", errno=outcome.errno, name=errno_name(outcome.errno))

    def answer_open_many(self, client: Client, decisions: Sequence[Decision], started: int) -> Answer:
        """The answer to an OpenMany. All its records are handed over first."""
        results, fds = self._account_for(client, decisions, started)
        if results is None:
            return audit_busy()
        return Answer(b'{"parameters":{"results":[%b]}}\0' % b",".join(results), fds)

    def _account_for(
        self, client: Client, decisions: Sequence[Decision], started: int
    ) -> tuple[list[bytes] | None, list[int]]:
        """Hand the records over, then tell each result, as in OpenMany's reply, and the fds that go with them.

        No results when the records could not be handed over: the fds are closed then, for nothing is passed
        without its record.
        """
        records: list[bytes] = []
        results: list[bytes] = []
        fds: list[int] = []
        grants: dict[int, str] = {}
        numbers, head = self._grants, client.open_head
        microseconds = (time.perf_counter_ns() - started) // 1000
        for plan, fd, outcome in decisions:
            if outcome is not None and outcome.verdict != "allow":
                results.append(refused_result(outcome))
                record = b'%b%b%b"us":%d}\n' % (
                    head,
                    plan.asked_fields,
                    outcome_fields(outcome),
                    microseconds,
                )
                if self.refusals.admits(client.uid, len(record)):
                    records.append(record)
                continue
            number = next(numbers)
            if outcome is None:
                about, tail = plan.known_fields, plan.reply_tail
            else:
                about, tail = plan.asked_fields + outcome_fields(outcome), reply_tail(outcome)
            records.append(b'%b%b"grant":"g%d","us":%d}\n' % (head, about, number, microseconds))
            results.append(b'{"fileDescriptor":%d,"grant":"g%d%b' % (len(fds), number, tail))
            fds.append(fd)
            grants[number] = plan.shown
        try:
            self.audit.write(b"".join(records))
        except AuditUnavailable:
            close_all(fds)
            return None, []
        client.grants.update(grants)
        if len(client.grants) > GRANTS_PER_CONNECTION:
            _forget_oldest(client.grants)
        return results, fds

    # --- records without an fd ---------------------------------------------------------------------------

    def _write(self, client: Client, record: bytes, refused: bool) -> bool:
        return (refused and not self.refusals.admits(client.uid, len(record))) or self._event(record)

    def write_counted_refusals(self) -> None:
        """Write how many refusals were only counted."""
        counts = self.refusals.take_unwritten()
        for uid in list(counts):
            record = _closed({"uid": uid, "count": counts[uid]})
            if not self._event(b'{"event":"refusals-not-written",%b\n' % record):
                break
            del counts[uid]
        self.refusals.put_back(counts)

    def refuse(self, client: Client, reason: str, event: str = "malformed") -> None:
        """Write that a connection is closed for what it sent, or that a call was not served."""
        record = b'{"event":"%b",%b%b\n' % (event.encode(), client.peer_fields, _closed({"reason": reason}))
        self._write(client, record, refused=True)

    def _event(self, record: bytes) -> bool:
        try:
            self.audit.write(record)
        except AuditUnavailable:
            return False
        return True

    # --- the other methods -------------------------------------------------------------------------------

    def call(self, client: Client, method: str, parameters: Any) -> Answer:
        """Answer any method but the two that open."""
        entry = _METHODS.get(method)
        try:
            if entry is None:
                return unknown(method)
            kind, function = entry
            return function(self, client, messages.decode_parameters(parameters, kind))
        except InvalidParameter as error:
            return invalid_parameter(error)

    def _check(self, client: Client, parameters: messages.CheckParameters) -> Answer:
        rights = messages.understand_rights(parameters.access)
        verdict = self._policy.decide(Request(parameters.path, rights), client.peer, None, time.time())
        values: dict[str, Any] = {
            "path": parameters.path[:PATH_BYTES],
            "access": rights_words(rights),
            "verdict": "allow" if verdict.allowed else "deny",
        }
        if verdict.rule is not None:
            values |= {"rule": verdict.rule.id, "at": f"{verdict.rule.file}:{verdict.rule.line}"}
        record = b'{"event":"check",%b%b\n' % (
            client.peer_fields,
            _closed(values | {"reason": verdict.reason}),
        )
        if not self._write(client, record, refused=not verdict.allowed):
            return busy("audit")
        return Answer(messages.encode_reply({"allowed": verdict.allowed}))

    def _release(self, client: Client, parameters: messages.ReleaseParameters) -> Answer:
        number = parameters.grant.removeprefix("g")
        path = (
            client.grants.get(int(number))
            if number.isascii() and number.isdecimal() and len(number) < 20
            else None
        )
        if path is None or parameters.grant != f"g{int(number)}":
            raise InvalidParameter("grant")
        record = b'{"event":"release",%b%b\n' % (
            client.peer_fields,
            _closed({"path": path, "grant": parameters.grant}),
        )
        if not self._event(record):
            return busy("audit")
        del client.grants[int(number)]
        return Answer(messages.encode_reply({}))

    def _describe(self, client: Client, parameters: messages.NoParameters) -> Answer:
        peer = client.peer
        resources = [
            {
                "paths": [pattern.text for pattern in rule.paths],
                "except": [pattern.text for pattern in rule.except_paths],
                "access": rights_words(rule.rights),
                "types": sorted(kind.value for kind in rule.types or ()),
            }
            for rule in self._policy.describe(peer, time.time())
        ]
        shown = {
            "uid": client.uid,
            "users": sorted(peer.user_names or ()),
            "gids": sorted(peer.gids or ()),
            "groups": sorted(peer.group_names or ()),
            "socket": peer.socket,
        }
        return Answer(messages.encode_reply({"peer": shown, "resources": resources}))

    def _get_info(self, client: Client, parameters: messages.NoParameters) -> Answer:
        return Answer(
            messages.encode_reply(
                {
                    "vendor": "fdbroker",
                    "product": "fdbroker",
                    "version": VERSION,
                    "url": "",
                    "interfaces": INTERFACES,
                }
            )
        )

    def _get_description(self, client: Client, parameters: messages.InterfaceParameters) -> Answer:
        if parameters.interface not in INTERFACES:
            return service_error("InterfaceNotFound", interface=parameters.interface)
        return Answer(messages.encode_reply({"description": _DESCRIPTIONS[parameters.interface]}))


_METHODS: dict[str, tuple[type[Any], Callable[[Service, Client, Any], Answer]]] = {
    f"{PREFIX}.Check": (messages.CheckParameters, Service._check),
    f"{PREFIX}.Release": (messages.ReleaseParameters, Service._release),
    f"{PREFIX}.Describe": (messages.NoParameters, Service._describe),
    f"{SERVICE}.GetInfo": (messages.NoParameters, Service._get_info),
    f"{SERVICE}.GetInterfaceDescription": (messages.InterfaceParameters, Service._get_description),
}


def _forget_oldest(grants: dict[int, str]) -> None:
    """Forget half of them at once: a dict is slow at losing its first entry again and again."""
    for number in list(grants)[: GRANTS_PER_CONNECTION // 2]:
        del grants[number]


def _closed(values: dict[str, Any]) -> bytes:
    return fields(values)[:-1] + b"}"
