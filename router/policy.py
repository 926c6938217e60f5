"""What a configuration says about reachability: the measure for what the kernel does.

Written from the design and the file alone, apart from the compiler of the rules, so that a mistake there shows as a
difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dhcpd.pool import dotted
from dhcpd.wire import SERVER_PORT
from router.elements import ENCRYPTED
from router.settings import Allow, Config, Kind, Node, Ports, Publish

ICMP = Ports("icmp")


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: a node, the router or the internet (`Kind.NODE`, `Kind.ROUTER`, `Kind.WAN`)."""

    kind: Kind
    address: int = 0
    vlan: str | None = None
    """None for the internet, for the router's address on the WAN, and for the router as a source."""
    name: str = ""
    leased: bool = True
    """Whether a source guard lets it pass: a live lease, or a reservation with MAC and address."""
    is_container: bool = False
    """Whether its address is a container's."""

    def __str__(self) -> str:
        match self.kind:
            case Kind.ROUTER:
                return "router" if not self.address else f"router, {self.vlan or 'wan'}"
            case Kind.WAN:
                return "internet"
        return f"{self.vlan}/{self.name or dotted(self.address)}"


ROUTER = End(Kind.ROUTER)


class Row(NamedTuple):
    """Whether ``source`` shall get an answer from ``target`` when it asks for ``service``."""

    source: End
    target: End
    service: Ports
    expected: bool


def node(vlan: str, name: str, address: int, *, leased: bool = True, is_container: bool = False) -> End:
    return End(Kind.NODE, address, vlan, name, leased, is_container)


def internet(address: int) -> End:
    return End(Kind.WAN, address)


def expected(
    config: Config, nodes: Sequence[End], outside: Sequence[End] = (), services: Iterable[Ports] = ()
) -> list[Row]:
    """All rows of a configuration: from each node and the router to every other, to the router's address in each VLAN
    and to the internet.

    ``outside``: the internet, and the router's address on the WAN (a `Kind.ROUTER` without VLAN); the latter is only
    asked from the internet. ``services``: what every pair is asked besides echo requests and the exceptions that are
    written for it; single ports.
    """
    asked = tuple(services)
    return [
        Row(source, target, service, reaches(config, nodes, source, target, service))
        for source, target in _pairs(config, nodes, outside)
        for service in sorted({ICMP, *asked, *_named(config, source, target)})
    ]


def _pairs(config: Config, nodes: Sequence[End], outside: Sequence[End]) -> Iterator[tuple[End, End]]:
    legs = [End(Kind.ROUTER, vlan.scope.router, vlan.scope.name) for vlan in config.vlans]
    wan = [end for end in outside if end.kind is Kind.WAN]
    uplink = [end for end in outside if end.kind is Kind.ROUTER]
    yield from ((source, target) for source in nodes for target in (*nodes, *legs, *wan) if source != target)
    yield from ((ROUTER, target) for target in (*nodes, *wan))
    if uplink:
        yield from ((source, target) for source in wan for target in (*nodes, *uplink))


def _named(config: Config, source: End, target: End) -> Iterator[Ports]:
    """The first port of each exception for this pair."""
    for allow in config.allow:
        if _is_for(allow, source, target):
            yield from (Ports(one.protocol, one.first, one.first) for one in allow.ports)
    if source.kind is Kind.WAN and target.kind is Kind.ROUTER:
        yield from (Ports(one.ports.protocol, one.ports.first, one.ports.first) for one in config.publish)


def reaches(config: Config, nodes: Sequence[End], source: End, target: End, service: Ports) -> bool:
    """Whether a request arrives and its answer comes back. ``service`` is one port; ``nodes`` are all nodes."""
    if source.kind is Kind.ROUTER:
        return True
    if source.kind is Kind.WAN and target.kind is Kind.ROUTER:
        return target.vlan is None and _enters(config, nodes, source, target, service)
    if source.vlan == target.vlan:
        return target.kind is Kind.NODE or _router_answers(config, source, target, service)
    if target.kind is Kind.ROUTER:  # nothing is forwarded, so no source guard is passed
        return _is_excepted(config, source, target, service)
    if not (_is_forwarded(config, source) and _is_forwarded(config, target)):
        return False
    return _is_excepted(config, source, target, service) or (
        target.kind is Kind.WAN and _leaves(config, source, service)
    )


def _router_answers(config: Config, source: End, target: End, service: Ports) -> bool:
    (vlan,) = [vlan for vlan in config.vlans if vlan.scope.name == target.vlan]
    always = (ICMP, Ports("udp", SERVER_PORT, SERVER_PORT), *vlan.router_ports)
    return any(one.overlaps(service) for one in always) or _is_excepted(config, source, target, service)


def _enters(config: Config, nodes: Sequence[End], source: End, target: End, service: Ports) -> bool:
    """What is published goes to its node, everything else to the router."""
    for one in config.publish:
        if one.ports.overlaps(service) and (place := _place(one, nodes)):
            return _is_forwarded(config, place)
    return _is_excepted(config, source, target, service)


def _place(publish: Publish, nodes: Sequence[End]) -> End | None:
    return next((one for one in nodes if _is(publish.target, one)), None)


def _leaves(config: Config, source: End, service: Ports) -> bool:
    """To the internet goes everything, and from an ``encrypted_only`` VLAN what is encrypted, and ping."""
    if config.wan is None:
        return False
    limited = any(vlan.encrypted_only for vlan in config.vlans if vlan.scope.name == source.vlan)
    return not limited or service == ICMP or service.first in ENCRYPTED[service.protocol]


def _is_forwarded(config: Config, end: End) -> bool:
    """The source guard drops requests as well as answers."""
    return end.leased or not any(vlan.guard for vlan in config.vlans if vlan.scope.name == end.vlan)


def _is_excepted(config: Config, source: End, target: End, service: Ports) -> bool:
    return any(
        _is_for(allow, source, target) and (not allow.ports or any(one.overlaps(service) for one in allow.ports))
        for allow in config.allow
    )


def _is_for(allow: Allow, source: End, target: End) -> bool:
    """``router`` as a target is its address where the source is; those in other VLANs are written out."""
    is_here = allow.target.kind is not Kind.ROUTER or source.vlan == target.vlan
    return is_here and _is(allow.source, source) and _is(allow.target, target)


def _is(written: Node, end: End) -> bool:
    """Whether an end is meant by a node of the file."""
    match written.kind:
        case Kind.VLAN:
            return end.kind is Kind.NODE and end.vlan == written.vlan
        case Kind.WAN | Kind.ROUTER:
            return end.kind is written.kind
    if written.address is not None:
        return end.address == written.address
    return (end.kind, end.vlan, end.name) == (Kind.NODE, written.vlan, written.name)
