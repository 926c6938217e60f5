"""Devices that speak DHCP from a packet socket, one exchange at a time."""

from __future__ import annotations

import random
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

from dhcpd import opt
from dhcpd.wire import BROADCAST_MAC, Message, Type, WireError, decode, encode, udp_frame
from tests.wire.segment import Segment, inside

_ETH_P_ALL = 3
_HEADERS = 42
_KINDS = {Type.OFFER: "offer", Type.ACK: "ack", Type.NAK: "nak"}
BROADCAST_ADDRESS = 0xFFFFFFFF


def packed(address: str) -> bytes:
    return IPv4Address(address).packed


@dataclass(frozen=True)
class Reply:
    """``kind`` is ``offer``, ``ack``, ``nak`` or ``silence``; ``seconds`` is how long it took."""

    kind: str = "silence"
    address: str = ""
    seconds: float = 0.0
    message: Message = field(default_factory=Message)
    frame: bytes = b""


class Station:
    """A packet socket on one end of a VLAN: sees and sends whole frames. A context manager."""

    def __init__(self, name: str, interface: str) -> None:
        with inside(name):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def frames(self, timeout: float) -> Iterator[bytes]:
        """What arrives within so many seconds; not what is sent from this end."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return
            frame, sender = self._socket.recvfrom(65536)
            if sender[2] != socket.PACKET_OUTGOING:
                yield frame

    def answer(self, xid: int, timeout: float) -> Reply:
        """The first reply to a transaction within so many seconds."""
        began = time.monotonic()
        for frame in self.frames(timeout):
            if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
                continue
            try:
                message = decode(frame[_HEADERS:])
            except WireError:
                continue
            if message.xid == xid and message.op == 2:
                kind = _KINDS[message.options[opt.MESSAGE_TYPE][0]]
                address = str(IPv4Address(message.yiaddr))
                return Reply(kind, address, time.monotonic() - began, message, frame)
        return Reply()


class Port(Station):
    """An end of a VLAN that may have many devices behind it."""

    def __init__(self, name: str, interface: str, router: str, server_mac: bytes = BROADCAST_MAC) -> None:
        super().__init__(name, interface)
        self.router = router
        self.server_mac = server_mac

    def device(self, number: int, **fields: str | bytes) -> Device:
        """A device with a MAC of its own."""
        return Device(self, b"\x02\x00" + number.to_bytes(4, "big"), **fields)  # type: ignore[arg-type]


class Lan(Port):
    """The clients' end of a VLAN."""

    def __init__(self, segment: Segment, number: int = 1) -> None:
        router, mac = str(segment.router(number).ip), segment.server_mac(number)
        super().__init__(segment.clients, f"lan{number}", router, mac)


@dataclass
class Device:
    """A DHCP client. It remembers the address of its latest ACK."""

    lan: Port
    mac: bytes
    hostname: str | bytes = b""
    client_id: bytes = b""
    address: str = ""

    def say(self, kind: int, ciaddr: str = "", timeout: float = 1.0, /, **options: bytes) -> Reply:
        """Send one message, by unicast when it has an own address, and wait for the answer; options are ``o50=...``."""
        name = self.hostname.encode() if isinstance(self.hostname, str) else self.hostname
        own = {opt.MESSAGE_TYPE: bytes((kind,)), opt.HOST_NAME: name, opt.CLIENT_ID: self.client_id}
        own |= {int(code[1:]): value for code, value in options.items()}
        source = int(IPv4Address(ciaddr or "0.0.0.0"))
        message = Message(
            xid=random.getrandbits(32),
            ciaddr=source,
            chaddr=self.mac,
            options={code: value for code, value in own.items() if value},
        )
        to_mac = self.lan.server_mac if ciaddr else BROADCAST_MAC
        to = int(IPv4Address(self.lan.router)) if ciaddr else BROADCAST_ADDRESS
        self.lan.send(udp_frame(self.mac, to_mac, source, to, 67, encode(message)))
        reply = self.lan.answer(message.xid, timeout) if timeout else Reply()
        if reply.kind == "ack":
            self.address = reply.address
        return reply

    def discover(self, timeout: float = 1.0, **options: bytes) -> Reply:
        return self.say(Type.DISCOVER, "", timeout, **options)

    def select(self, offer: Reply, timeout: float = 1.0) -> Reply:
        """SELECTING (RFC 2131 section 4.3.2)."""
        return self.say(Type.REQUEST, "", timeout, o50=packed(offer.address), o54=packed(self.lan.router))

    def reboot(self, timeout: float = 1.0) -> Reply:
        """INIT-REBOOT with the latest address."""
        return self.say(Type.REQUEST, "", timeout, o50=packed(self.address))

    def renew(self, timeout: float = 1.0) -> Reply:
        """RENEWING, by unicast."""
        return self.say(Type.REQUEST, self.address, timeout)

    def decline(self) -> None:
        self.say(Type.DECLINE, "", 0, o50=packed(self.address), o54=packed(self.lan.router))

    def release(self) -> None:
        self.say(Type.RELEASE, self.address, 0, o54=packed(self.lan.router))

    def join(self, timeout: float = 1.0) -> str:
        """The whole exchange; the address."""
        offer = self.discover(timeout)
        assert offer.kind == "offer", offer
        ack = self.select(offer, timeout)
        assert (ack.kind, ack.address) == ("ack", offer.address)
        return ack.address
