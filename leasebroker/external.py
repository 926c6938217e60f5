"""The containers of a VLAN that another DHCP server serves: their client, its leg, and their leases on the disk."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from random import SystemRandom
from typing import Any

from dhcpd.link import LinkError
from dhcpd.server import Host, Server
from leasebroker.client import Clients, ExternalVlan
from leasebroker.effects import Bound, Changed, Commit, Effect, Lease, Lost, Note
from leasebroker.granted import Granted
from leasebroker.wire import Frames, Leg, Wire

OBTAIN_SECONDS = 15.0
"""For an answer to somebody who waits: a server that pings before it offers takes up to 3, and more with a retry."""
OBTAIN_PAUSE = 0.5


class External:
    """``changed`` is told the identity of a container whose lease is another now. For the loop's thread.

    A container has a lease from when its rows are on disk. The leg follows the VLAN's interface with `watch`.
    """

    def __init__(
        self, vlan: ExternalVlan, server: Server, host: Host, frames: Frames, changed: Callable[[str, str], None]
    ) -> None:
        self.vlan = vlan
        self._server = server
        self._host = host
        self._frames = frames
        self._changed = changed
        self._clients = Clients(vlan, server.engine.rows(), host.now(), SystemRandom())
        self._granted = Granted()
        self._news = asyncio.Event()
        self._wire: Wire | None = None
        self.watch(server)

    def watch(self, server: Server) -> None:
        """Use the VLAN's server as it is now, with its interface; to be called every second and after a reload."""
        self._server = server
        server.neighbour = self._heard
        for identity in self._granted.overdue(self._host.now()):
            self._changed(self.vlan.name, identity)
        interface = server.link.interface
        if self._wire is not None and self._wire.leg.interface == interface and self._wire.leg.is_there():
            return
        self.close()
        try:
            leg = Leg(interface)
        except LinkError:
            return  # the server has said so, and looks for its interface every second
        self._wire = Wire(self._clients, leg, self._frames, self._host.now, self._deliver)
        self._wire.start()

    def close(self) -> None:
        """Release nothing."""
        if self._wire is not None:
            wire, self._wire = self._wire, None
            wire.stop()
            wire.leg.close()

    def step(self, seconds: int) -> None:
        """The clock was set by so much."""
        self._granted.step(seconds)
        self._deliver(self._clients.step(seconds, self._host.now()))

    # -- the broker's side

    def lease(self, identity: str, mac: bytes, hostname: str, wanted: int | None) -> int | None:
        """See `leasebroker.source.Source.lease`."""
        if mac:
            self._granted.see(identity, mac)
        if self._wire is not None:
            self._wire.want(identity, hostname, wanted)
        lease = self._granted.lease(identity) or self._stored(identity)
        if lease is not None:
            return lease.address
        self._granted.wait(identity, self._host.now())
        return None

    def _stored(self, identity: str) -> Lease | None:
        """A lease from before the start, which is on the disk."""
        lease = self._clients.lease(identity)
        return None if lease is None or lease.server else lease

    def is_waiting(self, identity: str) -> bool:
        """Whether a container asks for a lease since a short while."""
        return self._granted.is_waiting(identity, self._host.now())

    async def obtain(self, identity: str) -> int | None:
        """The address of a container that nobody else may want yet, None after `OBTAIN_SECONDS` without an answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(OBTAIN_SECONDS):
                while (address := self.lease(identity, b"", identity, None)) is None:
                    self._news.clear()
                    await self._next_news()  # and ask again, for `keep` may have forgotten it
                return address
        return None

    async def _next_news(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(OBTAIN_PAUSE):
                await self._news.wait()

    def keep(self, identities: Collection[str]) -> None:
        """Forget all containers but these: they are gone, and may come back."""
        for identity in self._clients.states().keys() - set(identities):
            self._clients.forget(identity)
        self._granted.keep(identities)

    def mtu(self, identity: str) -> int:
        """Option 26 of a container's lease, 0 for none."""
        lease = self._granted.lease(identity)
        return 0 if lease is None else lease.mtu or 0

    def status(self) -> dict[str, Any]:
        """What ``GET /status`` shows of the client: containers by state, and what was heard and not used."""
        errors = self._wire.errors if self._wire is not None else {"interface": 1}
        return {
            "clients": Counter(state.name.lower() for state in self._clients.states().values()),
            "dropped": self._clients.dropped,
            "errors": errors,
        }

    # -- what the client decides

    def _deliver(self, effects: Sequence[Effect]) -> None:
        """Rows first; what has none waits for those before it too."""
        rows = [row for effect in effects if isinstance(effect, Commit) for row in effect.rows]
        self._server.mirror(rows, partial(self._act, effects))

    def _act(self, effects: Sequence[Effect]) -> None:
        self._news.set()
        for effect in effects:
            if isinstance(effect, Note):
                self._host.log(effect)
            elif isinstance(effect, Bound | Changed | Lost):
                self._ask(self._granted.tell(effect, self._host.now()))
                self._changed(self.vlan.name, effect.name)

    def _ask(self, address: int | None) -> None:
        if address is not None:
            with suppress(OSError):  # an interface that is going away
                self._server.link.ask(address)

    def _heard(self, address: int, mac: bytes) -> None:
        name = self._granted.heard(address, mac, self._host.now())
        if name is not None and self._wire is not None:
            self._wire.decline(name)
