"""Protocol scripts: the pure client on a clock of its own, and a server that says what the test says.

    lan = Lan()
    lan.want("web")
    lan.offer("web", "10.0.1.50")
    lan.ack("web", "10.0.1.50")
    assert lan.told == ["bound web 10.0.1.50"]

What the client says is written ``discover``, ``discover 10.0.1.50`` (with a wish), ``select 10.0.1.50``,
``confirm 10.0.1.50`` and ``decline 10.0.1.50``. A `Lan` does what the shell does, and checks what holds for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from random import Random
from typing import Any

from dhcpd import opt
from dhcpd.leases import FREE, Row
from dhcpd.pool import dotted
from dhcpd.wire import BOOTREPLY, BROADCAST_FLAG, Message, Type, decode, encode
from leasebroker.client import Clients, ExternalVlan
from leasebroker.effects import Bound, Changed, Commit, Effect, Lease, Lost, Note, Send
from leasebroker.messages import REQUESTED
from tests.dhcpd.script import START, ip, packed, span

VLAN = ExternalVlan("vlan1", "br0net", IPv4Network("10.0.1.0/24"), ip("10.0.1.1"), (span("10.0.1.240-10.0.1.254"),))
SERVER, OTHER_SERVER = "10.0.1.2", "10.0.1.3"
LEASE = 3600


class Steady(Random):
    """No jitter, and transaction ids in a row: times in a script are exact."""

    def __init__(self) -> None:
        super().__init__(0)
        self._xid = 0

    def random(self) -> float:
        return 0.0

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def getrandbits(self, k: int, /) -> int:
        assert k == 32
        self._xid += 1
        return self._xid


def seconds(count: int) -> bytes:
    return count.to_bytes(4, "big")


def options(**given: bytes | None) -> dict[int, bytes]:
    """``o51=...`` by code; None leaves out what is there by default."""
    return {int(name[1:]): value for name, value in given.items() if value is not None}


class Lan:
    """One VLAN's clients, the time, the disk below them and the log beside them."""

    def __init__(self, rows: Iterable[Row] = (), vlan: ExternalVlan = VLAN, **changes: Any) -> None:
        self.now: float = START
        self.vlan = vlan
        self.random: Random = changes.pop("random", None) or Steady()
        self.disk = {row.address: row for row in rows}
        self.told: list[str] = []
        self.notes: list[Note] = []
        self.said: list[str] = []
        self.messages: dict[str, Message] = {}
        """The latest message of each container."""
        self._limits = changes
        self.clients = self._made()

    def _made(self) -> Clients:
        return Clients(self.vlan, self.disk.values(), self.now, self.random, **self._limits)

    # -- the shell

    def carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._hear(effect)
            elif isinstance(effect, Commit):
                self._commit(effect.rows)
            elif isinstance(effect, Note):
                self.notes.append(effect)
            else:
                self._tell(effect)

    def _hear(self, send: Send) -> None:
        message = decode(send.payload)
        name = message.options[opt.CLIENT_ID].decode().rpartition("/")[2]
        kind, address = message.options[opt.MESSAGE_TYPE][0], message.options.get(opt.REQUESTED_ADDRESS)
        assert (send.mac, message.ciaddr, message.giaddr, message.op) == (message.chaddr, 0, 0, 1)
        who = self.clients.station(name)
        assert (message.chaddr, message.options[opt.CLIENT_ID]) == (who.mac, who.client_id)
        if kind == Type.DECLINE:
            what = "decline"
        else:
            assert (message.flags, message.options[opt.PARAMETER_LIST]) == (BROADCAST_FLAG, REQUESTED)
            what = "select" if opt.SERVER_ID in message.options else "confirm"
            what = "discover" if kind == Type.DISCOVER else what
            self.messages[name] = message
        self.said.append(what if address is None else f"{what} {dotted(int.from_bytes(address, 'big'))}")

    def _commit(self, rows: Sequence[Row]) -> None:
        assert rows
        for row in rows:
            if row.state == FREE:
                self.disk.pop(row.address, None)
            else:
                self.disk[row.address] = row

    def _tell(self, effect: Bound | Changed | Lost) -> None:
        """A lease is on the disk before it is used; a lost one is not there, or over."""
        row = self.disk.get(effect.lease.address)
        if isinstance(effect, Lost):
            assert row is None or row.expires is None or row.expires <= self.now
        else:
            assert row is not None
            assert (row.since, row.expires) == (effect.lease.since, effect.lease.expires)
        self.told.append(f"{type(effect).__name__.lower()} {effect.name} {dotted(effect.lease.address)}")

    # -- the broker

    def want(self, name: str, hostname: str = "", wish: str | None = None) -> None:
        self.carry_out(self.clients.want(name, hostname, None if wish is None else ip(wish), self.now))

    def decline(self, name: str) -> None:
        self.carry_out(self.clients.decline(name, self.now))

    def bind(self, name: str, address: str, lease: int = LEASE, /, **given: bytes | None) -> None:
        """The whole exchange; what was said and told on the way is forgotten."""
        self.want(name)
        self.offer(name, address)
        self.ack(name, address, lease, **given)
        assert self.told[-1:] == [f"bound {name} {address}"], self.told
        self.told.clear()
        self.said.clear()

    def lease(self, name: str) -> Lease:
        found = self.clients.lease(name)
        assert found is not None
        return found

    def address(self, name: str) -> str | None:
        found = self.clients.lease(name)
        return None if found is None else dotted(found.address)

    def state(self, name: str) -> str:
        return self.clients.states()[name]

    def restart(self) -> None:
        """The process is killed and started again: only what is on disk survives."""
        self.clients = self._made()
        self.said.clear()

    # -- time

    def tick(self) -> None:
        self.carry_out(self.clients.tick(self.now))

    def sleep(self, pause: float) -> list[tuple[float, str]]:
        """Let time pass, with a tick at each deadline; what was said on the way, and after how many seconds."""
        start, end = self.now, self.now + pause
        heard: list[tuple[float, str]] = []
        while (due := self.clients.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            before = len(self.said)
            self.tick()
            heard += [(round(self.now - start, 3), what) for what in self.said[before:]]
        self.now = end
        return heard

    def set_clock(self, jump: int) -> None:
        self.now += jump
        self.carry_out(self.clients.step(jump, self.now))

    # -- the server

    def reply(self, name: str, kind: int, address: str = "0.0.0.0", /, **fields: Any) -> None:
        """Answer the latest message of a container; ``o51=...`` are options, other fields those of the header."""
        header = {key: fields.pop(key) for key in ("xid", "chaddr", "op") if key in fields}
        asked = self.messages[name]
        given = {f"o{opt.MESSAGE_TYPE}": bytes((kind,)), f"o{opt.SERVER_ID}": packed(SERVER)} | fields
        values: dict[str, Any] = {"op": BOOTREPLY, "xid": asked.xid, "chaddr": asked.chaddr} | header
        self.receive(encode(Message(yiaddr=ip(address), flags=asked.flags, options=options(**given), **values)))

    def receive(self, payload: bytes) -> None:
        self.carry_out(self.clients.handle(payload, self.now))

    def offer(self, name: str, address: str, /, **fields: Any) -> None:
        self.reply(name, Type.OFFER, address, **({"o51": seconds(LEASE)} | fields))

    def ack(self, name: str, address: str, lease: int = LEASE, /, **fields: Any) -> None:
        self.reply(name, Type.ACK, address, **({"o51": seconds(lease)} | fields))

    def nak(self, name: str, /, **fields: Any) -> None:
        self.reply(name, Type.NAK, **fields)

    # -- the log

    def events(self) -> list[str]:
        return [note.event for note in self.notes]

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.clients.dropped)
