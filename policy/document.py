"""Reads the YAML of one policy file or profile, event by event, into nodes with their places.

What is refused here, each with its place:
- text that is not UTF-8 or too long, characters that YAML does not allow, and what is not YAML;
- anchors, aliases and tags (so that nothing can be expanded), a second document, a top that is no mapping;
- duplicate keys, keys that are not plain text, nesting and single entries beyond any sensible size.

The entries of the top-level sections are handed out one at a time, so that a long file never stands in memory
as nodes; a section that nobody wants is passed over, and of it only what is no YAML at all is refused. What the keys
mean is the subject of `schema`, `rulefields` and `profile`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import yaml

from .nodes import Mapping, Node, Scalar, Sequence, Unreadable
from .problems import FileReport, shown

# Bytes of one file: some 200,000 rules.
FILE_BYTES = 32 * 1024 * 1024

# Collections within collections; the language itself needs six.
NESTING = 32

# The same in what is passed over: the parser's time grows with the square of it.
NESTING_PASSED_OVER = 1_000

# Values in one entry of a section, so that no single one fills the memory before it is looked at.
VALUES_PER_ENTRY = 100_000

# The parser in C where PyYAML was built with it: some twenty times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What YAML does not allow; and the line ends of YAML 1.1 that editors do not show, behind which a comment ends
# unseen. As one set of characters it would take 1.5 ms to compile, as three it takes none.
_REFUSED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|[\u2028\u2029\ud800-\udfff]|[\ufeff\ufffe\uffff]|\r(?!\n)"
)
_LINE_END = re.compile("\r\n|\r|\n")
_NEEDS_QUOTES = frozenset("[]{}:*&!@`%")


class Section(NamedTuple):
    """A top-level key and what stands under it."""

    key: Scalar
    kind: type[Node]
    """Scalar, Sequence or Mapping: what the entries stand in; Unreadable: nothing that could be used."""
    entries: Iterator[tuple[Scalar | None, Node]]
    """The values, with their keys in a mapping. They come while they are read, and only once."""


def read_sections(
    text: str | bytes, keys: str, report: FileReport, passed_over: frozenset[str] = frozenset()
) -> Iterator[Section]:
    """Yield the top-level sections of a file; none for a file that is empty or has nothing but comments.

    `keys` are the sections that belong there, for the message about a file that is something else. Those in
    `passed_over` are yielded without their entries.
    Raises Abandoned, also out of the entries of a section, where reading on makes no sense.
    """
    return _Reader(_decoded(text, report), keys, report, passed_over).sections()


def _decoded(text: str | bytes, report: FileReport) -> str:
    try:
        data = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        _abandon_at_offset(str(text), error.start, "this is no text that encodes to UTF-8", report)
    if len(data) > FILE_BYTES:
        report.abandon(1, 1, f"the file has {len(data)} bytes, expected at most {FILE_BYTES}")
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(errors="replace").removeprefix("\ufeff")
        _abandon_at_offset(before, len(before), f"byte {data[error.start]:#04x} is not UTF-8", report)
    refused = _REFUSED.search(decoded)
    if refused:
        found = f"the character {refused.group()!r} is not allowed"
        _abandon_at_offset(decoded, refused.start(), found, report)
    return decoded


def _abandon_at_offset(text: str, offset: int, message: str, report: FileReport) -> NoReturn:
    # Not splitlines(): it also counts form feeds and the like, which end no line of a file.
    lines = _LINE_END.split(text[:offset])
    report.abandon(len(lines), len(lines[-1]) + 1, message)


class _Reader:
    """One pass over the events of a file."""

    def __init__(self, text: str, keys: str, report: FileReport, passed_over: frozenset[str]) -> None:
        self._text = text
        self._keys = keys
        self._report = report
        self._passed_over = passed_over
        self._loader = _LOADER(text)
        self._values = 0

    def sections(self) -> Iterator[Section]:
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return
        top = self._next()
        if not isinstance(top, yaml.MappingStartEvent):
            self._abandon(top, f"expected a mapping with {self._keys}")
        self._refuse_properties(top)
        for key, event in self._pairs():
            section = self._section(key, event)
            yield section
            for _ in section.entries:
                pass
        self._next()  # the end of the document
        more = self._next()
        if not isinstance(more, yaml.StreamEndEvent):
            self._abandon(more, "a second document begins here, expected one in a file")

    def _next(self) -> yaml.Event:
        """Return the parser's next event; what it finds wrong ends the file."""
        try:
            event: yaml.Event = self._loader.get_event()
            return event
        except yaml.MarkedYAMLError as error:
            self._abandon_at_error(error)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self._report.abandon(1, 1, f"this is not YAML: {shown(str(error))}")

    def _abandon_at_error(self, error: yaml.MarkedYAMLError) -> NoReturn:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        told = ", ".join(filter(None, (error.context, error.problem)))
        hint = ""
        lines = self._text.splitlines()
        if line < len(lines) and not _NEEDS_QUOTES.isdisjoint(lines[line]):
            hint = "; quote values that hold one of [ ] { } : * & ! @ ` %"
        self._report.abandon(line + 1, column + 1, f"this is not YAML: {told}{hint}")

    def _section(self, key: Scalar, event: yaml.Event) -> Section:
        if not isinstance(event, yaml.CollectionStartEvent):
            node = self._node(event, 1)
            return Section(key, type(node), iter([(None, node)]))
        self._refuse_properties(event)
        kind = Sequence if isinstance(event, yaml.SequenceStartEvent) else Mapping
        if key.text in self._passed_over:
            self._skip(event)
            return Section(key, kind, iter(()))
        return Section(key, kind, self._list_entries() if kind is Sequence else self._mapping_entries())

    def _list_entries(self) -> Iterator[tuple[None, Node]]:
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            yield None, self._entry(event)

    def _mapping_entries(self) -> Iterator[tuple[Scalar, Node]]:
        for key, event in self._pairs():
            yield key, self._entry(event)

    def _entry(self, event: yaml.Event) -> Node:
        self._values = 0
        return self._node(event, 2)

    def _node(self, event: yaml.Event, depth: int) -> Node:
        """Return the node that begins with `event`, which has `depth` collections around it."""
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        self._count(event)
        self._refuse_properties(event)
        if isinstance(event, yaml.AliasEvent):
            return Unreadable(*_place(event))
        if depth >= NESTING:
            self._abandon(event, f"nested more than {NESTING} deep")
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(item := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(item, depth + 1))
            return Sequence(items, *_place(event))
        entries = [(key, self._node(value, depth + 1)) for key, value in self._pairs()]
        return Mapping(entries, *_place(event))

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        self._count(event)
        if event.tag is not None or event.anchor is not None:
            self._refuse_properties(event)
        return Scalar(event.value, not event.style, *_place(event))

    def _count(self, event: yaml.Event) -> None:
        self._values += 1
        if self._values > VALUES_PER_ENTRY:
            self._abandon(event, f"more than {VALUES_PER_ENTRY} values in one entry")

    def _pairs(self) -> Iterator[tuple[Scalar, yaml.Event]]:
        """Yield the keys of the mapping that has begun, each with the first event of its value."""
        lines: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._refuse(event, "expected a key that is plain text")
                self._skip(event)
                self._skip(self._next())
                continue
            key = self._scalar(event)
            value = self._next()
            if key.text not in lines:
                lines[key.text] = key.line
                yield key, value
            else:
                self._report.at(key, f"duplicate key {shown(key.text)}, first on line {lines[key.text]}")
                self._skip(value)

    def _skip(self, event: yaml.Event) -> None:
        """Pass over the node that begins with `event`, whatever its size."""
        depth = 0
        while True:
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > NESTING_PASSED_OVER:
                    self._abandon(event, f"nested more than {NESTING_PASSED_OVER} deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth == 0:
                return
            event = self._next()

    def _refuse_properties(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"the alias {shown(f'*{event.anchor}')} is not allowed: write the value out")
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.anchor is not None:
                self._refuse(event, f"the anchor {shown(f'&{event.anchor}')} is not allowed")
            if event.tag is not None:
                self._refuse(event, f"the tag {shown(event.tag)} is not allowed: a field has its own type")

    def _refuse(self, event: yaml.Event, message: str) -> None:
        self._report.at(Unreadable(*_place(event)), message)

    def _abandon(self, event: yaml.Event, message: str) -> NoReturn:
        self._report.abandon(*_place(event), message)


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
