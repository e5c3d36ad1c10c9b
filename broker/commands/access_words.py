"""What `fdbroker access` found, in words: as tables for a terminal, and as JSON. Each has all of it."""

import stat
from collections.abc import Iterable
from typing import Any, NamedTuple

from broker.reaching import RULE, Around, Row, Sheet, Shown
from broker.survey import Seen, Unseen
from broker.textlines import columns, printable_line
from policy import Rights, Rule, rights_words
from policy.devices import Device
from policy.keeping import CODE, unkept
from policy.moments import moment_text
from policy.rules import DENY
from policy.termwords import rule_terms

# Objects of one table that are named above it in the text; --json has all of them.
_SHOWN_OBJECTS = 8

# Names of accounts in one line of text.
_SHOWN_NAMES = 6

_HEADINGS = ("WHO", "RIGHTS", "TERMS", "RULE")
_USER_HEADINGS = ("OBJECT", "RIGHTS", "TERMS", "RULE", "ITSELF")

BY_DEFAULT = "default"
NOTHING = "-"
MARKED = "* no account by itself: whoever has the mark that the rule names"


class Report(NamedTuple):
    """All that was found, and for what."""

    policy: str
    """The policy's digest."""
    machine: str
    moment: int
    """When it was looked at, in seconds since 1970."""
    about: str
    """What was asked for, in words."""
    user: str | None
    """The one account that was asked for."""
    sheets: tuple[Sheet, ...]
    given_to_nobody: int
    """Other objects that were looked at, and that nobody gets anything of through the broker."""
    absent: tuple[Unseen, ...]
    """What was named, in the command or in a rule, and is not there, or cannot be looked at."""
    unknown: tuple[str, ...]
    """What else could not be determined."""
    cut: tuple[str, ...]
    """What was not looked at whole, as there is too much of it."""

    @property
    def when(self) -> str:
        """The moment in words."""
        return moment_text(self.moment)


def described(seen: Seen) -> str:
    """What an object is: its type, and of a device its number and what udev knows it by."""
    words = [seen.subject.object.type.value if seen.subject.object.type else "of unknown type"]
    if seen.number is not None:
        words.append(f"{seen.number[0]}:{seen.number[1]}")
    return " ".join([*words, *device_words(seen.subject.object.device)])


def device_words(device: Device | None) -> list[str]:
    """What a device is known by: subsystem, vendor and product, serial."""
    if device is None:
        return []
    properties = device.properties or {}
    ids = [properties.get(name, "") for name in ("ID_VENDOR_ID", "ID_MODEL_ID")]
    words = [device.subsystem or "", ":".join(filter(None, ids)), properties.get("ID_SERIAL_SHORT", "")]
    return [word for word in words if word]


def rights_text(rights: Rights) -> str:
    """Rights as a table shows them."""
    return " ".join(rights_words(rights)) or NOTHING


def rule_text(row: Row) -> str:
    """The rule of a row as a table shows it."""
    if row.rule is None:
        return BY_DEFAULT
    return f"denied by {row.rule.id}" if row.rule.action == DENY else row.rule.id


def who_text(row: Row) -> str:
    """Whom a row is for; whom a rule knows by more than an account is marked."""
    return f"{row.label} *" if row.kind == RULE else row.label


def terms_text(row: Row) -> str:
    """What the rights of a row are given under."""
    words = [*rule_terms(row.rule), _unkept(row.rule), row.note] if row.rights and row.rule else [row.note]
    return ", ".join(filter(None, words)) or NOTHING


def _unkept(rule: Rule) -> str:
    codes = [one.code.removeprefix(CODE) for one in unkept(rule)]
    return f"not kept: {' '.join(codes)}" if codes else ""


def around_text(one: Around) -> str:
    """Who opens the object themselves, and what lets them."""
    rights = "+".join(rights_words(one.rights))
    if one.why == "root":
        return f"{' '.join(one.accounts)} {rights}"
    if one.why == "everybody":
        return f"everybody else ({len(one.accounts)}) {rights}"
    more = len(one.accounts) - _SHOWN_NAMES
    names = " ".join(one.accounts[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"{names} ({one.why}) {rights}"


def around_heading(sheet: Sheet) -> str:
    """What stands before those who open the objects themselves."""
    nodes = {str(shown.seen.way.node) for shown in sheet.objects if shown.seen.way is not None}
    return f"AROUND THE BROKER (node {', '.join(sorted(nodes))})" if nodes else "AROUND THE BROKER"


def around_lines(sheet: Sheet) -> list[str]:
    """Who opens the objects of a sheet themselves; told also where it is nobody, or not known."""
    if any(shown.seen.way is None for shown in sheet.objects):
        return ["not known: a directory above cannot be looked at"]
    return [around_text(one) for one in sheet.around] or ["nobody"]


def as_text(report: Report) -> str:
    """Tables, each below the objects that it is for; no name can break a line."""
    lines = [f"policy {report.policy}, {report.machine}, {report.when}: {report.about}"]
    if report.user is not None:
        lines += _of_user(report)
    else:
        for sheet in report.sheets:
            lines += ["", *_sheet_lines(sheet)]
    remarks = remark_lines(report)
    return "\n".join(map(printable_line, [*lines, *([""] if remarks else []), *remarks]))


def remark_lines(report: Report) -> list[str]:
    """What is to be said besides the tables."""
    lines = []
    if report.given_to_nobody:
        count = report.given_to_nobody
        them = "other objects that were looked at" if count > 1 else "other object that was looked at"
        lines.append(f"{count} {them}: nothing through the broker, for {report.user or 'anybody'}")
    lines += [f"{one.what}: {one.path}: {one.why}" for one in report.absent]
    lines += [f"not known: {what}" for what in report.unknown]
    lines += [f"cut: {what}" for what in report.cut]
    return lines


def object_line(shown: Shown) -> str:
    """An object in one line."""
    seen = shown.seen
    leads = seen.subject.object.path
    to = f" -> {leads}" if leads != seen.subject.path else ""
    links = f"; also {' '.join(shown.links)}" if shown.links else ""
    return f"{seen.subject.path}{to} {described(seen)}{links}"


def _sheet_lines(sheet: Sheet) -> Iterable[str]:
    objects = [object_line(shown) for shown in sheet.objects]
    yield from objects[:_SHOWN_OBJECTS]
    if len(objects) > _SHOWN_OBJECTS:
        yield f"and {len(objects) - _SHOWN_OBJECTS} more, all in --json, --html"
    if refusal := sheet.objects[0].seen.refusal:
        yield f"given to nobody: {refusal}"
    else:
        rows = [
            (who_text(row), rights_text(row.rights), terms_text(row), rule_text(row)) for row in sheet.rows
        ]
        yield from columns([_HEADINGS, *rows])
        if any(row.kind == RULE for row in sheet.rows):
            yield MARKED
    yield f"{around_heading(sheet)}: {'; '.join(around_lines(sheet))}"


def _of_user(report: Report) -> Iterable[str]:
    rows = user_rows(report)
    if rows:
        yield from ("", *columns([_USER_HEADINGS, *rows]))
    else:
        yield f"{report.user} gets nothing through the broker"


def user_rows(report: Report) -> list[tuple[str, str, str, str, str]]:
    """What one user gets of each object: the object, rights, terms, the rule, and what it opens itself."""
    rows = []
    for sheet in report.sheets:
        itself = " ".join(rights_text(one.rights) for one in sheet.around if report.user in one.accounts) or (
            NOTHING if all(shown.seen.way for shown in sheet.objects) else "not known"
        )
        given = [row for row in sheet.rows if row.rights] or list(sheet.rows)
        for shown in sheet.objects:
            path = object_line(shown)
            if shown.seen.refusal:
                rows.append((path, NOTHING, NOTHING, shown.seen.refusal, itself))
            rows += [
                (
                    path if row.kind != RULE else f"{path}, as {row.who}",
                    rights_text(row.rights),
                    terms_text(row),
                    rule_text(row),
                    itself,
                )
                for row in given
            ]
    return rows


def as_json(report: Report) -> dict[str, Any]:
    """Everything, for one JSON object."""
    return {
        "policy": report.policy,
        "machine": report.machine,
        "time": report.when,
        "about": report.about,
        "user": report.user,
        "sheets": [
            {
                "objects": [_object_json(shown) for shown in sheet.objects],
                "rows": [_row_json(row) for row in sheet.rows],
                "around": [
                    {"accounts": one.accounts, "rights": rights_words(one.rights), "why": one.why}
                    for one in sheet.around
                ],
            }
            for sheet in report.sheets
        ],
        "given_to_nobody": report.given_to_nobody,
        "absent": [one._asdict() for one in report.absent],
        "unknown": list(report.unknown),
        "cut": list(report.cut),
    }


def _row_json(row: Row) -> dict[str, Any]:
    rule = row.rule
    return {
        "who": row.who,
        "kind": row.kind,
        "accounts": row.accounts,
        "meant": row.meant,
        "rights": rights_words(row.rights),
        "terms": rule_terms(rule) if rule is not None and row.rights else [],
        "unkept": [one.code for one in unkept(rule)] if rule is not None and row.rights else [],
        "rule": None if rule is None else {"id": rule.id, "file": rule.file, "line": rule.line},
        "note": row.note or None,
    }


def _object_json(shown: Shown) -> dict[str, Any]:
    seen = shown.seen
    found, device = seen.subject.object, seen.subject.object.device
    return {
        "path": seen.subject.path,
        "resolved": found.path,
        "links": shown.links,
        "type": found.type.value if found.type else None,
        "device": None if seen.number is None else f"{seen.number[0]}:{seen.number[1]}",
        "subsystem": device.subsystem if device is not None else None,
        "known_by": device_words(device),
        "names": [*found.names, *sorted(seen.subject.same)],
        "refusal": seen.refusal or None,
        "node": _node_json(seen),
    }


def _node_json(seen: Seen) -> dict[str, Any] | None:
    if seen.way is None:
        return None
    node = seen.way.node
    return {
        "mode": f"{stat.S_IMODE(node.mode):04o}",
        "uid": node.uid,
        "gid": node.gid,
        "acl": bool(node.acl),
    }
