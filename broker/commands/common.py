"""What subcommands share: telling the user what is wrong, and the word for where an audit goes."""

import sys


def say(command: str, message: object) -> None:
    """Tell the user, on standard error."""
    if sys.stderr is not None:  # None would be standard output, which is the command's
        print(f"{f'fdbroker {command}'.rstrip()}: {message}", file=sys.stderr, flush=True)


def is_journal(word: str | None) -> bool:
    """Whether the audit goes to systemd's journal. A file of that name is ./journal."""
    return word is not None and word.partition(":")[0] == "journal"


def audit_file(word: str | None) -> str | None:
    """The file that the audit goes to, where it goes to one."""
    return None if word == "-" or is_journal(word) else word
