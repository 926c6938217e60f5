"""An edge machine whose containers the service manages, as the tests ask about it."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address
from typing import Any

from tests.lab.edge import Edge
from tests.lab.netns import wait_until
from tests.lab.service import REPOSITORY, Service
from tests.wire.control import ask

SHOW = "ip -4 -o addr show scope global; ip -4 route show default"
"""What a container prints of itself: addresses in the kernel's order, then its default route."""


class Managed:
    """`edge` with `service` running on it."""

    def __init__(self, edge: Edge, service: Service) -> None:
        self.edge = edge
        self.service = service
        self.engine = edge.engine

    def start(self, config: str | None = None) -> None:
        self.service.start(self.edge.config(config))

    def start_full(self) -> None:
        """With one address in the pool of vlan1, which the container `first` has; `second` runs without."""
        text = (REPOSITORY / "lanward.toml").read_text()
        self.start(text.replace("10.0.1.100-10.0.1.199", "10.0.1.100-10.0.1.100"))
        self.edge.run("first")
        self.lease("first")
        self.edge.run("second")

    def containers(self) -> list[dict[str, Any]]:
        """Return what `GET /containers` answers."""
        found: list[dict[str, Any]] = json.loads(ask(self.service.state, "GET", "/containers").body)
        return found

    def container(self, name: str, network: str = "br0net") -> dict[str, Any]:
        """Return what is known of a container on a network, nothing when it is not known."""
        return next((one for one in self.containers() if (one["container"], one["network"]) == (name, network)), {})

    def lease(self, name: str, network: str = "br0net") -> IPv4Address:
        """Return the address that a container is pinned to, as soon as it is."""
        wait_until(lambda: self.is_pinned(name, network), 10, f"{name} to be pinned on {network}")
        return IPv4Address(self.container(name, network)["address"])

    def is_pinned(self, name: str, network: str = "br0net") -> bool:
        """Whether the service says so, and the container's kernel shows it: the lease is its link's first address and
        the source of what goes to the internet by the VLAN's router."""
        known = self.container(name, network)
        return bool(known.get("pinned")) and self.is_on_link(name, known["address"])

    def is_on_link(self, name: str, address: str) -> bool:
        if not self.engine.pid(name):
            return False
        first: dict[str, str] = {}
        for line in self.edge.out(name, "ip", "-4", "-o", "addr", "show", "scope", "global").splitlines():
            first.setdefault(line.split()[1], line.split()[3].partition("/")[0])
        return address in first.values()

    def source(self, name: str) -> tuple[str, str]:
        """Return the router and the source address of what a container sends to the internet."""
        route = self.edge.out(name, "ip", "route", "get", "198.51.100.9")
        found = re.search(r"via (\S+) .*src (\S+)", route)
        return (found[1], found[2]) if found else ("", "")

    def pinned(self) -> set[str]:
        """Return the names of the containers that the service has pinned."""
        return {one["container"] for one in self.containers() if one["pinned"]}

    def paths(self) -> dict[str, int]:
        """Return how many pins there were by their path."""
        found: dict[str, int] = self.status()["pins"]
        return found

    def status(self) -> dict[str, Any]:
        """Return the containers' part of `GET /status`."""
        found: dict[str, Any] = json.loads(ask(self.service.state, "GET", "/status").body)["docker"]
        return found

    def warnings(self) -> list[str]:
        """Return the broker's warnings, as `GET /status` shows them."""
        shown: list[str] = self.status()["warnings"]
        return shown

    def in_docker(self, name: str, network: str = "br0net") -> str | None:
        """Return the address that Docker's record of a container asks for."""
        found = json.loads(self.engine.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", name))
        ipam = found.get(network, {}).get("IPAMConfig") or {}
        address: str | None = ipam.get("IPv4Address")
        return address

    def networks(self, name: str) -> set[str]:
        """Return the networks of a container."""
        found = json.loads(self.engine.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", name))
        return set(found)

    def adopted(self, name: str, network: str = "br0net") -> str | None:
        """Return the address in Docker's record, as soon as there is one."""
        wait_until(lambda: self.in_docker(name, network), 15, f"{name} to be adopted")
        return self.in_docker(name, network)
