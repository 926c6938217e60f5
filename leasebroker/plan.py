"""Lease and what the kernel shows -> what has to be done inside a container's network namespace, add before delete.

The lease is the first address of its link, so that it is the source of all that the container sends by itself. The
address that Docker gave stays behind it as a secondary one. What somebody else put there stays as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

LABEL = ":lw"
"""Ends the label of an address that is ours: all that we may take away later. Kernels keep 15 bytes of a label."""


class Link(NamedTuple):
    ifindex: int
    name: str
    mac: bytes
    mtu: int
    is_up: bool
    promotes: bool
    """Whether a secondary address survives its primary one (``promote_secondaries``)."""


class Address(NamedTuple):
    """An IPv4 address of a link; ``address`` is an integer."""

    ifindex: int
    address: int
    prefix: int
    label: str


class Route(NamedTuple):
    """An IPv4 default route; gateway and source are 0 when it has none."""

    ifindex: int
    gateway: int
    source: int
    metric: int = 0


class View(NamedTuple):
    """What the kernel shows of a namespace, everything in the kernel's order."""

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    defaults: tuple[Route, ...] = ()
    """Of the main table."""
    detour: Route | None = None
    """Of a table of our own that goes before those, None also when the rules that lead to it are not whole."""
    is_detour_left: bool = False
    """Whether anything of a detour is there."""


class Pin(NamedTuple):
    """What one link shall have. Addresses are integers, 0 stands for none."""

    mac: bytes
    address: int
    prefix: int
    gateway: int = 0
    """The router, when the default route is this link's."""
    mtu: int = 0
    docker: int = 0
    """The address that Docker gave."""
    is_alone: bool = True
    """Whether the container has no other network."""
    is_started: bool = True
    """Whether the engine has done with the namespace: until then it adds its default route, and must not find one."""
    not_its: frozenset[int] = frozenset()
    """Addresses of the link's subnet that are leased or reserved to others."""


class SetMtu(NamedTuple):
    ifindex: int
    mtu: int


class SetMac(NamedTuple):
    """Only on the router's own legs."""

    ifindex: int
    before: bytes
    mac: bytes


class Promote(NamedTuple):
    ifindex: int


class AddAddress(NamedTuple):
    address: Address


class RemoveAddress(NamedTuple):
    address: Address


class SetDefault(NamedTuple):
    """Replaces the default route of the main table."""

    route: Route


class SetDetour(NamedTuple):
    route: Route


class RemoveDetour(NamedTuple):
    pass


class Announce(NamedTuple):
    """Gratuitous ARP (RFC 5227 section 3), so that neighbours that knew another MAC learn this one."""

    ifindex: int
    mac: bytes
    address: int


Operation = SetMtu | SetMac | Promote | AddAddress | RemoveAddress | SetDefault | SetDetour | RemoveDetour | Announce


def plan(view: View, pins: Iterable[Pin]) -> list[Operation]:
    """What leads from ``view`` to the pins, in this order; nothing when it is so already.

    Pins of links that are not there, or not up, wait. At most one pin has a gateway.
    """
    links = {link.mac: link for link in view.links if link.is_up}
    return [operation for pin in pins if pin.mac in links for operation in _pin(view, links[pin.mac], pin)]


def _pin(view: View, link: Link, pin: Pin) -> Iterator[Operation]:
    if pin.mtu and link.mtu != pin.mtu:
        yield SetMtu(link.ifindex, pin.mtu)
    there = [one for one in view.addresses if one.ifindex == link.ifindex]
    changes = list(_address_changes(link, there, pin))
    yield from changes
    if pin.gateway:
        yield from _route_changes(view, link, pin)
    if any(isinstance(one, AddAddress) and one.address.address == pin.address for one in changes):
        yield Announce(link.ifindex, link.mac, pin.address)


def _address_changes(link: Link, there: Sequence[Address], pin: Pin) -> Iterator[Operation]:
    """First the lease, then away with what stands before it, then that again behind it."""
    siblings = [one for one in there if _is_sibling(one, pin)]
    place = next((at for at, one in enumerate(siblings) if one.address == pin.address), len(siblings))
    if place == len(siblings):
        yield AddAddress(Address(link.ifindex, pin.address, pin.prefix, link.name[: 15 - len(LABEL)] + LABEL))
    ahead = siblings[:place]
    if ahead and not link.promotes:
        yield Promote(link.ifindex)
    stale = [one for one in siblings[place + 1 :] if _is_stale(one, pin)]
    yield from (RemoveAddress(one) for one in ahead + stale)
    back = [one for one in ahead if not _is_stale(one, pin)]
    if pin.docker not in {0, pin.address, *pin.not_its, *(one.address for one in siblings)}:
        back.append(Address(link.ifindex, pin.docker, pin.prefix, link.name))
    yield from (AddAddress(one) for one in back)


def _is_sibling(one: Address, pin: Pin) -> bool:
    """In the lease's subnet: the kernel orders those among themselves."""
    return one.prefix == pin.prefix and one.address >> (32 - pin.prefix) == pin.address >> (32 - pin.prefix)


def _is_stale(one: Address, pin: Pin) -> bool:
    """An earlier lease of this link, or an address that is another's."""
    return (one.address != pin.docker and one.label.endswith(LABEL)) or one.address in pin.not_its


def _route_changes(view: View, link: Link, pin: Pin) -> Iterator[Operation]:
    """The default route by the router, with the lease as its source.

    Docker's own default route by another gateway (of another network) stays: the engine fails to connect a network when
    it cannot find and remove that, or finds another (20.10: any) route to where the network is. A detour goes before.
    """
    wanted = Route(link.ifindex, pin.gateway, pin.address)
    best = min(view.defaults, key=lambda one: one.metric, default=None)
    if best is None and not pin.is_started:
        return
    is_by_router = pin.is_alone if best is None else best[:2] == wanted[:2]
    if not is_by_router:
        yield from [SetDetour(wanted)] if view.detour != wanted else []
    else:
        yield from [SetDefault(wanted)] if best != wanted else []
        yield from [RemoveDetour()] if view.is_detour_left else []
