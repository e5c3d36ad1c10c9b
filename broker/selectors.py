"""Selectors for one device, from what all of its sort share to what it alone has.

Each is made as text, loaded by the policy's own loader and held against the device before anybody sees it; one that
does not load, or does not match, is left out and told. Which others of the present nodes it matches is told as well.

What is stable is what does not change when a device is plugged in again or the machine starts: ids, a serial, a port;
and the numbers that the kernel's list of devices gives for good. All other numbers are given out in turn.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from broker.textlines import counted, printable_line
from policy import FileType, PolicyError, Source, load
from policy.devices import Device, any_holds

# Attributes in sysfs that tell what a device is, by the bus that it is on.
_PRODUCT_ATTRIBUTES = (("idVendor", "idProduct"), ("vendor", "device"))
ATTRIBUTES = frozenset((*(name for pair in _PRODUCT_ATTRIBUTES for name in pair), "serial"))

_NAME_LENGTH = 40
_SPECIAL = re.compile(r"[*?\[{}]")
_WILD = re.compile(r"[*?\[]")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9]+:[0-9]+")
# Of a USB device the path ends in its configuration and interface: pci-0000:00:14.0-usb-0:2:1.0.
_USB_INTERFACE = re.compile(r"(-usb-[0-9:.]*):[0-9]+\.[0-9]+.*")

# Numbers that the kernel's list (admin-guide/devices.txt) gives for good: majors with the last fixed minor.
_FIXED = {
    (FileType.CHAR, 1): (0, 255),  # mem, null, zero, random, …
    (FileType.CHAR, 4): (0, 63),  # virtual consoles
    (FileType.CHAR, 5): (0, 63),  # tty, console, ptmx
    (FileType.CHAR, 7): (0, 255),  # what is on virtual consoles
    (FileType.CHAR, 10): (128, 255),  # misc; below and above are those given out in turn
    (FileType.BLOCK, 1): (0, 255),  # ram disks
    (FileType.BLOCK, 7): (0, 255),  # loop
}

Conditions = Mapping[str, str | Mapping[str, str]]


class Node(NamedTuple):
    """A device node that is present."""

    path: str
    kind: FileType
    device: Device


class Suggestion(NamedTuple):
    """A selector that matches the device."""

    name: str
    conditions: Conditions
    """As a policy file has them: a value, or a mapping of names to values."""
    about: tuple[str, ...]
    """What it means, in lines."""
    stable: bool
    matches: tuple[str, ...]
    """The present nodes that it matches, this one among them."""


class Advice(NamedTuple):
    """All that can be said of a device."""

    suggestions: tuple[Suggestion, ...]
    remarks: tuple[str, ...]
    """What is missing, or is not what it looks like."""

    @property
    def stable(self) -> bool:
        """Whether something was found that does not change by itself."""
        return any(one.stable for one in self.suggestions)


def advise(node: Node, present: Sequence[Node]) -> Advice:
    """The selectors for `node`, the widest first; `present` are all nodes, this one among them."""
    return _Adviser(node, present).advice()


def policy_text(suggestions: Iterable[Suggestion], comments: bool = True) -> str:
    """The section `devices:` of a policy file with these groups."""
    lines = ["devices:"]
    for one in suggestions:
        if comments:
            lines += [f"  # {printable_line(text)}" for text in one.about]
            lines += [f"  # {printable_line(_matching(one))}"]
        lines.append(f"  {one.name}:")
        for key, value in one.conditions.items():
            if isinstance(value, str):
                lines.append(f"    {key}: {_quoted(value)}")
            else:
                lines.append(f"    {key}:")
                lines += [f"      {name}: {_quoted(text)}" for name, text in value.items()]
    return "\n".join(lines) + "\n"


def _matching(suggestion: Suggestion) -> str:
    count = len(suggestion.matches)
    shown = " ".join(suggestion.matches[:4]) + (f" and {count - 4} more" if count > 4 else "")
    return f"Now: {counted(count, 'node')}, {shown}"


def _quoted(text: str) -> str:
    """A scalar that is nothing but this text, whatever is in it."""
    if _PLAIN.fullmatch(text):
        return text
    return '"' + "".join(map(_in_quotes, text)) + '"'


def _in_quotes(character: str) -> str:
    """A character between double quotes; YAML 1.1 knows numbers of four and of eight digits."""
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _literally(value: str) -> str:
    """The value pattern that means `value` and nothing else; braces are special beside wildcards alone."""
    return value if _WILD.search(value) is None else _SPECIAL.sub(lambda match: f"[{match[0]}]", value)


class _Adviser:
    def __init__(self, node: Node, present: Sequence[Node]) -> None:
        self._node = node
        self._present = present
        self._remarks: list[str] = []
        self._found: list[Suggestion] = []
        self._properties: Mapping[str, str] = node.device.properties or {}
        self._name = self._base_name()

    def advice(self) -> Advice:
        if self._node.device.properties is None:
            self._remarks.append(
                "udev's database does not know this device (there is none in most containers, or it is older than "
                "the node): its properties cannot be used"
            )
        product = self._product()
        if product:
            self._offer("", {**self._sort(), **product}, self._about_product(), True)
        self._offer_serial(product)
        port = self._properties.get("ID_PATH", "")
        if port:
            about = (
                f"Whatever of that sort is plugged in there: port {port}. Of use where two devices are alike."
            )
            self._offer("port", {**self._sort(), "udev": {**self._part(), "ID_PATH": port}}, [about], True)
            if product:
                about = "This product, and only in that port."
                both = _merged(product, {"udev": {"ID_PATH": port}})
                self._offer("product-port", {**self._sort(), **both}, [about], True)
        self._offer_number()
        if self._node.path.startswith("/dev/pts/") and self._node.path != "/dev/pts/ptmx":
            self._remarks.append(
                "a pseudoterminal comes and goes with its session: no selector is for it alone"
            )
        return Advice(tuple(self._found), tuple(self._remarks))

    def _base_name(self) -> str:
        words = (
            self._properties.get("ID_MODEL", ""),
            self._properties.get("ID_SERIAL", ""),
            self._node.path.rpartition("/")[2],
        )
        for word in words:
            name = re.sub(r"[^A-Za-z0-9]+", "-", word).strip("-").lower()[:_NAME_LENGTH]
            if name:
                return name
        return "device"

    def _sort(self) -> dict[str, str]:
        """What it is by its sort: the type, and the kernel's subsystem."""
        subsystem = self._node.device.subsystem
        sort = {"type": self._node.kind.value}
        return {**sort, "subsystem": _literally(subsystem)} if subsystem else sort

    def _part(self) -> dict[str, str]:
        """Which part of a disk it is: a whole one and its partitions share all that tells what they are."""
        names = ("DEVTYPE", "ID_PART_ENTRY_NUMBER") if self._node.kind is FileType.BLOCK else ()
        return {name: _literally(self._properties[name]) for name in names if self._properties.get(name)}

    def _product(self) -> dict[str, Mapping[str, str]]:
        """What all devices of this make and model share; nothing where nobody says."""
        vendor, model = self._properties.get("ID_VENDOR_ID", ""), self._properties.get("ID_MODEL_ID", "")
        if vendor and model:
            ids = {"ID_VENDOR_ID": _literally(vendor), "ID_MODEL_ID": _literally(model)}
            return {"udev": {**ids, **self._part()}}
        for names in _PRODUCT_ATTRIBUTES:
            for one in self._node.device.attributes or ():
                values = {name: one.get(name) or "" for name in names}
                if all(values.values()):
                    attributes = {name: _literally(value) for name, value in values.items()}
                    part = self._part()
                    return {"attrs": attributes, **({"udev": part} if part else {})}
        return {}

    def _about_product(self) -> list[str]:
        words = [
            self._properties.get(name) or self._properties.get(other) or ""
            for name, other in (
                ("ID_VENDOR_FROM_DATABASE", "ID_VENDOR"),
                ("ID_MODEL_FROM_DATABASE", "ID_MODEL"),
            )
        ]
        called = " ".join(filter(None, words))
        return [f"Every device of this make and model{f': {called}' if called else ''}."]

    def _offer_serial(self, product: Mapping[str, Mapping[str, str]]) -> None:
        serial, wanted = self._serial(product)
        if not serial:
            if product:
                self._remarks.append(
                    "no serial is known: two of its make and model differ by their ports alone"
                )
            return
        others = [one for one in self._matched({**self._sort(), **wanted}) if one.path != self._node.path]
        twins = [one.path for one in others if not self._is_same_device(one)]
        if twins:
            apart = (
                "the port tells them apart" if self._properties.get("ID_PATH") else "no port is known either"
            )
            self._remarks.append(
                f"the serial {serial} is no use: {', '.join(sorted(twins))} has the same; {apart}"
            )
            return
        interface = self._properties.get("ID_USB_INTERFACE_NUM", "")
        if interface and any(
            (one.device.properties or {}).get("ID_USB_INTERFACE_NUM") != interface for one in others
        ):
            wanted = _merged(wanted, {"udev": {"ID_USB_INTERFACE_NUM": _literally(interface)}})
        about = [
            f"This one alone, by its serial {serial}.",
            "The device itself says its serial: another can say it.",
        ]
        self._offer("serial", {**self._sort(), **wanted}, about, True)

    def _serial(self, product: Mapping[str, Mapping[str, str]]) -> tuple[str, dict[str, Mapping[str, str]]]:
        """The serial, and the conditions for it; a serial that is empty is none."""
        serial = self._properties.get("ID_SERIAL_SHORT", "")
        if serial:
            return serial, _merged(product, {"udev": {"ID_SERIAL_SHORT": _literally(serial)}})
        serial = self._properties.get("ID_SERIAL", "")
        if serial and not product:  # a virtual disk; with ids udev makes one up of these
            return serial, {"udev": {**self._part(), "ID_SERIAL": _literally(serial)}}
        # All attributes of a selector are those of one device in sysfs.
        for place, one in enumerate(self._node.device.attributes or ()):
            serial = one.get("serial") or ""
            ids = {name: _literally(one[name] or "") for name in _PRODUCT_ATTRIBUTES[0] if one.get(name)}
            if serial and (ids or place == 0):
                attributes = {**ids, "serial": _literally(serial)}
                part = self._part()
                return serial, {"attrs": attributes, **({"udev": part} if part else {})}
            if ids:
                break  # what is above is the hub, and has a serial of its own
        return "", {}

    def _is_same_device(self, other: Node) -> bool:
        """Whether it is another part of this device, and no twin of it; where nobody can tell, it is none."""
        mine, others = self._properties.get("ID_PATH", ""), (other.device.properties or {}).get("ID_PATH", "")
        return bool(mine) and _USB_INTERFACE.sub(r"\1", mine) == _USB_INTERFACE.sub(r"\1", others)

    def _offer_number(self) -> None:
        number = self._node.device.number
        if number is None:
            return
        first, last = _FIXED.get((self._node.kind, number[0]), (1, 0))
        fixed = first <= number[1] <= last
        about = (
            "By its number, which the kernel's list of devices gives it for good."
            if fixed
            else "By its number. CAUTION: it changes, with the order in which devices are found or plugged in."
        )
        if fixed or not any(one.stable for one in self._found):
            numbers = {"type": self._node.kind.value, "device": f"{number[0]}:{number[1]}"}
            self._offer("number", numbers, [about], fixed)

    def _offer(self, suffix: str, conditions: Conditions, about: Sequence[str], stable: bool) -> None:
        name = f"{self._name}-{suffix}" if suffix else self._name
        matches = self._matched(conditions)
        if self._node in matches:
            paths = tuple(sorted(one.path for one in matches))
            self._found.append(Suggestion(name, conditions, tuple(about), stable, paths))
        else:
            self._remarks.append(
                f"a selector by {suffix or 'product'} cannot be written: a value has what no policy may hold"
            )

    def _matched(self, conditions: Conditions) -> list[Node]:
        """The present nodes that the loader's own reading of these conditions is for; none when it does not load."""
        text = policy_text([Suggestion("it", conditions, (), False, ())], comments=False)
        try:
            selectors = load([Source("it.yaml", f"version: 1\n{text}")]).device_groups["it"]
        except PolicyError:
            return []
        return [one for one in self._present if any_holds(selectors, one.kind, one.device) is True]


def _merged(
    first: Mapping[str, Mapping[str, str]], second: Mapping[str, Mapping[str, str]]
) -> dict[str, Mapping[str, str]]:
    return {key: {**first.get(key, {}), **second.get(key, {})} for key in dict.fromkeys((*first, *second))}
