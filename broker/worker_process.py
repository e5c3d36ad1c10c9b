"""The worker's process, from its fork to its end.

Here is what it needs before it is a worker. The code that reads what clients send is loaded in this process alone:
the supervisor never has it, and a program that is being started does not wait for it. When all is loaded and open,
and before a byte of a client's is read, the process is confined for ever (`broker.confinement`); the supervisor is
told how, as the first thing that it hears.
"""

import gc
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

from broker.introduction import READY
from policy import Policy
from sandboxed.syscalls import close_all_but

if TYPE_CHECKING:
    from broker.confinement_report import Setting

_IGNORED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def run_worker(
    policy: Policy, control: socket.socket, audit: int, generation: int, setting: "Setting"
) -> NoReturn:
    """The whole life of a worker's process, after fork(); it never returns."""
    status = 1
    try:
        os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Listening sockets, and in an embedded broker whatever the program had open, are not the worker's.
        close_all_but((0, 1, 2, control.fileno(), audit))
        from broker.confinement import confine, raise_limits
        from broker.worker import Worker

        raise_limits()
        worker = Worker(policy, control, audit, generation)
        _load_what_tells_of_mistakes()
        confinement, held = confine(policy, setting, worker.opener)

        gc.freeze()  # what is loaded by now stays: the collector need not look at it again
        gc.enable()
        control.send(READY + confinement.encoded())
        worker.run()
        held.clear()
        status = 0
    except BaseException:  # the last chance to say why
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _load_what_tells_of_mistakes() -> None:
    """Python loads some of it when it is needed first: too late for who can open no file any more."""
    import traceback  # in the worker alone: who starts a program does not wait for it

    try:
        raise RuntimeError
    except RuntimeError:
        traceback.format_exc()
