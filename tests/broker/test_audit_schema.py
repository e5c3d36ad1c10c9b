"""The schema of audit records: it is documented, and the check of every test's records understands all of it."""

import copy
import json
import re
from typing import Any

import jsonschema
import pytest
from audit_schema import EVENTS, SCHEMA, faults_of
from support import TREE

_PEER = {
    "uid": 0,
    "gid": 0,
    "pid": 7,
    "gids": [0, 4],
    "socket": "default",
    "exe": "/x",
    "unit": "",
    "label": "l",
}
_OPEN = {
    "connection": 1,
    "peer": _PEER,
    "path": "/dev/x",
    "access": ["read"],
    "optional": ["write"],
    "flags": ["sync"],
    "verdict": "allow",
    "resolved": "/dev/y",
    "type": "char",
    "device": "10:232",
    "names": ["/dev/z", None],
    "link": True,
    "by": "broker",
    "rights": ["read"],
    "rule": "a/b",
    "at": "a.yaml:1",
    "errno": "EIO",
    "reason": "x",
    "grant": "g1",
    "us": 0,
}

# Of each event one record with every field that there is.
WHOLE: dict[str, dict[str, Any]] = {
    "open": _OPEN,
    "check": {name: _OPEN[name] for name in ("peer", "path", "access", "verdict", "rule", "at", "reason")},
    "release": {name: _OPEN[name] for name in ("peer", "path", "grant")},
    "revoke": {"grant": "g1", "path": "/dev/x", "connection": 1, "fd": "lives on"},
    "malformed": {"peer": _PEER, "reason": "x"},
    "oneway": {"peer": _PEER, "reason": "x"},
    "refusals-not-written": {"uid": 0, "count": 1},
    "record-dropped": {"reason": "x"},
    "run": {
        "peer": {"uid": 1, "gid": 1, "pid": 1, "embedded": True},
        "layers": ["seccomp"],
        "weak": {"landlock": "why"},
        "network": "none",
    },
    "reload": {"good": False, "policy": "0759be52ca9c", "rules": 10, "error": "x"},
    "worker": {"generation": 0, "confinement": {"uid": 61184}},
    "worker-ended": {"status": -9, "clients": 1},
    "reopened": {},
    "reopen-failed": {"reason": "x"},
    "records-lost": {"first": 1, "last": 2, "count": 2, "reason": "x"},
}


def record(event: str) -> dict[str, Any]:
    more = copy.deepcopy(WHOLE[event])
    return {"seq": 1, "time": "2026-11-23T09:12:07.510889Z", "event": event, **more}


@pytest.mark.parametrize("event", EVENTS)
def test_check_of_the_tests_agrees_with_a_full_implementation(event: str) -> None:
    whole = record(event)
    assert set(whole) == set(SCHEMA["$defs"][event]["properties"])
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    assert faults_of(whole) == [] and validator.is_valid(whole)
    wrong: list[dict[str, Any]] = [{**whole, "more": 1}]
    for name in whole:
        wrong.append({key: value for key, value in whole.items() if key != name})
        wrong += [
            {**whole, name: value} for value in (-1, 2**40, "?", ["?"], [1], {"?": 1}, None, False, "g0")
        ]
    for name in whole.get("peer", ()):
        wrong += [{**whole, "peer": {**whole["peer"], name: value}} for value in (-1, 2**40, [], None)]
    for one in wrong:
        assert (faults_of(one) == []) == validator.is_valid(one), one
    assert sum(bool(faults_of(one)) for one in wrong) > len(wrong) / 3


def test_document_names_every_event_and_field_of_the_schema() -> None:
    text = (TREE / "docs/audit.md").read_text()
    table = text[text.index("| field | |") : text.index("## What you can rely on")]
    named = set(re.findall(r"`([\w-]+)`", table))
    fields = {field for event in EVENTS for field in SCHEMA["$defs"][event]["properties"]}
    assert set(EVENTS) <= named
    assert fields | set(SCHEMA["$defs"]["peer"]["properties"]) <= named
    example = json.loads(text[text.index("```json\n") + 8 :].partition("\n```")[0])
    assert faults_of(example) == []
