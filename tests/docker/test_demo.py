"""`make demo` shows the table, and nothing of it remains, whenever it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.lab import demo, netns, remains
from tests.lab.engine import why_missing
from tests.lab.service import REPOSITORY

if why_missing(demo.ENGINE):
    pytest.skip(str(why_missing(demo.ENGINE)), allow_module_level=True)


def start() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.lab.demo"]
    return subprocess.Popen(command, stdout=-1, stderr=-2, text=True, cwd=REPOSITORY, start_new_session=True)


def left_by(pid: int) -> list[object]:
    """The engines and namespaces that a process has made and not removed."""
    return [*remains.homes(netns.prefix(pid)), *netns.existing(netns.prefix(pid))]


def test_the_demo_shows_the_table() -> None:
    with start() as shown:
        printed, _ = shown.communicate(timeout=120)
    assert shown.returncode == 0, printed
    assert "28 of 28 rows" in printed
    assert left_by(shown.pid) == []


@pytest.mark.parametrize("moment", ["the truck is built", "the service is ready", "Containers are run"])
def test_an_interrupted_demo_leaves_nothing(moment: str) -> None:
    with start() as shown:
        assert shown.stdout
        while moment not in shown.stdout.readline():
            assert shown.poll() is None
        assert left_by(shown.pid)
        os.killpg(shown.pid, signal.SIGINT)  # a terminal tells the whole group
        shown.communicate(timeout=60)
    assert shown.returncode == 130
    assert left_by(shown.pid) == []
