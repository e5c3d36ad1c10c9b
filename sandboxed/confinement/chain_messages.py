"""What the processes of a starting sandbox say to the caller, each message a packet of its own.

The kernel adds whose words they are (SCM_CREDENTIALS). Whatever else comes is a report of failure.
"""

import json
import os
import socket
from collections.abc import Callable
from typing import TypeVar

from sandboxed.child import CommandNotExecutable, CommandNotFound
from sandboxed.confinement.sandbox import LayerMissing, StartError

# Bytes of one message.
MESSAGE_BYTES = 4096

INIT = b"init"  # the init is there
TERMINAL = b"terminal"  # with the fd of the program's terminal
PROGRAM = b"program"  # its process is confined, and waits for GO

# And the caller to the program's process: go on.
GO = b"go"

_REPORTED = {kind.__name__: kind for kind in (StartError, CommandNotExecutable, CommandNotFound)}

Result = TypeVar("Result")


def run_or_report(to: socket.socket, step: Callable[[], Result]) -> Result:
    """What `step` returns. What goes wrong must reach the caller, and never the code that called fork."""
    try:
        return step()
    except BaseException as error:
        try:
            to.send(_report(error))
        finally:
            os._exit(StartError.exit_status)


def _report(error: BaseException) -> bytes:
    kind = type(error).__name__
    if isinstance(error, LayerMissing):
        content = {"kind": kind, "layer": error.layer, "reason": error.reason, "help": error.help}
    else:
        message = str(error) if isinstance(error, (StartError, RuntimeError)) else f"{kind}: {error}"
        # Cut before it is encoded: escapes make up to twelve bytes of a character.
        content = {"kind": kind, "message": message[: MESSAGE_BYTES // 16]}
    return json.dumps(content).encode("ascii")


def reported(report: bytes) -> StartError:
    """The error that a report is of."""
    content = json.loads(report)
    if content["kind"] == LayerMissing.__name__:
        return LayerMissing(content["layer"], content["reason"], content["help"])
    return _REPORTED.get(content["kind"], StartError)(content["message"])
