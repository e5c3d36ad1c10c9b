"""A program split in two: it changes a file that only its owner may open, after it gave up all privileges.

    .venv/bin/python examples/split_program.py FILE

It appends a line to FILE, which must be there. As root the confined half is a uid that nobody else has; as an
ordinary user it stays that user. In both it has a root of its own, in which there is no FILE.
"""

import os
import sys

from broker.embed import embed
from policy import Source, load
from sandboxed import Denied

POLICY = """\
version: 1
rules:
  - {{name: notes, clients: [any], allow: [read, write], paths: ["{path}"]}}
"""


def main(path: str) -> int:
    """Show what the confined half can do; its exit status becomes the program's."""
    client = embed(load([Source("example.yaml", POLICY.format(path=path))]))

    print(f"now uid {os.geteuid()}")
    try:
        os.open(path, os.O_RDWR)
        return 1
    except OSError as error:
        print(f"alone: {error.strerror}")
    with client.open(path, "a") as file:
        file.write("a line from the confined half\n")
    with client.open(path) as file:
        print(f"with the broker: {len(file.readlines())} lines")
    try:
        client.open("/etc/shadow")
        return 1
    except Denied as error:
        print(f"/etc/shadow: {error.strerror}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: split_program.py FILE")
    sys.exit(main(os.path.abspath(sys.argv[1])))
