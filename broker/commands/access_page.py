"""What `fdbroker access` found as one HTML page: nothing outside it is needed, and no script either.

Every text that comes from a policy, a path, an account or a device goes through `_escaped`, and the page forbids the
browser all but its own style and its own script, by their hashes. On paper tables are not cut and headings come again;
on a narrow screen a row becomes a card.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from string import Template

from broker.commands.access_words import (
    MARKED,
    NOTHING,
    Report,
    around_heading,
    described,
    remark_lines,
    rule_text,
    terms_text,
    user_rows,
)
from broker.reaching import REST, RULE, Around, Row, Sheet, Shown
from broker.textlines import printable_line
from policy import Rights, rights_words
from policy.rules import DENY

# Names of accounts in one row, and objects above one table, before the page says how many more there are.
_SHOWN_NAMES = 60
_SHOWN_OBJECTS = 12

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1d21; --soft: #555d66; --line: #d3d8de; --paper: #ffffff; --band: #f3f5f8;
  --give: #0b5a2c; --give-band: #e3f3e8; --deny: #8f1414; --deny-band: #fbe7e7; --link: #0b4f9e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a9b1ba; --line: #3a4149; --paper: #16191d;
  --band: #20252b; --give: #8fdcaa; --give-band: #15351f; --deny: #ffb0b0; --deny-band: #451b1b; --link: #9cc7ff; } }
* { box-sizing: border-box; } .away { display: none !important; }
body { margin: 0 auto; max-width: 70rem; padding: 1.25rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .75rem; }
h2 { font-size: 1.05rem; margin: 0 0 .6rem; font-weight: 600; }
h3 { font-size: .9rem; margin: 1rem 0 .3rem; color: var(--soft); font-weight: 600; }
code, .path, .rule { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .92em; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0 0 1rem; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; }
section, .box { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 0 0 1.25rem; }
ul { margin: 0; padding-left: 1.2rem; } ul.objects { list-style: none; padding: 0; }
h2 ul.objects { font-weight: 600; }
.what, .names, .more, .legend { color: var(--soft); font-weight: 400; }
.names { display: block; font-size: .85rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-size: .85rem; font-weight: 600; background: var(--band); }
tbody th { font-weight: 600; }
th.in-who, th.in-object { width: 34%; } th.in-rights { width: 20%; } th.in-terms { width: 22%; }
th.in-object ~ th.in-rights { width: 16%; } th.in-object ~ th.in-terms { width: 18%; } th.in-itself { width: 12%; }
.right { display: inline-block; border-radius: .3rem; padding: 0 .4rem; margin: 0 .15rem .15rem 0; font-size: .88rem;
  color: var(--give); background: var(--give-band); border: 1px solid currentColor; }
.denied { color: var(--deny); background: var(--deny-band); border-radius: .3rem; padding: 0 .4rem; }
.legend p { margin: .3rem 0; } summary { color: var(--link); cursor: pointer; font-weight: 400; }
#filter { display: block; width: 100%; font: inherit; padding: .5rem .6rem; margin: .25rem 0 1.25rem; color: inherit;
  background: var(--band); border: 1px solid var(--soft); border-radius: .4rem; }
#filter[hidden] { display: none; }
#filter:focus-visible, summary:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
@media screen and (max-width: 42rem) {
  body { padding: .75rem; } section, .box { padding: .75rem; }
  dl.facts { grid-template-columns: 1fr; gap: 0; } dl.facts dd { margin-bottom: .35rem; }
  table, tbody, tr, th, td { display: block; width: auto; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr { border: 1px solid var(--line); border-radius: .4rem; margin: 0 0 .6rem; padding: .35rem .6rem; }
  tbody th, tbody td { border: 0; padding: .15rem 0; }
  tbody td { display: grid; grid-template-columns: 5rem 1fr; }
  tbody td::before { content: attr(data-head); color: var(--soft); font-size: .85rem; }
  tbody td.empty { display: none; }
}
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #333; --line: #999; --paper: #fff; --band: #fff; --give: #000;
    --give-band: #fff; --deny: #000; --deny-band: #fff; --link: #000; }
  @page { margin: 15mm; }
  html { font-size: 9.5pt; } body { max-width: none; padding: 0; }
  section { border: 0; border-top: 1.5pt solid #000; border-radius: 0; padding: .5rem 0 0; }
  section.short, .box, tr, li { break-inside: avoid; }
  h1, h2, h3 { break-after: avoid; } thead { display: table-header-group; }
  .denied { font-weight: 600; padding: 0; } .on-screen { display: none !important; }
}
"""

# The page is whole without it: it shows a field to choose sections by.
_SCRIPT = """
const field = document.getElementById("filter"), sections = [...document.querySelectorAll("section.sheet")];
const parts = sections.length ? sections : [...document.querySelectorAll("tbody tr")];
field.hidden = false; field.previousElementSibling.hidden = false;
field.addEventListener("input", () => {
  const wanted = field.value.toLowerCase();
  for (const part of parts) part.classList.toggle("away", !part.textContent.toLowerCase().includes(wanted));
});
"""

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src '$style_hash'; script-src '$script_hash'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<dl class="facts">$facts</dl>
<label for="filter" class="on-screen" hidden>Show what has this in it: a path, a user, a rule</label>
<input id="filter" class="on-screen" type="search" hidden>
</header>
<main>
$sections
</main>
<footer class="box">
$remarks
<h2>How to read it</h2>
<div class="legend">$legend</div>
</footer>
<script>$script</script>
</body>
</html>
""")

_LEGEND = (
    "Each row is one answer of the broker: who asks, what a request gets at most, under which terms, and the rule that "
    "gives it. A request gets its rights when one row has all of them; rows never add up. For less a smaller request "
    "may be answered by another rule.",
    "“12 of 14” are the accounts that get it, of those that the rule means: the others are excepted or denied. "
    "“Default” is what no rule gives, so the broker refuses it.",
    f"{MARKED}: a unit, a program, a label, a socket, a uid without an account, a group that no account is in. Of an "
    "account a process of a login is meant, with the groups of a login.",
    "Around the broker: who opens the object without it, by its mode, owner, groups and ACL, and those of the "
    "directories above. Security modules, capabilities and read-only mounts are not looked at.",
    "This is one moment, one policy, one machine. What was handed out before, and is still open, is not in it.",
)


def as_page(report: Report) -> str:
    """The whole page."""
    title = f"Who can have what on {report.machine}"
    sections = _user_section(report) if report.user is not None else "\n".join(map(_section, report.sheets))
    return _PAGE.substitute(
        title=_escaped(title),
        style=_STYLE,
        style_hash=_hash_of(_STYLE),
        script=_SCRIPT,
        script_hash=_hash_of(_SCRIPT),
        facts=_facts(report),
        sections=sections or f'<p class="box">{_nobody(report)} through the broker.</p>',
        remarks=_remarks(report),
        legend="".join(f"<p>{_escaped(text)}</p>" for text in _LEGEND),
    )


def _nobody(report: Report) -> str:
    return "Nobody gets anything" if report.user is None else f"{_escaped(report.user)} gets nothing"


def _hash_of(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _escaped(text: str) -> str:
    return escape(printable_line(text))


def _facts(report: Report) -> str:
    facts = (
        ("Machine", report.machine),
        ("Time", report.when),
        ("Policy", report.policy),
        ("Shown", report.about),
    )
    return "".join(f"<dt>{name}</dt><dd>{_escaped(value)}</dd>" for name, value in facts)


def _remarks(report: Report) -> str:
    lines = "".join(f"<li>{_escaped(line)}</li>" for line in remark_lines(report))
    return f"<h2>Besides</h2><ul>{lines}</ul><br>" if lines else ""


def _section(sheet: Sheet) -> str:
    rows = "".join(map(_row, sheet.rows))
    refusal = sheet.objects[0].seen.refusal
    table = (
        f'<p><span class="denied">given to nobody</span> {_escaped(refusal)}</p>'
        if refusal
        else _table(("who", "rights", "terms", "rule"), "Through the broker", rows)
    )
    # A long table may be cut between rows, which is told to the printer by leaving it alone.
    short = " short" if len(sheet.rows) + len(sheet.objects) <= _SHOWN_OBJECTS else ""
    return (
        f'<section class="sheet{short}"><h2>{_objects(sheet.objects)}</h2>{table}{_around(sheet)}</section>'
    )


def _objects(objects: Sequence[Shown]) -> str:
    items = [_object(shown) for shown in objects]
    listed = f'<ul class="objects">{"".join(items[:_SHOWN_OBJECTS])}</ul>'
    if len(items) <= _SHOWN_OBJECTS:
        return listed
    more = len(items) - _SHOWN_OBJECTS
    rest = f'<ul class="objects">{"".join(items[_SHOWN_OBJECTS:])}</ul>'
    return f"{listed}<details><summary>and {more} more</summary>{rest}</details>"


def _object(shown: Shown) -> str:
    subject = shown.seen.subject
    leads = f" → {_escaped(subject.object.path)}" if subject.object.path != subject.path else ""
    links = f"; also {_escaped(' '.join(shown.links))}" if shown.links else ""
    what = f'<span class="what">{_escaped(described(shown.seen))}{links}</span>'
    return f'<li><span class="path">{_escaped(subject.path)}{leads}</span> {what}</li>'


def _table(heads: Sequence[str], caption: str, rows: str) -> str:
    columns = "".join(
        f'<th scope="col" role="columnheader" class="in-{_escaped(head)}">{_escaped(head.capitalize())}</th>'
        for head in heads
    )
    return (
        f'<table role="table" aria-label="{_escaped(caption)}"><thead role="rowgroup"><tr role="row">{columns}</tr>'
        f'</thead><tbody role="rowgroup">{rows}</tbody></table>'
    )


def _row(row: Row) -> str:
    is_named = row.kind == REST or set(row.accounts) <= set(re.split(r"[ ,()]", row.label))
    names = "" if is_named else f'<span class="names">{_names(row.accounts)}</span>'
    mark = "&nbsp;*" if row.kind == RULE else ""
    who = _escaped(row.label) + mark + names
    return _cells(who, [("Rights", _rights(row)), ("Terms", _terms(row)), ("Rule", _rule(row))])


def _cells(first: str, cells: Iterable[tuple[str, str]]) -> str:
    rest = "".join(
        f'<td role="cell" data-head="{head}"{" class=empty" if cell == NOTHING else ""}>{cell}</td>'
        for head, cell in cells
    )
    return f'<tr role="row"><th scope="row" role="rowheader">{first}</th>{rest}</tr>'


def _names(accounts: Sequence[str]) -> str:
    more = len(accounts) - _SHOWN_NAMES
    return _escaped(" ".join(accounts[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else ""))


def _rights(row: Row) -> str:
    return (
        "<span>" + _badges(row.rights) + "</span>"
        if row.rights
        else '<span><span class="denied">nothing</span></span>'
    )


def _badges(rights: Rights) -> str:
    return " ".join(f'<span class="right">{_escaped(word)}</span>' for word in rights_words(rights))


def _terms(row: Row) -> str:
    return _escaped(terms_text(row))


def _rule(row: Row) -> str:
    place = f'<span class="names">{_escaped(f"{row.rule.file}:{row.rule.line}")}</span>' if row.rule else ""
    kind = "denied" if row.rule is not None and row.rule.action == DENY else "rule"
    return f'<span><span class="{kind}">{_escaped(rule_text(row))}</span>{place}</span>'


def _around(sheet: Sheet) -> str:
    heading = around_heading(sheet).replace("AROUND THE BROKER", "Around the broker")
    if any(shown.seen.way is None for shown in sheet.objects):
        body = "<p>Not known: a directory above cannot be looked at.</p>"
    elif not sheet.around:
        body = "<p>Nobody.</p>"
    else:
        body = f"<ul>{''.join(map(_around_item, sheet.around))}</ul>"
    return f"<h3>{_escaped(heading)}</h3>{body}"


def _around_item(one: Around) -> str:
    count = f" ({len(one.accounts)})" if one.why != "root" else ""
    who = "everybody else" if one.why == "everybody" else one.why
    names = "" if one.why in ("root", "everybody") else f' <span class="what">{_names(one.accounts)}</span>'
    return f"<li>{_badges(one.rights)} {_escaped(who)}{count}{names}</li>"


def _user_section(report: Report) -> str:
    rows = "".join(
        _cells(
            f'<span class="path">{_escaped(path)}</span>',
            (
                ("Rights", _escaped(rights)),
                ("Terms", _escaped(terms)),
                ("Rule", f'<span class="rule">{_escaped(rule)}</span>'),
                ("Itself", _escaped(itself)),
            ),
        )
        for path, rights, terms, rule, itself in user_rows(report)
    )
    caption = f"What {report.user} gets"
    table = _table(("object", "rights", "terms", "rule", "itself"), caption, rows)
    note = "<p class=what>“Itself” is what this user opens without the broker.</p>"
    return f"<section><h2>{_escaped(caption)}</h2>{table}{note}</section>" if rows else ""
