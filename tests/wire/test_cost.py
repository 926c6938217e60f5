"""What the service costs while it has nothing to do."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.segment import Segment, vlan
from tests.wire.station import Lan

MAX_RESIDENT_MIB = 44
MAX_RESIDENT_LOADED_MIB = 60
MAX_IDLE = 0.005
"""Of one processor."""
OVER_SECONDS = 5


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path, vlans=2) as built:
        yield built


def pid(segment: Segment) -> int:
    assert segment.service.process is not None
    return segment.service.process.pid


def resident_mib(segment: Segment) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid(segment)}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def processor_seconds(segment: Segment) -> float:
    fields = Path(f"/proc/{pid(segment)}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_memory_after_the_start_and_with_50000_leases(tmp_path: Path) -> None:
    with Segment(tmp_path) as segment:
        check_memory(segment)


def check_memory(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        lan.device(1).join()
    idle = resident_mib(segment)
    bound = segment.load("direct", count=50_000, window=128, seconds=60)["exchanges"]
    loaded = resident_mib(segment)
    segment.service.stop()
    segment.service.start()
    restarted = resident_mib(segment)
    segment.service.leases()
    asked = resident_mib(segment)
    print(f"resident: {idle:.1f} MiB, {loaded:.1f} with {bound} leases, {restarted:.1f} restarted, {asked:.1f} asked")
    assert idle < MAX_RESIDENT_MIB
    assert bound == 50_000
    assert max(loaded, restarted) < MAX_RESIDENT_LOADED_MIB


def test_an_idle_service_hardly_runs(segment: Segment) -> None:
    segment.service.start(vlan(1, probe=True) + vlan(2, probe=True))
    with Lan(segment, 1) as one, Lan(segment, 2) as two:
        one.device(1).join()
        two.device(2).join()
        one.answer(0, timeout=2)  # the probes of the start
        before = processor_seconds(segment)
        began = time.monotonic()
        one.answer(0, timeout=OVER_SECONDS)
    share = (processor_seconds(segment) - before) / (time.monotonic() - began)
    print(f"idle: {share:.2%} of a processor")
    assert share <= MAX_IDLE + 0.01 / OVER_SECONDS, "one clock tick of the kernel is the measure's resolution"
