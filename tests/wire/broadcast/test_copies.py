"""A sender on a node, listeners on the others: what is relayed, and what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from router.config import parse
from router.relay import Counts, Relay
from router.rules import ruleset
from tests.lab.netns import batch
from tests.lab.routed import Routed
from tests.router.test_relay import GROUP, rule
from tests.wire.broadcast.nodes import (
    LIMITED,
    OTHER_PORT,
    PORT,
    Setup,
    heard,
    host,
    legs,
    listener,
    listeners,
    nft,
    payloads,
    sender,
)

# -- what is relayed


def test_each_vlan_named_and_no_other_gets_one_copy(nodes: Routed, relaying: Setup) -> None:
    relay = relaying(rule("vlan1", "vlan2", "vlan4"))
    on = listeners(nodes, 4)
    sender(nodes, "node1").sendto(b"fix", (LIMITED, PORT))
    original, copy = (b"fix", "10.0.1.20", LIMITED, 64), (b"fix", "10.0.1.20", LIMITED, 63)
    assert heard(nodes, on) == {"node1": [original], "node2": [copy], "node3": [], "node4": [copy]}
    with nodes.on("router"):
        assert relay.counts() == ({"gps": Counts(received=1, sent=2, ignored=0)}, 0)


def test_a_directed_broadcast_becomes_that_of_the_target(nodes: Routed, relaying: Setup) -> None:
    relaying(rule("vlan1", "vlan2"))
    on = listeners(nodes, 2)
    sender(nodes, "node1").sendto(b"fix", ("10.0.1.255", PORT))
    assert heard(nodes, on)["node2"] == [(b"fix", "10.0.1.20", "10.0.2.255", 63)]


def test_the_source_port_is_kept(nodes: Routed, relaying: Setup) -> None:
    relaying(rule("vlan1", "vlan2"))
    one, target = sender(nodes, "node1"), listener(nodes, "node2")
    one.sendto(b"fix", (LIMITED, PORT))
    assert target.recvfrom(100)[1] == ("10.0.1.20", one.getsockname()[1])


@pytest.mark.parametrize("size", [0, 1, 1472, 1473, 65507])
def test_any_size_passes(nodes: Routed, relaying: Setup, size: int) -> None:
    relaying(rule("vlan1", "vlan2", "vlan3"))
    on, payload = listeners(nodes, 4), os.urandom(size)
    sender(nodes, "node1").sendto(payload, (LIMITED, PORT))
    assert payloads(nodes, on) == [[payload], [payload], [payload], []]


def test_a_group_is_relayed_although_its_time_to_live_is_1(nodes: Routed, relaying: Setup) -> None:
    relaying(rule("vlan1", "vlan2", "vlan3", group=GROUP))
    on, one = listeners(nodes, 4, GROUP), sender(nodes, "node1")
    for destination in ("239.1.2.3", "239.1.2.4", LIMITED):
        one.sendto(destination.encode(), (destination, PORT))
    found, copy = heard(nodes, on), (b"239.1.2.3", "10.0.1.20", "239.1.2.3", 1)
    assert (found["node2"], found["node3"], found["node4"]) == ([copy], [copy], [])


def test_the_router_is_a_member_of_the_group_where_it_comes_from(nodes: Routed, relaying: Setup) -> None:
    def member(leg: str) -> bool:
        return "239.1.2.3" in nodes.truck.run("router", "ip", "maddress", "show", "dev", leg).stdout

    relay = relaying(rule("vlan1", "vlan2", group=GROUP))
    assert (member("leg1"), member("leg2")) == (True, False)
    with nodes.on("router"):
        relay.reload([], legs())
    assert not member("leg1")


@pytest.mark.parametrize(
    ("leg", "destination", "direct"),
    [("leg1", LIMITED, "node1"), ("leg3", "10.0.3.255", "node3"), ("wan", "203.0.113.255", ""), ("", LIMITED, "")],
)
def test_what_the_router_broadcasts_reaches_each_target_once(
    nodes: Routed, relaying: Setup, leg: str, destination: str, direct: str
) -> None:
    relay = relaying(rule("router", "vlan1", "vlan2"))
    on = listeners(nodes, 4)
    sender(nodes, "router", leg=leg).sendto(b"fix", (destination, PORT))
    found = {node: [datagram[:2] for datagram in got] for node, got in heard(nodes, on).items()}
    routers = {node: f"10.0.{node.removeprefix('node')}.1" for node in on}
    assert found == {node: [(b"fix", routers[node])] if node in {"node1", "node2", direct} else [] for node in on}
    with nodes.on("router"):
        assert relay.counts() == ({"gps": Counts(received=1, sent=2 - (direct == "node1"), ignored=0)}, 0)


def test_what_the_router_sends_to_a_group_reaches_its_members(nodes: Routed, relaying: Setup) -> None:
    relaying(rule("router", "vlan2", "vlan3", group=GROUP))
    on = listeners(nodes, 3, GROUP)
    sender(nodes, "router", leg="wan").sendto(b"fix", ("239.1.2.3", PORT))
    assert heard(nodes, on) == {
        "node1": [],
        "node2": [(b"fix", "10.0.2.1", "239.1.2.3", 1)],
        "node3": [(b"fix", "10.0.3.1", "239.1.2.3", 1)],
    }


# -- what is not


def test_rules_in_a_circle_do_not_loop(nodes: Routed, relaying: Setup) -> None:
    names = [f"vlan{n}" for n in range(1, 5)]
    circle = [rule(one, *(other for other in names if other != one), name=one) for one in names]
    relay = relaying(*circle, rule("router", *names, name="router"))
    on = listeners(nodes, 4)
    sender(nodes, "node1").sendto(b"from node1", (LIMITED, PORT))
    sender(nodes, "router", leg="leg2").sendto(b"from the router", (LIMITED, PORT))
    assert payloads(nodes, on) == [[b"from node1", b"from the router"]] * 4
    with nodes.on("router"):
        counts, strays = relay.counts()
    assert counts["vlan1"] == counts["router"] == Counts(received=1, sent=3, ignored=0)
    assert counts["vlan2"] == Counts(received=0, sent=0, ignored=0)
    assert strays == 0


def test_rules_that_overlap_make_one_copy(nodes: Routed, relaying: Setup) -> None:
    relaying(rule("vlan1", "vlan2", name="one"), rule("vlan1", "vlan2", "vlan3", name="two"))
    on = listeners(nodes, 3)
    sender(nodes, "node1").sendto(b"fix", (LIMITED, PORT))
    assert payloads(nodes, on) == [[b"fix"]] * 3


def test_another_relay_on_the_same_segments_does_not_loop(nodes: Routed, relaying: Setup) -> None:
    """`twin` relays from vlan2 to vlan1 what the router relays from vlan1 to vlan2."""
    with twin_in_vlan2(nodes), nodes.on("twin"):
        legs_of_twin = {vlan: leg._replace(interface=f"eth{n}") for n, (vlan, leg) in enumerate(legs(2).items())}
        twin = Relay([rule("vlan2", "vlan1")], legs_of_twin, print)
        twin.start()
        relaying(rule("vlan1", "vlan2"))
        on = listeners(nodes, 2)
        sender(nodes, "node1").sendto(b"fix", (LIMITED, PORT))
        assert payloads(nodes, on) == [[b"fix"], [b"fix"]]
        assert twin.counts() == ({"gps": Counts(received=0, sent=0, ignored=1)}, 1)
        twin.stop()


@contextmanager
def twin_in_vlan2(nodes: Routed) -> Iterator[None]:
    ends = f"link add twin type veth peer name eth1 netns {nodes.truck.netns('twin')}"
    batch([ends, "link set twin master br2 up"], host(nodes))
    nodes.ip("twin", "addr add 10.0.1.2/24 dev eth0", "addr add 10.0.2.2/24 dev eth1", "link set eth1 up")
    yield
    batch(["link del twin"], host(nodes))


def test_what_no_rule_is_for_is_ignored_and_counted(nodes: Routed, relaying: Setup) -> None:
    relay = relaying(rule("vlan1", "vlan2"))
    on = listeners(nodes, 3)
    nodes.ip("node1", "addr add 10.0.9.9/32 dev eth0", "addr add 10.0.1.1/32 dev eth0")
    for spoofed in ("10.0.9.9", "10.0.1.1"):
        sender(nodes, "node1", spoofed).sendto(b"spoofed", (LIMITED, PORT))
    nodes.ip("node1", "addr del 10.0.9.9/32 dev eth0", "addr del 10.0.1.1/32 dev eth0")
    sender(nodes, "node1").sendto(b"other port", (LIMITED, OTHER_PORT))
    sender(nodes, "node1").sendto(b"unicast", ("10.0.1.1", PORT))
    sender(nodes, "node3").sendto(b"other VLAN", (LIMITED, PORT))
    assert heard(nodes, on)["node2"] == []
    with nodes.on("router"):
        assert relay.counts() == ({"gps": Counts(received=0, sent=0, ignored=1)}, 1)


def test_copies_pass_the_firewall_and_answers_do_not(nodes: Routed, relaying: Setup) -> None:
    relaying(rule("vlan1", "vlan2"))
    vlan = '[[vlan]]\nname = "vlan{0}"\ntag = {0}\nsubnet = "10.0.{0}.0/24"\nrouter = "10.0.{0}.1"\npools = []\n'
    interfaces = {name: leg.interface for name, leg in legs(2).items()}
    nft(nodes, str(ruleset(parse(vlan.format(1) + vlan.format(2)), interfaces, "wan", {})))
    one, target = sender(nodes, "node1"), listener(nodes, "node2")
    one.sendto(b"fix", (LIMITED, PORT))
    payload, source = target.recvfrom(100)
    target.sendto(b"answer", source)
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        one.recv(100)
    assert payload == b"fix"
    rules = nodes.truck.run("router", "nft", "list", "ruleset").stdout.splitlines()
    spoofed = [line for line in rules if "source not in the subnet" in line]
    assert spoofed
    assert all("packets 0 " in line for line in spoofed), "a copy that is looped back is not taken for a spoofed packet"
