"""The DHCPv4 codec: header and raw options (RFC 2131 section 2, RFC 2132, RFC 3396), and the frames that carry it.

Addresses are integers. Options stay raw bytes keyed by code, so unknown ones survive a round trip.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from struct import Struct

from dhcpd import opt

SERVER_PORT, CLIENT_PORT = 67, 68
BROADCAST = 0xFFFFFFFF
BROADCAST_MAC = b"\xff" * 6
BROADCAST_FLAG = 0x8000
ETHERNET = 1
BOOTREQUEST, BOOTREPLY = 1, 2
MINIMUM_SIZE = 300
"""Bytes of the shortest reply: BOOTP clients and relays drop shorter ones (RFC 1542 section 2.1)."""
IP_UDP_SIZE = 28
DEFAULT_MESSAGE_SIZE = 576
"""What every client accepts, IP and UDP headers included (RFC 2131 section 2); option 57 can raise it."""

PAD, END = 0, 255
END_OPTION = b"\xff"
_MAGIC = 0x63825363
_HEADER = Struct("!BBBBIHHIIII16s64s128sI")
_FIXED = Struct("!BBBBIHHIIII16s")
HEADER_SIZE = _HEADER.size
_LEASE_SIZE = 32
"""Bytes of the options that make a lease: 53, 54, 51, 1 and 3, with 52 and the END."""
_SNAME = slice(44, 108)
_FILE = slice(108, 236)


class Type:
    """DHCP message types (RFC 2132 section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class WireError(Exception):
    """The bytes are no DHCP message; ``args[0]`` is a short constant reason, fit for a counter's label."""


@dataclass(slots=True)
class Message:
    """One DHCP message. ``chaddr`` has the ``hlen`` bytes of the header; ``sname`` and ``file`` are without their
    trailing NULs, and empty when they carry options (RFC 2132 section 9.3)."""

    op: int = BOOTREQUEST
    htype: int = ETHERNET
    hops: int = 0
    xid: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: int = 0
    yiaddr: int = 0
    siaddr: int = 0
    giaddr: int = 0
    chaddr: bytes = b""
    sname: bytes = b""
    file: bytes = b""
    options: dict[int, bytes] = field(default_factory=dict)


def decode(data: bytes) -> Message:
    """The message in a UDP payload. Raises `WireError`, and nothing else, whatever the bytes."""
    if len(data) < HEADER_SIZE:
        raise WireError("short")
    op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr = _FIXED.unpack_from(data)
    if data[236:240] != b"\x63\x82\x53\x63":
        raise WireError("no_magic_cookie")
    if hlen > 16:
        raise WireError("bad_hlen")
    options: dict[int, bytes] = {}
    _read_options(data, HEADER_SIZE, options)
    sname = data[_SNAME].rstrip(b"\0") if data[44] else b""
    file = data[_FILE].rstrip(b"\0") if data[108] else b""
    if opt.OVERLOAD in options:
        file, sname = _read_overload(data, options, file, sname)
    return Message(
        op, htype, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr[:hlen], sname, file, options
    )


def _read_options(data: bytes, position: int, options: dict[int, bytes]) -> None:
    """Add the options of one field; a code met again continues its value (RFC 3396 section 7)."""
    end = len(data)
    try:
        while position < end:
            code = data[position]
            if code == PAD:
                position += 1
                continue
            if code == END:
                return
            start = position + 2
            position = start + data[start - 1]
            if code in options:
                options[code] += data[start:position]
            else:
                options[code] = data[start:position]
    except IndexError:
        raise WireError("truncated_option") from None
    if position > end:
        raise WireError("truncated_option")


def _read_overload(data: bytes, options: dict[int, bytes], file: bytes, sname: bytes) -> tuple[bytes, bytes]:
    """Options in ``file``, then in ``sname`` (RFC 3396 section 5 gives this order)."""
    which = options.pop(opt.OVERLOAD)
    if which not in (b"\x01", b"\x02", b"\x03"):
        raise WireError("bad_overload")
    if which[0] & 1:
        _read_options(data[_FILE], 0, options)
        file = b""
    if which[0] & 2:
        _read_options(data[_SNAME], 0, options)
        sname = b""
    options.pop(opt.OVERLOAD, None)
    return file, sname


def encode(message: Message, limit: int = 65535 - IP_UDP_SIZE) -> bytes:
    """The UDP payload of a message, at least `MINIMUM_SIZE` and, by leaving out the last options, at most ``limit``
    bytes. What does not fit behind the header moves into ``file`` and ``sname`` when those are empty."""
    body, file, sname = fit_options(message.options.items(), limit - HEADER_SIZE, message.file, message.sname)
    m = message
    head = _HEADER.pack(
        m.op, m.htype, len(m.chaddr), m.hops, m.xid, m.secs, m.flags,
        m.ciaddr, m.yiaddr, m.siaddr, m.giaddr, m.chaddr, sname, file, _MAGIC,
    )  # fmt: skip
    return (head + body).ljust(MINIMUM_SIZE, b"\0")


def reply_header(request: Message, ciaddr: int, yiaddr: int, siaddr: int, sname: bytes, file: bytes) -> bytes:
    """The 240 bytes in front of the options of a reply (RFC 2131 table 3); ``sname`` and ``file`` are cut to fit."""
    return _HEADER.pack(
        BOOTREPLY, request.htype, len(request.chaddr), 0, request.xid, 0, request.flags,
        ciaddr, yiaddr, siaddr, request.giaddr, request.chaddr, sname, file, _MAGIC,
    )  # fmt: skip


def pack_option(code: int, value: bytes) -> bytes:
    """One option as bytes; a value over 255 bytes is split (RFC 3396 section 5)."""
    if len(value) <= 255:
        return bytes((code, len(value))) + value
    return b"".join(pack_option(code, value[at : at + 255]) for at in range(0, len(value), 255))


def pack_options(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Options as bytes in the order given, without an END."""
    return b"".join(pack_option(code, value) for code, value in options)


def fit_options(
    options: Iterable[tuple[int, bytes]], room: int, file: bytes, sname: bytes
) -> tuple[bytes, bytes, bytes]:
    """Pack options into ``room`` bytes, then into the empty ones of ``file`` and ``sname``.

    Returns (options field with its END, file, sname). An option goes whole into one field; one that fits nowhere is
    left out. The relay agent information keeps its place as the last option (RFC 3046 section 2.2), unless it would
    leave no room for a lease.
    """
    ordered = dict(options)
    relay = pack_option(opt.RELAY_AGENT, ordered.pop(opt.RELAY_AGENT)) if opt.RELAY_AGENT in ordered else b""
    if len(relay) + _LEASE_SIZE > room:
        relay = b""
    packed = [pack_option(code, value) for code, value in ordered.items()]
    if sum(map(len, packed)) + len(relay) + 1 <= room:
        return b"".join(packed) + relay + b"\xff", file, sname
    overload = pack_option(opt.OVERLOAD, b"\0")
    main, rest = _take(packed, room - 1 - len(relay) - len(overload))
    into_file, rest = _take(rest, 127) if not file else ([], rest)
    into_sname, rest = _take(rest, 63) if not sname else ([], rest)
    which = bool(into_file) | bool(into_sname) << 1
    if which:
        main.append(pack_option(opt.OVERLOAD, bytes((which,))))
    return (
        b"".join(main) + relay + b"\xff",
        b"".join(into_file) + b"\xff" if into_file else file,
        b"".join(into_sname) + b"\xff" if into_sname else sname,
    )


def _take(packed: list[bytes], room: int) -> tuple[list[bytes], list[bytes]]:
    """Split into what fits, first come first served, and the rest."""
    taken, rest = [], []
    for one in packed:
        if len(one) <= room:
            taken.append(one)
            room -= len(one)
        else:
            rest.append(one)
    return taken, rest


_FRAME = Struct("!6s6sHBBHHHBBHIIHHHH")
_ARP = Struct("!6s6sHHHBBH6sI6sI")
_IP_CONSTANT_SUM = 0x4500 + 0x4000 + 0x4011
_UDP = 17


def udp_frame(
    source_mac: bytes, target_mac: bytes, source: int, target: int, port: int, payload: bytes,
    source_port: int = SERVER_PORT,
) -> bytes:  # fmt: skip
    """An Ethernet frame with a UDP datagram to ``port``, checksums filled in.

    A big-endian number is equal to the sum of its 16-bit words modulo 65535, so one division is the Internet checksum
    (RFC 1071) of a payload.
    """
    size = len(payload) + 8
    words = int.from_bytes(payload, "big") << (size % 2 * 8)
    addresses = source + target
    return _FRAME.pack(
        target_mac, source_mac, 0x0800,
        0x45, 0, size + 20, 0, 0x4000, 64, _UDP,
        0xFFFF - (_IP_CONSTANT_SUM + size + 20 + addresses) % 0xFFFF, source, target,
        source_port, port, size, 0xFFFF - (addresses + _UDP + size + source_port + port + size + words) % 0xFFFF,
    ) + payload  # fmt: skip


def arp_probe(source_mac: bytes, address: int) -> bytes:
    """An Ethernet frame that asks who has ``address`` without touching anybody's ARP cache (RFC 5227 section 2.1.1)."""
    return _ARP.pack(BROADCAST_MAC, source_mac, 0x0806, ETHERNET, 0x0800, 6, 4, 1, source_mac, 0, bytes(6), address)


def arp_announcement(mac: bytes, address: int) -> bytes:
    """An Ethernet frame that tells all that ``mac`` has ``address`` (RFC 5227 section 3)."""
    return _ARP.pack(BROADCAST_MAC, mac, 0x0806, ETHERNET, 0x0800, 6, 4, 1, mac, address, bytes(6), address)


def arp_sender(frame: bytes) -> tuple[int, bytes] | None:
    """The (address, MAC) that an ARP packet claims, None when the frame is no ARP packet or claims nothing."""
    if len(frame) < _ARP.size:
        return None
    _, _, kind, hardware, protocol, hlen, plen, _, mac, address, _, _ = _ARP.unpack_from(frame)
    if (kind, hardware, protocol, hlen, plen) != (0x0806, ETHERNET, 0x0800, 6, 4) or not address:
        return None
    return address, mac
