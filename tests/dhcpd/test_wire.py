"""The codec, with scapy as an oracle that we did not write."""

from __future__ import annotations

import pytest

from dhcpd import opt
from dhcpd.wire import (
    BOOTREPLY,
    HEADER_SIZE,
    Message,
    WireError,
    arp_probe,
    arp_sender,
    decode,
    encode,
    fit_options,
    pack_option,
    udp_frame,
)
from tests.dhcpd import oracle
from tests.dhcpd.script import ip, mac, option_codes

DISCOVER = Message(chaddr=mac(1), xid=7, options={opt.MESSAGE_TYPE: b"\x01"})


def with_options(field: bytes, *, file: bytes = b"", sname: bytes = b"") -> bytes:
    """A packet whose options fields are written by hand."""
    head = bytearray(encode(DISCOVER)[:HEADER_SIZE])
    head[44 : 44 + len(sname)] = sname
    head[108 : 108 + len(file)] = file
    return bytes(head) + field


def reason(data: bytes) -> str:
    with pytest.raises(WireError) as caught:
        decode(data)
    return str(caught.value.args[0])


def test_every_field_of_the_header_is_where_scapy_expects_it() -> None:
    message = Message(
        op=BOOTREPLY, hops=3, xid=0x12345678, secs=9, flags=0x8000, ciaddr=ip("10.0.1.2"), yiaddr=ip("10.0.1.3"),
        siaddr=ip("10.0.1.4"), giaddr=ip("10.0.1.5"), chaddr=mac(6), sname=b"server", file=b"pxelinux.0",
        options={opt.MESSAGE_TYPE: b"\x05", opt.LEASE_TIME: b"\0\0\x0e\x10"},
    )  # fmt: skip
    data = encode(message)
    seen = oracle.bootp(data)
    assert (seen.op, seen.htype, seen.hlen, seen.hops) == (2, 1, 6, 3)
    assert (seen.xid, seen.secs, int(seen.flags)) == (0x12345678, 9, 0x8000)
    assert (seen.ciaddr, seen.yiaddr) == ("10.0.1.2", "10.0.1.3")
    assert (seen.siaddr, seen.giaddr) == ("10.0.1.4", "10.0.1.5")
    assert seen.chaddr == mac(6).ljust(16, b"\0")
    assert (seen.sname.rstrip(b"\0"), seen.file.rstrip(b"\0")) == (b"server", b"pxelinux.0")
    assert oracle.options(data) == {"message-type": 5, "lease_time": 3600}


def test_what_scapy_builds_is_read() -> None:
    options = [("message-type", "request"), ("requested_addr", "10.0.1.100"), ("hostname", "cam")]
    message = decode(oracle.message(options, xid=5, chaddr=mac(1), flags=0x8000, ciaddr="10.0.1.9"))
    assert (message.xid, message.flags, message.ciaddr) == (5, 0x8000, ip("10.0.1.9"))
    assert message.chaddr == mac(1)
    assert message.options == {53: b"\x03", 50: b"\x0a\x00\x01\x64", 12: b"cam"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "short"),
        (encode(DISCOVER)[:239], "short"),
        (encode(DISCOVER).replace(b"\x63\x82\x53\x63", b"\x63\x82\x53\x62"), "no_magic_cookie"),
        (b"\x01\x01\x11" + encode(DISCOVER)[3:], "bad_hlen"),
        (with_options(b"\x35"), "truncated_option"),
        (with_options(b"\x35\x01"), "truncated_option"),
        (with_options(b"\x35\x01\x01\x0c\xff"), "truncated_option"),
        (with_options(b"\x34\x01\x04\xff"), "bad_overload"),
        (with_options(b"\x34\x00\xff"), "bad_overload"),
        (with_options(b"\x34\x02\x01\x01\xff"), "bad_overload"),
        (with_options(b"\x34\x01\x01\xff", file=b"\x0c\xff"), "truncated_option"),
    ],
)
def test_what_is_no_message_is_refused_by_reason(data: bytes, why: str) -> None:
    assert reason(data) == why


def test_a_missing_end_and_pads_are_no_matter() -> None:
    assert decode(with_options(b"\0\0\x35\x01\x01\0\x0c\x02hi")).options == {53: b"\x01", 12: b"hi"}


def test_what_follows_the_end_is_no_option() -> None:
    assert decode(with_options(b"\x35\x01\x01\xff\x0c")).options == {53: b"\x01"}


def test_a_long_option_is_split_and_joined() -> None:
    long = bytes(range(256)) * 2
    packed = pack_option(121, long)
    assert packed == bytes((121, 255)) + long[:255] + bytes((121, 255)) + long[255:510] + bytes((121, 2)) + long[510:]
    message = Message(chaddr=mac(1), options={53: b"\x02", 121: long, 3: b"\x0a\0\1\1"})
    assert decode(encode(message)) == message


def test_parts_of_an_option_are_joined_over_other_options() -> None:
    assert decode(with_options(b"\x0c\x02ab\x35\x01\x01\x0c\x01c\xff")).options == {12: b"abc", 53: b"\x01"}


def test_an_empty_option_is_there() -> None:
    message = Message(chaddr=mac(1), options={80: b""})
    assert decode(encode(message)).options == {80: b""}


def test_overloaded_fields_are_read_file_first() -> None:
    data = with_options(
        b"\x35\x01\x01\x34\x01\x03\x0c\x01a\xff", file=b"\x0c\x01b\xff", sname=b"\x0c\x01c\x0f\x03lan\xff"
    )
    message = decode(data)
    assert message.options == {53: b"\x01", 12: b"abc", 15: b"lan"}
    assert (message.file, message.sname) == (b"", b"")


def test_one_overloaded_field_leaves_the_other_as_it_is() -> None:
    message = decode(with_options(b"\x34\x01\x01\xff", file=b"\x0c\x01b\xff", sname=b"server"))
    assert (message.options, message.file, message.sname) == ({12: b"b"}, b"", b"server")


def test_what_does_not_fit_moves_into_the_empty_fields_of_the_header() -> None:
    options = {53: b"\x02", 12: b"h" * 200, 15: b"d" * 100, 66: b"t" * 60, 43: b"v" * 40}
    data = encode(Message(chaddr=mac(1), options=options), 548)
    assert len(data) <= 548
    assert decode(data).options == options


def test_fields_in_use_are_not_overloaded() -> None:
    options = {53: b"\x02", 12: b"h" * 250, 15: b"d" * 100}
    message = decode(encode(Message(chaddr=mac(1), sname=b"server", file=b"boot", options=options), 548))
    assert (message.sname, message.file) == (b"server", b"boot")
    assert message.options == {53: b"\x02", 12: b"h" * 250}


def test_what_fits_nowhere_is_left_out_from_the_end() -> None:
    options = {53: b"\x02", **{200 + number: b"x" * 100 for number in range(9)}}
    found = decode(encode(Message(chaddr=mac(1), options=options), 548)).options
    assert len(found) < len(options)
    assert list(found)[:3] == [53, 200, 201]


def test_relay_information_stays_the_last_option() -> None:
    for filler in (b"", b"x" * 250, b"x" * 1000):
        options = {53: b"\x02", 82: b"\x01\x04port", 43: filler}
        assert option_codes(encode(Message(chaddr=mac(1), options=options), 548))[-1] == 82


def test_relay_information_never_pushes_out_the_lease() -> None:
    field, _, _ = fit_options({53: b"\x05", 82: b"r" * 1000}.items(), 308, b"", b"")
    assert field == b"\x35\x01\x05\xff"


def test_a_message_is_at_least_300_bytes() -> None:
    assert len(encode(DISCOVER)) == 300


def test_a_frame_has_the_addresses_and_right_checksums() -> None:
    for payload in (b"", b"x", b"payload", bytes(300), b"\xff" * 301):
        frame = udp_frame(mac(1), mac(2), ip("10.0.1.1"), ip("10.0.1.100"), 68, payload)
        ether, network, udp = oracle.datagram(frame)
        assert (ether.src, ether.dst) == ("02:00:00:00:00:01", "02:00:00:00:00:02")
        assert (network.src, network.dst) == ("10.0.1.1", "10.0.1.100")
        assert (udp.sport, udp.dport) == (67, 68)
        assert frame.endswith(payload)
        assert (network.chksum, udp.chksum) == oracle.checksums(frame)


def test_an_arp_probe_claims_no_address() -> None:
    frame = arp_probe(mac(1), ip("10.0.1.100"))
    seen = oracle.arp(frame)
    assert frame[:6] == b"\xff" * 6
    assert (seen.op, seen.psrc, seen.pdst) == (1, "0.0.0.0", "10.0.1.100")
    assert arp_sender(frame) is None


def test_an_arp_answer_names_its_sender() -> None:
    frame = oracle.arp_answer("10.0.1.100", "02:00:00:00:00:09")
    assert arp_sender(frame) == (ip("10.0.1.100"), mac(9))
    assert arp_sender(frame + bytes(18)) == (ip("10.0.1.100"), mac(9))
    assert arp_sender(frame[:41]) is None
    assert arp_sender(frame.replace(b"\x08\x06", b"\x08\x00", 1)) is None
