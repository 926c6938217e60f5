"""UDP checksums: what a local container sends has only part of one, what it gets must have all of it (RFC 768)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhcpd import opt
from dhcpd.wire import Message, Type, encode
from tests.dhcpd import oracle
from tests.wire.segment import Segment, inside, vlan
from tests.wire.station import Lan, Reply, Station

MAC = bytes.fromhex("020000000001")


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def discover_by_kernel(segment: Segment, xid: int) -> None:
    """A DISCOVER from an ordinary UDP socket: the kernel leaves the checksum to the hardware, which a veth has not."""
    payload = encode(Message(xid=xid, chaddr=MAC, options={opt.MESSAGE_TYPE: bytes((Type.DISCOVER,))}))
    with inside(segment.clients), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lan1")
        one.bind(("0.0.0.0", 68))
        one.sendto(payload, ("255.255.255.255", 67))


def udp_checksum(frame: bytes) -> int:
    found: int = struct.unpack_from("!H", frame, 40)[0]
    return found


def check_full(reply: Reply) -> None:
    ip, udp = oracle.checksums(reply.frame)
    assert struct.unpack_from("!H", reply.frame, 24)[0] == ip
    assert udp_checksum(reply.frame) == udp != 0


def test_a_partial_checksum_is_accepted_and_the_reply_has_a_full_one(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan, Station(segment.server, "leg1") as leg:
        discover_by_kernel(segment, xid=77)
        sent = next(frame for frame in leg.frames(1) if frame[23] == socket.IPPROTO_UDP)
        assert udp_checksum(sent) != oracle.checksums(sent)[1], "this kernel filled the checksum in"
        offer = lan.answer(77, 1)
    assert offer.kind == "offer"
    check_full(offer)


def test_every_reply_has_full_checksums(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        for number in range(20):
            device = lan.device(number, hostname="x" * number)
            offer = device.discover()
            ack = device.select(offer)
            renewal = device.renew()
            device.address = "10.9.9.9"
            nak = device.reboot()
            assert [one.kind for one in (offer, ack, renewal, nak)] == ["offer", "ack", "ack", "nak"]
            for one in (offer, ack, renewal, nak):
                check_full(one)
