"""The options an operator can set by name or code (RFC 2132 and the IANA registry): written value to bytes and back.

A value that starts with ``hex:`` is taken as bytes for every option.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from typing import NamedTuple

from dhcpd.pool import dotted
from dhcpd.values import address, boolean, domain, duration, hexadecimal, network, shown, span, suggestion, text, whole

ROUTERS, BROADCAST_ADDRESS, CLASSLESS_ROUTES, MICROSOFT_ROUTES = 3, 28, 121, 249
MAX_LENGTH = 1024
"""Bytes of one value: a whole reply has to fit into an Ethernet frame."""


class Kind(NamedTuple):
    """How values of one type are written and read back. ``show`` may fail on bytes that ``encode`` did not make."""

    encode: Callable[[object], bytes]
    show: Callable[[bytes], str]


class Option(NamedTuple):
    code: int
    name: str
    kind: Kind


class Route(NamedTuple):
    """A classless static route; router 0.0.0.0 means that the destination is on the link (RFC 3442)."""

    destination: IPv4Network
    router: int


def several(value: object) -> list[object]:
    """A list as it is, anything else as a list of one."""
    found = value if isinstance(value, list) else [value]
    if not found:
        raise ValueError("expected at least one value")
    return found


def _addresses(value: object) -> bytes:
    return b"".join(address(one).to_bytes(4, "big") for one in several(value))


def _show_addresses(data: bytes) -> str:
    if len(data) % 4:
        raise ValueError("the bytes are no list of addresses")
    return ", ".join(dotted(int.from_bytes(data[at : at + 4], "big")) for at in range(0, len(data), 4))


def _number(size: int, low: int = 0) -> Kind:
    read = whole(low, 256**size - 1)
    return Kind(lambda value: read(value).to_bytes(size, "big"), lambda data: str(int.from_bytes(data, "big")))


def _domains(value: object) -> bytes:
    """Names with RFC 1035 section 4.1.4 compression, pointers relative to the value (RFC 3397 section 2)."""
    data = bytearray()
    known: dict[str, int] = {}
    for name in map(domain, several(value)):
        rest = name.lower()
        while rest and rest not in known:
            if len(data) < 0x4000:
                known[rest] = len(data)
            label, _, rest = rest.partition(".")
            data += bytes((len(label),)) + label.encode("ascii")
        data += (0xC000 | known[rest]).to_bytes(2, "big") if rest else b"\0"
    return bytes(data)


def decode_domains(data: bytes) -> list[str]:
    """The inverse for values that `encode` made: each pointer leads back."""
    names, at = [], 0
    while at < len(data):
        name, at = _name_at(data, at)
        names.append(name)
    return names


def _name_at(data: bytes, at: int) -> tuple[str, int]:
    """The name that starts at an offset, and the offset behind it."""
    labels: list[str] = []
    while (size := data[at]) and size < 0xC0:
        labels.append(data[at + 1 : at + 1 + size].decode("ascii"))
        at += 1 + size
    if not size:
        return ".".join(labels), at + 1
    target = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
    if target >= at:
        raise ValueError("a pointer that does not lead back")
    return ".".join([*labels, _name_at(data, target)[0]]), at + 2


def _route(value: object) -> Route:
    words = text(value).split()
    if len(words) != 3 or words[1] != "via":
        raise ValueError(f'expected a route such as "192.168.50.0/24 via 10.0.1.9", not {shown(value)}')
    return Route(network("0.0.0.0/0" if words[0] == "default" else words[0]), address(words[2]))


def encode_routes(value: object) -> bytes:
    """``"192.168.50.0/24 via 10.0.1.9"`` or ``"default via 10.0.1.1"``, one or a list, as RFC 3442 has them."""
    data = b""
    for destination, router in map(_route, several(value)):
        width = destination.prefixlen
        data += bytes((width,)) + destination.network_address.packed[: (width + 7) // 8] + router.to_bytes(4, "big")
    return data


def decode_routes(data: bytes) -> list[Route]:
    """The inverse of `encode_routes`. Raises ValueError when the bytes are no list of routes."""
    routes, at = [], 0
    while at < len(data):
        octets = (data[at] + 7) // 8
        end = at + 1 + octets + 4
        if data[at] > 32 or end > len(data):
            raise ValueError("the bytes are no list of routes (RFC 3442)")
        destination = int.from_bytes(data[at + 1 : end - 4].ljust(4, b"\0"), "big")
        routes.append(
            Route(IPv4Network((destination, data[at]), strict=False), int.from_bytes(data[end - 4 : end], "big"))
        )
        at = end
    return routes


def complete_routes(options: Mapping[int, bytes]) -> dict[int, bytes]:
    """The options with a default route in 121 and the same routes in 249 (as Microsoft clients ask for them).

    A client that takes 121 ignores option 3 (RFC 3442), so without a default route of its own the first router of
    option 3 is added, in front because it matters most. Raises ValueError when 121 is no list of routes.
    """
    completed = dict(options)
    routes = options.get(CLASSLESS_ROUTES)
    if routes is None:
        return completed
    router = options.get(ROUTERS, b"")[:4]
    if len(router) == 4 and all(one.destination.prefixlen for one in decode_routes(routes)):
        routes = b"\0" + router + routes
    completed[CLASSLESS_ROUTES] = routes
    completed.setdefault(MICROSOFT_ROUTES, routes)
    return completed


def _show_routes(data: bytes) -> str:
    return ", ".join(f"{one.destination} via {dotted(one.router)}" for one in decode_routes(data))


def _show_text(data: bytes) -> str:
    found = data.decode("utf-8")
    return found if found.isprintable() else show_hex(data)


def _show_flag(data: bytes) -> str:
    return "true" if data[0] else "false"


def _raw(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError('expected text or bytes such as "hex:01:04:ff"; the type of this option is not known')
    return text(value).encode()


def _only_hex(value: object) -> bytes:
    raise ValueError(f'expected bytes such as "hex:01:04:ff", not {shown(value)}')


def show_hex(data: bytes) -> str:
    return "hex:" + data.hex(":")


ADDRESS = Kind(lambda value: address(value).to_bytes(4, "big"), _show_addresses)
ADDRESSES = Kind(_addresses, _show_addresses)
FLAG = Kind(lambda value: bytes((boolean(value),)), _show_flag)
U8 = _number(1)
MTU = _number(2, low=68)  # RFC 2132 section 5.1
SECONDS = Kind(lambda value: duration(value).to_bytes(4, "big"), lambda data: span(int.from_bytes(data, "big")))
TEXT = Kind(lambda value: text(value).encode(), _show_text)
DOMAIN = Kind(lambda value: domain(value).encode("ascii"), _show_text)
DOMAINS = Kind(_domains, lambda data: ", ".join(decode_domains(data)))
ROUTES = Kind(encode_routes, _show_routes)
HEX = Kind(_only_hex, show_hex)
RAW = Kind(_raw, _show_text)

OPTIONS = (
    Option(3, "routers", ADDRESSES),
    Option(4, "time_servers", ADDRESSES),
    Option(6, "domain_name_servers", ADDRESSES),
    Option(7, "log_servers", ADDRESSES),
    Option(12, "host_name", DOMAIN),
    Option(15, "domain_name", DOMAIN),
    Option(17, "root_path", TEXT),
    Option(19, "ip_forwarding", FLAG),
    Option(23, "default_ip_ttl", U8),
    Option(24, "path_mtu_aging_timeout", SECONDS),
    Option(26, "interface_mtu", MTU),
    Option(28, "broadcast_address", ADDRESS),
    Option(35, "arp_cache_timeout", SECONDS),
    Option(42, "ntp_servers", ADDRESSES),
    Option(43, "vendor_encapsulated_options", HEX),
    Option(44, "netbios_name_servers", ADDRESSES),
    Option(46, "netbios_node_type", U8),
    Option(60, "vendor_class_identifier", TEXT),
    Option(66, "tftp_server_name", TEXT),
    Option(67, "bootfile_name", TEXT),
    Option(100, "posix_timezone", TEXT),  # RFC 4833
    Option(101, "tzdb_timezone", TEXT),
    Option(108, "v6_only_preferred", SECONDS),  # RFC 8925
    Option(114, "captive_portal", TEXT),  # RFC 8910
    Option(119, "domain_search", DOMAINS),
    Option(CLASSLESS_ROUTES, "classless_static_routes", ROUTES),
    Option(150, "tftp_server_addresses", ADDRESSES),  # RFC 5859
    Option(MICROSOFT_ROUTES, "microsoft_classless_static_routes", ROUTES),
)

COMPUTED = {
    0: ("pad", "it is padding"),
    1: ("subnet_mask", "it follows from subnet"),
    50: ("requested_address", "only clients send it"),
    51: ("lease_time", "set lease_time of the VLAN"),
    52: ("option_overload", "the server uses it when a reply is full"),
    53: ("message_type", "it is the protocol's own"),
    54: ("server_identifier", "it is the router's address"),
    55: ("parameter_request_list", "only clients send it"),
    56: ("message", "it explains a refusal"),
    57: ("maximum_message_size", "only clients send it"),
    58: ("renewal_time", "set t1 of the VLAN"),
    59: ("rebinding_time", "set t2 of the VLAN"),
    61: ("client_identifier", "the client's own is sent back"),
    82: ("relay_agent_information", "the relay agent's own is sent back"),
    255: ("end", "it ends the options"),
}
"""Options that no setting may change: code -> (name, why)."""

_BY_CODE = {one.code: one for one in OPTIONS}
_CODES = {one.name: one.code for one in OPTIONS} | {name: code for code, (name, _) in COMPUTED.items()}


def name_of(code: int) -> str:
    """The name of an option, or its code as text when it has none here."""
    return _BY_CODE[code].name if code in _BY_CODE else str(code)


def code_of(option: str | int) -> int:
    """The code of an option that may be set, by its name or code. Raises ValueError."""
    if isinstance(option, str) and re.fullmatch("[0-9]{1,3}", option):
        option = int(option)
    code = _CODES.get(option) if isinstance(option, str) else option
    if code is None:
        raise ValueError(f"unknown option{suggestion(str(option), _CODES)}")
    if code in COMPUTED:
        name, why = COMPUTED[code]
        raise ValueError(f"option {code} ({name}) cannot be set: {why}")
    if not 0 < code < 255:
        raise ValueError("expected an option code from 1 to 254")
    return code


def encode(option: str | int, value: object) -> tuple[int, bytes]:
    """The code and bytes of an option as an operator writes it. Raises ValueError that says what is expected."""
    code = code_of(option)
    kind = _BY_CODE[code].kind if code in _BY_CODE else RAW
    data = hexadecimal(value) if isinstance(value, str) and value.startswith("hex:") else kind.encode(value)
    if len(data) > MAX_LENGTH:
        raise ValueError(f"expected at most {MAX_LENGTH} bytes, not {len(data)}")
    return code, data


def show(code: int, data: bytes) -> str:
    """A value as a reader of the log knows it; bytes that are not of the option's type as ``hex:``."""
    kind = _BY_CODE[code].kind if code in _BY_CODE else RAW
    try:
        return kind.show(data)
    except (ValueError, IndexError):
        return show_hex(data)
