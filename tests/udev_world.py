"""A script: devices that come and go, in a mount namespace whose udev database is the script's own.

There is no udevd in it, so the script writes what udevd would: an entry for each device, in the form of its database.
USB adapters are umockdev's (their sysfs is, the nodes are not opened); loop devices are the kernel's own.

    python udev_world.py SCENARIO        runs it, and ends with 0 if all is as it should be
"""

import atexit
import ctypes
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from broker.devices import DeviceReader
from broker.messages import Asked
from broker.opener import Opener
from broker.plans import Plan
from policy import FileType, Object, Peer, Policy, Request, Rights, Source, load, parse_rights
from policy.devices import Device

DATABASE = Path("/run/udev/data")
ME = Peer(os.getuid(), frozenset(["mia"]), frozenset([50]), frozenset(["lab"]), has_account=True)

# linux/loop.h
LOOP_CTL_ADD = 0x4C80
LOOP_CTL_REMOVE = 0x4C81
LOOP = 213  # a number that nobody uses


def make_world() -> None:
    """Leave for namespaces of our own, with an empty udev database."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    flags = 0x20000 | (0 if uid == 0 else 0x10000000)  # CLONE_NEWNS, CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    private, none = 1 << 18 | 1 << 14, None  # MS_PRIVATE | MS_REC
    for source, target, kind, how in ((none, b"/", none, private), (b"tmpfs", b"/run", b"tmpfs", 0)):
        if libc.mount(source, target, kind, ctypes.c_ulong(how), none) != 0:
            raise OSError(ctypes.get_errno(), f"mount {target!r}")
    DATABASE.mkdir(parents=True)


def enter(entry: str, first_seen: int | None = None, **properties: str) -> None:
    """Write a device's entry: c188:0, or b7:0. `first_seen` is on the monotonic clock, in ns."""
    lines = [f"I:{(first_seen or time.monotonic_ns()) // 1000}"]
    lines += [f"E:{name}={value}" for name, value in properties.items()]
    (DATABASE / entry).write_text("\n".join([*lines, "V:1", ""]))


class Adapters:
    """USB serial adapters of umockdev."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libumockdev.so.0")
        for name, result in (
            ("new", ctypes.c_void_p),
            ("add_from_string", ctypes.c_int),
            ("remove_device", None),
        ):
            getattr(self._library, f"umockdev_testbed_{name}").restype = result
        self._bed = ctypes.c_void_p(self._library.umockdev_testbed_new())
        self._library.umockdev_testbed_get_root_dir.restype = ctypes.c_char_p
        self._root = Path(self._library.umockdev_testbed_get_root_dir(self._bed).decode())
        atexit.register(shutil.rmtree, self._root)
        self._reader = DeviceReader(["idVendor", "idProduct", "serial", "bInterfaceNumber"])

    def plug(self, port: str, minor: int, **properties: str) -> None:
        """Plug one in, as /dev/ttyUSB`minor`, and let udev know it by `properties`."""
        self.plug_unknown(port, minor)
        enter(f"c188:{minor}", ID_BUS="usb", ID_VENDOR_ID="0403", ID_PATH=f"pci-usb-{port}", **properties)

    def plug_unknown(self, port: str, minor: int) -> None:
        """Plug one in that udev has not heard of yet."""
        usb = f"/devices/pci0000:00/usb1/{port}"
        text = [
            f"P: {usb}\nE: SUBSYSTEM=usb\nA: idVendor=0403\\n\nA: idProduct=6001\\n\n",
            f"P: {usb}/{port}:1.0\nE: SUBSYSTEM=usb\nA: bInterfaceNumber=00\\n\n",
            f"P: {usb}/{port}:1.0/ttyUSB{minor}/tty/ttyUSB{minor}\nE: DEVNAME=/dev/ttyUSB{minor}\n"
            f"E: SUBSYSTEM=tty\nE: MAJOR=188\nE: MINOR={minor}\nA: dev=188:{minor}\\n\n",
        ]
        error = ctypes.c_void_p()
        added = self._library.umockdev_testbed_add_from_string(
            self._bed, "\n".join(text).encode(), ctypes.byref(error)
        )
        assert added, "umockdev did not take it"

    def unplug(self, port: str, minor: int) -> None:
        usb = f"/sys/devices/pci0000:00/usb1/{port}"
        for path in (f"{usb}/{port}:1.0/ttyUSB{minor}/tty/ttyUSB{minor}", f"{usb}/{port}:1.0", usb):
            self._library.umockdev_testbed_remove_device(self._bed, path.encode())
        # What umockdev leaves behind, and what udev does.
        (self._root / f"sys/dev/char/188:{minor}").unlink()
        (DATABASE / f"c188:{minor}").unlink(missing_ok=True)

    def device(self, minor: int, born: int = 1) -> Device:
        return self._reader.read(FileType.CHAR, os.makedev(188, minor), born).device

    def mark(self, minor: int) -> object:
        return self._reader.read(FileType.CHAR, os.makedev(188, minor), 1).mark

    def gives(self, selector: str, minor: int, born: int = 1) -> bool:
        """Whether a rule for `selector` gives this one."""
        found = Object(f"/dev/ttyUSB{minor}", FileType.CHAR, device=self.device(minor, born))
        request = Request(found.path, parse_rights(["read"]))
        return (
            policy(f"{{name: r, clients: any, allow: read, {selector}}}").decide(request, ME, found).allowed
        )

    def denies(self, selector: str, minor: int, born: int = 1) -> bool:
        """Whether a deny of `selector` refuses this one."""
        found = Object(f"/dev/ttyUSB{minor}", FileType.CHAR, device=self.device(minor, born))
        rules = "{name: r, clients: any, allow: read, type: char, paths: '/dev/*'}, {name: d, deny: all, %s}"
        request = Request(found.path, parse_rights(["read"]))
        return not policy(rules % selector).decide(request, ME, found).allowed


def policy(rules: str) -> Policy:
    return load([Source("p.yaml", f"version: 1\nrules: [{rules}]\n")])


SERIAL = "udev: {ID_SERIAL_SHORT: A502}"


def plugged_in_is_known_by_all_that_is_said_of_it() -> None:
    adapters = Adapters()
    assert not adapters.gives(SERIAL, 0)
    adapters.plug("1-1", 0, ID_SERIAL_SHORT="A502")
    for selector in (
        SERIAL,
        "udev: {ID_VENDOR_ID: 0403, ID_BUS: usb}",
        "subsystem: tty",
        "device: '188:0'",
        "attrs: {idVendor: 0403, idProduct: 6001}",
        "seat: seat0",
        f"device: '188:*', subsystem: tty, {SERIAL}, attrs: {{idVendor: 0403}}, seat: seat0",
    ):
        assert adapters.gives(selector, 0), selector
        assert adapters.denies(selector, 0), selector
    for selector in (
        "udev: {ID_SERIAL_SHORT: B502}",
        "attrs: {idVendor: 0403, bInterfaceNumber: '00'}",
        "attrs: {serial: '*'}",
        "seat: seat1",
    ):
        assert not adapters.gives(selector, 0), selector
        assert not adapters.denies(selector, 0), selector


def seat_is_what_udev_says() -> None:
    adapters = Adapters()
    adapters.plug("1-1", 0, ID_SEAT="seat-lab")
    assert adapters.gives("seat: seat-lab", 0)
    assert not adapters.gives("seat: seat0", 0)


def unplugged_is_nothing() -> None:
    adapters = Adapters()
    adapters.plug("1-1", 0, ID_SERIAL_SHORT="A502")
    assert adapters.gives(SERIAL, 0)
    adapters.unplug("1-1", 0)
    assert adapters.device(0) == Device((188, 0))
    assert not adapters.gives(SERIAL, 0)
    assert adapters.denies("udev: {ID_SERIAL_SHORT: other}", 0)


def plugged_in_again_is_found_under_its_other_name() -> None:
    adapters = Adapters()
    adapters.plug("1-1", 0, ID_SERIAL_SHORT="A502")
    adapters.plug("1-2", 1, ID_SERIAL_SHORT="B7")
    adapters.unplug("1-1", 0)
    adapters.unplug("1-2", 1)
    adapters.plug("1-2", 0, ID_SERIAL_SHORT="B7")
    adapters.plug("1-3", 1, ID_SERIAL_SHORT="A502")
    assert not adapters.gives(SERIAL, 0)
    assert adapters.gives(SERIAL, 1)
    assert adapters.denies(SERIAL, 1)
    assert not adapters.denies(SERIAL, 0)


def two_equal_adapters_differ_by_their_port_alone() -> None:
    adapters = Adapters()
    adapters.plug("1-1", 0)
    adapters.plug("1-2", 1)
    for minor in (0, 1):
        assert adapters.gives("udev: {ID_VENDOR_ID: 0403}", minor)
        assert not adapters.gives(SERIAL, minor)
    assert adapters.gives("udev: {ID_PATH: pci-usb-1-1}", 0)
    assert not adapters.gives("udev: {ID_PATH: pci-usb-1-1}", 1)
    assert adapters.mark(0) != adapters.mark(1)


def empty_serial_is_no_serial() -> None:
    adapters = Adapters()
    adapters.plug("1-1", 0, ID_SERIAL_SHORT="")
    for pattern in ("'*'", "'[!x]*'", "'?*'"):
        assert not adapters.gives(f"udev: {{ID_SERIAL_SHORT: {pattern}}}", 0)
        assert not adapters.denies(f"udev: {{ID_SERIAL_SHORT: {pattern}}}", 0)


def entry_older_than_the_node_is_not_believed() -> None:
    adapters = Adapters()
    adapters.plug("1-1", 0, ID_SERIAL_SHORT="A502")
    later = time.time_ns() + 1_000_000
    time.sleep(0.002)  # the clock of files is coarse
    for unknown in (later, later + 10**9):
        assert adapters.device(0, unknown).properties is None
        assert not adapters.gives(SERIAL, 0, unknown)
        assert adapters.denies("udev: {ID_SERIAL_SHORT: other}", 0, unknown)
        assert adapters.gives("subsystem: tty, attrs: {idVendor: 0403}", 0, unknown)
    # Whoever had the number before may be written of once more: udev goes on with what it heard first.
    time.sleep(0.01)
    enter("c188:0", first_seen=time.monotonic_ns() - 5 * 10**9, ID_SERIAL_SHORT="A502")
    assert not adapters.gives(SERIAL, 0, later)
    enter("c188:0", ID_SERIAL_SHORT="A502")
    assert adapters.gives(SERIAL, 0, later)


def udev_that_has_not_heard_of_it_says_nothing() -> None:
    adapters = Adapters()
    adapters.plug_unknown("1-1", 0)
    assert adapters.device(0).properties is None
    assert not adapters.gives("udev: {SUBSYSTEM: tty}", 0)
    assert adapters.denies("udev: {ID_BUS: pci}", 0)
    assert adapters.gives("attrs: {idVendor: 0403}", 0)


def age_that_is_not_known_is_taken_for_too_young() -> None:
    adapters = Adapters()
    adapters.plug("1-1", 0, ID_SERIAL_SHORT="A502")
    assert adapters.device(0, born=None).properties is None  # type: ignore[arg-type]


# --- loop devices, which are opened ---------------------------------------------------------------------


@contextmanager
def loop_device() -> Iterator[Callable[[], None]]:
    """A loop device of our own; the function takes it away and brings it back."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)

    def again() -> None:
        fcntl.ioctl(control, LOOP_CTL_REMOVE, LOOP)
        fcntl.ioctl(control, LOOP_CTL_ADD, LOOP)

    fcntl.ioctl(control, LOOP_CTL_ADD, LOOP)
    try:
        yield again
    finally:
        fcntl.ioctl(control, LOOP_CTL_REMOVE, LOOP)
        os.close(control)


def verdict_of(opener: Opener, path: str = f"/dev/loop{LOOP}") -> str:
    plan = Plan(Asked(path, Rights.READ, Rights(0), 0), ME)
    fd = opener.open_known(plan)
    outcome = opener.open(plan)
    if outcome.fd >= 0:
        os.close(outcome.fd)
        again = opener.open_known(plan)  # what is remembered is opened without another look
        if fd >= 0 or again >= 0:
            return "remembered"
        return "allow"
    return f"{outcome.verdict} {outcome.reason}".strip()


BY_SERIAL = "{name: r, clients: any, allow: read, udev: {ID_SERIAL: X1}}"


def loop_device_is_opened_while_it_is_what_udev_says() -> None:
    with loop_device() as again:
        opener = Opener(policy(BY_SERIAL))
        assert verdict_of(opener).startswith("deny")
        enter(f"b7:{LOOP}", ID_SERIAL="X1")
        assert verdict_of(opener) == "allow"
        again()
        assert verdict_of(opener).startswith("deny"), "the entry is of the device before"
        enter(f"b7:{LOOP}", ID_SERIAL="X2")
        assert verdict_of(opener).startswith("deny")
        enter(f"b7:{LOOP}", ID_SERIAL="X1")
        assert verdict_of(opener) == "allow"
        opener.close()


def loop_device_is_denied_from_the_moment_that_udev_says_so() -> None:
    with loop_device():
        rules = "{name: r, clients: any, allow: read, type: block, paths: '/dev/loop*'}"
        opener = Opener(policy(f"{rules}, {{name: d, deny: all, devices: {{udev: {{ID_SERIAL: X1}}}}}}"))
        assert verdict_of(opener).startswith("deny"), "what udev does not know may be it"
        enter(f"b7:{LOOP}", ID_SERIAL="X2")
        assert verdict_of(opener) == "allow"
        enter(f"b7:{LOOP}", ID_SERIAL="X1")
        assert verdict_of(opener).startswith("deny")
        opener.close()


def device_that_changes_while_it_is_opened_is_not_handed_out() -> None:
    with loop_device():
        opener = Opener(policy(BY_SERIAL))
        enter(f"b7:{LOOP}", ID_SERIAL="X1")
        real = os.open

        def other_device(*arguments: object, **more: object) -> int:
            fd = real(*arguments, **more)  # type: ignore[arg-type]
            if str(arguments[0]).startswith("/proc/self/fd/"):
                enter(f"b7:{LOOP}", first_seen=time.monotonic_ns() + 10**6, ID_SERIAL="X2")
            return fd

        os.open = other_device  # type: ignore[assignment]
        try:
            before = len(os.listdir("/proc/self/fd"))
            assert verdict_of(opener) == "failed the device is another one by now"
            assert len(os.listdir("/proc/self/fd")) == before
        finally:
            os.open = real
        opener.close()


def device_without_such_rules_is_remembered() -> None:
    opener = Opener(policy("{name: r, clients: any, allow: read, type: char, device: '1:3'}"))
    assert verdict_of(opener, "/dev/null") == "remembered"
    opener.close()


SCENARIOS = [
    plugged_in_is_known_by_all_that_is_said_of_it,
    seat_is_what_udev_says,
    unplugged_is_nothing,
    plugged_in_again_is_found_under_its_other_name,
    two_equal_adapters_differ_by_their_port_alone,
    empty_serial_is_no_serial,
    entry_older_than_the_node_is_not_believed,
    udev_that_has_not_heard_of_it_says_nothing,
    age_that_is_not_known_is_taken_for_too_young,
]
WITH_REAL_DEVICES = [
    loop_device_is_opened_while_it_is_what_udev_says,
    loop_device_is_denied_from_the_moment_that_udev_says_so,
    device_that_changes_while_it_is_opened_is_not_handed_out,
    device_without_such_rules_is_remembered,
]

if __name__ == "__main__":
    make_world()
    {one.__name__: one for one in SCENARIOS + WITH_REAL_DEVICES}[sys.argv[1]]()
