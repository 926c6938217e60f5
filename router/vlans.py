"""Reading ``[[vlan]]``: one VLAN's address plan, times, options and reservations, and what must hold among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network

from dhcpd.options import complete_routes
from dhcpd.settings import Boot, Scope
from dhcpd.values import boolean, duration, mac, shown, span, whole
from leasebroker.identity import container_name
from router.nodes import interface, ports, vlan_name
from router.plan import Plan
from router.reservations import SHORT_NAMES, Additions, Offered, read_boot, read_options, read_reservation
from router.settings import Vlan
from router.tables import Table

_WEEK = 7 * 86400
_SERVING = (
    "pools", "reservation", "options", *SHORT_NAMES, "next_server", "server_name", "boot_file", "lease_time",
    "min_lease_time", "max_lease_time", "t1", "t2", "authoritative", "match_client_id", "known_only",
    "always_broadcast", "probe", "quarantine",
)  # fmt: skip
"""What only a VLAN's own server makes use of."""
_NOWHERE = IPv4Network("0.0.0.0/32")
"""Stands for a subnet that cannot be read while the rest of its VLAN is checked."""


@dataclass(slots=True)
class Neighbours:
    """What is known of the VLANs that were read before, those with errors too, and of the WAN."""

    names: list[str] = field(default_factory=list)
    subnets: dict[str, IPv4Network] = field(default_factory=dict)
    """Place -> subnet."""


def read_vlan(table: Table, before: Neighbours, additions: Additions) -> Vlan | None:
    """The VLAN of a ``[[vlan]]``, which is added to ``before``, with what is kept beside the file; None after an error
    that leaves no whole value."""
    name, tag = table.need("name", vlan_name), table.need("tag", whole(1, 4094))
    is_external = table.get("dhcp", _dhcp, "own") == "external"
    plan = Plan.read(table, is_external=is_external)
    network = table.get("network", container_name)
    if network is not None and "landing" not in table:
        table.error("landing", "is missing: Docker needs a part of the subnet for itself, outside the pools")
    bridge, leg = table.get("bridge", interface), table.get("interface", interface)
    for key, value in {"name": name, "tag": tag, "network": network, "bridge": bridge, "interface": leg}.items():
        if value is not None:
            table.errors.claim(key, value, table.place, table.at(key), value)
    _check_subnet(table, plan.subnet, before)
    before.names += [name] if name else []
    read = _external if is_external else _read_scope
    scope = read(table, name or "", plan, additions)
    encrypted_only, guard = table.get("encrypted_only", boolean, False), table.get("guard", boolean, False)
    if guard and is_external:
        table.error("guard", "needs the leases of all nodes, which another server has (dhcp is external)")
    router_ports = tuple(one for _, one in table.each("router_ports", ports))
    table.finish()
    if plan.subnet is None or tag is None:
        return None
    return Vlan(scope, tag, network, plan.landing, leg, bridge, encrypted_only, guard, router_ports)


def _dhcp(value: object) -> str:
    if value not in ("own", "external"):
        raise ValueError(f'expected "own" or "external", not {shown(value)}')
    return str(value)


def _without_effect(_value: object) -> None:
    raise ValueError("has no effect: another server serves this VLAN (dhcp is external)")


def _external(table: Table, name: str, plan: Plan, additions: Additions) -> Scope:
    """A VLAN that another server serves."""
    for key in _SERVING:
        table.get(key, _without_effect)
    additions.without_effect(name)
    return Scope(name, plan.subnet or _NOWHERE, plan.router or 0, (), plan.landing_range(), is_external=True)


def _check_subnet(table: Table, subnet: IPv4Network | None, before: Neighbours) -> None:
    if subnet is None:
        return
    for place, other in before.subnets.items():
        if subnet.overlaps(other):
            table.error("subnet", f"{subnet} overlaps {other} of {place}")
    before.subnets[table.place] = subnet


def _read_scope(table: Table, name: str, plan: Plan, additions: Additions) -> Scope:
    lease, shortest, longest = _read_lease_times(table)
    t1, t2 = _read_renewal(table)
    written, boot = {**plan.options(), **read_options(table, plan)}, read_boot(table, Boot())
    offered = Offered(written, complete_routes(written), boot)
    tables = table.tables("reservation")
    reservations = tuple(read_reservation(one, table.place, plan, offered) for one in tables)
    reservations += tuple(additions.read(name, table, plan, offered, reservations))
    return Scope(
        name,
        plan.subnet or _NOWHERE,
        plan.router or 0,
        tuple(pool for _, pool in plan.pools),
        plan.landing_range(),
        lease,
        shortest,
        longest,
        t1,
        t2,
        offered.options,
        boot,
        reservations,
        authoritative=table.get("authoritative", boolean, True),
        match_client_id=table.get("match_client_id", boolean, True),
        known_only=table.get("known_only", boolean, False),
        always_broadcast=frozenset(one for _, one in table.each("always_broadcast", mac)),
        probe=table.get("probe", boolean, True),
        quarantine=table.get("quarantine", duration, 3600),
    )


def _at_least_a_second(value: object) -> int:
    seconds = duration(value)
    if not seconds:
        raise ValueError(f"expected at least one second, not {shown(value)}")
    return seconds


def _read_lease_times(table: Table) -> tuple[int, int, int]:
    """Lease time, the shortest and the longest that a client gets when it asks; the range always has the first."""
    lease = table.get("lease_time", _at_least_a_second, 12 * 3600)
    shortest = table.get("min_lease_time", _at_least_a_second, min(120, lease))
    longest = table.get("max_lease_time", _at_least_a_second, max(_WEEK, lease))
    if shortest > lease:
        table.error("min_lease_time", f"{span(shortest)} is more than lease_time ({span(lease)})")
    if longest < lease:
        table.error("max_lease_time", f"{span(longest)} is less than lease_time ({span(lease)})")
    return lease, shortest, longest


def _fraction(value: object) -> float:
    if not isinstance(value, float) or not 0 < value < 1:
        raise ValueError(f"expected a part of the lease time such as 0.5, not {shown(value)}")
    return value


def _read_renewal(table: Table) -> tuple[float, float]:
    t1, t2 = table.get("t1", _fraction, 0.5), table.get("t2", _fraction, 0.875)
    if t1 >= t2:
        table.error("t1", f"{t1} is not less than t2 ({t2})")
    return t1, t2
