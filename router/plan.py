"""The address plan of a VLAN: who owns which part of its subnet."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from dhcpd import opt
from dhcpd.options import BROADCAST_ADDRESS, ROUTERS
from dhcpd.pool import Range, dotted
from dhcpd.values import address, network, shown, text
from router.tables import Table


def options_of(subnet: IPv4Network, router: int) -> dict[int, bytes]:
    """What follows from a plan: subnet mask, router, broadcast address (RFC 2132 sections 3.3, 3.5 and 5.3)."""
    return {
        opt.SUBNET_MASK: subnet.netmask.packed,
        ROUTERS: router.to_bytes(4, "big"),
        BROADCAST_ADDRESS: subnet.broadcast_address.packed,
    }


def unusable(subnet: IPv4Network, number: int) -> str | None:
    """Why no host of a subnet can have an address, None when one can."""
    if IPv4Address(number) not in subnet:
        return f"{dotted(number)} is outside {subnet}"
    if subnet.prefixlen > 30:  # RFC 3021
        return None
    names = dict(zip(_ends(subnet), ("network", "broadcast"), strict=True))
    return f"{dotted(number)} is the {names[number]} address of {subnet}" if number in names else None


def _subnet(value: object) -> IPv4Network:
    found = network(value)
    if not 8 <= found.prefixlen <= 30:
        raise ValueError(f"{found} has the wrong size, expected /8 to /30")
    if found.is_multicast or found.is_loopback or found.is_reserved or found.network_address.packed[0] == 0:
        raise ValueError(f"{found} is not for hosts")
    return found


def _pool(value: object) -> Range:
    first, dash, last = text(value).partition("-")
    if not dash:
        raise ValueError(f'expected a range such as "10.0.1.100-10.0.1.199", not {shown(value)}')
    found = Range(address(first.strip()), address(last.strip()))
    if found.last < found.first:
        raise ValueError(f"{shown(value)} ends before it starts")
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """The router's address, the landing range and the pools of a subnet; what could not be read is None."""

    subnet: IPv4Network | None
    router: int | None
    landing: IPv4Network | None
    pools: list[tuple[str, Range]]

    @classmethod
    def read(cls, table: Table, *, is_external: bool) -> Plan:
        """The plan of a ``[[vlan]]``, with an error for each part that is outside the subnet or meets another. Where
        another server serves it, the pools are that one's."""
        subnet, router = table.need("subnet", _subnet), table.need("router", address)
        pools = [] if is_external else table.each("pools", _pool)
        if "pools" not in table and not is_external:
            table.error("pools", "is missing; write [] when only reservations are served")
        plan = cls(subnet, router, table.get("landing", network), pools)
        plan._check(table)
        return plan

    def options(self) -> dict[int, bytes]:
        return {} if self.subnet is None or self.router is None else options_of(self.subnet, self.router)

    def landing_range(self) -> Range | None:
        """The landing range without the subnet's first and last address, which Docker skips as well."""
        if self.landing is None or self.subnet is None:
            return None
        first, last = _ends(self.subnet)
        return Range(max(int(self.landing[0]), first + 1), min(int(self.landing[-1]), last - 1))

    def unusable(self, number: int) -> str | None:
        """Why no host of the subnet can have an address, None when one can, or when the subnet could not be read."""
        return None if self.subnet is None else unusable(self.subnet, number)

    def taken(self, number: int) -> str | None:
        """Why no reservation can have an address."""
        landing = self.landing_range()
        if number == self.router:
            return f"{dotted(number)} is the router's address"
        if landing is not None and number in landing:
            return f"{dotted(number)} is in the landing range {self.landing}"
        return self.unusable(number)

    def _check(self, table: Table) -> None:
        if self.router is not None and (why := self.unusable(self.router)):
            table.error("router", why)
        if self.landing is not None and (why := self._bad_landing(self.landing)):
            table.error("landing", why)
        for index, (place, pool) in enumerate(self.pools):
            if why := self._bad_pool(pool, self.pools[:index]):
                table.errors.add(place, why)

    def _bad_landing(self, landing: IPv4Network) -> str | None:
        if self.subnet is not None and not landing.subnet_of(self.subnet):
            return f"{landing} is outside {self.subnet}"
        if self.router is not None and IPv4Address(self.router) in landing:
            return f"{landing} contains the router's address {dotted(self.router)}"
        found = self.landing_range()
        return f"{landing} has no address for a host" if found is not None and found.size < 1 else None

    def _bad_pool(self, pool: Range, before: list[tuple[str, Range]]) -> str | None:
        if why := self.unusable(pool.first) or self.unusable(pool.last):
            return why
        if self.router is not None and self.router in pool:
            return f"{pool} contains the router's address {dotted(self.router)}"
        landing = self.landing_range()
        if landing is not None and pool.overlaps(landing):
            return f"{pool} overlaps the landing range {self.landing}"
        other = next((one for one in before if pool.overlaps(one[1])), None)
        return f"{pool} overlaps {other[1]} of {other[0]}" if other else None


def _ends(subnet: IPv4Network) -> tuple[int, int]:
    return int(subnet.network_address), int(subnet.broadcast_address)
