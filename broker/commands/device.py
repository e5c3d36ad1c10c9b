"""`fdbroker device`: selectors for one device, ready to paste into a policy."""

import argparse
import json
import os
import stat
from collections.abc import Sequence
from typing import Any

from broker.commands.common import say
from broker.found import DEVICES, TYPES
from broker.selectors import ATTRIBUTES, Advice, Node, advise, policy_text
from broker.survey import nodes_below_dev
from broker.textlines import printable_line
from broker.unusable import Unusable
from policy.devices import Device
from sandboxed.syscalls import statx_birth

# What tells devices apart, by udev and by sysfs, in the order in which it is shown.
_PROPERTIES = (
    *("ID_BUS", "ID_VENDOR_ID", "ID_MODEL_ID", "ID_VENDOR", "ID_MODEL", "ID_SERIAL", "ID_SERIAL_SHORT"),
    *("ID_USB_INTERFACE_NUM", "ID_PATH", "ID_SEAT", "ID_FS_LABEL", "ID_FS_UUID", "DEVTYPE", "DEVLINKS"),
)
_CHOSEN_BY_THE_DEVICE = frozenset(("ID_SERIAL", "ID_SERIAL_SHORT", "ID_FS_LABEL", "ID_FS_UUID"))

_EPILOG = """\
The groups go from wide to narrow: all of this make and model; this one, by its serial; what is in this port. Take
one, give it a name, and let rules say `devices: [NAME]`. Each was loaded and held against the device before it is
shown, with the number of nodes that it matches now. A serial is the device's own word; where another present device has
the same, it is left out. Names such as ttyUSB0 and most numbers change with the order in which devices are found.

  fdbroker device /dev/ttyUSB0
  fdbroker device /dev/serial/by-id/usb-FTDI_A502 > 20-devices.yaml
  fdbroker device /dev/ttyUSB0 --json | jq -r '.suggestions[] | select(.stable) | .name'

exit status: 0 it can be told from others by something stable, 1 only by its number, which changes, 2 there is no such
node, it is no device, or it may not be looked at
"""


def main(arguments: Sequence[str]) -> int:
    """Show the selectors for the node that `arguments` name."""
    options = _parser().parse_args(arguments)
    try:
        reader = _Reader()
        path = os.path.realpath(options.node)
        node = reader.node(path)
        others = (reader.node_or_none(one) for one in nodes_below_dev()[0] if not os.path.islink(one))
        present = [one for one in others if one is not None and one.path != path]
        advice = advise(node, [node, *present])
    except Unusable as error:
        say("device", printable_line(str(error)))
        if options.json:
            print(json.dumps({"suggestions": None, "error": str(error)}))
        return 2
    if options.json:
        print(json.dumps(_as_json(options.node, node, advice)))
    else:
        print(_as_text(options.node, node, advice))
    return 0 if advice.stable else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker device",
        description="Show what a device is known by, and print groups of `devices:` for a policy that are for it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("node", metavar="NODE", help="a device node, or a link to one")
    return parser


class _Reader:
    """Reads nodes as the broker does."""

    def __init__(self) -> None:
        """Raises Unusable where devices cannot be looked up."""
        try:
            from broker.devices import DeviceReader  # loads pyudev and libudev
        except ImportError as error:
            raise Unusable(f"{error} (Debian: apt-get install libudev1)") from None
        self._devices = DeviceReader(sorted(ATTRIBUTES))

    def node(self, path: str) -> Node:
        """The device node at `path`, which is no link. Raises Unusable."""
        try:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise Unusable(f"{path} cannot be looked at: {reason}") from None
        try:
            # By the name: what stands in for device nodes in tests answers to that alone.
            status = os.stat(path, follow_symlinks=False)
            kind = TYPES.get(stat.S_IFMT(status.st_mode))
            if kind is None or kind not in DEVICES:
                what = kind.value if kind is not None else "nothing that a policy knows"
                raise Unusable(f"{path} is no device node but {what}")
            device = self._devices.read(kind, status.st_rdev, statx_birth(fd)).device
        except OSError as error:
            raise Unusable(f"{path} cannot be looked at: {error.strerror}") from None
        finally:
            os.close(fd)
        return Node(path, kind, device)

    def node_or_none(self, path: str) -> Node | None:
        """The same; None for what is no such node any more."""
        try:
            return self.node(path)
        except Unusable:
            return None


def _facts(device: Device) -> list[tuple[str, str]]:
    """What is known of the device, as names and values."""
    facts = [("subsystem", device.subsystem)] if device.subsystem else []
    known = device.properties or {}
    facts += [(f"udev {name}", known[name]) for name in _PROPERTIES if name in known]
    for one in device.attributes or ():
        facts += [(f"attr {name}", value) for name, value in sorted(one.items()) if value]
    return facts


def _as_text(asked: str, node: Node, advice: Advice) -> str:
    number = node.device.number or (0, 0)
    leads = f" -> {node.path}" if asked != node.path else ""
    lines = [f"# {asked}{leads}: {node.kind.value} {number[0]}:{number[1]}"]
    for name, value in _facts(node.device):
        own_word = "   (the device's own word)" if name.split()[-1] in _CHOSEN_BY_THE_DEVICE else ""
        empty = "" if value else "(empty)"
        lines.append(f"#   {name} = {value}{empty}{own_word if value else ''}")
    lines += [f"# NOTE: {remark}" for remark in advice.remarks]
    lines.append("version: 1")
    return "\n".join([*map(printable_line, lines), policy_text(advice.suggestions).rstrip("\n")])


def _as_json(asked: str, node: Node, advice: Advice) -> dict[str, Any]:
    device = node.device
    return {
        "asked": asked,
        "node": node.path,
        "type": node.kind.value,
        "device": None if device.number is None else f"{device.number[0]}:{device.number[1]}",
        "subsystem": device.subsystem,
        "udev": None if device.properties is None else dict(device.properties),
        "attrs": [dict(one) for one in device.attributes or ()],
        "stable": advice.stable,
        "suggestions": [
            {
                "name": one.name,
                "selector": one.conditions,
                "about": one.about,
                "stable": one.stable,
                "matches": one.matches,
                "yaml": policy_text([one], comments=False),
            }
            for one in advice.suggestions
        ],
        "remarks": advice.remarks,
    }
