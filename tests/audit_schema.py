"""Whether an audit record is what docs/audit.schema.json says.

A check of our own, for every record of every test's broker passes here: it knows the few words that this schema uses,
and none beside them. A test holds it against a full implementation where there is one.
"""

import json
import re
from pathlib import Path
from typing import Any

SCHEMA = json.loads((Path(__file__).parent.parent / "docs/audit.schema.json").read_text())
EVENTS = [branch["$ref"].rpartition("/")[2] for branch in SCHEMA["oneOf"]]

_TYPES = {"string": str, "integer": int, "array": list, "object": dict, "null": type(None), "boolean": bool}
_SAID = {"description"}
_OF = {
    "pattern": str,
    "minimum": int,
    "maximum": int,
    "items": list,
    "properties": dict,
    "required": dict,
    "additionalProperties": dict,
}


def faults_of(record: dict[str, Any]) -> list[str]:
    """What is wrong with a record."""
    event = record.get("event")
    return _faults(record, SCHEMA["$defs"][event], "") if event in EVENTS else [f"an event {event!r}"]


def _faults(value: Any, schema: dict[str, Any], where: str) -> list[str]:
    if "$ref" in schema:
        return _faults(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], where)
    found = []
    for word, wanted in schema.items():
        # A word says nothing of values of other types.
        if word not in _SAID and type(value) is _OF.get(word, type(value)):
            found += _WORDS[word](value, wanted, schema, where)
    return found


def _type(value: Any, wanted: Any, schema: dict[str, Any], where: str) -> list[str]:
    names = [wanted] if isinstance(wanted, str) else wanted
    return (
        [] if any(type(value) is _TYPES[name] for name in names) else [f"{where}: {value!r} is no {wanted}"]
    )


def _among(value: Any, wanted: Any, schema: dict[str, Any], where: str) -> list[str]:
    return (
        []
        if any(value == one and type(value) is type(one) for one in wanted)
        else [f"{where}: {value!r} is none of {wanted}"]
    )


def _properties(value: Any, wanted: Any, schema: dict[str, Any], where: str) -> list[str]:
    found = []
    for name, one in value.items():
        if name in wanted:
            found += _faults(one, wanted[name], f"{where}/{name}")
    return found


def _additional(value: Any, wanted: Any, schema: dict[str, Any], where: str) -> list[str]:
    more = {name: one for name, one in value.items() if name not in schema.get("properties", {})}
    if wanted is False:
        return [f"{where}/{name} is not in the schema" for name in more]
    return [fault for name, one in more.items() for fault in _faults(one, wanted, f"{where}/{name}")]


_WORDS = {
    "type": _type,
    "const": lambda value, wanted, schema, where: _among(value, [wanted], schema, where),
    "enum": _among,
    "pattern": lambda value, wanted, schema, where: (
        [] if re.search(wanted, value) else [f"{where}: {value!r} is not as {wanted}"]
    ),
    "minimum": lambda value, wanted, schema, where: (
        [] if value >= wanted else [f"{where}: {value} < {wanted}"]
    ),
    "maximum": lambda value, wanted, schema, where: (
        [] if value <= wanted else [f"{where}: {value} > {wanted}"]
    ),
    "items": lambda value, wanted, schema, where: [
        fault for one in value for fault in _faults(one, wanted, f"{where}/*")
    ],
    "properties": _properties,
    "required": lambda value, wanted, schema, where: [
        f"{where}: no {name}" for name in wanted if name not in value
    ],
    "additionalProperties": _additional,
}
