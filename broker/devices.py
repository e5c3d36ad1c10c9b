"""What a device node stands for: sysfs and udev's database, read through pyudev.

Rules that this module enforces:
- udev's word counts only for the device that is there now. An entry of the database that is older than the node, by
  its file or by the moment at which udev first saw the device, speaks of one that had the number before: then udev's
  properties are not known, and the same where the age of the node is not.
- what could not be read is not known, and is never taken for absent;
- `Reading.mark` names this very device: a reader that finds another after the open has opened another one.

What that means for a verdict is the policy's to say.
"""

import os
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyudev

from policy import FileType
from policy.devices import Device

_DATABASE = "/run/udev/data"
_USEC_INITIALIZED = "USEC_INITIALIZED"
_KINDS = {FileType.CHAR: ("char", "c"), FileType.BLOCK: ("block", "b")}

# Devices above one that are looked at for attributes. The deepest real ones have about twenty.
_LEVELS = 64


class Reading(NamedTuple):
    """A device's facts, and what tells it from any other that has or had its number."""

    device: Device
    mark: tuple[str | None, ...]
    """Path below /sys, the moment at which udev first saw it, the sequence number of a disk."""


class DeviceReader:
    """Reads the facts about devices by their numbers."""

    def __init__(self, attributes: Iterable[str] = ()) -> None:
        """`attributes` are the sysfs attributes to read. Raises ImportError where there is no libudev."""
        self._attributes = tuple(attributes)
        self._context = pyudev.Context()

    def read(self, kind: FileType, number: int, born: int | None) -> Reading:
        """Return what is known of the device with that number (st_rdev).

        `born` is when its node was made, in ns since 1970, by sandboxed.syscalls.statx_birth().
        """
        major_minor = (os.major(number), os.minor(number))
        try:
            found = pyudev.Devices.from_device_number(self._context, _KINDS[kind][0], number)
            properties = dict(found.properties)
            mark = (found.device_path, properties.get(_USEC_INITIALIZED), _text(_attribute(found, "diskseq")))
            known = found.is_initialized and self._is_of_this_node(kind, number, born, properties)
            return Reading(
                Device(
                    major_minor,
                    found.subsystem or "",
                    properties if known else None,
                    tuple(self._attributes_of(one) for one in _chain(found)) if self._attributes else (),
                ),
                mark,
            )
        except (pyudev.DeviceNotFoundError, OSError, UnicodeDecodeError):
            # It has no sysfs entry, or has gone meanwhile.
            return Reading(Device(major_minor), ())

    def is_still(self, kind: FileType, number: int, mark: tuple[str | None, ...]) -> bool:
        """Tell whether the device with that number is the one that `mark` is of."""
        return self.read(kind, number, None).mark == mark

    @staticmethod
    def _is_of_this_node(kind: FileType, number: int, born: int | None, properties: dict[str, str]) -> bool:
        if born is None:
            return False
        entry = f"{_DATABASE}/{_KINDS[kind][1]}{os.major(number)}:{os.minor(number)}"
        seen = properties.get(_USEC_INITIALIZED, "")
        if not seen.isdecimal():
            return False
        # udev counts from the boot, without what was slept. A clock that was set back makes entries look too old:
        # then they are not known, until udev writes them anew.
        first_seen = time.time_ns() - (time.monotonic_ns() - int(seen) * 1000)
        return os.stat(entry).st_mtime_ns >= born and first_seen >= born

    def _attributes_of(self, device: Any) -> dict[str, str | None]:
        read: dict[str, str | None] = {}
        for name in self._attributes:
            value = _attribute(device, name)
            if value is not None:
                # As udev compares them: what ends a line is none of the value.
                read[name] = value.decode("utf-8", "surrogateescape").rstrip()
            elif os.path.lexists(os.path.join(device.sys_path, name)):
                read[name] = None
        return read


def _attribute(device: Any, name: str) -> bytes | None:
    try:
        value: bytes = device.attributes.get(name)
    except OSError:
        return None
    return value


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _chain(device: Any) -> Iterable[Any]:
    """The device and those above it."""
    for _ in range(_LEVELS):
        yield device
        device = device.parent
        if device is None:
            return
