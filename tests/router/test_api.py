"""What the control API answers, over a socket pair instead of a service."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dhcpd.engine import Engine
from dhcpd.leases import BOUND, Row
from router import api, view
from router.app import App
from router.settings import Api
from tests.dhcpd.script import START, ip, mac, scope, span
from tests.wire.control import Answer, ask

POOL = span("10.0.1.1-10.0.1.254")


class FakeServer:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine


class FakeApp:
    """As much of an `App` as the API asks: its servers, its time, its verbs."""

    def __init__(self, *engines: Engine) -> None:
        self.servers = {engine.scope.name: FakeServer(engine) for engine in engines}
        self.config = SimpleNamespace(api=None)
        self.outcome: tuple[list[str], list[str]] = ([], [])

    def now(self) -> float:
        return START

    def clock_offset(self) -> float:
        return 0.0

    def status(self) -> dict[str, Any]:
        return {"vlans": []}

    def reload(self) -> tuple[list[str], list[str]]:
        return self.outcome


def engine(name: str, leases: int) -> Engine:
    rows = [
        Row(ip("10.0.1.1") + n, BOUND, b"m\1" + mac(n), mac(n), b"", f"node{n}", START, START + 60)
        for n in range(leases)
    ]
    return Engine(scope(name=name, pools=(POOL,)), rows, START)


def answer(app: FakeApp, folder: Path, method: str, target: str) -> Answer:
    """One request to an API of that app."""

    async def serve() -> Answer:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(folder / "lanward.sock"))
        one = api.Api(cast(App, app))
        await one.start([listening])
        try:
            return await asyncio.to_thread(ask, folder, method, target)
        finally:
            await one.stop()

    return asyncio.run(serve())


@pytest.mark.parametrize("counts", [(0,), (0, 0), (1,), (0, 3), (3, 0, 3), (7, 8)])
def test_leases_are_one_json_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, ...]) -> None:
    monkeypatch.setattr(api, "SLICE", 3)
    app = FakeApp(*(engine(f"vlan{n}", leases) for n, leases in enumerate(counts)))
    found = answer(app, tmp_path, "GET", "/leases")
    assert (found.status, found.content_type) == (200, "application/json")
    names = [row["vlan"] for row in json.loads(found.body)]
    assert names == [f"vlan{n}" for n, leases in enumerate(counts) for _ in range(leases)]


def test_leases_may_end_while_they_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SLICE", 1)
    book = engine("vlan1", 200)
    seen = view.lease

    def vanishing(*arguments: Any) -> Any:
        for binding in list(book.book)[1:3]:
            book.book.forget(binding)
        return seen(*arguments)

    monkeypatch.setattr(api, "lease", vanishing)
    rows = json.loads(answer(FakeApp(book), tmp_path, "GET", "/leases").body)
    assert 0 < len(rows) < 200


def test_a_reload_that_is_refused_is_a_conflict(tmp_path: Path) -> None:
    app = FakeApp()
    app.outcome = ["vlan[0].tag: bad"], []
    found = answer(app, tmp_path, "POST", "/reload")
    assert (found.status, json.loads(found.body)) == (409, {"errors": ["vlan[0].tag: bad"], "changes": []})


def test_a_reload_says_what_changed(tmp_path: Path) -> None:
    app = FakeApp()
    app.outcome = [], ["vlan1: removed"]
    found = answer(app, tmp_path, "POST", "/reload")
    assert (found.status, json.loads(found.body)) == (200, {"errors": [], "changes": ["vlan1: removed"]})


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (None, 401), ("Bearer wrong", 401), ("secret-token", 401), ("Bearer ", 401), ("Bearer s\u00e9cret", 401),
        ("Bearer secret-token", 200),
    ],
)  # fmt: skip
def test_by_tcp_only_who_knows_the_token_is_answered(sent: str | None, status: int) -> None:
    app = FakeApp(engine("vlan1", 1))
    app.config = SimpleNamespace(api=Api("127.0.0.1", 0, "secret-token"))

    async def serve() -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        running = api.Api(cast("App", app))
        await running.start([listening])
        try:
            return await asyncio.to_thread(by_tcp, listening.getsockname()[1], sent)
        finally:
            await running.stop()

    assert asyncio.run(serve()) == status


def by_tcp(port: int, authorization: str | None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {} if authorization is None else {"Authorization": authorization}
        connection.request("GET", "/leases", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()
