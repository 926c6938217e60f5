"""A broker's part of the DHCP client in a test: the real store below it, the real wire, and what it was told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Self

from dhcpd.pool import dotted
from dhcpd.store import Store
from leasebroker.client import Clients, ExternalVlan
from leasebroker.effects import Bound, Changed, Commit, Effect, Lost, Note
from leasebroker.wire import Leg, Wire, load_frames
from tests.wire.foreign import ROUTER, SUBNET, Lan
from tests.wire.segment import inside

VLAN = ExternalVlan("vlan1", "vlan1net", SUBNET, int(ROUTER))


async def eventually(condition: Callable[[], object], seconds: float, what: str) -> None:
    """`tests.lab.netns.wait_until` for a loop that goes on meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        await asyncio.sleep(0.005)


class Broker:
    """An asynchronous context manager; leaving it is the end of the process, and ``home`` stays.

    ``told`` has what containers were told, as ``"bound web 10.77.0.100"``, each after its rows are on disk.
    """

    def __init__(self, lan: Lan, home: Path) -> None:
        self.told: list[str] = []
        self.notes: list[Note] = []
        self.ahead = 0.0
        """Seconds by which service time is ahead of the clock: a test need not wait for the end of a lease."""
        self._lan = lan
        self._home = home

    async def __aenter__(self) -> Self:
        self._store = Store(self._home)
        self._vlan_id = self._store.vlan_id(VLAN.name)
        rows = list(self._store.load(VLAN.name))
        self._store.start(asyncio.get_running_loop().call_soon_threadsafe)
        self.clients = Clients(VLAN, rows, self.now(), random.SystemRandom())
        frames = await load_frames()
        with inside(self._lan.router):
            leg = Leg("leg0")
        self.wire = Wire(self.clients, leg, frames, self.now, self._deliver)
        self.wire.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wire.stop()
        self.wire.leg.close()
        self._store.close()

    def now(self) -> float:
        return time.time() + self.ahead

    def skip(self, seconds: float) -> None:
        """Let the client believe that so much time has passed."""
        self.ahead += seconds
        self.wire._tick()

    def _deliver(self, effects: Sequence[Effect]) -> None:
        """In order: what has no rows waits for those before it too."""
        rows = [row for effect in effects if isinstance(effect, Commit) for row in effect.rows]
        batch = [(self._vlan_id, row) for row in rows]
        self._store.commit(batch, lambda error: self._tell(effects) if error is None else None)

    def _tell(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Note):
                self.notes.append(effect)
            elif isinstance(effect, Bound | Changed | Lost):
                self.told.append(f"{type(effect).__name__.lower()} {effect.name} {dotted(effect.lease.address)}")

    def address(self, name: str) -> IPv4Address | None:
        lease = self.clients.lease(name)
        return None if lease is None else IPv4Address(lease.address)

    async def addresses(self, *names: str) -> dict[str, IPv4Address]:
        """Want a lease for each, and return them when all are there."""
        for name in names:
            self.wire.want(name, name)
        await eventually(lambda: {line.split()[1] for line in self.told} >= set(names), 15, "the leases")
        return {name: address for name in names if (address := self.address(name)) is not None}

    def events(self) -> list[str]:
        return [note.event for note in self.notes]
