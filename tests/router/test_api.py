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
from leasebroker.source import Source
from router import api, view
from router.app import App
from router.events import Bus
from router.settings import Api
from tests.dhcpd.script import START, ip, mac, scope, span
from tests.wire.control import Answer, ask

POOL = span("10.0.1.1-10.0.1.254")


class FakeServer:
    """A `Server` whose disk takes everything."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def lease_container(self, name: str, mac: bytes, hostname: str, wanted: int | None) -> int | None:
        return self.engine.lease_container(name, mac, hostname, wanted, START)[0]


class FakeContainers:
    def list(self) -> list[dict[str, Any]]:
        return [{"container": "web"}]


class FakeApp:
    """As much of an `App` as the API asks: its servers, its time, its verbs."""

    def __init__(self, *engines: Engine) -> None:
        self.servers = {engine.scope.name: FakeServer(engine) for engine in engines}
        self.source = Source(lambda: self.servers)  # type: ignore[arg-type,return-value]
        self.containers = FakeContainers()
        self.bus = Bus()
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


def little_room() -> socket.socket:
    """A listening TCP socket on loopback, whose connections take few bytes that nobody reads."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


def answer(app: FakeApp, folder: Path, method: str, target: str, body: str | None = None) -> Answer:
    """One request to an API of that app."""

    async def serve() -> Answer:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(folder / "lanward.sock"))
        one = api.Api(cast(App, app))
        await one.start([listening])
        try:
            return await asyncio.to_thread(ask, folder, method, target, body)
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


def lease(app: FakeApp, folder: Path, body: str) -> tuple[int, dict[str, str]]:
    """What ``POST /lease`` answers."""
    found = answer(app, folder, "POST", "/lease", body)
    (folder / "lanward.sock").unlink()
    return found.status, json.loads(found.body)


def test_a_lease_is_a_containers_from_now_on(tmp_path: Path) -> None:
    app = FakeApp(engine("vlan1", 1))
    asked = json.dumps({"vlan": "vlan1", "container": "web"})
    assert [lease(app, tmp_path, asked) for _ in range(2)] == [(200, {"address": "10.0.1.2"})] * 2
    (row,) = [row for row in json.loads(answer(app, tmp_path, "GET", "/leases").body) if row["container"]]
    assert (row["container"], row["address"], row["state"]) == ("web", "10.0.1.2", "bound")


def test_a_lease_of_an_unknown_vlan_names_those_that_are_known(tmp_path: Path) -> None:
    app = FakeApp(engine("vlan1", 0), engine("vlan2", 0))
    status, said = lease(app, tmp_path, '{"vlan": "vlan3", "container": "web"}')
    assert (status, said) == (404, {"error": "no VLAN has the name vlan3: there are vlan1, vlan2"})


def test_a_full_pool_has_no_lease(tmp_path: Path) -> None:
    status, said = lease(FakeApp(engine("vlan1", 254)), tmp_path, '{"vlan": "vlan1", "container": "web"}')
    assert status == 409
    assert said["error"].startswith("vlan1 has no address for web: enlarge its pools")


@pytest.mark.parametrize(
    "body",
    [
        "", "{", "[]", "7", '"web"', "null", "{}", '{"vlan": "vlan1"}', '{"container": "web"}',
        '{"vlan": "vlan1", "container": 7}', '{"vlan": "vlan1", "container": ""}',
        '{"vlan": "vlan1", "container": "../etc"}', '{"vlan": "vlan1", "container": "-web"}',
    ],
)  # fmt: skip
def test_a_lease_that_is_asked_for_badly(tmp_path: Path, body: str) -> None:
    app = FakeApp(engine("vlan1", 0))
    status, said = lease(app, tmp_path, body)
    assert (status, set(said)) == (400, {"error"})
    assert "expected" in said["error"].lower()
    assert not app.servers["vlan1"].engine.book.by_address


@pytest.mark.parametrize("vlan", [7, None, [], {}, "", "VLAN1"])
def test_a_vlan_that_cannot_be_is_unknown(tmp_path: Path, vlan: object) -> None:
    asked = json.dumps({"vlan": vlan, "container": "web"})
    assert lease(FakeApp(engine("vlan1", 0)), tmp_path, asked)[0] == 404


def test_containers_are_a_list(tmp_path: Path) -> None:
    found = answer(FakeApp(), tmp_path, "GET", "/containers")
    assert (found.status, json.loads(found.body)) == (200, [{"container": "web"}])


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
