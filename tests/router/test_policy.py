"""The policy in sentences: who reaches whom by which configuration."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from router.config import Config
from router.policy import ICMP, ROUTER, End, Row, expected, internet, node, reaches
from router.settings import Kind, Ports
from tests.lab import reachability
from tests.router.test_rules import allow, configuration


def number(address: str) -> int:
    return int(IPv4Address(address))


DEVICE1, CONTAINER1 = (
    node("vlan1", f"{name}1", number(f"10.0.1.{n}")) for name, n in (("device", 20), ("container", 30))
)
DEVICE2, CONTAINER2 = (
    node("vlan2", f"{name}2", number(f"10.0.2.{n}")) for name, n in (("device", 20), ("container", 30))
)
NODES = [DEVICE1, CONTAINER1, DEVICE2, CONTAINER2]
LEG1, LEG2 = (End(Kind.ROUTER, number(f"10.0.{n}.1"), f"vlan{n}") for n in (1, 2))
INTERNET, UPLINK = internet(number("198.51.100.9")), End(Kind.ROUTER, number("203.0.113.2"))
HTTP, HTTPS, GPS = Ports("tcp", 80, 80), Ports("tcp", 443, 443), Ports("udp", 5000, 5000)


def answers(config: Config, source: End, target: End, service: Ports = ICMP, nodes: list[End] | None = None) -> bool:
    return reaches(config, nodes or NODES, source, target, service)


def publish(port: str, target: str) -> str:
    return f'[[publish]]\nport = "{port}"\nto = "{target}"\n'


def test_without_exceptions_it_is_the_table_of_the_design() -> None:
    rows = {(str(one.source), str(one.target)): one.expected for one in expected(configuration(2), NODES, [INTERNET])}
    long = {one.name: str(one) for one in NODES} | {f"router_{one.vlan}": str(one) for one in (LEG1, LEG2)}
    table = {
        (long.get(row.source, row.source), long.get(row.target, row.target)): row.expected
        for row in reachability.rows()
    }
    assert len(table) == 28
    assert rows == table | {("router", "internet"): True}


def test_a_pair_is_asked_for_its_exceptions_and_what_everybody_is_asked() -> None:
    config = configuration(2, allow("vlan1", "vlan2/device2", "udp/5000-5010", "tcp/443"))
    rows = expected(config, [DEVICE1, DEVICE2], services=[HTTP])
    assert [row for row in rows if (row.source, row.target) == (DEVICE1, DEVICE2)] == [
        Row(DEVICE1, DEVICE2, ICMP, expected=False),
        Row(DEVICE1, DEVICE2, HTTP, expected=False),
        Row(DEVICE1, DEVICE2, HTTPS, expected=True),
        Row(DEVICE1, DEVICE2, GPS, expected=True),
    ]
    assert {row.service for row in rows if row.source == DEVICE2} == {ICMP, HTTP}


@pytest.mark.parametrize("source", ["vlan1", "vlan1/device1", "10.0.1.20"])
@pytest.mark.parametrize("target", ["vlan2", "vlan2/container2", "10.0.2.30"])
def test_an_exception_is_one_way_and_for_its_ports(source: str, target: str) -> None:
    config = configuration(2, allow(source, target, "tcp/80-90"))
    assert answers(config, DEVICE1, CONTAINER2, HTTP)
    assert not answers(config, DEVICE1, CONTAINER2, HTTPS)
    assert not answers(config, DEVICE1, CONTAINER2)
    assert not answers(config, CONTAINER2, DEVICE1, HTTP)
    assert answers(config, CONTAINER1, CONTAINER2, HTTP) == (source == "vlan1")
    assert answers(config, DEVICE1, DEVICE2, HTTP) == (target == "vlan2")


def test_an_exception_for_a_vlan_leaves_the_routers_address_in_it_closed() -> None:
    config = configuration(2, allow("vlan1", "vlan2") + allow("vlan1", "router") + allow("wan", "10.0.2.1"))
    assert not answers(config, DEVICE1, LEG2)
    assert not answers(config, INTERNET, LEG2)


def test_an_exception_for_the_routers_address_in_another_vlan_opens_it() -> None:
    config = configuration(2, allow("vlan1/device1", "10.0.2.1", "tcp/80"), settings="guard = true")
    assert [answers(config, DEVICE1, LEG2, one) for one in (HTTP, HTTPS, ICMP)] == [True, False, False]
    assert not answers(config, CONTAINER1, LEG2, HTTP)
    assert not answers(config, DEVICE1, LEG1, HTTP)
    assert HTTP in {row.service for row in expected(config, [DEVICE1]) if row.target == LEG2}


def test_the_router_answers_ping_dhcp_and_the_ports_that_are_named() -> None:
    config = configuration(2, allow("vlan1/device1", "router", "tcp/443"), settings='router_ports = ["tcp/80"]')
    asked = [ICMP, Ports("udp", 67, 67), HTTP, HTTPS, GPS]
    assert [answers(config, DEVICE1, LEG1, one) for one in asked] == [True, True, True, True, False]
    assert [answers(config, CONTAINER1, LEG1, one) for one in asked] == [True, True, True, False, False]


def test_only_encrypted_protocols_and_exceptions_leave() -> None:
    config = configuration(2, allow("vlan1/device1", "wan", "tcp/80"), settings="encrypted_only = true")
    asked = [ICMP, HTTP, HTTPS, Ports("udp", 53, 53)]
    assert [answers(config, DEVICE1, INTERNET, one) for one in asked] == [True, True, True, False]
    assert [answers(config, DEVICE2, INTERNET, one) for one in asked] == [True, False, True, False]


def test_a_guard_stops_requests_and_answers_of_who_has_no_lease() -> None:
    config = configuration(2, allow("vlan1", "vlan2"), settings="guard = true")
    stranger = node("vlan2", "stranger", number("10.0.2.77"), leased=False)
    assert not answers(config, DEVICE1, stranger)
    assert not answers(config, stranger, INTERNET)
    assert answers(config, stranger, DEVICE2)
    assert answers(config, stranger, LEG2)
    assert answers(config, ROUTER, stranger)


def test_from_outside_only_what_is_published_or_let_in() -> None:
    config = configuration(2, publish("tcp/80", "vlan1/container1") + allow("wan", "router", "tcp/443"))
    assert [answers(config, INTERNET, UPLINK, one) for one in (HTTP, HTTPS, ICMP)] == [True, True, False]
    assert not answers(config, INTERNET, UPLINK, HTTP, nodes=[DEVICE1])
    assert not answers(config, INTERNET, CONTAINER1, HTTP)


def test_a_name_without_an_address_is_the_node_that_has_it() -> None:
    config = configuration(2, allow("vlan1/phone", "vlan2/web"))
    phone, web = node("vlan1", "phone", number("10.0.1.100")), node("vlan2", "web", number("10.0.2.100"))
    assert answers(config, phone, web)
    assert not answers(config, DEVICE1, web)
    assert not answers(config, phone, node("vlan2", "phone", number("10.0.2.101")))
