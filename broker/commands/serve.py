"""`fdbroker serve`: the broker as a daemon, in the foreground."""

import argparse
import contextlib
import functools
import os
import signal
from collections.abc import Callable, Sequence

from broker.admin_client import ADMIN_SOCKET
from broker.administration import Administration
from broker.audit import MODES, REQUIRED, AuditLog
from broker.commands.common import say
from broker.commands.policies import audit_to, policy_to_serve
from broker.confinement_report import LANDLOCK, SECCOMP, Setting
from broker.identity import Accounts, IdentityReader
from broker.listeners import ListenError, listen
from broker.policyfiles import TIERS
from broker.reloading import Reloader, Sockets
from broker.supervisor import Supervisor, complain
from broker.unusable import Unusable
from policy import Policy, SocketDeclaration
from sandboxed.client import DEFAULT_SOCKET
from sandboxed.confinement.sandbox import LayerMissing
from sandboxed.syscalls import signalfd

# The user that the worker becomes where root is the broker's, if there is one of that name.
ACCOUNT = "fdbroker"

_STOP = (signal.SIGTERM, signal.SIGINT)
_RELOAD = signal.SIGHUP
_REOPEN = signal.SIGUSR1
_HANDLED = (*_STOP, _RELOAD, _REOPEN)

_EPILOG = """\
The broker opens what its own user can open: start it as root, or as a user for that user's programs.
A rule that says more than this version keeps (a lease, say) is refused, unless it says `accept: [CODE]`;
`fdbroker check` shows the code.
It ends on SIGTERM and SIGINT. On SIGHUP it reads its policy again, and serves by the new one when that is good as a
whole: connections stay, no request is lost, and each is answered by one of the two. A policy with a mistake changes
nothing, and is told on standard error and in the audit. A policy's files are never read because they changed.
On SIGUSR1 it goes on in a new audit file: rename the old one before.

exit status: 0 ended by a signal, 1 it failed or lost audit records, 2 it could not start
"""


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal ends it."""
    options = _parser().parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, (_REOPEN,))  # the log's rotation may come while it starts
    sockets = Sockets(options.socket)
    try:
        policy = policy_to_serve(options.policy)
        audit = audit_to(options.audit, standard=1)
        sockets.listening.update(sockets.missing(policy))
    except (Unusable, ListenError) as error:
        say("serve", error)
        return 2
    return _serve(
        policy,
        AuditLog(audit, complain, options.audit_mode),
        sockets,
        lambda: policy_to_serve(options.policy),
        _admin_declaration(options),
        options.policy,
        Setting(ACCOUNT, frozenset(options.weak)),
    )


def _admin_declaration(options: argparse.Namespace) -> SocketDeclaration | None:
    path = options.admin_socket or (ADMIN_SOCKET if options.socket == DEFAULT_SOCKET else None)
    if path is None:
        return None
    return SocketDeclaration(
        "admin", path, None, options.admin_group, 0o660 if options.admin_group else 0o600
    )


def _drift(load: Callable[[], Policy], digest: str) -> str:
    """How the policy's files differ from the policy of that digest."""
    try:
        now = load().digest
    except Unusable as error:
        return f"the files changed, and do not load: {error}"
    return (
        ""
        if now == digest
        else f"the files changed: they are policy {now}, which `fdbroker reload` takes into use"
    )


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
        "--admin-socket",
        metavar="PATH",
        help="where `fdbroker status` and its kin connect; only root can "
        f"(default: {ADMIN_SOCKET}, or none with another --socket)",
    )
    parser.add_argument(
        "--admin-group",
        metavar="GROUP",
        help="a group whose members may use the admin socket too: they see all, and can reload and revoke",
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
    parser.add_argument(
        "--weak",
        metavar="LAYER",
        action="append",
        default=[],
        choices=(LANDLOCK, SECCOMP),
        help="go on without LAYER of the worker's confinement if this machine cannot give it: landlock, seccomp; "
        "may be repeated",
    )
    return parser


def _serve(
    policy: Policy,
    audit: AuditLog,
    sockets: Sockets,
    load: Callable[[], Policy],
    admin: SocketDeclaration | None,
    policy_path: str | None,
    setting: Setting,
) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    listeners = list(sockets.listening.values())
    try:
        reader = IdentityReader(Accounts(policy))
        signals = signalfd(_HANDLED)
        admin_listener = None if admin is None else listen(admin)
        supervisor = Supervisor(policy, audit, listeners, reader.of_connection, setting=setting)
        reloader = Reloader(supervisor, load, sockets, reader)
        administration = (
            None
            if admin_listener is None
            else Administration(
                supervisor, reloader, audit, admin_listener, functools.partial(_drift, load), policy_path
            )
        )
    except (OSError, ListenError, LayerMissing) as error:
        for listener in listeners:
            listener.close()
        say("serve", error)
        return 2
    for layer in supervisor.missing:
        complain(f"the worker goes without the layer {layer.layer!r}, as --weak says: {layer.reason}")
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
        if administration is not None:
            administration.close()
        os.close(signals)
    return 1 if supervisor.lost_records else 0


def _on_signal(fd: int, supervisor: Supervisor, reloader: Reloader) -> None:
    with contextlib.suppress(BlockingIOError):
        # The first four bytes of struct signalfd_siginfo are the signal's number.
        number = int.from_bytes(os.read(fd, 128)[:4], "little")
        if number in _STOP:
            supervisor.stop()
        elif number == _REOPEN:
            supervisor.reopen_audit()
        else:
            reloader.ask(lambda reloaded: None)  # what comes of it is told on standard error and in the audit
