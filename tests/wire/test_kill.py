"""The service is killed in the middle of load: what it acknowledged is what it still knows."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.netns import wait_until
from tests.wire.segment import Segment, vlan

PER_ROUND = 4000
CONFIG = vlan(lease_time="2d")


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def acknowledged(log: Path) -> dict[str, str]:
    """MAC -> address, as the clients of all rounds remember it."""
    lines = log.read_text().splitlines() if log.exists() else []
    return {line.split()[0]: line.split()[1] for line in lines}


def kill_under_load(segment: Segment, log: Path, first: int) -> None:
    """Load with newcomers and a kill at a random moment after the first of them is served."""
    before = log.stat().st_size if log.exists() else 0
    load = segment.start_load(
        "direct", first=first, count=PER_ROUND, window=256, seconds=20, tries=1, timeout=5, log=str(log)
    )
    try:
        wait_until(lambda: log.exists() and log.stat().st_size > before, 10, "the first lease of this round")
        time.sleep(random.uniform(0, 0.25))
        segment.service.kill9()
        load.send_signal(signal.SIGINT)
        load.communicate(timeout=10)
    finally:
        end(load)


def end(load: subprocess.Popen[str]) -> None:
    if load.poll() is None:
        load.kill()
        load.communicate()


def check_leases(segment: Segment, promised: dict[str, str]) -> None:
    rows = segment.service.leases()
    held = {row["mac"]: row["address"] for row in rows if row["state"] == "bound"}
    missing = {mac: address for mac, address in promised.items() if held.get(mac) != address}
    assert not missing
    assert len({row["address"] for row in rows}) == len(rows)
    assert len(set(held.values())) == len(held)


@pytest.mark.timeout(3600)
def test_no_acknowledged_lease_is_lost_by_a_kill(
    segment: Segment, tmp_path: Path, count: Callable[[int, int], int]
) -> None:
    log = tmp_path / "acks"
    rounds = count(4, 200)
    segment.service.start(CONFIG)
    for number in range(rounds):
        kill_under_load(segment, log, first=number % 12 * PER_ROUND)
        segment.service.start()
        check_leases(segment, acknowledged(log))
    print(f"{rounds} kills, {len(acknowledged(log))} leases acknowledged, 0 missing, 0 with two holders")


def test_clients_renew_after_a_kill(segment: Segment, tmp_path: Path) -> None:
    log = tmp_path / "acks"
    segment.service.start(CONFIG)
    kill_under_load(segment, log, first=0)
    segment.service.start()
    promised = acknowledged(log)
    figures = segment.load("direct", first=0, count=PER_ROUND, window=64, seconds=20, log=str(tmp_path / "again"))
    again = acknowledged(tmp_path / "again")
    assert (figures["naks"], figures["lost"], figures["double_allocated"]) == (0, 0, 0)
    assert {mac: again.get(mac) for mac in promised} == promised
