"""What the drawing is made from, on engines without a service."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dhcpd.engine import Engine
from dhcpd.leases import BOUND, DECLINED, Row
from dhcpd.settings import Reservation
from router.app import App
from router.config import Config, parse
from router.picture import MOST_NODES, chosen, exceptions, picture
from tests.dhcpd.script import START, ip, mac, scope, span
from tests.router.good import GOOD

POOL = span("10.0.1.2-10.0.1.254")
FIRST = ip("10.0.1.2")


def engine(*rows: Row, **changes: Any) -> Engine:
    return Engine(scope(pools=(POOL,), **changes), rows, START)


def row(number: int, expires: int = START + 60, state: int = BOUND) -> Row:
    return Row(FIRST + number, state, b"m\1" + mac(number), mac(number), b"", f"node{number}", START - 10, expires)


def test_few_nodes_are_all_chosen() -> None:
    found = engine(row(0), row(1, START - 1), row(2, state=DECLINED))
    assert chosen(found, [], 10, START) == {FIRST, FIRST + 1, FIRST + 2}


def test_of_many_those_who_have_a_lease_and_came_last_are_chosen() -> None:
    live = [row(number) for number in range(100)]
    ended = [row(number, START - 1) for number in range(100, 120)]
    found = chosen(engine(*live, *ended), [], 60, START)
    assert found == {FIRST + number for number in range(40, 100)}


def test_containers_and_reservations_that_are_there_come_first() -> None:
    reserved = (Reservation("a", (mac(3),), address=FIRST + 3), Reservation("b", (mac(7),), address=FIRST + 200))
    found = engine(*(row(number) for number in range(100)), reservations=reserved)
    assert {FIRST + 3, FIRST + 5} <= chosen(found, [FIRST + 5, FIRST + 210], 10, START)
    assert FIRST + 200 not in chosen(found, [], 10, START)
    assert FIRST + 200 in chosen(engine(row(0), reservations=reserved), [], 10, START)


@pytest.fixture
def good() -> Config:
    return parse(GOOD)


def test_exceptions_have_two_ends(good: Config) -> None:
    found = [(one["kind"], one["from"], one["to"], one["ports"]) for one in exceptions(good, {})]
    vlan1 = {"kind": "vlan", "text": "vlan1", "vlan": "vlan1", "name": None, "address": None}
    container2 = {"kind": "node", "text": "vlan2/container2", "vlan": "vlan2", "name": "container2", "address": None}
    assert found[0] == ("allow", vlan1, container2, ["tcp/443", "udp/5000-5010", "icmp"])
    assert [(kind, source["text"], ports) for kind, source, _, ports in found[1:]] == [
        ("allow", "vlan1/device1", []), ("publish", "wan", ["tcp/8080"]), ("publish", "wan", ["udp/9000-9010"]),
        ("broadcast", "router", ["udp/10110"]),
    ]  # fmt: skip
    assert [one["text"] for one in found[-1][2]] == ["vlan1", "vlan2"]
    assert found[1][1]["address"] == "10.0.1.20"
    placed = exceptions(good, {("vlan2", "container2"): ip("10.0.2.30")})
    assert placed[0]["to"] == container2 | {"address": "10.0.2.30"}


def test_the_whole_picture(good: Config) -> None:
    device = bytes.fromhex("020000000105")
    held = Row(ip("10.0.1.20"), BOUND, b"m\1" + device, device, b"", "device1", START - 10, START + 60)
    engines = {one.name: Engine(one, [held] if one.name == "vlan1" else [], START) for one in good.scopes}
    link = SimpleNamespace(interface="leg", is_there=lambda: True)
    app = SimpleNamespace(
        config=good,
        servers={name: SimpleNamespace(engine=one, link=link) for name, one in engines.items()},
        containers=SimpleNamespace(list=list),
        forwarding=SimpleNamespace(error=None, nodes={("vlan1", "web"): ip("10.0.1.30")}),
        legs=SimpleNamespace(uplink=lambda: "eth9"),
        started=START,
        now=lambda: START,
        clock_offset=lambda: 0.0,
    )
    for number in range(150):
        engines["vlan1"].lease_container(f"web{number}", mac(number), "", ip("10.0.1.21") + number, START)
    found = picture(cast("App", app))
    assert found["wan"] == {"network": "wan", "interface": "eth9"}
    assert [one["name"] for one in found["vlans"]] == ["vlan1", "vlan2"]
    assert found["vlans"][0]["pools"] == [["10.0.1.100", "10.0.1.199"], ["10.0.1.210", "10.0.1.219"]]
    assert len(found["nodes"]) == MOST_NODES
    assert "10.0.1.20" in {one["address"] for one in found["nodes"]}  # an exception names it
    assert "10.0.1.30" in {one["address"] for one in found["nodes"]}  # so does another, by a name
    assert (found["rules"], found["now"]) == (None, "2027-01-15T08:00:00Z")
