"""What the configuration file says, as plain values that were already checked.

Addresses are integers, times are seconds. `dhcpd.settings` has what concerns a VLAN's DHCP server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Any

from dhcpd.pool import dotted
from dhcpd.settings import Scope

Entry = Mapping[str, Any]
"""A reservation that was made on the running service: ``vlan``, and as in the file ``name``, one of ``mac``,
``client_id`` and ``container``, and mostly ``address``."""


@dataclass(frozen=True, slots=True)
class Vlan:
    """One VLAN: its DHCP scope and where it is found on the trunk, on the host and in Docker."""

    scope: Scope
    tag: int
    """The IEEE 802.1Q VLAN identifier, 1 to 4094."""
    network: str | None = None
    """The Docker network, None when the VLAN has devices only."""
    landing: IPv4Network | None = None
    """What Docker itself may hand out (``--ip-range``); set whenever ``network`` is."""
    interface: str | None = None
    """The router's interface, None when it is to be found by the subnet."""
    bridge: str | None = None
    """The bridge on the host."""
    encrypted_only: bool = False
    """To the WAN only what is encrypted, see `router.elements.ENCRYPTED`."""
    guard: bool = False
    """Only forward what comes from the address of a live lease and from the MAC that holds it."""
    router_ports: tuple[Ports, ...] = ()
    """What the VLAN's nodes reach on the router besides DHCP and ping."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """The host's interface that carries the tagged VLANs to the switch."""

    interface: str


@dataclass(frozen=True, slots=True)
class Uplink:
    """What a Docker network for the WAN is made from: an ipvlan network in the host's own subnet."""

    parent: str
    """The host's interface."""
    subnet: IPv4Network
    gateway: int
    landing: IPv4Network
    """Where the router's own address comes from: nobody else may give it away."""


@dataclass(frozen=True, slots=True)
class Wan:
    """The router's uplink. Exactly one of network and interface is set."""

    network: str | None = None
    interface: str | None = None
    uplink: Uplink | None = None
    """Set only with a network; None when somebody else makes that."""


@dataclass(frozen=True, slots=True)
class Docker:
    """Where the engine's API and its folder of network namespaces are."""

    socket: str = "/var/run/docker.sock"
    netns: str = "/var/run/docker/netns"
    adopt: bool = True
    """Write leases into Docker's own records of containers that do not run."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of the history is kept: seconds, and bytes."""

    max_age: int = 400 * 86400
    max_size: int = 150 << 20


@dataclass(frozen=True, slots=True)
class Api:
    """The control API on TCP; ``host`` is an IPv4 address."""

    host: str
    port: int
    token: str = field(repr=False)
    hosts: tuple[str, ...] = ()
    """Names and addresses, beside the one it listens on, by which browsers may ask for it; lower case."""


class Kind(StrEnum):
    """What a `Node` stands for."""

    VLAN = "vlan"
    NODE = "node"
    ADDRESS = "address"
    ROUTER = "router"
    WAN = "wan"


@dataclass(frozen=True, slots=True)
class Node:
    """One end of an exception, as far as the file tells."""

    kind: Kind
    text: str
    """As it is written: ``vlan1``, ``vlan1/device1``, ``10.0.1.20``, ``router`` or ``wan``."""
    vlan: str | None = None
    """The VLAN of the node, None for the router and the WAN."""
    name: str | None = None
    """`Kind.NODE`: a reservation's name, a container's name or the host name of a lease, see `router.places`."""
    address: int | None = None
    """Set when the file tells: an address, or a reservation with one."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """``tcp`` or ``udp`` from ``first`` to ``last``, both included; ``icmp`` with both 0."""

    protocol: str
    first: int = 0
    last: int = 0

    def __str__(self) -> str:
        if self.protocol == "icmp":
            return "icmp"
        return f"{self.protocol}/{self.first}" + (f"-{self.last}" if self.last != self.first else "")

    def overlaps(self, other: Ports) -> bool:
        return self.protocol == other.protocol and self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Allow:
    """Connections from ``source`` to ``target`` are let through; no ports mean all."""

    source: Node
    target: Node
    ports: tuple[Ports, ...] = ()

    def __str__(self) -> str:
        return f"allow {self.source} to {self.target}" + (f" ({', '.join(map(str, self.ports))})" if self.ports else "")


@dataclass(frozen=True, slots=True)
class Publish:
    """Connections from the WAN to the router's ``ports`` go to ``target``, the first of them to ``to_port``."""

    ports: Ports
    target: Node
    to_port: int

    def __str__(self) -> str:
        return f"publish {self.ports} to {self.target}" + (
            f" port {self.to_port}" if self.to_port != self.ports.first else ""
        )


@dataclass(frozen=True, slots=True)
class Broadcast:
    """UDP broadcasts to ``port``, or datagrams to the multicast ``group``, are repeated in other VLANs."""

    name: str
    port: int
    source: Node
    targets: tuple[Node, ...]
    group: int | None = None

    def __str__(self) -> str:
        group = "" if self.group is None else f" group {dotted(self.group)}"
        targets = ", ".join(map(str, self.targets))
        return f"broadcast {self.name} (udp/{self.port}{group}) from {self.source} to {targets}"


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an `Entry` beside the file."""

    entry: Entry
    why: str | None = None
    """Why it is set aside, ``place: message``; None when it is in force."""
    is_redundant: bool = False
    """The file says the same."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file, and what is kept beside it."""

    vlans: tuple[Vlan, ...]
    wan: Wan | None = None
    allow: tuple[Allow, ...] = ()
    publish: tuple[Publish, ...] = ()
    broadcast: tuple[Broadcast, ...] = ()
    docker: Docker = Docker()
    api: Api | None = None
    trunk: Trunk | None = None
    history: Keep = Keep()
    kept: tuple[Kept, ...] = ()
    """The entries beside the file, in their order; those in force are among the reservations of their VLANs."""

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What the DHCP servers serve, in the order of the file."""
        return tuple(vlan.scope for vlan in self.vlans)
