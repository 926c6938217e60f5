"""``GET /metrics``: the Prometheus text format, version 0.0.4."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhcpd.histogram import Histogram
from router.view import status

if TYPE_CHECKING:
    from router.app import App

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PATHS = ("namespace", "start", "reconcile")
ADOPTIONS = ("adopted", "healed", "repaired")
"""What `leasebroker.known.Known` counts."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def metrics(app: App) -> str:
    """All there is of a running service, ending with a newline."""
    shown = status(app)
    lines = [*of_status(shown), *_of_times(app), *_of_service(app, shown), *_of_process()]
    return "\n".join([*lines, ""])


def of_status(shown: Mapping[str, Any]) -> Iterator[str]:
    """What `router.view.status` tells, as metrics."""
    vlans, firewall = shown["vlans"], shown["firewall"]
    yield from _of_vlans("lanward_leases", "gauge", "Leases by state.", vlans, "leases", "state")
    yield from _of_vlans(
        "lanward_pool_addresses", "gauge", "Pool addresses: all, and never given.", vlans, "pool", "kind"
    )
    yield from _of_vlans("lanward_packets_received_total", "counter", "Client messages.", vlans, "received", "type")
    yield from _of_vlans("lanward_packets_sent_total", "counter", "Server messages.", vlans, "sent", "type")
    yield from _of_vlans("lanward_packets_dropped_total", "counter", "Not answered.", vlans, "dropped", "reason")
    yield from _of_vlans("lanward_errors_total", "counter", "Failed operations.", vlans, "errors", "operation")
    for name, kind, text, part in (
        ("lanward_offers", "gauge", "Offers that stand.", "offers"),
        ("lanward_lost_datagrams_total", "counter", "Lost to a full buffer.", "lost_datagrams"),
    ):
        yield from _family(name, kind, text, (({"vlan": vlan["name"]}, vlan[part]) for vlan in vlans))
    yield from _one(
        "lanward_rules_repaired_total", "counter", "Rules that somebody else had changed.", firewall["repairs"]
    )
    is_fine = int(firewall["error"] is None)
    yield from _one(
        "lanward_rules_as_configured", "gauge", "Whether the kernel has the configuration's rules.", is_fine
    )
    relayed = (
        ({"broadcast": name, "outcome": outcome}, value)
        for name, counts in firewall["broadcasts"].items()
        for outcome, value in counts.items()
    )
    yield from _family("lanward_broadcasts_total", "counter", "Relayed broadcasts by rule and outcome.", relayed)
    if shown["docker"] is not None:
        yield from _of_docker(shown["docker"])


def _of_docker(docker: Mapping[str, Any]) -> Iterator[str]:
    counts = docker["pins"]
    pins = (({"path": path}, counts.get(path, 0)) for path in PATHS)
    yield from _family("lanward_pins_total", "counter", "Leases put on a container's link, by what made us look.", pins)
    drift = counts.get("drift", 0)
    yield from _one("lanward_pin_drift_repaired_total", "counter", "Pins that somebody else had changed.", drift)
    made = (({"outcome": one}, counts.get(one, 0)) for one in ADOPTIONS)
    yield from _family("lanward_adoptions_total", "counter", "Changes to Docker's records of containers at rest.", made)
    text = "Warnings about containers, their networks and Docker."
    yield from _one("lanward_container_problems", "gauge", text, len(docker["warnings"]))


def _of_times(app: App) -> Iterator[str]:
    host = app.host
    for what, text, histogram in (
        ("offer", "From reading a message until an OFFER, or what else needs no commit, left.", host.offer_seconds),
        ("ack", "From reading a REQUEST until its ACK has left, its lease on the disk.", host.ack_seconds),
        ("commit", "Writing leases to the disk, many at a time.", host.commit_seconds),
        ("pin", "From finding a container's link without its lease until it has it.", app.containers.pin_seconds),
    ):
        yield from histogram_lines(f"lanward_{what}_duration_seconds", text, histogram)


def histogram_lines(name: str, text: str, one: Histogram) -> Iterator[str]:
    yield from _head(name, "histogram", text)
    yield from (f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in one.buckets())
    yield f"{name}_sum {one.sum!r}"
    yield f"{name}_count {one.count}"


def _of_service(app: App, shown: Mapping[str, Any]) -> Iterator[str]:
    standing = (({"kind": kind}, count) for kind, count in app.lookout.warnings.counts().items())
    yield from _family("lanward_warnings", "gauge", "Warnings that stand, by kind.", standing)
    if (looked := app.containers.looked_at) is not None:
        text = "Seconds since all containers were looked at."
        yield from _one("lanward_reconcile_age_seconds", "gauge", text, round(max(0.0, time.time() - looked), 3))
    yield from _one("lanward_history_bytes", "gauge", "The history's size on the disk.", app.history.size())
    lost = app.history.lost
    yield from _one("lanward_history_lost_total", "counter", "Changes that the history could not take.", lost)
    yield from _family("lanward_build_info", "gauge", "The version.", [({"version": shown["version"]}, 1)])


def _of_process() -> Iterator[str]:
    """As Prometheus's own client libraries name them."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    yield from _one("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident)
    used = (int(fields[11]) + int(fields[12])) / ticks
    yield from _one("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", used)
    started = round(booted + int(fields[19]) / ticks, 2)
    yield from _one("process_start_time_seconds", "gauge", "Start time since the epoch in seconds.", started)


def _of_vlans(
    name: str, kind: str, text: str, vlans: Iterable[Mapping[str, Any]], part: str, label: str
) -> Iterator[str]:
    samples = (({"vlan": vlan["name"], label: key}, value) for vlan in vlans for key, value in vlan[part].items())
    return _family(name, kind, text, samples)


def _one(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    return _family(name, kind, text, [({}, value)])


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield from _head(name, kind, text)
    for labels, value in samples:
        written = ",".join(f'{key}="{str(one).translate(_ESCAPES)}"' for key, one in labels.items())
        yield f"{name}{{{written}}} {value}" if written else f"{name} {value}"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"
