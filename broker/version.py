"""The version. pyproject.toml has it too; a test holds one against the other."""

VERSION = "0.1.0"
