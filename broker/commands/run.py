"""`fdbroker run`: a command in a sandbox, with a broker for what it may have.

The sandbox is begun first, and the broker made while the kernel and the other processor build it: together they
take half the time that they would one after the other. Its program waits until both are ready.
"""

import contextlib
import gc
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from broker.commands.common import audit_file, say
from broker.commands.run_options import OWN_TROUBLE, Options, environment_of, parse, sandbox_of, socket_of
from broker.connections import made_inside, make_inside
from broker.installation import own_trees, refuse_writable
from broker.unusable import Unusable
from sandboxed.child import Child
from sandboxed.confinement.identities import IdentityError, lookup, unused_uid
from sandboxed.confinement.launch import start
from sandboxed.confinement.sandbox import LayerMissing, Sandbox, StartError
from sandboxed.confinement.session import SESSION_SIGNALS, attend
from sandboxed.confinement.weak import start_accepting
from sandboxed.signals import Signals

if TYPE_CHECKING:
    from broker.embedded import EmbeddedBroker
    from policy.profile import Profile


class _Who(NamedTuple):
    uid: int | None
    gid: int | None


def main(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name, and return its exit status."""
    _open_standard_files()
    try:
        options = parse(arguments)
        profile = _profile(options.profile)
        with _identity(options.user) as who:
            sandbox = sandbox_of(options, profile, who.uid, who.gid)
            refuse_writable(_trusted(options), [*sandbox.writable, *([sandbox.work] if sandbox.work else [])])
            if options.dry_run:
                # Nobody waits for a table as for a command: only it pays for what draws it.
                from broker.commands.dry_run import show

                return show(options, profile, sandbox)
            with Signals(SESSION_SIGNALS) as signals:
                run = _Run(options, profile, signals)
                return run.embedded(sandbox) if options.policy is not None else run.connected(sandbox)
    except StartError as error:
        say("run", error)
        return error.exit_status
    except (Unusable, IdentityError, OSError) as error:
        say("run", error)
        return OWN_TROUBLE


def _open_standard_files() -> None:
    """Of standard input, output and error those that are closed: what we open must not be taken for them."""
    while (null := os.open("/dev/null", os.O_RDWR)) <= 2:
        pass
    os.close(null)


def _profile(name: str | None) -> "Profile | None":
    if name is None:
        return None
    from broker.commands.policies import profile_from  # YAML is read only for those who name one

    return profile_from(name)


def _trusted(options: Options) -> list[str]:
    """What is read again at the next start. An audit that is not there yet will be."""
    named = [options.policy or socket_of(options), audit_file(options.audit)]
    if options.profile is not None:
        from broker.profiles import place_of  # it was read by then

        named.append(place_of(options.profile))
    return [*own_trees(), *(path for path in named if path is not None)]


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


class _Run:
    """One run of a command."""

    def __init__(self, options: Options, profile: "Profile | None", signals: Signals) -> None:
        self._options = options
        self._profile = profile
        self._signals = signals

    def embedded(self, sandbox: Sandbox) -> int:
        """With a broker of its own, this process."""
        options = self._options
        policy_path = options.policy
        assert policy_path is not None
        with contextlib.ExitStack() as stack:
            brokers: list[EmbeddedBroker] = []
            courier, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(courier)
            stack.enter_context(theirs)

            def make_broker() -> None:
                from broker.commands.policies import audit_to, policy_to_serve
                from broker.embedded import EmbeddedBroker

                if not brokers:  # a second attempt, without a layer, has the first one's broker
                    audit = audit_to(options.audit, standard=2)
                    stack.callback(audit.close)
                    policy = policy_to_serve(policy_path)
                    brokers.append(stack.enter_context(EmbeddedBroker(policy, audit, options.weak)))

            number = theirs.fileno()
            sandbox = sandbox._replace(keep=(number,), broker_is_parent=True)
            child, sandbox, missing = self._start(
                stack, sandbox, {"FDBROKER_FD": str(number)}, lambda: make_inside(theirs), make_broker
            )
            theirs.close()
            ours = stack.enter_context(made_inside(courier))
            return brokers[0].serve(ours, child, sandbox, missing, self._signals)

    def connected(self, sandbox: Sandbox) -> int:
        """With the broker that listens somewhere."""
        path = socket_of(self._options)
        if not os.path.exists(path):
            raise StartError(
                f"no broker answers at {path}: No such file or directory (be one yourself with --policy)"
            )
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))

            def connect() -> None:
                # With CMD's identity: the broker sees who connects, and refuses other senders. By a socket of CMD's own
                # network: another would tell of ours (netdevice(7)).
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as inside:
                    try:
                        inside.connect(path)
                    except OSError as error:
                        raise StartError(f"no broker answers at {path}: {error.strerror}") from error
                    os.dup2(inside.fileno(), number)

            number = connection.fileno()
            sandbox = sandbox._replace(keep=(number,), socket=path)
            extra = {"FDBROKER_FD": str(number), "FDBROKER_SOCKET": path}
            child, _, _ = self._start(stack, sandbox, extra, connect, None)
            connection.close()
            gc.enable()
            return attend(child, self._signals)

    def _start(
        self,
        stack: contextlib.ExitStack,
        sandbox: Sandbox,
        extra: dict[str, str],
        in_child: Callable[[], None] | None,
        meanwhile: Callable[[], None] | None,
    ) -> tuple[Child, Sandbox, list[LayerMissing]]:
        """Start the command, without the layers that are missing if that was accepted."""
        options = self._options

        def attempt(wanted: Sandbox) -> Child:
            environment = environment_of(options, self._profile, wanted, extra)
            return start(
                options.command,
                wanted,
                environment,
                in_child,
                mask=self._signals.original_mask,
                meanwhile=meanwhile,
            )

        child, sandbox, missing = start_accepting(options.weak, sandbox, attempt, stack)
        assert child is not None  # only fork_confined has another half
        stack.enter_context(child)
        for error in missing:
            say("run", f"goes on without the layer {error.layer!r}, as --weak says: {error.reason}")
        return child, sandbox, missing
