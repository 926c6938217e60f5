"""The containers' DHCP client against real servers of other makes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.wire.broker import Broker, eventually
from tests.wire.foreign import FIRST, LAST, SERVERS, ForeignServer, Lan, Site, foreign_lan

NAMES = ("web", "db", "cache")
RESERVED = IPv4Address("10.77.0.50")


@pytest.fixture
def lan() -> Iterator[Lan]:
    with foreign_lan() as built:
        yield built


@pytest.fixture(params=SERVERS, ids=[kind.name for kind in SERVERS])
def server(request: pytest.FixtureRequest, lan: Lan, tmp_path: Path) -> Iterator[ForeignServer]:
    kind: type[ForeignServer] = request.param
    if kind.path() is None:
        pytest.skip(f"{kind.program} is neither installed nor unpacked (sh tests/wire/servers.sh)")
    home = tmp_path / kind.name
    home.mkdir()
    made = kind(Site(lan.server), home)
    yield made
    made.stop()


@pytest.fixture
def run(lan: Lan, tmp_path: Path) -> Callable[[Callable[[Broker], Awaitable[None]]], None]:
    """`run(scenario)`: the broker's process, with what earlier ones of the test left on the disk."""
    home = tmp_path / "state"
    home.mkdir()

    async def process(scenario: Callable[[Broker], Awaitable[None]]) -> None:
        async with Broker(lan, home) as broker:
            await scenario(broker)

    return lambda scenario: asyncio.run(process(scenario))


Run = Callable[[Callable[[Broker], Awaitable[None]]], None]


def test_containers_get_addresses_of_their_own_and_keep_them_over_a_restart(server: ForeignServer, run: Run) -> None:
    server.start()
    before: dict[str, IPv4Address] = {}

    async def first(broker: Broker) -> None:
        before.update(await broker.addresses(*NAMES))
        assert len(set(before.values())) == len(NAMES)
        assert all(FIRST <= one <= LAST for one in before.values())
        lease = broker.clients.lease("web")
        assert lease is not None
        assert lease.mtu == 1400

    async def second(broker: Broker) -> None:
        for name in NAMES:
            broker.wire.want(name, name)
            assert broker.address(name) == before[name], "in use at once"
        await eventually(lambda: len(broker.events()) == len(NAMES), 15, "the server to confirm")
        assert set(broker.events()) == {"renewed"}
        assert {name: broker.address(name) for name in NAMES} == before

    run(first)
    run(second)


def test_a_renewal_extends_the_lease_at_the_server(server: ForeignServer, run: Run) -> None:
    async def scenario(broker: Broker) -> None:
        server.start()
        address = (await broker.addresses("web"))["web"]
        lease = broker.clients.lease("web")
        assert lease is not None
        assert lease.expires is not None
        await eventually(lambda: server.ends(address), 5, "the lease in the server's record")
        ends = server.ends(address)
        await eventually(lambda: "renewed" in broker.events(), 15, "the renewal")
        renewed = broker.clients.lease("web")
        assert renewed is not None
        assert renewed.expires is not None
        assert renewed.expires > lease.expires
        await eventually(lambda: server.ends(address) > ends, 5, "the longer lease in the server's record")
        assert broker.told == [f"bound web {address}"]

    run(scenario)


def test_an_address_follows_the_servers_reservation(server: ForeignServer, run: Run) -> None:
    async def scenario(broker: Broker) -> None:
        server.start()
        address = (await broker.addresses("web"))["web"]
        server.stop()
        server.start({broker.clients.station("web").mac: RESERVED})
        await eventually(lambda: broker.address("web") == RESERVED, 30, "the reserved address")
        await eventually(lambda: len(broker.told) == 2, 5, "the word of it")
        assert broker.told == [f"bound web {address}", f"changed web {RESERVED}"]

    run(scenario)


def test_a_lease_is_kept_until_it_ends_and_a_new_one_comes_with_the_server(server: ForeignServer, run: Run) -> None:
    async def scenario(broker: Broker) -> None:
        server.start()
        address = (await broker.addresses("web"))["web"]
        server.stop()
        broker.skip(server.lease * 0.9)
        await eventually(lambda: broker.clients.states()["web"] == "rebinding", 5, "the client to ask any server")
        assert broker.address("web") == address
        broker.skip(server.lease * 0.1)
        await eventually(lambda: broker.told[1:] == [f"lost web {address}"], 5, "the end of the lease")
        server.start()
        await eventually(lambda: broker.address("web"), 70, "a lease from the server that is back")
        assert broker.address("web") == address, "it is asked for, and the server remembers"

    run(scenario)
