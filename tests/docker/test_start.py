"""A container that starts: its lease is there before its first instruction, however many start at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median, quantiles

import pytest

from tests.docker.inprocess import Inside, pin_delays
from tests.docker.managed import SHOW, Managed
from tests.lab.edge import Edge
from tests.lab.netns import wait_until

Count = Callable[[int, int], int]
Figure = Callable[[str, object], None]
TWICE = f"{SHOW}; sleep 0.1; {SHOW}"

WIDE = """
[[vlan]]
name = "vlan1"
tag = 1
subnet = "10.0.1.0/24"
router = "10.0.1.1"
pools = ["10.0.1.100-10.0.1.179"]
landing = "10.0.1.192/26"
network = "br0net"
"""
"""A landing range for 50 containers that start for the first time at once."""


def test_the_lease_is_there_at_the_first_instruction(managed: Managed, count: Count, record_property: Figure) -> None:
    rounds = count(20, 200)
    managed.start()
    managed.edge.run("first")
    managed.lease("first")
    address_late = route_late = 0
    for number in range(rounds):
        command = ("run", "--rm", "--name", f"c{number % 5}", "--network", "br0net", "lanward-test", "sh", "-c", TWICE)
        lines = managed.engine.docker(*command).splitlines()
        lease = f"10.0.1.{101 + number % 5}"
        *_, address, route = [line for line in lines if "secondary" not in line]
        assert lease in address, lines
        assert f"via 10.0.1.1 dev eth0  src {lease}" in route, lines
        address_late += lease not in lines[0]
        route_late += not any(f"src {lease}" in line for line in lines[:3])
    shown = f"of {rounds} at the first instruction: {rounds - address_late} addresses, {rounds - route_late} routes"
    record_property("figure", f"{shown}; all 0.1 s later; {managed.paths()}")
    assert max(address_late, route_late) < count(rounds, 3), "where other work takes the processors many are late"


def test_a_container_whose_namespace_was_missed_is_pinned_at_its_start(
    edge: Edge, count: Count, record_property: Figure
) -> None:
    """From the engine's `start` event to the lease on the link."""
    rounds = count(15, 200)
    delays = sorted(Inside(edge).run(lambda state: pin_delays(edge, state, rounds)))
    assert len(delays) == rounds
    middle, slow = median(delays) * 1e3, quantiles(delays, n=100, method="inclusive")[98] * 1e3
    record_property("figure", f"{len(delays)} from start to pinned: p50 {middle:.1f} ms, p99 {slow:.1f} ms")
    assert middle < count(100, 15)
    assert slow < count(250, 60)


@pytest.fixture
def wide(managed: Managed) -> Iterator[Managed]:
    """The machine with a network whose landing range has room for 62 containers."""
    managed.engine.remove_networks("br0net")
    managed.engine.network("br0net", "10.0.1.0/24", "10.0.1.1", "10.0.1.192/26", "br0")
    managed.start(WIDE)
    yield managed
    managed.engine.remove_containers()
    managed.engine.remove_networks("br0net")


def test_many_start_at_once(wide: Managed, count: Count, record_property: Figure) -> None:
    number = count(10, 50)
    names = [f"c{index}" for index in range(number)]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(wide.edge.run, names))
    began = time.monotonic()
    wait_until(lambda: wide.pinned() >= set(names), 10, f"{number} containers to be pinned")
    took = time.monotonic() - began
    addresses = {wide.container(name)["address"] for name in names}
    assert len(addresses) == number
    assert all(wide.is_pinned(name) for name in names)
    shown = f"{number} at once: pinned {took:.2f} s after the last start; {wide.paths()}"
    assert took < 2
    restarted = names[: number * 3 // 5]
    before = {name: wide.container(name)["address"] for name in names}
    wide.engine.docker("restart", "--time", "1", *restarted, timeout=120)
    began = time.monotonic()
    wait_until(lambda: all(wide.is_pinned(name) for name in restarted), 10, "the restarted ones to be pinned")
    took = time.monotonic() - began
    assert {name: wide.container(name)["address"] for name in names} == before
    record_property("figure", f"{shown}; {len(restarted)} restarted: as before after {took:.2f} s")


def test_a_container_that_is_made_anew_has_its_address_each_time(managed: Managed, count: Count) -> None:
    managed.start()
    managed.edge.run("web")
    lease = managed.lease("web")
    for _ in range(count(5, 50)):
        managed.engine.docker("rm", "--force", "web")
        managed.edge.run("web")
        assert managed.lease("web") == lease


def test_compose_replaces_a_container_without_using_up_addresses(managed: Managed) -> None:
    """Compose makes the new one under a name for the time being, and renames it before it starts."""
    managed.start()
    labels = ("--label", "com.docker.compose.project=shop")
    managed.edge.run("shop_web_1", "br0net", *labels)
    lease = managed.lease("shop_web_1")
    managed.engine.docker("create", "--name", "0123456789ab_shop_web_1", "--network", "br0net", *labels, "lanward-test")
    managed.engine.docker("rm", "--force", "shop_web_1")
    managed.engine.docker("rename", "0123456789ab_shop_web_1", "shop_web_1")
    managed.engine.docker("start", "shop_web_1")
    assert managed.lease("shop_web_1") == lease
    rows = [row for row in managed.service.leases() if row["kind"] == "container" and row["state"] != "reserved"]
    assert [row["container"] for row in rows] == ["shop_web_1"]


def test_a_container_that_fails_at_once_does_no_harm(managed: Managed) -> None:
    managed.start()
    for _ in range(5):
        with pytest.raises(RuntimeError, match="no-such-program"):
            managed.engine.docker("run", "--name", "bad", "--network", "br0net", "lanward-test", "no-such-program")
        managed.engine.docker("rm", "--force", "bad")
    managed.edge.run("good")
    managed.lease("good")
    assert not managed.service.events("defect")
