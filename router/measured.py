"""``/verify``: reachability as the running service measures it, beside what its configuration says."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from time import time
from typing import TYPE_CHECKING

from dhcpd.decision import Note
from router import verify
from router.picture import rows
from router.settings import Config
from router.view import JsonObject, iso_time

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
        self._found: JsonObject = {"at": None, "rows": [], "notes": [], "nodes": 0, "of": 0}

    def shown(self) -> JsonObject:
        """What ``/verify`` answers: ``rows`` as ``lanward verify --json`` prints them, ``notes`` on what was not
        measured, ``at`` when (null: not yet), ``nodes`` how many of all (``of``) were asked; ``is_old``: the
        configuration was changed since; ``is_running``: it is being measured now."""
        is_old = self._config is not None and self._config is not self._app.config
        return {**self._found, "is_old": is_old, "is_running": self._task is not None}

    async def measure(self) -> JsonObject:
        """`shown` after a new measurement, or the one that is under way. Raises `router.NotRunningError`."""
        if self._task is None:
            self._task = asyncio.create_task(self._measure())
            self._task.add_done_callback(self._ended)
        await asyncio.shield(self._task)
        return self.shown()

    def _ended(self, task: asyncio.Task[None]) -> None:
        task.exception()  # told to who asked, if they still are there
        self._task = None

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _measure(self) -> None:
        known = self._known()
        with ThreadPoolExecutor(1, "verify") as thread:  # it goes into other namespaces: no other work finds it there
            outcome = await asyncio.get_running_loop().run_in_executor(thread, verify.look, known, None)
        measured, notes = verify.conclude(known, outcome, self._known())
        found = [verify.shown(row, result) for row, result in zip(outcome.rows, measured, strict=True)]
        count = sum(len(server.engine.book.by_address) for server in self._app.servers.values())
        self._config = known.config
        self._found = {"at": iso_time(time()), "rows": found, "notes": notes, "nodes": len(known.nodes), "of": count}
        differing = sum(one["measured"] not in (None, one["expected"]) for one in found)
        self._app.log(Note("info", "verified", {"rows": len(found), "differing": differing}))

    def _known(self) -> verify.Known:
        app = self._app
        containers = app.containers.list()
        most = max(1, MOST_NODES // max(1, len(app.servers)))
        leases = [row for name in app.servers for row in rows(app, name, most, containers)]
        return verify.known_by(app.config, leases, app.containers.status())
