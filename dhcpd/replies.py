"""Server messages (RFC 2131 section 4.3): which options a reply carries, in which order, and where it must go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dhcpd import opt
from dhcpd.settings import INFINITE, Boot, Options
from dhcpd.wire import (
    BOOTREPLY,
    DEFAULT_MESSAGE_SIZE,
    END_OPTION,
    HEADER_SIZE,
    IP_UDP_SIZE,
    MINIMUM_SIZE,
    Message,
    Type,
    encode,
    pack_option,
    pack_options,
    reply_header,
)

MAX_MESSAGE_SIZE = 1500
"""However much a client says it takes (option 57), a reply is never larger than an Ethernet frame."""
MAX_CACHED = 64
"""Different parameter request lists remembered: as many firmwares; a client that invents them only costs time."""
_ECHOED: tuple[int, ...] = (opt.CLIENT_ID, opt.RELAY_AGENT)


class Send(NamedTuple):
    """A UDP payload and where it goes: in a raw frame to ``mac``, or by the kernel when that is None."""

    payload: bytes
    mac: bytes | None
    address: int
    port: int


class Times(NamedTuple):
    """Lease time, T1 and T2 in seconds (RFC 2131 section 4.4.5)."""

    lease: int
    t1: int
    t2: int


def lease_times(lease: int, t1: float, t2: float) -> Times:
    """T1 and T2 as fractions of the lease; with an infinite lease they never come (RFC 2131 section 3.3)."""
    if lease == INFINITE:
        return Times(INFINITE, INFINITE, INFINITE)
    return Times(lease, int(lease * t1), int(lease * t2))


class Profile:
    """What one kind of client is told beside its address: the VLAN's options with those of a reservation over them."""

    def __init__(self, server_id: int, options: Options, boot: Boot) -> None:
        self._server_id = server_id.to_bytes(4, "big")
        self._options = dict(options)
        if boot.server_name:
            self._options.setdefault(opt.SERVER_NAME, boot.server_name.encode())
        if boot.file:
            self._options.setdefault(opt.BOOT_FILE, boot.file.encode())
        self.siaddr = boot.next_server
        self.sname = boot.server_name.encode()[:63]
        self.file = boot.file.encode() if len(boot.file.encode()) < 128 else b""
        self._bodies: dict[tuple[int, bytes | None, Times | None], bytes] = {}

    def body(self, kind: int, requested: bytes | None, times: Times | None) -> bytes:
        """`options`, packed; remembered, since clients of one make ask for the same."""
        key = (kind, requested, times)
        body = self._bodies.get(key)
        if body is None:
            if len(self._bodies) >= MAX_CACHED:
                self._bodies.clear()
            body = self._bodies[key] = pack_options(self.options(kind, requested, times).items())
        return body

    def options(self, kind: int, requested: bytes | None, times: Times | None) -> dict[int, bytes]:
        """The options of a reply in their order: what the protocol needs, then what was requested in the order of the
        request (RFC 2132 section 9.8), but the subnet mask before the router (section 3.3). A client that requested
        nothing in particular gets all there is, but for option 108, which is only for those that ask (RFC 8925
        section 3.3)."""
        options: dict[int, bytes] = {opt.MESSAGE_TYPE: bytes((kind,)), opt.SERVER_ID: self._server_id}
        renewal: dict[int, bytes] = {}
        if times is not None:
            options[opt.LEASE_TIME] = times.lease.to_bytes(4, "big")
            renewal[opt.RENEWAL_TIME] = times.t1.to_bytes(4, "big")
            renewal[opt.REBINDING_TIME] = times.t2.to_bytes(4, "big")
        offered = self._options | renewal
        codes = bytes(one for one in offered if one != opt.IPV6_ONLY) if requested is None else requested
        for code in codes:
            if code == opt.ROUTER and opt.SUBNET_MASK in codes and opt.SUBNET_MASK in offered:
                options.setdefault(opt.SUBNET_MASK, offered[opt.SUBNET_MASK])
            if code in offered:
                options.setdefault(code, offered[code])
        return options | renewal


def compose(request: Message, kind: int, profile: Profile, yiaddr: int, times: Times | None) -> bytes:
    """The payload of an OFFER or ACK."""
    options = request.options
    requested = options.get(opt.PARAMETER_LIST)
    body = profile.body(kind, requested, times)
    client_id, relay = options.get(opt.CLIENT_ID), options.get(opt.RELAY_AGENT)
    tail = END_OPTION if relay is None else pack_option(opt.RELAY_AGENT, relay) + END_OPTION
    if client_id is not None:
        tail = pack_option(opt.CLIENT_ID, client_id) + tail
    ciaddr = request.ciaddr if kind == Type.ACK else 0
    size = HEADER_SIZE + len(body) + len(tail)
    if size > DEFAULT_MESSAGE_SIZE - IP_UDP_SIZE and size > size_limit(options):
        reply = Message(
            BOOTREPLY, request.htype, 0, request.xid, 0, request.flags, ciaddr, yiaddr,
            profile.siaddr, request.giaddr, request.chaddr, profile.sname, profile.file,
        )  # fmt: skip
        return _squeeze(reply, profile.options(kind, requested, times), options)
    head = reply_header(request, ciaddr, yiaddr, profile.siaddr, profile.sname, profile.file)
    return (head + body + tail).ljust(MINIMUM_SIZE, b"\0")


def refuse(request: Message, server_id: int, why: str) -> bytes:
    """The payload of a NAK: no lease, no configuration (RFC 2131 table 3); a relay agent has to broadcast it."""
    reply = Message(
        op=BOOTREPLY, htype=request.htype, xid=request.xid, giaddr=request.giaddr, chaddr=request.chaddr,
        flags=request.flags | 0x8000 if request.giaddr else request.flags,
    )  # fmt: skip
    reply.options = {
        opt.MESSAGE_TYPE: bytes((Type.NAK,)),
        opt.SERVER_ID: server_id.to_bytes(4, "big"),
        opt.MESSAGE: why.encode(),
    } | _echoed(request.options, _ECHOED)
    return encode(reply, size_limit(request.options))


def size_limit(options: dict[int, bytes]) -> int:
    """The largest DHCP message for a client: 576 bytes, or what its option 57 says, less IP and UDP headers."""
    value = options.get(opt.MAX_MESSAGE_SIZE, b"")
    size = int.from_bytes(value, "big") if len(value) == 2 else 0
    return min(max(size, DEFAULT_MESSAGE_SIZE), MAX_MESSAGE_SIZE) - IP_UDP_SIZE


def _squeeze(reply: Message, ordered: dict[int, bytes], request: dict[int, bytes]) -> bytes:
    """What the client must have comes first, so that it is the rest that is moved or left out."""
    needed: tuple[int, ...] = (opt.MESSAGE_TYPE, opt.SERVER_ID, opt.LEASE_TIME, opt.SUBNET_MASK, opt.ROUTER)
    client_id, relay = _echoed(request, (opt.CLIENT_ID,)), _echoed(request, (opt.RELAY_AGENT,))
    reply.options = _echoed(ordered, needed) | client_id | ordered | relay
    return encode(reply, size_limit(request))


def _echoed(options: dict[int, bytes], codes: Iterable[int]) -> dict[int, bytes]:
    return {code: options[code] for code in codes if code in options}
