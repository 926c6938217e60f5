"""Pools that are full, closed to strangers, or squatted on."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.lab import netns
from tests.lab.netns import wait_until
from tests.wire import control
from tests.wire.segment import Segment, reservation, vlan
from tests.wire.station import Lan


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def arp_reply(mac: bytes, address: str) -> bytes:
    """``address`` is at ``mac`` (RFC 826), said to everybody."""
    head = b"\xff" * 6 + mac + b"\x08\x06" + b"\x00\x01\x08\x00\x06\x04\x00\x02"
    return head + mac + IPv4Address(address).packed + bytes(6) + bytes(4)


def test_a_full_pool_is_silence_a_warning_and_a_metric(segment: Segment) -> None:
    segment.service.start(vlan(pools=["10.1.1.0-10.1.1.1"]))
    with Lan(segment) as lan:
        first, second, third = (lan.device(number) for number in (1, 2, 3))
        assert [first.join(), second.join()] == ["10.1.1.0", "10.1.1.1"]
        assert third.discover(timeout=0.2).kind == "silence"
        assert third.discover(timeout=0.2).kind == "silence"
        (warning,) = segment.service.events("pool_full")
        assert (warning["level"], warning["vlan"], warning["size"]) == ("warning", "vlan1", 2)
        metrics = control.ask(segment.service.state, "GET", "/metrics").body.decode().splitlines()
        assert 'lanward_packets_dropped_total{vlan="vlan1",reason="pool_full"} 2' in metrics
        assert 'lanward_pool_addresses{vlan="vlan1",kind="free"} 0' in metrics
        assert first.renew().kind == "ack"
        second.release()
        wait_until(lambda: segment.service.events("released"), 3, "the release")
        assert third.join() == "10.1.1.1"


def test_strangers_are_not_served_by_a_closed_vlan(segment: Segment) -> None:
    segment.service.start(vlan(known_only=True) + reservation(name="known", mac="02:00:00:00:00:01"))
    with Lan(segment) as lan:
        assert lan.device(2).discover(timeout=0.2).kind == "silence"
        assert lan.device(1).join() == "10.1.1.0"
    assert segment.status()["dropped"] == {"unknown_client": 1}


def test_a_squatted_address_is_found_before_anybody_asks(segment: Segment) -> None:
    netns.batch(["link set lan1 address 02:99:00:00:00:01", "address add 10.1.1.0/32 dev lan1"], segment.clients)
    segment.service.start(vlan(probe=True))
    wait_until(lambda: segment.service.events("conflict"), 3, "the conflict to be seen")
    with Lan(segment) as lan:
        offer = lan.device(1).discover()
        assert (offer.kind, offer.address) == ("offer", "10.1.1.1")
        assert offer.seconds < 0.3, "no ARP answer is waited for"
    (row,) = segment.service.leases()
    (conflict,) = segment.service.events("conflict")
    assert (row["address"], row["state"]) == ("10.1.1.0", "declined")
    assert row["mac"] == conflict["mac"] == "02:99:00:00:00:01"


def test_an_offered_address_that_turns_out_to_be_squatted_is_not_granted(segment: Segment) -> None:
    segment.service.start(vlan(probe=True, pools=["10.1.1.0-10.1.1.9"]))
    with Lan(segment) as lan:
        device, squatter = lan.device(1), b"\x02\x99\0\0\0\1"
        offer = device.discover(o50=IPv4Address("10.1.1.5").packed)
        assert offer.address == "10.1.1.5"
        lan.send(arp_reply(squatter, offer.address))
        wait_until(lambda: segment.service.events("conflict"), 3, "the conflict to be seen")
        assert device.select(offer).kind == "nak"
        assert device.join() == "10.1.1.0"
    assert segment.states()["10.1.1.5"] == "declined"


def test_the_holders_own_answer_is_no_conflict(segment: Segment) -> None:
    segment.service.start(vlan(probe=True))
    with Lan(segment) as lan:
        device = lan.device(1)
        address = device.join()
        device.release()
        assert device.discover().address == address
        lan.send(arp_reply(device.mac, address))
        assert device.join() == address
    assert not segment.service.events("conflict")


def test_a_leased_address_stays_its_holders_whoever_answers(segment: Segment) -> None:
    segment.service.start(vlan(probe=True, pools=["10.1.1.0-10.1.1.9"]))
    with Lan(segment) as lan:
        device, other = lan.device(1), b"\x02\x99\0\0\0\1"

        def is_squatted(address: str) -> bool:
            lan.send(arp_reply(other, address))
            return any(one["address"] == address for one in segment.service.events("conflict"))

        wait_until(lambda: is_squatted("10.1.1.8"), 3, "the free addresses to be probed")
        device.address = "10.1.1.5"
        assert device.reboot().kind == "ack"
        lan.send(arp_reply(other, device.address))
        wait_until(lambda: is_squatted("10.1.1.9"), 3, "all answers to be heard")
        assert device.renew().kind == "ack"
    assert segment.states() == {"10.1.1.5": "bound", "10.1.1.8": "declined", "10.1.1.9": "declined"}


def test_a_declined_address_is_given_to_nobody_until_its_quarantine_ends(segment: Segment) -> None:
    segment.service.start(vlan(quarantine="2s", pools=["10.1.1.0-10.1.1.0"]))
    with Lan(segment) as lan:
        first, second = lan.device(1), lan.device(2)
        first.join()
        first.decline()
        wait_until(lambda: segment.service.events("declined"), 3, "the decline")
        assert segment.states() == {"10.1.1.0": "declined"}
        assert second.discover(timeout=0.2).kind == "silence"
        wait_until(lambda: segment.service.events("quarantine_ended"), 6, "the end of the quarantine")
        assert second.join() == "10.1.1.0"


def test_who_declined_an_address_does_not_get_it_after_a_restart_either(segment: Segment) -> None:
    segment.service.start(vlan(pools=["10.1.1.0-10.1.1.9"]))
    with Lan(segment) as lan:
        device = lan.device(1)
        device.join()
        before = segment.service.leases()[0]
        device.decline()
        wait_until(lambda: segment.service.events("declined"), 3, "the decline")
        assert device.reboot().kind == "nak"
        segment.service.kill9()
        segment.service.start()
        assert device.reboot().kind == "nak"
    (row,) = segment.service.leases()
    assert row == before | {"state": "declined", "expires": row["expires"]}
