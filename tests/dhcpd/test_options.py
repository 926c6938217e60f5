"""Option values as an operator writes them, against the RFCs' own examples and scapy as an independent codec."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import DHCP, DHCPOptions

from dhcpd.options import (
    COMPUTED,
    OPTIONS,
    Route,
    code_of,
    complete_routes,
    decode_domains,
    decode_routes,
    encode,
    show,
)
from dhcpd.pool import dotted
from dhcpd.values import span
from dhcpd.wire import pack_option

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
DOMAIN = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
ADDRESS = st.ip_addresses(v=4)
NETWORK = st.builds(lambda host, size: IPv4Network((int(host), size), strict=False), ADDRESS, st.integers(0, 32))

ROUTES_OF_RFC_3442 = (
    "00 0a000001 080a 0a000002 100a11 0a000003 180a1b81 0a000004 190ae50080 0a000005 200ac67a2f 0a000006"
)


def scapy_reads(code: int, data: bytes) -> Any:
    """The value of the one option that scapy finds in the bytes."""
    parsed: list[Any] = DHCP(pack_option(code, data) + b"\xff").options
    _, *values = parsed[0]
    return values[0] if len(values) == 1 else values


@pytest.mark.parametrize(
    ("option", "value", "code", "expected"),
    [
        ("routers", "10.0.1.1", 3, "0a000101"),
        ("domain_name_servers", ["1.1.1.1", "9.9.9.9"], 6, "0101010109090909"),
        ("host_name", "device1", 12, b"device1".hex()),
        ("domain_name", "truck.lan.", 15, b"truck.lan".hex()),
        ("interface_mtu", 1500, 26, "05dc"),
        ("ip_forwarding", False, 19, "00"),
        ("broadcast_address", "10.0.1.255", 28, "0a0001ff"),
        ("ntp_servers", ["10.0.1.1"], 42, "0a000101"),
        ("tftp_server_name", "10.0.1.9", 66, b"10.0.1.9".hex()),
        ("v6_only_preferred", "30m", 108, "00000708"),
        ("captive_portal", "https://a.example/", 114, b"https://a.example/".hex()),
        ("43", "hex:01:04:0a000101", 43, "01040a000101"),
        ("224", "plain text", 224, b"plain text".hex()),
        (26, "hex:05dc", 26, "05dc"),
        # RFC 3397 section 2, the names of its example in the order of a configuration
        ("domain_search", ["eng.apple.com.", "marketing.apple.com."], 119,
         "03656e67056170706c6503636f6d00 096d61726b6574696e67c004"),
        # the table of destination descriptors in RFC 3442
        ("121", ["0.0.0.0/0 via 10.0.0.1", "10.0.0.0/8 via 10.0.0.2", "10.17.0.0/16 via 10.0.0.3",
                 "10.27.129.0/24 via 10.0.0.4", "10.229.0.128/25 via 10.0.0.5", "10.198.122.47/32 via 10.0.0.6"], 121,
         ROUTES_OF_RFC_3442),
    ],
)  # fmt: skip
def test_a_value_is_encoded_as_its_rfc_says(option: str | int, value: object, code: int, expected: str) -> None:
    assert encode(option, value) == (code, bytes.fromhex(expected))


@pytest.mark.parametrize(
    ("option", "value", "read"),
    [
        ("routers", "10.0.1.1", "10.0.1.1"),
        ("domain_name_servers", ["1.1.1.1", "9.9.9.9"], ["1.1.1.1", "9.9.9.9"]),
        ("domain_name", "truck.lan", b"truck.lan"),
        ("interface_mtu", 1400, 1400),
        ("ip_forwarding", True, True),
        ("broadcast_address", "10.0.1.255", "10.0.1.255"),
        ("v6_only_preferred", 300, 300),
        ("captive_portal", "https://a.example/", b"https://a.example/"),
        ("classless_static_routes", "192.168.50.0/24 via 10.0.1.9", ["192.168.50.0/24:10.0.1.9"]),
    ],
)
def test_scapy_reads_what_we_write(option: str, value: object, read: object) -> None:
    assert scapy_reads(*encode(option, value)) == read


def test_codes_are_those_that_scapy_has_for_the_same_names() -> None:
    theirs = {"routers": "router", "domain_name_servers": "name_server", "domain_name": "domain",
              "interface_mtu": "interface-mtu", "ntp_servers": "NTP_server", "v6_only_preferred": "ipv6-only-preferred",
              "captive_portal": "captive-portal", "classless_static_routes": "classless_static_routes"}  # fmt: skip
    codes = {getattr(field, "name", field): code for code, field in DHCPOptions.items()}
    assert {ours: codes[name] for ours, name in theirs.items()} == {ours: code_of(ours) for ours in theirs}


def test_names_and_codes_are_unique() -> None:
    codes = [one.code for one in OPTIONS] + list(COMPUTED)
    names = [one.name for one in OPTIONS] + [name for name, _ in COMPUTED.values()]
    assert len(set(codes)) == len(codes)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("domain_name_server", "1.1.1.1", 'unknown option, did you mean "domain_name_servers"?'),
        ("256", "x", "expected an option code from 1 to 254"),
        ("0121", "x", "unknown option"),
        ("domain_name_servers", "1.1.1", "expected an IPv4 address such as 10.0.1.20, not '1.1.1'"),
        ("domain_name_servers", [], "expected at least one value"),
        ("interface_mtu", 67, "expected a whole number from 68 to 65535, not 67"),
        ("interface_mtu", True, "expected a whole number from 68 to 65535, not true"),
        ("default_ip_ttl", 1 << 64, "expected a whole number from 0 to 255, not a huge number"),
        ("ip_forwarding", 1, "expected true or false, not 1"),
        (
            "v6_only_preferred",
            "soon",
            'expected a duration such as "90s", "15m", "12h", "7d" or "infinite", not \'soon\'',
        ),
        ("captive_portal", "a\nb", "expected text, not 'a\\nb'"),
        ("captive_portal", "x" * 1025, "expected at most 1024 bytes, not 1025"),
        ("domain_name", "a..b", "expected a domain name of letters, digits and hyphens, not 'a..b'"),
        (
            "domain_search",
            ["tr\u00fcck.lan"],
            "expected a domain name of letters, digits and hyphens, not 'tr\u00fcck.lan'",
        ),
        ("routes", "x", "unknown option, did you mean"),
        ("121", "10.0.0.0/8", "expected a route such as \"192.168.50.0/24 via 10.0.1.9\", not '10.0.0.0/8'"),
        ("121", "10.0.0.1/8 via 10.0.0.1", '10.0.0.1/8 is an address inside a network, did you mean "10.0.0.0/8"?'),
        ("43", "01:02", "expected bytes such as \"hex:01:04:ff\", not '01:02'"),
        ("224", "hex:0", "expected bytes such as \"hex:01:04:ff\", not 'hex:0'"),
        ("224", 5, 'expected text or bytes such as "hex:01:04:ff"; the type of this option is not known'),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_expected(option: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        encode(option, value)


@pytest.mark.parametrize(("code", "name"), [(code, name) for code, (name, _) in COMPUTED.items()])
def test_what_the_server_computes_cannot_be_set(code: int, name: str) -> None:
    for option in (code, str(code), name):
        with pytest.raises(ValueError, match=rf"^option {code} \({name}\) cannot be set: \w+"):
            code_of(option)


@given(st.lists(DOMAIN, min_size=1, max_size=8))
def test_domains_survive_compression(names: list[str]) -> None:
    assert decode_domains(encode("domain_search", names)[1]) == names


@given(st.lists(st.builds(Route, NETWORK, ADDRESS.map(int)), min_size=1, max_size=8))
def test_routes_survive_a_round_trip(routes: list[Route]) -> None:
    written = [f"{one.destination} via {dotted(one.router)}" for one in routes]
    assert decode_routes(encode("classless_static_routes", written)[1]) == routes


def test_a_default_route_by_the_router_is_added_because_option_3_is_ignored() -> None:
    routes = encode(121, "192.168.50.0/24 via 10.0.1.9")[1]
    sent = complete_routes({3: bytes((10, 0, 1, 1)), 121: routes})
    assert show(121, sent[121]) == "0.0.0.0/0 via 10.0.1.1, 192.168.50.0/24 via 10.0.1.9"
    assert sent[249] == sent[121]


def test_a_written_default_route_stays_the_only_one() -> None:
    routes = encode(121, "default via 10.0.1.9")[1]
    assert complete_routes({3: bytes((10, 0, 1, 1)), 121: routes})[121] == routes


def test_without_routes_nothing_is_added() -> None:
    assert complete_routes({3: b"\x0a\0\0\x01"}) == {3: b"\x0a\0\0\x01"}


@pytest.mark.parametrize("data", [b"\x21\0\0\0\0\0\0\0\0", b"\x18\x0a\0", b"\0\x0a"])
def test_bytes_that_are_no_routes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no list of routes"):
        decode_routes(data)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("domain_name_servers", ["1.1.1.1", "9.9.9.9"], "1.1.1.1, 9.9.9.9"),
        ("domain_search", ["a.example", "b.example"], "a.example, b.example"),
        ("v6_only_preferred", 1800, "30m"),
        ("ip_forwarding", True, "true"),
        ("interface_mtu", 1500, "1500"),
        ("224", "plain", "plain"),
        ("224", "hex:00ff", "hex:00:ff"),
        ("43", "hex:00ff", "hex:00:ff"),
        ("domain_name_servers", "hex:0102", "hex:01:02"),
    ],
)
def test_show_reads_a_value_back(option: str, value: object, expected: str) -> None:
    assert show(*encode(option, value)) == expected


@given(st.integers(1, 254), st.binary(min_size=1, max_size=300))
def test_any_bytes_can_be_shown(code: int, data: bytes) -> None:
    assert show(code, data).isprintable()


@given(st.integers(0, 2**32 - 1))
def test_a_duration_reads_back_as_it_is_shown(seconds: int) -> None:
    assert encode(108, span(seconds))[1] == seconds.to_bytes(4, "big")
