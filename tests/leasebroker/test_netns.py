"""The gateway of a container while its addresses change places, in a real kernel."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator

import pytest

from leasebroker.netns import apply, look
from leasebroker.plan import AddAddress, Address, Operation, Promote, RemoveAddress
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
    assert netns_routes(namespace) == ["10.0.1.0/24 dev eth0 proto kernel scope link src 10.0.1.240"]


def netns_routes(namespace: str) -> list[str]:
    """What the main table of a namespace has."""
    shown = subprocess.run([*netns.enter(namespace), "ip", "-4", "route"], capture_output=True, text=True, check=True)
    return [line.strip() for line in shown.stdout.splitlines()]
