"""The shell of one VLAN: commit before send, defects and socket errors as counters."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from dhcpd import opt, server
from dhcpd.decision import Note
from dhcpd.engine import Engine
from dhcpd.leases import Row
from dhcpd.link import Link
from dhcpd.server import MAX_DEFECTS_LOGGED, MAX_ROUND, Host, Server
from dhcpd.store import Store
from dhcpd.wire import Message, Type, encode
from tests.dhcpd import oracle
from tests.dhcpd.script import ROUTER, START, ip, mac, packed, scope

Done = Callable[[Exception | None], object]


class FakeLink:
    """A link whose network is the test: `wire` is the clients' end, `sent` what went out."""

    interface = "leg1"

    def __init__(self) -> None:
        self.udp, self.wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.arp, self.neighbours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for one in (self.udp, self.arp):
            one.setblocking(False)
        self.sent: list[tuple[bytes, int]] = []
        self.error: OSError | None = None

    def send(self, to: bytes, _source: int, address: int, _port: int, _payload: bytes) -> None:
        if self.error:
            raise self.error
        self.sent.append((to, address))

    def ask(self, address: int) -> None:
        self.sent.append((b"", address))

    def is_there(self) -> bool:
        return self.udp.fileno() >= 0

    def close(self) -> None:
        for one in (self.udp, self.wire, self.arp, self.neighbours):
            one.close()


class FakeStore:
    """A disk that is as slow as the test wants: a commit is done when it says so."""

    def __init__(self) -> None:
        self.batches: list[tuple[Sequence[tuple[int, Row]], Done]] = []
        self.alone: list[bool] = []

    def vlan_id(self, _name: str) -> int:
        return 7

    def commit(self, batch: Sequence[tuple[int, Row]], done: Done, *, alone: bool = False) -> None:
        self.alone.append(alone)
        self.batches.append((batch, done))


class Lab:
    """A server with its engine between a `FakeLink` and a `FakeStore`."""

    def __init__(self) -> None:
        self.link, self.store = FakeLink(), FakeStore()
        self.notes: list[Note] = []
        self.engine = Engine(scope(probe=False), (), START)
        self.host = Host(cast(Store, self.store), lambda: START, self.notes.append)
        self.server = Server(self.engine, cast(Link, self.link), self.host)

    def says(self, number: int, kind: int, **options: bytes) -> None:
        values = {opt.MESSAGE_TYPE: bytes((kind,))} | {int(code[1:]): value for code, value in options.items()}
        self.link.wire.send(encode(Message(chaddr=mac(number), options=values)))

    def requests(self, number: int, address: str) -> None:
        self.says(number, Type.REQUEST, o50=packed(address), o54=packed(ROUTER))

    @property
    def events(self) -> list[str]:
        return [note.event for note in self.notes]


def play(script: Callable[[Lab], Awaitable[None]]) -> None:
    async def run() -> None:
        lab = Lab()
        lab.host.start()
        lab.server.start()
        try:
            await script(lab)
        finally:
            lab.server.stop()
            lab.host.close()
            lab.link.close()

    asyncio.run(run())


async def turn() -> None:
    """Let the loop read what is on the wire."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_an_offer_needs_no_commit() -> None:
    async def script(lab: Lab) -> None:
        lab.says(1, Type.DISCOVER)
        await turn()
        assert lab.link.sent == [(mac(1), ip("10.0.1.100"))]
        assert not lab.store.batches

    play(script)


def test_an_ack_leaves_after_its_commit() -> None:
    async def script(lab: Lab) -> None:
        lab.requests(1, "10.0.1.100")
        await turn()
        ((batch, done),) = lab.store.batches
        assert [(vlan, row.address) for vlan, row in batch] == [(7, ip("10.0.1.100"))]
        assert not lab.link.sent
        assert not lab.notes
        done(None)
        assert lab.link.sent == [(mac(1), ip("10.0.1.100"))]
        assert lab.events == ["granted"]

    play(script)


def test_a_failed_commit_is_silence_and_an_error() -> None:
    async def script(lab: Lab) -> None:
        lab.requests(1, "10.0.1.100")
        await turn()
        lab.store.batches[0][1](OSError("disk full"))
        assert not lab.link.sent
        (note,) = lab.notes
        assert (note.level, note.event, note.fields["error"]) == ("error", "commit_failed", "disk full")
        assert lab.server.errors == {"commit": 1}
        then: list[bool] = []
        lab.server.mirror([], lambda: then.append(True))
        lab.store.batches[1][1](None)
        assert then
        assert lab.host.commit_error == "disk full"  # nothing was written since
        lab.requests(1, "10.0.1.100")
        await turn()
        lab.store.batches[2][1](None)
        assert lab.host.commit_error is None

    play(script)


def test_a_disk_that_hangs_refuses_what_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_WAITING", 2)

    async def script(lab: Lab) -> None:
        for number in range(4):
            lab.requests(number, f"10.0.1.{100 + number}")
            await turn()
        assert len(lab.store.batches) == 2
        assert lab.server.errors == {"commit": 2}
        assert lab.host.commit_error == "2 changes wait for the disk"
        for _, done in lab.store.batches:
            done(None)
        assert [to for to, _ in lab.link.sent] == [mac(0), mac(1)]
        assert not lab.host.commit_error
        lab.requests(2, "10.0.1.102")
        await turn()
        assert len(lab.store.batches) == 3

    play(script)


def test_a_container_has_no_address_before_its_lease_is_on_the_disk() -> None:
    async def script(lab: Lab) -> None:
        async def lease() -> int | None:
            return await lab.server.lease_container("web", mac(1), "web", None)

        calls = [asyncio.create_task(lease()) for _ in range(3)]
        await turn()
        assert [[row.address for _, row in batch] for batch, _ in lab.store.batches] == [[ip("10.0.1.100")]] * 3
        for (_, done), error in zip(lab.store.batches, (None, OSError("disk full"), OSError("disk full")), strict=True):
            done(error)
        assert await asyncio.gather(*calls) == [ip("10.0.1.100"), None, None]

        later = asyncio.create_task(lease())
        await turn()
        lab.store.batches[3][1](None)
        assert await later == ip("10.0.1.100")
        assert await lease() == ip("10.0.1.100")
        assert len(lab.store.batches) == 4

    play(script)


def test_a_flood_of_refusals_or_failures_is_a_line_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(server, "monotonic", lambda: now)

    async def script(lab: Lab) -> None:
        nonlocal now
        for number in range(20):
            lab.requests(number, "192.168.7.7")
            lab.requests(30 + number, "10.0.1.100")
            await turn()
        lab.store.batches[0][1](OSError("disk full"))
        for _ in range(5):
            lab.server.committed([], OSError("disk full"))
        lab.server.tick()
        assert lab.events == ["refused", "commit_failed"]
        now += 1
        lab.server.tick()
        assert [(note.event, note.fields["left_out"]) for note in lab.notes[2:]] == [
            ("commit_failed", 4),
            ("refused", 37),
        ]
        assert lab.engine.sent["nak"] == 39

    play(script)


def test_all_leases_of_one_turn_are_one_commit() -> None:
    async def script(lab: Lab) -> None:
        for number in range(10):
            lab.requests(number, f"10.0.1.{100 + number}")
        await turn()
        assert [len(batch) for batch, _ in lab.store.batches] == [10]

    play(script)


def test_a_lease_is_alone_when_nobody_else_asks() -> None:
    async def script(lab: Lab) -> None:
        lab.requests(1, "10.0.1.100")
        await turn()
        lab.requests(2, "10.0.1.101")
        lab.says(3, Type.DISCOVER)
        await turn()
        assert lab.store.alone == [True, False]

    play(script)


def test_the_guard_is_told_before_the_answers_leave_and_the_rest_after() -> None:
    async def script(lab: Lab) -> None:
        told: list[tuple[str, int, int]] = []
        lab.host.admit = lambda _vlan, rows: told.append(("admit", len(rows), len(lab.link.sent)))
        lab.host.tell = lambda _vlan, rows: told.append(("tell", len(rows), len(lab.link.sent)))
        lab.requests(1, "10.0.1.100")
        lab.requests(2, "10.0.1.101")
        await turn()
        lab.store.batches[0][1](None)
        assert told == [("admit", 2, 0), ("tell", 2, 2)]

    play(script)


def test_a_round_reads_no_more_than_its_share() -> None:
    async def script(lab: Lab) -> None:
        lab.link.wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        lab.link.wire.setblocking(False)
        sent = 0
        try:
            while sent < 2 * MAX_ROUND:
                lab.link.wire.send(b"short")
                sent += 1
        except BlockingIOError:
            pass
        lab.host.round()
        assert lab.engine.dropped["short"] == min(sent, MAX_ROUND)

    play(script)


def test_a_defect_costs_one_datagram_and_is_logged_a_few_times() -> None:
    async def script(lab: Lab) -> None:
        handle = lab.engine.handle

        def broken(data: bytes, now: float) -> Any:
            if data == b"poison":
                raise KeyError("defect")
            return handle(data, now)

        lab.server.stop()
        lab.engine.handle = broken  # type: ignore[method-assign]
        lab.server.start()
        for _ in range(MAX_DEFECTS_LOGGED + 1):
            lab.link.wire.send(b"poison")
            await turn()
        lab.says(1, Type.DISCOVER)
        await turn()
        assert lab.link.sent == [(mac(1), ip("10.0.1.100"))]
        assert lab.server.errors["defect"] == MAX_DEFECTS_LOGGED + 1
        assert lab.events == ["defect"] * MAX_DEFECTS_LOGGED
        assert lab.notes[0].fields["datagram"] == b"poison".hex()

    play(script)


def test_a_defect_costs_no_other_datagram_of_its_round() -> None:
    async def script(lab: Lab) -> None:
        def broken(*_: object) -> None:
            raise KeyError("defect")

        lab.engine.heard = cast(Any, broken)  # type: ignore[method-assign]
        lab.link.neighbours.send(oracle.arp_answer("10.0.1.200", "02:00:00:00:00:09"))
        lab.requests(1, "10.0.1.100")
        await turn()
        assert [len(batch) for batch, _ in lab.store.batches] == [1]
        assert lab.events == ["defect"]

    play(script)


def test_an_error_of_a_socket_is_counted_and_logged_once() -> None:
    async def script(lab: Lab) -> None:
        lab.link.error = OSError(105, "No buffer space available")
        for number in range(5):
            lab.says(number, Type.DISCOVER)
        await turn()
        assert lab.server.errors == {"send": 5}
        assert lab.events == ["send_failed"]
        lab.link.error = None
        lab.says(9, Type.DISCOVER)
        await turn()
        assert lab.link.sent

    play(script)


def test_a_stopped_server_reads_nothing_and_finishes_its_commits() -> None:
    async def script(lab: Lab) -> None:
        lab.requests(1, "10.0.1.100")
        await turn()
        lab.server.stop()
        lab.server.stop()
        lab.says(2, Type.DISCOVER)
        await turn()
        assert not lab.link.sent
        lab.store.batches[0][1](None)
        assert lab.link.sent == [(mac(1), ip("10.0.1.100"))]

    play(script)


def test_a_server_may_be_stopped_after_its_link_is_gone() -> None:
    async def script(lab: Lab) -> None:
        lab.server.stop()
        lab.link.close()
        lab.server.stop()

    play(script)
