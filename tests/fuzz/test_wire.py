"""Mutated packets on the wire, while the service runs."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.wire import control
from tests.wire.segment import Segment, vlan
from tests.wire.station import Lan

PACE = 15_000
"""Packets a second: what the generator and the service do side by side on two processors."""
AT_ONCE = 0.010
SLACK_KIB = 2048
"""Growth between two halves of a run that is no leak: a page more here and there."""
DROPPED = re.compile(r'lanward_packets_dropped_total\{vlan="vlan1",reason="([a-z_]+)"\} ([0-9]+)')


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def resident_kib(segment: Segment) -> int:
    assert segment.service.process is not None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{segment.service.process.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def mutate(segment: Segment, packets: int, seed: int) -> int:
    """So many mutated packets, half a minute's worth at most at a time; how many were sent."""
    router = segment.router()
    sent = 0
    while sent < packets:
        part = min(packets - sent, 30 * PACE)
        figures = segment.load(
            "mutate", count=part, rate=PACE, seconds=90, seed=seed + sent % 1000, server=str(router.ip),
            server_mac=segment.server_mac().hex(":"),
        )  # fmt: skip
        sent += figures["sent"]
    return sent


def drops(segment: Segment) -> Counter[str]:
    """The dropped packets by reason, from the metrics."""
    text = control.ask(segment.service.state, "GET", "/metrics").body.decode()
    return Counter({reason: int(number) for reason, number in DROPPED.findall(text)})


def seconds_between(events: list[dict[str, Any]]) -> list[float]:
    times = [datetime.fromisoformat(event["time"]) for event in events]
    return [(later - earlier).total_seconds() for earlier, later in pairwise(times)]


@pytest.mark.timeout(1800)
def test_mutated_packets_do_no_harm(segment: Segment, count: Callable[[int, int], int]) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        good = lan.device(1)
        good.join()
        first = mutate(segment, count(10_000, 500_000), seed=1)
        between = resident_kib(segment)
        second = mutate(segment, count(10_000, 500_000), seed=20_000)
    after = resident_kib(segment)
    with Lan(segment) as lan:
        good.lan = lan
        waits = [good.renew().seconds, *(one.discover().seconds for one in map(lan.device, range(100, 120)))]
    print(f"{first + second} packets; resident {between} then {after} KiB; ", end="")
    print(f"a good client waits {waits[0] * 1e3:.1f} ms at first, {median(waits) * 1e3:.1f} ms in the middle")
    assert waits[0] < count(10, 1) * AT_ONCE, "one packet alone may wait for other work"
    assert median(waits) < AT_ONCE
    assert after - between < SLACK_KIB
    check_what_was_told(segment)


def check_what_was_told(segment: Segment) -> None:
    """No crash, no defect, drops counted by reason, and at most one line a second about them."""
    assert "Traceback" not in segment.service.log.read_text()
    assert not segment.service.events("defect")
    status = segment.status()
    counted = drops(segment)
    print(dict(counted))
    assert len(counted) > 5
    assert counted.keys() == status["dropped"].keys()
    assert set(status["errors"]) <= {"send"}, "a reply to nowhere may fail"
    told = segment.service.events("dropped")
    assert told
    assert all(gap > 0.9 for gap in seconds_between(told))


def test_a_good_client_is_served_in_the_midst_of_it(segment: Segment, count: Callable[[int, int], int]) -> None:
    segment.service.start(vlan())
    waits = []
    with Lan(segment) as lan:
        good = lan.device(1)
        good.join()
        load = segment.start_load("mutate", count=count(20_000, 200_000), rate=5000, seconds=60)
        while load.poll() is None:
            reply = good.renew()
            assert reply.kind == "ack"
            waits.append(reply.seconds)
            time.sleep(0.05)
        load.communicate()
    print(f"{len(waits)} renewals, {median(waits) * 1e3:.1f} ms in the middle, {max(waits) * 1e3:.1f} ms at most")
    assert median(waits) < AT_ONCE
