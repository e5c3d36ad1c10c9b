"""Tables of faulty files: what is wrong, and what is told of it."""

from pathlib import Path


def cases(name: str) -> list[tuple[str, list[str]]]:
    """Read a table: a line for what is wrong, with its line ends as in Python, and indented lines for what is told."""
    found: list[tuple[str, list[str]]] = []
    for line in (Path(__file__).parent / name).read_text().splitlines():
        if line.startswith("    "):
            found[-1][1].append(f"a.yaml:{line.strip()}")
        elif line and not line.startswith("#"):
            found.append((line.replace("\\n", "\n"), []))
    return found
