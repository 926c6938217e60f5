"""A truck of nine VLANs, and broadcasts on it: what is sent, and what each node hears."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from struct import unpack_from

from router.relay import Leg, Relay
from tests.lab.plan import Container, Plan, Vlan, two_vlans
from tests.lab.routed import Routed

VLANS = 9
PORT, OTHER_PORT = 10110, 10111
LIMITED = "255.255.255.255"
END = b"end"
ALL_OTHERS = [f"vlan{n}" for n in range(2, VLANS + 1)]
RATE = 1000
"""Datagrams a second."""
IP_PKTINFO, IP_RECVTTL, SO_RCVBUFFORCE = 8, 12, 33
BUFFER = 128 << 20

Heard = tuple[bytes, str, str, int]
"""Payload, source address, destination address, time to live."""
Setup = Callable[..., Relay]
Count = Callable[[int, int], int]


def plan() -> Plan:
    """node1 to node9, one in each VLAN, and `twin`, a node of vlan1 that can get a leg in vlan2."""
    vlans = tuple(
        Vlan(f"vlan{n}", n, IPv4Network(f"10.0.{n}.0/24"), IPv4Address(f"10.0.{n}.1"), f"br{n}")
        for n in range(1, VLANS + 1)
    )
    nodes = [Container(f"node{vlan.tag}", vlan.name, f"02:00:00:01:{vlan.tag:02x}:01") for vlan in vlans]
    return Plan(vlans, two_vlans().wan, (), (*nodes, Container("twin", "vlan1", "02:00:00:01:01:02")))


def nft(nodes: Routed, script: str) -> None:
    done = nodes.truck.run("router", "nft", script)
    assert done.returncode == 0, done.stderr


def host(nodes: Routed) -> str:
    return nodes.truck.netns("host")


def legs(count: int = VLANS) -> dict[str, Leg]:
    return {
        f"vlan{n}": Leg(f"leg{n}", IPv4Network(f"10.0.{n}.0/24"), int(IPv4Address(f"10.0.{n}.1")))
        for n in range(1, count + 1)
    }


def sender(nodes: Routed, node: str, address: str = "0.0.0.0", leg: str = "") -> socket.socket:
    one = nodes.udp(node, address)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if leg:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, leg.encode())
    return one


def listener(nodes: Routed, node: str, group: int | None = None) -> socket.socket:
    one = nodes.udp(node, port=PORT)
    one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    one.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    one.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    if group is not None:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group.to_bytes(4, "big") + bytes(4))
    return one


def listeners(nodes: Routed, count: int, group: int | None = None) -> dict[str, socket.socket]:
    """On node1 to node`count`."""
    return {f"node{n}": listener(nodes, f"node{n}", group) for n in range(1, count + 1)}


def read(one: socket.socket) -> Heard:
    payload, controls, _, (source, _) = one.recvmsg(65535, 256)
    found = {kind: data for level, kind, data in controls if level == socket.IPPROTO_IP}
    (ttl,) = unpack_from("=i", found[socket.IP_TTL])
    return payload, source, socket.inet_ntoa(found[IP_PKTINFO][8:12]), ttl


def heard(nodes: Routed, on: dict[str, socket.socket]) -> dict[str, list[Heard]]:
    """What each node got until now. The router ends it with a datagram to the node's own address, which stands in the
    same queues as everything before."""
    end = nodes.udp("router")
    for node in on:
        end.sendto(END, (f"10.0.{node.removeprefix('node')}.20", PORT))
    return {node: list(until_end(one)) for node, one in on.items()}


def until_end(one: socket.socket) -> Iterator[Heard]:
    while (datagram := read(one))[0] != END:
        yield datagram


def payloads(nodes: Routed, on: dict[str, socket.socket]) -> list[list[bytes]]:
    """By node, in order."""
    return [[datagram[0] for datagram in got] for got in heard(nodes, on).values()]


def numbered(index: int) -> bytes:
    return index.to_bytes(4, "big").ljust(200)


def send(one: socket.socket, number: int) -> float:
    """The seconds of processor time that it took, user and system. Datagrams leave in bursts of 10, `RATE` a second."""
    before, started = time.thread_time(), time.monotonic()
    for index in range(number):
        one.sendto(numbered(index), (LIMITED, PORT))
        if index % 10 == 9:
            time.sleep(max(0.0, started + (index + 1) / RATE - time.monotonic()))
    return time.thread_time() - before
