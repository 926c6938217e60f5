"""A container's namespace in a real kernel: what is seen there, and its gateway while addresses change places."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from leasebroker.netns import GoneError, apply, look, own_macs
from leasebroker.plan import (
    AddAddress,
    Address,
    Link,
    Operation,
    Promote,
    RemoveAddress,
    RemoveDetour,
    Route,
    SetDefault,
    SetDetour,
    SetMac,
    SetMtu,
    View,
)
from tests.lab import netns
from tests.lab.inside import inside

DOCKER, LEASE = 0x0A0001F0, 0x0A000164
"""10.0.1.240 and 10.0.1.100"""
_ERROR = 2
GET_ROUTE = struct.pack("IHHII", 36, 26, 1, 0, 0) + struct.pack(
    "BBBBBBBBIHH4s", 2, 32, *[0] * 7, 8, 1, bytes([10, 0, 1, 1])
)
"""RTM_GETROUTE for 10.0.1.1, as an engine asks before it sets the default route."""


@pytest.fixture
def namespace(needs_root: None) -> Iterator[str]:
    """A container's namespace: eth0 with the address that Docker gave, and no default route yet."""
    del needs_root
    name = f"{netns.prefix(os.getpid())}1-space"
    netns.batch([f"netns add {name}"])
    netns.batch(["link add eth0 type veth peer name far", "link set far up", "link set eth0 up"], name)
    netns.batch(["addr add 10.0.1.240/24 dev eth0"], name)
    yield name
    netns.delete([name])


def test_the_gateway_is_never_out_of_reach_while_addresses_change_places(namespace: str) -> None:
    """An engine that finds no route to it at that moment fails the start of the container."""
    with inside(namespace):
        index = socket.if_nametoindex("eth0")
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        failures: list[str] = []
        asked = 0
        done = threading.Event()

        def ask() -> None:
            nonlocal asked
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as one:
                while not done.is_set():
                    one.send(GET_ROUTE)
                    kind, _, _, _, code = struct.unpack_from("HHIIi", one.recv(4096), 4)
                    asked += 1
                    failures.extend([os.strerror(-code)] if kind == _ERROR else [])

        asking = threading.Thread(target=ask)
        asking.start()
        first, second = DOCKER, LEASE
        try:
            for _ in range(300):
                ahead, behind = Address(index, first, 24, "eth0"), Address(index, second, 24, "eth0:lw")
                swap: list[Operation] = [AddAddress(behind), Promote(index), RemoveAddress(ahead), AddAddress(ahead)]
                apply(descriptor, swap)
                apply(descriptor, [RemoveAddress(ahead)])
                first, second = second, first
            view = look(descriptor)
        finally:
            done.set()
            asking.join()
            os.close(descriptor)
    assert asked > 1000
    assert not failures, f"{len(failures)} of {asked}: {set(failures)}"
    assert [address.address for address in view.addresses if address.ifindex == index] == [first]
    assert printed(namespace, "ip -4 route") == ["10.0.1.0/24 dev eth0 proto kernel scope link src 10.0.1.240"]


THINGS = """
link add br7 type bridge
link set br7 mtu 1400 up
link set br7 alias "lanward, was 02:00:00:00:00:07"
link add eth1 address 02:00:00:00:00:08 type veth peer name far1
addr add 10.0.1.100/24 dev eth0 label eth0:lw
addr add 10.0.2.7 peer 10.0.3.8/24 dev br7
addr add 10.9.9.9/32 dev lo
route add default via 10.0.1.1 dev eth0
route add default via 10.0.1.2 dev eth0 src 10.0.1.100 metric 70000
route add default dev br7 metric 7
route add default via 10.0.1.3 dev eth0 src 10.0.1.100 table 27767
route add default via 10.0.1.4 dev eth0 table 77
route add blackhole default metric 9
route add 10.7.0.0/16 via 10.0.1.1
"""
RULES = "rule add priority 30000 table main suppress_prefixlength 0", "rule add priority 30001 table 27767"


@pytest.mark.parametrize("rules", [(), RULES[:1], RULES], ids=["no rules", "half of the rules", "the rules"])
def test_a_look_is_what_pyroute2_shows(namespace: str, rules: tuple[str, ...]) -> None:
    netns.batch([*THINGS.strip().splitlines(), *rules], namespace)
    with inside(namespace):
        (Path("/proc/sys/net/ipv4/conf/eth1") / "promote_secondaries").write_text("1")
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            view = look(descriptor)
            shown = shown_by_pyroute2()
        finally:
            os.close(descriptor)
        assert view == shown
        assert {link.name: link.promotes for link in view.links}["eth1"]
        assert bytes.fromhex("020000000007") in own_macs()
    assert len(view.links) == 6
    assert len(view.addresses) == 4
    assert len(view.defaults) == 3
    assert (view.detour is not None, view.is_detour_left) == (len(rules) == len(RULES), True)


def shown_by_pyroute2() -> View:
    with IPRoute() as kernel:
        links = [one for one in kernel.get_links() if one.get("IFLA_ADDRESS")]
        addresses = list(kernel.get_addr(family=socket.AF_INET))
        routes = [one for one in kernel.get_routes(family=socket.AF_INET, type=1) if not one["dst_len"]]
        rules = {one.get("FRA_PRIORITY") for one in kernel.get_rules(family=socket.AF_INET)}
    main, ours = ([_route(one) for one in routes if one.get("RTA_TABLE") == table] for table in (254, 27767))
    wanted = {30000, 30001}
    return View(
        tuple(_link(one) for one in links),
        tuple(_address(one) for one in addresses),
        tuple(main),
        ours[0] if ours and wanted <= rules else None,
        bool(ours or wanted & rules),
    )


def _link(one: Any) -> Link:
    mac = bytes.fromhex(one.get("IFLA_ADDRESS").replace(":", ""))
    promotes = bool(one.get("IFLA_AF_SPEC").get("AF_INET").get("promote_secondaries"))
    return Link(one["index"], one.get("IFLA_IFNAME"), mac, one.get("IFLA_MTU"), bool(one["flags"] & 1), promotes)


def _address(one: Any) -> Address:
    address = int(IPv4Address(one.get("IFA_LOCAL") or one.get("IFA_ADDRESS")))
    return Address(one["index"], address, one["prefixlen"], one.get("IFA_LABEL") or "")


def _route(one: Any) -> Route:
    gateway, source = (int(IPv4Address(one.get(name) or "0.0.0.0")) for name in ("RTA_GATEWAY", "RTA_PREFSRC"))
    return Route(one.get("RTA_OIF") or 0, gateway, source, one.get("RTA_PRIORITY") or 0)


def test_what_is_done_is_what_iproute2_shows(namespace: str) -> None:
    """Each twice: a router that died may have done it already."""

    def shown(command: str) -> str:
        return " ".join(printed(namespace, command))

    with inside(namespace):
        eth0 = socket.if_nametoindex("eth0")
        before = bytes.fromhex(Path("/sys/class/net/eth0/address").read_text().strip().replace(":", ""))
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    gateway, mac = 0x0A000101, bytes.fromhex("02000000000a")
    lease = Address(eth0, LEASE, 24, "eth0:lw")
    detour = SetDetour(Route(eth0, gateway, LEASE))
    way = "default via 10.0.1.1 dev eth0 proto dhcp src 10.0.1.100"
    rules = "30000: from all lookup main suppress_prefixlength 0 30001: from all lookup 27767 32766:"
    done: list[tuple[Operation, str, str]] = [
        (SetMtu(eth0, 1400), "ip link show eth0", "mtu 1400"),
        (SetMac(eth0, before, mac), "ip link show eth0", "link/ether 02:00:00:00:00:0a"),
        (SetMac(eth0, before, mac), "ip link show eth0", f"alias lanward, was {before.hex(':')}"),
        (Promote(eth0), "cat /proc/sys/net/ipv4/conf/eth0/promote_secondaries", "1"),
        (AddAddress(lease), "ip addr", "inet 10.0.1.100/24 brd 10.0.1.255 scope global secondary eth0:lw"),
        (SetDefault(Route(eth0, gateway, LEASE)), "ip route", way),
        (detour, "ip route show table 27767", way),
        (detour, "ip rule", rules),
    ]
    try:
        for operation, command, text in done:
            for _ in range(2):
                apply(descriptor, [operation])
            assert text in shown(command)
        apply(descriptor, [RemoveDetour(), RemoveDetour()])
        assert "27767" not in shown("ip rule")
        assert not look(descriptor).is_detour_left
        apply(descriptor, [RemoveAddress(Address(eth0, DOCKER, 24, "eth0"))])
        assert shown("ip route") == f"{way} 10.0.1.0/24 dev eth0 proto kernel scope link src 10.0.1.100"
        with pytest.raises(GoneError, match="Cannot assign requested address"):
            apply(descriptor, [RemoveAddress(Address(eth0, DOCKER, 24, "eth0"))])
        with pytest.raises(GoneError, match="No such device"):
            apply(descriptor, [AddAddress(lease._replace(ifindex=999))])
    finally:
        os.close(descriptor)


def printed(namespace: str, command: str) -> list[str]:
    """The lines that a command prints in a namespace."""
    done = subprocess.run([*netns.enter(namespace), *command.split()], capture_output=True, text=True, check=True)
    return [" ".join(line.split()) for line in done.stdout.splitlines()]
