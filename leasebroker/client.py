"""The DHCP client for the containers of one VLAN that has a DHCP server of its own, as a pure object.

Payloads and the time go in, effects come out, and one deadline. ``now`` is service time in seconds (``dhcpd.clock``).
Nothing here reads a clock, opens a socket or logs.

Of a lease only a `dhcpd.leases.Row` is kept on disk. Prefix and router are what the configuration says of the VLAN: a
container goes by our router, whatever router a foreign server names (one that differs is warned about). The server and
the MTU are heard again with the first ACK after a restart: until then any server is believed, and the MTU stays as the
container has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from math import inf
from random import Random

from dhcpd import opt
from dhcpd.leases import Columns, Row
from dhcpd.pool import Range, RangeSet, dotted
from dhcpd.wire import Type, WireError
from leasebroker import messages
from leasebroker.effects import Commit, Effect, Lease, Note
from leasebroker.machine import Client, Shared
from leasebroker.messages import Reply, Station
from leasebroker.records import Records, is_live
from leasebroker.states import State

MAX_CLIENTS = 1024
"""Containers served at once: far more than a machine runs."""
WARN_PAUSE = 60
"""Seconds between two warnings of one kind: packets of others cause some of them."""


@dataclass(frozen=True, slots=True)
class ExternalVlan:
    """What the configuration says of a VLAN with a foreign server. Addresses are integers."""

    name: str
    network: str
    """Its Docker network."""
    subnet: IPv4Network
    router: int
    avoid: tuple[Range, ...] = ()
    """What no container may have besides the router's address: the landing range."""
    site: str = ""
    """What tells this machine from others with the same names on the VLAN (`leasebroker.messages.station`)."""


class Clients:
    """The containers of one VLAN. Its tables are bounded by `MAX_CLIENTS` and `leasebroker.records.MAX_RECORDS`.

    ``rows`` is what the store has of the VLAN. ``random`` makes transaction ids, which are to be hard to guess, and
    jitter. ``dropped`` counts the payloads that changed nothing, by reason.
    """

    def __init__(
        self, vlan: ExternalVlan, rows: Iterable[Columns], now: float, random: Random, limit: int = MAX_CLIENTS
    ) -> None:
        self.vlan = vlan
        self.dropped: Counter[str] = Counter()
        self._first, self._last = int(vlan.subnet.network_address) + 1, int(vlan.subnet.broadcast_address) - 1
        self._avoid = RangeSet([*vlan.avoid, Range(vlan.router, vlan.router)])
        self._network = (vlan.subnet.netmask.packed, vlan.router.to_bytes(4, "big"))
        self._told = self._network
        self._limit = limit
        self._started = int(now)
        self._records = Records(rows, self._is_ours, now)
        self._shared = Shared(vlan.name, self._records, random)
        self._clients: dict[str, Client] = {}
        self._by_mac: dict[bytes, Client] = {}
        self._warned: dict[str, float] = {}

    # -- the broker's side

    def want(self, name: str, hostname: str, wish: int | None, now: float) -> list[Effect]:
        """Get and keep a lease for the container of that identity. For one that is known only the host name of later
        messages and the wish change.

        ``wish`` is an address to ask for while there is no lease. A lease from before that is still good is `Bound` at
        once, and confirmed within seconds.
        """
        if (client := self._clients.get(name)) is not None:
            client.hostname = hostname
            client.wish = None if wish == client.declined else wish
            return []
        if len(self._clients) >= self._limit:
            return self._warn("too_many_containers", now, container=name, limit=self._limit)
        client = Client(self._shared, name, self.station(name), hostname, wish)
        if self._by_mac.setdefault(client.station.mac, client) is not client:
            return self._warn("same_hardware_address", now, container=name, mac=client.station.mac.hex(":"))
        self._clients[name] = client
        return client.start(now)

    def forget(self, name: str) -> None:
        """The container is gone. Its lease is neither renewed nor released: the container may come back."""
        if (client := self._clients.pop(name, None)) is not None:
            del self._by_mac[client.station.mac]

    def decline(self, name: str, now: float) -> list[Effect]:
        """The container's address was found in use by another station: tell the server, and get another."""
        client = self._clients.get(name)
        return [] if client is None else client.decline(now)

    def lease(self, name: str) -> Lease | None:
        """What the container of that identity has now, None also for one that nobody wants."""
        client = self._clients.get(name)
        return None if client is None else client.lease

    def leases(self, now: float) -> dict[str, Lease]:
        """All leases that are not over, those of forgotten containers too, by identity."""
        found = {name: Lease(row.address, row.since, row.expires) for name, row in self._records if is_live(row, now)}
        return found | {name: one.lease for name, one in self._clients.items() if one.lease is not None}

    def rows(self) -> list[Row]:
        """What the store should have: all that is remembered, leases that ended too."""
        return [row for _, row in self._records]

    def states(self) -> dict[str, State]:
        """Where each container stands."""
        return {name: client.state for name, client in self._clients.items()}

    def station(self, name: str) -> Station:
        """Whom the VLAN's server sees for that identity."""
        return messages.station(self.vlan.site, self.vlan.network, name)

    # -- the wire's side

    def handle(self, payload: bytes, now: float) -> list[Effect]:
        """Decide on one UDP payload. Never raises, whatever the bytes; what changes nothing is counted by reason."""
        try:
            reply = messages.read(payload)
        except WireError as error:
            return self._drop(error.args[0])
        client = self._by_mac.get(reply.mac)
        if client is None:
            return self._drop("another_client")
        if (reason := client.objection(reply)) is not None:
            return self._drop(reason)
        if reply.kind == Type.NAK:
            return client.hear(reply, now)
        if (reason := self._unusable(client, reply.address)) is not None:
            fields = {"container": client.name, "address": dotted(reply.address), "server": dotted(reply.server)}
            return self._drop(reason) + self._warn(reason, now, **fields)
        return client.hear(reply, now) + self._compare(reply, now)

    def tick(self, now: float) -> list[Effect]:
        """What time brings: messages are sent again, leases are renewed, and end. One step for each container; when
        more is due, `deadline` says so."""
        return [effect for client in self._clients.values() for effect in client.tick(now)]

    def deadline(self) -> float | None:
        """The earliest time at which `tick` has something to do, None when nothing waits."""
        earliest = min((client.deadline() for client in self._clients.values()), default=inf)
        return None if earliest == inf else earliest

    def step(self, seconds: int, now: float) -> list[Effect]:
        """The clock was set by so much, to ``now``: what was granted in this run moves along, and what waits."""
        rows = self._records.shift(seconds, self._started, now)
        for client in self._clients.values():
            client.shift(seconds, self._started, now)
        self._warned.clear()
        self._started += seconds
        return [Commit(tuple(rows))] if rows else []

    def _is_ours(self, name: str, row: Row) -> bool:
        """Whether the VLAN's server gave that container its stored lease, under the configuration as it is now."""
        return row.client_id == self.station(name).client_id and self._misfit(row.address) is None

    def _misfit(self, address: int) -> str | None:
        """Why no container may have an address."""
        if not self._first <= address <= self._last:
            return "foreign_address"
        return "reserved_address" if address in self._avoid else None

    def _unusable(self, client: Client, address: int) -> str | None:
        """Why this container may not have an address."""
        if (reason := self._misfit(address)) is not None:
            return reason
        taken = (one.lease.address for one in self._clients.values() if one.lease is not None and one is not client)
        return "duplicate_address" if address in taken else None

    def _compare(self, reply: Reply, now: float) -> list[Effect]:
        """Warn when the server tells its clients of another network than the configuration has."""
        mask, routers = (reply.options.get(code, b"") for code in (opt.SUBNET_MASK, opt.ROUTER))
        said = (mask or self._network[0], routers[:4] or self._network[1])
        if reply.kind != Type.ACK or said == self._told:
            return []
        self._told = said
        if said == self._network:
            return []
        shown = [dotted(int.from_bytes(one, "big")) for one in said]
        return self._warn("server_disagrees", now, server=dotted(reply.server), netmask=shown[0], router=shown[1])

    def _drop(self, reason: str) -> list[Effect]:
        self.dropped[reason] += 1
        return []

    def _warn(self, event: str, now: float, **fields: str | int) -> list[Effect]:
        """One warning of a kind a minute."""
        if now < self._warned.get(event, 0):
            return []
        self._warned[event] = now + WARN_PAUSE
        return [Note("warning", event, {"vlan": self.vlan.name, **fields})]
