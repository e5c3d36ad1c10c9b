"""Shapes: parts of a JSON Schema (draft 2020-12), made from what fields say of themselves.

Rules that hold for all of them:
- what the loader takes is valid; what is valid may still be refused by it, for a schema cannot know everything;
- an editor has converted plain values by YAML's own rules before it looks: `0403` is a number to it, and in YAML 1.1
  `10:20` and `no` are no text either. So a number or a truth is valid wherever text that looks so would be. Nothing at
  all (`null`, `~`) is not: text of that name needs quotes in an editor.

Imported by those who make a schema alone.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .described import description_of

Shape = dict[str, Any]

# Plain text that editors may read as something else, by what they then have. YAML 1.1 and 1.2 differ; both count.
_LOOKS = {
    "integer": ("0", "7", "12", "0403", "10:20", "8:0", "0x1F", "1_000", "-1", "123456"),
    "number": ("8E1", "1e3", "1.5", "0.5"),
    "boolean": ("true", "false", "yes", "no", "on", "off", "y", "n", "True", "No"),
}


class Undescribed(TypeError):
    """A field that says nothing of itself; the message names it."""


class Shapes:
    """Makes shapes; those of named fields are shared, and collected in `definitions`."""

    def __init__(self) -> None:
        self.definitions: dict[str, Shape] = {}
        self._names: dict[Callable[..., Any], str] = {}

    def of(self, reader: Callable[..., Any]) -> Shape:
        """Return the shape of what a field reads. Raises Undescribed."""
        field, describe, meaning = description_of(reader)
        name = getattr(field, "__qualname__", "")
        if describe is None:
            raise Undescribed(f"{field.__module__}.{name} has no description: see policy/described.py")
        if "<" in name:  # made by a function, as a list of something is
            shape = describe(self)
        else:
            shape = {"$ref": f"#/$defs/{self._shared(field, name.strip('_'), lambda: describe(self))}"}
        return {"description": meaning, **shape} if meaning else shape

    def _shared(self, field: Callable[..., Any], name: str, make: Callable[[], Shape]) -> str:
        if field not in self._names:
            if name in self.definitions:
                name = f"{field.__module__.rpartition('.')[2]}.{name}"
            self._names[field] = name
            self.definitions[name] = {}  # its place, before those that it leads to
            self.definitions[name].update(make())
        return self._names[field]

    def text(self, pattern: re.Pattern[str] | str | None = None, meaning: str = "", **more: Any) -> Shape:
        """Return the shape of text that is not empty, and that the whole of `pattern` matches where there is one."""
        wanted = re.compile(pattern) if isinstance(pattern, str) else pattern
        looks = [
            kind
            for kind, examples in _LOOKS.items()
            if wanted is None or any(wanted.fullmatch(one) for one in examples)
        ]
        shape: Shape = {
            "type": ["string", *(one for one in looks if one != "integer" or "number" not in looks)]
        }
        shape.update({"pattern": f"^(?:{wanted.pattern})$"} if wanted else {"minLength": 1})
        return {**_told(meaning, has_pattern=wanted is not None), **shape, **more}

    def path(self, start: str, never: str, meaning: str = "An absolute path.", **more: Any) -> Shape:
        """Return the shape of a path that begins with the one expression and holds the other nowhere."""
        shape: Shape = {"type": "string", "pattern": start, "not": {"pattern": never}}
        return {**_told(meaning, has_pattern=True), **shape, **more}

    def number(self, least: int, most: int) -> Shape:
        """Return the shape of a decimal number."""
        shape: Shape = {"type": ["integer", "string"], "minimum": least, "maximum": most}
        return {**shape, "pattern": "^(?:0|[1-9][0-9]*)$"}

    def words(self, words: Iterable[str]) -> Shape:
        """Return the shape of one of some words; what looks like a number or a truth comes as that too."""
        found: list[Any] = []
        for word in words:
            if word in ("true", "false"):
                found.append(word == "true")
            elif word.isdecimal():
                found.append(int(word))
            found.append(word)
        return {"enum": found}

    def some(self, reader: Callable[..., Any]) -> Shape:
        """Return the shape of a list of what a field reads, or of one that stands alone."""
        one = self.of(reader)
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}

    def mapping(self, fields: Mapping[str, Callable[..., Any]], required: Iterable[str] = ()) -> Shape:
        """Return the shape of a mapping with the keys of a table."""
        shape: Shape = {
            "type": "object",
            "properties": {key: self.of(field) for key, field in fields.items()},
            "additionalProperties": False,
        }
        return {**shape, **({"required": list(required)} if required else {"minProperties": 1})}

    def keyed(self, names: re.Pattern[str], value: Callable[..., Any], least: int = 1) -> Shape:
        """Return the shape of a mapping whose keys are names, with the same field for each value."""
        return {
            "type": "object",
            "patternProperties": {f"^(?:{names.pattern})$": self.of(value)},
            "additionalProperties": False,
            "minProperties": least,
        }


def _told(meaning: str, *, has_pattern: bool) -> Shape:
    # The second is no word of JSON Schema's, but editors show it where they would show the expression.
    told = ("description", "patternErrorMessage") if has_pattern else ("description",)
    return dict.fromkeys(told, meaning) if meaning else {}
