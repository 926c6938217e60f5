"""The control API: what the service answers by HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from dhcpd.decision import Note
from dhcpd.pool import dotted
from leasebroker.identity import container_name
from router import NotRunningError, RefusedError, page
from router.access import COOKIE, HEADERS, SESSION_SECONDS, Access, Ask, Refusal
from router.callers import Caller, Places
from router.measured import Reachability
from router.metrics import CONTENT_TYPE, metrics
from router.picture import picture
from router.steer import Steer
from router.view import lease, lease_addresses, status
from router.watch import Watch

if TYPE_CHECKING:
    from router.app import App

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NO_ANSWER = "see that its DHCP server runs and has a free address, and that the VLAN has a Docker network"
NO_ADDRESS = "enlarge its pools, with known_only reserve one, or look into the log when the disk refuses"
MAX_BODY = 64 << 10
IDLE_SECONDS = 60.0
"""A connection on which nothing is asked for so long ends: whoever has left must not hold one of the few."""
STOP_SECONDS = 1.0
"""For so long a stop waits for answers that are under way, and as long again: who does not read must not hold it up."""
OPEN = {"page", "static", "login"}
"""The routes for everybody, by name."""
ENDLESS = {"events"}
"""The routes whose answers go on, by name."""
SLICE = 500
"""Leases written between two turns of the loop: a long list must not hold up the next OFFER."""


_SILENT = logging.Logger("aiohttp", logging.CRITICAL + 1)
"""aiohttp writes ten lines for every request that is none, whoever sent it; defects of ours are in the log."""


class Api:
    """Answers questions about a running `App`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._access = Access()
        self._reachability = Reachability(app)
        self._servers: list[asyncio.Server] = []
        self._places = Places()
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            logger=_SILENT,
            shutdown_timeout=STOP_SECONDS,
            keepalive_timeout=IDLE_SECONDS,
        )

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._only_those_who_may], client_max_size=MAX_BODY)
        application.on_response_prepare.append(_complete)
        application.add_routes(
            [
                web.get("/leases", self._leases),
                web.get("/status", self._status),
                web.get("/containers", self._containers),
                web.post("/lease", self._lease),
                web.get("/metrics", self._metrics),
                web.post("/reload", self._reload),
                web.get("/", page.index, name="page"),
                web.get("/static/{name}", page.static, name="static"),
                web.post("/login", self._login, name="login"),
                web.post("/logout", self._logout),
                web.get("/map", self._map),
                web.get("/verify", self._verified),
                web.post("/verify", self._verify),
            ]
        )
        watch = Watch(self._app)
        application.add_routes(watch.routes())
        application.on_shutdown.append(watch.close)
        application.add_routes(Steer(self._app).routes())
        return application

    async def start(self, listening: Iterable[socket.socket]) -> None:
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for one in listening:
            factory = self._accept if one.family == socket.AF_UNIX else self._accept_caller
            self._servers.append(await loop.create_server(factory, sock=one))

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        await self._runner.cleanup()
        await self._reachability.close()

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None  # noqa: S101 - set up by `start`
        return server()

    def _accept_caller(self) -> asyncio.Protocol:
        return Caller(self._places, self._runner.server)

    @web.middleware
    async def _only_those_who_may(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        ask = _ask(request)
        if refusal := self._access.refusal(ask, self._app.config.api, time.monotonic()):
            return _refused(refusal)
        if not ask.is_open:
            _trust(request)
        try:
            return await handler(request)
        except RefusedError as refused:
            return _refused(Refusal(refused.status, refused.why))
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:
            what = f"{request.method} {request.path}"
            self._app.log(Note("error", "defect", {"request": what, "error": repr(error)}))
            raise

    async def _login(self, request: web.Request) -> web.StreamResponse:
        """``{"token"}`` -> 204 with the cookie of a session, or 401. On the unix socket nobody has to."""
        api, ask = self._app.config.api, _ask(request)
        response = web.Response(status=204)
        if not ask.here:
            return response
        if api is None:
            raise RefusedError(401, "there is no [api] any more")
        try:
            token = (await request.json())["token"]
        except (LookupError, TypeError, ValueError, RecursionError):
            token = None
        if not isinstance(token, str):
            raise RefusedError(400, 'expected {"token": TOKEN}')
        if refusal := self._access.wrong(token, ask.peer, api, time.monotonic()):
            return _refused(refusal)
        _trust(request)
        cookie = self._access.open(api, time.monotonic())
        response.set_cookie(COOKIE, cookie, max_age=SESSION_SECONDS, path="/", httponly=True, samesite="Strict")
        return response

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        self._access.close(_ask(request).cookie)
        response = web.Response(status=204)
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return response

    async def _map(self, request: web.Request) -> web.Response:
        """What `picture` says, and as ``session`` whether there is one that may be ended."""
        ask = _ask(request)
        return web.json_response(picture(self._app) | {"session": bool(ask.here and ask.cookie)})

    async def _verified(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._reachability.shown())

    async def _verify(self, _request: web.Request) -> web.Response:
        """As ``GET``, measured anew, which takes seconds; 503 when it is not permitted."""
        try:
            return web.json_response(await self._reachability.measure())
        except NotRunningError as error:
            raise RefusedError(503, str(error)) from None

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
        except (LookupError, TypeError, json.JSONDecodeError, RecursionError):
            raise RefusedError(400, 'expected {"vlan": NAME, "container": NAME}') from None
        except ValueError as error:
            raise RefusedError(400, str(error)) from None
        if not isinstance(vlan, str) or vlan not in self._app.servers:
            raise RefusedError(404, f"no VLAN has the name {vlan}: there are {', '.join(self._app.servers)}")
        address = await self._app.source.obtain(vlan, name)
        if address is None:
            is_external = self._app.servers[vlan].engine.scope.is_external
            raise RefusedError(409, f"{vlan} has no address for {name}: {NO_ANSWER if is_external else NO_ADDRESS}")
        return web.json_response({"address": dotted(address)})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=metrics(self._app).encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _reload(self, _request: web.Request) -> web.Response:
        """200 with the list of changes, 409 with the list of errors."""
        errors, changes = self._app.reload()
        return web.json_response({"changes": changes, "errors": errors}, status=409 if errors else 200)


def _refused(refusal: Refusal) -> web.Response:
    response = web.json_response({"error": refusal.why}, status=refusal.status)
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if refusal.wait:
        response.headers["Retry-After"] = str(refusal.wait)
    return response


def _ask(request: web.Request) -> Ask:
    """A request whose connection is gone already is nobody's: it has to know the token."""
    transport, told = request.transport, request.headers
    peer, here = "gone", "gone"
    if transport is not None:
        one = transport.get_extra_info("socket")
        is_local = one is not None and one.family == socket.AF_UNIX
        peer = "" if is_local else (transport.get_extra_info("peername") or ("gone",))[0]
        here = "" if is_local else (transport.get_extra_info("sockname") or ("gone",))[0]
    match = request.match_info.route.name
    return Ask(
        request.method,
        told.get("Host", ""),
        told.get("Origin", ""),
        told.get("Authorization", ""),
        request.cookies.get(COOKIE, ""),
        peer,
        here,
        match in OPEN,
    )


def _trust(request: web.Request) -> None:
    """Who asks has shown the token, if it came by TCP."""
    if request.transport is not None and isinstance(caller := request.transport.get_protocol(), Caller):
        caller.trust(has_end=request.match_info.route.name not in ENDLESS)


async def _complete(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
