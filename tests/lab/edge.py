"""The whole edge machine: the virtual truck, and on its host a real Docker engine with a network for each VLAN."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

from tests.lab import netns
from tests.lab.engine import Engine
from tests.lab.plan import two_vlans
from tests.lab.service import REPOSITORY
from tests.lab.truck import Truck


class Edge:
    """A built truck without containers and the engine on its host, where the containers are real."""

    def __init__(self, truck: Truck, engine: Engine) -> None:
        self.truck = truck
        self.engine = engine

    def config(self, text: str | None = None) -> str:
        """Return a configuration (the repository's by default) whose [docker] names this engine."""
        text = (REPOSITORY / "lanward.toml").read_text() if text is None else text
        text = re.sub(r"^\[docker\]\n(?:[^\[].*\n?|\n)*", "", text, flags=re.MULTILINE)
        return f'{text}\n[docker]\nsocket = "{self.engine.socket}"\nnetns = "{self.engine.netns}"\n'

    def run(self, name: str, network: str = "br0net", *options: str, command: tuple[str, ...] = ()) -> int:
        """Run a container in the background and return the process id of its first process."""
        return self.engine.run(name, network, *options, command=command)

    def enter(self, node: str) -> list[str]:
        """Return the command prefix that runs a program of this machine in a node's or a container's network."""
        if node in self.truck.plan.nodes:
            return self.truck.enter(node)
        return ["nsenter", f"--net=/proc/{self.engine.pid(node)}/ns/net"]

    def out(self, node: str, *command: str) -> str:
        """Return what a command prints in a node's or a container's network; raise when it fails."""
        return subprocess.run([*self.enter(node), *command], capture_output=True, text=True, check=True).stdout.strip()

    def ping(self, node: str, address: str | IPv4Address, timeout: int = 1) -> bool:
        """Whether `address` answers one echo request of the node or container within `timeout` seconds."""
        ping = [*self.enter(node), "busybox", "ping", "-c1", f"-W{timeout}", str(address)]
        return subprocess.run(ping, capture_output=True, check=False).returncode == 0

    def addresses(self, container: str) -> list[IPv4Interface]:
        """Return the container's IPv4 addresses, as its kernel has them and in its order."""
        shown = self.out(container, "ip", "-4", "-o", "addr", "show", "scope", "global")
        return [IPv4Interface(line.split()[3]) for line in shown.splitlines()]

    def routes(self, container: str) -> list[str]:
        """Return the container's default routes, as `ip route` prints them."""
        return [line.strip() for line in self.out(container, "ip", "-4", "route", "show", "default").splitlines()]

    def place(self, device: str, address: str) -> None:
        """Plug a device in and give it a fixed address with its VLAN's prefix length, and the route by the router."""
        vlan = self.truck.plan.vlan(self.truck.plan.device(device).vlan)
        self.truck.plug(device)
        lines = [f"addr add {address}/{vlan.subnet.prefixlen} dev eth0", f"route add default via {vlan.router}"]
        netns.batch(lines, self.truck.netns(device))

    def networks(self) -> None:
        """Create those of the VLANs' Docker networks that are missing, on the bridges that the truck has."""
        there = self.engine.networks()
        for vlan in self.truck.plan.vlans:
            if vlan.network not in there:
                self.engine.network(vlan.network, vlan.subnet, vlan.router, vlan.landing, vlan.bridge)

    def reset(self) -> None:
        """Back to the beginning: the engine runs, has its networks and no container; no device is plugged in, and the
        router remembers none of them."""
        if self.engine.live_restore:
            self.engine.stop()
            self.engine.live_restore = False
        if not self.engine.running:
            self.engine.start()
        self.engine.remove_containers()
        self.networks()
        for device in self.truck.plan.devices:
            self.truck.unplug(device.name)
            netns.batch(["addr flush dev eth0"], self.truck.netns(device.name))
        netns.batch(["neigh flush all"], self.truck.netns("router"))


@contextmanager
def edge(version: str, devices: int = 2) -> Iterator[Edge]:
    """Build the truck of the README with a real engine in place of its containers; nothing remains after the block."""
    with Truck(replace(two_vlans(devices), containers=())) as truck, Engine(version, truck.netns("host")) as engine:
        made = Edge(truck, engine)
        made.networks()
        yield made
