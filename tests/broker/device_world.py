"""A machine with USB serial adapters, as a program that umockdev's wrapper runs: it runs fdbroker there.

Arguments: a JSON list of adapters, each [port, minor, {property: value} or null], and the words for fdbroker.
"""

import ctypes
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from broker.main import main
from tests.udev_world import Adapters, make_world


class AdaptersWithNodes(Adapters):
    """Adapters that have a node below /dev too."""

    def plug_unknown(self, port: str, minor: int) -> None:
        usb = f"/devices/pci0000:00/usb1/{port}"
        text = (
            f"P: {usb}\nE: SUBSYSTEM=usb\nA: idVendor=0403\\n\nA: idProduct=6001\\n\n\n"
            f"P: {usb}/{port}:1.0/ttyUSB{minor}/tty/ttyUSB{minor}\nN: ttyUSB{minor}\nE: SUBSYSTEM=tty\n"
            f"E: DEVNAME=/dev/ttyUSB{minor}\nE: MAJOR=188\nE: MINOR={minor}\nA: dev=188:{minor}\\n\n"
        )
        error = ctypes.c_void_p()
        assert self._library.umockdev_testbed_add_from_string(self._bed, text.encode(), ctypes.byref(error))


if __name__ == "__main__":
    make_world()
    adapters = AdaptersWithNodes()
    for port, minor, properties in json.loads(sys.argv[1]):
        if properties is None:
            adapters.plug_unknown(port, minor)
        else:
            adapters.plug(port, minor, **properties)
    status = main(sys.argv[2:])
    sys.stdout.flush()
    sys.exit(status)
