"""Replies as bytes, read by scapy."""

from __future__ import annotations

import pytest

from dhcpd import opt
from dhcpd.replies import MAX_CACHED, Profile, Times, compose, lease_times, refuse, size_limit
from dhcpd.settings import INFINITE, Boot, Options
from dhcpd.wire import Message, Type, decode
from tests.dhcpd import oracle
from tests.dhcpd.script import ROUTER, ip, mac, option_codes, packed

OPTIONS = {1: packed("255.255.255.0"), 3: packed(ROUTER), 6: packed("9.9.9.9"), 15: b"lan", 108: b"\0\0\x07\x08"}
HOUR = Times(3600, 1800, 3150)


def request(requested: bytes | None = None, **options: bytes) -> Message:
    given = {int(name[1:]): value for name, value in options.items()}
    if requested is not None:
        given[opt.PARAMETER_LIST] = requested
    return Message(xid=99, chaddr=mac(1), flags=0x8000, ciaddr=ip("10.0.1.7"), giaddr=ip("10.0.1.8"), options=given)


def profile(options: Options = OPTIONS, boot: Boot | None = None) -> Profile:
    return Profile(ip(ROUTER), options, boot or Boot())


def offer(message: Message, made: Profile | None = None) -> bytes:
    return compose(message, Type.OFFER, made or profile(), ip("10.0.1.100"), HOUR)


def test_an_offer_has_the_fields_of_rfc_2131_table_3() -> None:
    seen = oracle.bootp(offer(request()))
    assert (seen.op, seen.htype, seen.hlen, seen.hops, seen.xid, seen.secs) == (2, 1, 6, 0, 99, 0)
    assert (seen.ciaddr, seen.yiaddr, seen.siaddr, seen.giaddr) == ("0.0.0.0", "10.0.1.100", "0.0.0.0", "10.0.1.8")
    assert int(seen.flags) == 0x8000
    assert seen.chaddr == mac(1).ljust(16, b"\0")


def test_an_ack_echoes_ciaddr() -> None:
    payload = compose(request(), Type.ACK, profile(), ip("10.0.1.7"), HOUR)
    assert oracle.bootp(payload).ciaddr == "10.0.1.7"
    assert oracle.options(payload)["message-type"] == 5


def test_options_come_in_the_order_of_the_request() -> None:
    assert option_codes(offer(request(bytes((15, 6, 58, 1, 3))))) == [53, 54, 51, 15, 6, 58, 1, 3, 59]


@pytest.mark.parametrize(
    ("requested", "sent"),
    [((6, 3, 1, 15), [6, 1, 3, 15]), ((3, 6), [3, 6]), ((1, 3), [1, 3]), (None, [6, 1, 3])],
)
def test_the_subnet_mask_comes_before_the_router(requested: tuple[int, ...] | None, sent: list[int]) -> None:
    """RFC 2132 section 3.3."""
    made = profile({code: OPTIONS[code] for code in ((6, 3, 1) if requested is None else OPTIONS)})
    message = request(None if requested is None else bytes(requested))
    assert option_codes(offer(message, made)) == [53, 54, 51, *sent, 58, 59]


def test_a_router_without_a_subnet_mask_is_sent_as_it_is() -> None:
    made = profile({3: OPTIONS[3]})
    assert option_codes(offer(request(bytes((3, 1))), made)) == [53, 54, 51, 3, 58, 59]


def test_what_was_not_requested_is_not_sent_but_for_the_lease() -> None:
    assert option_codes(offer(request(bytes((6, 200))))) == [53, 54, 51, 6, 58, 59]


def test_a_code_requested_twice_is_sent_once() -> None:
    assert option_codes(offer(request(bytes((6, 6, 53, 54, 6))))) == [53, 54, 51, 6, 58, 59]


def test_a_client_that_requests_nothing_gets_all_but_ipv6_only() -> None:
    assert option_codes(offer(request())) == [53, 54, 51, 1, 3, 6, 15, 58, 59]


def test_ipv6_only_is_for_those_that_ask() -> None:
    assert 108 in option_codes(offer(request(bytes((108,)))))


def test_scapy_reads_the_values() -> None:
    seen = oracle.options(offer(request()))
    assert seen["subnet_mask"] == "255.255.255.0"
    assert (seen["router"], seen["name_server"]) == (ROUTER, "9.9.9.9")
    assert (seen["lease_time"], seen["renewal_time"], seen["rebinding_time"]) == (3600, 1800, 3150)


def test_without_times_there_is_no_lease() -> None:
    codes = option_codes(compose(request(), Type.ACK, profile(), 0, None))
    assert not {51, 58, 59} & set(codes)


def test_the_client_identifier_and_then_the_relay_information_end_the_options() -> None:
    payload = offer(request(bytes((1, 82, 61)), o61=b"\x01id", o82=b"\x01\x04port"))
    assert option_codes(payload)[-2:] == [61, 82]
    assert decode(payload).options[61] == b"\x01id"
    assert decode(payload).options[82] == b"\x01\x04port"


def test_an_empty_client_identifier_is_echoed_too() -> None:
    assert decode(offer(request(o61=b""))).options[61] == b""


def test_a_short_reply_is_padded() -> None:
    assert len(offer(request(b"\x01"))) == 300


LONG = OPTIONS | {43: b"v" * 250, 119: b"s" * 200}


def test_a_long_reply_is_cut_at_576() -> None:
    payload = offer(request(o61=b"\x01id", o82=b"relay"), profile(LONG))
    assert len(payload) <= 548
    assert decode(payload).options.items() >= {53: b"\x02", 61: b"\x01id", 1: LONG[1], 3: LONG[3]}.items()
    assert option_codes(payload)[-1] == 82


def test_a_long_reply_uses_the_header_first() -> None:
    payload = offer(request(), profile(OPTIONS | {43: b"v" * 250, 114: b"u" * 100}))
    assert 52 in option_codes(payload)
    assert len(payload) <= 548
    assert decode(payload).options[114] == b"u" * 100


def test_the_client_may_take_more() -> None:
    payload = offer(request(o57=(1000).to_bytes(2, "big")), profile(LONG))
    assert 548 < len(payload) <= 972
    assert decode(payload).options.items() >= {43: LONG[43], 119: LONG[119]}.items()
    assert 52 not in option_codes(payload)


@pytest.mark.parametrize(
    ("value", "size"),
    [(b"", 576), (b"\x01", 576), (b"\0\x40", 576), (b"\x02\x40", 576), (b"\x04\0", 1024), (b"\xff\xff", 1500)],
)
def test_option_57_lies_between_576_and_a_frame(value: bytes, size: int) -> None:
    assert size_limit({57: value}) == size - 28


def test_a_value_over_255_bytes_is_split() -> None:
    payload = offer(request(bytes((121,)), o57=b"\x05\xdc"), profile({121: b"r" * 300}))
    assert option_codes(payload).count(121) == 2
    assert decode(payload).options[121] == b"r" * 300


def test_boot_settings_are_in_header_and_options() -> None:
    boot = Boot(ip("10.0.1.2"), "boot.lan", "pxelinux.0")
    payload = offer(request(bytes((66, 67))), profile(boot=boot))
    seen = oracle.bootp(payload)
    assert (seen.siaddr, seen.sname.rstrip(b"\0"), seen.file.rstrip(b"\0")) == ("10.0.1.2", b"boot.lan", b"pxelinux.0")
    assert decode(payload).options.items() >= {66: b"boot.lan", 67: b"pxelinux.0"}.items()


def test_a_boot_file_too_long_for_the_header_is_an_option() -> None:
    payload = offer(request(bytes((67,))), profile(boot=Boot(file="f" * 200)))
    assert decode(payload).file == b""
    assert decode(payload).options[67] == b"f" * 200


def test_a_refusal_has_no_lease_and_no_configuration() -> None:
    message = request(bytes((1, 3)), o61=b"\x01id", o82=b"relay", o50=b"\x0a\0\1\x64")
    payload = refuse(message, ip(ROUTER), "why")
    seen = oracle.bootp(payload)
    assert option_codes(payload) == [53, 54, 56, 61, 82]
    assert (seen.ciaddr, seen.yiaddr, seen.siaddr, seen.xid) == ("0.0.0.0", "0.0.0.0", "0.0.0.0", 99)
    assert oracle.options(payload)["message-type"] == 6


def test_times_are_fractions_of_the_lease_and_never_come_when_it_is_infinite() -> None:
    assert lease_times(3600, 0.5, 0.875) == HOUR
    assert lease_times(INFINITE, 0.5, 0.875) == Times(INFINITE, INFINITE, INFINITE)


def test_clients_that_invent_request_lists_fill_no_memory() -> None:
    made = profile()
    for number in range(10 * MAX_CACHED):
        offer(request(number.to_bytes(2, "big")), made)
    assert len(made._bodies) <= MAX_CACHED
