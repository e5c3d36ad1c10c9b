"""The shipped device groups: which devices each is for, and which it only seems to be for."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import pytest

from policy import FileType, Policy, Source, load, load_set
from policy.devices import Device, DeviceSelector, any_holds
from policy.findings import NOTE
from policy.lint import lint

FILE = Path(__file__).parents[2] / "policy" / "groups" / "10-devices.yaml"
SHIPPED = Source(FILE.name, FILE.read_bytes())
NAMES = re.findall(r"^  ([\w-]+):", FILE.read_text(), re.MULTILINE)

CHAR, BLOCK = FileType.CHAR, FileType.BLOCK
SPARED = '[nvidia, {device: "136:*"}]'
USB_STORAGE = {"bInterfaceClass": "08"}
USB_PRINTER = {"bInterfaceClass": "07"}
WITHOUT_CLASS = {"bInterfaceClass": "ff"}


def using(*rules: str) -> Policy:
    """The shipped file below an administrator's with these rules."""
    return load([SHIPPED, Source("50-site.yaml", "\n".join(["version: 1", "rules:", *rules]), 1)])


@lru_cache
def group(name: str) -> tuple[DeviceSelector, ...]:
    (rule,) = using(f"  - {{name: r, deny: all, devices: [{name}]}}").rules
    return rule.devices or ()


def device(subsystem: str, number: str, *parents: dict[str, str], **properties: str) -> Device:
    """A device of which everything is known."""
    major, minor = number.split(":")
    return Device((int(major), int(minor)), subsystem, properties, ({}, *parents))


def groups_of(kind: FileType, known: Device | None) -> set[str]:
    """The groups that are known to be for it."""
    return {name for name in NAMES if any_holds(group(name), kind, known) is True}


# What stands in sysfs and udev's database, and the groups that are for it: these, and no other.
DEVICES: dict[str, tuple[FileType, Device, str]] = {
    "SATA disk": (BLOCK, device("block", "8:0", {"type": "0"}, ID_BUS="ata"), "disks"),
    "virtual disk": (BLOCK, device("block", "254:0"), "disks"),
    "NVMe namespace": (BLOCK, device("block", "259:0"), "disks"),
    "SD card": (BLOCK, device("block", "179:0"), "disks"),
    "device-mapper": (BLOCK, device("block", "253:0"), "disks"),
    "RAID": (BLOCK, device("block", "9:0"), "disks"),
    "loop device": (BLOCK, device("block", "7:0"), "disks loop-devices"),
    "stick": (BLOCK, device("block", "8:16", {"type": "0"}, USB_STORAGE, ID_BUS="usb"), "disks usb-storage"),
    "stick of a class of its maker's": (
        BLOCK,
        device("block", "8:16", WITHOUT_CLASS, ID_BUS="usb"),
        "disks usb-storage",
    ),
    # udev asks the disk itself where it is not removable: ID_BUS is the disk's then.
    "disk in a USB enclosure": (
        BLOCK,
        device("block", "8:32", {"type": "0"}, USB_STORAGE, ID_BUS="ata"),
        "disks usb-storage",
    ),
    "DVD drive": (BLOCK, device("block", "11:0", {"type": "5"}, ID_CDROM="1"), "disks optical-drives"),
    "sg of a SATA disk": (CHAR, device("scsi_generic", "21:0", {"type": "0"}), "disks disk-commands"),
    "bsg of a SATA disk": (CHAR, device("bsg", "248:0", {"type": "0"}), "disks disk-commands"),
    "sg of a stick": (
        CHAR,
        device("scsi_generic", "21:1", {"type": "0"}, USB_STORAGE),
        "disks disk-commands usb-storage",
    ),
    "bsg of a DVD drive": (CHAR, device("bsg", "248:1", {"type": "5"}), "disks disk-commands optical-drives"),
    "NVMe controller": (CHAR, device("nvme", "242:0"), "disks disk-commands"),
    "NVMe namespace's character device": (CHAR, device("nvme-generic", "241:0"), "disks disk-commands"),
    "replay-protected part of a card": (CHAR, device("mmc_rpmb", "240:0"), "disks disk-commands"),
    "loop-control": (CHAR, device("misc", "10:237"), ""),
    "device-mapper's control": (CHAR, device("misc", "10:236"), ""),
    "USB device": (CHAR, device("usb", "189:4", ID_USB_INTERFACES=":080650:"), "usb-nodes"),
    "FTDI adapter": (
        CHAR,
        device("tty", "188:0", ID_BUS="usb", ID_USB_DRIVER="ftdi_sio", ID_VENDOR_ID="0403"),
        "usb-serial usb-serial-ftdi",
    ),
    "CP210x of a maker of its own": (
        CHAR,
        device("tty", "188:1", ID_BUS="usb", ID_USB_DRIVER="cp210x", ID_VENDOR_ID="1d6f"),
        "usb-serial usb-serial-cp210x",
    ),
    "CH341": (
        CHAR,
        device("tty", "188:2", ID_BUS="usb", ID_USB_DRIVER="ch341"),
        "usb-serial usb-serial-ch341",
    ),
    "PL2303": (
        CHAR,
        device("tty", "188:3", ID_BUS="usb", ID_USB_DRIVER="pl2303"),
        "usb-serial usb-serial-pl2303",
    ),
    "Arduino": (
        CHAR,
        device("tty", "166:0", ID_BUS="usb", ID_USB_DRIVER="cdc_acm"),
        "usb-serial usb-serial-cdc-acm",
    ),
    "port of the mainboard": (CHAR, device("tty", "4:64"), ""),
    "serial card": (CHAR, device("tty", "4:68", ID_BUS="pci"), ""),
    "webcam": (CHAR, device("video4linux", "81:0", ID_V4L_CAPABILITIES=":capture:"), "cameras"),
    "TV card": (
        CHAR,
        device("video4linux", "81:2", ID_V4L_CAPABILITIES=":capture:tuner:"),
        "cameras",
    ),
    "webcam's metadata": (CHAR, device("video4linux", "81:1", ID_V4L_CAPABILITIES=":"), ""),
    "video output": (CHAR, device("video4linux", "81:3", ID_V4L_CAPABILITIES=":video_output:"), ""),
    "microphone": (CHAR, device("sound", "116:3", DEVNAME="/dev/snd/pcmC0D0c"), "microphones sound"),
    "loudspeaker": (CHAR, device("sound", "116:2", DEVNAME="/dev/snd/pcmC0D0p"), "sound"),
    "sound card's controls": (CHAR, device("sound", "116:9", DEVNAME="/dev/snd/controlC0"), "sound"),
    "FIDO token": (CHAR, device("hidraw", "245:0", ID_FIDO_TOKEN="1", ID_SECURITY_TOKEN="1"), "fido"),
    "token's keyboard": (CHAR, device("hidraw", "245:1", ID_SECURITY_TOKEN="1"), ""),
    "render node": (CHAR, device("drm", "226:128", DEVNAME="/dev/dri/renderD128"), "render-nodes"),
    "graphics card": (CHAR, device("drm", "226:0", DEVNAME="/dev/dri/card0"), ""),
    "USB printer": (
        CHAR,
        device("usbmisc", "180:0", USB_PRINTER, DEVNAME="/dev/usb/lp0"),
        "printers",
    ),
    "USB printer as a USB device": (
        CHAR,
        device("usb", "189:9", ID_USB_INTERFACES=":ff0000:070102:"),
        "printers usb-nodes",
    ),
    "printer on a parallel port": (CHAR, device("printer", "6:0", DEVNAME="/dev/lp0"), "printers"),
    "USB device that is no printer": (CHAR, device("usbmisc", "180:96", DEVNAME="/dev/usb/hiddev0"), ""),
    "keyboard": (
        CHAR,
        device("input", "13:67", ID_INPUT_KEYBOARD="1", ID_INPUT_KEY="1", DEVNAME="/dev/input/event3"),
        "input keyboards",
    ),
    "power button": (CHAR, device("input", "13:64", ID_INPUT_KEY="1", DEVNAME="/dev/input/event0"), "input"),
    "mouse": (CHAR, device("input", "13:68", ID_INPUT_MOUSE="1", DEVNAME="/dev/input/event4"), "input"),
    "kvm": (CHAR, device("misc", "10:232"), "kvm"),
    "vhost-net": (CHAR, device("misc", "10:238"), "kvm"),
    "vhost-vsock": (CHAR, device("misc", "10:241"), "kvm"),
    "tun": (CHAR, device("misc", "10:200"), "tun"),
    "null": (CHAR, device("mem", "1:3"), ""),
    # It has no entry in /sys, as the driver is none of the kernel's.
    "NVIDIA GPU": (CHAR, Device((195, 0)), "nvidia"),
}


@pytest.mark.parametrize(("kind", "known", "expected"), DEVICES.values(), ids=DEVICES)
def test_device_is_in_these_groups_and_no_other(kind: FileType, known: Device, expected: str) -> None:
    assert groups_of(kind, known) == set(expected.split())


def test_each_group_has_a_device_in_the_table() -> None:
    assert {name for _, _, groups in DEVICES.values() for name in groups.split()} == set(NAMES)


@pytest.mark.parametrize("kind", [FileType.FILE, FileType.DIRECTORY, FileType.FIFO, FileType.SOCKET])
def test_what_is_no_device_is_in_no_group(kind: FileType) -> None:
    assert all(any_holds(group(name), kind, None) is False for name in NAMES)


def test_device_of_which_nothing_is_known_is_known_to_be_in_no_group_but_as_a_disk() -> None:
    assert (groups_of(BLOCK, None), groups_of(CHAR, None)) == ({"disks"}, set())


@pytest.mark.parametrize(
    ("kind", "number"), [(CHAR, (195, 0)), (CHAR, (136, 3))], ids=["nvidia0", "a terminal of devpts"]
)
def test_deny_of_disks_may_mean_what_has_no_entry_in_sysfs(kind: FileType, number: tuple[int, int]) -> None:
    # So the file's head says, with what spares them.
    assert any_holds(group("disks"), kind, Device(number)) is None
    spared = f"  - {{name: r, deny: all, devices: [disks], except_devices: {SPARED}}}"
    (rule,) = using(spared).rules
    assert SPARED in FILE.read_text()
    assert any_holds(rule.except_devices, kind, Device(number)) is True


def test_shipped_file_gives_and_refuses_nothing_by_itself() -> None:
    loaded = load_set([SHIPPED])
    assert (loaded.policy.rules, loaded.masked) == ((), ())


@pytest.mark.parametrize("name", NAMES)
def test_group_in_an_allow_has_no_finding_but_those_that_are_for_denies(name: str) -> None:
    policy = using(f"  - {{name: r, clients: {{group: lab}}, allow: read, devices: [{name}]}}")
    found = {one.code for one in lint(policy, None) if one.severity != NOTE}
    assert found == ({"wide-selector"} if name in ("disks", "disk-commands") else set())


@pytest.mark.parametrize("name", NAMES)
def test_group_in_a_deny_has_no_finding(name: str) -> None:
    assert lint(using(f"  - {{name: r, deny: all, devices: [{name}]}}"), None) == []


def groups_with_a_comment(text: str) -> Iterable[str]:
    """The groups that stand below a comment, or below one that does."""
    is_told = False
    for line in text.partition("devices:\n")[2].splitlines():
        declared = re.match(r"  ([\w-]+):", line)
        is_told = line.startswith("  #") or (is_told and line != "")
        if declared and is_told:
            yield declared[1]


def test_each_group_says_what_it_is_for() -> None:
    assert list(groups_with_a_comment(FILE.read_text())) == NAMES
