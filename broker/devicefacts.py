"""What a decision needs to know of a device: looked up where a rule asks for it, and held against a second look.

pyudev is loaded for a policy that asks for more than numbers, and for no other.
"""

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from broker.found import DEVICES
from broker.walk import Walked
from policy import FileType, Object, Peer, Policy, Request
from policy.devices import Device
from sandboxed.syscalls import statx_birth

if TYPE_CHECKING:
    from broker.devices import DeviceReader


class Seen(NamedTuple):
    """An object with what is known of it as a device."""

    object: Object
    settled: bool = True  # nothing was looked up that another device could answer in another way
    kind: FileType | None = None
    number: int = 0
    mark: tuple[str | None, ...] = ()


class DeviceFacts:
    """Looks up devices for one policy."""

    def __init__(self, policy: Policy, shows: bool = False) -> None:
        """`shows` says that devices are described to somebody, whatever the policy needs."""
        self._policy = policy
        self._reader = _reader_for(policy) if policy.needs_devices or shows else None

    def of(self, request: Request, peer: Peer, found: Object, walked: Walked) -> Seen:
        """The object with its device: as much as the verdict on `request` can depend on."""
        kind = found.type
        if kind not in DEVICES or kind is None:
            return Seen(found)
        number = walked.status.st_rdev
        with_number = found._replace(device=Device((os.major(number), os.minor(number))))
        if not self._policy.needs_device_facts(request, peer, with_number):
            return Seen(with_number)
        if self._reader is None:
            return Seen(with_number, settled=False)
        reading = self._reader.read(kind, number, _birth(walked.fd))
        return Seen(found._replace(device=reading.device), False, kind, number, reading.mark)

    def all_of(self, found: Object, walked: Walked) -> Object:
        """The object with all that is known of it as a device, for those who show it."""
        if found.type is None or found.type not in DEVICES:
            return found
        number = walked.status.st_rdev
        if self._reader is None:
            return found._replace(device=Device((os.major(number), os.minor(number))))
        return found._replace(device=self._reader.read(found.type, number, _birth(walked.fd)).device)

    def is_still(self, seen: Seen) -> bool:
        """Tell whether the device is the one that was seen, where it matters."""
        if seen.kind is None or self._reader is None:
            return True
        return self._reader.is_still(seen.kind, seen.number, seen.mark)


def _reader_for(policy: Policy) -> "DeviceReader | None":
    try:
        from broker.devices import DeviceReader  # most policies need none, and loading takes 20 ms
    except ImportError as error:
        print(
            f"fdbroker: {error}: of devices nothing is known but their numbers, so a rule that asks for more allows "
            "nothing, or denies all that it may be for (Debian: apt-get install libudev1)",
            file=sys.stderr,
        )
        return None
    return DeviceReader(policy.attributes)


def _birth(fd: int) -> int | None:
    try:
        return statx_birth(fd)
    except OSError:
        return None
