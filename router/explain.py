"""Why a node has the address that it has, or none: what every part of the system knows of it, each with its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Any, NamedTuple

from dhcpd.engine import Engine
from dhcpd.identity import BY_CLIENT_ID, container_key, container_of
from dhcpd.leases import BOUND, NEVER, Binding
from dhcpd.pool import dotted
from dhcpd.settings import Reservation
from router.places import reservation_of
from router.text import hardware_address
from router.times import iso_time
from router.view import lease_state, reservation_fields

if TYPE_CHECKING:
    from leasebroker.known import Record
    from router.app import App

MAX_FOUND = 20
"""Nodes in one answer."""
SLICE = 2000


class _Found(NamedTuple):
    engine: Engine
    address: int | None
    """None for a container without a lease, and for who has none and none reserved."""
    record: Record | None
    reservation: Reservation | None


async def explain(app: App, asked: str) -> list[dict[str, Any]]:
    """What there is to say of a node, for each VLAN that it is on; ``asked`` is an address, a MAC, a container, a host
    name or a reservation's name, alone or behind ``vlan/``.

    ``[{"vlan", "address", "identity", "reservation", "lease", "pool", "container", "docker", "namespace", "why"}]``;
    all but the VLAN may be null, ``why`` is a sentence.
    """
    vlan, _, name = asked.encode(errors="replace").decode().rpartition("/")
    engines = [one.engine for key, one in app.servers.items() if vlan in ("", key)]
    found = [each for engine in engines for each in await _search(app, engine, name)]
    return list(await asyncio.gather(*(_told(app, one) for one in found[:MAX_FOUND])))


async def _search(app: App, engine: Engine, name: str) -> list[_Found]:
    """The node of that address, MAC or name on one VLAN."""
    records = [one for one in app.containers.records() if one.leg.vlan == engine.scope.name]
    of_address = {one.address: one for one in records if one.address is not None}
    try:
        address = int(IPv4Address(name))
    except AddressValueError:
        addresses = [one.address for one in records if one.address is not None and _is_named(one, name)]
        known = _reserved(engine, name)
        addresses += [one.address for one in known if one.address is not None]
        free = [one for one in known if one.address is None]
        addresses += await _leased(engine, name, known)
        nowhere = [one for one in records if one.address is None and _is_named(one, name)]
    else:
        addresses = [address] if IPv4Address(address) in engine.scope.subnet else []
        nowhere, free = [], []
    found = [_Found(engine, one, of_address.get(one), _reservation(engine, one)) for one in dict.fromkeys(addresses)]
    identify = engine.directory.identify_container
    found += [_Found(engine, None, one, identify(one.identity).reservation) for one in nowhere]
    shown = [one.reservation for one in found]
    return found + [_Found(engine, None, None, one) for one in free if one not in shown]


async def _leased(engine: Engine, name: str, reserved: Sequence[Reservation]) -> list[int]:
    """Who is known by that name or MAC in the lease book, or by one of these reservations, whose names are nobody
    else's. The book may be long: the loop turns meanwhile."""
    found: list[int] = []
    mac, key = hardware_address(name), container_key(name)
    is_reserved = any(one.name == name for one in reserved)
    bindings = list(engine.book)
    for start in range(0, len(bindings), SLICE):
        part = bindings[start : start + SLICE]
        found += [one.address for one in part if one.mac == mac or one.client == key]
        found += [one.address for one in part if one.hostname == name and not is_reserved]
        found += [one.address for one in part if reserved and _holder_of(engine, one) in reserved]
        await asyncio.sleep(0)
    return found


def _reserved(engine: Engine, name: str) -> list[Reservation]:
    mac = hardware_address(name)
    known = engine.directory.reservations
    return [one for one in known if name in (one.name, one.container) or mac in one.macs]


def _reservation(engine: Engine, address: int) -> Reservation | None:
    """The one of that address, else that of the node which has it."""
    binding = engine.book.by_address.get(address)
    if (reserved := engine.directory.by_address.get(address)) is not None or binding is None:
        return reserved
    return _holder_of(engine, binding)


def _holder_of(engine: Engine, binding: Binding) -> Reservation | None:
    return reservation_of(engine.directory, binding) if binding.state == BOUND else None


def _is_named(one: Record, name: str) -> bool:
    return name in (one.name, one.identity, one.container[:12])


async def _told(app: App, found: _Found) -> dict[str, Any]:
    engine, address, record, reservation = found
    now, offset = app.now(), app.clock_offset()
    binding = None if address is None else engine.book.by_address.get(address)
    facts = {"docker": None, "namespace": None} if record is None else await app.containers.facts(record)
    return {
        "vlan": engine.scope.name,
        "address": None if address is None else dotted(address),
        "identity": _identity(binding, record, reservation),
        "reservation": None if reservation is None else reservation_fields(reservation),
        "lease": None if binding is None else _lease(binding, now, offset),
        "pool": None if address is None else _pool(engine, address),
        "container": None if record is None else _container(record),
        **facts,
        "why": _why(engine, found, binding, now),
    }


def _identity(binding: Binding | None, record: Record | None, reservation: Reservation | None) -> dict[str, Any] | None:
    """Whom the lease belongs to."""
    client = b"" if binding is None else binding.client
    container = record.identity if record is not None else container_of(client)
    if container is None and binding is None and reservation is not None:
        container = reservation.container
    if container:
        return {"kind": "container", "value": container}
    if client[:1] == BY_CLIENT_ID:
        return {"kind": "client identifier", "value": client[1:].hex(":")}
    if binding is not None and binding.mac:
        return {"kind": "hardware address", "value": binding.mac.hex(":")}
    return None


def _lease(one: Binding, now: float, offset: float) -> dict[str, Any]:
    return {
        "state": lease_state(one, now),
        "mac": one.mac.hex(":") or None,
        "hostname": one.hostname or None,
        "since": iso_time(one.since + offset),
        "expires": None if one.expires == NEVER else iso_time(one.expires + offset),
    }


def _pool(engine: Engine, address: int) -> dict[str, Any]:
    own = next((one for one in engine.scope.pools if address in one), None)
    return {"range": None if own is None else str(own), "offered": address in _offered(engine)}


def _offered(engine: Engine) -> set[int]:
    return {offer.address for _, offer in engine.standing_offers()}


def _container(one: Record) -> dict[str, Any]:
    return {
        "name": one.name,
        "id": one.container[:12],
        "network": one.leg.network,
        "state": one.state,
        "pinned": None if one.pinned_at is None else iso_time(one.pinned_at),
        "path": one.path,
        "problems": list(one.problems),
    }


def _why(engine: Engine, found: _Found, binding: Binding | None, now: float) -> str:
    """The one sentence."""
    address, scope, reservation = found.address, engine.scope, found.reservation
    if address is None and found.record is None:
        return "the configuration knows it and fixes no address: it gets one of the pools when it asks"
    if address is None:
        return "it has no address: there is none for it, or it has not asked yet"
    if address == scope.router:
        return "it is the router's own address"
    if scope.landing is not None and address in scope.landing:
        return "it is in the landing range, which Docker hands out by itself; no lease is ever there"
    if reservation is not None and reservation.address == address:
        held = "" if binding is not None and binding.is_live(now) else ", who does not hold it at the moment"
        return f"the configuration reserves it for {reservation.name or 'this node'}{held}"
    if binding is not None:
        return _why_leased(engine, binding, now)
    if address in _offered(engine):
        return "it is on offer to a node that has not taken it yet"
    return "it is nobody's" + ("" if address in engine.pool else ", and in no pool")


def _why_leased(engine: Engine, binding: Binding, now: float) -> str:
    if engine.scope.is_external:
        return "another DHCP server, which serves this VLAN, granted it"
    state = lease_state(binding, now)
    if state == "declined":
        return "nobody gets it: a station that has no lease for it answers there, or its holder declined it"
    if not engine.allocator.fits(binding):
        return "it was granted under an earlier configuration, which had a place for it; the present one has none"
    if binding.address not in engine.pool:
        return "the container asked for it, and it was free"
    if state == "expired":
        return "it was this node's; the lease has ended, and the address is kept for it as long as another is free"
    return "it was free when this node first asked, and is kept for it"
