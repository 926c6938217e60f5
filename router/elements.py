"""What the configuration puts into the sets and maps of the ruleset.

Names become keys: a VLAN and the WAN are their interface, a node is its address. So a packet costs the same number
of look-ups however many VLANs, nodes and exceptions there are, and a node that changes its address is a change of
elements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from dhcpd.pool import dotted
from dhcpd.wire import SERVER_PORT
from router.settings import Allow, Config, Kind, Node, Ports, Publish, Vlan

Elements = dict[str, str]
"""An element as nftables writes it -> the places in the file that it is for, in the order of the file."""

ENCRYPTED = {
    "tcp": (22, 443, 465, 636, 853, 989, 990, 992, 993, 995, 1194, 5061, 5671, 8883),
    "udp": (443, 500, 853, 1194, 4500, 51820),
}
"""What leaves a VLAN with ``encrypted_only``: SSH, the ports on which TLS or DTLS is spoken from the first byte, and
VPNs; ESP and echo requests besides. Not plain DNS (53), and not the STARTTLS ports (25, 110, 143, 587): they begin in
the clear, and a peer can keep them there. A VLAN that needs one of them has an ``[[allow]]`` to the WAN."""

PAIRS = ("vlan_to_vlan", "vlan_to_node", "node_to_vlan", "node_to_node")
"""The sets of exceptions, by what their two ends are keyed with."""

_ANY = "0-255 . 0-65535"
_LIMITED_BROADCAST = 0xFFFFFFFF
_COMMENT = 128
"""Bytes of a comment that the kernel's userdata has room for."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What only the running router knows: interfaces by VLAN name, the uplink, and the nodes' addresses now."""

    legs: Mapping[str, str]
    wan: str | None = None
    nodes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(VLAN, name) -> address, for names that the file gives no address."""
    indexes: Mapping[str, int] = field(default_factory=dict)
    """Interface -> ifindex, of those that are there; nothing where that is not known."""

    def index(self, interface: str) -> str | None:
        """An interface as the key of a map by ifindex: its number, None when it is not there, or where no number is
        known its name, which ``nft`` looks up."""
        if not self.indexes:
            return quoted(interface)
        return str(self.indexes[interface]) if interface in self.indexes else None

    def address(self, node: Node) -> int | None:
        """The address of a `Kind.NODE` or `Kind.ADDRESS`, None when it is not known yet."""
        if node.address is not None or node.vlan is None or node.name is None:
            return node.address
        return self.nodes.get((node.vlan, node.name))


def quoted(interface: str) -> str:
    return f'"{interface}"'


def comment(places: Iterable[str]) -> str:
    """The places, as many as a comment has room for."""
    text = ", ".join(dict.fromkeys(places))
    return text if len(text) < _COMMENT else text[: _COMMENT - 4] + "..."


class Pairs:
    """Who may open connections to whom. Elements of a set must not overlap, so the ports of a pair are merged."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], list[tuple[Ports | None, str]]] = defaultdict(list)

    def add(self, source: str | int, target: str | int, ports: Iterable[Ports], place: str) -> None:
        """Let ``source`` open connections to ``target`` on ``ports``, all when there are none.

        An end is an interface or an address.
        """
        name = f"{_kind(source)}_to_{_kind(target)}"
        self._found[name, _key(source), _key(target)] += [(one, place) for one in (tuple(ports) or (None,))]

    def elements(self) -> dict[str, Elements]:
        """The elements of all `PAIRS`, each ``source . target . protocol . port``."""
        sets: dict[str, Elements] = {name: {} for name in PAIRS}
        for (name, source, target), found in self._found.items():
            for services, places in _merged(found):
                sets[name][f"{source} . {target} . {services}"] = comment(places)
        return sets


def _kind(end: str | int) -> str:
    return "vlan" if isinstance(end, str) else "node"


def _key(end: str | int) -> str:
    return quoted(end) if isinstance(end, str) else dotted(end)


def _merged(found: Iterable[tuple[Ports | None, str]]) -> Iterator[tuple[str, list[str]]]:
    """``protocol . ports`` without overlaps, each with the places that it comes from."""
    everything = [place for ports, place in found if ports is None]
    if everything:
        yield _ANY, everything
        return
    limited = sorted((ports, place) for ports, place in found if ports is not None)
    for protocol, group in groupby(limited, key=lambda one: one[0].protocol):
        if protocol == "icmp":
            yield "icmp . 0-65535", [place for _, place in group]
        else:
            yield from ((f"{protocol} . {span}", places) for span, places in _merged_spans(group))


def _merged_spans(group: Iterable[tuple[Ports, str]]) -> Iterator[tuple[str, list[str]]]:
    spans: list[tuple[int, int, list[str]]] = []
    for ports, place in group:
        if spans and ports.first <= spans[-1][1]:
            first, last, places = spans.pop()
            spans.append((first, max(last, ports.last), [*places, place]))
        else:
            spans.append((ports.first, ports.last, [place]))
    yield from ((span(first, last), places) for first, last, places in spans)


def span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def exceptions(config: Config, wiring: Wiring) -> dict[str, Elements]:
    """The elements of all `PAIRS`: services of the router, ``[[allow]]``, and broadcasts that are relayed, for who
    listens on the router."""
    pairs = Pairs()
    for index, vlan in enumerate(config.vlans):
        if leg := wiring.legs.get(vlan.scope.name):
            _add_services(pairs, leg, vlan, f"vlan[{index}]")
    for index, allow in enumerate(config.allow):
        _add_allow(pairs, allow, wiring, config, f"allow[{index}]")
    _add_broadcasts(pairs, config, wiring)
    return pairs.elements()


def _add_services(pairs: Pairs, leg: str, vlan: Vlan, place: str) -> None:
    """DHCP and echo at the router's address and at the broadcast addresses; other ports at the address only."""
    everywhere = (Ports("icmp"), Ports("udp", SERVER_PORT, SERVER_PORT))
    broadcast = int(vlan.scope.subnet.broadcast_address)
    for target in (vlan.scope.router, broadcast, _LIMITED_BROADCAST):
        pairs.add(leg, target, everywhere, place)
    if vlan.router_ports:
        pairs.add(leg, vlan.scope.router, vlan.router_ports, f"{place}.router_ports")


def _add_allow(pairs: Pairs, allow: Allow, wiring: Wiring, config: Config, place: str) -> None:
    """What is not known yet (a node without a lease, a leg that is away) opens nothing."""
    source = _end(allow.source, wiring)
    target = _end(allow.target, wiring)
    if allow.target.kind is Kind.ROUTER:
        target = next((one.scope.router for one in config.vlans if one.scope.name == allow.source.vlan), None)
    if source is not None and target is not None:
        pairs.add(source, target, allow.ports, place)


def _end(node: Node, wiring: Wiring) -> str | int | None:
    if node.kind is Kind.ROUTER:
        return None
    if node.kind is Kind.WAN:
        return wiring.wan
    if node.kind is Kind.VLAN:
        return wiring.legs.get(node.vlan or "")
    return wiring.address(node)


def _add_broadcasts(pairs: Pairs, config: Config, wiring: Wiring) -> None:
    subnets = {vlan.scope.name: vlan.scope.subnet for vlan in config.vlans}
    for index, one in enumerate(config.broadcast):
        vlan = one.source.vlan
        if vlan is None or (leg := wiring.legs.get(vlan)) is None:
            continue
        broadcast = (int(subnets[vlan].broadcast_address), _LIMITED_BROADCAST)
        for target in broadcast if one.group is None else (one.group,):
            pairs.add(leg, target, [Ports("udp", one.port, one.port)], f"broadcast[{index}]")


def wan_to_router(config: Config) -> Elements:
    """``protocol . port`` that the configuration opens from the WAN to the router itself."""
    found: list[tuple[Ports | None, str]] = []
    for index, allow in enumerate(config.allow):
        if (allow.source.kind, allow.target.kind) == (Kind.WAN, Kind.ROUTER):
            found += [(one, f"allow[{index}]") for one in allow.ports or (None,)]
    return {element: comment(places) for element, places in _merged(found)}


def published(config: Config, wiring: Wiring) -> tuple[Elements, Elements]:
    """The maps of ``[[publish]]``: those that keep their port, ``protocol . ports : address``, and those that change
    it, ``protocol . port : address . port``. A node without an address is in neither."""
    kept: Elements = {}
    moved: Elements = {}
    for index, one in enumerate(config.publish):
        address = wiring.address(one.target)
        if address is None:
            continue
        if one.to_port == one.ports.first:
            kept[f"{one.ports.protocol} . {span(one.ports.first, one.ports.last)} : {dotted(address)}"] = _at(index)
        else:
            moved |= dict.fromkeys(_moved(one, address), _at(index))
    return kept, moved


def _at(index: int) -> str:
    return f"publish[{index}]"


def _moved(one: Publish, address: int) -> Iterator[str]:
    """One element for each port: the kernel has no translation that keeps the distance within a range."""
    for offset, port in enumerate(range(one.ports.first, one.ports.last + 1)):
        yield f"{one.ports.protocol} . {port} : {dotted(address)} . {one.to_port + offset}"


def reserved_members(vlan: Vlan, place: str) -> Elements:
    """``MAC . address`` of the reservations that tell both: they pass the source guard without a lease."""
    return {
        f"{mac.hex(':')} . {dotted(one.address)}": f"{place}.reservation[{index}]"
        for index, one in enumerate(vlan.scope.reservations)
        if one.address is not None
        for mac in one.macs
    }
