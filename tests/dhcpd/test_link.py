"""Interfaces and their sockets, in a network namespace of their own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from dhcpd.link import Link, LinkError, find_interface
from dhcpd.wire import BROADCAST, BROADCAST_MAC, udp_frame
from tests.lab import netns
from tests.wire.segment import inside

WIRES = [
    "link add leg1 type veth peer name lan1",
    "address add 10.1.0.1/16 dev leg1",
    "link set leg1 up",
    "link set lan1 up",
]


@contextmanager
def wire() -> Iterator[socket.socket]:
    """The other end of leg1."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as one:
        one.bind(("lan1", 0))
        yield one


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def here() -> Iterator[str]:
    """A namespace with leg1 (10.1.0.1/16) joined to lan1; the test runs inside it."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    name = f"{netns.prefix(os.getpid())}0-link"
    netns.batch([f"netns add {name}"])
    netns.batch(WIRES, name)
    with inside(name):
        yield name
    netns.delete([name])


def test_an_interface_is_found_by_its_subnet(here: str) -> None:
    assert find_interface(IPv4Network("10.1.0.0/16")) == "leg1"
    with pytest.raises(LinkError, match=r"no interface has an address in 10\.1\.0\.0/24"):
        find_interface(IPv4Network("10.1.0.0/24"))
    netns.batch(["address add 10.1.0.2/16 dev lan1"], here)
    with pytest.raises(LinkError, match="lan1, leg1 all have an address"):
        find_interface(IPv4Network("10.1.0.0/16"))


def test_a_route_through_a_neighbour_is_no_interface(here: str) -> None:
    netns.batch(["route add 10.9.0.0/16 via 10.1.0.9"], here)
    with pytest.raises(LinkError, match="no interface"):
        find_interface(IPv4Network("10.9.0.0/16"))


@pytest.mark.usefixtures("here")
def test_a_missing_interface_is_named() -> None:
    with pytest.raises(LinkError, match="interface eth9 does not exist"):
        Link("eth9")


@pytest.mark.usefixtures("here")
def test_a_taken_port_is_named_and_nothing_stays_open() -> None:
    first = Link("leg1")
    descriptors = open_files()
    with pytest.raises(LinkError, match="port 67 on leg1 is in use"):
        Link("leg1")
    assert open_files() == descriptors
    first.close()
    Link("leg1").close()


def test_a_link_knows_whether_its_interface_is_still_there(here: str) -> None:
    link = Link("leg1")
    assert link.is_there()
    netns.batch(["link set leg1 down"], here)
    assert link.is_there()
    netns.batch(["link set leg1 name other"], here)
    assert not link.is_there()
    netns.batch(["link set other name leg1"], here)
    assert link.is_there()
    netns.batch(["link del leg1", *WIRES], here)
    assert not link.is_there()
    link.close()
    assert not link.is_there()
    assert link.lost_datagrams() == 0


@pytest.mark.usefixtures("here")
def test_datagrams_beyond_the_buffer_are_counted() -> None:
    link = Link("leg1")
    frame = udp_frame(b"\2" * 6, BROADCAST_MAC, 0, BROADCAST, 67, bytes(1400))
    with wire() as lan:
        sent = 0
        while not link.lost_datagrams() and sent < 50_000:
            lan.send(frame)
            sent += 1
    assert 166 < sent < 50_000, "the kernel's default buffer would hold 166"
    link.close()


@pytest.mark.usefixtures("here")
def test_only_arp_replies_reach_the_arp_socket() -> None:
    link = Link("leg1")
    with wire() as lan:
        for operation in (1, 2, 1):
            lan.send(b"\xff" * 6 + b"\2" * 6 + b"\x08\x06\0\1\x08\0\6\4\0" + bytes((operation,)) + bytes(20))
    assert link.arp.recv(100)[21] == 2
    with pytest.raises(BlockingIOError):
        link.arp.recv(100)
    link.close()
