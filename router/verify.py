"""``lanward verify``: measured reachability against what the policy says, one row per pair and service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from dhcpd.pool import dotted
from router import NotRunningError, client, policy
from router.config import load
from router.policy import ROUTER, End, Row
from router.probe import Enter, measure
from router.settings import Config, Kind

_WORDS = {True: "yes", False: "no", None: "not measured"}

Lease = Mapping[str, Any]
"""An object of ``lanward leases --json``."""
Entrances = Callable[[Sequence[End]], Enter]
"""All nodes -> how to enter those that can be measured from, the router among them."""


def only_the_router(_: Sequence[End]) -> Enter:
    """The calling thread is in the router's network namespace, and can enter no other."""
    return {ROUTER: nullcontext}


def verify(state: Path, internet: IPv4Address | None, entrances: Entrances = only_the_router, *, as_json: bool) -> int:
    """Measure the running service whose state folder is ``state``, print the rows; 1 when any differs, else 0.

    ``internet``: what stands for it, the uplink's gateway when None. Raises `NotRunningError` and `ConfigError`.
    """
    config = load(Path(client.get(state, "/status")["config"]))
    target = internet or (gateway() if config.wan else None)
    outside = [] if target is None else [policy.internet(int(target))]
    known = nodes(config, client.get(state, "/leases"))
    rows = policy.expected(config, known, outside)
    try:
        measured = present(rows, measure(rows, entrances(known)), neighbours())
    except PermissionError:
        raise NotRunningError("not permitted to send echo requests: run as root or with NET_RAW") from None
    shown = [_shown(row, result) for row, result in zip(rows, measured, strict=True)]
    if as_json:
        print(json.dumps(shown, indent=2))
    else:
        print(*table(shown), sep="\n")
    return int(any(differs(row, result) for row, result in zip(rows, measured, strict=True)))


def differs(row: Row, measured: bool | None) -> bool:
    return measured is not None and measured != row.expected


def nodes(config: Config, leases: Iterable[Lease]) -> list[End]:
    """Who holds a lease in a VLAN of the configuration, and who has a reservation with an address there."""
    names = {vlan.scope.name for vlan in config.vlans}
    found = [one for one in leases if one["vlan"] in names and one["state"] in ("bound", "reserved")]
    return [_node(config, one) for one in found]


def _node(config: Config, lease: Lease) -> End:
    """A reservation with a MAC passes the source guard without a lease."""
    (vlan,) = [vlan for vlan in config.vlans if vlan.scope.name == lease["vlan"]]
    address = int(IPv4Address(lease["address"]))
    reserved = next((one for one in vlan.scope.reservations if one.address == address), None)
    name = lease["container"] or lease["hostname"] or (reserved.name if reserved else "")
    leased = lease["state"] == "bound" or (reserved is not None and bool(reserved.macs))
    return policy.node(vlan.scope.name, name, address, leased=leased)


def present(rows: Sequence[Row], measured: Sequence[bool | None], known: set[int]) -> list[bool | None]:
    """None for what is asked of a node that is switched off: it does not even answer the router's ARP.

    ``known``: the addresses whose MAC the router knows.
    """
    pairs = list(zip(rows, measured, strict=True))
    silent = {row.target for row, result in pairs if row.source == ROUTER and result is False}
    away = {end for end in silent if end.kind is Kind.NODE and end.address not in known}
    return [None if row.target in away else result for row, result in pairs]


def neighbours(table: Path = Path("/proc/net/arp")) -> set[int]:
    """The addresses whose MAC the kernel knows (``ATF_COM``)."""
    lines = [line.split() for line in table.read_text().splitlines()[1:]]
    return {int(IPv4Address(line[0])) for line in lines if int(line[2], 16) & 2}


def gateway(table: Path = Path("/proc/net/route")) -> IPv4Address | None:
    """The router of the default route with the lowest metric."""
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    found = [(int(row[6]), row[2]) for row in rows if row[1] == row[7] == "0" * 8 and int(row[3], 16) & 2]
    return IPv4Address(int(min(found)[1], 16).to_bytes(4, "little")) if found else None


def _shown(row: Row, measured: bool | None) -> dict[str, Any]:
    return {
        "source": str(row.source),
        "target": str(row.target),
        "address": dotted(row.target.address),
        "service": str(row.service),
        "expected": row.expected,
        "measured": measured,
    }


def table(shown: Iterable[Mapping[str, Any]]) -> list[str]:
    """The lines of ``lanward verify``."""
    rows = [("SOURCE", "TARGET", "ADDRESS", "SERVICE", "EXPECTED", "MEASURED")]
    for one in shown:
        words = (_WORDS[one["expected"]], _WORDS[one["measured"]])
        mark = " DIFFERS" if one["measured"] not in (None, one["expected"]) else ""
        rows.append((one["source"], one["target"], one["address"], one["service"], words[0], words[1] + mark))
    return client.columns(rows)
