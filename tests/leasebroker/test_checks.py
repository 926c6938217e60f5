"""What is wrong with a network or a wish is said in one sentence, with the cure."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from leasebroker.checks import lease_problems, network_problem, unclear_network
from leasebroker.containers import Wish
from tests.dhcpd.script import ip
from tests.leasebroker.things import LEG, network

CREATE = (
    "docker network create --subnet 10.0.1.0/24 --gateway 10.0.1.1 --ip-range 10.0.1.240/28 "
    "-o com.docker.network.bridge.inhibit_ipv4=true br0net"
)
INHIBIT = "com.docker.network.bridge.inhibit_ipv4"
NO_ICC = {INHIBIT: "true", "com.docker.network.bridge.enable_icc": "false"}


@pytest.mark.parametrize(
    ("changes", "filtered"),
    [
        ({}, True),
        ({"landing": IPv4Network("10.0.1.240/29")}, True),
        ({"options": NO_ICC}, False),
        ({"options": NO_ICC | {"com.docker.network.bridge.enable_icc": "true"}}, True),
        ({"options": {INHIBIT: "1"}}, True),
        ({"driver": "macvlan", "options": {}}, True),
    ],
)
def test_a_network_that_is_right(changes: dict[str, Any], filtered: bool) -> None:
    assert network_problem(LEG, network(**changes), filtered=filtered) is None


def test_a_network_that_is_not_there_is_to_be_made() -> None:
    assert network_problem(LEG, None, filtered=False) == f"Docker has no network br0net for vlan1: {CREATE}"


def test_a_network_of_which_there_are_two_is_to_be_made_clear() -> None:
    problem = unclear_network(LEG, "network br0net is ambiguous")
    assert problem.what == "network br0net of vlan1: network br0net is ambiguous"
    assert "there is one of that name" in problem.cure
    assert problem.endswith(CREATE)


def test_without_a_landing_range_the_cure_names_none() -> None:
    leg = LEG._replace(landing=None)
    assert "--ip-range" not in str(network_problem(leg, None, filtered=False))
    assert network_problem(leg, network(), filtered=False) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subnet": IPv4Network("10.0.0.0/16")}, ["10.0.0.0/16", "10.0.1.0/24", "vlan1"]),
        ({"subnet": None}, ["subnet", "10.0.1.0/24"]),
        ({"gateway": ip("10.0.1.2")}, ["10.0.1.2", "10.0.1.1", "gateway"]),
        ({"gateway": 0}, ["gateway", "10.0.1.1"]),
        ({"landing": None}, ["no --ip-range", "pools"]),
        ({"landing": IPv4Network("10.0.1.128/25")}, ["10.0.1.128/25", "10.0.1.240/28"]),
        ({"internal": True}, ["--internal", "DHCP"]),
        ({"options": NO_ICC}, ["enable_icc=false"]),
        ({"options": {}}, [f"its {INHIBIT} is not set, not true"]),
        ({"options": {INHIBIT: "false"}}, [f"{INHIBIT} is false, not true"]),
    ],
    ids=["subnet", "no subnet", "gateway", "no gateway", "no range", "range", "internal", "icc", "inhibit", "host"],
)
def test_a_network_that_is_wrong(changes: dict[str, Any], words: list[str]) -> None:
    problem = network_problem(LEG, network(**changes), filtered=True)
    assert problem is not None
    assert problem.startswith("network br0net: ")
    assert problem.endswith(f"; remove it and create it again: {CREATE}")
    for word in words:
        assert word in problem.removesuffix(CREATE)


@pytest.mark.parametrize(
    ("wanted", "address", "words"),
    [
        (None, "10.0.1.100", None),
        ("10.0.1.50", "10.0.1.50", None),
        ("10.0.1.1", "10.0.1.100", ["web", "10.0.1.1 ", "vlan1", "10.0.1.100", "ask for a free one"]),
        (None, None, ["web", "no lease on vlan1", "enlarge its pools", "reserve"]),
        ("10.0.1.50", None, ["no lease on vlan1", "enlarge its pools"]),
    ],
)
def test_what_a_container_did_not_get(wanted: str | None, address: str | None, words: list[str] | None) -> None:
    wish = Wish("web", "web", ip(wanted) if wanted else None)
    found = list(lease_problems(LEG, "web", wish, ip(address) if address else None))
    assert len(found) == (0 if words is None else 1)
    for word in words or ():
        assert word in found[0]


def test_a_wish_gives_way_to_a_reservation() -> None:
    wish = Wish("web", "web", ip("10.0.1.50"))
    assert not list(lease_problems(LEG, "web", wish, ip("10.0.1.77"), reserved=True))
    assert list(lease_problems(LEG, "web", wish, None, reserved=True))
