"""Fixtures that tests of the broker's side share."""

import os
from pathlib import Path

import pytest

from tests.broker.people import USERS


@pytest.fixture
def things(place: Path) -> Path:
    """A directory with what a survey tells apart: a file by other names, a kept one, links that lead in and out."""
    for name in ("file", "secret", "kept", USERS[3].pw_name):
        (place / name).write_text("x")
    (place / "open").mkdir(mode=0o777)
    (place / "open").chmod(0o777)
    os.link(place / "secret", place / "hard-link")
    os.link(place / "file", place / "open/hard-link")
    os.mkfifo(place / "fifo")
    (place / "link").symlink_to("file")
    (place / "link-to-kept").symlink_to("kept")
    (place / "link-out").symlink_to("/etc/passwd")
    return place
