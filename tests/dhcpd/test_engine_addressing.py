"""Where each reply goes (RFC 2131 section 4.1)."""

from __future__ import annotations

import pytest

from tests.dhcpd.script import Client, Reply, Vlan, mac

BROADCAST = b"\xff" * 6


def replies(client: Client) -> list[Reply]:
    """An OFFER and an ACK."""
    offer = client.discover()
    return [offer, client.select(offer)]


def test_a_client_without_an_address_gets_a_frame() -> None:
    vlan = Vlan()
    for reply in replies(vlan.client(1)):
        assert (reply.mac, reply.to, reply.port, reply.relay) == (mac(1), "10.0.1.100", 68, False)


def test_a_broadcast_is_for_those_whose_flag_asks() -> None:
    vlan = Vlan()
    for reply in replies(vlan.client(1).with_flag()):
        assert (reply.mac, reply.to, reply.port) == (BROADCAST, "255.255.255.255", 68)
        assert reply.message.flags == 0x8000


def test_a_renewal_is_answered_by_unicast_even_with_the_flag() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    for speaker in (client, client.with_flag()):
        ack = speaker.renew()
        assert (ack.kind, ack.mac, ack.to, ack.port) == ("ack", client.mac, client.address, 68)


def test_init_reboot_has_no_address_yet() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    assert client.reboot(client.address).mac == client.mac
    assert client.with_flag().reboot(client.address).mac == BROADCAST


def test_some_devices_need_a_broadcast_always() -> None:
    vlan = Vlan(always_broadcast=frozenset({mac(1)}))
    assert {reply.mac for reply in replies(vlan.client(1))} == {BROADCAST}
    assert {reply.mac for reply in replies(vlan.client(2))} == {mac(2)}


@pytest.mark.parametrize("flags", [0, 0x8000])
def test_a_relay_gets_all_replies(flags: int) -> None:
    vlan = Vlan()
    client = vlan.client(1, giaddr="10.0.1.9", flags=flags)
    for reply in [*replies(client), client.inform("10.0.1.50")]:
        assert (reply.relay, reply.to, reply.port) == (True, "10.0.1.9", 67)
        assert reply.message.flags == flags


def test_a_client_on_another_kind_of_link_gets_a_broadcast() -> None:
    vlan = Vlan()
    for reply in replies(vlan.client(1, htype=6)):
        assert (reply.mac, reply.to) == (BROADCAST, "255.255.255.255")


def test_inform_is_answered_to_its_sender() -> None:
    vlan = Vlan()
    ack = vlan.client(1).inform("10.0.1.50")
    assert (ack.mac, ack.to, ack.port) == (mac(1), "10.0.1.50", 68)
    assert vlan.client(1).inform("0.0.0.0").mac == mac(1)


@pytest.mark.parametrize("address", ["8.8.8.8", "10.0.2.5", "10.0.1.0", "10.0.1.255", "255.255.255.255"])
def test_nothing_is_ever_sent_outside_the_vlan(address: str) -> None:
    vlan = Vlan()
    reply = vlan.client(1).say(1, address)
    assert (reply.kind, reply.mac, reply.to) == ("offer", mac(1), "10.0.1.100")
