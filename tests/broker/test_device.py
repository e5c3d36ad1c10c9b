"""`fdbroker device`: what tells a device from others, as text that a policy takes and that matches this very node."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support import FDBROKER, TREE

from broker.selectors import Advice, Node, advise, policy_text
from policy import FileType, Source, load
from policy.devices import Device, any_holds
from tests.broker import device_world

WRAPPER = shutil.which("umockdev-wrapper")
CHAR, BLOCK = FileType.CHAR, FileType.BLOCK
FTDI = {"ID_BUS": "usb", "ID_VENDOR_ID": "0403", "ID_MODEL_ID": "6001", "ID_MODEL": "FT232R_USB_UART"}
USB = "pci-0000:00:14.0-usb-0:"


def tty(minor: int, properties: Mapping[str, str] | None, *chain: Mapping[str, str | None]) -> Node:
    """A USB serial adapter."""
    return Node(f"/dev/ttyUSB{minor}", CHAR, Device((188, minor), "tty", properties, chain))


def adapter(minor: int, port: str, **more: str) -> Node:
    return tty(minor, {**FTDI, "ID_PATH": f"{USB}{port}:1.0", **more})


def names(advice: Advice) -> dict[str, tuple[str, ...]]:
    """The matches of each suggestion, by what its name adds to the first one's."""
    base = "ft232r-usb-uart"
    return {
        one.name.removeprefix(base).lstrip("-"): tuple(path.removeprefix("/dev/") for path in one.matches)
        for one in advice.suggestions
    }


def check(node: Node, present: list[Node], advice: Advice) -> None:
    """Each selector loads as it is printed, and is for this node and those that are told."""
    text = "version: 1\n" + policy_text(advice.suggestions)
    groups = load([Source("printed.yaml", text)]).device_groups
    assert list(groups) == [one.name for one in advice.suggestions]
    for one in advice.suggestions:
        held = [other.path for other in present if any_holds(groups[one.name], other.kind, other.device)]
        assert node.path in held
        assert sorted(held) == list(one.matches)


PORT = ("port", "product-port")
CASES = [
    ("one with a serial", [adapter(0, "1", ID_SERIAL_SHORT="A502")],
     {"": ("ttyUSB0",), "serial": ("ttyUSB0",), **dict.fromkeys(PORT, ("ttyUSB0",))}, ""),
    ("one with an empty serial", [adapter(0, "1", ID_SERIAL_SHORT="")],
     {"": ("ttyUSB0",), **dict.fromkeys(PORT, ("ttyUSB0",))}, "no serial is known"),
    ("one with none", [adapter(0, "1")],
     {"": ("ttyUSB0",), **dict.fromkeys(PORT, ("ttyUSB0",))}, "no serial is known"),
    ("two with serials", [adapter(0, "1", ID_SERIAL_SHORT="A"), adapter(1, "2", ID_SERIAL_SHORT="B")],
     {"": ("ttyUSB0", "ttyUSB1"), "serial": ("ttyUSB0",), **dict.fromkeys(PORT, ("ttyUSB0",))}, ""),
    ("two equal ones", [adapter(0, "1", ID_SERIAL_SHORT="A"), adapter(1, "2", ID_SERIAL_SHORT="A")],
     {"": ("ttyUSB0", "ttyUSB1"), **dict.fromkeys(PORT, ("ttyUSB0",))}, "/dev/ttyUSB1 has the same"),
    ("two equal ones on unknown ports", [tty(0, {**FTDI, "ID_SERIAL_SHORT": "A"}),
     tty(1, {**FTDI, "ID_SERIAL_SHORT": "A"})], {"": ("ttyUSB0", "ttyUSB1")}, "/dev/ttyUSB1 has the same"),
    ("one of two interfaces", [adapter(0, "1", ID_SERIAL_SHORT="A", ID_USB_INTERFACE_NUM="00"),
     tty(1, {**FTDI, "ID_PATH": f"{USB}1:1.1", "ID_SERIAL_SHORT": "A", "ID_USB_INTERFACE_NUM": "01"})],
     {"": ("ttyUSB0", "ttyUSB1"), "serial": ("ttyUSB0",), **dict.fromkeys(PORT, ("ttyUSB0",))}, ""),
    ("a serial full of signs", [adapter(0, "1", ID_SERIAL_SHORT='*?[a]"\\ \'#: {x}')],
     {"": ("ttyUSB0",), "serial": ("ttyUSB0",), **dict.fromkeys(PORT, ("ttyUSB0",))}, ""),
    ("a serial of several lines", [adapter(0, "1", ID_SERIAL_SHORT="A\n  evil: x\u2028\U000e0001")],
     {"": ("ttyUSB0",), "serial": ("ttyUSB0",), **dict.fromkeys(PORT, ("ttyUSB0",))}, ""),
    ("a serial that no policy may hold", [adapter(0, "1", ID_SERIAL_SHORT="A\udcff")],
     {"": ("ttyUSB0",), **dict.fromkeys(PORT, ("ttyUSB0",))}, "a selector by serial cannot be written"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("present", "wanted", "remark"), [one[1:] for one in CASES], ids=[one[0] for one in CASES]
)
def test_adapter_is_told_from_others_by_what_is_stable(
    present: list[Node], wanted: dict[str, tuple[str, ...]], remark: str
) -> None:
    advice = advise(present[0], present)
    assert names(advice) == wanted
    assert advice.stable
    assert any(remark in one for one in advice.remarks) if remark else not advice.remarks
    check(present[0], present, advice)


def test_star_in_a_serial_is_no_pattern() -> None:
    present = [adapter(0, "1", ID_SERIAL_SHORT="A*"), adapter(1, "2", ID_SERIAL_SHORT="A5")]
    assert names(advise(present[0], present))["serial"] == ("ttyUSB0",)


@pytest.mark.parametrize("serial", ["", "A502"])
def test_adapter_that_udev_does_not_know_is_told_by_sysfs(serial: str) -> None:
    usb = {"idVendor": "0403", "idProduct": "6001", **({"serial": serial} if serial else {})}
    present = [tty(0, None, {}, usb, {"idVendor": "1d6b", "idProduct": "0002", "serial": "x"}), tty(1, None)]
    advice = advise(present[0], present)
    assert [one.conditions.get("attrs") for one in advice.suggestions] == [
        {"idVendor": "0403", "idProduct": "6001"},
        *([{"idVendor": "0403", "idProduct": "6001", "serial": "A502"}] if serial else []),
    ]
    assert advice.stable
    assert "udev's database does not know" in advice.remarks[0]
    check(present[0], present, advice)


def disk(name: str, minor: int, **properties: str) -> Node:
    ids = {
        "ID_BUS": "usb",
        "ID_VENDOR_ID": "0781",
        "ID_MODEL_ID": "5567",
        "ID_SERIAL_SHORT": "4C5",
        "ID_PATH": "p",
    }
    return Node(f"/dev/{name}", BLOCK, Device((8, minor), "block", {**ids, **properties}, ()))


def test_disk_is_told_from_its_partitions() -> None:
    whole = disk("sda", 0, DEVTYPE="disk")
    part = disk("sda1", 1, DEVTYPE="partition", ID_PART_ENTRY_NUMBER="1")
    present = [whole, part, disk("sda2", 2, DEVTYPE="partition", ID_PART_ENTRY_NUMBER="2")]
    for node in (whole, part):
        advice = advise(node, present)
        assert [one.matches for one in advice.suggestions] == [(node.path,)] * len(advice.suggestions)
        check(node, present, advice)


def test_virtual_disk_is_told_by_the_serial_that_it_was_given() -> None:
    node = Node("/dev/vdb", BLOCK, Device((254, 16), "block", {"DEVTYPE": "disk", "ID_SERIAL": "data"}, ()))
    advice = advise(node, [node])
    assert [one.conditions["udev"] for one in advice.suggestions] == [
        {"DEVTYPE": "disk", "ID_SERIAL": "data"}
    ]


NUMBERS = [
    (CHAR, (1, 3), True),
    (CHAR, (10, 232), True),
    (CHAR, (10, 59), False),
    (CHAR, (10, 256), False),
    (CHAR, (188, 0), False),
    (CHAR, (240, 0), False),
    (BLOCK, (7, 0), True),
    (BLOCK, (8, 0), False),
]


@pytest.mark.parametrize(("kind", "number", "fixed"), NUMBERS)
def test_number_is_stable_where_the_kernel_gives_it_for_good(
    kind: FileType, number: tuple[int, int], fixed: bool
) -> None:
    node = Node("/dev/x", kind, Device(number))
    advice = advise(node, [node])
    assert advice.stable is fixed
    (only,) = advice.suggestions
    assert only.conditions == {"type": kind.value, "device": f"{number[0]}:{number[1]}"}
    assert any("CAUTION" in line for line in only.about) is not fixed
    check(node, [node], advice)


def test_nothing_of_a_device_can_end_a_comment() -> None:
    node = adapter(0, "1", ID_VENDOR="x\ny: z", ID_MODEL="\x1b[31m\u2028a")
    text = policy_text(advise(node, [node]).suggestions)
    assert "\x1b" not in text and "\u2028" not in text and "\ny" not in text
    check(node, [node], advise(node, [node]))


def device(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run([*FDBROKER, "device", *words], cwd=TREE, capture_output=True, text=True)


def test_command_prints_a_policy_for_a_node_of_this_machine(place: Path) -> None:
    (place / "link").symlink_to("/dev/null")
    ran = device(str(place / "link"))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"# {place}/link -> /dev/null: char 1:3" in ran.stdout
    (selector,) = load([Source("printed.yaml", ran.stdout)]).device_groups["null-number"]
    assert selector.numbers == ((1, 3),)


def shown(*words: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(device(*words, "--json").stdout)
    return told


def test_command_tells_everything_as_json() -> None:
    told = shown("/dev/null")
    assert (told["node"], told["type"], told["device"], told["stable"]) == ("/dev/null", "char", "1:3", True)
    assert told["suggestions"][0]["selector"] == {"type": "char", "device": "1:3"}
    assert "/dev/null" in told["suggestions"][0]["matches"]


@pytest.mark.skipif(not os.path.exists("/dev/loop0"), reason="there is no /dev/loop0")
def test_command_knows_a_block_device() -> None:
    assert shown("/dev/loop0")["type"] == "block"


def test_pseudoterminal_has_nothing_stable() -> None:
    controller, terminal = os.openpty()
    try:
        ran = device(os.ttyname(terminal))
    finally:
        os.close(controller)
        os.close(terminal)
    assert ran.returncode == 1
    assert "a pseudoterminal comes and goes with its session" in ran.stdout
    assert "CAUTION" in ran.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "No such file or directory"),
        ("file", "is no device node but file"),
        (".", "is no device node but directory"),
        ("fifo", "is no device node but fifo"),
        ("loop", "is no device node but nothing that a policy knows"),
    ],
)
def test_command_refuses_what_is_no_device_node(place: Path, name: str, reason: str) -> None:
    (place / "file").write_text("x")
    (place / "loop").symlink_to("loop")
    os.mkfifo(place / "fifo")
    ran = device(str(place / name), "--json")
    assert ran.returncode == 2
    assert reason in ran.stderr
    assert json.loads(ran.stdout)["suggestions"] is None


def test_name_that_would_drive_the_terminal_is_escaped() -> None:
    ran = device("/no/\x1b[31m")
    assert ran.returncode == 2
    assert "/no/\\x1b[31m cannot be looked at" in ran.stderr


def in_world(adapters: list[tuple[str, int, dict[str, str] | None]], *words: str) -> dict[str, Any]:
    """What the command says as JSON on a machine with these adapters."""
    ran = subprocess.run(
        [
            str(WRAPPER),
            sys.executable,
            device_world.__file__,
            json.dumps(adapters),
            "device",
            *words,
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


PLUGGED = {"ID_MODEL_ID": "6001", "ID_MODEL": "FT232R"}


@pytest.mark.skipif(WRAPPER is None, reason="umockdev is not installed (tools/test does that as root)")
@pytest.mark.parametrize(
    ("properties", "wanted"),
    [
        ([PLUGGED | {"ID_SERIAL_SHORT": "A"}], {"", "-serial", "-port", "-product-port"}),
        ([PLUGGED | {"ID_SERIAL_SHORT": ""}], {"", "-port", "-product-port"}),
        ([PLUGGED | {"ID_SERIAL_SHORT": "A"}] * 2, {"", "-port", "-product-port"}),
        ([None], {""}),
    ],
)
def test_command_knows_an_adapter_that_is_plugged_in(
    properties: list[dict[str, str] | None], wanted: set[str]
) -> None:
    plugged = [(f"1-{minor + 1}", minor, one) for minor, one in enumerate(properties)]
    told = in_world(plugged, "/dev/ttyUSB0")
    assert told["device"] == "188:0"
    suggested = {one["name"]: one["matches"] for one in told["suggestions"]}
    base = "ft232r" if properties[0] else "ttyusb0"
    assert set(suggested) == {base + suffix for suffix in wanted}
    assert suggested[base] == [f"/dev/ttyUSB{minor}" for minor in range(len(plugged))]
    assert all(matches == ["/dev/ttyUSB0"] for name, matches in suggested.items() if name != base)
