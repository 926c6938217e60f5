"""Real DHCP clients against the running service, through the switch of the virtual truck."""

from __future__ import annotations

import json
from collections import Counter
from ipaddress import IPv4Address, IPv4Interface

import pytest

from tests.lab.clients import CLIENTS, Client, Dhclient, Dhcpcd, Lease, Networkd, Udhcpc
from tests.lab.netns import wait_until
from tests.lab.service import Service
from tests.lab.truck import Truck
from tests.wire.conftest import MakeClient
from tests.wire.station import Station

each_client = pytest.mark.parametrize("kind", CLIENTS, ids=[kind.program for kind in CLIENTS])

CONFIG = """
[[vlan]]
name = "vlan1"
tag = 1
subnet = "10.0.1.0/24"
router = "10.0.1.1"
pools = ["10.0.1.100-10.0.1.199"]
lease_time = "15m"
dns = ["10.0.1.1", "198.51.100.9"]
domain = "truck.example"

[[vlan]]
name = "vlan2"
tag = 2
subnet = "10.0.2.0/24"
router = "10.0.2.1"
pools = ["10.0.2.100-10.0.2.199"]
lease_time = "30m"
dns = ["10.0.2.1"]
domain = "two.truck.example"
"""

RESERVATION = """
[[vlan.reservation]]
name = "camera"
mac = "{mac}"
address = "10.0.2.20"
"""

T1_AFTER_3_SECONDS = 'lease_time = "120s"\nt1 = 0.025\nt2 = 0.9\n'
FIRST = Lease(
    IPv4Interface("10.0.1.100/24"),
    IPv4Address("10.0.1.1"),
    (IPv4Address("10.0.1.1"), IPv4Address("198.51.100.9")),
    "truck.example",
    900,
)


class CheckingDhcpcd(Dhcpcd):
    checks = True


def states(service: Service) -> dict[str, str]:
    """The state of each address in the lease table."""
    return {row["address"]: row["state"] for row in service.leases()}


def received(service: Service) -> Counter[str]:
    """How many messages of each type the first VLAN's server has received."""
    return Counter(json.loads(service.ask("status", "--json"))["vlans"][0]["received"])


@each_client
def test_a_client_gets_what_is_configured(
    kind: type[Client], service: Service, client: MakeClient, truck: Truck
) -> None:
    service.start(CONFIG)
    device1 = client(kind, "device1")
    assert device1.start() == FIRST
    assert device1.kernel_address() == FIRST.address
    assert truck.ping("device1", "10.0.1.1")
    (row,) = service.leases()
    assert (row["vlan"], row["address"], row["state"], row["kind"]) == ("vlan1", "10.0.1.100", "bound", "device")
    assert (row["mac"], row["hostname"]) == (truck.plan.device("device1").mac, "device1")


@each_client
def test_a_client_renews_and_keeps_its_address(kind: type[Client], service: Service, client: MakeClient) -> None:
    service.start(CONFIG.replace('lease_time = "15m"\n', T1_AFTER_3_SECONDS))
    device1 = client(kind, "device1")
    first = device1.start()
    assert device1.renew() == first
    wait_until(lambda: service.events("renewed"), 3, "the renewal in the log")


@each_client
def test_a_client_releases_its_lease(kind: type[Client], service: Service, client: MakeClient) -> None:
    service.start(CONFIG)
    device1 = client(kind, "device1")
    device1.start()
    device1.release()
    wait_until(lambda: states(service) == {"10.0.1.100": "expired"}, 3, "the lease to be released")


@each_client
def test_a_client_keeps_its_address_when_it_comes_back(
    kind: type[Client], service: Service, client: MakeClient
) -> None:
    service.start(CONFIG)
    device1 = client(kind, "device1")
    device1.start()
    client(Udhcpc, "device3").start()
    assert device1.reboot() == FIRST
    assert not service.events("refused")


@pytest.mark.parametrize("kind", [Dhclient, Dhcpcd, Networkd], ids=["dhclient", "dhcpcd", "systemd-networkd"])
def test_init_reboot_needs_no_discover(kind: type[Client], service: Service, client: MakeClient) -> None:
    service.start(CONFIG)
    device1 = client(kind, "device1")
    device1.start()
    before = received(service)
    device1.reboot()
    assert received(service) == before + Counter(request=1)


@each_client
def test_a_killed_server_remembers_its_clients(kind: type[Client], service: Service, client: MakeClient) -> None:
    service.start(CONFIG)
    client(Udhcpc, "device3").start()
    device1 = client(kind, "device1")
    first = device1.start()
    service.kill9()
    service.start()
    assert device1.reboot() == first


@each_client
def test_vlans_do_not_mix(kind: type[Client], service: Service, client: MakeClient) -> None:
    service.start(CONFIG)
    second = client(kind, "device2").start()
    assert second.address == IPv4Interface("10.0.2.100/24")
    assert (second.router, second.domain, second.seconds) == (IPv4Address("10.0.2.1"), "two.truck.example", 1800)
    assert client(kind, "device1").start() == FIRST
    assert {row["vlan"]: row["address"] for row in service.leases()} == {"vlan1": "10.0.1.100", "vlan2": "10.0.2.100"}


def test_a_client_on_a_vlan_without_a_server_hears_nothing(service: Service, client: MakeClient) -> None:
    service.start(CONFIG[: CONFIG.index('[[vlan]]\nname = "vlan2"')])
    device2 = client(Udhcpc, "device2")
    with pytest.raises(TimeoutError):
        device2.start(timeout=2)
    assert client(Udhcpc, "device1").start() == FIRST
    assert [row["address"] for row in service.leases()] == ["10.0.1.100"]


@each_client
def test_a_reservation_by_mac_is_honoured(
    kind: type[Client], service: Service, client: MakeClient, truck: Truck
) -> None:
    service.start(CONFIG + RESERVATION.format(mac=truck.plan.device("device2").mac))
    assert client(kind, "device2").start().address == IPv4Interface("10.0.2.20/24")


@each_client
def test_a_client_that_moves_gets_an_address_of_its_new_vlan(
    kind: type[Client], service: Service, client: MakeClient, truck: Truck
) -> None:
    service.start(CONFIG)
    device1 = client(kind, "device1")
    device1.start()
    seen = len(device1.leases())
    truck.unplug("device1")
    device1.await_loss()
    truck.move("device1", "vlan2")
    moved = device1.next_lease(seen) if kind.follows_its_cable else device1.reboot()
    assert moved.address == IPv4Interface("10.0.2.100/24")
    assert bool(service.events("refused")) == (kind is not Udhcpc)
    wait_until(lambda: truck.ping("device1", "10.0.2.1"), 3, "the new router to answer")


def test_a_client_that_checks_its_address_finds_no_probe_of_ours(
    service: Service, client: MakeClient, truck: Truck
) -> None:
    """RFC 5227 section 2.1.1: a client that sees somebody else probe for its new address takes that for a conflict."""
    service.start(CONFIG.replace("10.0.1.199", "10.0.1.109"))  # so few that a free one is probed at once
    device1 = client(CheckingDhcpcd, "device1")
    first = device1.start()
    truck.unplug("device1")
    device1.await_loss()
    with Station(truck.netns("device3"), "eth0") as port:
        truck.plug("device3")
        service.ask("drop", "vlan1", str(first.address.ip))
        assert any(is_probe_for(frame, first.address.ip) for frame in port.frames(3))
        seen = len(device1.leases())
        truck.plug("device1")
        assert device1.next_lease(seen) == first
        checked = {frame[6:12].hex(":") for frame in port.frames(1) if is_probe_for(frame, first.address.ip)}
    assert truck.plan.device("device1").mac in checked
    assert not service.events("declined")


def is_probe_for(frame: bytes, address: IPv4Address) -> bool:
    """An ARP request that says nothing of its sender's address."""
    return frame[12:14] == b"\x08\x06" and frame[28:32] == bytes(4) and frame[38:42] == address.packed
