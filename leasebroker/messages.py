"""What a container's DHCP client says, and what it takes from a server's answer (RFC 2131 sections 4.3 and 4.4).

The router speaks for the container: the address goes onto a link that is not the router's. Two things follow for every
message. The broadcast flag is set, so that the answer reaches the router's leg. And ``ciaddr`` is 0, because a server
answers a message with a ``ciaddr`` by unicast to that address whatever the flag says (RFC 2131 section 4.1): dnsmasq
asks for it by ARP, and the container gets the answer. So a lease is renewed in the form of INIT-REBOOT: requested
address (50), no ``ciaddr``, no server identifier. A server that has the lease grants it anew; the tests hold Kea, ISC
dhcpd, dnsmasq and our own to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from dhcpd import opt
from dhcpd.identity import host_name
from dhcpd.options import BROADCAST_ADDRESS, CLASSLESS_ROUTES, ROUTERS
from dhcpd.replies import Times
from dhcpd.settings import INFINITE
from dhcpd.wire import BOOTREPLY, BROADCAST_FLAG, Message, Type, WireError, decode, encode

_DNS, DOMAIN_NAME, MTU, _NTP, _DOMAIN_SEARCH = 6, 15, 26, 42, 119
REQUESTED = bytes(
    (opt.SUBNET_MASK, ROUTERS, _DNS, DOMAIN_NAME, MTU, BROADCAST_ADDRESS, _NTP, opt.LEASE_TIME, opt.SERVER_ID,
     opt.RENEWAL_TIME, opt.REBINDING_TIME, _DOMAIN_SEARCH, CLASSLESS_ROUTES)
)  # fmt: skip
"""The parameter request list (option 55)."""

MIN_LEASE = 4
"""Seconds. A shorter lease would be renewed all the time, one of 0 at the speed of the wire."""
MAX_CLIENT_ID = 255
"""Bytes of an option that is not split; servers do not put split client identifiers together."""


class Station(NamedTuple):
    """Whom the server sees."""

    mac: bytes
    client_id: bytes


def station(site: str, network: str, name: str) -> Station:
    """The client identifier and hardware address of a container: the same ones whenever and wherever it runs again.

    ``network`` is the Docker network, ``name`` the container's identity. ``site`` tells machines with equal names for
    both from each other on one VLAN. The identifier is readable, ``lanward/SITE/NETWORK/NAME`` behind the type 0 of
    "no hardware address" (RFC 2132 section 9.14), so that a server's operator can reserve an address by it. The
    hardware address is a locally administered one, and what a server knows a client by that ignores option 61.
    """
    text = "/".join(one for one in ("lanward", site, network, name) if one).encode()
    digest = sha256(text).digest()
    if len(text) >= MAX_CLIENT_ID:
        text = text[: MAX_CLIENT_ID - 34] + b"/" + digest[:16].hex().encode()
    return Station(bytes((digest[0] & 0xFC | 2,)) + digest[1:6], b"\0" + text)


class Reply(NamedTuple):
    """An OFFER, ACK or NAK whose fields are sound; of a NAK only the first five count."""

    kind: int
    xid: int
    mac: bytes
    client_id: bytes | None
    """Option 61 as the server sends it back (RFC 6842), None from an older server."""
    server: int
    address: int
    times: Times
    options: Mapping[int, bytes]
    """Those of `REQUESTED` that it has."""


_NEVER = Times(INFINITE, INFINITE, INFINITE)


def discover(who: Station, hostname: str, xid: int, secs: int, wish: int | None) -> bytes:
    """A DISCOVER (RFC 2131 section 4.4.1); ``wish`` is an address to ask for."""
    return _request(who, hostname, xid, secs, Type.DISCOVER, _address(opt.REQUESTED_ADDRESS, wish))


def select(who: Station, hostname: str, xid: int, secs: int, address: int, server: int) -> bytes:
    """The REQUEST that takes an offer (RFC 2131 section 4.3.2, SELECTING)."""
    choice = _address(opt.REQUESTED_ADDRESS, address) | _address(opt.SERVER_ID, server)
    return _request(who, hostname, xid, secs, Type.REQUEST, choice)


def confirm(who: Station, hostname: str, xid: int, address: int) -> bytes:
    """The REQUEST for a lease that the container has: after a restart, and in place of RENEWING and REBINDING."""
    return _request(who, hostname, xid, 0, Type.REQUEST, _address(opt.REQUESTED_ADDRESS, address))


def decline(who: Station, xid: int, address: int, server: int) -> bytes:
    """A DECLINE (RFC 2131 section 4.4.4), which has no answer."""
    options = {opt.MESSAGE_TYPE: bytes((Type.DECLINE,)), opt.CLIENT_ID: who.client_id}
    options |= _address(opt.REQUESTED_ADDRESS, address) | _address(opt.SERVER_ID, server)
    return encode(Message(xid=xid, chaddr=who.mac, options=options))


def _address(code: int, address: int | None) -> dict[int, bytes]:
    return {} if address is None else {code: address.to_bytes(4, "big")}


def _request(who: Station, hostname: str, xid: int, secs: int, kind: int, choice: dict[int, bytes]) -> bytes:
    options = {opt.MESSAGE_TYPE: bytes((kind,)), opt.CLIENT_ID: who.client_id} | choice
    if name := host_name({opt.HOST_NAME: hostname.encode(errors="replace")}):
        options[opt.HOST_NAME] = name.encode("ascii")
    options[opt.PARAMETER_LIST] = REQUESTED
    return encode(Message(xid=xid, secs=min(secs, 0xFFFF), flags=BROADCAST_FLAG, chaddr=who.mac, options=options))


def read(payload: bytes) -> Reply:
    """The server's message in a UDP payload. Raises `WireError`, and nothing else, whatever the bytes."""
    message = decode(payload)
    options = message.options
    kind = options.get(opt.MESSAGE_TYPE, b"")
    if message.op != BOOTREPLY:
        raise WireError("not_a_reply")
    if kind not in (b"\x02", b"\x05", b"\x06"):
        raise WireError("unsupported_type")
    server = _number(options, opt.SERVER_ID)
    if not server:
        raise WireError("no_server_id")
    times = _NEVER if kind[0] == Type.NAK else _times(options)
    asked = {code: options[code] for code in REQUESTED if code in options}
    client_id = options.get(opt.CLIENT_ID)
    return Reply(kind[0], message.xid, message.chaddr, client_id, server, message.yiaddr, times, asked)


def _times(options: Mapping[int, bytes]) -> Times:
    """T1 and T2 are 0.5 and 0.875 of the lease unless the server says something that makes sense (section 4.4.5)."""
    lease = _number(options, opt.LEASE_TIME)
    if lease is None or lease < MIN_LEASE:
        raise WireError("no_lease_time" if lease is None else "bad_lease_time")
    if lease == INFINITE:
        return _NEVER
    t1 = _number(options, opt.RENEWAL_TIME) or lease // 2
    t2 = _number(options, opt.REBINDING_TIME) or lease * 7 // 8
    return Times(lease, t1, t2) if t1 < t2 < lease else Times(lease, lease // 2, lease * 7 // 8)


def _number(options: Mapping[int, bytes], code: int) -> int | None:
    """A value of four bytes; one of another length counts as absent."""
    value = options.get(code, b"")
    return int.from_bytes(value, "big") if len(value) == 4 else None
