"""What `fdbroker replay` and `fdbroker suggest` take of an audit: by whom, of what, since when."""

import argparse
import time
from collections.abc import Callable, Iterator

from broker.peers import user_name, user_number
from broker.recorded import Decision, Reading
from broker.unusable import Unusable
from policy import PathPattern, PatternError, parse_pattern
from policy.durations import parse_duration
from policy.moments import MomentError, moment_text, parse_moment
from policy.paths import split


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose decisions."""
    parser.add_argument("--user", metavar="NAME|UID", help="decisions about this user alone")
    parser.add_argument(
        "--path",
        metavar="PATTERN",
        help="decisions about what was asked for by such a path alone, a pattern as in a policy file",
    )
    parser.add_argument(
        "--since",
        metavar="WHEN",
        help="decisions from then on: 2026-12-01T18:00+01:00, or 30m, 12h, 7d ago",
    )


def chosen(reading: Reading, options: argparse.Namespace) -> Iterator[Decision]:
    """Yield the decisions that the options choose. Raises Unusable."""
    filters = list(_filters(options))
    for decision in reading:
        if all(holds(decision) for holds in filters):
            yield decision


def _filters(options: argparse.Namespace) -> Iterator[Callable[[Decision], bool]]:
    if options.user is not None:
        uid = user_number(options.user)
        yield lambda decision: decision.uid == uid
    if options.path is not None:
        pattern = path_pattern(options.path)
        yield lambda decision: pattern.matches(split(decision.path))
    if options.since is not None:
        since = moment("--since", options.since)
        # One of which the time is not known is not left out: better one too many to look at.
        yield lambda decision: decision.time is None or decision.time >= since


def path_pattern(text: str) -> PathPattern:
    """The pattern that was given with --path. Raises Unusable."""
    try:
        pattern = parse_pattern(text)
    except PatternError as error:
        raise Unusable(f"--path {text!r}: {error}") from None
    if pattern.variables:
        raise Unusable(f"--path {text!r}: a variable stands for nothing here")
    return pattern


def moment(option: str, text: str) -> float:
    """The moment that was given with `option`, in seconds since 1970. Raises Unusable."""
    ago = parse_duration(text)
    if ago is not None:
        return time.time() - ago
    try:
        return parse_moment(text)
    except MomentError as error:
        raise Unusable(f"{option} {text!r}: {error}; or 30m, 12h, 7d ago") from None


def who(decision: Decision) -> str:
    """Who asked, in words."""
    if decision.uid is None:
        name = "a uid that is not known"
    else:
        known = user_name(decision.uid) if 0 <= decision.uid < 2**32 - 1 else str(decision.uid)
        name = f"uid {decision.uid}" + (f" {known}" if known != str(decision.uid) else "")
    unit = f", unit {decision.unit}" if decision.unit else ""
    socket = f", socket {decision.socket}" if decision.socket != "default" else ""
    return f"{name}{unit}{socket}"


def times_words(first: float | None, last: float | None) -> str:
    """When it was, in UTC."""
    if first is None or last is None:
        return "at an unknown time"
    begin, end = moment_text(int(first)), moment_text(int(last))
    return begin if begin == end else f"{begin} to {end}"
