"""The system as it is shipped, on a kernel with 802.1Q and ipvlan: `make lab`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import guest, power
from tests.lab.service import REPOSITORY
from tests.lab.trunk import COMPOSE, COMPOSE_ENVIRONMENT, LAB, image_missing

MAX_IMAGE = 120 << 20
GUEST_SECONDS = 400
POWER = (sys.executable, "-m", "tests.lab.power")


@pytest.fixture
def _image() -> None:
    if reason := image_missing():
        pytest.skip(reason)


@pytest.fixture
def _guest(_image: None) -> None:
    if reason := guest.why_missing():
        pytest.skip(reason)


@pytest.mark.usefixtures("_guest")
@pytest.mark.timeout(20 * GUEST_SECONDS)
def test_the_system_as_shipped_on_a_tagged_trunk(tmp_path: Path, count: Callable[[int, int], int]) -> None:
    for number in range(count(1, 20)):
        version = list(COMPOSE)[number % len(COMPOSE)]
        out = tmp_path / str(number)
        out.mkdir()
        code = guest.run([sys.executable, "-m", "tests.lab.trunk", version], out, GUEST_SECONDS)
        log = (out / "log").read_text() if (out / "log").exists() else (out / "console").read_text()
        print(log)
        assert code == 0, log


@pytest.mark.usefixtures("_guest")
@pytest.mark.timeout(20 * GUEST_SECONDS)
def test_no_acknowledged_lease_is_lost_by_a_power_cut(
    tmp_path: Path, count: Callable[[int, int], int], record_property: Callable[[str, object], None]
) -> None:
    for number in range(count(1, 5)):
        out = tmp_path / str(number)
        out.mkdir()
        nodes = random.randint(30, 80)

        def is_in_the_middle(out: Path = out, nodes: int = nodes) -> bool:
            told = power.given(out)
            return len(told) > nodes and sum(one.startswith("c") for one in told) > 2

        code = guest.run(
            [sys.executable, "-m", "tests.lab.power", "fill", str(out)], out, GUEST_SECONDS, is_in_the_middle
        )
        assert code == -signal.SIGKILL, (out / "log").read_text()
        told = power.given(out)
        code = guest.run([*POWER, "check", str(out)], out, GUEST_SECONDS)
        log = (out / "log").read_text()
        print(log)
        assert code == 0, log
        containers = sum(one.startswith("c") for one in told)
        record_property(
            "figure", f"{len(told) - containers} devices and {containers} containers had their leases: kept"
        )


@pytest.mark.usefixtures("_image")
def test_the_image_is_small() -> None:
    assert int((LAB / "size").read_text()) < MAX_IMAGE


@pytest.mark.usefixtures("_image")
@pytest.mark.parametrize("version", COMPOSE)
def test_the_compose_file_is_valid(version: str) -> None:
    command = [*COMPOSE[version], "--file", str(REPOSITORY / "docker-compose.yml"), "config", "--quiet"]
    done = subprocess.run(command, env=os.environ | COMPOSE_ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
