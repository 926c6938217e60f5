"""The rules in a real kernel, on the virtual truck: what passes, and what does not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from itertools import product
from pathlib import Path

import pytest

from router.firewall import Firewall, has_flowtables
from router.probe import _checksum
from tests.lab.routed import ADDRESSES, DEADLINE, INTERNET, WAN_ADDRESS, Routed, heard, last
from tests.router.cases import FOLDER, Case
from tests.router.conftest import Enforce
from tests.router.test_rules import allow, configuration

PATH_MTU = 1300
PORT = 5000


def publish(port: str, target: str, to_port: int) -> str:
    return f'[[publish]]\nport = "{port}"\nto = "{target}"\nto_port = {to_port}\n'


def waiting(listener: socket.socket) -> bool:
    """Whether a datagram is there already."""
    listener.setblocking(False)
    with suppress(BlockingIOError):
        return bool(listener.recv(100))
    return False


def icmp_error(source: str, source_port: int, target: str, target_port: int) -> bytes:
    """The ICMP message that a port is unreachable (RFC 792), about a UDP datagram from `source` to `target`."""
    ends = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH8s", 0x45, 0, 28, 1, 0, 64, socket.IPPROTO_UDP, 0, ends)
    about = head + struct.pack("!HHHH", source_port, target_port, 8, 0)
    return summed(struct.pack("!BBHI", 3, 3, 0, 0) + about)


def igmp(kind: int, code: int, group: str) -> bytes:
    """A message of version 2 (RFC 2236 section 2)."""
    return summed(struct.pack("!BBH4s", kind, code, 0, IPv4Address(group).packed))


def igmp_query() -> bytes:
    """A general query to be answered within a tenth of a second, from a switch without an address in the VLAN (RFC
    4541 section 2.1.1)."""
    ends = bytes(4) + IPv4Address("224.0.0.1").packed
    head = struct.pack("!BBHHHBBH8s", 0x45, 0, 28, 1, 0, 1, socket.IPPROTO_IGMP, 0, ends)
    return summed(head, 10) + igmp(0x11, 1, "0.0.0.0")


def summed(data: bytes, at: int = 2) -> bytes:
    """`data` with its checksum, which is still 0."""
    return data[:at] + struct.pack("!H", _checksum(data)) + data[at + 2 :]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_kernel_takes_a_golden_case(path: Path, nodes: Routed, firewall: Firewall) -> None:
    case = Case.read(path)
    if "offload" in case.nodes:
        case = Case(case.intent, case.configuration, "", "")
    with nodes.on("router"):
        firewall.check(case.rules(), 0.0)


def test_the_table_of_who_reaches_whom(nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(2))
    routers = {"10.0.1.1", "10.0.2.1"}
    pairs = [(node, address) for node, own in ADDRESSES.items() for address in {*ADDRESSES.values(), *routers} - {own}]
    expected = {(node, to): ADDRESSES[node].split(".")[2] == to.split(".")[2] for node, to in pairs}
    expected |= {(node, INTERNET): True for node in ADDRESSES}
    expected |= {("router", address): True for address in [*ADDRESSES.values(), INTERNET]}
    expected |= {(node, WAN_ADDRESS): False for node in ADDRESSES}
    expected |= {("internet", WAN_ADDRESS): False, ("device1", "10.0.1.255"): True, ("device1", "10.0.2.255"): False}
    assert nodes.pings(expected) == expected


def test_what_the_wan_sends_reaches_only_what_is_published(nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(2, publish("tcp/8080", "vlan1/device1", 80) + publish("udp/9000-9010", "10.0.1.30", 9000)))
    nodes.ip("internet", "route replace 10.0.0.0/8 via 203.0.113.2")
    nodes.listen("device1", 80)
    listener = nodes.udp("container1", port=9003)
    last(nodes.udp("internet"), WAN_ADDRESS, 9003)
    assert heard(listener) == []
    assert nodes.connects("internet", WAN_ADDRESS, 8080)
    assert not nodes.connects("internet", WAN_ADDRESS, 80)
    assert not nodes.connects("internet", ADDRESSES["device1"], 80)


@pytest.fixture
def other(nodes: Routed) -> Iterator[socket.socket]:
    """A socket of device2 that sends by an interface of the router that is neither a leg nor the WAN."""
    cable = f"link add other type veth peer name other netns {nodes.truck.netns('device2')}"
    nodes.ip("router", cable, "addr add 172.17.0.1/16 dev other", "link set other up")
    there = [f"route add {address} via 172.17.0.1" for address in (INTERNET, ADDRESSES["device1"])]
    nodes.ip("device2", "addr add 172.17.0.2/16 dev other", "link set other up", *there)
    yield nodes.udp("device2", "172.17.0.2")
    nodes.ip("router", "link del other")


def test_what_comes_from_neither_a_leg_nor_the_wan_is_not_forwarded(
    nodes: Routed, enforce: Enforce, other: socket.socket
) -> None:
    enforce(configuration(2))
    internet, device = nodes.udp("internet", port=PORT), nodes.udp("device1", port=PORT)
    behind = nodes.udp("router", port=PORT)
    for address in (INTERNET, ADDRESSES["device1"]):
        other.sendto(b"other", (address, PORT))
    last(other, "172.17.0.1", PORT)
    assert heard(behind) == []
    last(device, INTERNET, PORT)
    last(behind, ADDRESSES["device1"], PORT)
    assert [heard(internet), heard(device)] == [[], []]


def test_a_published_port_follows_its_node(nodes: Routed, enforce: Enforce) -> None:
    config = configuration(1, publish("udp/9000", "vlan1/web", PORT))
    first, second = nodes.udp("device1", port=PORT), nodes.udp("container1", port=PORT)
    for node, listener in (("device1", first), ("container1", second)):
        enforce(config, {("vlan1", "web"): ADDRESSES[node]})
        last(nodes.udp("internet"), WAN_ADDRESS, 9000)
        assert heard(listener) == []


@pytest.mark.parametrize(
    ("source", "target"),
    [("vlan1", "vlan2"), ("vlan1", "10.0.2.30"), ("vlan1/device1", "vlan2"), ("10.0.1.20", "10.0.2.30")],
)
def test_an_exception_opens_its_ports_one_way_with_replies(
    source: str, target: str, nodes: Routed, enforce: Enforce
) -> None:
    enforce(configuration(2, allow(source, target, "udp/5000-5001", "icmp")))
    client, server = nodes.udp("device1"), nodes.udp("container2", port=PORT)
    address = (ADDRESSES["device1"], client.getsockname()[1])
    closed = nodes.udp("container2", port=PORT + 2)
    client.sendto(b"ask", (ADDRESSES["container2"], PORT + 2))
    server.sendto(b"unasked", address)
    client.sendto(b"ask", (ADDRESSES["container2"], PORT))
    assert server.recv(100) == b"ask"
    server.sendto(b"answer", address)
    assert client.recv(100) == b"answer"
    assert not waiting(closed)
    there_and_back = {("device1", ADDRESSES["container2"]): True, ("container2", ADDRESSES["device1"]): False}
    assert nodes.pings(there_and_back) == there_and_back


def test_an_exception_for_a_vlan_does_not_open_the_routers_address_in_it(nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(2, allow("vlan1", "vlan2")))
    expected = {("device1", ADDRESSES["device2"]): True, ("device1", "10.0.2.1"): False}
    assert nodes.pings(expected) == expected


def test_the_router_is_open_where_the_configuration_says(nodes: Routed, enforce: Enforce) -> None:
    more = allow("vlan1/device1", "router", "tcp/22") + allow("wan", "router", "tcp/443")
    enforce(configuration(2, more, settings='router_ports = ["tcp/53"]'))
    for port in (22, 53, 80, 443):
        nodes.listen("router", port)
    tried = product(["device1", "container1", "internet"], [22, 53, 80, 443])
    addresses = {"internet": WAN_ADDRESS}
    opened = {(n, port) for n, port in tried if nodes.connects(n, addresses.get(n, "10.0.1.1"), port)}
    assert opened == {("device1", 22), ("device1", 53), ("container1", 53), ("internet", 443)}


def test_an_uplink_that_is_not_known_is_closed(nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(2, allow("wan", "router", "tcp/443")), uplink=None)
    for port in (80, 443):
        nodes.listen("router", port)
        nodes.listen("internet", port)
    tried = product([("internet", WAN_ADDRESS), ("router", INTERNET), ("router", "127.0.0.1")], [80, 443])
    opened = [(node, port) for (node, address), port in tried if nodes.connects(node, address, port)]
    assert opened == [("internet", 443), *[("router", 80), ("router", 443)] * 2]


def test_only_encrypted_protocols_leave_a_vlan_that_says_so(nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(2, allow("vlan1/device1", "wan", "tcp/80"), settings="encrypted_only = true"))
    for port in (80, 443):
        nodes.listen("internet", port)
    opened = [(n, p) for n, p in product(["device1", "device2"], [80, 443]) if nodes.connects(n, INTERNET, p)]
    assert opened == [("device1", 80), ("device1", 443), ("device2", 443)]
    assert nodes.pings([("device2", INTERNET)]) == {("device2", INTERNET): True}


@pytest.mark.parametrize("spoofed", ["10.0.2.77", "192.0.2.1", "203.0.113.77"])
def test_a_source_that_is_not_of_the_vlan_goes_nowhere(spoofed: str, nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(2, allow("vlan2", "vlan1")))
    nodes.ip("container1", f"addr add {spoofed}/32 dev eth0")
    outside, inside = nodes.udp("internet", port=PORT), nodes.udp("device1", port=PORT)
    liar, honest = nodes.udp("container1", spoofed), nodes.udp("container1", ADDRESSES["container1"])
    liar.sendto(b"spoofed", (INTERNET, PORT))
    last(honest, INTERNET, PORT)
    assert heard(outside) == []
    last(honest, ADDRESSES["device1"], PORT)
    assert heard(inside) == []
    nodes.ip("container1", f"addr del {spoofed}/32 dev eth0")


def test_a_spoofed_source_cannot_enter_the_connection_of_another(nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(2))
    listener, client = nodes.udp("internet", port=PORT), nodes.udp("device1", port=PORT)
    client.sendto(b"first", (INTERNET, PORT))
    nodes.ip("container2", f"addr add {ADDRESSES['device1']}/32 dev eth0")
    nodes.udp("container2", ADDRESSES["device1"], PORT).sendto(b"spoofed", (INTERNET, PORT))
    last(client, INTERNET, PORT)
    assert heard(listener) == [b"first"]
    nodes.ip("container2", f"addr del {ADDRESSES['device1']}/32 dev eth0")


@pytest.mark.parametrize(
    ("liar", "source", "target"),
    [("device1", WAN_ADDRESS, INTERNET), ("internet", ADDRESSES["device2"], ADDRESSES["device1"])],
)
def test_an_icmp_error_about_a_connection_of_others_goes_nowhere(
    liar: str, source: str, target: str, nodes: Routed, enforce: Enforce
) -> None:
    """What is masqueraded keeps its port, so its two ends can be guessed."""
    enforce(configuration(2, allow("vlan2", "vlan1")))
    nodes.ip("internet", "route replace 10.0.0.0/8 via 203.0.113.2")
    client = nodes.udp("device2", port=PORT + 1)
    server = nodes.udp("internet" if target == INTERNET else "device1", target, PORT)
    client.connect((target, PORT))
    client.send(b"ask")
    _, answered = server.recvfrom(100)
    with nodes.on(liar), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.sendto(icmp_error(source, PORT + 1, target, PORT), (source, 0))
    one, other = nodes.udp("device1"), nodes.udp("internet", INTERNET, PORT + 2)
    one.sendto(b"behind it", (INTERNET, PORT + 2))
    other.sendto(*other.recvfrom(100))
    assert one.recv(100) == b"behind it"
    server.sendto(b"answer", answered)
    assert client.recv(100) == b"answer"


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("device1", ADDRESSES["device2"]),
        ("device1", INTERNET),
        ("internet", WAN_ADDRESS),
        ("device1", "10.0.1.1"),
        ("router", ADDRESSES["device1"]),
        ("router", INTERNET),
    ],
)
def test_an_icmp_error_reaches_who_asked(source: str, address: str, nodes: Routed, enforce: Enforce) -> None:
    more = allow("vlan1", "vlan2", f"udp/{PORT}") + publish(f"udp/{PORT}", "vlan1/device1", PORT)
    enforce(configuration(2, more, settings=f'router_ports = ["udp/{PORT}"]'))
    client = nodes.udp(source)
    client.connect((address, PORT))
    client.send(b"nobody listens")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)


def test_the_path_mtu_is_found_and_segments_are_clamped(nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(1))
    nodes.ip("router", f"link set wan mtu {PATH_MTU}")
    client = nodes.udp("container1")
    client.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    client.connect((INTERNET, PORT))
    listener = nodes.listen("internet", 443)
    assert nodes.connects("container1", INTERNET, 443, DEADLINE)
    accepted, _ = listener.accept()
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= PATH_MTU - 40
    accepted.close()
    client.send(bytes(1400))
    with pytest.raises(OSError, match="Message too long"):
        _send_until_refused(client, bytes(1400))
    assert client.getsockopt(socket.IPPROTO_IP, 14) == PATH_MTU  # IP_MTU
    nodes.ip("router", "link set wan mtu 1500")


def _send_until_refused(client: socket.socket, data: bytes) -> None:
    client.settimeout(0.2)
    for _ in range(10):
        client.send(data)
        with suppress(TimeoutError):
            client.recv(1)


def test_an_offloaded_connection_goes_on(nodes: Routed, enforce: Enforce) -> None:
    with nodes.on("router"):
        if not has_flowtables():
            pytest.skip("this kernel has no flowtables")
    enforce(configuration(2), offload=True)
    server, client = nodes.udp("internet", INTERNET, PORT), nodes.udp("device1")
    for number in range(20):
        client.sendto(b"%d" % number, (INTERNET, PORT))
        data, address = server.recvfrom(100)
        server.sendto(data, address)
        assert client.recv(100) == b"%d" % number
    assert "[OFFLOAD]" in nodes.truck.run("router", "cat", "/proc/net/nf_conntrack").stdout


def test_a_relayed_broadcast_is_heard_by_the_router(nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(2, '[[broadcast]]\nname = "gps"\nport = 5000\nfrom = "vlan1"\nto = ["vlan2"]\n'))
    listener = nodes.udp("router", port=PORT)
    for node, address in (("device2", "10.0.2.255"), ("device1", "10.0.1.1"), ("device1", "10.0.1.255")):
        sender = nodes.udp(node)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(b"last" if address == "10.0.1.255" else b"no", (address, PORT))
    assert heard(listener) == []


def test_a_switch_that_snoops_hears_that_the_router_is_a_member(nodes: Routed, enforce: Enforce) -> None:
    group, router = "239.1.2.3", IPv4Address("10.0.1.1").packed
    broadcast = f'[[broadcast]]\nname = "m"\nport = 5000\ngroup = "{group}"\nfrom = "vlan1"\nto = ["vlan2"]\n'
    enforce(configuration(2, broadcast))
    member = nodes.udp("router")
    member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, IPv4Address(group).packed + router)
    with nodes.on("device1"):
        switch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    with switch:
        switch.settimeout(DEADLINE)
        switch.sendto(igmp_query(), ("eth0", 0x0800, 0, 0, bytes.fromhex("01005e000001")))
        while (packet := switch.recv(2048))[12:16] != router or not packet.endswith(igmp(0x16, 0, group)):
            pass
