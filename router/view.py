"""What the service shows of itself: leases and status as plain values."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dhcpd.engine import Engine
from dhcpd.identity import container_of
from dhcpd.leases import BOUND, NEVER, Binding
from dhcpd.pool import dotted
from dhcpd.server import Server
from dhcpd.settings import Reservation
from router.times import iso_time

if TYPE_CHECKING:
    from router.app import App

JsonObject = dict[str, Any]


def lease_state(binding: Binding, now: float) -> str:
    """``bound``, ``expired`` or ``declined``."""
    if binding.state != BOUND:
        return "declined"
    return "bound" if binding.expires > now else "expired"


def lease_addresses(engine: Engine) -> list[int]:
    """What a list of leases shows, ascending: every binding, and every reservation with an address."""
    return sorted(engine.book.by_address.keys() | engine.directory.by_address.keys())


def lease(engine: Engine, address: int, now: float, offset: float) -> JsonObject | None:
    """One row of ``lanward leases``; None when the address is nobody's (any more).

    ``offset``: seconds to add to service time to get the wall clock's.
    """
    binding = engine.book.by_address.get(address)
    reservation = engine.directory.by_address.get(address)
    if binding is None and reservation is None:
        return None
    row: JsonObject = {
        "vlan": engine.scope.name, "address": dotted(address), "kind": "device", "state": "reserved", "mac": None,
        "client_id": None, "hostname": None, "container": None, "expires": None,
    }  # fmt: skip
    if reservation is not None:
        row["hostname"] = reservation.name or None
        row["container"] = reservation.container
        row["mac"] = reservation.macs[0].hex(":") if reservation.macs else None
        row["client_id"] = reservation.client_id.hex(":") if reservation.client_id else None
    if binding is not None:
        row["state"] = lease_state(binding, now)
        row["mac"] = binding.mac.hex(":") or row["mac"]
        row["client_id"] = binding.client_id.hex(":") or row["client_id"]
        row["hostname"] = binding.hostname or row["hostname"]
        row["container"] = container_of(binding.client) or row["container"]
        if binding.expires != NEVER:
            row["expires"] = iso_time(binding.expires + offset)
        row["fits"] = engine.allocator.fits(binding)
    if row["container"]:
        row["kind"] = "container"
    return row


def reservation_fields(one: Reservation) -> JsonObject:
    """``name``, ``address``, ``macs``, ``client_id`` and ``container``."""
    return {
        "name": one.name,
        "address": None if one.address is None else dotted(one.address),
        "macs": [mac.hex(":") for mac in one.macs],
        "client_id": one.client_id.hex(":") if one.client_id else None,
        "container": one.container,
    }


def lease_counts(engine: Engine, now: float) -> Counter[str]:
    """Leases by state."""
    counts = Counter({"bound": 0, "expired": 0, "declined": 0, "reserved": 0})
    counts.update(lease_state(binding, now) for binding in engine.book)
    counts["reserved"] = sum(address not in engine.book.by_address for address in engine.directory.by_address)
    return counts


def status(app: App) -> JsonObject:
    """What ``GET /status`` answers."""
    now = app.now()
    return {
        "version": version("lanward"),
        "config": str(app.path),
        "state": str(app.state),
        "since": iso_time(app.started),
        "api": None if app.listening is None else "{}:{}".format(*app.listening),
        "vlans": [vlan_status(server, now) for server in app.servers.values()],
        "firewall": app.forwarding.status(),
        "docker": app.containers.status(),
        "warnings": [one.shown() for one in app.lookout.warnings],
    }


def vlan_status(server: Server, now: float) -> JsonObject:
    """One VLAN of ``GET /status``; ``free`` counts the pool addresses that nobody has or had."""
    engine = server.engine
    taken = sum(address in engine.pool for address in engine.book.by_address)
    return {
        "name": engine.scope.name,
        "subnet": str(engine.scope.subnet),
        "router": dotted(engine.scope.router),
        "interface": server.link.interface,
        "dhcp": "external" if engine.scope.is_external else "own",
        "pool": {"size": engine.pool.size, "free": engine.pool.size - taken},
        "leases": lease_counts(engine, now),
        "offers": engine.offers,
        "received": engine.received,
        "sent": engine.sent,
        "dropped": engine.dropped,
        "errors": server.errors,
        "lost_datagrams": server.link.lost_datagrams(),
    }
