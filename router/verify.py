"""``lanward verify``: measured reachability against what the policy says, one row per pair and service."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

from dhcpd.pool import dotted
from router import NotRunningError, client, kept, late, policy
from router.config import load
from router.entrances import Entrances, Shown, opened, running
from router.places import Name, placed, unplaced
from router.policy import ROUTER, End, Row
from router.probe import measure
from router.settings import Config, Kind
from router.text import harmless

_WORDS = {True: "yes", False: "no", None: "not measured"}

Lease = Mapping[str, Any]
"""An object of ``lanward leases --json``."""


class Known(NamedTuple):
    """What the running service knows."""

    config: Config
    placed: Config
    """The same, with the nodes of its exceptions where the rules have them."""
    nodes: list[End]
    running: dict[End, Shown]
    """Its containers that run."""
    idle: set[End]
    """The other containers with a lease: they do not run, or were removed."""
    is_certain: bool
    """Whether it hears from Docker which containers run."""

    @property
    def stopped(self) -> set[End]:
        return self.idle if self.is_certain else set()


class Outcome(NamedTuple):
    """What was asked, and what came back."""

    rows: list[Row]
    measured: list[bool | None]
    heard: set[int]
    """The addresses whose MAC the router knows."""
    entrances: Entrances
    """Closed already."""


def verify(state: Path, internet: IPv4Address | None, *, as_json: bool) -> int:
    """Measure the running service whose state folder is ``state``, print the rows; 1 when any differs, else 0.

    ``internet``: what stands for it, the uplink's gateway when None. Raises `NotRunningError` and `ConfigError`.
    """
    known = ask(state)
    outcome = look(known, internet)
    measured, notes = conclude(known, outcome, ask(state) if known.running else known)
    for note in notes:
        print(harmless(note), file=sys.stderr)
    rows = outcome.rows
    found = [shown(row, result) for row, result in zip(rows, measured, strict=True)]
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print(*table(found), sep="\n")
    return int(any(differs(row, result) for row, result in zip(rows, measured, strict=True)))


def look(known: Known, internet: IPv4Address | None, go_on: Callable[[], bool] = lambda: True) -> Outcome:
    """Measure; takes seconds, and ends early when ``go_on`` says that nobody wants to know any more. The calling thread
    is in the router's network namespace; it enters those of the containers, and is back at the end. Raises
    `NotRunningError`."""
    config = known.config
    target = internet or (detour() or gateway() if config.wan else None)
    rows = policy.expected(known.placed, known.nodes, [] if target is None else [policy.internet(int(target))])
    with opened(known.running, Path(config.docker.netns)) as entrances:
        measured = _measure(rows, entrances, go_on)
    return Outcome(rows, measured, neighbours(), entrances)


def conclude(known: Known, outcome: Outcome, after: Known) -> tuple[list[bool | None], list[str]]:
    """What each row of an outcome says, and a line for each reason why some were not measured. ``after``: what the
    service knows when all is measured."""
    moved = changed(known, after)
    measured = present(outcome.rows, outcome.measured, outcome.heard, known.running, known.stopped | moved)
    return measured, _unmeasured(known, outcome.entrances, moved)


def ask(state: Path) -> Known:
    """Raises `NotRunningError` and `ConfigError`."""
    status = client.get(state, "/status")
    config = load(Path(status["config"]), kept.read(state)[0])
    places = {_vlan_and_name(node): int(IPv4Address(at)) for node, at in status["firewall"]["nodes"].items()}
    return known_by(config, client.get(state, "/leases"), status["docker"], places)


def _vlan_and_name(node: str) -> Name:
    vlan, _, name = node.partition("/")
    return vlan, name


def known_by(
    config: Config, leases: Iterable[Lease], docker: Mapping[str, Any] | None, places: Mapping[Name, int]
) -> Known:
    """From rows of ``/leases``, what ``/status`` says of Docker, and where the nodes are that exceptions name."""
    found = _called(nodes(config, leases), config, places)
    docker = docker or {"connected": False, "containers": []}
    there = running(found, docker["containers"])
    served = {vlan.scope.name for vlan in config.vlans if vlan.network}
    idle = {end for end in found if end.is_container and end.vlan in served and end not in there}
    return Known(config, placed(config, places), found, there, idle, docker["connected"])


def _called(ends: Iterable[End], config: Config, places: Mapping[Name, int]) -> list[End]:
    """The ends, without the names that are another's, whatever they call themselves."""
    owners: dict[Name, int | None] = dict.fromkeys(unplaced(config))
    owners |= places
    for vlan in config.vlans:
        reserved = {(vlan.scope.name, one.name): one.address for one in vlan.scope.reservations}
        owners |= {name: address for name, address in reserved.items() if address is not None}
    return [
        end if owners.get((end.vlan or "", end.name), end.address) == end.address else replace(end, name="")
        for end in ends
    ]


def changed(before: Known, after: Known) -> set[End]:
    """The containers that are not what they were: stopped, started again, or with another address."""
    return {end for end, one in before.running.items() if not _is_same(one, after.running.get(end))}


def _is_same(one: Shown, other: Shown | None) -> bool:
    """A container that was started again was pinned again."""
    return other is not None and all(one.get(key) == other.get(key) for key in ("id", "address", "pinned"))


def _measure(rows: Sequence[Row], entrances: Entrances, go_on: Callable[[], bool]) -> list[bool | None]:
    asked = [row for row in rows if row.source == ROUTER or entrances.asks(row)]
    try:
        answers = measure(asked, {ROUTER: nullcontext, **entrances.enter}, go_on=go_on)
    except PermissionError:
        raise NotRunningError("not permitted to send echo requests: run as root or with NET_RAW") from None
    found = dict(zip(asked, answers, strict=True))
    return [found.get(row) for row in rows]


def _unmeasured(known: Known, entrances: Entrances, moved: Collection[End]) -> list[str]:
    """Which containers were not measured from, and why: a line for each reason."""
    places = entrances.places
    idle = "no such container runs" if known.is_certain else "Docker does not answer the service; see lanward status"
    reasons = (
        (known.idle, idle),
        (known.running.keys() - places.keys(), entrances.problem),
        (moved, "the container was stopped or changed meanwhile"),
        ({end for end, one in places.items() if not one.is_alone}, "what the container sends by another network"),
    )
    return [f"not measured from {', '.join(sorted(map(str, ends)))}: {why}" for ends, why in reasons if ends]


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
    return policy.node(vlan.scope.name, name, address, leased=leased, is_container=lease["container"] is not None)


def present(
    rows: Sequence[Row],
    measured: Sequence[bool | None],
    known: Collection[int],
    there: Collection[End] = (),
    gone: Collection[End] = (),
) -> list[bool | None]:
    """None for what is asked of a node that is switched off: it does not even answer the router's ARP.

    ``known``: the addresses whose MAC the router knows. ``there`` is known to be switched on, ``gone`` to be off.
    """
    pairs = list(zip(rows, measured, strict=True))
    silent = {row.target for row, result in pairs if row.source == ROUTER and result is False} - set(there)
    away = {end for end in silent if end.kind is Kind.NODE and end.address not in known}.union(gone)
    return [None if row.target in away or row.source in gone else result for row, result in pairs]


def neighbours(table: Path = Path("/proc/net/arp")) -> set[int]:
    """The addresses whose MAC the kernel knows (``ATF_COM``)."""
    lines = [line.split() for line in table.read_text().splitlines()[1:]]
    return {int(IPv4Address(line[0])) for line in lines if int(line[2], 16) & 2}


def gateway(table: Path = Path("/proc/net/route")) -> IPv4Address | None:
    """The router of the default route with the lowest metric."""
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    found = [(int(row[6]), row[2]) for row in rows if row[1] == row[7] == "0" * 8 and int(row[3], 16) & 2]
    return IPv4Address(int(min(found)[1], 16).to_bytes(4, "little")) if found else None


def detour() -> IPv4Address | None:
    """The router of the way to the WAN that `router.legs` put in front of Docker's default route."""
    with Path("/proc/thread-self/ns/net").open("rb") as own:
        found = late("leasebroker.netns").look(own.fileno()).detour
    return None if found is None else IPv4Address(found.gateway)


def shown(row: Row, measured: bool | None) -> dict[str, Any]:
    return {
        "source": str(row.source),
        "target": str(row.target),
        "address": dotted(row.target.address),
        "service": str(row.service),
        "expected": row.expected,
        "measured": measured,
    }


def table(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The lines of ``lanward verify``."""
    rows = [("SOURCE", "TARGET", "ADDRESS", "SERVICE", "EXPECTED", "MEASURED")]
    for one in found:
        words = (_WORDS[one["expected"]], _WORDS[one["measured"]])
        mark = " DIFFERS" if one["measured"] not in (None, one["expected"]) else ""
        rows.append((one["source"], one["target"], one["address"], one["service"], words[0], words[1] + mark))
    return client.columns(rows)
