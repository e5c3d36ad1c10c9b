"""`fdbroker cat`: what a policy's files come to: which of them count, what is masked, and the rules in force."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from broker.commands.policies import read_or_tell, show_problems
from broker.commands.rule_words import clients_words, objects_words
from broker.policyfiles import TIERS, PolicyFiles, load_files
from broker.textlines import columns, counted
from broker.trust import shown_path
from policy import PolicyError, PolicySet, Rule, rights_words
from policy.moments import moment_text
from policy.problems import Position
from policy.termwords import as_written, written
from policy.words import ALL_RIGHTS

_EPILOG = f"""\
Policy files lie in three tiers: {TIERS[2]} (the administrator) goes over
{TIERS[1]} (until reboot), and that over {TIERS[0]} (packages).
 - A file replaces those of its name in lower tiers; an empty one, or a link to /dev/null, leaves nothing of them.
 - `mask: [10-base/disks]` in a file switches off that rule of a lower tier.
 - A client, a socket or a group of devices that is declared again in a higher tier means what it says there.
What counts and what does not is shown with the place to look at; then each rule in force: its id, file and line, what
it allows or denies, of what, for whom, and under which terms. To change what a package says, do not edit its file: mask
the rule, and write yours.

  fdbroker cat                         what `fdbroker serve` would serve by
  fdbroker cat --json | jq -r '.rules[].id'
  fdbroker cat policy.d                the files of one directory, as `--policy policy.d` takes them

exit status: 0 the set is shown, 1 it has mistakes (`fdbroker check` shows them too), 2 it could not be read
"""


def main(arguments: Sequence[str]) -> int:
    """Show the set that `arguments` name."""
    options = _parser().parse_args(arguments)
    files = read_or_tell("cat", options.paths, options.json)
    if files is None:
        return 2
    try:
        loaded = load_files(files)
    except PolicyError as error:
        show_problems(error.problems, options.json)
        return 1
    shown = _described(files, loaded, tiered=not options.paths)
    print(json.dumps(shown) if options.json else _as_text(shown, loaded))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker cat",
        description="Show the policy that is in force when all its files are read: what replaces, masks and\n"
        "redefines what, and each rule with its file and line.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="policy files, or directories of them, read as one set of one tier (default: the three tiers)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _described(files: PolicyFiles, loaded: PolicySet, *, tiered: bool) -> dict[str, Any]:
    empty = {(source.name, source.tier) for source in files.sources if not source.text}
    replaced = {file.path: by.path for file, by in files.replaced}
    everything = sorted(
        [*files.files, *(file for file, _ in files.replaced)], key=lambda one: (one.tier, one.path)
    )
    return {
        "good": True,
        "policy": loaded.policy.digest,
        "files": [
            {
                "file": shown_path(file.path),
                "tier": TIERS[file.tier] if tiered else None,
                "replaced_by": replaced.get(file.path),
                "empty": (file.name, file.tier) in empty,
            }
            for file in everything
        ],
        "masked": [
            {"rule": one.id, "place": _place(one.place), "by": _place(one.by)} for one in loaded.masked
        ],
        "redefined": [
            {"what": one.what, "name": one.name, "place": _place(one.place), "by": _place(one.by)}
            for one in loaded.redefined
        ],
        "rules": [
            {
                "id": rule.id,
                "file": rule.file,
                "line": rule.line,
                "action": rule.action,
                "rights": rights_words(rule.rights),
                "who": clients_words(rule, ", ".join),
                "what": objects_words(rule, ", ".join) or "everything",
                "paths": [pattern.text for pattern in rule.paths],
                "until": None if rule.until is None else moment_text(rule.until),
                "terms": written(rule.terms),
                "accept": sorted(rule.accept),
            }
            for rule in loaded.policy.rules
        ],
    }


def _place(position: Position) -> dict[str, Any]:
    return {"file": position.file, "line": position.line}


def _as_text(shown: dict[str, Any], loaded: PolicySet) -> str:
    rules, files = shown["rules"], shown["files"]
    sections = {
        "files, the highest tier last": [_file_row(one) for one in files],
        "masked rules": [[one["rule"], *_places(one)] for one in shown["masked"]],
        "redefined names": [[f"{one['what']} {one['name']}", *_places(one)] for one in shown["redefined"]],
        "rules in force": [
            _rule_row(one, rule) for one, rule in zip(rules, loaded.policy.rules, strict=True)
        ],
    }
    lines = [f"policy {shown['policy']}: {counted(len(rules), 'rule')} in force"]
    for title, rows in sections.items():
        if rows:
            lines += ["", title, *(f"  {line}" for line in columns(rows))]
    return "\n".join(lines)


def _file_row(file: dict[str, Any]) -> list[str]:
    note = "empty" if file["empty"] else ""
    return [file["file"], f"replaced by {file['replaced_by']}" if file["replaced_by"] else note]


def _places(one: dict[str, Any]) -> list[str]:
    return [_shown(one["place"]), f"by {_shown(one['by'])}"]


def _rule_row(shown: dict[str, Any], rule: Rule) -> list[str]:
    rights = "all" if rule.rights == ALL_RIGHTS else " ".join(shown["rights"])
    until = [f"until: {moment_text(rule.until)}"] if rule.until is not None else []
    terms = [*as_written(rule.terms._replace(addresses=())), *until]
    terms += [f"accept: [{', '.join(shown['accept'])}]"] if rule.accept else []
    row = [
        shown["id"],
        _shown(shown),
        f"{rule.action} {rights}",
        objects_words(rule, ", ".join) or "everything",
    ]
    return [*row, f"for {clients_words(rule, ', '.join)}", ", ".join(terms)]


def _shown(place: dict[str, Any]) -> str:
    return f"{place['file']}:{place['line']}"
