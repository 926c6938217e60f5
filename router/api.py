"""The control API: what the service answers by HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterable
from hmac import compare_digest
from typing import TYPE_CHECKING

from aiohttp import web

from dhcpd.pool import dotted
from leasebroker.identity import container_name
from router.metrics import CONTENT_TYPE, metrics
from router.view import lease, lease_addresses, status
from router.watch import Watch

if TYPE_CHECKING:
    from router.app import App

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NO_ANSWER = "see that its DHCP server runs and has a free address, and that the VLAN has a Docker network"
NO_ADDRESS = "enlarge its pools, with known_only reserve one, or look into the log when the disk refuses"
SLICE = 500
"""Leases written between two turns of the loop: a long list must not hold up the next OFFER."""


class Api:
    """Answers questions about a running `App`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._runner = web.AppRunner(self._application(), access_log=None)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._only_those_who_know])
        application.add_routes(
            [
                web.get("/leases", self._leases),
                web.get("/status", self._status),
                web.get("/containers", self._containers),
                web.post("/lease", self._lease),
                web.get("/metrics", self._metrics),
                web.post("/reload", self._reload),
            ]
        )
        watch = Watch(self._app)
        application.add_routes(watch.routes())
        application.on_shutdown.append(watch.close)
        return application

    async def start(self, listening: Iterable[socket.socket]) -> None:
        await self._runner.setup()
        for one in listening:
            await web.SockSite(self._runner, one).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _only_those_who_know(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """By TCP only with the configured token (RFC 6750 section 2.1); the unix socket has its mode."""
        peer = request.transport.get_extra_info("socket") if request.transport is not None else None
        if peer is not None and peer.family == socket.AF_UNIX:
            return await handler(request)
        api = self._app.config.api
        wanted = f"Bearer {api.token}" if api is not None else ""
        if not wanted or not compare_digest(wanted.encode(), _told(request)):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def _leases(self, request: web.Request) -> web.StreamResponse:
        """A JSON list, written in slices."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        separator = "["
        for server in list(self._app.servers.values()):
            addresses = lease_addresses(server.engine)
            for start in range(0, len(addresses), SLICE):
                now, offset = self._app.now(), self._app.clock_offset()
                rows = (lease(server.engine, one, now, offset) for one in addresses[start : start + SLICE])
                text = ",\n".join(json.dumps(row) for row in rows if row is not None)
                if text:
                    await response.write((separator + text).encode())
                    separator = ",\n"
                await asyncio.sleep(0)
        await response.write(b"[]" if separator == "[" else b"]")
        return response

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(status(self._app))

    async def _containers(self, _request: web.Request) -> web.Response:
        return web.json_response(self._app.containers.list())

    async def _lease(self, request: web.Request) -> web.Response:
        """``{"vlan", "container"}`` -> ``{"address"}``, from now on that container's.

        400: no such object, or no name that Docker allows; 404: no such VLAN; 409: it has no address for the container.
        """
        try:
            asked = await request.json()
            vlan, name = asked["vlan"], container_name(asked["container"])
        except (LookupError, TypeError, json.JSONDecodeError):
            return _refusal(400, 'expected {"vlan": NAME, "container": NAME}')
        except ValueError as error:
            return _refusal(400, str(error))
        if not isinstance(vlan, str) or vlan not in self._app.servers:
            return _refusal(404, f"no VLAN has the name {vlan}: there are {', '.join(self._app.servers)}")
        address = await self._app.source.obtain(vlan, name)
        if address is None:
            is_external = self._app.servers[vlan].engine.scope.is_external
            return _refusal(409, f"{vlan} has no address for {name}: {NO_ANSWER if is_external else NO_ADDRESS}")
        return web.json_response({"address": dotted(address)})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=metrics(self._app).encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _reload(self, _request: web.Request) -> web.Response:
        """200 with the list of changes, 409 with the list of errors."""
        errors, changes = self._app.reload()
        return web.json_response({"changes": changes, "errors": errors}, status=409 if errors else 200)


def _refusal(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


def _told(request: web.Request) -> bytes:
    return request.headers.get("Authorization", "").encode(errors="surrogateescape")
