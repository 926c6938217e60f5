"""Who may be connected by TCP, and for how long: over sockets of an API without a service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import cast

import pytest

from dhcpd.decision import Note
from router import api, callers
from router.app import App
from router.callers import Places
from router.settings import Api
from router.watch import PACE_SECONDS
from tests.router.test_api import FakeApp, engine, little_room

TOKEN = "a-long-token-that-is-secret"
BEARER = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
STRANGER = b"Host: 127.0.0.1\r\n"
UNREAD = b"GET /static/page.css HTTP/1.1\r\n" + STRANGER + b"\r\n"
HALF = b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"


def serving(work: Callable[[FakeApp, tuple[str, int]], Awaitable[None]]) -> None:
    """Run ``work`` beside an API on loopback whose answers have little room."""
    app = FakeApp(engine("vlan1", 3))
    app.config = SimpleNamespace(api=Api("127.0.0.1", 0, TOKEN))

    async def serve() -> None:
        listening = little_room()
        running = api.Api(cast("App", app))
        await running.start([listening])
        try:
            await work(app, listening.getsockname())
        finally:
            await running.stop()

    asyncio.run(serve())


def calling(place: tuple[str, int], said: bytes, own: str = "127.0.0.1") -> socket.socket:
    """A connection from the address ``own`` on which that is said, as far as there is room, and nothing is read."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.bind((own, 0))
    one.connect(place)
    one.setblocking(False)
    with suppress(BlockingIOError):
        one.sendall(said)
    return one


async def status(place: tuple[str, int], own: str = "127.0.0.1") -> bytes:
    """The first line of the answer to who knows the token, empty when it is hung up."""
    line = b""
    reader, writer = await asyncio.open_connection(*place, local_addr=(own, 0))
    with suppress(ConnectionError):
        writer.write(b"GET /containers HTTP/1.1\r\n" + BEARER + b"Connection: close\r\n\r\n")
        line = await reader.readline()
    writer.close()
    return line.rstrip()


async def is_reset(one: socket.socket) -> bool:
    """Whether a connection ends so that nothing waits in the kernel for its reader, either."""
    try:
        async with asyncio.timeout(5):
            while await asyncio.get_running_loop().sock_recv(one, 1 << 16):
                pass
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        (b"", "STRANGER_SECONDS"),
        (b"GET / HTTP/1.1\r\nHost: 127", "STRANGER_SECONDS"),
        (b"POST /login HTTP/1.1\r\n" + STRANGER + HALF, "STRANGER_SECONDS"),
        (UNREAD * 200, "STRANGER_SECONDS"),
        (UNREAD * 2, "STRANGER_SECONDS"),
        (b"POST /lease HTTP/1.1\r\n" + BEARER + HALF, "REQUEST_SECONDS"),
        (b"GET /containers HTTP/1.1\r\n" + BEARER + b"\r\n" + UNREAD * 200, "REQUEST_SECONDS"),
    ],
    ids=["nothing", "half a head", "half a body", "many unread", "few unread", "half a body, known", "unread, known"],
)  # fmt: skip
def test_whoever_holds_connections_open_holds_them_for_a_while(
    said: bytes, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(callers, limit, 1.0)

    async def work(_app: FakeApp, place: tuple[str, int]) -> None:
        held = [calling(place, said) for _ in range(3)]
        assert await status(place) == b""
        async with asyncio.timeout(5):
            line = b""
            while line != b"HTTP/1.1 200 OK":
                line = await status(place)
        for one in held:
            assert await is_reset(one)
            one.close()

    serving(work)


def test_one_address_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MAX_STRANGERS", 3)

    async def work(_app: FakeApp, place: tuple[str, int]) -> None:
        held = [calling(place, b"") for _ in range(4)]
        assert await status(place) == b""
        assert await status(place, "127.0.0.2") == b"HTTP/1.1 200 OK"
        for one in held:
            one.close()

    serving(work)


def test_who_has_shown_the_token_is_not_counted_among_the_strangers_of_an_address() -> None:
    places = Places()
    for _ in range(3 * callers.MAX_STRANGERS):
        assert places.take("a")
        places.know("a")
    taken = sum(places.take(one) for one in "ab" for _ in range(100))
    assert taken == callers.MAX_CONNECTIONS - 3 * callers.MAX_STRANGERS
    for _ in range(3 * callers.MAX_STRANGERS):
        places.leave("a", is_stranger=False)
    for _ in range(taken):
        places.leave("a", is_stranger=True)
    assert (places._open, places._strangers) == (0, {})


def test_who_watches_may_do_so_for_long_and_is_gone_when_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("STRANGER_SECONDS", "REQUEST_SECONDS"):
        monkeypatch.setattr(callers, limit, 0.5)
    monkeypatch.setattr(callers, "GONE_SECONDS", 1.0)

    async def work(app: FakeApp, place: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*place, limit=1 << 20)
        writer.write(b"GET /events HTTP/1.1\r\n" + BEARER + b"\r\n")
        deaf = calling(place, b"GET /events HTTP/1.1\r\n" + BEARER + b"\r\n")
        async with asyncio.timeout(20):
            await reader.readuntil(b": lanward\n\n")
            await asyncio.sleep(3 * callers.REQUEST_SECONDS)
            assert len(app.bus._subscriptions) == 2
            number = 0
            while len(app.bus._subscriptions) == 2:
                number += 1
                app.bus.put(Note("info", "long", {"number": number, "text": "x" * 100_000}))
                await reader.readuntil(b'"number": %d,' % number)
                await asyncio.sleep(PACE_SECONDS)
        deaf.close()
        writer.close()

    serving(work)
