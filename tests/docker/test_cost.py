"""What the broker costs the router's process: memory, and the processor while nothing happens."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docker.managed import Managed
from tests.lab.netns import wait_until

Count = Callable[[int, int], int]
Figure = Callable[[str, object], None]

WITHOUT = """
[[vlan]]
name = "vlan1"
tag = 1
subnet = "10.0.1.0/24"
router = "10.0.1.1"
pools = ["10.0.1.2-10.0.1.127"]
landing = "10.0.1.128/25"
"""
WITH = f'{WITHOUT}network = "br0net"\n'
MEBIBYTE = 1 << 20


@pytest.fixture
def wide(managed: Managed) -> Iterator[Managed]:
    """The machine with a network whose landing range has room for 126 containers; the service is not started."""
    managed.engine.remove_networks("br0net")
    managed.engine.network("br0net", "10.0.1.0/24", "10.0.1.1", "10.0.1.128/25", "br0")
    yield managed
    managed.engine.remove_containers()
    managed.engine.remove_networks("br0net")


@pytest.mark.one_engine
def test_the_broker_costs_little(wide: Managed, count: Count, record_property: Figure) -> None:
    number, seconds = count(30, 100), count(20, 60)
    wide.start(WITHOUT)
    wide.service.leases()  # what serves a question is loaded
    without = resident(wide)
    wide.service.stop()
    wide.start(WITH)
    wide.service.leases()
    empty = resident(wide) - without
    names = [f"c{index}" for index in range(number)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: wide.edge.engine.docker(*RUN, name, "lanward-test", "sleep", "9999"), names))
    wait_until(lambda: wide.pinned() >= set(names), 20, f"{number} containers to be pinned")
    time.sleep(3)  # for what the last start has woken
    full = resident(wide) - without
    began, spent = time.monotonic(), processor(wide)
    time.sleep(seconds)
    part = (processor(wide) - spent) / (time.monotonic() - began)
    memory = f"{empty / MEBIBYTE:.1f} MiB more than without containers, {full / MEBIBYTE:.1f} with {number}"
    record_property("figure", f"{memory}; idle {part:.2%} of a processor")
    assert full < 40 * MEBIBYTE
    assert part < 0.005


RUN = ("run", "--detach", "--network", "br0net", "--name")


def resident(managed: Managed) -> int:
    """The resident memory of the service, in bytes."""
    return int(_proc(managed, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def processor(managed: Managed) -> float:
    """The seconds of a processor that the service has used."""
    fields = _proc(managed, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _proc(managed: Managed, file: str) -> str:
    assert managed.service.process
    return Path(f"/proc/{managed.service.process.pid}/{file}").read_text()
