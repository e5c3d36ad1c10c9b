"""Writes a rule that gives one request and no other, as text of a policy file.

Rules enforced: the path is named as it is and never as a pattern, the rights are those that were needed, the type is
the object's, the client is one user (or one unit of theirs) by one socket. What is written is read back by the loader:
where that does not make exactly the rule that was meant, nothing is written. No name can add a key, a line or a rule.
"""

import json
from typing import NamedTuple

from .clients import DEFAULT_SOCKET, Client
from .keeping import unkept
from .load import load
from .paths import shape_fault, split
from .patterns import PatternError, parse_pattern
from .problems import PolicyError
from .rules import ALLOW, Rule, Source
from .variables import literally
from .words import FileType, Rights, rights_words, with_implied

_INDENT = "  "
_FILE = "suggested.yaml"


class Unwritable(Exception):
    """What no rule can be written for; the message says why."""


class Asked(NamedTuple):
    """A request to write a rule for."""

    user: str | None
    """The name of the account; None: it has none, the number stands for it."""
    uid: int
    unit: str | None
    """None or "": whatever it runs in."""
    path: str
    rights: Rights
    type: FileType


def rule_text(name: str, asked: Asked) -> str:
    """Return the lines of a rule, below `rules:`. Raises Unwritable."""
    text = "\n".join(_lines(name, asked))
    try:
        rules = load([Source(_FILE, f"version: 1\nrules:\n{text}\n")]).rules
    except PolicyError as error:
        raise Unwritable(error.problems[0].message) from None
    for one in rules:
        for lost in unkept(one):
            raise Unwritable(f"this version does not keep '{lost.what}': {lost.instead}")
    if len(rules) != 1 or not _is_meant(rules[0], name, asked):
        raise Unwritable("what would be written does not mean this request alone")
    return text


def _lines(name: str, asked: Asked) -> list[str]:
    client: dict[str, object] = {"uid": str(asked.uid)} if asked.user is None else {"user": asked.user}
    if asked.unit:
        client["unit"] = asked.unit
    client["socket"] = DEFAULT_SOCKET
    keys = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in client.items())
    return [
        f"{_INDENT}- name: {name}",
        f"{_INDENT}  clients: [{{{keys}}}]",
        f"{_INDENT}  allow: [{', '.join(rights_words(asked.rights))}]",
        f"{_INDENT}  type: {asked.type.value}",
        f"{_INDENT}  paths: [{_quoted(_pattern(asked.path))}]",
    ]


def _pattern(path: str) -> str:
    fault = shape_fault(path)
    if fault:
        raise Unwritable(f"no request for such a path is ever allowed: {fault}")
    text = literally(path)
    try:
        pattern = parse_pattern(text)
    except PatternError as error:
        raise Unwritable(f"no pattern can name it: {error}") from None
    if pattern.recursive or pattern.variables or not pattern.matches(split(path)):
        raise Unwritable("no pattern can name it")
    return text


def _quoted(text: str) -> str:
    """`text` in double quotes, as YAML and JSON both read it."""
    if not text.isprintable():
        raise Unwritable("a character in it does not show")
    return json.dumps(text, ensure_ascii=False)


def _is_meant(rule: Rule, name: str, asked: Asked) -> bool:
    client = Client(
        users=None if asked.user is None else frozenset((asked.user,)),
        uids=((asked.uid, asked.uid),) if asked.user is None else None,
        sockets=frozenset((DEFAULT_SOCKET,)),
        units=frozenset((asked.unit,)) if asked.unit else None,
    )
    expected = Rule(
        rule.id,
        rule.file,
        rule.line,
        name,
        ALLOW,
        Rights(with_implied(int(asked.rights))),
        frozenset((asked.type,)),
        (parse_pattern(literally(asked.path)),),
        (),
        (client,),
        (),
    )
    return rule == expected
