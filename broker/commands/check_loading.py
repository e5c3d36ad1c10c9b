"""Loads the set that `fdbroker check` checks, with its tests, and shows how far that is."""

from collections.abc import Iterator, Sequence
from itertools import accumulate

from broker.commands.progress import Bar
from broker.policyfiles import PolicyFiles, load_files_by
from policy import PolicySet, Source, counting
from policy.nodes import Node, Scalar
from policy.testcases import PolicyTest, load_with_tests

_Entries = Iterator[tuple[Scalar | None, Node]]


def load_to_check(files: PolicyFiles) -> tuple[PolicySet, tuple[PolicyTest, ...]]:
    """Return the set that was read, and its tests. Raises policy.PolicyError with all that is wrong with them."""
    return load_files_by(_load, files)


def _load(sources: Sequence[Source]) -> tuple[PolicySet, tuple[PolicyTest, ...]]:
    files, _ = counting(sources)
    lines = [_lines(source) for source in files]
    before = dict(zip([source.name for source in files], accumulate([0, *lines]), strict=False))
    with Bar(sum(lines), "lines") as bar:

        def watch(file: str, entries: _Entries) -> _Entries:
            for key, node in entries:
                bar.show(before[file] + node.line)
                yield key, node

        return load_with_tests(files, watch)


def _lines(source: Source) -> int:
    text = source.text
    return 1 + (text.count("\n") if isinstance(text, str) else text.count(b"\n"))
