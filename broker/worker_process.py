"""The worker's process, from its fork to its end.

Here is what it needs before it is a worker. The code that reads what clients send is loaded in this process alone:
the supervisor never has it, and a program that is being started does not wait for it.
"""

import gc
import os
import signal
import socket
import sys
from typing import NoReturn

from policy import Policy
from sandboxed.syscalls import close_all_but

_IGNORED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def run_worker(policy: Policy, control: socket.socket, audit: int, generation: int) -> NoReturn:
    """The whole life of a worker's process, after fork(); it never returns."""
    status = 1
    try:
        os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Listening sockets, and in an embedded broker whatever the program had open, are not the worker's.
        close_all_but((0, 1, 2, control.fileno(), audit))
        from broker.worker import Worker

        gc.freeze()  # what is loaded by now stays: the collector need not look at it again
        gc.enable()
        Worker(policy, control, audit, generation).run()
        status = 0
    except BaseException:  # the last chance to say why
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
