"""`fdbroker explain`: what the broker would answer to one request, and why."""

import argparse
import json
import time
from collections.abc import Sequence

from broker.commands.common import say
from broker.commands.explain_words import as_json, as_text
from broker.commands.policies import add_policy_option, policy_from
from broker.explaining import NO, NOT_KNOWN, YES, explained
from broker.peers import PeerFinder
from broker.unusable import Unusable
from policy import DEFAULT_SOCKET, Peer, Policy, Request, Rights, parse_rights

_STATUS = {YES: 0, NO: 1, NOT_KNOWN: 2}

_EPILOG = """\
RIGHTS are the policy's words: read, write, append, create, truncate, ioctl, list, connect, listen;
use = read,write,ioctl; edit = read,write,truncate. Nothing is opened: PATH is walked as the broker walks it, with
O_PATH. Who is not root sees what they can see, and is told the rest.

  fdbroker explain --user mia /dev/ttyUSB0 read write
  fdbroker explain --pid 4711 /dev/kvm use --json

exit status: 0 allowed, 1 denied, 2 unusable input, or not known because you may not look at the object
"""


def main(arguments: Sequence[str]) -> int:
    """Explain what `arguments` ask."""
    options = _parser().parse_args(arguments)
    try:
        policy = policy_from(options.policy)
        request = Request(options.path, _rights(options.rights), _rights(options.optional))
        answer = explained(policy, request, _peer(options, policy), time.time())
    except Unusable as error:
        say("explain", error)
        if options.json:
            print(json.dumps({"answer": None, "error": str(error)}))
        return 2
    except OSError as error:
        say("explain", f"nothing can be looked at: {error}")
        return 2
    print(json.dumps(as_json(answer, policy.digest)) if options.json else as_text(answer, policy.digest))
    return _STATUS[answer.answer]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker explain",
        description="Tell what the broker would answer to one request, and why: the rule that decides, the rules that "
        "came near and what each of them misses.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_policy_option(parser)
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--user",
        metavar="NAME|UID",
        help="whose request it is, with the groups of a login (default: you, as you are)",
    )
    who.add_argument("--pid", type=int, metavar="PID", help="the process whose request it is")
    who.add_argument(
        "--embedded",
        action="store_true",
        help="the program of fdbroker run --policy, with your uid and groups",
    )
    parser.add_argument(
        "--group",
        action="append",
        metavar="NAME|GID",
        help="the kernel's groups, instead of a login's; may be repeated",
    )
    parser.add_argument(
        "--socket",
        metavar="NAME",
        default=DEFAULT_SOCKET,
        help="the policy's socket that the request comes by",
    )
    parser.add_argument(
        "--optional",
        action="append",
        default=[],
        metavar="RIGHT",
        help="a right that would be nice; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("path", metavar="PATH", help="what is asked for")
    parser.add_argument("rights", metavar="RIGHT", nargs="+", help="the rights that are needed")
    return parser


def _rights(words: Sequence[str]) -> Rights:
    try:
        return parse_rights(part for word in words for part in word.split(","))
    except ValueError as error:
        raise Unusable(str(error)) from None


def _peer(options: argparse.Namespace, policy: Policy) -> Peer:
    finder = PeerFinder(policy, options.socket, options.embedded)
    if options.pid is not None:
        if options.group:
            raise Unusable("--group goes with --user: a process has the groups that it has")
        return finder.process(options.pid)
    if options.user is not None:
        return finder.user(options.user, options.group)
    return finder.caller(options.group)
