"""Protocol scripts: clients that speak to a pure engine, on a clock of their own.

    vlan = Vlan()
    client = vlan.client(1)
    offer = client.discover()
    ack = client.select(offer)

A `Vlan` does what the shell does: it commits the rows of a decision to ``disk`` before it looks at the reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from dhcpd import opt
from dhcpd.decision import Decision, Note
from dhcpd.engine import Engine
from dhcpd.leases import FREE, Row
from dhcpd.pool import Range, dotted
from dhcpd.replies import Send
from dhcpd.settings import Scope
from dhcpd.wire import BROADCAST_FLAG, HEADER_SIZE, Message, Type, decode, encode

START = 1_800_000_000
ROUTER = "10.0.1.1"
KINDS = {Type.OFFER: "offer", Type.ACK: "ack", Type.NAK: "nak"}
ALL_OPTIONS = bytes((1, 3, 6, 15, 51, 58, 59))


def ip(text: str) -> int:
    return int(IPv4Address(text))


def packed(text: str) -> bytes:
    return IPv4Address(text).packed


def span(text: str) -> Range:
    """``"10.0.1.100-10.0.1.109"``"""
    first, last = text.split("-")
    return Range(ip(first), ip(last))


def mac(number: int) -> bytes:
    return b"\x02\x00" + number.to_bytes(4, "big")


def scope(**changes: Any) -> Scope:
    """VLAN 1 of the truck with a pool of ten; ``pools`` may be given as text."""
    pools = changes.pop("pools", ("10.0.1.100-10.0.1.109",))
    options = {opt.SUBNET_MASK: packed("255.255.255.0"), opt.ROUTER: packed(ROUTER), 6: packed("10.0.1.1")}
    fields: dict[str, Any] = {
        "name": "vlan1",
        "subnet": IPv4Network("10.0.1.0/24"),
        "router": ip(ROUTER),
        "pools": tuple(span(one) if isinstance(one, str) else one for one in pools),
        "options": options,
    }
    return Scope(**(fields | changes))


def option_codes(payload: bytes) -> list[int]:
    """The codes behind the header in their order, read independently of `dhcpd.wire.decode`."""
    codes, at = [], HEADER_SIZE
    while payload[at] != 255:
        if payload[at]:
            codes.append(payload[at])
            at += payload[at + 1] + 1
        at += 1
    return codes


@dataclass(frozen=True)
class Reply:
    """What came back: ``kind`` is ``offer``, ``ack``, ``nak`` or ``silence``; addresses are dotted."""

    kind: str = "silence"
    to: str = ""
    """The address it went to; ``relay`` is True when it went by the kernel's UDP and not as a frame to ``mac``."""
    mac: bytes = b""
    port: int = 0
    relay: bool = False
    payload: bytes = b""
    message: Message = field(default_factory=Message)
    probes: tuple[str, ...] = ()

    @property
    def yiaddr(self) -> str:
        return dotted(self.message.yiaddr)

    @property
    def options(self) -> dict[int, bytes]:
        return self.message.options

    @property
    def codes(self) -> list[int]:
        return option_codes(self.payload)

    def seconds(self, code: int) -> int:
        assert len(self.options[code]) == 4
        return int.from_bytes(self.options[code], "big")


def reply_of(send: Send | None, probes: Iterable[int]) -> Reply:
    asked = tuple(map(dotted, probes))
    if send is None:
        return Reply(probes=asked)
    message = decode(send.payload)
    kind = KINDS[message.options[opt.MESSAGE_TYPE][0]]
    return Reply(kind, dotted(send.address), send.mac or b"", send.port, send.mac is None, send.payload, message, asked)


class Vlan:
    """One VLAN's engine, the time it sees, the disk below it and the log beside it."""

    def __init__(self, rows: Iterable[Row] = (), **changes: Any) -> None:
        self.now: float = START
        self.since = START
        """As in `dhcpd.clock.Clock`; a process knows only of its own leases that the clock may have been wrong."""
        self.scope = scope(**({"probe": False} | changes))
        self.disk = {row.address: row for row in rows}
        self.notes: list[Note] = []
        self.engine = Engine(self.scope, self.disk.values(), self.now)

    def carry_out(self, decision: Decision) -> Reply:
        """Commit, then send and log. A forgotten address leaves no row behind (`dhcpd.leases.FREE`)."""
        for row in decision.rows:
            if row.state == FREE:
                self.disk.pop(row.address, None)
            else:
                self.disk[row.address] = row
        if decision.note is not None:
            self.notes.append(decision.note)
        return reply_of(decision.send, decision.probes)

    def receive(self, payload: bytes) -> Reply:
        return self.carry_out(self.engine.handle(payload, self.now))

    def container(self, name: str, wanted: str = "", station: bytes = b"", hostname: str = "") -> str | None:
        """The address of a container, as the broker asks for it."""
        wish = ip(wanted) if wanted else None
        address, decision = self.engine.lease_container(name, station, hostname, wish, self.now)
        self.carry_out(decision)
        return None if address is None else dotted(address)

    def answers(self, address: str, station: bytes) -> None:
        """A station answers by ARP for an address."""
        self.carry_out(self.engine.heard(ip(address), station, self.now))

    def tick(self) -> list[str]:
        """Do what is due now; the addresses probed."""
        return [one for decision in self.engine.tick(self.now) for one in self.carry_out(decision).probes]

    def sleep(self, seconds: float) -> list[str]:
        """Let time pass, with a tick at each deadline; the addresses probed on the way."""
        end, probed = self.now + seconds, []
        while (due := self.engine.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            probed += self.tick()
        self.now = end
        return probed + self.tick()

    def reload(self, **changes: Any) -> None:
        """Another configuration, the same leases."""
        pools = changes.pop("pools", None)
        if pools is not None:
            changes["pools"] = tuple(map(span, pools))
        self.scope = replace(self.scope, **changes)
        self.engine = Engine(self.scope, self.engine.rows(), self.now)

    def restart(self) -> None:
        """The process is killed and started again: only what is on disk survives."""
        self.since = int(self.now)
        self.engine = Engine(self.scope, list(self.disk.values()), self.now)

    def lose_state(self) -> None:
        self.disk.clear()
        self.restart()

    def set_clock(self, seconds: int) -> None:
        """The wall clock is set by so much, and the shell tells the engine."""
        self.now += seconds
        self.carry_out(Decision(self.engine.step(seconds, self.since, self.now)))
        self.since += seconds

    def client(self, number: int, **fields: Any) -> Client:
        return Client(self, mac(number), **fields)

    def fill(self, count: int, first: int = 1) -> list[Client]:
        """So many new clients, each bound."""
        clients = [self.client(number) for number in range(first, first + count)]
        for one in clients:
            one.join()
        return clients

    def state(self, address: str) -> str | None:
        """``bound``, ``expired`` or ``declined``, None for an address that is in no book."""
        held = self.engine.book.by_address.get(ip(address))
        if held is None:
            return None
        if held.state != 1:
            return "declined"
        return "bound" if held.is_live(self.now) else "expired"

    def events(self) -> list[str]:
        return [note.event for note in self.notes]

    @property
    def dropped(self) -> Mapping[str, int]:
        return self.engine.dropped


@dataclass
class Client:
    """A DHCP client: it says what it is told to say, and remembers the address of its latest ACK."""

    vlan: Vlan
    mac: bytes
    client_id: bytes | None = None
    hostname: str = ""
    flags: int = 0
    giaddr: str = "0.0.0.0"
    htype: int = 1
    wants: bytes | None = ALL_OPTIONS
    address: str = ""
    xid: int = 0x1000

    def say(self, kind: int, ciaddr: str = "0.0.0.0", /, **options: bytes | None) -> Reply:
        """Send one message. Options are named by code: ``o50=...``; None leaves one out."""
        self.xid += 1
        own = {
            opt.CLIENT_ID: self.client_id,
            opt.PARAMETER_LIST: self.wants,
            opt.HOST_NAME: self.hostname.encode() or None,
        }
        given = {int(name[1:]): value for name, value in options.items()}
        values = {opt.MESSAGE_TYPE: bytes((kind,))} | own | given
        message = Message(
            htype=self.htype, xid=self.xid, flags=self.flags, ciaddr=ip(ciaddr), giaddr=ip(self.giaddr),
            chaddr=self.mac, options={code: value for code, value in values.items() if value is not None},
        )  # fmt: skip
        reply = self.vlan.receive(encode(message))
        assert reply.kind == "silence" or reply.message.xid == self.xid
        if reply.kind == "ack" and kind == Type.REQUEST:
            self.address = reply.yiaddr
        return reply

    def discover(self, **options: bytes | None) -> Reply:
        return self.say(Type.DISCOVER, **options)

    def select(self, offer: Reply, **options: bytes | None) -> Reply:
        """SELECTING: take an offer."""
        return self.take(offer.yiaddr, **options)

    def take(self, address: str, server: str = ROUTER, /, **options: bytes | None) -> Reply:
        """SELECTING: ask ``server`` for an address."""
        return self.say(Type.REQUEST, **({"o50": packed(address), "o54": packed(server)} | options))

    def reboot(self, address: str, /, **options: bytes | None) -> Reply:
        """INIT-REBOOT: confirm a remembered address."""
        return self.say(Type.REQUEST, **({"o50": packed(address)} | options))

    def renew(self, address: str = "", /, **options: bytes | None) -> Reply:
        """RENEWING or REBINDING; the two differ in where they are sent, which the engine does not see."""
        return self.say(Type.REQUEST, address or self.address, **options)

    def decline(self, address: str = "", server: str = ROUTER) -> Reply:
        return self.say(Type.DECLINE, o50=packed(address or self.address), o54=packed(server), o55=None)

    def release(self, address: str = "", server: str = ROUTER) -> Reply:
        return self.say(Type.RELEASE, address or self.address, o54=packed(server), o55=None)

    def inform(self, address: str, /, **options: bytes | None) -> Reply:
        return self.say(Type.INFORM, address, **options)

    def join(self) -> str:
        """The whole exchange; the address."""
        offer = self.discover()
        assert offer.kind == "offer", offer
        ack = self.select(offer)
        assert ack.kind == "ack", ack
        assert ack.yiaddr == offer.yiaddr
        return ack.yiaddr

    def with_flag(self) -> Client:
        """The same client with the broadcast flag set."""
        return replace(self, flags=BROADCAST_FLAG)
