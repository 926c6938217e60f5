"""The page's files, and how a browser logs in, over sockets of an API without a service."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast

import pytest

from dhcpd.decision import Note
from router import api, callers, page
from router.access import HEADERS, TRIES_AT_ONCE
from router.app import App
from router.settings import Api
from router.watch import PACE_SECONDS
from tests.router.test_api import FakeApp, engine, little_room
from tests.wire import control

TOKEN = "a-long-token-that-is-secret"
FOLDER = Path(page.__file__).parent


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


Ask = Callable[..., Reply]


def served(work: Callable[[Ask], None], token: str | None = TOKEN, *, is_raw: bool = False) -> None:
    """Run `work(ask)` beside an API on loopback; `ask(method, target, body, **headers)` sends one request, its body as
    JSON, or as it is when that is raw."""
    app = FakeApp(engine("vlan1", 3))
    app.config = SimpleNamespace(api=Api("127.0.0.1", 0, token) if token else None)

    async def serve() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        running = api.Api(cast("App", app))
        await running.start([listening])
        port: int = listening.getsockname()[1]

        def ask(method: str, target: str, body: object = None, **headers: str) -> Reply:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                sent = {name.replace("_", "-"): value for name, value in headers.items()}
                sent_body = body if is_raw or body is None else json.dumps(body)
                connection.request(method, target, cast("str | None", sent_body), sent)
                response = connection.getresponse()
                return Reply(response.status, dict(response.headers), response.read())
            finally:
                connection.close()

        try:
            await asyncio.to_thread(work, ask)
        finally:
            await running.stop()

    asyncio.run(serve())


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in page.TYPES:
            yield path.name, path.read_text()


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline() -> None:
    for name, text in sources():
        assert not re.search(r"https?://(?!www\.w3\.org/(2000/svg|1999/xlink)\b)", text), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|\.src\s*=", text
        ), name
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:", html)
    asked = set(re.findall(r'(?:src|href)="/static/([^"]+)"', html))
    imported = {one for _, text in sources() for one in re.findall(r'from "\./([^"]+)"', text)}
    assert asked | imported == page.files().keys() - {"index.html"}


def test_all_of_it_is_small() -> None:
    assert sum(len(one.plain) for one in page.files().values()) < 100 << 10
    assert sum(len(one.packed) for one in page.files().values()) < 40 << 10


def test_files_are_served_whole_compressed_or_not_at_all() -> None:
    def work(ask: Ask) -> None:
        for name, file in page.files().items():
            plain = ask("GET", "/" if name == "index.html" else f"/static/{name}")
            assert (plain.status, plain.body, plain.headers["Content-Type"]) == (200, file.plain, file.kind)
            packed = ask("GET", f"/static/{name}", accept_encoding="gzip, deflate")
            assert packed.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(packed.body) == file.plain
            assert len(packed.body) < len(plain.body) or len(plain.body) < 400
            again = ask("GET", f"/static/{name}", if_none_match=plain.headers["ETag"])
            assert (again.status, again.body) == (304, b"")
        for name in ("__init__.py", "nothing.js", "..%2fapi.py", "%2e%2e%2fapi.py", "", "../api.py"):
            assert ask("GET", f"/static/{name}").status in {401, 403, 404}, name

    served(work)


def test_every_answer_carries_the_headers() -> None:
    def work(ask: Ask) -> None:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        asked = [
            ("GET", "/", {}), ("GET", "/static/main.js", {}), ("GET", "/leases", {}), ("GET", "/leases", bearer),
            ("GET", "/nothing", bearer), ("POST", "/login", {"origin": "http://evil.example"}), ("PUT", "/map", bearer),
        ]  # fmt: skip
        for method, target, headers in asked:
            found = ask(method, target, **headers)
            for name, value in HEADERS.items():
                wanted = "no-cache" if name == "Cache-Control" and target in {"/", "/static/main.js"} else value
                assert found.headers[name] == wanted, (target, name)
            assert "Access-Control-Allow-Origin" not in found.headers

    served(work)


def cookie_of(reply: Reply) -> str:
    name, value = reply.headers["Set-Cookie"].split(";")[0].split("=", 1)
    assert name == "lanward"
    return value


def test_a_browser_pastes_the_token_once() -> None:
    def work(ask: Ask) -> None:
        assert ask("GET", "/leases").status == 401
        assert ask("POST", "/login", {"token": "wrong"}).status == 401
        for body in ({"other": 1}, [1], {"token": 7}, {"token": None}, "token"):
            assert ask("POST", "/login", body).status == 400
        reply = ask("POST", "/login", {"token": TOKEN})
        assert reply.status == 204
        fields = {one.strip().lower() for one in reply.headers["Set-Cookie"].split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/"} <= fields
        cookie = cookie_of(reply)
        assert TOKEN not in cookie
        assert ask("GET", "/leases", cookie=f"lanward={cookie}").status == 200
        assert ask("GET", "/leases", cookie="lanward=guess").status == 401
        assert ask("POST", "/reload", cookie=f"lanward={cookie}").status == 403
        assert ask("POST", "/logout", cookie=f"lanward={cookie}", origin="http://evil.example").status == 403
        assert ask("GET", "/leases", cookie=f"lanward={cookie}").status == 200

    served(work)


@pytest.mark.parametrize(
    ("body", "wanted"), [('{"token": "\\ud800"}', 401), ('{"token": "\\udcff"}', 401), ("[" * 60_000, 400), ("", 400)]
)
def test_a_strange_login_is_a_wrong_one_and_no_defect(body: str, wanted: int) -> None:
    def work(ask: Ask) -> None:
        assert ask("POST", "/login", body).status == wanted

    served(work, is_raw=True)


def test_nobody_logs_in_where_the_table_was_taken_out() -> None:
    def work(ask: Ask) -> None:
        assert ask("POST", "/login", {"token": TOKEN}).status == 401

    served(work, token=None)


def test_a_browser_logs_out() -> None:
    def work(ask: Ask) -> None:
        cookie = cookie_of(ask("POST", "/login", {"token": TOKEN}))
        host = "127.0.0.1:80"
        sent = {"cookie": f"lanward={cookie}", "host": host, "origin": f"http://{host}"}
        assert ask("POST", "/logout", **sent).status == 204
        assert ask("GET", "/leases", **sent).status == 401

    served(work)


def test_who_guesses_waits() -> None:
    def work(ask: Ask) -> None:
        found = [ask("POST", "/login", {"token": f"guess{number}"}) for number in range(TRIES_AT_ONCE + 1)]
        assert [one.status for one in found] == [*[401] * TRIES_AT_ONCE, 429]
        assert 1 <= int(found[-1].headers["Retry-After"]) <= 4
        assert ask("POST", "/login", {"token": TOKEN}).status == 429

    served(work)


def test_another_name_and_another_origin_are_refused() -> None:
    def work(ask: Ask) -> None:
        bearer = f"Bearer {TOKEN}"
        assert ask("GET", "/leases", authorization=bearer).status == 200
        assert ask("GET", "/leases", authorization=bearer, host="evil.example").status == 403
        assert ask("GET", "/", host="evil.example").status == 403
        assert ask("POST", "/reload", authorization=bearer, origin="http://evil.example").status == 403
        assert ask("POST", "/reload", authorization=bearer).status == 200

    served(work)


def test_what_is_no_request_fills_no_log_and_a_defect_is_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[Note] = []
    monkeypatch.setattr(FakeApp, "log", lambda _, note: notes.append(note), raising=False)
    monkeypatch.setattr(api, "picture", lambda _: 1 / 0)

    def work(ask: Ask) -> None:
        assert ask("GET", "/", cookie="\x01").status == 400
        assert ask("GET", "/map", authorization=f"Bearer {TOKEN}").status == 500
        assert ask("GET", "/nothing", authorization=f"Bearer {TOKEN}").status == 404

    served(work)
    (note,) = notes
    assert (note.event, note.fields["request"]) == ("defect", "GET /map")
    assert not caplog.records


def test_no_get_changes_anything() -> None:
    application = api.Api(cast("App", FakeApp()))._runner.app
    reads = {
        route.resource.canonical for route in application.router.routes() if route.method == "GET" and route.resource
    }
    assert not {one for one in reads if re.search("login|logout|reload|reserve|drop", one)}


@pytest.mark.parametrize("body", [b"x" * 70_000, b'{"token": "' + b"x" * 70_000 + b'"}'])
def test_a_long_body_is_not_read(body: bytes) -> None:
    def work(ask: Ask) -> None:
        assert ask("POST", "/login", body.decode()).status in {400, 413}

    served(work)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: 127"])
def test_who_asks_nothing_any_more_holds_no_connection(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "IDLE_SECONDS", 0.2)

    async def serve() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        running = api.Api(cast("App", FakeApp(engine("vlan1", 3))))
        await running.start([listening])
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        try:
            writer.write(said)
            async with asyncio.timeout(5):
                await reader.read()
        finally:
            writer.close()
            await running.stop()

    asyncio.run(serve())


def test_who_does_not_read_does_not_hold_up_a_stop() -> None:
    app = FakeApp(engine("vlan1", 3))
    app.config = SimpleNamespace(api=Api("127.0.0.1", 0, TOKEN))

    async def serve() -> float:
        listening = little_room()
        running = api.Api(cast("App", app))
        await running.start([listening])
        with socket.create_connection(listening.getsockname()) as deaf:
            head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            deaf.sendall(head.encode())
            assert await asyncio.to_thread(deaf.recv, 12) == b"HTTP/1.1 200"
            async with asyncio.timeout(10):
                while all(one._seen == app.bus.last for one in app.bus._subscriptions):  # until it writes no more
                    app.bus.put(Note("info", "long", {"text": "x" * 4_000_000}))
                    await asyncio.sleep(2 * PACE_SECONDS)
            began = asyncio.get_running_loop().time()
            await running.stop()
            return asyncio.get_running_loop().time() - began

    assert asyncio.run(serve()) < 3 * api.STOP_SECONDS


def test_who_holds_connections_open_takes_none_from_the_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "MAX_CONNECTIONS", 3)

    async def serve() -> None:
        by_tcp = socket.create_server(("127.0.0.1", 0))
        by_unix = socket.socket(socket.AF_UNIX)
        by_unix.bind(str(tmp_path / "lanward.sock"))
        running = api.Api(cast("App", FakeApp(engine("vlan1", 3))))
        await running.start([by_unix, by_tcp])
        held = [await asyncio.open_connection(*by_tcp.getsockname()) for _ in range(4)]
        try:
            assert await asyncio.wait_for(held[3][0].read(), 5) == b""
            assert (await asyncio.to_thread(control.ask, tmp_path, "GET", "/leases")).status == 200
            held[0][1].close()
            await held[0][1].wait_closed()
            async with asyncio.timeout(5):
                line = b""
                while not line:  # until the service has seen that one is gone
                    reader, writer = await asyncio.open_connection(*by_tcp.getsockname())
                    held.append((reader, writer))
                    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    with suppress(ConnectionError):
                        line = await reader.readline()
            assert line.startswith(b"HTTP/1.1 200")
        finally:
            for _, writer in held:
                writer.close()
            await running.stop()

    asyncio.run(serve())
