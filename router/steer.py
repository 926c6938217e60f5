"""Steering by HTTP: reservations that are kept beside the operator's file, leases and quarantines to end.

Every answer but the export is JSON, ``{"error"}`` when it is no: 400 for what cannot be meant (a VLAN that is not
served, too), 404 for what is not there, 409 for what is in the way.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from dhcpd.engine import Engine
from dhcpd.identity import container_of
from dhcpd.leases import BOUND, Binding
from dhcpd.pool import dotted
from dhcpd.server import Server
from dhcpd.settings import Reservation
from dhcpd.values import address, client_id, mac
from leasebroker.identity import container_name
from router import RefusedError, kept
from router.config import ConfigError, parse
from router.nodes import node_name
from router.settings import Config, Entry
from router.view import reservation_fields

if TYPE_CHECKING:
    from router.app import App

Row = dict[str, Any]
Work = Callable[[web.Request], Awaitable[tuple[int, Any]]]

_IDENTITIES: Mapping[str, Callable[[object], object]] = {
    "mac": mac, "client_id": client_id, "container": container_name,
}  # fmt: skip
_READERS = {"name": node_name, **_IDENTITIES, "address": address}


class Steer:
    """The routes by which a running `App` is steered."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/reservations", _json(self._list)),
            web.post("/reservations", _json(self._reserve)),
            web.delete("/reservations/{vlan}/{node}", _json(self._unreserve)),
            web.post("/leases/{vlan}/{node}/reserve", _json(self._make_permanent)),
            web.delete("/leases/{vlan}/{node}", _json(self._drop)),
            web.delete("/quarantine/{vlan}/{node}", _json(self._clear)),
            web.get("/config/export", self._export),
        ]

    async def _list(self, _request: web.Request) -> tuple[int, list[Row]]:
        """A list of `rows`."""
        return 200, rows(self._app.config)

    async def _export(self, _request: web.Request) -> web.Response:
        """What is kept beside the file, as TOML for the file."""
        return web.Response(text=kept.export(self._app.config.kept))

    async def _reserve(self, request: web.Request) -> tuple[int, Row]:
        """``{"vlan", "name"?, "mac" | "client_id" | "container", "address"?}`` -> the row: 201, or 200 when it is so
        already."""
        values = await _object(request)
        return await self._add(values.pop("vlan", None), values)

    async def _make_permanent(self, request: web.Request) -> tuple[int, Row]:
        """``{"name"?}``, or nothing: as `_reserve`, for who has or had the address, or has that name."""
        values = await _object(request) if request.can_read_body else {}
        if values.keys() - {"name"}:
            raise RefusedError(400, 'expected {"name": NAME}, or nothing')
        vlan = request.match_info["vlan"]
        engine = self._server(vlan).engine
        binding = lease_of(engine, request.match_info["node"])
        if reservation := engine.directory.by_address.get(binding.address):
            return self._existing(engine, binding, reservation, values.get("name"))
        return await self._add(vlan, values | identity(engine, binding) | {"address": dotted(binding.address)})

    def _existing(self, engine: Engine, binding: Binding, one: Reservation, wanted: object) -> tuple[int, Row]:
        vlan = engine.scope.name
        if not engine.allocator.fits(binding) or wanted not in (None, one.name):
            raise RefusedError(409, f"{dotted(binding.address)} is reserved already, for {vlan}/{one.name}")
        return 200, self._row(vlan, one.name)

    async def _add(self, vlan: object, values: dict[str, Any]) -> tuple[int, Row]:
        app = self._app
        async with app.kept.lock:
            engine = self._server(vlan).engine
            wanted = checked(values)
            if same := already(engine.scope.reservations, wanted):
                return 200, self._row(engine.scope.name, same.name)
            entries = app.kept.entries
            entry = {"vlan": engine.scope.name, "name": name_for(engine, wanted, entries), **wanted}
            self._refuse_conflict(entries, entry)
            if errors := await app.keep([*entries, entry]):
                raise RefusedError(409, "; ".join(errors))
            return 201, self._row(engine.scope.name, entry["name"])

    def _refuse_conflict(self, entries: Sequence[Entry], entry: Entry) -> None:
        """What is set aside counts as well: it may be in force again, and then both cannot."""
        if len(entries) >= kept.MAX_KEPT:
            raise RefusedError(
                409, f"{len(entries)} are kept already: write them into the file, see lanward config export"
            )
        try:
            made = parse(self._app.text, [*entries, entry]).kept
        except ConfigError as error:
            raise RefusedError(409, "; ".join(error.errors)) from None
        if made[-1].why:
            raise RefusedError(409, made[-1].why)
        for one in made:
            shared = [key for key in _READERS if key in entry and one.entry.get(key) == entry[key]]
            if one.why and one.entry.get("vlan") == entry["vlan"] and shared:
                raise RefusedError(409, f"{entry[shared[0]]} is kept already: {kept.problem(one)}")

    async def _unreserve(self, request: web.Request) -> tuple[int, Row]:
        """By name or address -> ``{"vlan", "name", "address"}`` of what is taken out."""
        app, (vlan, node) = self._app, (request.match_info["vlan"], request.match_info["node"])
        async with app.kept.lock:
            entries = app.kept.entries
            found = kept.called(entries, vlan, node)
            if not found:
                self._refuse_to_unreserve(vlan, node)
            if errors := await app.keep([one for one in entries if one not in found]):
                raise RefusedError(409, "; ".join(errors))
        return 200, {key: found[0].get(key) for key in ("vlan", "name", "address")}

    def _refuse_to_unreserve(self, vlan: str, node: str) -> None:
        written = self._server(vlan).engine.scope.reservations
        for one in written:
            if node == one.name or (one.address is not None and node == dotted(one.address)):
                raise RefusedError(
                    409, f"{vlan}/{one.name} is written in {self._app.path}: take it out there, and reload"
                )
        raise RefusedError(404, f"nothing is reserved as {node} in {vlan}")

    async def _drop(self, request: web.Request) -> tuple[int, Row]:
        """-> ``{"vlan", "address"}``, which is nobody's any more."""
        server = self._server(request.match_info["vlan"])
        number = _address(request)
        binding = lease_of(server.engine, dotted(number))
        if (container := container_of(binding.client)) is not None:
            self._refuse_while_there(server.engine.scope.name, container)
        return await self._forget(server, number, server.engine.drop)

    async def _clear(self, request: web.Request) -> tuple[int, Row]:
        """-> ``{"vlan", "address"}``, which is in use again."""
        server = self._server(request.match_info["vlan"])
        number = _address(request)
        binding = server.engine.book.by_address.get(number)
        if binding is None or binding.state == BOUND:
            raise RefusedError(404, f"{dotted(number)} is not quarantined in {server.engine.scope.name}")
        return await self._forget(server, number, server.engine.clear)

    async def _forget(self, server: Server, number: int, forget: Callable[[int], Any]) -> tuple[int, Row]:
        if not await server.commit(forget(number)):
            raise RefusedError(500, f"the disk refuses, see the log: after a restart {dotted(number)} is as it was")
        return 200, {"vlan": server.engine.scope.name, "address": dotted(number)}

    def _refuse_while_there(self, vlan: str, identity: str) -> None:
        """A container's lease goes only when the container is gone."""
        docker = self._app.containers.status()
        if docker is None or not any(one.scope.name == vlan and one.network for one in self._app.config.vlans):
            return
        if not docker["connected"]:
            raise RefusedError(409, f"whether container {identity} is gone is not known: Docker does not answer")
        for one in docker["containers"]:
            if (one["vlan"], one["identity"]) == (vlan, identity):
                name = one["container"]
                raise RefusedError(
                    409, f"container {name} is there ({one['state']}): its lease goes after docker rm {name}"
                )

    def _server(self, vlan: object) -> Server:
        servers = self._app.servers
        if not isinstance(vlan, str) or vlan not in servers:
            raise RefusedError(400, f"no VLAN has the name {vlan}: there are {', '.join(servers)}")
        if servers[vlan].engine.scope.is_external:
            raise RefusedError(409, f"another DHCP server serves {vlan} (dhcp is external): do it there")
        return servers[vlan]

    def _row(self, vlan: str, name: str) -> Row:
        found = [one for one in rows(self._app.config) if (one["vlan"], one["name"]) == (vlan, name)]
        for one in found:
            if one["problem"] is None:
                return one
        why = found[0]["problem"] if found else "it is gone"
        raise RefusedError(409, f"the file was taken over anew meanwhile: {why}")


def _json(work: Work) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        status, body = await work(request)
        return web.json_response(body, status=status)

    return answer


async def _object(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request; null is as good as absent."""
    try:
        found = await request.json()
    except (ValueError, LookupError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RefusedError(400, "expected a JSON object")
    return {key: value for key, value in found.items() if value is not None}


def _address(request: web.Request) -> int:
    try:
        return address(request.match_info["node"])
    except ValueError as error:
        raise RefusedError(400, str(error)) from None


def rows(config: Config) -> list[Row]:
    """All reservations: ``vlan``, ``name``, ``mac`` (the first) and ``macs``, ``client_id``, ``container``,
    ``address``, ``origin`` (``file`` or ``state``), and ``problem``, why it is set aside, null when it is in force."""
    made = {(one.entry["vlan"], one.entry["name"]) for one in config.kept if one.why is None and not one.is_redundant}
    found = [
        _shown(vlan.scope.name, one, "state" if (vlan.scope.name, one.name) in made else "file")
        for vlan in config.vlans
        for one in vlan.scope.reservations
    ]
    return found + [_shown_aside(one.entry, one.why) for one in config.kept if one.why is not None]


def _shown(vlan: str, one: Reservation, origin: str) -> Row:
    fields = reservation_fields(one)
    return {"vlan": vlan, **fields, "mac": next(iter(fields["macs"]), None), "origin": origin, "problem": None}


def _shown_aside(entry: Entry, why: str) -> Row:
    told = {key: entry.get(key) for key in ("vlan", "name", "mac", "client_id", "container", "address")}
    shown = {key: None if one is None else str(one) for key, one in told.items()}
    return shown | {"macs": [] if shown["mac"] is None else [shown["mac"]], "origin": "state", "problem": why}


def checked(values: Mapping[str, Any]) -> dict[str, str]:
    """What is asked for, each value as it is kept. Raises `RefusedError`."""
    given = [key for key in _IDENTITIES if key in values]
    if values.keys() - _READERS.keys() or len(given) != 1:
        raise RefusedError(400, "expected vlan, one of mac, client_id and container, and if need be name and address")
    wanted = dict(values)
    for key, value in values.items():
        try:
            found = _READERS[key](value)
        except ValueError as error:
            raise RefusedError(400, f"{key}: {error}") from None
        if key == "mac" and isinstance(found, bytes):
            wanted[key] = found.hex(":")
    return wanted


def already(reservations: Iterable[Reservation], wanted: Mapping[str, str]) -> Reservation | None:
    """The reservation that says all that is wanted."""
    for one in reservations:
        is_it = (
            ("mac" in wanted and mac(wanted["mac"]) in one.macs)
            or ("client_id" in wanted and client_id(wanted["client_id"]) == one.client_id)
            or ("container" in wanted and wanted["container"] == one.container)
        )
        where = "" if one.address is None else dotted(one.address)
        if is_it and wanted.get("address", where) == where and wanted.get("name", one.name) == one.name:
            return one
    return None


def lease_of(engine: Engine, handle: str) -> Binding:
    """The lease of an address, or the one whose holder has that name. Raises `RefusedError`."""
    vlan = engine.scope.name
    try:
        binding = engine.book.by_address.get(address(handle))
    except ValueError:
        leases = (one for one in engine.book if one.state == BOUND)
        named = [one for one in leases if handle in (one.hostname, container_of(one.client))]
        if len(named) > 1:
            addresses = ", ".join(dotted(one.address) for one in named[:5])
            raise RefusedError(
                409, f"{len(named)} leases in {vlan} are called {handle} ({addresses}): say which"
            ) from None
        binding = named[0] if named else None
    if binding is None:
        raise RefusedError(404, f"nobody has a lease of {handle} in {vlan}")
    if binding.state != BOUND:
        raise RefusedError(409, f"{handle} is quarantined, nobody has it: lanward clear {vlan} {handle}")
    return binding


def identity(engine: Engine, binding: Binding) -> dict[str, str]:
    """What a lease's holder is known by from now on: a container by its name, a device by its MAC, for that stays the
    same in all stages of its boot; by its client identifier when others use that MAC too. Raises `RefusedError`."""
    if (container := container_of(binding.client)) is not None:
        return {"container": container}
    is_shared = any(
        one.mac == binding.mac and one.client != binding.client and one.state == BOUND for one in engine.book
    )
    is_station = len(binding.mac) == 6 and not binding.mac[0] & 1 and any(binding.mac)
    if is_station and not (is_shared and binding.client_id and engine.scope.match_client_id):
        return {"mac": binding.mac.hex(":")}
    if not binding.client_id:
        raise RefusedError(409, f"who has {dotted(binding.address)} shows neither a MAC nor a client identifier")
    return {"client_id": "hex:" + binding.client_id.hex(":")}


def name_for(engine: Engine, wanted: Mapping[str, str], entries: Iterable[Entry]) -> str:
    """The name that is wanted, else the container's or the device's own, else one made of what it is known by."""
    if "name" in wanted or "container" in wanted:
        return wanted.get("name") or wanted["container"]
    number, identifier = mac(wanted.get("mac", "02:00:00:00:00:00")), client_id(wanted.get("client_id", "-"))
    by_mac = "mac" in wanted
    taken = {one.name for one in engine.scope.reservations}
    taken |= {str(one.get("name")) for one in entries if one.get("vlan") == engine.scope.name}
    for one in engine.book:
        is_it = one.mac == number if by_mac else one.client_id == identifier
        if is_it and one.hostname not in taken and not re.fullmatch("[0-9.]+", one.hostname):  # no address of another's
            try:
                return node_name(one.hostname)
            except ValueError:
                continue
    return f"device-{number.hex() if by_mac else identifier.hex()[:40]}"
