"""The JSON Schema of policy files: made from the code, and never narrower than the loader."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from policy import PolicyError, Source
from policy.described import described
from policy.fileschema import file_schema
from policy.shapes import Shapes, Undescribed
from policy.testcases import load_with_tests
from tests.policy.strategies import TieredFile, granted, source, tiered_sets
from tests.policy.tables import cases
from tests.policy.test_terms import SAID, WHO

TREE = Path(__file__).resolve().parents[2]
SCHEMA = file_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


class Old(yaml.SafeLoader):
    """YAML 1.1, as PyYAML reads it; but dates stay text, which is all that a JSON Schema knows of."""


class Core(yaml.SafeLoader):
    """The core schema of YAML 1.2, by which most editors read plain values."""


Core.yaml_implicit_resolvers = {}
for kind, expression in {
    "null": r"(?:|~|null|Null|NULL)",
    "bool": r"(?:true|True|TRUE|false|False|FALSE)",
    "int": r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)",
    "float": r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
}.items():
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^{expression}$"), None)


def whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    base = {"0o": 8, "0x": 16}.get(node.value[:2], 10)
    return int(node.value, base)


def any_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


Core.add_constructor("tag:yaml.org,2002:int", whole_number)
Core.add_constructor("tag:yaml.org,2002:float", any_number)
Old.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)


def plain(tree: Any) -> Any:
    """What an editor has of a tree: all keys are text."""
    if isinstance(tree, dict):
        return {str(key): plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


def as_seen(text: str) -> Iterator[Any]:
    """A file as editors have it, by both versions of YAML."""
    for reader in (Core, Old):
        yield plain(yaml.load(text, reader))


def faults(text: str) -> list[str]:
    return [error.message[:300] for tree in as_seen(text) for error in VALIDATOR.iter_errors(tree)]


def loads(text: str) -> bool:
    try:
        load_with_tests([Source("a.yaml", text)])
    except PolicyError:
        return False
    return True


def test_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_schema_that_is_shipped_is_the_one_that_the_code_makes() -> None:
    shipped = TREE / "docs/policy.schema.json"
    assert json.loads(shipped.read_text()) == SCHEMA, "run: fdbroker schema > docs/policy.schema.json"


def objects(shape: Any) -> Iterator[dict[str, Any]]:
    if isinstance(shape, dict):
        if "properties" in shape and "additionalProperties" in shape:
            yield shape
        shape = list(shape.values())
    for part in shape if isinstance(shape, list) else ():
        yield from objects(part)


def test_every_key_has_a_text_that_tells_what_it_means() -> None:
    told = [(key, shape) for one in objects(SCHEMA) for key, shape in one["properties"].items()]
    assert len(told) > 60
    assert [key for key, shape in told if not shape.get("description")] == []


def test_field_that_says_nothing_of_itself_is_an_error() -> None:
    with pytest.raises(Undescribed, match=r"test_fileschema\.loads has no description"):
        Shapes().of(loads)


def test_fields_of_one_name_are_told_apart() -> None:
    @described(lambda shapes: {"const": 1})
    def one() -> None: ...

    @described(lambda shapes: {"const": 2})
    def other() -> None: ...

    one.__qualname__ = other.__qualname__ = "field"
    shapes = Shapes()
    found = [shapes.of(field)["$ref"].rpartition("/")[2] for field in (one, other, one)]
    assert found[0] == found[2] != found[1]
    assert [shapes.definitions[name]["const"] for name in found] == [1, 2, 1]


# What the loader takes is valid


@settings(max_examples=50)
@given(granted())
def test_generated_policy_is_valid(case: Any) -> None:
    assert VALIDATOR.is_valid(json.loads(source(case[0]).text))


@settings(max_examples=30)
@given(tiered_sets())
def test_generated_set_is_valid(case: tuple[list[TieredFile], Any]) -> None:
    for file in case[0]:
        assert VALIDATOR.is_valid(json.loads(file.source().text))


READY = [*sorted(TREE.glob("policy/examples/*.yaml")), *sorted(TREE.glob("tests/policy/corpus/*.yaml"))]


@pytest.mark.parametrize("path", READY, ids=lambda path: path.name)
def test_file_that_loads_is_valid(path: Path) -> None:
    text = path.read_bytes()
    try:
        load_with_tests([Source(path.name, text)])
        shown = text.decode("utf-8-sig")
    except PolicyError:
        return
    if any(as_seen(shown)):
        assert faults(shown) == []


@pytest.mark.parametrize(("rights", "more"), [one[:2] for one in SAID])
def test_rule_of_each_term_is_valid(rights: str, more: str) -> None:
    text = f"version: 1\nrules:\n  - {{name: r, {WHO}, allow: [{rights}], {more}}}\n"
    if loads(text):
        assert faults(text) == []


# Text that YAML reads as something else, and what stands for a word somewhere.
SCALARS = [
    *("0", "1", "7", "0403", "0660", "0o17", "010", "10:20", "190:20:30", "8:0", "188:*", "0x1F", "1_000", "1e3"),
    *("1.5", "1.", "5-7", "0-4294967294", "4294967294", "8N1", "8E1", "7O2", "9600", "90s", "30m", "1d", "true"),
    *("false", "True", "yes", "no", "on", "off", "y", "n", "nan", "inf", "2026-12-01", "2026-12-01T18:00Z"),
    *("2026-12-01T18:00:30+01:00", "a", "a.b-c", "a b", "mia", "tom$", "_x", "any", "lab", "gpu", "default"),
    *("web.service", "/a", "/a/**", "/a/*/b", "'/a[0-9]'", "'/a[{]'", "'${home}'", "'${home}/x'", "/a/**b", "/a//b"),
    *("'/${user}/${uid}'", "/a b", "'/ a'", "tty", "'hid*'", "é", "read", "use", "write", "char", "block", "socket"),
    *("'tcp:[::]:443'", "sync", "required", "try", "broker", "unkept-lease", "low/use", "0/1", "x/1.5"),
    *("allow", "none", "low", "a/low"),
]  # fmt: skip

# Where a value may stand: "@" is its place.
FOR_A_DENY = ["clients", "except_clients", "type", "paths", "except_paths", "until"]
FOR_A_DENY += ["device", "subsystem", "seat", "accept"]
FOR_AN_ALLOW = ["lease", "exclusive", "relay", "snapshot", "revoke", "flags"]
FOR_A_CLIENT = ["user", "uid", "group", "gid", "unit", "label", "exe", "socket"]
READS = "name: r, clients: any, paths: /a, allow: read"
CREATES = "name: r, clients: any, paths: /a, allow: [write, create]"
SETS = "name: r, clients: any, paths: /a, type: char, allow: use"
RULES = [
    "name: @, deny: all",
    "name: r, deny: @",
    "name: r, clients: any, paths: /a, allow: @",
    *(f"name: r, deny: all, {key}: @" for key in FOR_A_DENY),
    *(f"{READS}, {key}: @" for key in FOR_AN_ALLOW),
    *(f"{READS}, limits: {{{key}: @}}" for key in ("open", "per_second")),
    *(f"{SETS}, serial: {{{key}: @}}" for key in ("baud", "frame", "raw")),
    *(f"{CREATES}, create: {{{key}: @}}" for key in ("owner", "group", "mode")),
    "name: r, clients: any, allow: use, tun: {name: @}",
    "name: r, clients: any, allow: listen, addresses: [@]",
]
OF_A_CLIENT = [
    "user",
    "uid",
    "groups",
    "gids",
    "socket",
    "unit",
    "label",
    "exe",
    "home",
    "subordinate_of",
    "embedded",
]
OF_AN_OBJECT = ["link", "asked", "names", "device", "subsystem", "udev: {A", "attrs: {a/b", "seat"]
CASE = "client: {uid: 1}, object: {path: /a, type: char}, access: read, expect"
TESTS = [
    "client: {uid: 1}, object: {path: @, type: char}, access: read, expect: deny",
    "client: {uid: 1}, object: {path: /a, type: @}, access: read, expect: deny",
    "client: {uid: 1}, object: {path: /a, type: char}, access: @, expect: deny",
    *(
        f"client: {{{key}: @}}, object: {{path: /a, type: char}}, access: read, expect: deny"
        for key in OF_A_CLIENT
    ),
    *(f"{CASE.replace('char', f'char, {key}: @' + '}' * key.count('{'))}: deny" for key in OF_AN_OBJECT),
    f"{CASE}: @",
    *(f"{CASE}: deny, {key}: @" for key in ("optional", "at")),
    f"{CASE}: allow, rights: @",
    f"{CASE}: deny, rule: @",
]
PLACES = [
    "version: @",
    "version: 1\nclients: {@: {user: mia}}",
    "version: 1\nsockets: {gpu: {path: @}}",
    *(f"version: 1\nclients: {{lab: {{{key}: @}}}}" for key in FOR_A_CLIENT),
    *(f"version: 1\nsockets: {{gpu: {{path: /run/g, {key}: @}}}}" for key in ("owner", "group", "mode")),
    *(f"version: 1\ndevices: {{d: {{{key}: @}}}}" for key in ("type", "device", "subsystem", "seat")),
    *(f"version: 1\ndevices: {{d: {{{key}: {{idVendor: @}}}}}}" for key in ("udev", "attrs")),
    *(f"version: 1\nrules: [{{{rule}}}]" for rule in RULES),
    *(f"version: 1\nrules: [{{name: low, deny: all}}]\ntests: [{{{test}}}]" for test in TESTS),
]
DECLARED = "\nclients: {lab: {user: x}}"


@pytest.mark.parametrize("place", PLACES)
def test_value_that_the_loader_takes_is_valid_however_yaml_reads_it(place: str) -> None:
    taken = 0
    for scalar in SCALARS:
        text = place.replace("@", scalar)
        whole = text if "clients: {" in text else text + DECLARED
        if loads(whole):
            taken += 1
            assert faults(whole) == [], whole
    assert taken


@given(st.text(max_size=6), st.sampled_from(["name", "paths", "except_paths", "subsystem"]))
def test_text_that_the_loader_takes_is_valid(text: str, key: str) -> None:
    value = f"/{text}" if "paths" in key else text
    rule = {"name": "r", "deny": "all", key: value}
    whole = json.dumps({"version": "1", "rules": [rule]})
    if loads(whole):
        assert list(VALIDATOR.iter_errors(json.loads(whole))) == []


# What is faulty is invalid, where a schema can know

NOT_FOR_A_SCHEMA = re.compile(
    "|".join(
        (
            # What leads elsewhere, and what stands twice.
            "expected one that is declared|duplicate key|declared twice|has the path of|is a word of the language",
            "unknown rule|one of the same tier",
            # What no editor sees: it has read the YAML.
            "the anchor|the tag|the alias|a NUL",
            # Numbers and truths that YAML made of text.
            "leading zeros, or a range|expected true or false; did you mean|unknown version|smaller number first",
            "there is no such|at most 366d|mode is '0o|embedded 'yes'|device is '188'",
            # What contradicts itself.
            "alone never chooses|no 'type', expected|which this rule|beside|among|among the rights|'revoke: required'",
            "is about|excludes|this rule allows|expected 'relay|has no 'addresses'|stands alone",
            "which belong to|the object has both|the object is of type|is an allow, expected|is a deny, expected",
        )
    )
)
TESTED = "version: 1\nrules: [{name: r, deny: all}]\ntests:\n"
NAMES = "clients: {lab: {user: mia}}\nsockets: {gpu: {path: /run/gpu}}\n"
FAULTY = [
    *((f"version: 1\nrules:\n  - {{{rule}}}\n{NAMES}", told) for rule, told in cases("faulty_rules.txt")),
    *cases("faulty_files.txt"),
    *(
        (f"{TESTED}  - {{{'' if test == '{}' else test}}}\n", told)
        for test, told in cases("faulty_tests.txt")
    ),
]


def is_valid(text: str) -> bool | None:
    """Whether any editor takes it for valid; None for what is no YAML."""
    try:
        return any(not list(VALIDATOR.iter_errors(tree)) for tree in as_seen(text))
    except (yaml.YAMLError, ValueError):
        return None


def test_faulty_file_is_invalid_where_a_schema_can_know() -> None:
    found = [(text, told, is_valid(text)) for text, told in FAULTY]
    assert [
        (text, told) for text, told, valid in found if valid and not NOT_FOR_A_SCHEMA.search(" ".join(told))
    ] == []
    assert len([text for text, _, valid in found if valid is False]) >= 95
