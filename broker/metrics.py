"""Counts of what a broker decided, from its audit's records, in the text form of OpenMetrics.

Pure: records and numbers in, text out. A record is looked through for its few words that count; nothing of it is
trusted to be JSON.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

# Bounds of the histogram in microseconds: an open that was decided before takes some ten, one by udev's word some
# hundred, one in a process of its own milliseconds.
BOUNDS = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 100_000, 1_000_000)

# Different rules that are counted by their names: a policy of 100,000 rules must not make as many lines.
_RULES = 1_000
_OTHER_RULES = "(others)"

_EVENT = re.compile(rb'"event":"([a-z-]{1,40})"')
_VERDICT = re.compile(rb'"verdict":"(allow|deny|failed|busy)"')
_RULE = re.compile(rb'"rule":"([A-Za-z0-9._-]{1,255}/[A-Za-z0-9._-]{1,64})"')
_MICROSECONDS = re.compile(rb'"us":(\d{1,12})\}$')


class Metrics:
    """What was decided since the broker started."""

    def __init__(self) -> None:
        self.decisions: Counter[tuple[str, str]] = Counter()
        """By verdict and rule; no rule is the default."""
        self.events: Counter[str] = Counter()
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._sum = 0
        self._rules: set[str] = set()
        self.missed = 0
        """Records that could not be counted, since they came too fast."""

    def note(self, records: Iterable[bytes]) -> None:
        """Count records, each without its end of line."""
        for record in records:
            event = _EVENT.search(record)
            if event is None:
                continue
            name = event[1].decode()
            self.events[name] += 1
            verdict = _VERDICT.search(record)
            if name == "open" and verdict is not None:
                self._decided(record, verdict[1].decode())

    def _decided(self, record: bytes, verdict: str) -> None:
        found = _RULE.search(record)
        rule = "" if found is None else found[1].decode()
        if rule not in self._rules:
            if len(self._rules) >= _RULES:
                rule = _OTHER_RULES
            self._rules.add(rule)
        self.decisions[verdict, rule] += 1
        took = _MICROSECONDS.search(record)
        if took is not None:
            microseconds = int(took[1])
            place = next((i for i, bound in enumerate(BOUNDS) if microseconds <= bound), len(BOUNDS))
            self._buckets[place] += 1
            self._sum += microseconds

    def text(self, gauges: Mapping[str, tuple[str, float]], counters: Mapping[str, tuple[str, float]]) -> str:
        """The exposition, with further gauges and counters: what each means, and its value."""
        lines = [
            *_head("fdbroker_decisions", "counter", "Opens that were decided, by verdict and rule."),
            *(
                f'fdbroker_decisions_total{{verdict="{verdict}",rule="{rule}"}} {count}'
                for (verdict, rule), count in sorted(self.decisions.items())
            ),
            *_head("fdbroker_events", "counter", "Records of the audit, by event."),
            *(
                f'fdbroker_events_total{{event="{name}"}} {count}'
                for name, count in sorted(self.events.items())
            ),
            *_head("fdbroker_open_seconds", "histogram", "Seconds from a call's turn until it was decided."),
            *self._histogram(),
        ]
        for name, (meaning, value) in sorted(gauges.items()):
            lines += [*_head(f"fdbroker_{name}", "gauge", meaning), f"fdbroker_{name} {value:g}"]
        for name, (meaning, value) in sorted(counters.items()):
            lines += [*_head(f"fdbroker_{name}", "counter", meaning), f"fdbroker_{name}_total {value:g}"]
        return "\n".join([*lines, "# EOF", ""])

    def _histogram(self) -> Iterable[str]:
        count = 0
        for bound, inside in zip((*BOUNDS, None), self._buckets, strict=True):
            count += inside
            limit = "+Inf" if bound is None else f"{bound / 1e6:g}"
            yield f'fdbroker_open_seconds_bucket{{le="{limit}"}} {count}'
        yield f"fdbroker_open_seconds_count {count}"
        yield f"fdbroker_open_seconds_sum {self._sum / 1e6:g}"


def _head(name: str, kind: str, meaning: str) -> tuple[str, str]:
    return f"# TYPE {name} {kind}", f"# HELP {name} {meaning}"
