"""``GET /map``: what a drawing of the machine needs, in one answer whose size does not grow with the leases."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from ipaddress import IPv4Address
from itertools import islice
from typing import TYPE_CHECKING, Any

from dhcpd.engine import Engine
from dhcpd.pool import dotted
from dhcpd.values import span
from router.places import Name, located
from router.settings import Allow, Broadcast, Config, Node, Publish, Vlan
from router.times import iso_time
from router.view import JsonObject, lease

if TYPE_CHECKING:
    from router.app import App

MOST_NODES = 30
"""Of a VLAN: a drawing with more shows nothing."""


def picture(app: App) -> JsonObject:
    """What ``GET /map`` answers.

    ``nodes`` are rows of ``/leases``, at most `MOST_NODES` of a VLAN, see `chosen`; ``containers`` are those of
    ``/containers``; ``rules`` says why the rules are not as configured, null when they are. An exception has ``kind``,
    ``text`` as in the log, ``from``, ``to`` (for a broadcast a list) and ``ports``; an end has the ``kind`` and
    ``text`` of `router.settings.Node`, and what is known of ``vlan``, ``name`` and ``address``.
    """
    containers = app.containers.list()
    return {
        "version": version("lanward"),
        "host": socket.gethostname(),
        "now": iso_time(app.now() + app.clock_offset()),
        "since": iso_time(app.started),
        "rules": app.forwarding.error,
        "wan": _wan(app),
        "vlans": [_vlan(app, vlan) for vlan in app.config.vlans],
        "nodes": [row for name in app.servers for row in rows(app, name, MOST_NODES, containers)],
        "containers": containers,
        "exceptions": exceptions(app.config, app.forwarding.nodes),
    }


def rows(app: App, vlan: str, most: int, containers: Iterable[JsonObject]) -> list[JsonObject]:
    """Rows of ``/leases`` of the nodes of a VLAN that are `chosen`, by address."""
    engine, now, offset = app.servers[vlan].engine, app.now(), app.clock_offset()
    there = [int(IPv4Address(one["address"])) for one in containers if one["vlan"] == vlan and one["address"]]
    first = [*_named(app.config, vlan, app.forwarding.nodes), *there]
    found = [lease(engine, one, now, offset) for one in sorted(chosen(engine, first, most, now))]
    return [row for row in found if row is not None]


def _named(config: Config, vlan: str, nodes: Mapping[Name, int]) -> Iterator[int]:
    """The addresses of the nodes that the exceptions name, as far as they are known."""
    ends = [*(end for one in config.allow for end in (one.source, one.target)), *(one.target for one in config.publish)]
    found = [located(end, nodes) for end in ends if end.vlan == vlan]
    yield from (end.address for end in found if end.address is not None)


def chosen(engine: Engine, first: Iterable[int], most: int, now: float) -> set[int]:
    """The addresses of at most so many nodes: of those that have a lease the ``first``, who has a reservation and the
    latest; then who has none. The work is bounded by ``most`` and the configuration, not by the leases."""
    held, reserved = engine.book.by_address, engine.directory.by_address
    latest = list(islice(reversed(held.values()), 4 * most))
    known = [one for one in (*first, *reserved) if one in held]
    live = [one.address for one in latest if one.is_live(now)]
    return set(islice(dict.fromkeys([*known, *live, *reserved, *(one.address for one in latest)]), most))


def _wan(app: App) -> JsonObject | None:
    wan = app.config.wan
    return None if wan is None else {"network": wan.network, "interface": wan.interface or app.legs.uplink()}


def _vlan(app: App, vlan: Vlan) -> JsonObject:
    scope = vlan.scope
    server = app.servers[scope.name]
    return {
        "name": scope.name,
        "tag": vlan.tag,
        "subnet": str(scope.subnet),
        "router": dotted(scope.router),
        "interface": server.link.interface,
        "is_up": server.link.is_there(),
        "bridge": vlan.bridge,
        "network": vlan.network,
        "pools": [[dotted(one.first), dotted(one.last)] for one in scope.pools],
        "dhcp": "external" if scope.is_external else "own",
        "lease_time": span(scope.lease_time),
        "known_only": scope.known_only,
        "guard": vlan.guard,
        "encrypted_only": vlan.encrypted_only,
    }


def exceptions(config: Config, nodes: Mapping[Name, int]) -> list[JsonObject]:
    """What the file lets through between the VLANs, and from the WAN. ``nodes``: where those are that it does not
    locate."""
    return [
        *(_allow(one, nodes) for one in config.allow),
        *(_publish(one, nodes) for one in config.publish),
        *map(_broadcast, config.broadcast),
    ]


def _allow(one: Allow, nodes: Mapping[Name, int]) -> JsonObject:
    source, target = _end(located(one.source, nodes)), _end(located(one.target, nodes))
    return {"kind": "allow", "text": str(one), "from": source, "to": target, "ports": [str(port) for port in one.ports]}


def _publish(one: Publish, nodes: Mapping[Name, int]) -> JsonObject:
    wan = {"kind": "wan", "text": "wan", "vlan": None, "name": None, "address": None}
    target = _end(located(one.target, nodes))
    return {"kind": "publish", "text": str(one), "from": wan, "to": target, "ports": [str(one.ports)]}


def _broadcast(one: Broadcast) -> JsonObject:
    return {
        "kind": "broadcast",
        "text": str(one),
        "from": _end(one.source),
        "to": [_end(target) for target in one.targets],
        "ports": [f"udp/{one.port}"],
    }


def _end(node: Node) -> dict[str, Any]:
    address = None if node.address is None else dotted(node.address)
    return {"kind": str(node.kind), "text": node.text, "vlan": node.vlan, "name": node.name, "address": address}
