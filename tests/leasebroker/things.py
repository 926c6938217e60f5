"""Containers, networks and VLANs as the broker reads them, in few words."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

from leasebroker.containers import Container, Endpoint, Network
from leasebroker.known import Leg
from tests.dhcpd.script import ip

LEG = Leg("vlan1", "br0net", IPv4Network("10.0.1.0/24"), ip("10.0.1.1"), IPv4Network("10.0.1.240/28"))
LEG2 = Leg("vlan2", "br1net", IPv4Network("10.0.2.0/24"), ip("10.0.2.1"), IPv4Network("10.0.2.240/28"))


def container(name: str = "web", id_: str = "", **changes: Any) -> Container:
    """One that runs on ``br0net``. ``networks`` are names, or endpoints by name; ``labels`` without ``lanward.``."""
    networks = changes.pop("networks", ("br0net",))
    endpoints = networks if isinstance(networks, dict) else dict.fromkeys(networks, Endpoint())
    labels = {f"lanward.{label}": value for label, value in changes.pop("labels", {}).items()}
    fields: dict[str, Any] = {"labels": labels, "state": "running", "created": 100, "endpoints": endpoints}
    return Container(id_ or f"id-{name}", name, **(fields | changes))


def network(**changes: Any) -> Network:
    """``br0net`` as it shall be."""
    fields: dict[str, Any] = {
        "id": "net-1",
        "name": LEG.network,
        "driver": "bridge",
        "subnet": LEG.subnet,
        "gateway": LEG.router,
        "landing": LEG.landing,
        "internal": False,
        "options": {"com.docker.network.bridge.inhibit_ipv4": "true"},
        "members": (),
    }
    return Network(**(fields | changes))
