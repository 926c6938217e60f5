"""Engine and router restarted, killed and cut off: the same leases, and nothing that was right is touched."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from leasebroker.docker_feed import EngineError
from tests.docker.inprocess import Inside, broker, legs_of, pinned
from tests.docker.managed import Managed
from tests.lab.edge import Edge
from tests.lab.netns import wait_until
from tests.lab.service import REPOSITORY
from tests.wire.broker import eventually

Count = Callable[[int, int], int]
NAMES = ("a1", "a2", "a3")


@pytest.fixture
def running(managed: Managed) -> Managed:
    """Three containers that are to run always, pinned."""
    managed.start()
    for name in NAMES:
        managed.edge.run(name, "br0net", "--restart", "always")
    for name in NAMES:
        managed.lease(name)
    return managed


def leases(managed: Managed) -> dict[str, str]:
    """The addresses that the containers have, as soon as all have theirs."""
    wait_until(lambda: all(managed.is_pinned(name) for name in NAMES), 10, "all containers to be pinned")
    return {name: managed.container(name)["address"] for name in NAMES}


@pytest.mark.parametrize("live_restore", [False, True])
def test_a_restarted_engine(running: Managed, live_restore: bool) -> None:
    before = leases(running)
    running.engine.live_restore = live_restore
    running.engine.restart()
    wait_until(lambda: all(running.engine.pid(name) for name in NAMES), 20, "the containers to run")
    assert leases(running) == before
    assert not running.warnings()


def test_a_killed_engine(running: Managed) -> None:
    before = leases(running)
    running.engine.kill9()
    running.engine.start()
    wait_until(lambda: all(running.engine.pid(name) for name in NAMES), 20, "the containers to run")
    assert leases(running) == before


def test_an_engine_that_comes_late(managed: Managed) -> None:
    managed.engine.stop()
    managed.start()
    wait_until(lambda: any("start the engine" in one for one in managed.warnings()), 5, "the warning")
    managed.engine.start()
    managed.edge.run("web")
    managed.lease("web")
    assert managed.warnings() == []


@pytest.mark.one_engine
def test_leases_go_on_while_the_engine_is_away(edge: Edge) -> None:
    """Of the containers that have a namespace."""

    async def renewed(state: Path) -> tuple[list[str], list[str]]:
        one = broker(edge, state, [])
        asked: list[str] = []
        lease = one._source.lease

        async def asking(vlan: str, identity: str, *rest: Any) -> int | None:
            asked.append(identity)
            return await lease(vlan, identity, *rest)

        async def away(_: object) -> Any:
            raise EngineError("nobody listens")

        one._source.lease = asking  # type: ignore[method-assign, assignment]
        one.start(legs_of(edge))
        try:
            await one.first_look.wait()
            for name in ("web", "gone"):
                await asyncio.to_thread(edge.run, name)
                await pinned(one, name)
            await asyncio.to_thread(edge.engine.docker, "rm", "--force", "gone")
            await eventually(lambda: len(list(one._spaces or ())) == 1, 10, "the namespace to go")
            one._listing.ask = away  # type: ignore[method-assign, assignment]
            asked.clear()
            one._is_look_due.set()
            await eventually(lambda: "engine" in one.known.warnings, 10, "the engine to be away")
            return asked, list(one.known.warnings)
        finally:
            await one.close()

    asked, warnings = Inside(edge).run(renewed)
    assert set(asked) == {"web"}
    assert warnings == ["engine"]


def test_a_killed_router_finds_everything_as_it_was(
    running: Managed, count: Count, record_property: Callable[[str, object], None]
) -> None:
    """While it is away containers and devices reach each other; what is right is not touched on its return."""
    running.edge.place("device1", "10.0.1.20")
    before = leases(running)
    running.service.kill9()
    until = time.monotonic() + count(10, 60)
    pings = 0
    while time.monotonic() < until:
        assert all(running.edge.ping("device1", address) for address in before.values())
        assert running.edge.ping("a1", before["a2"])
        assert running.edge.ping("a1", "10.0.1.20")
        pings += len(before) + 2
    running.service.start()
    assert leases(running) == before
    assert running.paths() == {"kept": len(before)}
    assert not running.service.events("pin_repaired")
    assert not running.service.events("granted")
    record_property("figure", f"{pings} pings answered with the router away; on its return {running.paths()}")


def test_a_router_that_is_killed_again_and_again(running: Managed, count: Count) -> None:
    """At any moment of pins and adoptions: the end is the same."""
    before = leases(running)
    chance = random.Random(7)
    for number in range(count(5, 60)):
        name = NAMES[number % len(NAMES)]
        restart = threading.Thread(target=running.engine.docker, args=("restart", "--time", "0", name))
        restart.start()
        time.sleep(chance.uniform(0, 0.8))  # somewhere in it
        running.service.kill9()
        restart.join()
        running.service.start()
    assert leases(running) == before
    assert all(running.networks(name) == {"br0net"} for name in NAMES)


DIE = """
import os, sys
from leasebroker import netns
left = int(sys.argv.pop(1))
real = netns._do
def dying(operation, kernel):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    real(operation, kernel)
netns._do = dying
import router.__main__
sys.exit(router.__main__.main(sys.argv[1:]))
"""
"""The service, which dies before its nth change of a namespace."""


@pytest.mark.parametrize("step", range(6))
def test_a_router_that_dies_in_the_middle_of_a_pin(managed: Managed, step: int) -> None:
    """The container has an address and a way out at any time, and the lease when the router is back."""
    managed.start()
    managed.service.stop()
    run = [sys.executable, "-c", DIE, str(step), "run", "--config", str(managed.service.config)]
    with subprocess.Popen(
        [*managed.edge.truck.enter("router"), *run, "--state", str(managed.service.state)],
        cwd=REPOSITORY, stdout=-3, stderr=-3,
    ) as dying:  # fmt: skip
        wait_until((managed.service.state / "lanward.sock").exists, 10, "the service to run")
        managed.edge.run("web")
        assert dying.wait(10) == 9
    assert managed.edge.addresses("web")
    assert managed.source("web")[0] == "10.0.1.1"
    managed.service.start()
    lease = str(managed.lease("web"))
    wait_until(lambda: managed.source("web") == ("10.0.1.1", lease), 5, "the way out")
    assert len(managed.edge.addresses("web")) == 2


class Proxy:
    """A unix socket that passes on to the engine's: what it lets through, and for how long, is the test's to say."""

    def __init__(self, engine: Path, path: Path, *, only_get: bool = False) -> None:
        self._engine, self._only_get = engine, only_get
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.refused: list[bytes] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """End all connections."""
        for one in self._connections:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(5)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for one in self._connections:
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                self._connections += [client, engine]
                with suppress(OSError):
                    engine.connect(str(self._engine))
                for pair in ((client, engine), (engine, client)):
                    self._threads.append(threading.Thread(target=self._pass, args=(*pair, pair[0] is client)))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        """Nothing is closed here: on what is closed a thread that waits could not be woken."""
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_request and self._only_get and not data.startswith(b"GET "):
                    self.refused.append(data)
                    source.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxied(managed: Managed) -> Iterator[Callable[..., Proxy]]:
    """`proxied()`: start the service with the engine behind a proxy."""
    made: list[Proxy] = []

    def start(extra: str = "", *, only_get: bool = False) -> Proxy:
        path = managed.engine.home / "proxy.sock"
        made.append(Proxy(managed.engine.socket, path, only_get=only_get))
        managed.service.start(managed.edge.config().replace("docker.sock", "proxy.sock") + extra)
        return made[-1]

    yield start
    managed.service.kill9()
    for one in made:
        one.close()
    (managed.engine.home / "proxy.sock").unlink(missing_ok=True)


def test_a_cut_stream_of_events(managed: Managed, proxied: Callable[..., Proxy]) -> None:
    proxy = proxied()
    for number in range(4):
        proxy.cut()
        managed.edge.run(f"c{number}")
        proxy.cut()
    assert len({managed.lease(f"c{number}") for number in range(4)}) == 4


def test_a_socket_that_can_only_be_read(managed: Managed, proxied: Callable[..., Proxy]) -> None:
    proxy = proxied("adopt = false\n", only_get=True)
    managed.edge.run("web")
    managed.lease("web")
    managed.engine.docker("stop", "--time", "0", "web")
    managed.engine.docker("start", "web")
    managed.lease("web")
    assert not proxy.refused
    assert managed.warnings() == []


def test_without_any_event(edge: Edge) -> None:
    """The kernel tells of namespaces, and the engine is asked who they belong to."""

    async def start_two(state: Path) -> set[str]:
        one = broker(edge, state, [])
        one._told = lambda _: None  # type: ignore[method-assign, assignment]
        one.start(legs_of(edge))
        one._is_look_due.set()
        try:
            await one.first_look.wait()
            for name in ("c1", "c2"):
                await asyncio.to_thread(edge.run, name)
            for name in ("c1", "c2"):
                await pinned(one, name)
            return {each.name for each in one.known.records.values() if each.path == "namespace"}
        finally:
            await one.close()

    assert Inside(edge).run(start_two) <= {"c1", "c2"}
    assert {str(edge.addresses(name)[0].ip) for name in ("c1", "c2")} == {"10.0.1.100", "10.0.1.101"}
