"""What the service shows of itself: leases, status and metrics as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dhcpd.engine import Engine
from dhcpd.identity import container_of
from dhcpd.leases import BOUND, NEVER, Binding
from dhcpd.pool import dotted
from dhcpd.server import Server

if TYPE_CHECKING:
    from router.app import App

JsonObject = dict[str, Any]

PATHS = ("namespace", "start", "reconcile")
ADOPTIONS = ("adopted", "healed", "repaired")
"""What `leasebroker.known.Known` counts."""


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
        row["fits"] = engine.fits(binding)
    if row["container"]:
        row["kind"] = "container"
    return row


def iso_time(seconds: float) -> str:
    """ISO 8601 in UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
        "vlans": [vlan_status(server, now) for server in app.servers.values()],
        "firewall": app.forwarding.status(),
        "docker": app.containers.status(),
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


def metrics(shown: JsonObject) -> Iterator[str]:
    """The lines of ``GET /metrics`` from what `status` gives."""
    vlans, firewall = shown["vlans"], shown["firewall"]
    yield from _family("lanward_leases", "gauge", "Leases by state.", vlans, "leases", "state")
    yield from _family(
        "lanward_pool_addresses", "gauge", "Pool addresses: all, and never given.", vlans, "pool", "kind"
    )
    yield from _family("lanward_packets_received_total", "counter", "Client messages.", vlans, "received", "type")
    yield from _family("lanward_packets_sent_total", "counter", "Server messages.", vlans, "sent", "type")
    yield from _family("lanward_packets_dropped_total", "counter", "Not answered.", vlans, "dropped", "reason")
    yield from _family("lanward_errors_total", "counter", "Failed operations.", vlans, "errors", "operation")
    yield from _single("lanward_offers", "gauge", "Offers that stand.", vlans, "offers")
    yield from _single("lanward_lost_datagrams_total", "counter", "Lost to a full buffer.", vlans, "lost_datagrams")
    yield from _head("lanward_rules_repaired_total", "counter", "Rules that somebody else had changed.")
    yield f"lanward_rules_repaired_total {firewall['repairs']}"
    yield from _head("lanward_broadcasts_total", "counter", "Relayed broadcasts by rule and outcome.")
    for name, counts in firewall["broadcasts"].items():
        for outcome, value in counts.items():
            yield f'lanward_broadcasts_total{{broadcast="{name}",outcome="{outcome}"}} {value}'
    if shown["docker"] is not None:
        yield from _docker_metrics(shown["docker"])


def _docker_metrics(docker: JsonObject) -> Iterator[str]:
    counts = docker["pins"]
    yield from _head("lanward_pins_total", "counter", "Leases put on a container's link, by what made us look.")
    yield from (f'lanward_pins_total{{path="{path}"}} {counts.get(path, 0)}' for path in PATHS)
    yield from _head("lanward_pin_drift_repaired_total", "counter", "Pins that somebody else had changed.")
    yield f"lanward_pin_drift_repaired_total {counts.get('drift', 0)}"
    yield from _head("lanward_adoptions_total", "counter", "Changes to Docker's records of containers at rest.")
    yield from (f'lanward_adoptions_total{{outcome="{one}"}} {counts.get(one, 0)}' for one in ADOPTIONS)
    yield from _head("lanward_container_problems", "gauge", "Warnings about containers, their networks and Docker.")
    yield f"lanward_container_problems {len(docker['warnings'])}"


def _family(name: str, kind: str, text: str, vlans: list[JsonObject], part: str, label: str) -> Iterator[str]:
    yield from _head(name, kind, text)
    for vlan in vlans:
        for key, value in vlan[part].items():
            yield f'{name}{{vlan="{vlan["name"]}",{label}="{key}"}} {value}'


def _single(name: str, kind: str, text: str, vlans: list[JsonObject], part: str) -> Iterator[str]:
    yield from _head(name, kind, text)
    for vlan in vlans:
        yield f'{name}{{vlan="{vlan["name"]}"}} {vlan[part]}'


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"
