"""Whom a lease belongs to, and reservations."""

from __future__ import annotations

from typing import Any

from dhcpd.settings import Boot, Reservation
from tests.dhcpd.script import Vlan, ip, mac, packed


def reserve(address: str | None = "10.0.1.105", name: str = "camera", **fields: Any) -> Reservation:
    if not fields.keys() & {"macs", "client_id", "container"}:
        fields["macs"] = (mac(1),)
    return Reservation(name, address=None if address is None else ip(address), **fields)


def reserved(*reservations: Reservation, **changes: Any) -> Vlan:
    return Vlan(reservations=reservations or (reserve(),), **changes)


# -- identity


def test_one_client_identifier_is_one_client_whatever_its_mac() -> None:
    vlan = Vlan()
    first = vlan.client(1, client_id=b"\0laptop").join()
    assert vlan.client(2, client_id=b"\0laptop").join() == first


def test_one_mac_with_two_client_identifiers_is_two_clients() -> None:
    vlan = Vlan()
    addresses = {vlan.client(1, client_id=one).join() for one in (None, b"\0a", b"\0b")}
    assert len(addresses) == 3


def test_client_identifiers_can_be_ignored() -> None:
    vlan = Vlan(match_client_id=False)
    addresses = {vlan.client(1, client_id=one).join() for one in (None, b"\0a", b"\0b")}
    assert addresses == {"10.0.1.100"}
    assert vlan.client(2, client_id=b"\0a").join() == "10.0.1.101"


def test_the_client_identifier_comes_back_in_every_reply() -> None:
    """RFC 6842."""
    for match in (True, False):
        vlan = Vlan(match_client_id=match)
        client = vlan.client(1, client_id=b"\0laptop")
        offer = client.discover()
        replies = [offer, client.select(offer), client.renew(), client.inform("10.0.1.100"), client.reboot("10.9.9.9")]
        assert [one.kind for one in replies] == ["offer", "ack", "ack", "ack", "nak"]
        assert {one.options[61] for one in replies} == {b"\0laptop"}


def test_who_sends_no_client_identifier_gets_none() -> None:
    assert 61 not in Vlan().client(1).discover().options


def test_a_device_without_a_hardware_address_is_known_by_its_identifier() -> None:
    """IP over InfiniBand (RFC 4390)."""
    for match in (True, False):
        vlan = Vlan(match_client_id=match)
        one, two = (vlan.client(0, client_id=value, htype=32) for value in (b"\xffa", b"\xffb"))
        one.mac = two.mac = b""
        assert (one.join(), two.join()) == ("10.0.1.100", "10.0.1.101")
        vlan.restart()
        assert one.renew().kind == "ack"


def test_the_host_name_is_kept_in_plain_letters() -> None:
    vlan = Vlan()
    vlan.client(1, hostname="front-door").join()
    vlan.client(2).join()
    client = vlan.client(3)
    client.select(client.discover(), o12=b"\x1b[31mevil\n")
    client = vlan.client(4)
    client.select(client.discover(), o12=None, o81=b"\0\0\0tablet.lan")
    assert [row.hostname for row in vlan.disk.values()] == ["front-door", "", "31mevil", "tablet.lan"]


# -- reservations


def test_a_reservation_by_mac_holds_with_any_client_identifier() -> None:
    vlan = reserved()
    for client_id in (None, b"\0pxe", b"\0linux"):
        assert vlan.client(1, client_id=client_id).join() == "10.0.1.105"
    assert len(vlan.disk) == 1


def test_a_reservation_by_client_identifier() -> None:
    vlan = reserved(reserve(client_id=b"\0cam"))
    assert vlan.client(7, client_id=b"\0cam").join() == "10.0.1.105"
    assert vlan.client(8).join() == "10.0.1.100"


def test_one_address_for_several_macs() -> None:
    vlan = reserved(reserve(macs=(mac(1), mac(2))))
    assert vlan.client(1).join() == vlan.client(2).join() == "10.0.1.105"


def test_a_reservation_may_lie_outside_all_pools() -> None:
    vlan = reserved(reserve("10.0.1.20"))
    client = vlan.client(1)
    assert client.join() == "10.0.1.20"
    assert client.renew().kind == "ack"
    assert client.reboot("10.0.1.20").kind == "ack"


def test_a_reservation_carries_its_own_options_and_boot_settings() -> None:
    own = reserve(options={6: packed("9.9.9.9")}, boot=Boot(ip("10.0.1.2"), "", "own.img"))
    vlan = reserved(own, boot=Boot(0, "", "common.img"))
    offer = vlan.client(1).discover()
    assert (offer.options[6], offer.options[1]) == (packed("9.9.9.9"), packed("255.255.255.0"))
    assert (offer.message.file, offer.message.siaddr) == (b"own.img", ip("10.0.1.2"))
    assert vlan.client(2).discover().message.file == b"common.img"


def test_a_reservation_without_an_address_gives_name_and_options() -> None:
    vlan = reserved(reserve(None, options={6: packed("9.9.9.9")}))
    client = vlan.client(1, hostname="whatever")
    assert client.discover().options[6] == packed("9.9.9.9")
    assert client.join() == "10.0.1.100"
    assert vlan.disk[ip("10.0.1.100")].hostname == "camera"


def test_a_reserved_address_is_never_given_to_another() -> None:
    vlan = reserved()
    assert "10.0.1.105" not in [client.address for client in vlan.fill(9, first=2)]
    other = vlan.client(20)
    assert other.discover().kind == "silence"
    assert other.discover(o50=packed("10.0.1.105")).kind == "silence"
    assert other.reboot("10.0.1.105").kind == "nak"
    assert other.renew("10.0.1.105").kind == "nak"
    assert other.take("10.0.1.105").kind == "nak"
    assert vlan.client(1).join() == "10.0.1.105"


def test_a_released_or_expired_reservation_stays_reserved() -> None:
    vlan = reserved(pools=("10.0.1.105-10.0.1.105",), lease_time=1000)
    client = vlan.client(1)
    client.join()
    vlan.sleep(1000)
    assert vlan.client(2).discover().kind == "silence"
    client.join()
    client.release()
    assert vlan.client(2).discover().kind == "silence"


def test_a_declined_reservation_gives_way_until_the_quarantine_ends() -> None:
    vlan = reserved(quarantine=600)
    client = vlan.client(1)
    client.join()
    client.decline()
    assert client.join() == "10.0.1.100"
    vlan.sleep(600)
    assert client.renew().kind == "nak"
    assert client.join() == "10.0.1.105"
    assert vlan.state("10.0.1.100") is None


def test_a_reservation_wins_at_once_over_its_clients_old_lease() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    vlan.reload(reservations=(reserve("10.0.1.20"),))
    assert client.renew().kind == "nak"
    assert client.reboot(client.address).kind == "nak"
    assert client.join() == "10.0.1.20"
    assert vlan.state("10.0.1.100") is None
    assert vlan.client(2).join() == "10.0.1.100"


def test_a_reservation_wins_at_once_over_anothers_lease() -> None:
    for authoritative in (True, False):
        vlan = Vlan(authoritative=authoritative)
        (other,) = vlan.fill(1, first=2)
        vlan.reload(reservations=(reserve("10.0.1.100"),))
        client = vlan.client(1)
        assert other.renew().kind == "nak"
        assert client.join() == "10.0.1.100"
        assert vlan.disk[ip("10.0.1.100")].mac == client.mac
        assert other.renew().kind == ("nak" if authoritative else "silence")
        assert other.join() == "10.0.1.101"


def test_a_reservation_of_what_the_client_has_changes_nothing() -> None:
    vlan = Vlan()
    one, two = vlan.fill(2)
    vlan.reload(reservations=(reserve(one.address),))
    assert one.renew().kind == "ack"
    vlan.reload(reservations=())
    assert one.renew().kind == "ack"
    assert two.renew().kind == "ack"
    assert one.join() == "10.0.1.100"


def test_a_removed_reservation_outside_the_pools_ends_with_a_refusal() -> None:
    vlan = reserved(reserve("10.0.1.20"))
    client = vlan.client(1)
    client.join()
    vlan.reload(reservations=())
    assert vlan.engine.allocator.strays(vlan.now) == [ip("10.0.1.20")]
    assert client.renew().kind == "nak"
    assert client.join() == "10.0.1.100"
    assert vlan.engine.allocator.strays(vlan.now) == []
    assert [one.address for one in vlan.fill(9, first=2)] == [f"10.0.1.{number}" for number in range(101, 110)]
    assert vlan.client(20).discover().kind == "silence"


def test_a_smaller_pool_gives_away_no_address_outside_of_it() -> None:
    vlan = Vlan()
    clients = vlan.fill(4)
    vlan.reload(pools=("10.0.1.102-10.0.1.104",))
    assert [one.renew().kind for one in clients] == ["nak", "nak", "ack", "ack"]
    assert clients[0].join() == "10.0.1.104"
    assert clients[1].discover().kind == "silence"
    assert vlan.client(9).discover().kind == "silence"


def test_two_leases_of_one_new_owner_end_in_one() -> None:
    vlan = Vlan()
    one, two = vlan.fill(2)
    vlan.reload(reservations=(reserve("10.0.1.20", macs=(one.mac, two.mac)),))
    assert one.join() == two.join() == "10.0.1.20"
    vlan.restart()
    assert two.renew().kind == "ack"


def test_a_lease_that_its_new_owner_has_no_use_for_keeps_its_time() -> None:
    vlan = Vlan(pools=("10.0.1.100-10.0.1.101",), lease_time=1000)
    one, two = vlan.client(1), vlan.client(2)
    one.join()
    vlan.sleep(10)
    two.join()
    vlan.reload(reservations=(reserve("10.0.1.20", macs=(one.mac, two.mac)),))
    assert vlan.state(one.address) == vlan.state(two.address) == "bound"
    assert vlan.engine.allocator.strays(vlan.now) == [ip(one.address)]
    assert vlan.client(3).discover().kind == "silence"
    assert one.renew().kind == "nak"
    vlan.sleep(990)
    assert vlan.engine.allocator.strays(vlan.now) == []
    assert vlan.client(3).join() == "10.0.1.100"


def test_known_only_serves_those_that_are_written_down() -> None:
    vlan = reserved(reserve(), reserve(None, "named", macs=(mac(2),)), known_only=True)
    assert vlan.client(1).join() == "10.0.1.105"
    assert vlan.client(2).join() == "10.0.1.100"
    stranger = vlan.client(3)
    assert [one.kind for one in (stranger.discover(), stranger.reboot("10.0.1.103"))] == ["silence", "silence"]
    assert vlan.dropped == {"unknown_client": 2}


def test_containers_and_devices_share_one_book() -> None:
    vlan = reserved(reserve("10.0.1.30", container="broker"))
    assert vlan.engine.address_of_container("broker") == ip("10.0.1.30")
    assert vlan.engine.address_of_container("web") is None
