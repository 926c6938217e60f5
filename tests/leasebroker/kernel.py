"""A model of the kernel's IPv4 addresses and default routes in one namespace, and the words for what is done to it.

`tests.leasebroker.test_netns` holds it against the real one.
"""

from __future__ import annotations

from collections.abc import Iterable

from dhcpd.pool import dotted
from leasebroker.plan import (
    AddAddress,
    Address,
    Announce,
    Link,
    Operation,
    Promote,
    RemoveAddress,
    RemoveDetour,
    Route,
    SetDefault,
    SetDetour,
    SetMac,
    SetMtu,
    View,
)

MTUS = range(68, 65536)


class RefusedError(Exception):
    """What the kernel, or a broker that has looked, does not do."""


def are_siblings(one: Address, other: Address) -> bool:
    shift = 32 - one.prefix
    return one.prefix == other.prefix and one.address >> shift == other.address >> shift


class Kernel:
    """Of the addresses of one subnet on one link the first is the primary one; all primary ones come first."""

    def __init__(self, links: Iterable[Link]) -> None:
        self.links = {one.ifindex: one for one in links}
        self.addresses: dict[int, list[Address]] = {ifindex: [] for ifindex in self.links}
        self.defaults: dict[int, Route] = {}
        """By metric."""
        self.detour: Route | None = None
        self.has_rules = False

    def view(self) -> View:
        return View(
            tuple(self.links.values()),
            tuple(one for link in self.addresses.values() for one in link),
            tuple(self.defaults[metric] for metric in sorted(self.defaults)),
            self.detour if self.has_rules else None,
            self.has_rules or self.detour is not None,
        )

    def do(self, operation: Operation) -> None:
        """Raises `RefusedError`."""
        match operation:
            case SetMtu(ifindex, mtu):
                self._need(ifindex in self.links and mtu in MTUS, operation)
                self.links[ifindex] = self.links[ifindex]._replace(mtu=mtu)
            case SetMac(ifindex, old, mac):
                self._need(ifindex in self.links and self.links[ifindex].mac == old, operation)
                self.links[ifindex] = self.links[ifindex]._replace(mac=mac)
            case Promote(ifindex):
                self._need(ifindex in self.links, operation)
                self.links[ifindex] = self.links[ifindex]._replace(promotes=True)
            case AddAddress(address):
                self._add(address)
            case RemoveAddress(address):
                self._remove(address)
            case SetDefault(route):
                self._check(route)
                self.defaults[route.metric] = route
            case SetDetour(route):
                self._check(route)
                self.detour, self.has_rules = route, True
            case RemoveDetour():
                self.detour, self.has_rules = None, False
            case Announce(ifindex, mac, address):
                self._need(self.links[ifindex].mac == mac and self._is_local(address), operation)

    def _need(self, condition: bool, what: object) -> None:
        if not condition:
            raise RefusedError(what)

    def _is_local(self, address: int) -> bool:
        return any(one.address == address for link in self.addresses.values() for one in link)

    def _find(self, wanted: Address) -> int | None:
        there = [(one.address, one.prefix) for one in self.addresses[wanted.ifindex]]
        return there.index(wanted[1:3]) if wanted[1:3] in there else None

    def _primaries(self, ifindex: int) -> list[Address]:
        there = self.addresses[ifindex]
        return [one for at, one in enumerate(there) if not any(are_siblings(one, other) for other in there[:at])]

    def _add(self, new: Address) -> None:
        """A first of its subnet goes behind the last primary one, another to the end."""
        self._need(new.ifindex in self.links and self._find(new) is None, new)
        there = self.addresses[new.ifindex]
        is_secondary = any(are_siblings(one, new) for one in there)
        there.insert(len(there) if is_secondary else len(self._primaries(new.ifindex)), new)

    def _remove(self, old: Address) -> None:
        """A primary one takes its secondary ones with it, or the first of those becomes the last primary one.
        A default route of the main table goes with its source, and all of a link with the last address of that."""
        at = self._find(old) if old.ifindex in self.links else None
        if at is None:
            raise RefusedError(old)
        there = self.addresses[old.ifindex]
        primaries = self._primaries(old.ifindex)
        heirs = [one for one in there[at + 1 :] if are_siblings(one, old)] if there[at] in primaries else []
        del there[at]
        if heirs and not self.links[old.ifindex].promotes:
            there[:] = [one for one in there if one not in heirs]
        elif heirs:
            there.remove(heirs[0])
            there.insert(len(primaries) - 1, heirs[0])
        self._sync_routes(old.ifindex)

    def _sync_routes(self, ifindex: int) -> None:
        is_bare = not self.addresses[ifindex]
        self.defaults = {
            metric: one
            for metric, one in self.defaults.items()
            if not (one.ifindex == ifindex and is_bare) and (not one.source or self._is_local(one.source))
        }
        if self.detour is not None and self.detour.ifindex == ifindex and is_bare:
            self.detour = None

    def _check(self, route: Route) -> None:
        """The gateway is on the link and not ourselves, the source is ours."""
        gateway = Address(route.ifindex, route.gateway, 0, "")
        near = [
            one
            for one in self.addresses.get(route.ifindex, ())
            if are_siblings(one, gateway._replace(prefix=one.prefix))
        ]
        self._need(bool(near) and self.links[route.ifindex].is_up and not self._is_local(route.gateway), route)
        self._need(not route.source or self._is_local(route.source), route)


def said(operation: Operation) -> str:
    """``add eth0 10.0.1.20/24 eth0:lw``, ``default eth0 10.0.1.1 from 10.0.1.20``; ``eth0`` is link 2."""
    names = {2: "eth0", 3: "eth1"}
    match operation:
        case SetMtu(ifindex, mtu):
            return f"mtu {names[ifindex]} {mtu}"
        case SetMac(ifindex, _, mac):
            return f"mac {names[ifindex]} {mac.hex(':')}"
        case Promote(ifindex):
            return f"promote {names[ifindex]}"
        case AddAddress(one):
            return f"add {names[one.ifindex]} {dotted(one.address)}/{one.prefix} {one.label}"
        case RemoveAddress(one):
            return f"remove {names[one.ifindex]} {dotted(one.address)}/{one.prefix}"
        case SetDefault(one):
            return f"default {names[one.ifindex]} {dotted(one.gateway)} from {dotted(one.source)}"
        case SetDetour(one):
            return f"detour {names[one.ifindex]} {dotted(one.gateway)} from {dotted(one.source)}"
        case RemoveDetour():
            return "no detour"
        case Announce(ifindex, _, address):
            return f"announce {names[ifindex]} {dotted(address)}"
