"""Devices by number, subsystem, udev properties, attributes and seat, in named groups and inline."""

from collections.abc import Iterator

import pytest

from policy import FileType, Object, Peer, Policy, Request, Source, deviceindex, load, parse_rights
from policy.devices import Device, DeviceSelector

FTDI = Device(
    (188, 0),
    "tty",
    {"ID_VENDOR_ID": "0403", "ID_SERIAL_SHORT": "A502", "ID_BUS": "usb", "EMPTY": ""},
    ({}, {"bInterfaceNumber": "00"}, {"idVendor": "0403", "idProduct": "6001"}, {"idVendor": "1d6b"}),
)
MIA = Peer(1000, frozenset(["mia"]), frozenset([50]), frozenset(["lab"]))
ALLOW = "{name: r, clients: [{user: mia}], allow: read, %s}"


def policy(rules: str, rest: str = "") -> Policy:
    return load([Source("a.yaml", f"version: 1\nrules: [{rules}]\n{rest}")])


def gives(rules: str, found: Object, rest: str = "", asked: str | None = None) -> bool:
    request = Request(asked or found.path, parse_rights(["read"]))
    return policy(rules, rest).decide(request, MIA, found).allowed


def node(device: Device | None = FTDI, kind: FileType | None = FileType.CHAR, path: str = "/dev/x") -> Object:
    return Object(path, kind, device=device)


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ("device: '188:0'", True),
        ("device: ['4:64', '188:0']", True),
        ("device: '188:*'", True),
        ("device: '188:1'", False),
        ("device: '18:*'", False),
        ("subsystem: tty", True),
        ("subsystem: [usb, 't*']", True),
        ("subsystem: ttys", False),
        ("udev: {ID_VENDOR_ID: 0403}", True),
        ("udev: {ID_VENDOR_ID: 403}", False),
        ("udev: {ID_VENDOR_ID: 259}", False),
        ("udev: {ID_SERIAL_SHORT: ['B*', 'A*']}", True),
        ("udev: {ID_SERIAL_SHORT: 'A50?', ID_BUS: usb}", True),
        ("udev: {ID_SERIAL_SHORT: 'A50?', ID_BUS: pci}", False),
        ("udev: {MISSING: '*'}", False),
        ("udev: {EMPTY: '*'}", False),
        ("attrs: {idVendor: 0403}", True),
        ("attrs: {idVendor: '1d6b'}", True),
        ("attrs: {idVendor: 0403, idProduct: 6001}", True),
        ("attrs: {idVendor: '1d6b', idProduct: 6001}", False),  # not of one parent
        ("attrs: {idVendor: 0403, bInterfaceNumber: '00'}", False),
        ("seat: seat0", True),
        ("seat: [seat1, seat2]", False),
        ("subsystem: tty, udev: {ID_BUS: usb}, attrs: {idProduct: '6*'}, seat: 'seat*'", True),
        ("subsystem: tty, udev: {ID_BUS: pci}", False),
    ],
)
def test_allow_gives_a_device_that_all_of_its_keys_fit(selector: str, holds: bool) -> None:
    assert gives(ALLOW % selector, node()) is holds
    assert gives(ALLOW % f"devices: {{{selector}}}", node()) is holds
    assert gives(ALLOW % "devices: [it]", node(), f"devices: {{it: {{{selector}}}}}") is holds
    everything = ALLOW % "paths: '/dev/*', type: [char, block]"
    assert gives(f"{everything}, {{name: d, deny: all, {selector}}}", node()) is not holds


@pytest.mark.parametrize(
    "selector",
    ["device: '188:0'", "subsystem: tty", "udev: {A: b}", "attrs: {a: b}", "seat: seat0", "subsystem: '*'"],
)
def test_nothing_known_of_a_device_neither_widens_nor_spares(selector: str) -> None:
    everything = ALLOW % "paths: '/dev/*', type: [char, block]"
    excepted = ALLOW % f"paths: '/dev/*', type: [char, block], except_devices: {{{selector}}}"
    for unknown in (node(None), node(Device())):
        assert not gives(ALLOW % selector, unknown)
        assert not gives(excepted, unknown)
        assert not gives(f"{everything}, {{name: d, deny: all, {selector}}}", unknown)
        exception = f"{{name: d, deny: all, type: char, except_devices: {{{selector}}}}}"
        assert not gives(f"{everything}, {exception}", unknown)


def test_attribute_that_could_not_be_read_is_unknown_and_one_that_is_not_there_is_not() -> None:
    unread = node(FTDI._replace(attributes=({"serial": None}, {"serial": "7"})))
    everything = ALLOW % "paths: '/dev/*', type: char"
    assert gives(ALLOW % "attrs: {serial: 7}", unread)
    assert not gives(ALLOW % "attrs: {serial: 8}", unread)
    assert not gives(f"{everything}, {{name: d, deny: all, attrs: {{serial: 8}}}}", unread)
    assert gives(f"{everything}, {{name: d, deny: all, attrs: {{model: 8}}}}", unread)


@pytest.mark.parametrize("kind", [FileType.FILE, FileType.DIRECTORY, FileType.FIFO, FileType.SOCKET])
def test_what_is_no_device_is_known_to_have_no_udev_key(kind: FileType) -> None:
    thing = node(None, kind)
    assert not gives(ALLOW % "udev: {A: '*'}", thing)
    everything = ALLOW % f"paths: '/dev/*', type: {kind.value}"
    if kind in (FileType.FILE, FileType.FIFO):
        assert gives(f"{everything}, {{name: d, deny: all, udev: {{A: '*'}}}}", thing)


def test_allow_of_devices_without_paths_is_for_what_lies_below_dev() -> None:
    rule = ALLOW % "devices: {subsystem: tty}"
    assert gives(rule, node(path="/dev/bus/ttyUSB0"))
    assert not gives(rule, node(path="/srv/ttyUSB0"))
    assert not gives(rule, node(path="/dev/tty"))  # each process has its own: only named literally
    assert gives(rule, node(), asked="/dev/serial/by-id/ftdi")
    assert not gives(rule, node(), asked="/srv/link")
    assert policy(rule).decide(Request("/dev/x", parse_rights(["read"])), MIA, None).allowed


def test_deny_of_devices_without_paths_is_for_them_wherever_they_lie() -> None:
    rules = ALLOW % "paths: '/srv/*', type: char" + ", {name: d, deny: all, devices: {subsystem: tty}}"
    assert not gives(rules, node(path="/srv/ttyUSB0"))
    assert gives(rules, node(FTDI._replace(subsystem="usb"), path="/srv/ttyUSB0"))
    # Before anything is known of the object, only what holds for every object refuses.
    assert policy(rules).consider(Request("/srv/ttyUSB0", parse_rights(["read"])), MIA).refusal is None


def test_paths_type_keys_and_groups_must_all_hold() -> None:
    rule = ALLOW % "paths: '/dev/ttyU*', type: char, subsystem: tty, devices: [a, b]"
    groups = "devices: {a: {udev: {ID_BUS: pci}}, b: [{udev: {ID_BUS: scsi}}, {type: char, device: '188:*'}]}"
    assert gives(rule, node(path="/dev/ttyUSB0"), groups)
    assert not gives(rule, node(path="/dev/ttyS0"), groups)
    assert not gives(rule, node(kind=FileType.BLOCK, path="/dev/ttyUSB0"), groups)
    assert not gives(rule, node(FTDI._replace(subsystem="usb"), path="/dev/ttyUSB0"), groups)
    assert not gives(rule, node(FTDI._replace(number=(4, 64)), path="/dev/ttyUSB0"), groups)


def test_exception_of_devices_takes_them_out_of_an_allow_and_of_a_deny() -> None:
    other = node(FTDI._replace(properties={"ID_SERIAL_SHORT": "B"}))
    allow = ALLOW % "subsystem: tty, except_devices: {udev: {ID_SERIAL_SHORT: A502}}"
    assert gives(allow, other)
    assert not gives(allow, node())
    everything = ALLOW % "subsystem: tty"
    deny = "{name: d, deny: all, subsystem: tty, except_devices: {udev: {ID_SERIAL_SHORT: A502}}}"
    assert gives(f"{everything}, {deny}", node())
    assert not gives(f"{everything}, {deny}", other)


def test_higher_tier_redefines_a_device_group() -> None:
    rule = "version: 1\nrules: [" + ALLOW % "devices: [it]" + "]\n"
    request = Request("/dev/x", parse_rights(["read"]))
    lower = Source("10-a.yaml", f"{rule}devices: {{it: {{subsystem: usb}}}}\n", 0)
    higher = Source("20-b.yaml", "version: 1\ndevices: {it: {subsystem: tty}}\n", 1)
    assert not load([lower]).decide(request, MIA, node()).allowed
    assert load([lower, higher]).decide(request, MIA, node()).allowed


def test_large_group_is_looked_at_once_however_many_rules_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    conditions, looked_at = deviceindex._conditions, []

    def counted(selector: DeviceSelector) -> Iterator[deviceindex._Condition]:
        looked_at.append(selector)
        return conditions(selector)

    monkeypatch.setattr(deviceindex, "_conditions", counted)
    rules = ", ".join(f"{{name: r{number}, deny: read, devices: [large, large]}}" for number in range(20))
    group = ", ".join(f"{{seat: s{number}}}" for number in range(30))
    once = ", ".join(f"{{name: o{number}, deny: write, devices: [large]}}" for number in range(20))
    loaded = policy(f"{rules}, {once}", f"devices: {{large: [{group}]}}")
    assert {len(rule.devices or ()) for rule in loaded.rules} == {30}
    assert all(rule.devices is loaded.device_groups["large"] for rule in loaded.rules if rule.name[0] == "o")
    assert len(looked_at) == 30 * (1 + 20)
    found = node(Device((1, 1), "tty", {"ID_SEAT": "s7"}, ()))
    for right in ("read", "write"):
        assert len(loaded.denies_of(Request("/dev/x", parse_rights([right])), MIA, found)) == 20
