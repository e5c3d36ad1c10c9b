"""What each method does: one table from method names to functions. No I/O but the opens themselves.

A call ends in an answer: the bytes of a reply and the fds that ride with it. Opens are counted as grants,
and each decision becomes an audit record before its fd may leave.
"""

import errno
import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sandboxed

from broker import messages
from broker.limits import GRANTS_PER_CONNECTION, PEERS, PLANS_PER_PEER
from broker.messages import PREFIX, Asked, InvalidParameter
from broker.opener import Opener, Outcome, Plan, outcome_fields, reply_tail
from broker.records import AuditPipe, AuditUnavailable, RefusalLimit, fields
from broker.version import VERSION
from policy import Peer, Policy, Request, rights_words
from sandboxed.descriptors import close_all

_SERVICE = "org.varlink.service"
_INTERFACES = (PREFIX, _SERVICE)

# Read when the module is loaded: a confined worker may not open files.
_DESCRIPTIONS = {
    name: (Path(sandboxed.__file__).parent / f"{name}.varlink").read_text() for name in _INTERFACES
}


class Answer(NamedTuple):
    """A reply with its NUL, and the fds that ride with it, which belong to the receiver of the answer."""

    data: bytes
    fds: tuple[int, ...] = ()


class Decided(NamedTuple):
    """A decision that still has to be recorded, and then told."""

    record: bytes                       # empty for a refusal that is only counted
    result: bytes                       # as in OpenMany's results; empty for a refusal
    fd: int
    number: int                         # of the grant, 0 for none
    path: str
    refusal: Outcome | None = None


class Client:
    """What the service knows of one connection."""

    __slots__ = ("grants", "number", "peer", "peer_fields", "plans", "uid")

    def __init__(self, number: int, peer: Peer, uid: int, shown: dict[str, Any], plans: dict[Hashable, Plan]) -> None:
        self.number = number
        self.peer = peer
        self.uid = uid
        self.peer_fields = fields({"peer": shown})
        self.plans = plans                   # of all connections with this identity
        self.grants: dict[int, str] = {}     # number → path


class Service:
    """Answers calls by one policy."""

    def __init__(self, policy: Policy, opener: Opener, audit: AuditPipe) -> None:
        self._policy = policy
        self._opener = opener
        self._audit = audit
        self._grants = itertools.count(1)
        self._connections = itertools.count(1)
        self._plans: dict[Peer, dict[Hashable, Plan]] = {}
        self.refusals = RefusalLimit(time.monotonic)

    def client(self, peer: Peer, uid: int, shown: dict[str, Any]) -> Client:
        """A client that has just connected. `shown` is what the audit says of its identity."""
        if len(self._plans) >= PEERS and peer not in self._plans:
            self._plans.clear()
        return Client(next(self._connections), peer, uid, shown, self._plans.setdefault(peer, {}))

    # --- opening -----------------------------------------------------------------------------------------

    def plan(self, client: Client, asked: Asked, key: Hashable) -> Plan:
        """The plan for a request, remembered under `key`."""
        plan = Plan(asked, client.peer)
        if len(client.plans) >= PLANS_PER_PEER:
            client.plans.clear()
        client.plans[key] = plan
        return plan

    def decide_known(self, client: Client, plan: Plan, place: int, started: int) -> Decided | None:
        """The short way: an object that was decided on before. None when the long way must be gone.

        `place` is the index that the fd has in the reply, `started` time.perf_counter_ns() when the call came.
        """
        fd = self._opener.open_known(plan)
        if fd < 0:
            return None
        number = next(self._grants)
        return Decided(
            b'{"event":"open",%b%b%b"grant":"g%d","us":%d}\n' % (
                client.peer_fields, plan.asked_fields, plan.outcome_fields, number,
                (time.perf_counter_ns() - started) // 1000),
            b'{"fileDescriptor":%d,"grant":"g%d%b' % (place, number, plan.reply_tail), fd, number, plan.asked.path)

    def decide(self, client: Client, plan: Plan, outcome: Outcome, place: int, started: int) -> Decided:
        """The same for what was decided the long way."""
        number = next(self._grants) if outcome.verdict == "allow" else 0
        grant = b'"grant":"g%d",' % number if number else b""
        record = b'{"event":"open",%b%b%b%b"us":%d}\n' % (
            client.peer_fields, plan.asked_fields, outcome_fields(outcome), grant,
            (time.perf_counter_ns() - started) // 1000)
        if number:
            result = b'{"fileDescriptor":%d,"grant":"g%d%b' % (place, number, reply_tail(outcome))
            return Decided(record, result, outcome.fd, number, plan.asked.path)
        if not self.refusals.admits(client.uid):
            record = b""
        return Decided(record, b"", -1, 0, "", outcome)

    def answer_open(self, client: Client, decided: Decided) -> Answer:
        """The answer to an Open. The record is handed over first."""
        if not self._hand_over(client, (decided,)):
            return _busy("audit")
        if decided.fd >= 0:
            return Answer(b'{"parameters":%b}\0' % decided.result, (decided.fd,))
        outcome = decided.refusal
        if outcome is None or outcome.verdict == "deny":
            return _error("Denied")
        if outcome.verdict == "busy":
            return _busy(outcome.reason)
        return _error("OpenFailed", errno=outcome.errno, name=_errno_name(outcome.errno))

    def answer_open_many(self, client: Client, decided: Sequence[Decided]) -> Answer:
        """The answer to an OpenMany. All records are handed over first."""
        if not self._hand_over(client, decided):
            return _busy("audit")
        results = b",".join([one.result or _failed_result(one.refusal) for one in decided])
        return Answer(b'{"parameters":{"results":[%b]}}\0' % results, tuple(one.fd for one in decided if one.fd >= 0))

    def _hand_over(self, client: Client, decided: Sequence[Decided]) -> bool:
        """Hand the records over; when that cannot be done, close the fds: nothing is passed without its record."""
        try:
            self._audit.write(b"".join([one.record for one in decided]))
        except AuditUnavailable:
            close_all([one.fd for one in decided if one.fd >= 0])
            return False
        grants = client.grants
        for one in decided:
            if one.number:
                if len(grants) >= GRANTS_PER_CONNECTION:
                    del grants[next(iter(grants))]
                grants[one.number] = one.path
        return True

    # --- records without an fd ---------------------------------------------------------------------------

    def _write(self, client: Client, record: bytes, refused: bool) -> bool:
        return (refused and not self.refusals.admits(client.uid)) or self._event(record)

    def write_counted_refusals(self) -> None:
        """Write how many refusals were only counted."""
        for uid, count in self.refusals.take_unwritten().items():
            self._event(b'{"event":"refusals-not-written",%b\n' % _closed({"uid": uid, "count": count}))

    def refuse(self, client: Client, reason: str) -> None:
        """Write that a connection is closed for what it sent."""
        record = b'{"event":"malformed",%b%b\n' % (client.peer_fields, _closed({"reason": reason}))
        self._write(client, record, refused=True)

    def _event(self, record: bytes) -> bool:
        try:
            self._audit.write(record)
        except AuditUnavailable:
            return False
        return True

    # --- the other methods -------------------------------------------------------------------------------

    def call(self, client: Client, method: str, parameters: Any) -> Answer:
        """Answer any method but the two that open."""
        entry = _METHODS.get(method)
        try:
            if entry is None:
                return _unknown(method)
            kind, function = entry
            return function(self, client, messages.decode_parameters(parameters, kind))
        except InvalidParameter as error:
            return invalid_parameter(error)

    def _check(self, client: Client, parameters: messages.CheckParameters) -> Answer:
        rights = messages.understand_rights(parameters.access)
        verdict = self._policy.decide(Request(parameters.path, rights), client.peer, None)
        values: dict[str, Any] = {"path": parameters.path, "access": rights_words(rights),
                                  "verdict": "allow" if verdict.allowed else "deny"}
        if verdict.rule is not None:
            values |= {"rule": verdict.rule.id, "at": f"{verdict.rule.file}:{verdict.rule.line}"}
        record = b'{"event":"check",%b%b\n' % (client.peer_fields, _closed(values | {"reason": verdict.reason}))
        if not self._write(client, record, refused=not verdict.allowed):
            return _busy("audit")
        return Answer(messages.encode_reply({"allowed": verdict.allowed}))

    def _release(self, client: Client, parameters: messages.ReleaseParameters) -> Answer:
        number = parameters.grant.removeprefix("g")
        path = client.grants.get(int(number)) if number.isascii() and number.isdecimal() and len(number) < 20 else None
        if path is None or parameters.grant != f"g{int(number)}":
            raise InvalidParameter("grant")
        record = b'{"event":"release",%b%b\n' % (
            client.peer_fields, _closed({"path": path, "grant": parameters.grant}))
        if not self._event(record):
            return _busy("audit")
        del client.grants[int(number)]
        return Answer(messages.encode_reply({}))

    def _describe(self, client: Client, parameters: messages.NoParameters) -> Answer:
        peer = client.peer
        resources = [
            {
                "paths": [str(pattern) for pattern in rule.paths],
                "except": [str(pattern) for pattern in rule.except_paths],
                "access": rights_words(rule.rights),
                "types": sorted(kind.value for kind in rule.types or ()),
            }
            for rule in self._policy.describe(peer)
        ]
        shown = {"uid": client.uid, "users": sorted(peer.user_names or ()), "gids": sorted(peer.gids or ()),
                 "groups": sorted(peer.group_names or ()), "socket": peer.socket}
        return Answer(messages.encode_reply({"peer": shown, "resources": resources}))

    def _get_info(self, client: Client, parameters: messages.NoParameters) -> Answer:
        return Answer(messages.encode_reply({
            "vendor": "fdbroker", "product": "fdbroker", "version": VERSION, "url": "", "interfaces": _INTERFACES}))

    def _get_description(self, client: Client, parameters: messages.InterfaceParameters) -> Answer:
        if parameters.interface not in _INTERFACES:
            return _service_error("InterfaceNotFound", interface=parameters.interface)
        return Answer(messages.encode_reply({"description": _DESCRIPTIONS[parameters.interface]}))


_METHODS: dict[str, tuple[type[Any], Callable[[Service, Client, Any], Answer]]] = {
    f"{PREFIX}.Check": (messages.CheckParameters, Service._check),
    f"{PREFIX}.Release": (messages.ReleaseParameters, Service._release),
    f"{PREFIX}.Describe": (messages.NoParameters, Service._describe),
    f"{_SERVICE}.GetInfo": (messages.NoParameters, Service._get_info),
    f"{_SERVICE}.GetInterfaceDescription": (messages.InterfaceParameters, Service._get_description),
}


def invalid_parameter(error: InvalidParameter) -> Answer:
    """The answer to a call whose parameter is not what the method takes."""
    return _service_error("InvalidParameter", parameter=error.name)


def not_implemented(method: str) -> Answer:
    """The answer to a call in a way that this service does not offer."""
    return _service_error("MethodNotImplemented", method=method)


def send_failed() -> Answer:
    """The answer instead of one whose fds the kernel would not carry."""
    return _busy("file descriptors in flight")


def _unknown(method: str) -> Answer:
    interface = method.rpartition(".")[0]
    if interface in _INTERFACES:
        return _service_error("MethodNotFound", method=method)
    return _service_error("InterfaceNotFound", interface=interface)


def _error(name: str, **parameters: Any) -> Answer:
    return Answer(messages.encode_error(f"{PREFIX}.{name}", parameters))


def _service_error(name: str, **parameters: Any) -> Answer:
    return Answer(messages.encode_error(f"{_SERVICE}.{name}", parameters))


def _busy(limit: str) -> Answer:
    return _error("Busy", limit=limit)


def _failed_result(outcome: Outcome | None) -> bytes:
    if outcome is None or outcome.verdict == "deny":
        return b'{"error":"%b.Denied"}' % PREFIX.encode()
    if outcome.verdict == "busy":
        return b'{"error":"%b.Busy"}' % PREFIX.encode()
    return b'{"error":"%b.OpenFailed","errno":%d}' % (PREFIX.encode(), outcome.errno)


def _closed(values: dict[str, Any]) -> bytes:
    return fields(values)[:-1] + b"}"


def _errno_name(number: int) -> str:
    return errno.errorcode.get(number, str(number))
