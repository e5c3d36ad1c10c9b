"""The shipped device groups on devices as sysfs has them: what the broker reads there is what the groups ask for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import TREE

USB = "/devices/pci0000:00/0000:00:14.0/usb1/1-3"
UNIT = f"{USB}/1-3:1.0/host6/target6:0:0/6:0:0:0"

# A disk in a USB enclosure, its command devices and a partition; a disk inside; in the form of umockdev(1).
DEVICES = rf"""
P: {USB}
N: bus/usb/001/006
E: DEVNAME=/dev/bus/usb/001/006
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
E: MAJOR=189
E: MINOR=5
A: dev=189:5\n

P: {USB}/1-3:1.0
E: DEVTYPE=usb_interface
E: SUBSYSTEM=usb
A: bInterfaceClass=08\n

P: {UNIT}
E: DEVTYPE=scsi_device
E: SUBSYSTEM=scsi
A: type=0\n

P: {UNIT}/block/sdb
N: sdb
E: DEVNAME=/dev/sdb
E: DEVTYPE=disk
E: SUBSYSTEM=block
E: MAJOR=8
E: MINOR=16
A: dev=8:16\n
A: removable=0\n

P: {UNIT}/block/sdb/sdb1
N: sdb1
E: DEVNAME=/dev/sdb1
E: DEVTYPE=partition
E: SUBSYSTEM=block
E: MAJOR=8
E: MINOR=17
A: dev=8:17\n

P: {UNIT}/scsi_generic/sg1
N: sg1
E: DEVNAME=/dev/sg1
E: SUBSYSTEM=scsi_generic
E: MAJOR=21
E: MINOR=1
A: dev=21:1\n

P: {UNIT}/bsg/6:0:0:0
N: bsg/6:0:0:0
E: DEVNAME=/dev/bsg/6:0:0:0
E: SUBSYSTEM=bsg
E: MAJOR=248
E: MINOR=1
A: dev=248:1\n

P: /devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0
E: DEVTYPE=scsi_device
E: SUBSYSTEM=scsi
A: type=0\n

P: /devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/scsi_generic/sg0
N: sg0
E: DEVNAME=/dev/sg0
E: SUBSYSTEM=scsi_generic
E: MAJOR=21
E: MINOR=0
A: dev=21:0\n
"""

# Says of each device which groups are known to be for it, and which may be.
SCRIPT = """
import os, re, sys
from pathlib import Path
from broker.devices import DeviceReader
from policy import FileType, Source, load
from policy.devices import any_holds
text = Path("policy/groups/10-devices.yaml").read_text()
names = re.findall(r"^  ([\\w-]+):", text, re.MULTILINE)
rules = "".join(f"  - {{name: {name}, deny: all, devices: [{name}]}}\\n" for name in names)
policy = load([Source("10-devices.yaml", text), Source("b.yaml", "version: 1\\nrules:\\n" + rules, 1)])
reader = DeviceReader(policy.attributes)
for word in sys.argv[1:]:
    kind, major, minor = word.split(":")
    device = reader.read(FileType(kind), os.makedev(int(major), int(minor)), None).device
    found = {rule.name: any_holds(rule.devices, FileType(kind), device) for rule in policy.rules}
    print(word, *(name for name in names if found[name] is True))
"""


@pytest.mark.skipif(shutil.which("umockdev-run") is None, reason="there is no umockdev-run")
def test_broker_knows_usb_storage_and_disks_by_sysfs_alone(place: Path) -> None:
    (place / "devices.umockdev").write_text(DEVICES.lstrip())
    words = ["block:8:16", "block:8:17", "char:21:1", "char:248:1", "char:21:0", "char:189:5"]
    ran = subprocess.run(
        ["umockdev-run", "-d", str(place / "devices.umockdev"), "--", sys.executable, "-c", SCRIPT, *words],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "block:8:16 disks usb-storage",
        "block:8:17 disks usb-storage",
        "char:21:1 disks disk-commands usb-storage",
        "char:248:1 disks disk-commands usb-storage",
        "char:21:0 disks disk-commands",
        "char:189:5 usb-nodes",
    ]
