"""The containers of a VLAN that another DHCP server serves: their client, its leg, and their leases on the disk."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any

from dhcpd.link import LinkError
from dhcpd.server import Host, Server
from leasebroker.client import Clients, ExternalVlan
from leasebroker.effects import Bound, Changed, Commit, Effect, Lease, Lost, Note
from leasebroker.wire import Frames, Leg, Wire, load_frames

__all__ = ["External", "load_frames", "read_site"]

OBTAIN_SECONDS = 15.0
"""For an answer to somebody who waits: a server that pings before it offers takes up to 3, and more with a retry."""
OBTAIN_PAUSE = 0.5
PATIENCE_SECONDS = 10.0
"""After so long without a lease something is wrong."""
CONFLICT_SECONDS = 3.0
"""After a new address was asked for by ARP, an answer of anybody but its container is a conflict for so long."""


def read_site(state: Path) -> str:
    """What tells this machine from others with the same names on a VLAN: made once, kept in the state folder. Raises
    `OSError`."""
    file = state / "site"
    try:
        if site := "".join(one for one in file.read_text(errors="replace")[:32] if one in "0123456789abcdef"):
            return site
    except FileNotFoundError:
        pass
    site = secrets.token_hex(4)
    file.write_text(site + "\n")
    return site


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
        self._leases: dict[str, Lease] = {}
        self._macs: dict[str, bytes] = {}
        self._asked: dict[str, float] = {}
        """Since when those without a lease wait."""
        self._suspects: dict[int, tuple[str, float]] = {}
        """New addresses -> whose they are, and until when an answer for them is a conflict."""
        self._news = asyncio.Event()
        self._wire: Wire | None = None
        self.watch(server)

    def watch(self, server: Server) -> None:
        """Use the VLAN's server as it is now, with its interface; to be called every second and after a reload."""
        self._server = server
        server.neighbour = self._heard
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
        self._asked.clear()
        self._suspects.clear()
        self._deliver(self._clients.step(seconds, self._host.now()))

    # -- the broker's side

    def lease(self, identity: str, mac: bytes, hostname: str, wanted: int | None) -> int | None:
        """See `leasebroker.source.Source.lease`."""
        if mac:
            self._macs[identity] = mac
        if self._wire is not None:
            self._wire.want(identity, hostname, wanted)
        lease = self._leases.get(identity) or self._stored(identity)
        if lease is None and identity not in self._asked:
            self._asked[identity] = self._host.now()
            loop = asyncio.get_running_loop()
            loop.call_later(PATIENCE_SECONDS + 0.1, self._changed, self.vlan.name, identity)
        return None if lease is None else lease.address

    def _stored(self, identity: str) -> Lease | None:
        """A lease from before the start, which is on the disk."""
        lease = self._clients.lease(identity)
        return None if lease is None or lease.server else lease

    def is_waiting(self, identity: str) -> bool:
        """Whether a container asks for a lease since a short while."""
        asked = self._asked.get(identity)
        return asked is not None and self._host.now() < asked + PATIENCE_SECONDS

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
            for table in (self._leases, self._macs, self._asked):
                table.pop(identity, None)

    def mtu(self, identity: str) -> int:
        """Option 26 of a container's lease, 0 for none."""
        lease = self._leases.get(identity)
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
            elif isinstance(effect, Bound | Changed):
                self._leases[effect.name] = effect.lease
                self._asked.pop(effect.name, None)
                self._suspect(effect)
                self._changed(self.vlan.name, effect.name)
            elif isinstance(effect, Lost):
                self._leases.pop(effect.name, None)
                self._asked[effect.name] = 0
                self._changed(self.vlan.name, effect.name)

    def _suspect(self, effect: Bound | Changed) -> None:
        """Ask whether somebody has a new address already (RFC 2131 section 4.4.1)."""
        lease = effect.lease
        if not lease.server or (isinstance(effect, Changed) and effect.previous.address == lease.address):
            return
        now = self._host.now()
        self._suspects = {address: one for address, one in self._suspects.items() if one[1] > now}
        self._suspects[lease.address] = (effect.name, now + CONFLICT_SECONDS)
        try:
            self._server.link.ask(lease.address)
        except OSError:
            del self._suspects[lease.address]  # an interface that is going away

    def _heard(self, address: int, mac: bytes) -> None:
        """Somebody answers for an address."""
        name, until = self._suspects.get(address, ("", 0.0))
        if self._host.now() < until and mac != self._macs.get(name) and self._wire is not None:
            del self._suspects[address]
            self._wire.decline(name)
