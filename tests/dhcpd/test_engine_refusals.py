"""When a client is told no, how, and when it is told nothing."""

from __future__ import annotations

import pytest

from dhcpd import opt
from dhcpd.wire import Message, encode
from tests.dhcpd.script import Vlan, ip, mac, packed

BROADCAST = b"\xff" * 6


def test_a_refusal_is_broadcast_and_carries_no_lease() -> None:
    nak = Vlan().client(1, client_id=b"\0id").reboot("10.0.2.100")
    assert nak.kind == "nak"
    assert (nak.mac, nak.to, nak.port, nak.relay) == (BROADCAST, "255.255.255.255", 68, False)
    assert nak.codes == [53, 54, 56, 61]
    assert nak.options[54] == packed("10.0.1.1")
    assert (nak.message.yiaddr, nak.message.ciaddr, nak.message.siaddr) == (0, 0, 0)


def test_a_refused_renewal_is_broadcast_too() -> None:
    nak = Vlan().client(1).renew("10.0.1.50")
    assert (nak.mac, nak.to) == (BROADCAST, "255.255.255.255")


def test_a_refusal_through_a_relay_asks_it_to_broadcast() -> None:
    client = Vlan().client(1, giaddr="10.0.1.9")
    nak = client.reboot("10.0.2.100", o82=b"\x01\x04port")
    assert (nak.relay, nak.to, nak.port) == (True, "10.0.1.9", 67)
    assert nak.message.flags == 0x8000
    assert nak.message.giaddr == ip("10.0.1.9")
    assert nak.codes[-1] == 82


def test_a_refusal_is_logged_with_its_reason() -> None:
    vlan = Vlan()
    vlan.client(1).reboot("10.0.2.100")
    (note,) = vlan.notes
    assert (note.level, note.event) == ("info", "refused")
    assert note.fields == {
        "vlan": "vlan1", "address": "10.0.2.100", "mac": "02:00:00:00:00:01", "why": "wrong network",
    }  # fmt: skip


def test_without_authority_strangers_are_not_refused() -> None:
    vlan = Vlan(authoritative=False)
    (holder,) = vlan.fill(1)
    stranger = vlan.client(2)
    asked = [stranger.reboot("10.0.2.100"), stranger.renew("10.0.2.100"), stranger.reboot(holder.address)]
    assert [one.kind for one in asked] == ["silence"] * 3
    assert vlan.dropped == {"not_authoritative": 3}


def test_without_authority_those_that_we_know_are_refused() -> None:
    vlan = Vlan(authoritative=False)
    (client,) = vlan.fill(1)
    assert client.reboot("10.0.1.105").kind == "nak"
    assert client.reboot("10.0.2.100").kind == "nak"


def test_without_authority_those_that_select_us_are_refused() -> None:
    assert Vlan(authoritative=False).client(1).take("10.0.1.55").kind == "nak"


def test_without_authority_a_stranger_in_init_reboot_hears_nothing() -> None:
    """RFC 2131 section 4.3.2: its address may be another server's."""
    vlan = Vlan(authoritative=False)
    client = vlan.client(1)
    assert client.reboot("10.0.1.105").kind == "silence"
    assert vlan.dropped == {"not_authoritative": 1}
    offer = client.discover(o50=packed("10.0.1.105"))
    assert client.reboot(offer.yiaddr).kind == "ack", "a client that leaves out whose offer it takes"
    client.release()
    assert client.reboot(client.address).kind == "ack"


def test_without_authority_a_free_address_is_still_renewed() -> None:
    assert Vlan(authoritative=False).client(1).renew("10.0.1.105").kind == "ack"


def test_with_authority_a_free_address_is_confirmed_without_a_probe() -> None:
    reply = Vlan(probe=True).client(1).reboot("10.0.1.105")
    assert (reply.kind, reply.probes) == ("ack", ())


def test_clients_of_another_server_are_never_refused() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    for address in ("10.0.2.100", "10.0.1.105", client.address):
        assert vlan.client(2).take(address, "10.0.1.2").kind == "silence"
        assert client.take(address, "10.0.1.2").kind == "silence"
    assert vlan.engine.sent["nak"] == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"op": 2}, "not_a_request"),
        ({"options": {}}, "bootp"),
        ({"options": {53: b""}}, "bootp"),
        ({"options": {53: b"\x01\x01"}}, "bad_message_type"),
        ({"options": {53: b"\x02"}}, "unsupported_type"),
        ({"options": {53: b"\xc8"}}, "unsupported_type"),
        ({"chaddr": b""}, "bad_hardware_address"),
        ({"chaddr": b"\x01" + bytes(5)}, "bad_hardware_address"),
        ({"chaddr": mac(1) + b"\0\0"}, "bad_hardware_address"),
        ({"htype": 32, "chaddr": b""}, "no_identity"),
        ({"htype": 32, "chaddr": b"", "options": {53: b"\x01", 61: b""}}, "no_identity"),
        ({"giaddr": ip("10.0.2.9")}, "foreign_relay"),
        ({"giaddr": ip("10.0.1.0")}, "foreign_relay"),
        ({"giaddr": ip("10.0.1.255")}, "foreign_relay"),
    ],
)
def test_what_makes_no_sense_is_dropped_and_counted(fields: dict[str, object], reason: str) -> None:
    vlan = Vlan()
    message = Message(chaddr=mac(1), options={opt.MESSAGE_TYPE: b"\x01"})
    for name, value in fields.items():
        setattr(message, name, value)
    assert vlan.receive(encode(message)).kind == "silence"
    assert vlan.dropped == {reason: 1}


def test_no_bytes_are_no_message() -> None:
    vlan = Vlan()
    vlan.receive(b"")
    assert vlan.dropped == {"short": 1}


def test_a_full_pool_is_silent_with_one_warning_a_minute() -> None:
    vlan = Vlan(pools=("10.0.1.100-10.0.1.100",), lease_time=86400)
    vlan.fill(1)
    for _ in range(6):
        assert vlan.client(2).discover().kind == "silence"
        vlan.sleep(25)
    assert vlan.dropped == {"pool_full": 6}
    warnings = [note for note in vlan.notes if note.event == "pool_full"]
    assert len(warnings) == 2
    assert warnings[0].level == "warning"
    assert warnings[0].fields == {"vlan": "vlan1", "size": 1}


def test_a_full_pool_still_serves_those_it_knows() -> None:
    vlan = Vlan()
    clients = vlan.fill(10)
    assert vlan.client(99).discover().kind == "silence"
    assert {one.renew().kind for one in clients} == {"ack"}
    assert [one.join() for one in clients] == [one.address for one in clients]


def test_counters_tell_what_came_and_went() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    client.inform(client.address)
    client.release()
    assert vlan.engine.received == {"discover": 1, "request": 1, "inform": 1, "release": 1}
    assert vlan.engine.sent == {"offer": 1, "ack": 2}
