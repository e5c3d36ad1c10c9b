"""`fdbroker access`: who can have what of this machine's devices and files, through the broker and around it."""

import argparse
import json
import os
import time
from collections.abc import Iterable, Sequence

from broker.commands.access_words import Report, as_json, as_text
from broker.commands.common import say
from broker.commands.policies import add_policy_option, policy_from
from broker.devicefacts import DeviceFacts
from broker.peers import PeerFinder
from broker.population import Somebody, everybody
from broker.reaching import Reaching, Sheet
from broker.survey import UNKNOWN, Seen, Survey, Unseen, nodes_below_dev
from broker.textlines import counted
from broker.unusable import Unusable
from policy import ALLOW, FileType, PathPattern, Peer, Policy
from policy.access import literals
from policy.devices import DEVICE_TYPES, any_holds
from policy.problems import did_you_mean
from policy.variables import certainly, variables_of

# Paths that one pattern with a variable is taken to: it stands for one of each account.
EXPANSIONS = 2_000

_EPILOG = """\
Without PATH, --device or --user: all that the policy's allows can give to anybody on this machine. That is each node
below /dev, each file that an allow names, and the files that its patterns come to (of each pattern the first 500).
Every account of the account database is decided for, with the groups of a login; units, programs, labels, sockets and
uids without an account are rows of their own. AROUND THE BROKER is who opens the object themselves, by its mode,
owner, groups and ACL and those of the directories above. Nothing is opened, and what is open now is not in it. Run it
as root, who can see everything.

  fdbroker access                                  all of it
  fdbroker access --device ftdi                    each node of the policy's device group ftdi
  fdbroker access --path /dev/kvm /etc/ssl/private/web.key
  fdbroker access --user mia                       all that mia gets
  fdbroker access --html access.html               one page, to print or to send
  fdbroker access --json | jq -r '.sheets[].rows[].who'

exit status: 0 it is shown, and somebody gets something; 1 nobody gets anything of it; 2 unusable input
"""


def main(arguments: Sequence[str]) -> int:
    """Show what `arguments` ask for."""
    options = _parser().parse_args(arguments)
    try:
        report = _report(options)
        if options.html is not None:
            _write_page(options.html, report)
    except Unusable as error:
        say("access", error)
        if options.json:
            print(json.dumps({"sheets": None, "error": str(error)}))
        return 2
    except OSError as error:
        say("access", f"nothing can be looked at: {error}")
        return 2
    if options.json:
        print(json.dumps(as_json(report)))
    elif options.html is None:
        print(as_text(report))
    return 0 if any(sheet.gives for sheet in report.sheets) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker access",
        description="Show who can have what of this machine's devices and files, by which rule, and who can go around\n"
        "the broker.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_policy_option(parser)
    parser.add_argument(
        "--device", metavar="GROUP", help="the nodes of this machine that a group of `devices:` is for"
    )
    parser.add_argument("--path", metavar="PATH", nargs="+", default=[], help="what would be asked for")
    parser.add_argument("--user", metavar="NAME|UID", help="what this user gets; others are left out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--html", metavar="FILE", help="write one HTML page that needs nothing else")
    return parser


def _report(options: argparse.Namespace) -> Report:
    policy, now = policy_from(options.policy), int(time.time())
    finder = PeerFinder(policy)
    people = everybody(policy, finder)
    user = None
    if options.user is not None:
        people, user = _only(options.user, people, finder)
    peers = [one.peer for one in people]
    survey = Survey(DeviceFacts(policy, shows=True), literals(policy, peers))
    try:
        choice = _Choice(survey, policy, peers)
        if options.device is not None:
            choice.add_group(options.device)
        choice.add_named(options.path)
        if options.device is None and not options.path:
            choice.add_everything()
        sheets = Reaching(policy, people, now).sheets(choice.objects)
        shown = [sheet for sheet in sheets if sheet.gives or _is_named(sheet, choice)]
        hidden = sum(len(sheet.objects) for sheet in sheets if sheet not in shown)
        unknown = tuple(dict.fromkeys((*survey.unknown, *choice.unknown)))
    finally:
        survey.close()
    return Report(
        policy.digest,
        os.uname().nodename,
        now,
        _about(options, sum(len(sheet.objects) for sheet in shown)),
        user,
        tuple(shown),
        hidden,
        tuple(choice.absent),
        unknown,
        tuple(choice.cut),
    )


def _only(name: str, people: Iterable[Somebody], finder: PeerFinder) -> tuple[list[Somebody], str]:
    """Of `people` one account, and what it is by other marks. Raises Unusable where there is none."""
    uid = finder.user(name, None).uid
    mine = [one for one in people if one.account is not None and one.peer.uid == uid]
    if not mine:
        raise Unusable(f"uid {uid} has no account: fdbroker explain --user {uid} tells of one request")
    return mine, str(mine[0].account)


def _about(options: argparse.Namespace, count: int) -> str:
    parts = [counted(count, "object")]
    if options.device is not None:
        parts.append(f"of device group {options.device}{' or by their paths' if options.path else ''}")
    if options.device is None and not options.path:
        parts.append("that the policy can give")
    if options.user is not None:
        parts.append(f"for user {options.user}")
    return " ".join(parts)


def _is_named(sheet: Sheet, choice: "_Choice") -> bool:
    return any(shown.seen.subject.path in choice.named for shown in sheet.objects)


class _Choice:
    """The objects that a table shall be about."""

    def __init__(self, survey: Survey, policy: Policy, peers: Sequence[Peer]) -> None:
        self._survey = survey
        self._policy = policy
        self._peers = peers
        self._found: dict[str, Seen] = {}
        self.named: set[str] = set()
        self.absent: list[Unseen] = []
        self.unknown: list[str] = []
        self.cut: list[str] = []

    @property
    def objects(self) -> list[Seen]:
        """What was chosen; the links to an object stand behind it."""
        found = list(self._found.values())
        return [one for one in found if not _is_link(one)] + [one for one in found if _is_link(one)]

    def add_named(self, paths: Iterable[str]) -> None:
        """Add what these paths lead to."""
        for path in paths:
            self._look(path, path)
            self.named.add(path)

    def add_group(self, name: str) -> None:
        """Add the nodes that the device group is for. Raises Unusable where the policy has no such group."""
        selectors = self._policy.device_groups.get(name)
        if selectors is None:
            known = ", ".join(sorted(self._policy.device_groups)) or "it has none"
            near = did_you_mean(self._policy.device_groups, name)
            raise Unusable(f"the policy has no device group {name!r}; there are: {known}{near}")
        undecided = 0
        for path in self._nodes():
            seen = self._survey.look(path)
            if isinstance(seen, Seen):
                found = seen.subject.object
                truth = any_holds(selectors, found.type, found.device)
                undecided += truth is None
                if truth:
                    self._found.setdefault(path, seen)
                    self.named.add(path)
        if undecided:
            self.unknown.append(
                f"whether {counted(undecided, 'node')} below /dev belong to {name}: udev does not tell what they are"
            )

    def add_everything(self) -> None:
        """Add all that an allow can give to anybody here."""
        allows = [rule for rule in self._policy.rules if rule.action == ALLOW]
        types = frozenset(kind for rule in allows for kind in rule.types or ())
        if types & DEVICE_TYPES:
            for path in self._nodes():
                self._look(path)
        patterns: dict[PathPattern, set[FileType]] = {}
        for rule in allows:
            for pattern in rule.paths:
                patterns.setdefault(pattern, set()).update(rule.types or ())
        for pattern, wanted in patterns.items():
            self._add_pattern(pattern, wanted)

    def _add_pattern(self, pattern: PathPattern, types: set[FileType]) -> None:
        if pattern.variables:
            expanded = {certainly(pattern, variables_of(peer)) for peer in self._peers}
            known = sorted((one for one in expanded if one is not None), key=lambda one: one.text)
            if len(known) > EXPANSIONS:
                self.cut.append(f"{pattern.text}: of {len(known):,} expansions the first {EXPANSIONS:,}")
            for one in known[:EXPANSIONS]:
                self._add_expanded(one, None)
        elif pattern.literal:
            self._look(pattern.text, pattern.text)
        elif not (types <= DEVICE_TYPES and pattern.text.startswith("/dev/")):  # nodes are there already
            self._add_expanded(pattern, None)

    def _add_expanded(self, pattern: PathPattern, asked: str | None) -> None:
        if pattern.literal:
            self._look(pattern.text, asked)
            return
        paths, is_cut = self._survey.expand(pattern)
        if is_cut:
            self.cut.append(f"{pattern.text}: of what it matches the first {len(paths):,}")
        for path in paths:
            self._look(path)

    def _look(self, path: str, asked: str | None = None) -> None:
        """Look at a path; what is not there is told when somebody asked for it by that very name."""
        if path in self._found:
            return
        seen = self._survey.look(path)
        if isinstance(seen, Seen):
            self._found[path] = seen
        elif asked is not None or seen.what == UNKNOWN:
            self.absent.append(seen)

    def _nodes(self) -> list[str]:
        paths, is_cut = nodes_below_dev()
        if is_cut:
            self.cut.append(f"/dev: of what lies below it the first {len(paths):,} nodes")
        return paths


def _is_link(seen: Seen) -> bool:
    return seen.subject.path != seen.subject.object.path


def _write_page(path: str, report: Report) -> None:
    from broker.commands.access_page import as_page

    text = as_page(report).encode("utf-8", "backslashreplace")
    try:
        with open(path, "wb") as file:
            file.write(text)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}") from None
