"""`fdbroker suggest`: rules for what was refused, for somebody to review."""

import argparse
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from broker.commands.audit_options import add_filters, chosen, times_words, who
from broker.commands.common import say
from broker.commands.policies import policy_from
from broker.policyfiles import TIERS
from broker.recorded import Reading, Recall
from broker.suggesting import LeftOut, Looker, Refusal, Suggestion, Suggestions, suggest
from broker.textlines import counted, printable_line
from broker.unusable import Unusable
from policy import rights_words

_WIDTH = 116

_EPILOG = """\
AUDIT is the file of `fdbroker serve --audit`, lines of JSON; - is standard input. Printed is a policy file with a rule
for each request that was refused because no rule gave it, and never more than was asked: that user (in that unit), that
very path, the rights that were needed, that type of object. What a deny refused is told in a comment, and so is what no
rule can give. A request that is refused by its name alone is never looked at: what lies there now is then, with O_PATH.

Every line of it was asked for by a program, which may have asked for what it should not have. So read it, delete what
nobody needs, and try the rest:

  fdbroker suggest --since 1d /var/log/fdbroker.jsonl > suggested.yaml
  fdbroker check suggested.yaml
  fdbroker suggest --user mia --path '/dev/tty*' /var/log/fdbroker.jsonl

exit status: 0 at least one rule is suggested, 1 none is, 2 unusable input
"""


def main(arguments: Sequence[str]) -> int:
    """Suggest what `arguments` ask for."""
    options = _parser().parse_args(arguments)
    reading = Reading(options.audit)
    try:
        found = _found(options, reading)
    except Unusable as error:
        say("suggest", error)
        if options.json:
            print(json.dumps({"rules": None, "error": str(error)}))
        return 2
    lines = list(file_lines(found, reading))
    if options.json:
        print(json.dumps(_as_json(found, reading, lines)))
    else:
        print("\n".join(lines))
    return 0 if found.made else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker suggest",
        description="Write rules for what was refused for want of one, for you to review.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("audit", metavar="AUDIT", help="the audit's file, or - for standard input")
    parser.add_argument(
        "--policy",
        metavar="PATH",
        help="the policy that the rules are to join: what it gives or denies by now is left out (default: the "
        f"system's, {', '.join(TIERS[::-1])}, if there is one)",
    )
    add_filters(parser)
    parser.add_argument(
        "--offline", action="store_true", help="look at nothing here: of what type an object is, records say"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, with the file's text in it"
    )
    return parser


def _found(options: argparse.Namespace, reading: Reading) -> Suggestions:
    policy = None
    try:
        policy = policy_from(options.policy)
    except Unusable as error:
        if options.policy is not None:
            raise
        say("suggest", f"the rules are held against no policy: {error}")
    recall = None if policy is None else Recall(policy)
    looker = None
    try:
        looker = None if options.offline else Looker()
        return suggest(chosen(reading, options), policy, recall, looker.look if looker else None)
    except OSError as error:
        raise Unusable(f"this machine cannot be looked at: {error}; --offline does without") from None
    finally:
        if looker is not None:
            looker.close()
        if recall is not None:
            recall.close()


def file_lines(found: Suggestions, reading: Reading) -> Iterator[str]:
    """The lines of a policy file. What is not the rules themselves stands in comments."""
    yield from _comment(
        "Suggested by what was refused, and not reviewed: each rule gives what a program asked for."
    )
    for fault in reading.faults():
        yield from _comment(fault)
    if found.dropped:
        yield from _comment(f"{found.dropped} refusals more are of too many kinds to be told apart.")
    yield "version: 1"
    if found.made:
        yield "rules:"
    for one in found.made:
        yield from _comment(_refusal_words(one.refusal), "  ")
        for note in one.notes:
            yield from _comment(note, "  ")
        yield one.text
    if found.left_out:
        yield ""
        yield from _comment("Not suggested:")
    for left in found.left_out:
        yield from _comment(f"- {_request_words(left.refusal)}: {left.why}")


def _comment(text: str, indent: str = "") -> Iterator[str]:
    for line in textwrap.wrap(printable_line(text), _WIDTH, break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"


def _refusal_words(refusal: Refusal) -> str:
    programs = f"; by {', '.join(refusal.programs)}" if refusal.programs else ""
    times = counted(refusal.times, "time")
    return f"{times}, {times_words(refusal.first, refusal.last)}; {who(refusal.sample)}{programs}"


def _request_words(refusal: Refusal) -> str:
    one = refusal.sample
    asked = "+".join(rights_words(one.needed)) or "nothing"
    return f"{asked} of {one.path!r}, {_refusal_words(refusal)}"


def _as_json(found: Suggestions, reading: Reading, lines: Sequence[str]) -> dict[str, Any]:
    return {
        "file": "\n".join(lines) + "\n",
        "rules": [_made_json(one) for one in found.made],
        "left_out": [_left_json(one) for one in found.left_out],
        "dropped": found.dropped,
        "broken_lines": {"count": reading.broken, "lines": reading.places},
        "not_written": reading.unwritten,
    }


def _made_json(one: Suggestion) -> dict[str, Any]:
    return {
        **_refusal_json(one.refusal),
        "name": one.name,
        "text": one.text,
        "type": one.type.value,
        "notes": list(one.notes),
    }


def _left_json(left: LeftOut) -> dict[str, Any]:
    return {**_refusal_json(left.refusal), "why": left.why}


def _refusal_json(refusal: Refusal) -> dict[str, Any]:
    one = refusal.sample
    return {
        "times": refusal.times,
        "first": refusal.first,
        "last": refusal.last,
        "uid": one.uid,
        "unit": one.unit,
        "socket": one.socket,
        "path": one.path,
        "access": rights_words(one.needed),
        "optional": rights_words(refusal.optional),
        "programs": list(refusal.programs),
    }
