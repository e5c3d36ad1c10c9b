"""`fdbroker run`: a command, confined, with a broker for what it may have."""

import argparse
import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from broker.commands.common import Unusable, audit_to, policy_from, say
from broker.embedded import EmbeddedBroker
from sandboxed.child import SignalForwarder, StartError, start, terminal_can_be_injected, wait_with_signals
from sandboxed.confinement import Confinement, clean_environment, work_directory
from sandboxed.identities import IdentityError, lookup, unused_uid

OWN_TROUBLE = 125

_EPILOG = """\
CMD runs without privileges: no capabilities, no_new_privs, no groups, a clean environment, no fds but its
standard ones, and a Landlock domain in which it reads what its user may read, writes only below a fresh
directory of its own (its HOME and TMPDIR, removed at the end), and opens no device but null, zero, full,
random and urandom. Started by root it runs as USER, or as an unused uid of its own.

Without root CMD still reads all that you may read. With --socket and without --user, root's CMD is a uid from
61184-65519 to the broker, which has no account: name that range in a rule, or give --user.

What the policy gives it, it asks for: `fdbroker open`, the Python library, or Varlink at the connection
that FDBROKER_FD names.

  fdbroker run --policy kvm.yaml -- fdbroker open /dev/kvm --access use
  fdbroker run --socket /run/fdbroker/fdbroker.sock -- ./program

exit status: CMD's own (128 + n when signal n ended it); 125 fdbroker's own trouble, 126 CMD cannot be
executed, 127 there is no CMD
"""


class _Who(NamedTuple):
    uid: int | None
    gid: int | None


def main(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name, and return its exit status."""
    options = _parser().parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if options.audit is not None and options.policy is None:
        say("run", "--audit goes with --policy: a broker that is connected to has an audit of its own")
        return OWN_TROUBLE
    if not command:
        say("run", "there is no command to run: fdbroker run --policy FILE -- CMD …")
        return OWN_TROUBLE
    try:
        with (
            _identity(options.user) as who,
            work_directory(who.uid, who.gid) as work,
            SignalForwarder(typed=terminal_can_be_injected()) as signals,
        ):
            if options.policy is not None:
                return _run_embedded(command, options.policy, options.audit, who, work, signals)
            return _run_connected(command, options.socket, who, work, signals)
    except StartError as error:
        say("run", error)
        return error.exit_status
    except (Unusable, IdentityError, OSError) as error:
        say("run", error)
        return OWN_TROUBLE


class _Parser(argparse.ArgumentParser):
    """Exits with 125 for a wrong command line: 2 could be CMD's."""

    def exit(self, status: int = 0, message: str | None = None) -> None:  # type: ignore[override]
        super().exit(OWN_TROUBLE if status else 0, message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fdbroker run",
        usage="fdbroker run (--policy FILE | --socket PATH) [--user USER] [--audit FILE] -- CMD …",
        description="Run CMD confined, with a broker for the files and devices that it may have.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--policy",
        metavar="FILE",
        help="be the broker for CMD, by the policy file or directory FILE; no daemon is needed",
    )
    source.add_argument("--socket", metavar="PATH", help="connect CMD to the broker that listens at PATH")
    parser.add_argument(
        "--user", metavar="USER", help="as root: run CMD as USER (default: an unused uid of its own)"
    )
    parser.add_argument(
        "--audit",
        metavar="FILE",
        help="with --policy: append a JSON line for each decision to FILE (-: standard error)",
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="CMD …", help="the command and its arguments"
    )
    return parser


@contextlib.contextmanager
def _identity(user: str | None) -> Iterator[_Who]:
    """Who CMD runs as; held for as long as it runs."""
    if os.geteuid() != 0:
        if user is not None:
            raise Unusable("only root can choose the user (--user): leave it out to run CMD as yourself")
        yield _Who(None, None)
    elif user is not None:
        found = lookup(user)
        yield _Who(found.uid, found.gid)
    else:
        with unused_uid() as held:
            yield _Who(held.uid, held.gid)


def _run_embedded(
    command: list[str],
    policy_path: str,
    audit_path: str | None,
    who: _Who,
    work: str,
    signals: SignalForwarder,
) -> int:
    policy = policy_from(policy_path)
    audit = audit_to(audit_path, standard=2)
    with EmbeddedBroker(policy, audit) as broker:
        number = broker.client_end.fileno()
        confinement = Confinement(who.uid, who.gid, work, keep=(number,), broker_is_parent=True)
        child = start(
            command,
            confinement,
            _environment(work, number),
            mask=signals.original_mask,
            new_session=terminal_can_be_injected(),
        )
        with child:
            return broker.serve(child, signals, who.uid, who.gid)


def _run_connected(command: list[str], path: str, who: _Who, work: str, signals: SignalForwarder) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        number = connection.fileno()
        confinement = Confinement(who.uid, who.gid, work, keep=(number,))

        def connect() -> None:
            # With CMD's identity: the broker sees who connects, and refuses other senders.
            try:
                connection.connect(path)
            except OSError as error:
                raise StartError(f"no broker answers at {path}: {error.strerror}") from error

        child = start(
            command,
            confinement,
            _environment(work, number),
            connect,
            mask=signals.original_mask,
            new_session=terminal_can_be_injected(),
        )
    with child:
        return wait_with_signals(child, signals)


def _environment(work: str, number: int) -> Mapping[str, str]:
    return clean_environment(work, {"FDBROKER_FD": str(number)})
