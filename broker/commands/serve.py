"""`fdbroker serve`: the broker as a daemon, in the foreground."""

import argparse
import contextlib
import os
import signal
from collections.abc import Callable, Sequence

from broker.audit import AuditLog
from broker.commands.common import Unusable, say
from broker.commands.policies import audit_to, policy_to_serve
from broker.identity import Accounts, IdentityReader
from broker.listeners import ListenError
from broker.policyfiles import TIERS
from broker.reloading import Reloader, Sockets
from broker.supervisor import Supervisor, complain
from policy import Policy
from sandboxed.client import DEFAULT_SOCKET
from sandboxed.syscalls import signalfd

_STOP = (signal.SIGTERM, signal.SIGINT)
_RELOAD = signal.SIGHUP
_HANDLED = (*_STOP, _RELOAD)

_EPILOG = """\
The broker opens what its own user can open: start it as root, or as a user for that user's programs.
A rule that says more than this version keeps (a lease, say) is refused, unless it says `accept: [CODE]`;
`fdbroker check` shows the code.
It ends on SIGTERM and SIGINT. On SIGHUP it reads its policy again, and serves by the new one when that is good as a
whole: connections stay, no request is lost, and each is answered by one of the two. A policy with a mistake changes
nothing, and is told on standard error and in the audit. A policy's files are never read because they changed.

exit status: 0 ended by a signal, 1 it failed or lost audit records, 2 it could not start
"""


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal ends it."""
    options = _parser().parse_args(arguments)
    sockets = Sockets(options.socket)
    try:
        policy = policy_to_serve(options.policy)
        audit = audit_to(options.audit, standard=1)
        sockets.listening.update(sockets.missing(policy))
    except (Unusable, ListenError) as error:
        say("serve", error)
        return 2
    return _serve(policy, audit, sockets, lambda: policy_to_serve(options.policy))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker serve",
        description="Open files and devices for clients, as the policy allows.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--policy",
        metavar="PATH",
        help=f"a policy file, or a directory of them (default: the files in {', '.join(reversed(TIERS))})",
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default=DEFAULT_SOCKET,
        help="where clients connect (default: %(default)s)",
    )
    parser.add_argument(
        "--audit",
        metavar="FILE",
        default="-",
        help="append a JSON line for each decision to FILE (default: -, standard output)",
    )
    return parser


def _serve(policy: Policy, audit: int, sockets: Sockets, load: Callable[[], Policy]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    listeners = list(sockets.listening.values())
    try:
        reader = IdentityReader(Accounts(policy))
        signals = signalfd(_HANDLED)
        supervisor = Supervisor(policy, AuditLog(audit, complain), listeners, reader.of_connection)
        reloader = Reloader(supervisor, load, sockets, reader)
    except OSError as error:
        for listener in listeners:
            listener.close()
        say("serve", error)
        return 2
    supervisor.watch(signals, lambda: _on_signal(signals, supervisor, reloader))
    count = len(policy.rules)
    for listener in listeners:
        rules = f"{count} rule{'s' * (count != 1)}"
        complain(f"serving at {listener.path}: {rules}, policy {policy.digest}")
    try:
        supervisor.run()
    finally:
        supervisor.end()
        reloader.close()
        os.close(signals)
    return 1 if supervisor.lost_records else 0


def _on_signal(fd: int, supervisor: Supervisor, reloader: Reloader) -> None:
    with contextlib.suppress(BlockingIOError):
        # The first four bytes of struct signalfd_siginfo are the signal's number.
        number = int.from_bytes(os.read(fd, 128)[:4], "little")
        if number in _STOP:
            supervisor.stop()
        else:
            reloader.ask(lambda reloaded: None)  # what comes of it is told on standard error and in the audit
