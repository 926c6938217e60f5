"""Many devices at once: a storm, more clients than the kernel keeps neighbours, a flood of invented MACs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.segment import Figures, Segment, reservation, vlan
from tests.wire.station import Device, Lan

CAP = 4096
"""`Scope.max_offers`."""
FAULTS = (
    "lost", "unfinished", "retransmits", "duplicates", "naks", "double_allocated", "address_changed", "no_server_id",
    "no_lease_time", "bad_checksum", "wrong_destination", "broadcast_replies",
)  # fmt: skip


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def faults(figures: Figures) -> dict[str, int]:
    return {name: figures[name] for name in FAULTS if figures[name]}


def check_served(device: Device) -> None:
    """It renews by unicast and is offered its own address, at once."""
    address = device.address
    assert (device.renew().kind, device.discover().address) == ("ack", address)


@pytest.mark.parametrize("probe", [True, False], ids=["probing", "not probing"])
@pytest.mark.parametrize("pace", [{"rate": 500}, {}], ids=["within a second", "in the same moment"])
def test_a_storm_of_500_devices_is_served(segment: Segment, pace: dict[str, float], probe: bool) -> None:
    segment.service.start(vlan(probe=probe))
    figures = segment.load("direct", count=500, window=500, seconds=10, timeout=4, tries=1, **pace)
    print(f"500 devices bound in {figures['seconds']:.2f} s; ACK p99 {figures['ack_us']['p99']:.0f} us")
    assert (figures["exchanges"], faults(figures)) == (500, {})
    assert figures["seconds"] < 3
    assert segment.status()["lost_datagrams"] == 0
    assert segment.status()["leases"]["bound"] == 500


def test_4000_direct_clients_are_served(segment: Segment) -> None:
    segment.service.start(vlan())
    figures = segment.load("direct", count=4000, window=64, seconds=20)
    print(f"{figures['per_second']:.0f} exchanges a second")
    assert (figures["exchanges"], faults(figures)) == (4000, {})


def test_invented_macs_do_not_keep_known_clients_from_service(segment: Segment) -> None:
    camera = {"name": "camera", "mac": "02:00:00:00:00:02", "address": "10.1.0.20"}
    segment.service.start(vlan(pools=["10.1.1.0-10.1.4.255"]) + reservation(**camera))
    with Lan(segment) as lan:
        known, reserved = lan.device(1), lan.device(2)
        known.join()
        flood = segment.start_load("flood", count=50_000, rate=10_000, seconds=30)
        rounds = 0
        while flood.poll() is None:
            check_served(known)
            assert reserved.join() == "10.1.0.20"
            rounds += 1
        assert flood.communicate()[1] == ""
        assert lan.device(3).discover(timeout=0.3).kind == "silence", "the pool is on offer to others for a minute"
    assert rounds > 5
    assert segment.status()["received"]["discover"] >= 50_000
    assert segment.status()["lost_datagrams"] == 0
    assert segment.status()["offers"] <= CAP


def test_offers_are_remembered_up_to_their_cap(segment: Segment) -> None:
    segment.service.start(vlan())
    segment.load("flood", count=50_000, rate=15_000, seconds=30)
    assert segment.status()["offers"] == CAP
    with Lan(segment) as lan:
        newcomer = lan.device(1)
        newcomer.join()
        check_served(newcomer)
