"""What is found about one rule alone: selectors that devices choose, programs, and terms that cannot be kept.

What udev's properties come from stands in the rules that systemd ships (60-persistent-storage.rules,
60-serial.rules, 60-fido-id.rules) and in blkid(8).
"""

import re
from collections.abc import Callable, Iterator

from .devices import Device, DeviceSelector
from .findings import Finding, finding, texts
from .keeping import unkept
from .rules import ALLOW, DENY, Rule
from .terms import REQUIRED
from .words import FileType, Rights

# What stands on the medium, for whoever writes to it.
_CONTENT = re.compile(r"ID_FS_.*|ID_PART_.*|label")
# What the device says of itself in text of its maker's, or of whoever made it.
_CLAIM = re.compile(
    r"ID_(?:USB_)?(?:SERIAL|SERIAL_SHORT|MODEL|MODEL_ENC|MODEL_FROM_DATABASE|VENDOR|VENDOR_ENC|VENDOR_FROM_DATABASE)"
    r"|ID_NAME|ID_V4L_PRODUCT|manufacturer|product|serial|name|model"
)
_SECURITY_TOKEN = "ID_SECURITY_TOKEN"

_ALL_OF_DEV = frozenset(("/dev/*", "/dev/**"))
_ANY_DEVICE = DeviceSelector()
_A_BLOCK_DEVICE = Device(subsystem="block")

# Terminals, by their names and subsystem: hanging one up ends every holder's use of it (TIOCVHANGUP).
_TERMINALS = re.compile(r"/dev/(?:tty[^/]+|pts/[^/]+|serial/.*|rfcomm[^/]*)")
# Devices with a revoking ioctl of their own (EVIOCREVOKE, HIDIOCREVOKE), which needs the right to ioctls.
_REVOKED_BY_IOCTL = re.compile(r"/dev/(?:input/event[^/]*|hidraw[^/]*)")


def of_rule(rule: Rule) -> Iterator[Finding]:
    """Yield what is found about `rule`, whatever others say."""
    for find in _FINDERS:
        yield from find(rule)


def _selectors(rule: Rule) -> list[DeviceSelector]:
    """The conditions on a device, one selector for each way of meeting them."""
    if rule.device is None:
        return list(rule.devices or ())
    return [_both(rule.device, one) for one in rule.devices or (_ANY_DEVICE,)]


def _both(one: DeviceSelector, other: DeviceSelector) -> DeviceSelector:
    """A selector with the conditions of both, for looking at which there are."""
    return DeviceSelector(
        one.types or other.types,
        one.numbers or other.numbers,
        one.subsystems or other.subsystems,
        one.properties + other.properties,
        one.attributes + other.attributes,
        one.seats or other.seats,
    )


def _keys(selector: DeviceSelector) -> list[str]:
    return [name for name, _ in selector.properties + selector.attributes]


def _known_by(rule: Rule) -> Iterator[Finding]:
    """What devices are known by, where they widen and where they narrow."""
    is_allow = rule.action == ALLOW
    giving, taking = _selectors(rule), list(rule.except_devices)
    if not is_allow:
        giving, taking = taking, giving
    content = [name for one in giving + taking for name in _keys(one) if _CONTENT.fullmatch(name)]
    if content:
        yield finding(
            rule, "content-selector", f"{texts(content)}: whoever writes to the device chooses that"
        )
    claims = [
        name for one in giving if _has_claims_alone(one) for name in _keys(one) if _CLAIM.fullmatch(name)
    ]
    escapes = [name for one in taking for name in _keys(one) if _CLAIM.fullmatch(name)]
    if escapes:
        yield finding(
            rule, "claimed-selector", f"a device that says another {texts(escapes)} is not kept out"
        )
    elif claims:
        yield finding(
            rule, "claimed-selector", f"any device that says the same {texts(claims)} is one of these"
        )
    if any(_SECURITY_TOKEN in _keys(one) for one in giving + taking):
        yield finding(rule, "security-token", "it selects by ID_SECURITY_TOKEN")


def _has_claims_alone(selector: DeviceSelector) -> bool:
    if selector.numbers is not None or selector.subsystems is not None or selector.seats is not None:
        return False
    return all(_CLAIM.fullmatch(name) or _CONTENT.fullmatch(name) for name in _keys(selector))


def _wide_selectors(rule: Rule) -> Iterator[Finding]:
    if rule.action == DENY or not all(pattern.text in _ALL_OF_DEV for pattern in rule.paths):
        return
    for selector in _selectors(rule):
        if selector.numbers is None and not _keys(selector):
            words = [
                word
                for word, values in (("subsystem", selector.subsystems), ("seat", selector.seats))
                if values is not None
            ]
            yield finding(rule, "wide-selector", f"{' and '.join(words) or 'type'} alone selects its devices")
            return


def _block_writes(rule: Rule) -> Iterator[Finding]:
    if rule.action == DENY or rule.terms.exclusive or not rule.rights & Rights.WRITE:
        return
    if FileType.BLOCK not in (rule.types or ()):
        return
    if any(
        one.holds(FileType.BLOCK, _A_BLOCK_DEVICE) is not False for one in _selectors(rule) or (_ANY_DEVICE,)
    ):
        yield finding(
            rule, "block-write-not-exclusive", "it gives write to block devices, also to mounted ones"
        )


def _programs(rule: Rule) -> Iterator[Finding]:
    clients = rule.clients if rule.action == DENY else rule.except_clients
    exes = sorted({exe for client in clients for exe in client.exes or ()})
    if exes:
        yield finding(rule, "deny-by-exe", f"it keeps out who runs {texts(exes)}")


def _terms(rule: Rule) -> Iterator[Finding]:
    if rule.terms.as_broker:
        yield finding(rule, "connects-as-broker", "it connects as the broker")
    for one in unkept(rule):
        yield finding(rule, one.code, f"this version does not keep '{one.what}': {one.instead}")
    if rule.terms.revoke == REQUIRED and not _is_revocable(rule):
        yield finding(rule, "revoke-not-possible", "nothing takes back what it gives")


def _is_revocable(rule: Rule) -> bool:
    """Whether everything that the rule gives can be taken back from who holds it."""
    terms = rule.terms
    if terms.relay or terms.snapshot or terms.tun is not None:
        return True
    if rule.rights and not rule.rights & ~(Rights.CONNECT | Rights.LISTEN):
        return True  # a stream socket is shut down by the broker's duplicate
    if rule.types != frozenset((FileType.CHAR,)):
        return False
    selectors = _selectors(rule)
    if selectors and all(_is_of_subsystems(one, _revocable_subsystems(rule)) for one in selectors):
        return True
    names = [pattern.text for pattern in rule.paths]
    with_ioctl = bool(rule.rights & Rights.IOCTL)
    return bool(names) and all(
        _TERMINALS.fullmatch(name) or (with_ioctl and _REVOKED_BY_IOCTL.fullmatch(name)) for name in names
    )


def _revocable_subsystems(rule: Rule) -> frozenset[str]:
    return frozenset(("tty", "hidraw", "input") if rule.rights & Rights.IOCTL else ("tty",))


def _is_of_subsystems(selector: DeviceSelector, subsystems: frozenset[str]) -> bool:
    return selector.subsystems is not None and all(value in subsystems for value in selector.subsystems)


_FINDERS: tuple[Callable[[Rule], Iterator[Finding]], ...] = (
    _known_by,
    _wide_selectors,
    _block_writes,
    _programs,
    _terms,
)
