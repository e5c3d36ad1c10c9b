"""What the commands that talk to a running broker share: the connection, and words for what goes wrong."""

import argparse
import os
import sys
from collections.abc import Callable

from broker.admin_client import ADMIN_SOCKET, AdminClient, NoBroker, Refused
from broker.commands.common import say

NO_BROKER = 3

EXITS = "exit status: 0 done, 1 the broker says no, 2 unusable input, 3 no broker answers"


def parser(command: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """The parser of a command, with what all have."""
    made = argparse.ArgumentParser(
        prog=f"fdbroker {command}",
        description=description,
        epilog=f"{epilog}\n\n{EXITS}" if epilog else EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--admin-socket",
        metavar="PATH",
        help=f"the broker's admin socket (default: FDBROKER_ADMIN_SOCKET, or {ADMIN_SOCKET})",
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def with_broker(command: str, path: str | None, work: Callable[[AdminClient], int]) -> int:
    """Do `work` with a connection, and tell what goes wrong; the exit status."""
    try:
        with AdminClient(path) as client:
            return work(client)
    except NoBroker as error:
        say(command, error)
        return NO_BROKER
    except Refused as refused:
        say(command, _in_words(refused))
        return 1
    except BrokenPipeError:  # whoever read has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _in_words(refused: Refused) -> str:
    if refused.name == "ReloadFailed":
        return f"the policy was not taken into use, the one before stays in force: {refused.parameters.get('reason')}"
    if refused.name == "NoSuchGrant":
        return f"no grant {refused.parameters.get('grant')!r} is in force; `fdbroker grants` lists those that are"
    return f"the broker answers {refused.name} {refused.parameters}"
