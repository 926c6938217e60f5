"""Reachability as the running service measures it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from dhcpd.decision import Note
from router import verify
from router.app import App
from router.measured import Reachability


def test_a_stop_ends_a_measurement_which_then_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[Note] = []
    ended: list[bool] = []

    def look(_known: object, _internet: object, go_on: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while go_on() and time.monotonic() < end:
            time.sleep(0.01)
        ended.append(not go_on())

    monkeypatch.setattr(verify, "look", look)
    monkeypatch.setattr(Reachability, "_known", lambda _: None)

    async def measure() -> None:
        reachability = Reachability(cast(App, SimpleNamespace(log=notes.append)))
        asking = asyncio.create_task(reachability._measure())
        reachability._task = asking
        await asyncio.sleep(0)
        assert not ended
        await reachability.close()

    asyncio.run(measure())
    assert (ended, notes) == ([True], [])
