"""`fdbroker log`: the records of an audit that one asks for, as a table or as they are."""

import argparse
import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from broker.auditlines import STANDARD_INPUT, followed, lines_of, moment_of, record_of
from broker.commands.audit_options import moment, path_pattern
from broker.commands.common import say
from broker.peers import user_name, user_number
from broker.recordwords import path_words, peer_words, rights_words_of, verdict_words, why_words
from broker.textlines import printable_line
from broker.unusable import Unusable
from policy.paths import split

# Lines that are no records, told one by one.
_TOLD = 20

_COLOURS = {"allow": "32", "deny": "31", "failed": "33", "busy": "33"}  # SGR of ECMA-48: green, red, yellow

_EPILOG = """\
FILE is that of `fdbroker serve --audit`, also a rotated one, compressed by gzip or not; - is standard input. Without
one it is that which the variable FDBROKER_AUDIT names. Different options must all hold; of one that is given several
times, any. Lines that are no records are passed over, and told.

  fdbroker log --verdict deny --since 1h /var/log/fdbroker.jsonl
  fdbroker log --user mia --path '/dev/**' /var/log/fdbroker.jsonl.2.gz /var/log/fdbroker.jsonl.1
  fdbroker log --follow --json /var/log/fdbroker.jsonl | jq .path
  journalctl -t fdbroker -o cat --output-fields=FDBROKER_RECORD | fdbroker log --rule kvm -

exit status: 0 there were such records, 1 there were none, 2 unusable
"""

Filter = Callable[[dict[str, Any]], bool]


def main(arguments: Sequence[str]) -> int:
    """Show what `arguments` ask for."""
    options = _parser().parse_args(arguments)
    try:
        names = _names(options)
        show = _Shown(list(_filters(options)), options.json)
    except Unusable as error:
        say("log", error)
        return 2
    try:
        for name in names:
            show.all_of(name, options.follow)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()  # whoever read has seen enough
    except OSError as error:
        _drop_output()
        say("log", f"standard output cannot be written: {error.strerror}")
        return 2
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
    return 2 if show.unusable else 0 if show.found else 1


def _drop_output() -> None:
    """What Python would still write at its end has nowhere to go."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker log",
        description="Show the records of an audit.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="the audit's files, in the order to be shown"
    )
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--user", metavar="NAME|UID", **several, help="records about this user")
    parser.add_argument("--uid", metavar="UID", type=int, **several, help="records about this uid")
    parser.add_argument(
        "--path",
        metavar="PATTERN",
        **several,
        help="records about what was asked for, or found, at such a path: a pattern as in a policy file",
    )
    parser.add_argument(
        "--verdict", choices=("allow", "deny", "failed", "busy"), **several, help="decisions of this verdict"
    )
    parser.add_argument(
        "--rule", metavar="RULE", **several, help="decisions by this rule: its id, or its name"
    )
    parser.add_argument(
        "--event",
        metavar="EVENT",
        **several,
        help="records of this event: open, check, release, malformed, …",
    )
    parser.add_argument("--grant", metavar="GRANT", **several, help="records about this grant, as g81")
    parser.add_argument(
        "--since", metavar="WHEN", help="from then on: 2026-12-01T18:00+01:00, or 10m, 2h, 1d ago"
    )
    parser.add_argument("--until", metavar="WHEN", help="until then, in the same forms")
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="go on with what is written from now on, also when the file is rotated",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the records as they are, one JSON object a line"
    )
    return parser


def _names(options: argparse.Namespace) -> list[str]:
    names: list[str] = options.files or [name for name in (os.environ.get("FDBROKER_AUDIT"),) if name]
    if not names:
        raise Unusable("which audit? Name its FILE, or set FDBROKER_AUDIT")
    if options.follow and len(names) > 1:
        raise Unusable("--follow takes one FILE")
    return names


# --- which ones --------------------------------------------------------------------------------------------


def _filters(options: argparse.Namespace) -> Iterator[Filter]:
    """Yield what must hold. Raises Unusable."""
    uids = {*options.uid, *map(user_number, options.user)}
    if uids:
        yield lambda record: _uid_of(record) in uids
    if options.path:
        yield _path_filter(options.path)
    if options.rule:
        yield lambda record: any(_is_rule(record.get("rule"), rule) for rule in options.rule)
    for field in ("verdict", "event", "grant"):
        wanted = getattr(options, field)
        if wanted:
            yield functools.partial(_has, field, wanted)
    if options.since is not None:
        since = moment("--since", options.since)
        yield lambda record: _is_since(record, since)
    if options.until is not None:
        until = moment("--until", options.until)
        yield lambda record: _is_until(record, until)


def _has(field: str, wanted: Sequence[str], record: dict[str, Any]) -> bool:
    return record.get(field) in wanted


def _is_rule(found: object, wanted: str) -> bool:
    return isinstance(found, str) and (found == wanted or found.endswith(f"/{wanted}"))


def _uid_of(record: dict[str, Any]) -> object:
    peer = record.get("peer")
    uid = peer.get("uid") if isinstance(peer, dict) else record.get("uid")
    return uid if type(uid) is int else None


def _path_filter(texts: Sequence[str]) -> Filter:
    patterns = [path_pattern(text) for text in texts]

    @functools.lru_cache(maxsize=4096)
    def matches(path: str) -> bool:
        return any(pattern.matches(split(path)) for pattern in patterns)

    def holds(record: dict[str, Any]) -> bool:
        paths = (record.get("path"), record.get("resolved"))
        return any(isinstance(path, str) and matches(path) for path in paths)

    return holds


# One of which the time is not known is not left out: better one too many to look at.
def _is_since(record: dict[str, Any], since: float) -> bool:
    time = moment_of(record.get("time"))
    return time is None or time >= since


def _is_until(record: dict[str, Any], until: float) -> bool:
    time = moment_of(record.get("time"))
    return time is None or time <= until


# --- how they look -----------------------------------------------------------------------------------------


class _Shown:
    """Shows records on standard output, and counts them."""

    def __init__(self, filters: Sequence[Filter], as_json: bool) -> None:
        self._filters = filters
        self._as_json = as_json
        self._coloured = _takes_colours()
        self._broken = 0
        self.found = False
        self.unusable = False

    def all_of(self, name: str, follow: bool) -> None:
        """Show those of one audit; one that cannot be read, or no further, is told."""
        try:
            if follow and name != STANDARD_INPUT:
                self._show(name, followed(name))
            else:
                self._show(name, lines_of(name), follow)
        except Unusable as error:
            self.unusable = True
            sys.stdout.flush()
            say("log", error)
        if self._broken > _TOLD:
            say("log", f"{name}: {self._broken - _TOLD} more lines are no records")
        self._broken = 0

    def _show(self, name: str, lines: Iterator[tuple[int, bytes]], at_once: bool = False) -> None:
        out = sys.stdout.buffer
        filters, as_json, text = self._filters, self._as_json, self._text
        for number, line in lines:
            record = record_of(line)
            if record is None:
                if not number:
                    out.flush()
                elif line.strip():
                    self._tell_broken(name, number)
                continue
            for holds in filters:
                if not holds(record):
                    break
            else:
                self.found = True
                out.write(_as_it_is(line, record) if as_json else text(record))
                if at_once:
                    out.flush()

    def _tell_broken(self, name: str, number: int) -> None:
        self._broken += 1
        if self._broken <= _TOLD:
            say("log", f"{printable_line(name)}:{number}: no record, passed over")

    def _text(self, record: dict[str, Any]) -> bytes:
        when = record.get("time")
        verdict = f"{verdict_words(record):7}"
        row = printable_line(
            f"{when[:23] + 'Z' if isinstance(when, str) and len(when) == 27 else when or '-'}  "
            f"{verdict}  {peer_words(record, _name_of):14}  {rights_words_of(record):10}  "
            f"{path_words(record)}  {why_words(record)}"
        )
        if self._coloured:
            shown = printable_line(verdict)
            colour = _COLOURS.get(str(record.get("verdict")), "36")
            row = row.replace(shown, f"\x1b[{colour}m{shown}\x1b[0m", 1)
        return f"{row}\n".encode("utf-8", "backslashreplace")


def _as_it_is(line: bytes, record: dict[str, Any]) -> bytes:
    # A broker's own lines are ASCII. In others there could be what a terminal obeys.
    if line.isascii() and line.endswith(b"\n"):
        return line
    return json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"


@functools.lru_cache(maxsize=1024)
def _name_of(uid: int) -> str:
    return user_name(uid) if 0 <= uid < 2**32 - 1 else str(uid)


def _takes_colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
