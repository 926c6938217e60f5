"""Where the nodes are that exceptions name and the file gives no address: decided by who may have the name.

A name that a reservation has is that of the nodes it describes, and a container's name is the container's. Any other
is a host name, which every device can give itself: it is with one station for as long as that has a lease, and with
nobody when several have it and none is known to have been the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from math import inf
from typing import NamedTuple

from dhcpd.engine import Engine
from dhcpd.identity import Directory, container_of
from dhcpd.leases import BOUND, Binding
from dhcpd.settings import Reservation
from dhcpd.wire import ETHERNET
from router.settings import Allow, Config, Kind, Node, Publish

Name = tuple[str, str]
"""(VLAN, name)."""


class Places(NamedTuple):
    """What is known of some names at one time."""

    nodes: Mapping[Name, int] = {}
    """The address of each that is somewhere."""
    holders: Mapping[Name, bytes] = {}
    """The station that has a host name; it has it at the next look, too, if its lease still lives."""
    shared: Mapping[Name, tuple[int, ...]] = {}
    """The addresses of the live leases with a host name that several stations have."""
    watched: frozenset[int] = frozenset()
    """A change of the lease of any of these addresses may change this."""
    until: float = -inf
    """So may the time, from then on."""


def unplaced(config: Config) -> set[Name]:
    """The nodes that exceptions name and the file does not give an address."""
    ends = [end for allow in config.allow for end in (allow.source, allow.target)]
    ends += [publish.target for publish in config.publish]
    return {_name(end) for end in ends if _is_unplaced(end)}


def placed(config: Config, nodes: Mapping[Name, int]) -> Config:
    """A configuration whose exceptions say where their nodes are. One with a node that is nowhere opens nothing, and is
    left out."""

    allow = [Allow(located(one.source, nodes), located(one.target, nodes), one.ports) for one in config.allow]
    publish = [Publish(one.ports, located(one.target, nodes), one.to_port) for one in config.publish]
    return replace(
        config,
        allow=tuple(one for one in allow if not (_is_unplaced(one.source) or _is_unplaced(one.target))),
        publish=tuple(one for one in publish if not _is_unplaced(one.target)),
    )


def located(node: Node, nodes: Mapping[Name, int]) -> Node:
    """The node with its address, if that is known."""
    return replace(node, address=nodes.get(_name(node))) if _is_unplaced(node) else node


def _is_unplaced(node: Node) -> bool:
    return node.kind is Kind.NODE and node.address is None


def _name(node: Node) -> Name:
    return node.vlan or "", node.name or ""


def reservation_of(directory: Directory, one: Binding) -> Reservation | None:
    """The reservation of who holds a lease, found by what it is known by, whatever it calls itself."""
    if (container := container_of(one.client)) is not None:
        return directory.identify_container(container).reservation
    return directory.identify(ETHERNET, one.mac, one.client_id).reservation


def find(named: Iterable[Name], engines: Mapping[str, Engine], before: Places, now: float) -> Places:
    """Where the nodes are, given where they were ``before``."""
    by_vlan: dict[str, set[str]] = defaultdict(set)
    for vlan, name in named:
        by_vlan[vlan].add(name)
    nodes: dict[Name, int] = {}
    holders: dict[Name, bytes] = {}
    shared: dict[Name, tuple[int, ...]] = {}
    watched: set[int] = set()
    until = inf
    for vlan in by_vlan.keys() & engines.keys():
        for name, one in _candidates(by_vlan[vlan], engines[vlan]).items():
            live = [lease for lease in one.leases if lease.is_live(now)]
            standing = live or one.leases
            if one.is_host_name:
                stations = {_station(lease) for lease in standing}
                if live and len(stations) > 1:
                    shared[vlan, name] = tuple(sorted(lease.address for lease in live))
                holder = _holder(before.holders.get((vlan, name)), stations)
                if holder is not None:
                    holders[vlan, name] = holder
                standing = [lease for lease in standing if _station(lease) == holder]
            if one.address is not None:
                nodes[vlan, name] = one.address
            elif standing:
                nodes[vlan, name] = max(standing, key=lambda lease: lease.since).address
            if len(one.leases) > 1:
                until = min([until, *(lease.expires for lease in live)])
            watched.update(lease.address for lease in one.leases)
    return Places(nodes, holders, shared, frozenset(watched.union(nodes.values())), until)


def _holder(before: bytes | None, stations: Collection[bytes]) -> bytes | None:
    """Whose a host name is: of these stations the one that had it, or the only one."""
    if before in stations:
        return before
    return next(iter(stations)) if len(stations) == 1 else None


def _station(one: Binding) -> bytes:
    """What stays the same when a station asks in another way, as it does while it boots in stages."""
    return one.client if container_of(one.client) is not None or not one.mac else one.mac


class _Candidates(NamedTuple):
    """Who may have a name."""

    leases: list[Binding]
    """Ended ones too."""
    address: int | None = None
    """Of the container that has the name."""
    is_host_name: bool = False
    """Whoever calls itself so."""


def _candidates(names: Collection[str], engine: Engine) -> dict[str, _Candidates]:
    """Of each of the names of a VLAN; with one look at every lease, of which there may be many."""
    found: dict[str, _Candidates] = {}
    macs: set[bytes] = set()
    identifiers: set[bytes] = set()
    reservations = {one.name: one for one in engine.scope.reservations}
    for name in names:
        reservation = reservations.get(name)
        container = name if reservation is None else reservation.container
        address = None if container is None else engine.address_of_container(container)
        found[name] = _Candidates([], address, is_host_name=reservation is None and address is None)
        if reservation is not None:
            macs.update(reservation.macs)
            identifiers.update([reservation.client_id] if reservation.client_id else [])
    for one in engine.book:
        if one.state != BOUND:
            continue
        if (called := found.get(one.hostname)) is not None and called.is_host_name:
            called.leases.append(one)
        if one.mac in macs or one.client_id in identifiers:
            reservation = reservation_of(engine.directory, one)
            if reservation is not None and reservation.name in found:
                found[reservation.name].leases.append(one)
    return found
