"""`fdbroker open`: one open from the shell."""

import argparse
import errno
import json
import os
import select
import sys
from collections.abc import Sequence

from sandboxed.child import Child, spawn
from sandboxed.client import Client, connect
from sandboxed.confinement.sandbox import StartError
from sandboxed.descriptors import OwnedFd
from sandboxed.errors import BrokerError, Denied, NoBroker, RequestError
from sandboxed.signals import Signals

_NO = 1
_UNUSABLE = 2
_NO_BROKER = 3
OWN_TROUBLE = 125

# sd_listen_fds(3): the first fd that is passed
_LISTEN_FDS_START = 3

# What the broker takes of the parameters that a command line gives as words.
_WORDS = {
    "access": "--access takes read, write, append, truncate, ioctl, use, edit, with commas, and one of read, write, "
    "append must be among them",
    "flags": "--flag takes one of direct, dsync, excl, nofollow, nonblock, sync, and may be repeated",
}

_EPILOG = """\
RIGHTS are the policy's words, with commas: read, write, append, truncate, ioctl; use = read,write,ioctl;
edit = read,write,truncate. With CMD, a parent process keeps the grant until CMD ends. Without CMD the open
is only tried.

  fdbroker open /dev/hwrng --access read -- head -c 16
  fdbroker open /dev/net/tun --access use --listen-fds -- ./vpn

The broker is the one at --socket, else at FDBROKER_SOCKET or FDBROKER_FD, else the system's.

exit status: with CMD its own (128 + n when signal n ended it), 125 when it was not opened, 126 CMD cannot be
executed, 127 there is no CMD; without CMD 0 opened, 1 denied or failed, 2 unusable input, 3 no broker
"""


def main(arguments: Sequence[str]) -> int:
    """Open what `arguments` name, and run their command with it."""
    # Everything behind "--" is the command's, whatever it looks like.
    own, dashes, command = _split(list(arguments))
    try:
        options = _parser().parse_args(own)
    except SystemExit as end:
        if end.code and dashes:
            return OWN_TROUBLE  # argparse's 2 could be CMD's
        raise
    if dashes and not command:
        print("fdbroker open: there is no command behind --", file=sys.stderr)
        return OWN_TROUBLE
    rights = [word for word in options.access.split(",") if word]
    try:
        with (
            connect(options.socket) as client,
            client.open_fd(options.path, rights, flags=options.flag) as fd,
        ):
            if command:
                return _run(client, fd, command, options.listen_fds)
            return _show(fd, options.path, options.json)
    except StartError as error:
        print(f"fdbroker open: {error}", file=sys.stderr)
        return error.exit_status
    except (BrokerError, OSError) as error:
        print(f"fdbroker open: {_explained(error, options.path, options.socket)}", file=sys.stderr)
        if options.json and not command:
            print(json.dumps({"path": options.path, "error": _kind(error)}))
        return OWN_TROUBLE if command else _status(error)


def _split(words: list[str]) -> tuple[list[str], bool, list[str]]:
    """The words before the first "--", whether there is one, and those behind it."""
    if "--" not in words:
        return words, False, []
    place = words.index("--")
    return words[:place], True, words[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker open",
        usage="fdbroker open PATH --access RIGHTS [options] [-- CMD …]",
        description="Open one file or device through the broker; CMD gets it as its standard input.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="PATH", help="absolute path of the file or device")
    parser.add_argument(
        "--access", metavar="RIGHTS", required=True, help="the rights needed, as in read,write"
    )
    parser.add_argument(
        "--flag",
        metavar="FLAG",
        action="append",
        default=[],
        help="an open flag that changes no right: direct, dsync, excl, nofollow, nonblock, sync",
    )
    parser.add_argument("--socket", metavar="PATH", help="the broker's socket")
    parser.add_argument(
        "--listen-fds",
        action="store_true",
        help="pass it as fd 3 with LISTEN_FDS (sd_listen_fds(3)) and leave standard input alone",
    )
    parser.add_argument("--json", action="store_true", help="without CMD: print one JSON object")
    return parser


def _show(fd: OwnedFd, path: str, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"path": path, "grant": fd.grant, "rights": fd.rights}))
    else:
        print(f"{path}: opened with {', '.join(fd.rights)} (grant {fd.grant})")
    return 0


def _run(client: Client, fd: OwnedFd, command: list[str], listen_fds: bool) -> int:
    """Run `command` with the fd. The connection stays here: its end would end the grant."""
    place = _LISTEN_FDS_START if listen_fds else 0

    def place_fd(environment: dict[str, str]) -> None:
        if environment.get("FDBROKER_FD") == str(place):
            # An inherited connection has the number that the fd must get: it moves.
            moved = os.dup(place)
            os.set_inheritable(moved, True)
            environment["FDBROKER_FD"] = str(moved)
        os.dup2(fd.fileno(), place)
        os.set_inheritable(place, True)
        if listen_fds:
            environment |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "fdbroker"}

    with Signals() as signals, spawn(command, place_fd, signals.original_mask) as child:
        return _wait(child, signals)


def _wait(child: Child, signals: Signals) -> int:
    """Pass signals on until the command ends: but not what the terminal sent, which the command got itself."""
    poll = select.poll()
    poll.register(child, select.POLLIN)
    poll.register(signals, select.POLLIN)
    while child.fileno() not in {fd for fd, _ in poll.poll()}:
        for number, typed in signals.take():
            if not typed:
                child.signal(number)
    return child.wait()


# By whether the broker is one of `fdbroker run --policy`: then who asks and who reads the audit may be one person.
_WHY_DENIED = {False: "its administrator sees why in the audit", True: "fdbroker run --audit - shows why"}


def _broker_is_embedded(socket: str | None) -> bool:
    return socket is None and "FDBROKER_SOCKET" not in os.environ and "FDBROKER_FD" in os.environ


def _explained(error: Exception, path: str, socket: str | None) -> str:
    if isinstance(error, Denied):
        return f"{path}: denied by the broker's policy; {_WHY_DENIED[_broker_is_embedded(socket)]}"
    if isinstance(error, OSError) and not isinstance(error, BrokerError):
        return f"{path}: allowed, but the open failed: {error.strerror}"
    if isinstance(error, RequestError) and "InvalidParameter" in str(error):
        return next((words for name, words in _WORDS.items() if f"'{name}'" in str(error)), str(error))
    return str(error)


def _kind(error: Exception) -> str:
    """For machines: what became of it, an errno's name where the open was allowed and failed."""
    if isinstance(error, OSError) and not isinstance(error, BrokerError):
        return errno.errorcode.get(error.errno or 0, "OpenFailed")
    return type(error).__name__


def _status(error: Exception) -> int:
    if isinstance(error, RequestError):
        return _UNUSABLE
    if isinstance(error, NoBroker):
        return _NO_BROKER
    return _NO
