"""What else is said on a VLAN: the answers of other DHCP servers, and who claims an address by ARP.

Nothing wakes the process for it: the sockets are looked into now and then, take what fits into a small buffer, and what
does not is lost, since it is said again.
"""

from __future__ import annotations

import random
import socket
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from struct import pack
from typing import NamedTuple

from dhcpd import opt
from dhcpd.link import ATTACH_FILTER, BPF
from dhcpd.wire import (
    BOOTREPLY,
    BROADCAST,
    BROADCAST_FLAG,
    BROADCAST_MAC,
    CLIENT_PORT,
    SERVER_PORT,
    Message,
    Type,
    WireError,
    arp_probe,
    arp_sender,
    decode,
    encode,
    udp_frame,
)

MAX_LOOK = 128
"""Frames taken from a socket in one look."""
HOLD_SECONDS = 100.0
"""For so long what was heard counts: three times `ASK_SECONDS`, for a frame may be lost."""
ASK_SECONDS, ASK_SELDOM_SECONDS = 30.0, 300.0
"""Between two questions of our own: while something is wrong, and while nothing is."""
MAX_HEARD = 32
"""Other servers, and claims, remembered of one VLAN."""
SURE_SECONDS = 1.0
"""A claim is one when it is repeated after so long: a node that was just given another address may still answer."""

_RECEIVE_BUFFER = 1 << 17
_FRAME_SIZE = 1514
_ETH_P_IP, _ETH_P_ARP = 0x0800, 0x0806
_ONLY_SERVERS = (
    (0x28, 0, 0, 12),  # load the EtherType
    (0x15, 0, 8, _ETH_P_IP),
    (0x30, 0, 0, 23),  # the protocol
    (0x15, 0, 6, socket.IPPROTO_UDP),
    (0x28, 0, 0, 20),  # a later fragment has no ports
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 14),  # the length of the IP header
    (0x48, 0, 0, 14),  # the source port
    (0x15, 0, 1, SERVER_PORT),
    (0x06, 0, 0, 0x40000),  # accept
    (0x06, 0, 0, 0),  # drop
)
_NOBODYS = 0xF0000000
"""240.0.0.0/4: no station has such an address (RFC 1112 section 4)."""
_ONLY_ARP = ((0x06, 0, 0, 0x40000),)


class Rival(NamedTuple):
    """Another server: the address by which it calls itself, and its MAC."""

    address: int
    mac: bytes


class Claim(NamedTuple):
    """``mac`` says that it has ``address``."""

    address: int
    mac: bytes


def rival(frame: bytes) -> Rival | None:
    """The server that sent this frame, None when it is no DHCP server's answer. Never raises."""
    header = 14 + (frame[14] & 15) * 4 if len(frame) > 14 else 0
    if len(frame) < header + 8:
        return None
    try:
        message = decode(frame[header + 8 :])
    except WireError:
        return None
    kind = message.options.get(opt.MESSAGE_TYPE, b"")
    if message.op != BOOTREPLY or kind not in (b"\x02", b"\x05", b"\x06"):
        return None
    server = message.options.get(opt.SERVER_ID, b"")
    return Rival(int.from_bytes(server if len(server) == 4 else frame[26:30], "big"), frame[6:12])


def question(mac: bytes, xid: int) -> bytes:
    """A frame that every DHCP server of the VLAN answers by broadcast (RFC 2131 section 4.1): a DISCOVER of ours. No
    lease comes of it, for nobody takes the offers."""
    message = Message(xid=xid, flags=BROADCAST_FLAG, chaddr=mac, options={opt.MESSAGE_TYPE: bytes((Type.DISCOVER,))})
    return udp_frame(mac, BROADCAST_MAC, 0, BROADCAST, SERVER_PORT, encode(message), CLIENT_PORT)


class Heard:
    """What was heard on one VLAN and still counts, as a pure object; ``now`` are seconds of a clock that is not set."""

    def __init__(self) -> None:
        self._found: dict[Rival | Claim, tuple[float, float]] = {}
        """When it was heard first and last."""
        self._asked = -ASK_SELDOM_SECONDS

    def hear(self, one: Rival | Claim, now: float) -> bool:
        """True until it is sure; False too when there is no room for it."""
        first, _ = self._found.get(one, (now, now))
        if one not in self._found and len(self._found) >= MAX_HEARD:
            return False
        self._found[one] = (first, now)
        return now - first < SURE_SECONDS

    def rivals(self, now: float) -> list[Rival]:
        """The other servers."""
        self._forget(now)
        return [one for one in self._found if isinstance(one, Rival)]

    def claims(self, now: float) -> list[Claim]:
        """Who claims an address, and did so more than once."""
        self._forget(now)
        sure = [one for one, (first, last) in self._found.items() if last - first >= SURE_SECONDS]
        return [one for one in sure if isinstance(one, Claim)]

    def retract(self, wrong: Claim) -> None:
        """It is nobody else's address after all."""
        self._found.pop(wrong, None)

    def is_question_due(self, now: float) -> bool:
        """Whether to ask who is there; True once until the next time."""
        if now - self._asked < (ASK_SECONDS if self._found else ASK_SELDOM_SECONDS):
            return False
        self._asked = now
        return True

    def unsure(self) -> list[Claim]:
        """The claims to ask about, all of them."""
        return [one for one in self._found if isinstance(one, Claim)]

    def _forget(self, now: float) -> None:
        self._found = {one: times for one, times in self._found.items() if now - times[1] < HOLD_SECONDS}


class Mirror:
    """Whether what looks like this station's own ARP is another's, as a pure object.

    A station with our MAC is another one, unless the network sends back what is sent (a bridge's hairpin mode, a loop):
    then our `echo` comes back, and nothing with our MAC is believed any more.
    """

    def __init__(self, mac: bytes, number: int) -> None:
        """``number``: 28 random bits, by which our echo is told from that of another with our MAC."""
        self.echo = arp_probe(mac, _NOBODYS | number)
        self._mac = mac
        self._is_echoed = False

    def claims(self, frames: Sequence[bytes]) -> tuple[list[Claim], bool]:
        """What others say of themselves in what a look took from the wire, each once, and whether the echo is to be
        sent before the next look."""
        self._is_echoed |= any(frame.startswith(self.echo) for frame in frames)
        found = dict.fromkeys(Claim(*claim) for claim in map(arp_sender, frames) if claim is not None)
        others = [one for one in found if one.mac != self._mac or not self._is_echoed]
        return others, any(one.mac == self._mac for one in others)


class Ear:
    """The sockets on one interface. Opening raises OSError; nothing else does."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._sockets: list[socket.socket] = []
        try:
            self._servers = self._open(interface, _ETH_P_IP, _ONLY_SERVERS)
            self._arp = self._open(interface, _ETH_P_ARP, _ONLY_ARP)
        except OSError:
            self.close()
            raise
        self.mac: bytes = self._arp.getsockname()[4]
        self._mirror = Mirror(self.mac, random.getrandbits(28))

    def _open(self, interface: str, protocol: int, program: tuple[tuple[int, int, int, int], ...]) -> socket.socket:
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._sockets.append(one)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        packed = array("B", b"".join(BPF.pack(*instruction) for instruction in program))
        one.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, pack("HP", len(program), packed.buffer_info()[0]))
        one.bind((interface, protocol))
        return one

    def close(self) -> None:
        for one in self._sockets:
            one.close()

    def is_there(self) -> bool:
        """Whether the interface is still the one that was opened, with that name and MAC."""
        try:
            name, *_, mac = self._arp.getsockname()
        except OSError:
            return False
        return (name, mac) == (self.interface, self.mac)

    def rivals(self) -> Iterator[Rival]:
        """The servers that answered since the last look, but for this station."""
        for frame in self._frames(self._servers):
            one = rival(frame)
            if one is not None and one.mac != self.mac:
                yield one

    def claims(self) -> list[Claim]:
        """What others said of themselves by ARP since the last look."""
        claims, is_doubled = self._mirror.claims(list(self._frames(self._arp)))
        if is_doubled:
            self._send(self._mirror.echo)
        return claims

    def ask_servers(self, xid: int) -> None:
        self._send(question(self.mac, xid))

    def ask(self, address: int) -> None:
        """Who has that address?"""
        self._send(arp_probe(self.mac, address))

    def _send(self, frame: bytes) -> None:
        with suppress(OSError):
            self._arp.send(frame)

    def _frames(self, one: socket.socket) -> Iterator[bytes]:
        with suppress(OSError):
            for _ in range(MAX_LOOK):
                yield one.recv(_FRAME_SIZE)
