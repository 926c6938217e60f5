"""The broker in this process, inside the router's namespace: for what can only be measured or broken from within."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar

from dhcpd.decision import Note
from leasebroker.broker import Broker
from leasebroker.known import Leg, Record
from leasebroker.source import Source
from tests.lab.edge import Edge
from tests.lab.inside import inside

T = TypeVar("T")
FIRST = (10 << 24) + (1 << 8) + 100


class Book(Source):
    """A source of leases: the next address of 10.0.1.100 and up for each new name."""

    def __init__(self) -> None:
        super().__init__(dict)
        self.leases: dict[tuple[str, str], int] = {}

    async def lease(self, vlan: str, identity: str, mac: bytes, hostname: str, wanted: int | None) -> int | None:
        del mac, hostname, wanted
        return self.leases.setdefault((vlan, identity), FIRST + len(self.leases))

    def is_anothers(self, vlan: str, identity: str, address: int) -> bool:
        return any(one == address and key != (vlan, identity) for key, one in self.leases.items())


class Inside:
    """Runs a coroutine in the namespace of the edge machine's router."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def run(self, work: Callable[[Path], Awaitable[T]]) -> T:
        async def main() -> T:
            return await work(Path(state))

        with tempfile.TemporaryDirectory() as state, inside(self._edge.truck.netns("router")):
            return asyncio.run(main())


def broker(edge: Edge, state: Path, notes: list[Note], legs: Sequence[Leg] | None = None) -> Broker:
    """A broker of the VLANs of the truck, not started."""
    made = Broker(str(edge.engine.socket), edge.engine.netns, Book(), state, notes.append, adopt=False)
    made.known.legs = tuple(legs or legs_of(edge))
    return made


def legs_of(edge: Edge) -> list[Leg]:
    return [
        Leg(vlan.name, vlan.network, IPv4Network(vlan.subnet), int(vlan.router), vlan.landing)
        for vlan in edge.truck.plan.vlans
    ]


async def pin_delays(edge: Edge, state: Path, rounds: int) -> list[float]:
    """Seconds from the engine's `start` event to the pin of containers whose namespaces nobody looked at before."""
    notes: list[Note] = []
    one = broker(edge, state, notes)
    one._changed = lambda one: None  # type: ignore[method-assign]  # noqa: ARG005 - it is called by that name
    one.start(legs_of(edge))
    await one.first_look.wait()
    one._look_at_all = _nothing  # type: ignore[method-assign]
    delays = []
    try:
        for number in range(rounds):
            name = f"late{number}"
            since = str(time.time())
            await asyncio.to_thread(edge.run, name)
            record = await pinned(one, name)
            delays.append((record.pinned_at or 0) - await asyncio.to_thread(_started, edge, name, since))
            await asyncio.to_thread(edge.engine.docker, "rm", "--force", name)
    finally:
        await one.close()
    return delays


async def _nothing() -> None:
    """Instead of a look at everything, which may come first."""


async def pinned(one: Broker, name: str) -> Record:
    """Return the record of a container on any network, as soon as its lease is pinned."""
    async with asyncio.timeout(10):
        while True:
            for record in one.known.records.values():
                if record.name == name and record.pinned_at is not None:
                    return record
            await asyncio.sleep(0.005)


def _started(edge: Edge, name: str, since: str) -> float:
    """When the engine says that the container started, in seconds since the epoch."""
    until = str(time.time())
    shown = edge.engine.docker(
        "events", "--since", since, "--until", until, "--format", "{{json .}}",
        "--filter", f"container={name}", "--filter", "event=start",
    )  # fmt: skip
    return float(json.loads(shown.splitlines()[0])["timeNano"]) / 1e9
