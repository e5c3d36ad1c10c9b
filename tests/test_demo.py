"""The demo behaves, as root and as an ordinary user."""

import subprocess
import sys

from support import TREE


def test_demo_shows_that_all_behaves_as_the_policy_says() -> None:
    ran = subprocess.run(
        [sys.executable, "tools/demo.py"], cwd=TREE, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "WRONG" not in ran.stdout
    assert "All as the policy says." in ran.stdout
