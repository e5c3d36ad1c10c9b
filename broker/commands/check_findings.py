"""The findings of `fdbroker check`: for people, as JSON, and what one code means."""

from collections import Counter
from typing import Any

from broker.linting import Linted
from broker.textlines import counted, printable_line
from broker.unusable import Unusable
from policy.findings import CODES, NOTE, Finding
from policy.problems import did_you_mean

_DOCUMENT = "docs/lint.md"


def findings_text(linted: Linted, *, with_notes: bool) -> list[str]:
    """A line for each finding, with another for those that fail, which says what to do."""
    lines: list[str] = []
    for one in linted.findings:
        if one.severity != NOTE or with_notes:
            lines.append(f"{one.file}:{one.line}: {_weight(one)}: {one.code}: rule {one.rule}: {one.message}")
        if one.fails:
            lines.append(f"    {one.remedy} See {see(one.code)}")
    return list(map(printable_line, lines))


def findings_counts(linted: Linted, *, with_notes: bool) -> list[str]:
    """How many findings there are, and what could not be looked at, for standard error."""
    failing = Counter(one.severity for one in linted.findings if one.fails)
    lines = []
    if failing:
        told = ", ".join(counted(count, severity) for severity, count in sorted(failing.items()))
        lines.append(f"{told}; a rule takes one on with 'accept: [CODE]', --explain CODE tells more")
    notes = Counter(one.code for one in linted.findings if one.severity == NOTE and not one.accepted)
    if notes and not with_notes:
        lines.append(f"{counted(notes.total(), 'note')} ({', '.join(sorted(notes))}); --notes shows them")
    if linted.unseen:
        first, more = linted.unseen[0], len(linted.unseen) - 1
        others = f" (and {more} more, in --json)" if more else ""
        lines.append(f"not looked at: {first}{others}")
    return list(map(printable_line, lines))


def findings_json(linted: Linted) -> dict[str, Any]:
    """All findings, also those that are accepted, and what could not be looked at."""
    return {"findings": [_as_json(one) for one in linted.findings], "unseen": linted.unseen}


def explained_code(code: str) -> str:
    """What findings of `code` mean and what to do. Raises Unusable for a code that there is not."""
    known = CODES.get(code)
    if known is None:
        near = did_you_mean(CODES, code)
        raise Unusable(f"there is no finding {code!a}{near}; there are: {', '.join(CODES)}")
    of_machine = (
        " It depends on the machine, and is not looked for with --offline." if known.of_machine else ""
    )
    return f"{code} ({known.severity})\n{known.meaning}{of_machine}\n{known.remedy}\nSee {see(code)}"


def see(code: str) -> str:
    """Where the documentation tells of `code`."""
    return f"{_DOCUMENT}#{code}"


def _weight(one: Finding) -> str:
    return "accepted" if one.accepted else one.severity


def _as_json(one: Finding) -> dict[str, Any]:
    return {
        "file": one.file,
        "line": one.line,
        "rule": one.rule,
        "code": one.code,
        "severity": one.severity,
        "message": one.message,
        "remedy": one.remedy,
        "accepted": one.accepted,
        "see": see(one.code),
    }
