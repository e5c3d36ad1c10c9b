"""The options of `fdbroker run` as argparse has them: what each is, the help, and what is wrong with a command line."""

import argparse
from typing import NoReturn

from broker.commands.run_options import OWN_TROUBLE
from sandboxed.confinement.sandbox import LAYERS, LOOPBACK, NETWORKS

_USAGE = "fdbroker run [--policy FILE | --socket PATH] [options] [--] CMD …"

_EPILOG = """\
What CMD has: an empty root of its own with the system's programs and libraries (/usr, /lib, a little of /etc), all
of it read-only; a directory of its own (HOME, /sandbox), /tmp and /dev/shm, in memory and gone at the end; the devices
null, zero, full, random, urandom, and terminals of its own; a loopback of its own. It has no capabilities, no
groups, none of your files, sockets, processes or variables. As root it is an unused uid of its own, or USER.
--dry-run shows all of it as a table, and starts nothing. CMD starts in the directory where you stand if that, or
something in it, is shown, else in HOME. The permissions of files hold: as root, name their owner with --user.

What the policy gives it, it asks for: `fdbroker open`, the Python library, or Varlink at the connection
that FDBROKER_FD names (and with --socket at FDBROKER_SOCKET). The paths of a policy are those of the machine.

  fdbroker run --policy kvm.yaml -- fdbroker open /dev/kvm --access use
  fdbroker run --policy kvm.yaml --ro ~/images --work ~/out -- ./convert ~/images/a.img
  fdbroker run --policy ~/nothing.yaml --rw . -- make      (a policy may be just "version: 1": the sandbox alone)
  fdbroker run --socket /run/fdbroker/fdbroker.sock --net host -- curl https://example.org

A layer that this machine cannot give ends the start and says what would help. --weak LAYER goes on without it, in
the weaker sandbox that is left: namespaces (then CMD makes no Unix sockets and has no network but with --net host),
landlock, seccomp. It is told on standard error and written in the audit.

exit status: CMD's own (128 + n when signal n ended it); 125 fdbroker's own trouble, 126 CMD cannot be
executed, 127 there is no CMD
"""


class _Parser(argparse.ArgumentParser):
    """Exits with 125 for a wrong command line: 2 could be CMD's."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(OWN_TROUBLE if status else 0, message)


def parser() -> argparse.ArgumentParser:
    """The parser of `fdbroker run`."""
    made = _Parser(
        prog="fdbroker run",
        usage=_USAGE,
        description="Run CMD in a sandbox, with a broker for the files and devices that it may have.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_broker(made.add_argument_group("the broker"))
    _add_sandbox(made.add_argument_group("the sandbox"))
    _add_showing(made.add_argument_group("showing it"))
    made.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="CMD …", help="the command and its arguments"
    )
    return made


def _add_broker(group: argparse._ArgumentGroup) -> None:
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--policy",
        metavar="FILE",
        help="be the broker for CMD, by the policy file or directory FILE; no daemon is needed",
    )
    source.add_argument(
        "--socket",
        metavar="PATH",
        help="connect CMD to the broker that listens at PATH (default without --policy: FDBROKER_SOCKET, or the "
        "system's)",
    )
    group.add_argument(
        "--audit",
        metavar="FILE|journal",
        help="with --policy: append a JSON line for each decision to FILE (-: standard error), or send them to "
        "systemd's journal",
    )


def _add_sandbox(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--user", metavar="USER", help="as root: run CMD as USER (default: an unused uid of its own)"
    )
    group.add_argument(
        "--ro",
        metavar="PATH",
        action="append",
        help="show PATH, read-only, with all below it; may be repeated",
    )
    group.add_argument(
        "--rw",
        metavar="PATH",
        action="append",
        help="show PATH, and let CMD write; may be repeated",
    )
    group.add_argument(
        "--work",
        metavar="DIR",
        help="make DIR the program's own directory (HOME); what it writes there stays",
    )
    group.add_argument(
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        help="pass the variable NAME, or set it; may be repeated",
    )
    group.add_argument(
        "--net",
        choices=NETWORKS,
        help=f"the network: none, a loopback of its own, or all that the host reaches (default: {LOOPBACK})",
    )
    group.add_argument(
        "--profile",
        metavar="NAME|FILE",
        help="what a profile gives, beside the options: see docs/profiles.md; ready are command-line, daemon, "
        "network-client",
    )
    group.add_argument(
        "--weak",
        metavar="LAYER",
        action="append",
        choices=LAYERS,
        help=f"start without LAYER if this machine cannot give it: {', '.join(LAYERS)}; may be repeated",
    )


def _add_showing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--dry-run", action="store_true", help="show what CMD would have, and start nothing")
    group.add_argument("--json", action="store_true", help="with --dry-run: print one JSON object")
