"""The running service on the truck: the table of the design, the exceptions, and `lanward verify` about both."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from router.config import parse
from router.policy import ROUTER, End, Row, expected, internet, node
from router.probe import measure
from router.settings import Kind, Ports
from tests.lab import netns, reachability
from tests.lab.clients import Udhcpc
from tests.lab.inside import inside
from tests.lab.netns import wait_until
from tests.lab.routed import ADDRESSES, INTERNET, WAN_ADDRESS, Routed, heard, last, routed
from tests.lab.service import COMMAND, REPOSITORY, Service

PORT = 5000
TRUCK = (REPOSITORY / "lanward.toml").read_text()
EXCEPTIONS = """
[[allow]]
from = "vlan1"
to = "10.0.2.30"
ports = ["tcp/443", "udp/5000-5010", "icmp"]

[[allow]]
from = "10.0.2.20"
to = "vlan1/device1"

[[publish]]
port = "tcp/8080"
to = "vlan1/container1"
to_port = 80

[[publish]]
port = "udp/9000-9010"
to = "vlan1/device1"
"""
SERVICES = [Ports("tcp", 80, 80), Ports("tcp", 443, 443), Ports("udp", 5000, 5000), Ports("udp", 5011, 5011)]
OUTSIDE = [internet(int(IPv4Address(INTERNET))), End(Kind.ROUTER, int(IPv4Address(WAN_ADDRESS)))]
NODES = [
    node(f"vlan{address.split('.')[2]}", name, int(IPv4Address(address)), leased=name == "device1")
    for name, address in ADDRESSES.items()
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Routed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with routed() as built:
        for name in built.truck.plan.nodes:
            netns.write_sysctls(built.truck.netns(name), {"ipv4/icmp_ratelimit": 0})
        yield built


@pytest.fixture
def service(nodes: Routed, tmp_path: Path) -> Iterator[Service]:
    running = Service(nodes.truck.enter("router"), tmp_path)
    yield running
    running.stop()
    nodes.truck.run("router", "nft", "flush", "ruleset")


def ended_with(nodes: Routed, service: Service, *options: str) -> tuple[int, str]:
    """Exit code and output of `lanward verify`, run where the service runs."""
    command = [*nodes.truck.enter("router"), *COMMAND, "verify", "--state", str(service.state), *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def wrong(nodes: Routed, rows: list[Row]) -> list[str]:
    """The rows whose measurement is not what the policy says."""
    enter = {one: partial(inside, nodes.truck.netns(one.name)) for one in NODES}
    enter |= {ROUTER: partial(inside, nodes.truck.netns("router"))}
    enter |= {OUTSIDE[0]: partial(inside, nodes.truck.netns("internet"))}
    results = measure(rows, enter, 0.5)
    return [
        f"{row.source} to {row.target}, {row.service}: {result}, not {row.expected}"
        for row, result in zip(rows, results, strict=True)
        if bool(result) != row.expected
    ]


def test_the_28_rows_of_the_table(nodes: Routed, service: Service) -> None:
    service.start(TRUCK)
    addresses = {name: IPv4Address(address) for name, address in ADDRESSES.items()}
    rows = reachability.measure(
        nodes.truck.enter, reachability.rows(), reachability.places(nodes.truck.plan, addresses)
    )
    assert len(rows) == 28
    assert [row for row in rows if row.measured != row.expected] == []


def test_exceptions_and_published_ports_for_every_pair(nodes: Routed, service: Service) -> None:
    service.start(TRUCK + EXCEPTIONS)
    rows = expected(parse(TRUCK + EXCEPTIONS), NODES, OUTSIDE, SERVICES)
    opened = {(str(row.source), str(row.target), str(row.service)) for row in rows if row.expected}
    assert {
        ("vlan1/device1", "vlan2/container2", "udp/5000"),
        ("vlan2/device2", "vlan1/device1", "tcp/80"),
        ("internet", "router, wan", "tcp/8080"),
        ("internet", "router, wan", "udp/9000"),
    } <= opened
    assert ("vlan1/device1", "vlan2/container2", "udp/5011") not in opened
    assert wrong(nodes, rows) == []


def test_an_exception_is_there_after_a_reload_and_gone_after_the_next(nodes: Routed, service: Service) -> None:
    service.start(TRUCK)
    for number, text in enumerate((TRUCK + EXCEPTIONS, TRUCK), 1):
        service.reload(text)
        wait_until(lambda number=number: len(service.events("reloaded")) == number, 5, "the reload")  # type: ignore[misc]
        rows = expected(parse(text), NODES, OUTSIDE, SERVICES)
        assert wrong(nodes, rows) == []


def test_verify_says_what_the_router_sees(nodes: Routed, service: Service) -> None:
    service.start(TRUCK)
    code, text = ended_with(nodes, service, "--json", "--internet", INTERNET)
    found: list[dict[str, Any]] = json.loads(text)
    measured = {one["target"]: one["measured"] for one in found if one["source"] == "router"}
    assert measured == {"vlan1/device1": True, "vlan1/container1": True, "internet": True}
    assert {one["measured"] for one in found if one["source"] != "router"} == {None}
    assert code == 0


def test_verify_fails_when_a_row_differs(nodes: Routed, service: Service) -> None:
    service.start(TRUCK)
    blackhole = f"route add blackhole {INTERNET}/32"
    nodes.ip("router", blackhole)
    code, text = ended_with(nodes, service, "--internet", INTERNET)
    nodes.ip("router", blackhole.replace("add", "del"))
    assert code == 1
    assert [line.split()[:2] for line in text.splitlines() if "DIFFERS" in line] == [["router", "internet"]]


class Guarded:
    """container2 as a DHCP client on a VLAN with a source guard, and what of it reaches the internet."""

    def __init__(self, nodes: Routed, home: Path) -> None:
        self.nodes = nodes
        nodes.ip("container2", "addr flush dev eth0")
        self.client = Udhcpc(nodes.truck.netns("container2"), home / "client", "container2")
        self.address = str(self.client.start().address.ip)

    def is_forwarded(self, source: str) -> bool:
        """Whether a datagram from this address of container2 reaches the internet."""
        listener = self.nodes.udp("internet", port=PORT)
        self.nodes.truck.ping("container2", "10.0.2.1")  # so that no datagram waits for the router's MAC
        self.nodes.udp("container2", source).sendto(b"here", (INTERNET, PORT))
        last(self.nodes.udp("device1"), INTERNET, PORT)
        received = heard(listener)
        self.nodes.close()
        return received == [b"here"]

    def take(self, address: str) -> None:
        """Use an address without asking for it."""
        self.nodes.ip("container2", f"addr replace {address}/24 dev eth0", "route replace default via 10.0.2.1")

    def restore(self) -> None:
        self.client.stop()
        self.nodes.ip("container2", "addr flush dev eth0")
        self.take(ADDRESSES["container2"])


GUARD = TRUCK.replace('name = "vlan2"\n', 'name = "vlan2"\nguard = true\n')


@pytest.fixture
def guarded(nodes: Routed, service: Service, tmp_path: Path) -> Iterator[Guarded]:
    service.start(GUARD.replace('"12h"', '"5s"'))
    client = Guarded(nodes, tmp_path)
    yield client
    client.restore()


def test_a_lease_is_forwarded_until_it_expires(guarded: Guarded) -> None:
    guarded.client.stop()
    assert guarded.is_forwarded(guarded.address)
    wait_until(lambda: not guarded.is_forwarded(guarded.address), 10, "the lease to expire")


def test_a_lease_is_forwarded_until_it_is_released(guarded: Guarded) -> None:
    assert guarded.is_forwarded(guarded.address)
    guarded.client.release()
    guarded.take(guarded.address)
    assert not guarded.is_forwarded(guarded.address)


@pytest.mark.parametrize("address", [ADDRESSES["device2"], "10.0.2.77"])
def test_an_address_that_is_not_the_clients_is_not_forwarded(address: str, guarded: Guarded) -> None:
    guarded.take(address)
    assert not guarded.is_forwarded(address)
    assert guarded.is_forwarded(guarded.address)
