"""What must exist on the host below the router: VLAN sub-interfaces on the trunk, bridges, Docker networks.

Configuration and what the host shows -> steps; `router.host` carries them out. What was made here carries `MARK`, and
nothing else is changed or removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network
from typing import NamedTuple

from dhcpd.pool import dotted
from leasebroker.checks import differences
from leasebroker.containers import Network
from leasebroker.known import Leg
from router.settings import Config, Uplink, Vlan

MARK = "lanward"
"""The alias of an interface that is ours, and the label of a Docker network."""
MARK_RAISED = "lanward, which brought the trunk up"
"""The alias of a sub-interface when the trunk was down before."""
PROJECT = "lanward"
"""The name of the Compose project: Compose takes a network over that carries its labels."""

_BRIDGE = "com.docker.network.bridge.name"
_INHIBIT = "com.docker.network.bridge.inhibit_ipv4"


class UnderlayError(Exception):
    """The underlay cannot be as it should. ``str()`` has one line for each reason, with its cure."""


class HostLink(NamedTuple):
    """An interface of the host."""

    name: str
    kind: str = ""
    """``vlan``, ``bridge``, ``veth`` ...; empty for hardware."""
    alias: str = ""
    is_up: bool = True
    parent: str = ""
    """The interface that a sub-interface is on."""
    tag: int = 0
    master: str = ""
    """The bridge that it is a port of."""
    addresses: tuple[str, ...] = ()
    """IPv4, ``10.0.1.20/24``."""
    has_ipv6: bool = False
    """The kernel gives it an IPv6 address of its own when it comes up."""

    @property
    def is_ours(self) -> bool:
        return self.alias in (MARK, MARK_RAISED)


class Host(NamedTuple):
    """What the host shows."""

    links: Mapping[str, HostLink] = {}
    networks: Mapping[str, Network] = {}
    """The Docker networks that the configuration names, as far as they are there."""
    programs: frozenset[str] = frozenset()
    """The names of what runs, as the kernel keeps them: at most 15 characters."""
    filtered: bool = False
    """Bridged frames pass the host's FORWARD chain (br_netfilter)."""


class NetworkPlan(NamedTuple):
    """A Docker network as it is made."""

    name: str
    driver: str
    subnet: IPv4Network
    gateway: int
    landing: IPv4Network | None
    """Where Docker's addresses come from; None for all of the subnet."""
    options: Mapping[str, str]

    @property
    def labels(self) -> dict[str, str]:
        compose = "com.docker.compose"
        return {MARK: self.name, f"{compose}.project": PROJECT, f"{compose}.network": self.name}


class AddSubInterface(NamedTuple):
    name: str
    trunk: str
    tag: int
    alias: str

    def __str__(self) -> str:
        return f"add {self.name}: VLAN {self.tag} on {self.trunk}"


class AddBridge(NamedTuple):
    name: str

    def __str__(self) -> str:
        return f"add bridge {self.name}"


class Silence(NamedTuple):
    """By the IPv6 address that the kernel gives to the bridge that Docker made, its VLAN would reach the host."""

    name: str

    def __str__(self) -> str:
        return f"leave {self.name} without an IPv6 address of its own"


class Enslave(NamedTuple):
    name: str
    bridge: str

    def __str__(self) -> str:
        return f"make {self.name} a port of {self.bridge}"


class Raise(NamedTuple):
    name: str

    def __str__(self) -> str:
        return f"bring {self.name} up"


class Lower(NamedTuple):
    name: str

    def __str__(self) -> str:
        return f"bring {self.name} down"


class RemoveLink(NamedTuple):
    name: str

    def __str__(self) -> str:
        return f"remove {self.name}"


class AddNetwork(NamedTuple):
    network: NetworkPlan

    def __str__(self) -> str:
        return f"add Docker network {self.network.name}"


class RemoveNetwork(NamedTuple):
    name: str

    def __str__(self) -> str:
        return f"remove Docker network {self.name}"


Step = AddSubInterface | AddBridge | Silence | Enslave | Raise | Lower | RemoveLink | AddNetwork | RemoveNetwork


def up(config: Config, host: Host) -> list[Step]:
    """What leads from what the host shows to the underlay of a configuration, in this order; nothing when it is there.

    Raises `UnderlayError` with everything that is in the way.
    """
    trunk = _trunk(config)
    problems = [*_trunk_problems(trunk, host), *_wan_problems(config, host)]
    problems += [one for vlan in config.vlans for one in _vlan_problems(vlan, config, host)]
    if problems:
        raise UnderlayError("\n".join(problems))
    steps: list[Step] = [*_stale(config, host)]
    gone = {step.name for step in steps if isinstance(step, RemoveLink)}
    alias = MARK
    if not host.links[trunk].is_up:
        steps.append(Raise(trunk))
        alias = MARK_RAISED
    left = Host({name: one for name, one in host.links.items() if name not in gone}, host.networks)
    for vlan in config.vlans:
        steps += _vlan_steps(vlan, trunk, alias, left)
    wanted = [*map(_network, config.vlans), _wan_network(config)]
    return [*steps, *(AddNetwork(one) for one in wanted if one is not None and one.name not in host.networks)]


def down(host: Host) -> list[Step]:
    """What takes away all interfaces that were made here, whatever the configuration says today, and the networks of it
    that were.

    Raises `UnderlayError` while containers are on one of the networks.
    """
    networks = [one for one in host.networks.values() if MARK in one.labels]
    if problems := [_members(one) for one in networks if one.members]:
        raise UnderlayError("\n".join(problems))
    ours = [one for one in host.links.values() if one.is_ours]
    raised = {one.parent for one in ours if one.alias == MARK_RAISED}
    steps: list[Step] = [RemoveNetwork(one.name) for one in networks]
    steps += [RemoveLink(one.name) for one in sorted(ours, key=lambda one: one.kind == "bridge")]
    return steps + [Lower(name) for name in sorted(raised) if name in host.links]


def undo(steps: Sequence[Step]) -> list[Step]:
    """What takes back steps that were done, when a later one failed. What was removed does not come back."""
    added = {step.name for step in steps if isinstance(step, AddSubInterface | AddBridge)}
    opposite: list[Step] = []
    for step in reversed(steps):
        match step:
            case AddSubInterface() | AddBridge():
                opposite.append(RemoveLink(step.name))
            case AddNetwork():
                opposite.append(RemoveNetwork(step.network.name))
            case Raise() if step.name not in added:
                opposite.append(Lower(step.name))
    return opposite


def warnings(config: Config, host: Host) -> list[str]:
    """What will fight over the interfaces, and addresses that the host should not have, a line each with its cure."""
    trunk = _trunk(config)
    names = [trunk, *(name for vlan in config.vlans for name in (f"{trunk}.{vlan.tag}", vlan.bridge or ""))]
    written = (";".join(f"interface-name:{name}" for name in names), " ".join(names))
    found = [cure.format(*written) for program, cure in _MANAGERS.items() if program in host.programs]
    for name in names[1:]:
        link = host.links.get(name)
        found += [
            f"{name} has the address {one}, so that the VLAN reaches the host: ip address del {one} dev {name}, and "
            f"take it out of what sets it at boot"
            for one in (link.addresses if link else ())
        ]
    return found


_MANAGERS = {
    "NetworkManager": "NetworkManager runs and may take the interfaces over: write [keyfile] and unmanaged-devices={0} "
    "into /etc/NetworkManager/conf.d/lanward.conf, unless that is done, and reload it",
    "dhcpcd": "dhcpcd runs and may give the interfaces addresses: write denyinterfaces {1} into /etc/dhcpcd.conf, "
    "unless that is done, and restart it",
    "systemd-network": "systemd-networkd runs and may take the interfaces over: write a .network file with [Match] "
    "Name={1} and [Link] Unmanaged=yes into /etc/systemd/network, unless that is done, and restart it",
}
"""Programs by the names that the kernel keeps; the interfaces as NetworkManager writes them, and as the others do."""


# -- what is wanted


def _trunk(config: Config) -> str:
    if config.trunk is None:
        raise UnderlayError("the configuration has no [trunk]")
    return config.trunk.interface


def _vlan_steps(vlan: Vlan, trunk: str, alias: str, host: Host) -> Iterator[Step]:
    name, bridge = f"{trunk}.{vlan.tag}", vlan.bridge or ""
    link = host.links.get(name)
    if bridge not in host.links:
        yield AddBridge(bridge)
    elif host.links[bridge].has_ipv6:
        yield Silence(bridge)
    if link is None:
        yield AddSubInterface(name, trunk, vlan.tag, alias)
    if link is None or link.master != bridge:
        yield Enslave(name, bridge)
    for one in (bridge, name):
        if one not in host.links or not host.links[one].is_up:
            yield Raise(one)


def _network(vlan: Vlan) -> NetworkPlan | None:
    if vlan.network is None:
        return None
    options = {_BRIDGE: vlan.bridge or "", _INHIBIT: "true"}
    return NetworkPlan(vlan.network, "bridge", vlan.scope.subnet, vlan.scope.router, vlan.landing, options)


def _wan_network(config: Config) -> NetworkPlan | None:
    wan = config.wan
    if wan is None or wan.network is None or wan.uplink is None:
        return None
    options = {"parent": wan.uplink.parent, "ipvlan_mode": "l2"}
    uplink = wan.uplink
    return NetworkPlan(wan.network, "ipvlan", uplink.subnet, uplink.gateway, uplink.landing, options)


def _stale(config: Config, host: Host) -> Iterator[Step]:
    """Ours, and not of this configuration, or on another trunk or with another tag than its name says. A bridge that
    containers are on stays."""
    trunk = _trunk(config)
    wanted = {f"{trunk}.{vlan.tag}": vlan.tag for vlan in config.vlans}
    subs = [one for one in host.links.values() if one.is_ours and one.kind == "vlan"]
    stale = {one.name for one in subs if (one.parent, one.tag) != (trunk, wanted.get(one.name))}
    yield from map(RemoveLink, sorted(stale))
    bridges = {one.name for one in host.links.values() if one.is_ours and one.kind == "bridge"}
    used = {one.master for one in host.links.values() if one not in subs}
    used |= {one.options.get(_BRIDGE, "") for one in host.networks.values()}
    yield from map(RemoveLink, sorted(bridges - used - {vlan.bridge for vlan in config.vlans}))


# -- what is in the way


def _trunk_problems(trunk: str, host: Host) -> Iterator[str]:
    if trunk not in host.links:
        yield f"there is no interface {trunk}: name the one with the cable to the switch in [trunk] (ip -brief link)"


def _vlan_problems(vlan: Vlan, config: Config, host: Host) -> Iterator[str]:
    name, bridge = f"{_trunk(config)}.{vlan.tag}", vlan.bridge or ""
    other = next((one for one in host.links.values() if _is_same_tag(one, name, vlan, config)), None)
    if other is not None:
        yield (
            f"{other.name} exists and was not made by lanward: remove it (ip link del {other.name}), and what makes it "
            f"at boot"
        )
    link, network = host.links.get(bridge), host.networks.get(vlan.network or "")
    is_dockers = network is not None and network.options.get(_BRIDGE) == bridge
    if link is not None and link.kind != "bridge":
        yield f"{bridge}, the bridge of {vlan.scope.name}, exists and is no bridge: name another in the configuration"
    elif link is not None and not link.is_ours and not is_dockers:
        yield (
            f"bridge {bridge} exists and was not made by lanward: remove it (ip link del {bridge}), or name another "
            f"bridge for {vlan.scope.name}"
        )
    elif link is not None and not link.is_ours and (ports := _foreign_ports(bridge, host)):
        yield (
            f"bridge {bridge} was there before Docker used it, and has the port {ports[0]}: name another bridge for "
            f"{vlan.scope.name}, in docker-compose.yml too"
        )
    if network is not None and (problem := _network_problem(vlan, network, filtered=host.filtered)):
        yield problem


def _foreign_ports(bridge: str, host: Host) -> list[str]:
    """What nobody put there for a container or for us, while nothing of ours is there."""
    ports = [one for one in host.links.values() if one.master == bridge]
    return [] if any(one.is_ours for one in ports) else [one.name for one in ports if one.kind != "veth"]


def _is_same_tag(one: HostLink, name: str, vlan: Vlan, config: Config) -> bool:
    """Not ours, and of the name that ours is to have, or with the tag on the trunk, which is there once only."""
    is_same = one.kind == "vlan" and (one.parent, one.tag) == (_trunk(config), vlan.tag)
    return not one.is_ours and (one.name == name or is_same)


def _network_problem(vlan: Vlan, network: Network, *, filtered: bool) -> str | None:
    leg = Leg(vlan.scope.name, vlan.network or "", vlan.scope.subnet, vlan.scope.router, vlan.landing)
    wrong = None if network.driver == "bridge" else f"its driver is {network.driver}, not bridge"
    wrong = wrong or next(differences(leg, network, filtered=filtered), None)
    for option, value in {_INHIBIT: "true", _BRIDGE: vlan.bridge}.items():
        if network.options.get(option) != value:
            wrong = wrong or f"its {option} is {network.options.get(option, 'not set')}, not {value}"
    return wrong and _remade(network, wrong)


def _remade(network: Network, wrong: str) -> str:
    return (
        f"network {network.name}: {wrong}; correct docker-compose.yml if Compose made it, and remove it "
        f"(docker compose down, or docker network rm {network.name}): it is made again"
    )


def _wan_problems(config: Config, host: Host) -> Iterator[str]:
    wan = config.wan
    if wan is None or wan.network is None:
        return
    network = host.networks.get(wan.network)
    if wan.uplink is not None and wan.uplink.parent not in host.links:
        yield f"there is no interface {wan.uplink.parent}: name the one to the internet in [wan] parent"
    elif wan.uplink is not None and network is not None and (wrong := _wan_difference(wan.uplink, network)):
        yield _remade(network, wrong)


def _wan_difference(uplink: Uplink, network: Network) -> str | None:
    if network.driver != "ipvlan":
        return f"its driver is {network.driver}, not ipvlan"
    if network.options.get("parent") != uplink.parent:
        return f"its parent is {network.options.get('parent')}, not {uplink.parent}"
    if (network.subnet, network.gateway) != (uplink.subnet, uplink.gateway):
        was = f"{network.subnet} by {dotted(network.gateway)}"
        return f"it is {was}, [wan] says {uplink.subnet} by {dotted(uplink.gateway)}"
    if network.landing != uplink.landing:
        return f"its --ip-range is {network.landing or 'not set'}, [wan] says {uplink.landing}"
    return None


def _members(network: Network) -> str:
    names = ", ".join(sorted(one.name for one in network.members))
    return f"network {network.name} has containers: stop them first (docker compose down): {names}"
