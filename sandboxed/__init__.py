"""The unprivileged side of fdbroker: ask a broker for files and devices, and be confined.

    import sandboxed

    with sandboxed.connect() as client, client.open("/dev/hwrng", "rb") as device:
        device.read(16)

The names below need the standard library alone. Confinement lives in modules of its own
(`sandboxed.confinement.layers`), which this one never imports.
"""

from sandboxed.client import Client, connect
from sandboxed.descriptors import OwnedFd
from sandboxed.errors import (
    BrokerError,
    Busy,
    ConnectionLost,
    Denied,
    NoBroker,
    ProtocolError,
    RequestError,
    TimedOut,
)

__all__ = [
    "BrokerError",
    "Busy",
    "Client",
    "ConnectionLost",
    "Denied",
    "NoBroker",
    "OwnedFd",
    "ProtocolError",
    "RequestError",
    "TimedOut",
    "connect",
]
