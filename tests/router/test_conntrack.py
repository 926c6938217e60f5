"""Connections that the rules have no place for any more: which they are, and that the kernel ends them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import cast

import pytest

from dhcpd.decision import Note
from dhcpd.engine import Engine
from dhcpd.server import Server
from dhcpd.settings import Scope
from router import conntrack
from router.config import Config
from router.conntrack import Connection, Landing, has_moved, trespasses
from router.forwarding import Forwarding
from router.settings import Ports
from router.sysctls import prepare
from tests.lab.routed import ADDRESSES, WAN_ADDRESS, Routed, heard, last
from tests.router.test_rules import allow, configuration

PORT = 9000
VLANS = [IPv4Network("10.0.1.0/24"), IPv4Network("10.0.2.0/24")]
OUTSIDE = "198.51.100.9"


def publish(target: str, port: str = f"udp/{PORT}") -> str:
    return f'[[publish]]\nport = "{port}"\nto = "{target}"\n'


def ip(text: str) -> int:
    return int(IPv4Address(text))


def connection(source: str, target: str, *, port: int = PORT, to_port: int = PORT, published: bool) -> Connection:
    return Connection("udp", ip(source), port, ip(target), to_port, published)


HERE, THERE = Landing(Ports("udp", 9000, 9009), ip("10.0.1.20"), 80), Landing(Ports("udp", 9000, 9009), 7, 80)


@pytest.mark.parametrize(
    ("now", "port", "to_port", "target", "moved"),
    [
        (set(), 9003, 83, "10.0.1.20", True),
        ({THERE}, 9003, 83, "10.0.1.20", True),
        ({HERE}, 9003, 83, "10.0.1.20", False),
        ({Landing(Ports("udp", 9003, 9003), ip("10.0.1.20"), 83)}, 9003, 83, "10.0.1.20", False),
        (set(), 9010, 90, "10.0.1.20", False),
        (set(), 9003, 84, "10.0.1.20", False),
        (set(), 9003, 83, "10.0.1.21", False),
    ],
)
def test_what_has_moved(now: set[Landing], port: int, to_port: int, target: str, *, moved: bool) -> None:
    one = connection(OUTSIDE, target, port=port, to_port=to_port, published=True)
    assert has_moved(frozenset({HERE}), frozenset(now), one) is moved
    assert not has_moved(frozenset({HERE}), frozenset(now), one._replace(is_published=False))
    assert not has_moved(frozenset({HERE}), frozenset(now), one._replace(protocol="tcp"))


@pytest.mark.parametrize(
    ("source", "target", "published", "trespassing"),
    [
        ("10.0.1.20", "10.0.2.20", False, True),
        ("10.0.1.20", "10.0.2.1", False, True),
        (OUTSIDE, "10.0.2.20", False, True),
        (OUTSIDE, "10.0.2.20", True, False),
        ("10.0.1.20", "10.0.1.1", False, False),
        ("10.0.1.20", OUTSIDE, False, False),
        ("172.17.0.2", OUTSIDE, False, False),
    ],
)
def test_who_trespasses(source: str, target: str, *, published: bool, trespassing: bool) -> None:
    assert trespasses(VLANS, connection(source, target, published=published)) is trespassing


def server(scope: Scope) -> Server:
    link = SimpleNamespace(interface=f"leg{scope.name[-1]}", is_there=lambda: True)
    return cast(Server, SimpleNamespace(link=link, engine=Engine(scope, [], 0.0)))


class Router:
    """The forwarding of the router in its kernel, and what it logs."""

    def __init__(self, nodes: Routed) -> None:
        self.nodes = nodes
        self.notes: list[Note] = []
        self.forwarding = Forwarding(self.notes.append)
        self._servers = {vlan.scope.name: server(vlan.scope) for vlan in configuration(2).vlans}

    def has(self, *more: str) -> None:
        self.watch(configuration(2, "".join(more)))

    def watch(self, config: Config) -> None:
        with self.nodes.on("router"):
            self.forwarding.watch(config, self._servers, 0.0)
        assert self.forwarding.error is None

    def ended(self) -> list[int]:
        return [note.fields["connections"] for note in self.notes if note.event == "connections_ended"]


@pytest.fixture
def router(nodes: Routed) -> Iterator[Router]:
    with nodes.on("router"):
        assert prepare(["leg1", "leg2"], "wan") == []
        made = Router(nodes)
    yield made
    made.forwarding.close()
    nodes.close()
    nodes.truck.run("router", "nft", "flush", "ruleset")


def test_a_connection_follows_what_is_published(nodes: Routed, router: Router) -> None:
    before, after = nodes.udp("device1", port=PORT), nodes.udp("container1", port=PORT)
    client, other = nodes.udp("internet"), nodes.udp("internet")
    elsewhere = publish(ADDRESSES["device2"], "udp/9001")
    beside = nodes.udp("device2", port=9001)
    router.has(publish(ADDRESSES["device1"]), elsewhere)
    client.sendto(b"first", (WAN_ADDRESS, PORT))
    other.sendto(b"beside", (WAN_ADDRESS, 9001))
    assert (before.recv(100), beside.recv(100)) == (b"first", b"beside")
    router.has(publish(ADDRESSES["container1"]), elsewhere)
    client.sendto(b"second", (WAN_ADDRESS, PORT))
    assert after.recv(100) == b"second"
    assert router.ended() == [1]


def test_a_connection_ends_with_what_was_published(nodes: Routed, router: Router) -> None:
    listener, client = nodes.udp("device1", port=PORT), nodes.udp("internet")
    router.has(publish(ADDRESSES["device1"]))
    client.sendto(b"first", (WAN_ADDRESS, PORT))
    assert listener.recv(100) == b"first"
    router.has()
    client.sendto(b"second", (WAN_ADDRESS, PORT))
    last(nodes.udp("container1"), ADDRESSES["device1"], PORT)
    assert heard(listener) == []
    assert router.ended() == [1]


def remove_rules(nodes: Routed) -> None:
    """As somebody else does; another table, as Docker has, keeps the kernel tracking connections."""
    for what in (
        "add table ip other",
        "add chain ip other forward { type filter hook forward priority 10 ; }",
        "add rule ip other forward ct state established accept",
        "delete table inet lanward",
    ):
        nodes.truck.run("router", "nft", *what.split())


def test_what_began_while_the_rules_were_gone_ends_when_they_are_back(nodes: Routed, router: Router) -> None:
    forbidden, allowed = nodes.udp("device2", port=PORT), nodes.udp("device2", port=PORT + 1)
    client = nodes.udp("device1")
    config = configuration(2, allow("vlan1", "vlan2", f"udp/{PORT + 1}"))
    router.watch(config)
    remove_rules(nodes)
    client.sendto(b"forbidden", (ADDRESSES["device2"], PORT))
    client.sendto(b"allowed", (ADDRESSES["device2"], PORT + 1))
    assert (forbidden.recv(100), allowed.recv(100)) == (b"forbidden", b"allowed")
    forbidden.sendto(b"answer", (ADDRESSES["device1"], client.getsockname()[1]))
    assert client.recv(100) == b"answer"
    router.watch(config)
    assert router.forwarding.status()["repairs"] == 1
    client.sendto(b"forbidden", (ADDRESSES["device2"], PORT))
    client.sendto(b"allowed", (ADDRESSES["device2"], PORT + 1))
    assert allowed.recv(100) == b"allowed"
    last(nodes.udp("container2"), ADDRESSES["device2"], PORT)
    assert heard(forbidden) == []


def test_what_is_in_the_kernel_is_read_as_it_is(nodes: Routed, router: Router) -> None:
    listener, client = nodes.udp("device1", port=80), nodes.udp("internet")
    router.has(publish(ADDRESSES["device1"]) + "to_port = 80\n")
    client.sendto(b"first", (WAN_ADDRESS, PORT))
    listener.recv(100)
    wanted = Connection("udp", ip("203.0.113.1"), PORT, ip(ADDRESSES["device1"]), 80, is_published=True)
    with nodes.on("router"):
        assert conntrack.end(lambda one: one == wanted) == 1
        assert conntrack.end(lambda one: one == wanted) == 0


def test_a_kernel_that_does_not_tell_is_a_warning(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    router.has(publish(ADDRESSES["device1"]))

    def refuse(*_: object) -> None:
        raise OSError(93, "Protocol not supported")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", refuse)
        router.has()
    assert [note.event for note in router.notes][-1] == "connections_not_ended"
