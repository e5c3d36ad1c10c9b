"""`fdbroker replay`: which recorded decisions would be other ones under another policy."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from broker.commands.audit_options import add_filters, chosen, times_words, who
from broker.commands.common import say
from broker.commands.policies import add_policy_option, policy_from
from broker.recorded import Reading, Recall
from broker.replaying import UNKNOWN, Group, Replay, Replayer
from broker.textlines import counted, printable_line
from broker.unusable import Unusable
from policy import Policy, rights_words

# Groups that are shown; --json has all of them.
_SHOWN = 200

_EPILOG = """\
AUDIT is the file of `fdbroker serve --audit`, lines of JSON; - is standard input. Lines that are no records are passed
over, and told. A decision changes when the policy would give what was refused, refuse what was given, or give other
rights of those that were optional.

Of a request the record alone counts: who asked, by which groups and unit, for what, what it led to, when. What a record
does not hold (a request that was refused by its name alone led nowhere; udev's properties are never recorded) makes an
answer `not known`, and never a guess. What a user's or group's name stands for, and which groups an account has, is
looked up as it is now; --no-accounts does without.

  fdbroker replay --policy new.d /var/log/fdbroker.jsonl
  fdbroker replay --policy new.d --since 7d --user mia /var/log/fdbroker.jsonl
  zcat /var/log/fdbroker.jsonl.*.gz | fdbroker replay --policy new.d -

exit status: 0 nothing would change, as far as is known (with --strict: and all is known), 1 something would, 2 unusable
"""


def main(arguments: Sequence[str]) -> int:
    """Replay what `arguments` name."""
    options = _parser().parse_args(arguments)
    try:
        policy = policy_from(options.policy)
        reading = Reading(options.audit)
        recall = Recall(policy, accounts=not options.no_accounts)
        try:
            replay = Replayer(policy, recall).replay(chosen(reading, options))
        finally:
            recall.close()
    except Unusable as error:
        say("replay", error)
        if options.json:
            print(json.dumps({"groups": None, "error": str(error)}))
        return 2
    if options.json:
        print(json.dumps(_as_json(replay, reading, policy)))
    else:
        print(_as_text(replay, reading, policy))
    counted = [one for one in replay.groups if options.strict or one.change != UNKNOWN]
    return 1 if counted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker replay",
        description="Tell which decisions of an audit would be other ones under another policy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("audit", metavar="AUDIT", help="the audit's file, or - for standard input")
    add_policy_option(parser, "NEW")
    add_filters(parser)
    parser.add_argument(
        "--no-accounts",
        action="store_true",
        help="look up no account: what the policy's names of users and groups stand for is not known then",
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 for what is not known too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _as_text(replay: Replay, reading: Reading, policy: Policy) -> str:
    changed = sum(one.times for one in replay.groups if one.change != UNKNOWN)
    unknown = sum(one.times for one in replay.groups if one.change == UNKNOWN)
    lines = [
        f"{counted(replay.decisions, 'decision')}: {changed} would change, {unknown} not known    "
        f"policy {policy.digest}"
    ]
    lines += [_group_words(one) for one in replay.groups[:_SHOWN]]
    if len(replay.groups) > _SHOWN:
        lines.append(f"and {len(replay.groups) - _SHOWN} more, in --json")
    if replay.dropped:
        lines.append(f"and {replay.dropped} decisions beside these, which are too many to tell apart")
    if replay.undecided:
        lines.append(f"{replay.undecided} were answered by a limit, and by no policy")
    return "\n".join(map(printable_line, [*lines, *reading.faults()]))


def _group_words(group: Group) -> str:
    one = group.sample
    asked = "+".join(rights_words(one.needed)) or "nothing"
    optional = f" (and {'+'.join(rights_words(one.optional))})" if one.optional else ""
    leads = f" -> {one.resolved}" if one.resolved not in (None, one.path) else ""
    checked = ", asked by name alone" if one.lexical else ""
    return (
        f"{group.change.upper():13}{group.times}x  {who(one)}: {asked}{optional} of {one.path}{leads}{checked}: "
        f"was {group.was}; would be {group.would}; {times_words(group.first, group.last)}"
    )


def _as_json(replay: Replay, reading: Reading, policy: Policy) -> dict[str, Any]:
    return {
        "policy": policy.digest,
        "decisions": replay.decisions,
        "unchanged": replay.unchanged,
        "answered_by_a_limit": replay.undecided,
        "groups": [_group_json(one) for one in replay.groups],
        "left_out": replay.dropped,
        "broken_lines": {"count": reading.broken, "lines": reading.places},
        "not_written": reading.unwritten,
    }


def _group_json(group: Group) -> dict[str, Any]:
    one = group.sample
    return {
        "change": group.change,
        "count": group.times,
        "uid": one.uid,
        "unit": one.unit,
        "socket": one.socket,
        "path": one.path,
        "resolved": one.resolved,
        "access": rights_words(one.needed),
        "optional": rights_words(one.optional),
        "by_name_alone": one.lexical,
        "was": group.was,
        "would_be": group.would,
        "first": group.first,
        "last": group.last,
        "line": one.line,
    }
