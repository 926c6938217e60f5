"""Random configurations in a real kernel: who reaches whom is what the policy, written apart from the rules, says."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from math import inf

import pytest

from router.config import Config, ConfigError, parse
from router.firewall import Firewall, Member
from router.policy import ROUTER, End, Row, expected, internet
from router.probe import Enter, measure
from router.settings import Kind, Ports
from router.sysctls import prepare
from tests.lab import netns
from tests.lab.inside import inside
from tests.lab.plan import Container, Plan, Vlan, Wan
from tests.lab.truck import Truck
from tests.router.cases import wired

VLANS = 4
OUTSIDE = (internet(int(IPv4Address("198.51.100.9"))), End(Kind.ROUTER, int(IPv4Address("203.0.113.2"))))
SERVICES = tuple(Ports(protocol, port, port) for protocol, port in (("tcp", 80), ("tcp", 443), ("udp", 5000)))
PORTS = ["icmp", "tcp/80", "tcp/443", "tcp/80-90", "udp/5000", "udp/4990-5010", "udp/5001"]
NOW = 1000.0
_ANSWER_ALL = {"ipv4/icmp_ratelimit": 0}
"""Nodes say "port unreachable" as often as they are asked."""


def truck_plan() -> Plan:
    """VLANs 1 to 4, each with the containers a and b."""
    tags = range(1, VLANS + 1)
    wan = Wan(IPv4Interface("203.0.113.1/24"), IPv4Interface("203.0.113.2/24"), IPv4Interface("198.51.100.9/32"))
    vlans = [Vlan(f"vlan{n}", n, IPv4Network(f"10.0.{n}.0/24"), IPv4Address(f"10.0.{n}.1"), f"br{n}") for n in tags]
    nodes = [Container(f"{name}{n}", f"vlan{n}", mac(n, name)) for n in tags for name in "ab"]
    return Plan(tuple(vlans), wan, containers=tuple(nodes))


def mac(tag: int, name: str) -> str:
    return f"02:00:00:00:{tag:02x}:{ord(name):02x}"


def place(tag: int, name: str) -> str:
    return f"10.0.{tag}.{20 if name == 'a' else 30}"


@pytest.fixture(scope="module")
def truck() -> Iterator[Truck]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Truck(truck_plan()) as built:
        for one in built.plan.containers:
            tag, name = int(one.name[1:]), one.name[0]
            commands = [f"addr add {place(tag, name)}/24 dev eth0", f"route add default via 10.0.{tag}.1"]
            netns.batch(commands, built.netns(one.name))
        netns.batch(["route add 10.0.0.0/8 via 203.0.113.2"], built.netns("internet"))
        for node in ("router", "internet", *(one.name for one in built.plan.containers)):
            netns.write_sysctls(built.netns(node), _ANSWER_ALL)
        yield built


@pytest.fixture
def firewall(truck: Truck) -> Iterator[Firewall]:
    with inside(truck.netns("router")):
        assert prepare([f"leg{tag}" for tag in range(1, VLANS + 1)], "wan") == []
        made = Firewall()
    yield made
    made.close()
    truck.run("router", "nft", "flush", "ruleset")


class Drawn:
    """A random configuration, and the nodes that are there."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.tags = range(1, self._random.randint(2, VLANS) + 1)
        self.nodes: list[End] = []
        text = '[wan]\ninterface = "wan"\n' + "".join(self._vlan(tag) for tag in self.tags)
        for _ in range(self._random.randint(0, 6)):
            text = self._with(text, self._allow())
        for number in range(self._random.randint(0, 3)):
            text = self._with(text, self._publish(number))
        self.text = text
        self.config: Config = parse(text)

    @property
    def names(self) -> dict[tuple[str, str], int]:
        """Where the nodes are, as their leases tell."""
        return {(one.vlan or "", one.name): one.address for one in self.nodes}

    @property
    def members(self) -> Mapping[Member, float]:
        """The live leases of the guarded VLANs."""
        guarded = {vlan.scope.name for vlan in self.config.vlans if vlan.guard}
        return {self._member(one): inf for one in self.nodes if one.leased and one.vlan in guarded}

    def _member(self, one: End) -> Member:
        return Member(one.vlan or "", bytes.fromhex(mac(int(one.name[1:]), one.name[0]).replace(":", "")), one.address)

    def _maybe(self, line: str, chance: float = 0.3) -> str:
        return f"{line}\n" if self._random.random() < chance else ""

    def _vlan(self, tag: int) -> str:
        head = f'[[vlan]]\nname = "vlan{tag}"\ntag = {tag}\nsubnet = "10.0.{tag}.0/24"\nrouter = "10.0.{tag}.1"\n'
        switches = self._maybe("encrypted_only = true") + self._maybe("guard = true")
        services = self._maybe(f"router_ports = {self._random.sample(PORTS[1:3], 1)}")
        return head + "pools = []\n" + switches + services + "".join(self._node(tag, name) for name in "ab")

    def _node(self, tag: int, name: str) -> str:
        address = place(tag, name)
        reserved = self._maybe(
            f'[[vlan.reservation]]\nname = "{name}{tag}"\nmac = "{mac(tag, name)}"\naddress = "{address}"'
        )
        leased = bool(reserved) or self._random.random() < 0.6
        self.nodes.append(End(Kind.NODE, int(IPv4Address(address)), f"vlan{tag}", f"{name}{tag}", leased))
        return reserved

    def _end(self, *others: str) -> str:
        tag, name = self._random.choice(self.tags), self._random.choice("ab")
        return self._random.choice([f"vlan{tag}", f"vlan{tag}/{name}{tag}", place(tag, name), *others])

    def _allow(self) -> str:
        ports = self._random.sample(PORTS, self._random.randint(0, 3))
        limited = f"ports = {ports}\n" if ports else ""
        target = self._end("router", "wan", f"10.0.{self._random.choice(self.tags)}.1")
        return f'[[allow]]\nfrom = "{self._end("wan")}"\nto = "{target}"\n{limited}'

    def _publish(self, number: int) -> str:
        moved = self._maybe("to_port = 80", 0.5)
        port = f"{self._random.choice(['tcp', 'udp'])}/{8000 + number}"
        return f'[[publish]]\nport = "{port}"\nto = "{self._end()}"\n{moved}'

    def _with(self, text: str, more: str) -> str:
        """The configuration with a further table, if it may have it."""
        try:
            parse(text + more)
        except ConfigError:
            return text
        return text + more


def entries(truck: Truck, nodes: list[End]) -> Enter:
    inner = {one: partial(inside, truck.netns(one.name)) for one in nodes}
    return inner | {
        ROUTER: partial(inside, truck.netns("router")),
        OUTSIDE[0]: partial(inside, truck.netns("internet")),
    }


def readable(rows: list[Row]) -> list[str]:
    return [f"{row.source} to {row.target}, {row.service}: expected {row.expected}" for row in rows]


def test_the_kernel_does_what_the_policy_says(
    truck: Truck, firewall: Firewall, count: Callable[[int, int], int]
) -> None:
    for seed in range(count(5, 100)):
        drawn = Drawn(seed)
        with inside(truck.netns("router")):
            firewall.apply(wired(drawn.config, drawn.names), NOW, drawn.members)
        rows = expected(drawn.config, drawn.nodes, OUTSIDE, SERVICES)
        measured = measure(rows, entries(truck, drawn.nodes), 0.4)
        wrong = [row for row, result in zip(rows, measured, strict=True) if bool(result) != row.expected]
        assert not wrong, "\n".join([f"seed {seed}", *readable(wrong), drawn.text])
