"""A truck whose nodes have fixed addresses, and what they say to each other by UDP, TCP and ping."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from tests.lab import netns
from tests.lab.inside import inside
from tests.lab.plan import Container, Device, two_vlans
from tests.lab.truck import Truck

ADDRESSES = {"device1": "10.0.1.20", "container1": "10.0.1.30", "device2": "10.0.2.20", "container2": "10.0.2.30"}
INTERNET, WAN_ADDRESS = "198.51.100.9", "203.0.113.2"
DEADLINE = 3.0
"""Seconds after which what should have arrived counts as lost."""
_LAST = b"last"


class Routed:
    """The nodes of a built truck, and the sockets made on them."""

    def __init__(self, truck: Truck) -> None:
        self.truck = truck
        self._sockets: list[socket.socket] = []

    def on(self, node: str) -> AbstractContextManager[None]:
        """The block runs on the node."""
        return inside(self.truck.netns(node))

    def ip(self, node: str, *commands: str) -> None:
        netns.batch(commands, self.truck.netns(node))

    def udp(self, node: str, address: str = "0.0.0.0", port: int = 0) -> socket.socket:
        """A UDP socket of the node, bound to `address` and `port`; reading ends after `DEADLINE`."""
        return self._bound(node, socket.SOCK_DGRAM, address, port)

    def listen(self, node: str, port: int) -> socket.socket:
        """A TCP socket of the node that accepts connections."""
        listener = self._bound(node, socket.SOCK_STREAM, "0.0.0.0", port)
        listener.listen()
        return listener

    def connects(self, node: str, address: str, port: int, seconds: float = 0.3) -> bool:
        """Whether a TCP connection is made in this time."""
        one = self._bound(node, socket.SOCK_STREAM, "0.0.0.0", 0)
        one.settimeout(seconds)
        with suppress(TimeoutError):
            one.connect((address, port))
            return True
        return False

    def pings(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bool]:
        """Whether each (node, address) is answered within a second; all are asked at once."""
        asked = {
            (node, address): subprocess.Popen(
                [*self.truck.enter(node), "busybox", "ping", "-c1", "-W1", address], stdout=subprocess.DEVNULL
            )
            for node, address in pairs
        }
        return {pair: process.wait() == 0 for pair, process in asked.items()}

    def close(self) -> None:
        """Close the sockets made so far."""
        while self._sockets:
            self._sockets.pop().close()

    def _bound(self, node: str, kind: socket.SocketKind, address: str, port: int) -> socket.socket:
        with self.on(node):
            one = socket.socket(socket.AF_INET, kind)
        self._sockets.append(one)
        one.settimeout(DEADLINE)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        return one


def heard(listener: socket.socket) -> list[bytes]:
    """What arrived before the datagram that `last` sends, in order."""
    found: list[bytes] = []
    while (datagram := listener.recv(2048)) != _LAST:
        found.append(datagram)
    return found


def last(sender: socket.socket, address: str, port: int) -> None:
    """End what `heard` returns. The sender must be one that is let through."""
    sender.sendto(_LAST, (address, port))


@contextmanager
def routed() -> Iterator[Routed]:
    """The truck of the README, plugged in, with `ADDRESSES`."""
    plan = two_vlans()
    with Truck(plan) as truck:
        nodes = Routed(truck)
        for device in plan.devices:
            truck.plug(device.name)
        placed: list[Device | Container] = [*plan.devices, *plan.containers]
        for node in placed:
            router = plan.vlan(node.vlan).router
            nodes.ip(node.name, f"addr add {ADDRESSES[node.name]}/24 dev eth0", f"route add default via {router}")
        try:
            yield nodes
        finally:
            nodes.close()
