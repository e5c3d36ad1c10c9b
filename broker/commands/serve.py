"""`fdbroker serve`: the broker as a daemon, in the foreground."""

import argparse
import contextlib
import os
import signal
from collections.abc import Sequence

from broker.audit import MODES, REQUIRED, AuditLog, Sink
from broker.commands.common import Unusable, say
from broker.commands.policies import audit_to, policy_to_serve
from broker.identity import Accounts, IdentityReader
from broker.listeners import Listener, ListenError, default_declaration, listen
from broker.policyfiles import TIERS
from broker.supervisor import Supervisor, WorkerDied, complain
from policy import Policy
from sandboxed.client import DEFAULT_SOCKET
from sandboxed.syscalls import signalfd

_STOP = (signal.SIGTERM, signal.SIGINT)
_HANDLED = (*_STOP, signal.SIGHUP, signal.SIGUSR1)

_EPILOG = """\
The broker opens what its own user can open: start it as root, or as a user for that user's programs.
A rule that says more than this version keeps (a lease, say) is refused, unless it says `accept: [CODE]`;
`fdbroker check` shows the code. It ends on SIGTERM and SIGINT. SIGHUP does nothing: start it anew for a new policy.
On SIGUSR1 it goes on in a new audit file: rename the old one before.

exit status: 0 ended by a signal, 1 it failed or lost audit records, 2 it could not start
"""


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal ends it."""
    options = _parser().parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))  # the log's rotation may come while it starts
    try:
        policy = policy_to_serve(options.policy)
        audit = audit_to(options.audit, standard=1)
        listeners = _listen(policy, options.socket)
    except (Unusable, ListenError) as error:
        say("serve", error)
        return 2
    return _serve(policy, audit, options.audit_mode, listeners)


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
        metavar="FILE|journal",
        default="-",
        help="append a JSON line for each decision to FILE, or send them to systemd's journal (default: -, standard "
        "output)",
    )
    parser.add_argument(
        "--audit-mode",
        choices=MODES,
        default=REQUIRED,
        help="while the audit cannot be written: refuse every open, or go on and count what is lost "
        "(default: %(default)s)",
    )
    return parser


def _listen(policy: Policy, path: str) -> list[Listener]:
    listeners: list[Listener] = []
    try:
        for declaration in (default_declaration(path), *policy.sockets.values()):
            listeners.append(listen(declaration))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _serve(policy: Policy, audit: Sink, mode: str, listeners: Sequence[Listener]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        reader = IdentityReader(Accounts(policy))
        signals = signalfd(_HANDLED)
        supervisor = Supervisor(policy, AuditLog(audit, complain, mode), listeners, reader.of_connection)
    except OSError as error:
        for listener in listeners:
            listener.close()
        say("serve", error)
        return 2
    supervisor.watch(signals, lambda: _on_signal(signals, supervisor))
    for listener in listeners:
        complain(f"serving at {listener.path}: {len(policy.rules)} rules, policy {policy.digest}")
    status = 0
    try:
        supervisor.run()
    except WorkerDied as error:
        complain(str(error))
        status = 1
    finally:
        supervisor.end()
        reader.close()
        os.close(signals)
    return 1 if supervisor.lost_records else status


def _on_signal(fd: int, supervisor: Supervisor) -> None:
    with contextlib.suppress(BlockingIOError):
        # The first four bytes of struct signalfd_siginfo are the signal's number.
        number = int.from_bytes(os.read(fd, 128)[:4], "little")
        if number in _STOP:
            supervisor.stop()
        elif number == signal.SIGUSR1:
            supervisor.reopen_audit()
        else:
            complain("this version cannot reload its policy: end it and start it again")
