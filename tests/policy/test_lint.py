"""What lint finds about paths, devices, clients and terms, and what rules accept of it."""

import pytest

from policy import Policy, PolicyError, Source, load
from policy.findings import CODES, ERROR, NOTE, WARNING, Finding, finding
from policy.lint import judged, lint

NOW = 1e9
LAB = "clients: {group: lab}, allow: read"
WRITE = "clients: {group: lab}, allow: [read, write]"


def policy(*rules: str) -> Policy:
    lines = [f"  - {{name: r{number}, {rule}}}" for number, rule in enumerate(rules)]
    return load([Source("a.yaml", "\n".join(["version: 1", "rules:", *lines]))])


def found(*rules: str) -> dict[str, Finding]:
    """What is found about the first of the rules, by code."""
    return {one.code: one for one in lint(policy(*rules), NOW) if one.rule == "a/r0"}


@pytest.mark.parametrize(
    ("rule", "codes"),
    [
        # Whole trees.
        (f"{LAB}, paths: '/**'", "wide-path"),
        (f"{LAB}, paths: '/*/**'", "wide-path"),
        (f"{LAB}, paths: '/*/shadow'", "wide-path"),
        (f"{LAB}, paths: '/etc/**'", "wide-path"),
        (f"{LAB}, paths: '/etc/*'", "wide-path"),
        (f"{LAB}, paths: '/etc/?*'", "wide-path"),
        (f"{LAB}, paths: '/etc/*.conf'", ""),
        (f"{LAB}, paths: '/${{user}}/**'", "wide-path"),
        (f"{LAB}, paths: ['${{home}}/**', '${{home}}/*']", ""),
        (f"{LAB}, paths: ['/srv/**', '/opt/*', '/var/lib/**', /etc/shadow]", ""),
        ("deny: all, paths: '/**'", ""),
        # /dev, memory, /proc and /sys.
        (f"{LAB}, type: char, paths: '/dev/*', except_paths: [/dev/mem, /dev/kmem, /dev/port]", "whole-dev"),
        (f"{LAB}, type: char, paths: '/dev/**'", "memory-device whole-dev"),
        (f"{LAB}, type: char, paths: '/dev/tty*'", ""),
        (f"{LAB}, type: char, paths: [/dev/mem, /dev/kvm]", "memory-device"),
        (f"{LAB}, type: char, paths: '/dev/*m*'", "memory-device"),
        (f"{LAB}, paths: '/dev/mem'", ""),  # a regular file
        # udev's links to all devices by their numbers, which a rule for one type follows.
        (f"{LAB}, type: char, paths: '/dev/char/*'", "memory-device whole-dev"),
        (f"{LAB}, type: char, paths: '/dev/char/1:1'", "memory-device"),
        (f"{LAB}, type: char, paths: '/dev/char/1:*', except_paths: [/dev/mem, /dev/kmem, /dev/port]", ""),
        (f"{LAB}, type: char, paths: '/dev/char/188:*'", ""),
        (f"{LAB}, type: [char, block], paths: '/dev/char/*'", ""),
        (f"{LAB}, type: block, paths: '/dev/block/*'", "whole-dev"),
        (f"{LAB}, type: char, paths: '/dev/?*'", "memory-device whole-dev"),
        (f"{LAB}, type: char, attrs: {{dev: '1:1'}}", "memory-device"),
        (f"{LAB}, subsystem: mem, udev: {{ID_PATH: x}}", ""),
        (f"{LAB}, subsystem: mem, device: '1:*'", "memory-device"),
        (f"{LAB}, paths: [/proc/self/status, /proc/meminfo]", "never-given"),
        (f"{LAB}, paths: '/sys/fs/cgroup/x'", "never-given"),
        (f"{LAB}, paths: /sys/class/thermal/temp", ""),
        (f"{WRITE}, paths: /sys/class/leds/x/brightness", "sysfs"),
        (f"{LAB}, paths: '/sys/class/leds/*/brightness'", "sysfs"),
        ("clients: [{user: mia}], allow: listen, addresses: 'tcp:0.0.0.0:80'", "unkept-listen"),  # no path at all
        # Disks.
        ("deny: all, paths: '/dev/sd*'", "disks-by-path"),
        ("deny: all, type: block, paths: ['/dev/sd*', '/dev/nvme*']", "disks-by-path"),
        ("deny: all, paths: /dev/sda", "disks-by-path"),
        ("deny: all, type: block, paths: '/dev/**'", ""),
        ("deny: all, type: block", ""),
        ("deny: all, type: block, devices: {udev: {ID_BUS: usb}}, paths: '/dev/sd*'", ""),
        ("deny: all, paths: '/dev/ttyS*'", ""),
        ("deny: all, type: char, paths: '/dev/sd*'", ""),
        (f"{LAB}, type: block, paths: '/dev/sd?'", "disks-by-path"),
        (f"{LAB}, type: block, paths: /dev/nvme0n1p2", "disks-by-path"),
        (f"{LAB}, type: block, paths: '/dev/disk/by-id/usb-*'", ""),
        (f"{WRITE}, type: block, paths: '/dev/disk/by-id/usb-*'", "block-write-not-exclusive"),
        (f"{WRITE}, type: block, paths: '/dev/disk/by-id/usb-*', exclusive: true", "unkept-exclusive"),
        (f"{WRITE}, udev: {{ID_VENDOR_ID: 0403}}", "block-write-not-exclusive"),
        (f"{WRITE}, udev: {{ID_VENDOR_ID: 0403}}, type: char", ""),
        (f"{WRITE}, subsystem: tty, udev: {{ID_VENDOR_ID: 0403}}", ""),
        (f"{WRITE}, devices: [{{subsystem: tty, udev: {{A: b}}}}, {{udev: {{A: b}}, type: char}}]", ""),
        # What devices are known by.
        (f"{LAB}, udev: {{ID_FS_LABEL: x, ID_BUS: usb}}", "content-selector"),
        (f"{LAB}, attrs: {{label: x, vendor: 1}}", "content-selector"),
        ("deny: all, udev: {ID_FS_UUID: x}", "content-selector"),
        ("deny: all, except_devices: {udev: {ID_PART_ENTRY_NAME: x}}", "content-selector"),
        (f"{LAB}, udev: {{ID_SERIAL_SHORT: x}}", "claimed-selector"),
        (f"{LAB}, attrs: {{serial: x, manufacturer: y}}", "claimed-selector"),
        (f"{LAB}, subsystem: tty, udev: {{ID_SERIAL_SHORT: x}}", ""),
        (f"{LAB}, udev: {{ID_SERIAL_SHORT: x, ID_VENDOR_ID: 0403}}", ""),
        (f"{LAB}, udev: {{ID_PATH: x}}", ""),
        ("deny: all, subsystem: tty, udev: {ID_MODEL: x}", "claimed-selector"),
        ("deny: all, subsystem: tty, udev: {ID_MODEL_ID: x, ID_VENDOR_ID: x}", ""),
        (f"{LAB}, subsystem: tty, udev: {{A: b}}, except_devices: {{attrs: {{serial: x}}}}", "claimed-selector"),
        ("deny: all, subsystem: tty, except_devices: {udev: {ID_SERIAL: x, ID_PATH: y}}", ""),
        (f"{LAB}, subsystem: hidraw, udev: {{ID_SECURITY_TOKEN: 1}}", "security-token"),
        (f"{LAB}, subsystem: hidraw, udev: {{ID_FIDO_TOKEN: 1}}", ""),
        (f"{LAB}, subsystem: hidraw", "wide-selector"),
        (f"{LAB}, devices: [{{seat: seat0, subsystem: sound}}, {{device: '10:200'}}]", "wide-selector"),
        (f"{LAB}, type: char, paths: '/dev/snd/*', devices: {{seat: seat0}}", ""),
        ("deny: all, subsystem: hidraw", ""),
        # Clients and terms.
        ("deny: all, clients: {exe: /bin/a}, paths: /a", "deny-by-exe"),
        ("clients: {group: lab}, except_clients: {exe: /bin/a}, allow: read, paths: /a", "deny-by-exe"),
        ("clients: {group: lab, exe: /bin/a}, allow: read, paths: /a", ""),
        ("clients: {group: lab}, allow: connect, type: socket, paths: /a, as: broker",
         "connects-as-broker unkept-connect"),
        (f"{LAB}, type: char, paths: /dev/kvm, revoke: required", "revoke-not-possible unkept-revoke"),
        (f"{LAB}, type: char, paths: '/dev/ttyUSB*', revoke: required", "unkept-revoke"),
        (f"{LAB}, type: char, subsystem: tty, udev: {{ID_PATH: a}}, revoke: required", "unkept-revoke"),
        (f"{LAB}, type: char, paths: /dev/hidraw0, revoke: required", "revoke-not-possible unkept-revoke"),
        ("clients: {group: lab}, allow: use, type: char, paths: /dev/hidraw0, revoke: required", "unkept-revoke"),
        (f"{LAB}, type: char, paths: /dev/kvm, revoke: try", ""),
        (f"{LAB}, paths: /a/b/c, lease: 1h, limits: {{open: 1}}", "unkept-lease unkept-limits"),
    ],
)  # fmt: skip
def test_rule_has_the_findings_that_it_has(rule: str, codes: str) -> None:
    assert sorted(found(rule)) == codes.split()


def test_memory_that_is_denied_to_everybody_is_not_reached() -> None:
    wide = f"{LAB}, type: char, paths: '/dev/*'"
    nodes = "paths: [/dev/mem, /dev/kmem, /dev/port]"
    assert "memory-device" not in found(wide, f"deny: all, {nodes}")
    assert "memory-device" not in found(wide, "deny: all, subsystem: mem")
    assert "memory-device" in found(wide, f"deny: write, {nodes}")
    assert "memory-device" in found(wide, f"deny: all, clients: {{user: mia}}, {nodes}")
    assert "memory-device" in found(wide, f"deny: all, {nodes}, until: 2999-01-01T00:00Z")
    assert (
        found(wide, "deny: all, paths: [/dev/mem, /dev/kmem]")["memory-device"].message
        == "it gives /dev/port"
    )


def test_deny_of_all_block_devices_misses_other_ways_to_disks_where_an_allow_gives_them() -> None:
    deny = "deny: all, type: block, paths: '/dev/**'"
    assert not found(deny, f"{LAB}, type: char, paths: /dev/kvm")
    missed = found(deny, f"{LAB}, type: char, paths: '/dev/*g*', except_paths: /dev/nvme0")[
        "disks-by-path"
    ].message
    assert "/dev/sg0" in missed
    assert "/dev/bsg" not in missed
    assert not found(deny, f"{LAB}, subsystem: tty, udev: {{ID_BUS: usb}}")
    assert found(deny, f"{LAB}, type: char, udev: {{ID_BUS: usb}}")
    assert not found(deny, f"{LAB}, type: char, paths: '/dev/*g0'", "deny: all, paths: '/dev/sg*'")


def test_finding_names_rule_and_line() -> None:
    text = f"version: 1\nrules:\n\n  - name: x\n    {LAB.replace(', ', chr(10) + '    ')}\n    paths: '/**'\n"
    (one,) = lint(load([Source("30-site.yaml", text)]), NOW)
    assert (one.file, one.line, one.rule, one.code) == ("30-site.yaml", 4, "30-site/x", "wide-path")


# accept


def checked(*rules: str, machine: bool = True) -> dict[str, tuple[str, bool]]:
    """Severity and whether it fails, by code, of what is found when all is judged."""
    whole = policy(*rules)
    return {one.code: (one.severity, one.fails) for one in judged(whole, lint(whole, NOW), machine)}


def test_accepted_finding_fails_nothing() -> None:
    assert checked(f"{LAB}, paths: '/**'") == {"wide-path": (WARNING, True)}
    assert checked(f"{LAB}, paths: '/**', accept: wide-path") == {"wide-path": (WARNING, False)}
    assert checked("deny: all, paths: '/dev/sd*', accept: [disks-by-path]") == {
        "disks-by-path": (WARNING, False)
    }
    both = f"{WRITE}, type: block, paths: '/dev/sd*', accept: [disks-by-path]"
    assert checked(both) == {"disks-by-path": (WARNING, False), "block-write-not-exclusive": (ERROR, True)}


def test_accepting_what_is_not_found_is_a_finding() -> None:
    idle = f"{LAB}, paths: /a/b, accept: [wide-path, whole-dev]"
    assert checked(idle) == {"accept-of-nothing": (WARNING, True)}
    assert checked(f"{LAB}, paths: /a, accept: [wide-path, accept-of-nothing]") == {
        "accept-of-nothing": (WARNING, False)
    }
    of_machine = f"{LAB}, paths: /a, accept: path-missing"
    assert checked(of_machine) == {"accept-of-nothing": (WARNING, True)}
    assert checked(of_machine, machine=False) == {}
    # Of a rule that is over nothing else is looked for, and so nothing of it is missed.
    over = f"{LAB}, paths: '/**', until: 1999-01-01T00:00Z, accept: wide-path"
    assert checked(over) == {"rule-is-over": (WARNING, True)}


def test_note_fails_nothing() -> None:
    whole = policy(f"{LAB}, paths: /a")
    (one,) = judged(whole, [finding(whole.rules[0], "path-missing", "x")], machine_asked=True)
    assert (one.severity, one.fails, one.accepted) == (NOTE, False, False)


def test_accept_is_no_part_of_what_a_rule_means() -> None:
    assert policy(f"{LAB}, paths: /a, accept: wide-path").rules[0].accept == frozenset(["wide-path"])
    assert policy("deny: all, accept: [wide-path, sysfs]").rules[0].accept == frozenset(
        ["wide-path", "sysfs"]
    )


@pytest.mark.parametrize(
    ("accept", "column", "told"),
    [
        ("wide-paths", 13, "accept has 'wide-paths', expected the code of a finding, as `fdbroker check` prints it; "
         "did you mean 'wide-path'?"),
        ("[sysfs, '']", 21, "accept is empty"),
        ("[]", 13, "accept is empty"),
        ("{a: b}", 13, "accept is a mapping, expected text"),
    ],
)  # fmt: skip
def test_unknown_code_is_told_with_its_place(accept: str, column: int, told: str) -> None:
    text = f"version: 1\nrules:\n  - name: r\n    deny: all\n    accept: {accept}\n"
    with pytest.raises(PolicyError) as error:
        load([Source("a.yaml", text)])
    assert str(error.value) == f"a.yaml:5:{column}: {told}"


def test_code_is_lower_case_with_meaning_and_remedy() -> None:
    for code, one in CODES.items():
        assert code == one.code
        assert code.replace("-", "").isalpha(), code
        assert code.islower(), code
        assert one.severity in (ERROR, WARNING, NOTE)
        assert one.meaning.endswith("."), code
        assert one.remedy.endswith("."), code
