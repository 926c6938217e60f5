"""``/verify``: reachability as the running service measures it, beside what its configuration says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import time
from typing import TYPE_CHECKING

from dhcpd.decision import Note
from router import verify
from router.picture import rows
from router.policy import Row, expected, internet
from router.settings import Config
from router.times import iso_time
from router.view import JsonObject

if TYPE_CHECKING:
    from router.app import App

MOST_NODES = 24
"""Each is asked from every container, and twice when it should answer: more would be asked for minutes."""


class Reachability:
    """What was measured last, on a thread of its own, one measurement at a time."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._task: asyncio.Task[None] | None = None
        self._config: Config | None = None
        self._found: JsonObject = {}
        self._is_closing = False

    async def shown(self) -> JsonObject:
        """What ``/verify`` answers: ``rows`` as ``lanward verify --json`` prints them, ``notes`` on what was not
        measured, ``at`` when (null: not yet, then ``measured`` is null in all rows), ``nodes`` how many are asked, and
        ``is_part`` whether there are more; ``is_old``: the configuration was changed since; ``is_running``: it is
        being measured now."""
        found = self._found or await asyncio.to_thread(self._said, self._known(), None, [], [])
        is_old = self._config is not None and self._config is not self._app.config
        return {**found, "is_old": is_old, "is_running": self._task is not None}

    async def measure(self) -> JsonObject:
        """`shown` after a new measurement, or the one that is under way. Raises `router.NotRunningError`."""
        if self._task is None:
            self._task = asyncio.create_task(self._measure())
            self._task.add_done_callback(self._ended)
        await asyncio.shield(self._task)
        return await self.shown()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # told to who asked, if they still are there
        self._task = None

    async def close(self) -> None:
        """A measurement that is under way ends within two seconds, and says nothing."""
        self._is_closing = True
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _measure(self) -> None:
        known = self._known()
        with ThreadPoolExecutor(1, "verify") as thread:  # it goes into other namespaces: no other work finds it there
            look = partial(verify.look, known, None, lambda: not self._is_closing)
            outcome = await asyncio.get_running_loop().run_in_executor(thread, look)
        if self._is_closing:
            return
        measured, notes = verify.conclude(known, outcome, self._known())
        self._config = known.config
        self._found = self._said(known, iso_time(time()), list(zip(outcome.rows, measured, strict=True)), notes)
        differing = sum(verify.differs(*one) for one in zip(outcome.rows, measured, strict=True))
        self._app.log(Note("info", "verified", {"rows": len(measured), "differing": differing}))

    def _said(
        self, known: verify.Known, at: str | None, found: Sequence[tuple[Row, bool | None]], notes: list[str]
    ) -> JsonObject:
        outside = [] if known.config.wan is None else [internet(0)]
        pairs = found or [(row, None) for row in expected(known.placed, known.nodes, outside)]
        shown = [verify.shown(row, result) for row, result in pairs]
        is_part = any(len(one.engine.book.by_address) > self._most for one in list(self._app.servers.values()))
        return {"at": at, "rows": shown, "notes": notes, "nodes": len(known.nodes), "is_part": is_part}

    @property
    def _most(self) -> int:
        """Nodes that are asked of a VLAN."""
        return max(1, MOST_NODES // max(1, len(self._app.servers)))

    def _known(self) -> verify.Known:
        app = self._app
        containers = app.containers.list()
        leases = [row for name in app.servers for row in rows(app, name, self._most, containers)]
        return verify.known_by(app.config, leases, app.containers.status(), app.forwarding.nodes)
