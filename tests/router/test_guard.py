"""The source guard in a real kernel: who is forwarded when."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from math import inf

import pytest

from router.firewall import Firewall, Member
from tests.lab.netns import wait_until
from tests.lab.plan import Container, Device
from tests.lab.routed import ADDRESSES, INTERNET, Routed, heard, last
from tests.router.cases import wired
from tests.router.conftest import Enforce
from tests.router.test_rules import configuration

PORT = 5000
NOW = 1000.0


def member(nodes: Routed, node: str) -> Member:
    """The node's own address."""
    plan = nodes.truck.plan
    found: list[Device | Container] = [*plan.devices, *plan.containers]
    (one,) = [one for one in found if one.name == node]
    return Member(one.vlan, bytes.fromhex(one.mac.replace(":", "")), int(IPv4Address(ADDRESSES[node])))


@pytest.fixture
def guarded(enforce: Enforce, firewall: Firewall) -> Firewall:
    """Rules with a guard on both VLANs, and no members but the reservation device1, which is at its address."""
    enforce(configuration(2, settings="guard = true"))
    return firewall


@pytest.fixture
def internet(nodes: Routed) -> socket.socket:
    return nodes.udp("internet", port=PORT)


@pytest.fixture
def end(nodes: Routed) -> Callable[[], None]:
    """End what the internet hears by a datagram of device1, which is reserved."""
    return lambda: last(nodes.udp("device1"), INTERNET, PORT)


def test_a_reservation_passes_without_a_lease_and_nobody_else(
    nodes: Routed, guarded: Firewall, internet: socket.socket, end: Callable[[], None]
) -> None:
    nodes.udp("container1").sendto(b"no lease", (INTERNET, PORT))
    end()
    assert heard(internet) == []
    assert guarded.repairs == 0


def test_the_first_packet_after_a_lease_passes_every_time(
    nodes: Routed, guarded: Firewall, internet: socket.socket, count: Callable[[int, int], int]
) -> None:
    client, one = nodes.udp("container1"), member(nodes, "container1")
    for number in range(count(1000, 10_000)):
        client.sendto(b"before", (INTERNET, PORT))
        guarded.admit({one: NOW + 60}, NOW)
        client.sendto(b"%d" % number, (INTERNET, PORT))
        assert internet.recv(100) == b"%d" % number
        guarded.expel([one], NOW)


def test_a_lease_that_ends_ends_also_what_was_established(
    nodes: Routed, guarded: Firewall, internet: socket.socket, end: Callable[[], None]
) -> None:
    client, one = nodes.udp("container1"), member(nodes, "container1")
    guarded.admit({one: NOW + 0.05}, NOW)
    client.sendto(b"leased", (INTERNET, PORT))

    def expired() -> bool:
        listed = nodes.truck.run("router", "nft", "list", "set", "inet", "lanward", "guard_vlan1").stdout
        return ADDRESSES["container1"] not in listed

    wait_until(expired, 3, "the kernel to forget the member")
    client.sendto(b"expired", (INTERNET, PORT))
    end()
    assert heard(internet) == [b"leased"]


def test_a_renewed_lease_lasts_longer(
    nodes: Routed, guarded: Firewall, internet: socket.socket, end: Callable[[], None]
) -> None:
    client, one = nodes.udp("container1"), member(nodes, "container1")
    guarded.admit({one: NOW + 0.05}, NOW)
    guarded.admit({one: NOW + 60, Member("vlan2", bytes(6), 1): NOW + 0.05}, NOW)

    def other_expired() -> bool:
        return "0.0.0.1" not in nodes.truck.run("router", "nft", "list", "set", "inet", "lanward", "guard_vlan2").stdout

    wait_until(other_expired, 3, "the time of the first lease to pass")
    client.sendto(b"renewed", (INTERNET, PORT))
    end()
    assert heard(internet) == [b"renewed"]


def test_a_client_that_takes_its_neighbours_address_is_not_forwarded(
    nodes: Routed, guarded: Firewall, internet: socket.socket, end: Callable[[], None]
) -> None:
    guarded.admit({member(nodes, "container1"): inf}, NOW)
    nodes.ip("container1", f"addr add {ADDRESSES['device1']}/32 dev eth0")
    nodes.udp("container1", ADDRESSES["device1"]).sendto(b"thief", (INTERNET, PORT))
    nodes.udp("container1", ADDRESSES["container1"]).sendto(b"honest", (INTERNET, PORT))
    nodes.ip("container1", f"addr del {ADDRESSES['device1']}/32 dev eth0", "neigh flush all")
    nodes.ip("router", "neigh flush dev leg1")
    nodes.ip("device1", "neigh flush all")
    end()
    assert heard(internet) == [b"honest"]


def test_a_member_of_one_vlan_is_none_of_another(
    nodes: Routed, guarded: Firewall, internet: socket.socket, end: Callable[[], None]
) -> None:
    guarded.admit({member(nodes, "container1")._replace(vlan="vlan2"): inf}, NOW)
    nodes.udp("container1").sendto(b"other", (INTERNET, PORT))
    end()
    assert heard(internet) == []


def test_a_lease_of_a_reservation_does_not_end_its_membership(
    nodes: Routed, guarded: Firewall, internet: socket.socket, end: Callable[[], None]
) -> None:
    one = member(nodes, "device1")
    guarded.admit({one: NOW + 0.001}, NOW)
    guarded.expel([one], NOW)
    end()
    assert heard(internet) == []


def test_members_stay_when_the_rules_are_replaced(
    nodes: Routed, guarded: Firewall, internet: socket.socket, end: Callable[[], None]
) -> None:
    guarded.admit({member(nodes, "container1"): NOW + 60}, NOW)
    with nodes.on("router"):
        assert guarded.apply(wired(configuration(1, settings="guard = true")), NOW)
    nodes.udp("container1").sendto(b"leased", (INTERNET, PORT))
    end()
    assert heard(internet) == [b"leased"]


def test_members_given_with_the_rules_replace_those_from_before(
    nodes: Routed, guarded: Firewall, internet: socket.socket, end: Callable[[], None]
) -> None:
    guarded.admit({member(nodes, "container1"): inf}, NOW)
    with nodes.on("router"):
        guarded.apply(wired(configuration(2, settings="guard = true")), NOW, {member(nodes, "container2"): NOW + 60})
    for node in ("container1", "container2"):
        nodes.udp(node).sendto(node.encode(), (INTERNET, PORT))
    end()
    assert heard(internet) == [b"container2"]
