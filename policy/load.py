"""From the files of a policy to a Policy, or to everything that is wrong with them.

Enforced here: names exist where they are used; a rule's id is its own. Nothing depends on the order of the files
or of what stands in them. What higher tiers do to lower ones is the subject of `tiers`; which files make up a
set, and whether they can be trusted, is the broker's.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import NamedTuple, TypeVar

from .clients import DEFAULT_SOCKET, Client, Clients
from .decide import Policy
from .declarations import (
    ClientDeclaration,
    ClientReference,
    Declarations,
    DeviceReference,
    Named,
    RuleDeclaration,
    Watch,
)
from .devices import DeviceSelector
from .entries import BELOW_DEV
from .nodes import Node
from .patterns import parse_pattern
from .problems import FileReport, PolicyError, Report, did_you_mean
from .rules import ALLOW, Rule, SocketDeclaration, Source
from .schema import read_source
from .tiers import MaskedRule, Redefinition, Tiers, counting, rule_id

# hashlib would load OpenSSL, which takes longer than to read a policy; the module random does as we do.
try:
    from _sha2 import sha256  # CPython 3.12 and later
except ImportError:
    try:
        from _sha256 import sha256  # CPython 3.11
    except ImportError:
        from hashlib import sha256

# Hexadecimal digits of a policy's digest: enough to tell two policies of one machine apart.
_DIGEST_DIGITS = 12

# What an allow is for that names devices and no paths. A deny of devices is for them wherever they lie.
_BELOW_DEV = (parse_pattern(BELOW_DEV),)

Declared = TypeVar("Declared")


class PolicySet(NamedTuple):
    """A policy, and what its files say that is not in force."""

    policy: Policy
    masked: tuple[MaskedRule, ...]
    redefined: tuple[Redefinition, ...]


def load(sources: Iterable[Source]) -> Policy:
    """Return the policy that the files make up. Raises PolicyError with all problems of all of them."""
    return load_set(sources).policy


def load_set(
    sources: Iterable[Source],
    read_test: Callable[[Node, FileReport], None] | None = None,
    watch: Watch | None = None,
) -> PolicySet:
    """Return what load() does, with what is masked and redefined. A file that another replaces is not read.

    `read_test` takes each test of the files, and reports what is wrong with it; without it they are passed over.
    `watch` sees what is read come, file after file as counting() has them.
    """
    files, _ = counting(sources)
    report = Report()
    declarations = Declarations()
    declarations.read_test, declarations.watch = read_test, watch
    for source in files:
        read_source(source, declarations, FileReport(source.name, report))
    tiers = Tiers({source.name: source.tier for source in files}, report)
    linker = _Linker(declarations, tiers, report)
    in_force = tiers.unmasked(declarations.rules, declarations.masks)
    declarations.rules.clear()
    rules = linker.linked_rules(in_force)
    if report.problems:
        raise PolicyError(report.problems)
    policy = Policy(rules, linker.sockets, _digest(files), linker.devices)
    return PolicySet(policy, tuple(tiers.masked), tuple(tiers.redefined))


class _Linker:
    """Resolves the names that lead from one declaration to another."""

    def __init__(self, declarations: Declarations, tiers: Tiers, report: Report) -> None:
        self._report = report
        # Of equal clients one is kept: in a large set many rules are for the same.
        self._same_client: dict[Client, Client] = {}
        self._same_clients: dict[Clients, Clients] = {}
        self.sockets = tiers.by_name("socket", declarations.sockets)
        self._refuse_shared_paths(one for one in declarations.sockets if self._is_in_force(one))
        self._clients = {
            name: self._linked_client(client)
            for name, client in tiers.by_name("client", declarations.clients).items()
        }
        self.devices = tiers.by_name("device group", declarations.devices)
        named = [rule.name for rule in declarations.rules if rule.name is not None]
        tiers.by_name("rule", [(name._replace(text=rule_id(name)), name) for name in named])

    def linked_rules(self, declared: list[RuleDeclaration]) -> list[Rule]:
        """Return the rules with their clients resolved. `declared` is empty then: large sets need the memory."""
        declared.reverse()
        rules = []
        while declared:
            rules.append(self._linked_rule(declared.pop()))
        return rules

    def _is_in_force(self, declared: tuple[Named, SocketDeclaration]) -> bool:
        return self.sockets[declared[0].text] is declared[1]

    def _refuse_shared_paths(self, sockets: Iterable[tuple[Named, SocketDeclaration]]) -> None:
        users: dict[str, str] = {}
        for named, socket in sockets:
            other = users.setdefault(socket.path, named.text)
            if other != named.text and socket.path:
                self._report.add(named.position, f"socket {named.text!r} has the path of socket {other!r}")

    def _linked_rule(self, rule: RuleDeclaration) -> Rule:
        name = rule.name or Named("", rule.position)  # without a name the set does not load
        linked = self._linked(rule, name)
        widening, what = (
            (linked.clients, "clients of an allow")
            if linked.action == ALLOW
            else (linked.except_clients, "exceptions of a deny")
        )
        if any(client.is_exe_alone for client in widening):
            told = (
                f"rule {name.text!r}: 'exe' alone never chooses the {what}: any process can run that program"
            )
            self._report.add(
                rule.position, f"{told}, expected user, group, unit, label or another condition beside it"
            )
        return linked

    def _linked(self, rule: RuleDeclaration, name: Named) -> Rule:
        return Rule(
            rule_id(name),
            rule.position.file,
            rule.position.line,
            name.text,
            rule.action,
            rule.rights,
            rule.types,
            rule.paths or (_BELOW_DEV if rule.action == ALLOW and not rule.terms.addresses else ()),
            rule.except_paths,
            self._linked_clients(rule.clients),
            self._linked_clients(rule.except_clients),
            rule.until,
            rule.device,
            None if rule.devices is None else self._linked_devices(rule.devices),
            self._linked_devices(rule.except_devices),
            rule.terms,
            frozenset(rule.accept),
        )

    def _linked_devices(self, references: Iterable[DeviceReference]) -> tuple[DeviceSelector, ...]:
        groups = [
            (reference,)
            if isinstance(reference, DeviceSelector)
            else self._known(reference, self.devices, "device group")
            for reference in references
        ]
        if len(groups) == 1:
            return groups[0] or ()  # a large group that many rules name is kept once
        return tuple(dict.fromkeys(selector for group in groups for selector in group or ()))

    def _linked_clients(self, references: Iterable[ClientReference]) -> Clients:
        clients = (
            self._linked_client(reference)
            if isinstance(reference, ClientDeclaration)
            else self._known(reference, self._clients, "client")
            for reference in references
        )
        linked = tuple(client for client in clients if client is not None)
        return self._same_clients.setdefault(linked, linked)

    def _linked_client(self, declared: ClientDeclaration) -> Client:
        for socket in declared.sockets or ():
            if socket.text != DEFAULT_SOCKET:
                self._known(socket, self.sockets, "socket")
        client = Client(
            _names(declared.users),
            declared.uids,
            _names(declared.groups),
            declared.gids,
            _names(socket.text for socket in declared.sockets) if declared.sockets is not None else None,
            declared.any_account,
            _names(declared.units),
            _names(declared.exes),
            _names(declared.labels),
        )
        return self._same_client.setdefault(client, client)

    def _known(self, named: Named, declared: Mapping[str, Declared], what: str) -> Declared | None:
        """Return what `named` names. Tells where there is no such thing."""
        value = declared.get(named.text)
        if value is None and not self._report.is_full(named.position.file):
            expected = f"expected one that is declared{did_you_mean(declared, named.text)}"
            self._report.add(named.position, f"unknown {what} {named.text!r}, {expected}")
        return value


def _names(texts: Iterable[str] | None) -> frozenset[str] | None:
    return None if texts is None else frozenset(texts)


def _digest(files: Iterable[Source]) -> str:
    """Return a name for exactly these files. Lengths go in too, so that no text can pass for a boundary.

    Of the tiers only their order goes in: a set has the same name wherever it lies.
    """
    digest = sha256()
    for place, (_, tier) in enumerate(groupby(files, key=lambda source: source.tier)):
        if place:
            digest.update(b"tier ")
        for source in tier:
            data = source.text.encode() if isinstance(source.text, str) else source.text
            digest.update(f"{len(source.name)} {len(data)} {source.name}".encode())
            digest.update(data)
    name: str = digest.hexdigest()[:_DIGEST_DIGITS]
    return name
