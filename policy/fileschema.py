"""The JSON Schema of policy files, for editors: made from the tables that the loader reads them by.

Imported by those who show it alone.
"""

from typing import Any

from .schema import describe_file
from .shapes import Shapes

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def file_schema() -> dict[str, Any]:
    """Return the schema of a policy file. What it holds valid may still be refused, never the other way round."""
    shapes = Shapes()
    described = describe_file(shapes)
    return {
        "$schema": DIALECT,
        "title": "A policy file of fdbroker",
        "description": "Who may open which files and devices. `fdbroker check` finds what a schema cannot.",
        **described,
        "$defs": dict(sorted(shapes.definitions.items())),
    }
