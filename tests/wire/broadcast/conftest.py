"""The broadcast relay in the kernel of the truck's router."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dhcpd.decision import Note
from router.relay import Relay
from router.settings import Broadcast
from tests.lab.netns import write_sysctls
from tests.lab.routed import Routed
from tests.lab.truck import Truck
from tests.wire.broadcast.nodes import VLANS, Setup, legs, nft, plan


@pytest.fixture(scope="package")
def nodes() -> Iterator[Routed]:
    """Each node has the address .20 of its VLAN and filters by reverse path, strictly.

    Packets stay in order because all is done by one processor.
    """
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    with Truck(plan()) as truck:
        made = Routed(truck)
        for n in range(1, VLANS + 1):
            made.ip(f"node{n}", f"addr add 10.0.{n}.20/24 dev eth0", f"route add default via 10.0.{n}.1")
            write_sysctls(truck.netns(f"node{n}"), {"ipv4/conf/all/rp_filter": 1})
        yield made
        made.close()
    os.sched_setaffinity(0, processors)


@pytest.fixture
def relaying(nodes: Routed) -> Iterator[Setup]:
    """`relaying(rule, ...)`: a relay of the router with these rules, started. None may have logged anything."""
    made: list[Relay] = []
    notes: list[Note] = []

    def make(*rules: Broadcast) -> Relay:
        with nodes.on("router"):
            made.append(Relay(rules, legs(), notes.append))
            made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()
    nodes.close()
    nft(nodes, "flush ruleset")
    assert not notes
