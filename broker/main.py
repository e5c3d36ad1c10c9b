"""The command `fdbroker`: it finds the subcommand and imports only that one's code."""

import gc
import importlib
import os
import select
import sys
from collections.abc import Sequence
from typing import TextIO

from broker.version import VERSION

# name → (module with a main(arguments) → exit status, what it does)
COMMANDS = {
    "serve": ("broker.commands.serve", "run the broker in the foreground"),
    "run": (
        "broker.commands.run",
        "run a command confined, with a broker for the files and devices it may have",
    ),
    "open": ("sandboxed.open_command", "open one file or device through the broker, for a command"),
    "explain": ("broker.commands.explain", "tell what one request would be answered, and why"),
    "access": ("broker.commands.access", "show who can have what, also around the broker"),
    "device": ("broker.commands.device", "print a selector for a device, ready to paste into a policy"),
    "check": ("broker.commands.check", "check policy files and show every mistake"),
    "schema": ("broker.commands.schema", "print the JSON Schema of policy files, for editors"),
    "diff": ("broker.commands.diff", "tell what a policy change grants and takes away"),
    "replay": ("broker.commands.replay", "tell which recorded decisions another policy would change"),
    "suggest": ("broker.commands.suggest", "write rules for what was refused, for you to review"),
    "status": ("broker.commands.status", "show what a running broker serves, holds and did"),
    "grants": ("broker.commands.grants", "list who holds what in a running broker"),
    "reload": ("broker.commands.reload", "let a running broker read its policy again"),
    "revoke": ("broker.commands.revoke", "end a grant, and deny its holder the object for a while"),
    "watch": ("broker.commands.watch", "show the decisions of a running broker as they are made"),
    "log": ("broker.commands.log", "show the records of an audit that one asks for"),
    "cat": ("broker.commands.cat", "show the policy in force, and what masks what"),
}

EXIT_UNUSABLE = 2
EXIT_UNREAD = 120
"""Python's own, where what was printed could not be written."""

_EXITS = """\
exit status: 0 yes, 1 no (denied, mistakes found), 2 unusable input, 3 no broker;
run and open give the command's own, 125 for their own trouble, 126 and 127 when it cannot be started.
"""


def _help() -> str:
    lines = [f"  {name:8}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fdbroker COMMAND …",
            "",
            "Opens files and devices for programs that have no privileges, as a policy allows.",
            "",
            *lines,
            "",
            "fdbroker COMMAND --help tells more; fdbroker --version tells the version.",
            "",
            _EXITS,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that `arguments` (by default the command line) name, and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(), end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else EXIT_UNUSABLE
    if words[0] == "--version":
        print(f"fdbroker {VERSION}")
        return 0
    if words[0] not in COMMANDS:
        print(f"fdbroker: no command {words[0]!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return EXIT_UNUSABLE
    module = importlib.import_module(COMMANDS[words[0]][0])
    status: int = module.main(words[1:])
    return status


def _is_unread(stream: TextIO | None) -> bool:
    """Whether `stream` is a pipe that nobody reads any more (poll(2))."""
    if stream is None:
        return False
    ends = select.poll()
    ends.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in ends.poll(0))


def entry() -> int:
    """What the command runs: main(), with as little of the interpreter's own work around it as can be.

    A start makes no garbage that is worth looking for, and the end none that the kernel does not take: taking the
    interpreter down object by object lasts longer than most of what a command does. Returns only what Python must
    tell itself, as that standard output could not be written.
    """
    gc.disable()  # whoever stays switches it on again
    try:
        status = main()
    except BrokenPipeError:
        if not _is_unread(sys.stdout):
            raise
        os._exit(EXIT_UNREAD)  # `| head`: no answer that a status could stand for came through
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # where Python was started without it
                stream.flush()
    except BrokenPipeError:
        os._exit(EXIT_UNREAD)
    except OSError:
        return status
    os._exit(status)


if __name__ == "__main__":
    sys.exit(entry())
