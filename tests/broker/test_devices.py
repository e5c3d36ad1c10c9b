"""Devices as sysfs and udev's database describe them: plugged in, taken away, plugged in again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import udev_world

WORLD = Path(udev_world.__file__)
WRAPPER = shutil.which("umockdev-wrapper")


def run(scenario: Callable[[], None], *before: str) -> None:
    command = [*before, sys.executable, str(WORLD), scenario.__name__]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.skipif(WRAPPER is None, reason="umockdev is not installed (tools/test does that as root)")
@pytest.mark.parametrize("scenario", udev_world.SCENARIOS, ids=lambda one: one.__name__)
def test_adapter(scenario: Callable[[], None]) -> None:
    run(scenario, str(WRAPPER))


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are root's")
@pytest.mark.parametrize("scenario", udev_world.WITH_REAL_DEVICES, ids=lambda one: one.__name__)
def test_real_device(scenario: Callable[[], None]) -> None:
    run(scenario)
