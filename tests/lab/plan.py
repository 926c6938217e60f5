"""What a virtual truck consists of, and the commands that wire it: plain data, nothing is run here.

internet --- router --- host's bridges --- trunk --- switch --- devices
                             |
                         containers
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network


@dataclass(frozen=True)
class Vlan:
    """One layer-2 segment: its 802.1Q tag, its subnet, the router's address and the host's bridge."""

    name: str
    tag: int
    subnet: IPv4Network
    router: IPv4Address
    bridge: str

    @property
    def leg(self) -> str:
        """The router's interface in this VLAN."""
        return f"leg{self.tag}"

    @property
    def leg_address(self) -> IPv4Interface:
        """The router's address with the subnet's prefix length."""
        return IPv4Interface((self.router, self.subnet.prefixlen))

    @property
    def network(self) -> str:
        """The Docker network on the bridge."""
        return f"{self.bridge}net"

    @property
    def landing(self) -> IPv4Network:
        """The part of the subnet that Docker may hand out: its last 16 addresses."""
        return list(self.subnet.subnets(new_prefix=28))[-1]


@dataclass(frozen=True)
class Device:
    """A physical client behind a switch port; its interface is `eth0`."""

    name: str
    vlan: str
    mac: str

    @property
    def port(self) -> str:
        """The device's port, an interface of the switch."""
        return f"p-{self.name}"


@dataclass(frozen=True)
class Container:
    """A container on a VLAN's bridge; its interface is `eth0`."""

    name: str
    vlan: str
    mac: str


@dataclass(frozen=True)
class Wan:
    """The uplink: the internet host's addresses and the router's."""

    host: IPv4Interface
    router: IPv4Interface
    far: IPv4Interface


@dataclass(frozen=True)
class Plan:
    """What to build. Names are at most 13 characters, MACs are unique."""

    vlans: tuple[Vlan, ...]
    wan: Wan
    devices: tuple[Device, ...] = ()
    containers: tuple[Container, ...] = ()

    def vlan(self, name: str) -> Vlan:
        """Return the VLAN of that name, or raise KeyError."""
        return {v.name: v for v in self.vlans}[name]

    def device(self, name: str) -> Device:
        """Return the device of that name, or raise KeyError."""
        return {d.name: d for d in self.devices}[name]

    @property
    def nodes(self) -> list[str]:
        """The names of all namespaces, each before those that its cables end in."""
        fixed = ["internet", "switch", "host", "router"]
        return [*fixed, *(d.name for d in self.devices), *(c.name for c in self.containers)]


def two_vlans(devices: int = 2) -> Plan:
    """Return the truck of the README: two VLANs with a container each, device1 on VLAN 1, device2 on VLAN 2, ...

    device1 has the MAC that the repository's configuration reserves an address for.
    """
    wan = Wan(IPv4Interface("203.0.113.1/24"), IPv4Interface("203.0.113.2/24"), IPv4Interface("198.51.100.9/32"))
    one, two = _vlan(1, "br0"), _vlan(2, "br1")
    return Plan(
        (one, two),
        wan,
        tuple(_device(n, one if n % 2 else two) for n in range(1, devices + 1)),
        (_container(1, one), _container(2, two)),
    )


def _vlan(tag: int, bridge: str) -> Vlan:
    return Vlan(f"vlan{tag}", tag, IPv4Network(f"10.0.{tag}.0/24"), IPv4Address(f"10.0.{tag}.1"), bridge)


def _device(number: int, vlan: Vlan) -> Device:
    return Device(f"device{number}", vlan.name, f"02:00:00:00:{vlan.tag:02x}:{number + 4:02x}")


def _container(number: int, vlan: Vlan) -> Container:
    return Container(f"container{number}", vlan.name, f"02:00:00:01:{vlan.tag:02x}:{number:02x}")


@dataclass(frozen=True)
class Wiring:
    """The commands that build a plan: `ip` per node, in order, and `bridge` for the switch."""

    ip: dict[str, list[str]]
    bridge: list[str]


def wiring(plan: Plan, prefix: str, *, tagged: bool) -> Wiring:
    """Return the commands for `plan` in namespaces named `prefix` + node; `tagged`: one 802.1Q trunk, else cables."""
    wires = Wiring(defaultdict(list), [])
    for node in plan.nodes:
        wires.ip[node].append("link set lo up")
    _wire_wan(plan, wires, prefix)
    (_wire_trunk if tagged else _wire_cables)(plan, wires, prefix)
    for vlan in plan.vlans:
        _wire_host_bridge(vlan, wires, prefix)
    for device in plan.devices:
        _wire_device(device, plan.vlan(device.vlan), wires, prefix, tagged=tagged)
    for container in plan.containers:
        _wire_container(container, plan.vlan(container.vlan), wires, prefix)
    return wires


def _wire_wan(plan: Plan, wires: Wiring, prefix: str) -> None:
    wan = plan.wan
    wires.ip["internet"] += [
        f"link add eth0 type veth peer name wan netns {prefix}router",
        f"addr add {wan.host} dev eth0",
        f"addr add {wan.far} dev lo",
        "link set eth0 up",
    ]
    wires.ip["router"] += [
        f"addr add {wan.router} dev wan",
        "link set wan up",
        f"route add default via {wan.host.ip}",
    ]


def _wire_trunk(plan: Plan, wires: Wiring, prefix: str) -> None:
    wires.ip["switch"] += [
        "link add sw type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0",
        f"link add trunk type veth peer name enp2s0 netns {prefix}host",
        "link set trunk master sw",
        "link set sw up",
        "link set trunk up",
    ]
    wires.ip["host"].append("link set enp2s0 up")
    for vlan in plan.vlans:
        wires.bridge.append(f"vlan add dev trunk vid {vlan.tag}")
        wires.ip["host"].append(f"link add link enp2s0 name enp2s0.{vlan.tag} type vlan id {vlan.tag}")


def _wire_cables(plan: Plan, wires: Wiring, prefix: str) -> None:
    for vlan in plan.vlans:
        wires.ip["switch"] += [
            f"link add sw{vlan.tag} type bridge mcast_snooping 0",
            f"link add trunk{vlan.tag} type veth peer name enp2s0.{vlan.tag} netns {prefix}host",
            f"link set trunk{vlan.tag} master sw{vlan.tag}",
            f"link set sw{vlan.tag} up",
            f"link set trunk{vlan.tag} up",
        ]


def _wire_host_bridge(vlan: Vlan, wires: Wiring, prefix: str) -> None:
    wires.ip["host"] += [
        f"link add {vlan.bridge} type bridge mcast_snooping 0",
        f"link set enp2s0.{vlan.tag} master {vlan.bridge}",
        f"link set enp2s0.{vlan.tag} up",
        f"link set {vlan.bridge} up",
        f"link add r-{vlan.leg} type veth peer name {vlan.leg} netns {prefix}router",
        f"link set r-{vlan.leg} master {vlan.bridge}",
        f"link set r-{vlan.leg} up",
    ]
    wires.ip["router"] += [f"addr add {vlan.leg_address} dev {vlan.leg}", f"link set {vlan.leg} up"]


def _wire_device(device: Device, vlan: Vlan, wires: Wiring, prefix: str, *, tagged: bool) -> None:
    wires.ip["switch"] += [
        f"link add {device.port} type veth peer name eth0 address {device.mac} netns {prefix}{device.name}",
        f"link set {device.port} master {'sw' if tagged else f'sw{vlan.tag}'}",
    ]
    wires.ip[device.name].append("link set eth0 up")
    if tagged:
        wires.bridge.append(f"vlan add dev {device.port} vid {vlan.tag} pvid untagged")


def _wire_container(container: Container, vlan: Vlan, wires: Wiring, prefix: str) -> None:
    wires.ip["host"] += [
        f"link add c-{container.name} type veth peer name eth0 address {container.mac} netns {prefix}{container.name}",
        f"link set c-{container.name} master {vlan.bridge}",
        f"link set c-{container.name} up",
    ]
    wires.ip[container.name].append("link set eth0 up")
