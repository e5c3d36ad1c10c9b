"""The tests that a policy's files hold: a client, an object, what is asked for, and what shall come of it.

All facts stand in the test, the time too, so it needs no machine with such users and devices, and comes out tomorrow
as it does today. What it does not say is unknown, and so never widens (`testfacts`).

Imported by those who run the tests alone: a broker that serves passes over them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from . import fields
from .clients import DEFAULT_SOCKET, Peer
from .declarations import Named, Watch
from .described import about, described
from .load import PolicySet, load_set
from .nodes import Mapping as MappingNode
from .nodes import Node
from .problems import FileReport, PolicyError, Position, Report, did_you_mean
from .rules import ALLOW, DENY, Object, Request, Source
from .testfacts import read_client, read_object
from .tiers import counting, rule_id
from .words import NO_RIGHTS, RIGHT_WORDS, Rights


class PolicyTest(NamedTuple):
    """One test, ready to be run."""

    position: Position
    tier: int
    """That of its file."""
    request: Request
    peer: Peer
    object: Object
    now: float | None
    """The moment, in seconds since 1970; None: not known, so that no rule that ends allows, and each denies."""
    allowed: bool
    """What is expected."""
    rule: str | None
    """The id of the rule that shall decide; None: whichever does."""
    rights: Rights | None
    """The rights that shall be granted; None: whichever are."""


class _Declared(NamedTuple):
    """A test whose names are not resolved yet."""

    test: PolicyTest
    rule: Named | None
    socket: Named | None


def load_with_tests(
    sources: Iterable[Source], watch: Watch | None = None
) -> tuple[PolicySet, tuple[PolicyTest, ...]]:
    """Return what load_set() does, and the tests of its files, by tier and file; `watch` is load_set()'s.

    Raises PolicyError with all problems of both; names in the tests are resolved when there are no others.
    """
    files, _ = counting(sources)
    tiers = {source.name: source.tier for source in files}
    declared: list[_Declared] = []

    def read(node: Node, report: FileReport) -> None:
        test = _read(node, tiers[report.file], report)
        if test is not None:
            declared.append(test)

    loaded = load_set(files, read, watch)
    report = Report()
    resolver = _Resolver(loaded, report)
    tests = tuple(resolver.resolved(test) for test in declared)
    if report.problems:
        raise PolicyError(report.problems)
    return loaded, tests


class _Resolver:
    """Finds the rules and sockets that tests name."""

    def __init__(self, loaded: PolicySet, report: Report) -> None:
        self._report = report
        self._sockets = loaded.policy.sockets
        self._actions = {rule.id: rule.action for rule in loaded.policy.rules}
        self._masked = {rule.id for rule in loaded.masked}

    def resolved(self, declared: _Declared) -> PolicyTest:
        test, rule, socket = declared
        if socket is not None and socket.text != DEFAULT_SOCKET and socket.text not in self._sockets:
            near = did_you_mean(self._sockets, socket.text)
            self._tell(socket, f"unknown socket {socket.text!r}, expected one that is declared{near}")
        if rule is None:
            return test
        # A rule of the same file by its name, any other by its id.
        id = rule.text if "/" in rule.text else rule_id(rule)
        action, expected = self._actions.get(id), ALLOW if test.allowed else DENY
        if action is None:
            # A rule that a higher tier masked was there for whoever wrote the test: it fails, and says why.
            if id not in self._masked:
                near = did_you_mean(self._as_named(rule), rule.text)
                self._tell(rule, f"unknown rule {id!r}, expected one that is declared{near}")
        elif action != expected:
            article = "an" if action == ALLOW else "a"
            self._tell(rule, f"rule {id!r} is {article} {action}, expected one to {expected}")
        return test._replace(rule=id)

    def _as_named(self, rule: Named) -> list[str]:
        """All rules, as one of them would have to be named in the place of `rule`."""
        own = rule_id(rule._replace(text=""))
        if "/" in rule.text:
            return list(self._actions)
        return [id.removeprefix(own) for id in self._actions if id.startswith(own)]

    def _tell(self, named: Named, message: str) -> None:
        self._report.add(named.position, message)


def _read(node: Node, tier: int, report: FileReport) -> _Declared | None:
    values = fields.mapping(TEST_FIELDS, node, "test", report)
    if not values or not isinstance(node, MappingNode):
        return None
    missing = [key for key in TEST_NEEDS if key not in values]
    for key in missing:
        report.at(node, f"the test has no {key!r}")
    allowed = values.get("expect") == ALLOW
    if "rights" in values and values.get("expect") == DENY:
        report.at(node, "the test has 'rights', which belong to 'expect: allow'")
    if missing or None in values.values():
        return None
    (peer, socket), (found, asked) = values["client"], values["object"]
    test = PolicyTest(
        report.position(node),
        tier,
        Request(asked, values["access"], values.get("optional", NO_RIGHTS)),
        peer,
        found,
        values.get("at"),
        allowed,
        None,
        values.get("rights"),
    )
    return _Declared(test, values.get("rule"), socket)


@described(lambda shapes: shapes.of(_RIGHT_WORDS))
def _rights(node: Node, what: str, report: FileReport) -> Rights | None:
    words = _RIGHT_WORDS(node, "right", report)
    if words is None:
        return None
    rights = NO_RIGHTS
    for right in words:
        rights |= right
    return rights


@described(lambda shapes: shapes.of(fields.text))
def _rule(node: Node, what: str, report: FileReport) -> Named | None:
    found = fields.text(node, what, report)
    return None if found is None else Named(found, report.position(node))


_RIGHT_WORDS: fields.Field[tuple[Rights, ...]] = fields.any_of(fields.word(RIGHT_WORDS))
TEST_FIELDS: Mapping[str, fields.Field[Any]] = {
    "client": about("Who asks; what is not said is unknown, and never widens.", read_client),
    "object": about("What the path leads to.", read_object),
    "access": about("The rights that are needed.", _rights),
    "optional": about("Rights that would be nice.", _rights),
    "at": about("When it is asked: a date, a time and a zone.", fields.moment),
    "expect": about("What shall come of it.", fields.word({ALLOW: ALLOW, DENY: DENY})),
    "rule": about("The rule that shall decide: its name, or its id.", _rule),
    "rights": about("The rights that shall be granted; with `expect: allow`.", _rights),
}
TEST_NEEDS = ("client", "object", "access", "expect")
