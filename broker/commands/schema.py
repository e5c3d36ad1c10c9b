"""`fdbroker schema`: the JSON Schema of policy files, by which editors complete and check them."""

import argparse
import json
from collections.abc import Sequence

from policy.fileschema import file_schema

_EPILOG = """\
Editors with a YAML language server complete the keys and words of a policy file, tell what they mean, and mark what
does not belong there. Tell yours by a comment at the head of the file:

  # yaml-language-server: $schema=policy.schema.json

or once for all of them, in VS Code's settings:

  "yaml.schemas": {"/etc/fdbroker/policy.schema.json": "/etc/fdbroker/policy.d/*.yaml"}

A schema knows words and not what they come to: `fdbroker check` is still what finds mistakes.

  fdbroker schema > policy.schema.json

exit status: 0 it was printed, 2 unusable input
"""


def main(arguments: Sequence[str]) -> int:
    """Print the schema."""
    options = _parser().parse_args(arguments)
    print(as_json(compact=options.json))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fdbroker schema",
        description="Print the JSON Schema (draft 2020-12) of policy files, as this version reads them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print it in one line")
    return parser


def as_json(*, compact: bool = False) -> str:
    """The schema as text, for people or in one line."""
    return json.dumps(file_schema(), indent=None if compact else 2, ensure_ascii=False)
