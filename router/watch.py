"""What the control API tells of what happens and what happened."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from datetime import datetime
from typing import TYPE_CHECKING

from aiohttp import web

from router import RefusedError
from router.events import BusyError, Subscription
from router.explain import explain
from router.health import ailments, obstacles
from router.periods import question

if TYPE_CHECKING:
    from router.app import App

KEEPALIVE_SECONDS = 15.0
PACE_SECONDS = 0.4
"""Between two writes to a watcher, give or take a fifth: what a storm costs is bounded, for events that are lost are
not rendered, and watchers do not stay in step, so that an ACK waits for one of them and not for all."""
EXAMINE_SECONDS = 2.0


class Watch:
    """The handlers, for one service."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._examined = -EXAMINE_SECONDS
        self._ailments: list[str] = []

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/events", self._events, name="events"),
            web.get("/history", self._history),
            web.get("/warnings", self._warnings),
            web.get("/explain", self._explain),
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
        ]

    async def close(self, _application: web.Application) -> None:
        """End the answers that have no end."""
        self._app.bus.close()

    async def _warnings(self, _request: web.Request) -> web.Response:
        """What is wrong at the moment, the oldest first: ``[{"id", "since", "subject", "what", "cure"}]``."""
        return web.json_response([one.shown() for one in self._app.lookout.warnings])

    async def _explain(self, request: web.Request) -> web.Response:
        """`router.explain.explain` of ``?node=``; 400 without one, 404 when nobody is known by that name."""
        asked = request.query.get("node", "")
        if not asked:
            raise RefusedError(400, "expected ?node= with an address, a MAC or a name")
        found = await explain(self._app, asked)
        if not found:
            raise RefusedError(404, f"no node is known as {asked[:100]!r}")
        return web.json_response(found)

    async def _healthz(self, _request: web.Request) -> web.Response:
        """Who asks again at once gets the same answer: to find out costs a write to the disk."""
        if not 0 <= time.monotonic() - self._examined < EXAMINE_SECONDS:
            self._ailments = await ailments(self._app)
            self._examined = time.monotonic()
        return _verdict(self._ailments)

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _verdict(obstacles(self._app))

    async def _history(self, request: web.Request) -> web.Response:
        """`router.periods.read`; 400 with ``{"error"}`` for a bad question, 503 when the file cannot be read."""
        try:
            asked = question(request.query, datetime.now().astimezone())
        except ValueError as error:
            raise RefusedError(400, str(error)) from None
        try:
            text = await asyncio.to_thread(lambda: json.dumps(self._app.history.answer(asked)))
        except sqlite3.Error as error:
            raise RefusedError(503, f"the history cannot be read: {error}") from None
        return web.Response(text=text, content_type="application/json")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: ``id``, ``event`` and ``data``, a JSON object. With the header Last-Event-ID (or
        ``?after=``) those after it too; ``resync`` says that some are lost, and how many if that is known."""
        last = request.headers.get("Last-Event-ID") or request.query.get("after")
        after = int(last) if last is not None and last.isascii() and last.isdecimal() and len(last) < 20 else None
        try:
            subscription = self._app.bus.subscribe(after)
        except BusyError as error:
            raise RefusedError(503, str(error)) from None
        try:
            return await self._stream(request, subscription)
        finally:
            self._app.bus.unsubscribe(subscription)

    async def _stream(self, request: web.Request, subscription: Subscription) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(b": lanward\n\n")
        try:
            while (news := await subscription.take(KEEPALIVE_SECONDS)) is not None:
                blocks, lost = news
                if lost:
                    blocks.insert(
                        0, f"event: resync\ndata: {json.dumps({'event': 'resync', 'lost': lost})}\n\n".encode()
                    )
                await response.write(b"".join(blocks) or b":\n\n")
                await asyncio.sleep(PACE_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
        except ConnectionError:
            pass
        return response


def _verdict(found: list[str]) -> web.Response:
    """200, or 503 with what is wrong, a line each."""
    return web.Response(text="\n".join(found or ["ok"]) + "\n", status=503 if found else 200)
