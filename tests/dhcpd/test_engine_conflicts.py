"""Addresses that somebody uses without a lease (RFC 2131 section 2.2)."""

from __future__ import annotations

from typing import Any

import pytest

from dhcpd.engine import MAX_CONFLICTS_PER_MAC, MAX_DECLINES_PER_MAC
from dhcpd.probe import ANSWER_TIME, FRESH_TIME, ROUNDS
from dhcpd.reports import MAX_REPORTERS
from dhcpd.settings import Reservation
from tests.dhcpd.script import Client, Vlan, ip, mac, packed

SQUATTER = mac(0xBAD)


def probed(**changes: Any) -> Vlan:
    """A VLAN that knows which of its free addresses are silent."""
    vlan = Vlan(**({"probe": True} | changes))
    vlan.sleep(1)
    return vlan


def squatted(address: str, station: bytes = SQUATTER, **changes: Any) -> Vlan:
    """A VLAN on which a station answers for an address."""
    vlan = Vlan(**({"probe": True} | changes))
    assert address in vlan.tick()
    vlan.answers(address, station)
    vlan.sleep(1)
    return vlan


def test_free_addresses_are_probed_before_anybody_asks() -> None:
    vlan = Vlan(probe=True)
    assert vlan.engine.deadline() == 0
    assert sorted(set(vlan.sleep(1))) == [f"10.0.1.{number}" for number in range(100, 110)]


def test_an_offer_of_a_silent_address_goes_out_at_once() -> None:
    vlan = probed()
    offer = vlan.client(1).discover()
    assert (offer.yiaddr, offer.probes) == ("10.0.1.100", ())


def test_a_squatter_is_quarantined_and_logged_with_its_mac() -> None:
    vlan = squatted("10.0.1.100", quarantine=600)
    (note,) = vlan.notes
    assert (note.level, note.event) == ("warning", "conflict")
    assert (note.fields["address"], note.fields["mac"]) == ("10.0.1.100", "02:00:00:00:0b:ad")
    assert vlan.state("10.0.1.100") == "declined"
    assert vlan.disk[ip("10.0.1.100")].mac == SQUATTER
    assert vlan.client(1).join() == "10.0.1.101"


def test_after_its_quarantine_an_address_is_probed_again() -> None:
    vlan = squatted("10.0.1.100", quarantine=600)
    assert "10.0.1.100" in vlan.sleep(600)
    vlan.sleep(1)
    assert vlan.client(1).join() == "10.0.1.100"


def test_a_squatter_that_stays_is_never_taken_for_a_proxy() -> None:
    vlan = squatted("10.0.1.100", quarantine=600)
    for _ in range(2 * MAX_CONFLICTS_PER_MAC):
        assert "10.0.1.100" in vlan.sleep(600)
        vlan.answers("10.0.1.100", SQUATTER)
    assert vlan.state("10.0.1.100") == "declined"
    assert "proxy_arp" not in vlan.events()


def test_a_squatter_on_an_offered_address_ends_the_offer() -> None:
    vlan = Vlan(probe=True)
    client = vlan.client(1)
    offer = client.discover()
    assert offer.probes == (offer.yiaddr,)
    vlan.answers(offer.yiaddr, SQUATTER)
    assert vlan.state(offer.yiaddr) == "declined"
    assert client.select(offer).kind == "nak"
    assert client.join() == "10.0.1.101"


def test_the_clients_own_answer_for_its_offer_is_no_conflict() -> None:
    vlan = Vlan(probe=True)
    client = vlan.client(1)
    offer = client.discover()
    vlan.answers(offer.yiaddr, client.mac)
    assert client.select(offer).kind == "ack"


def test_the_holders_own_answer_is_no_conflict() -> None:
    vlan = Vlan(probe=True)
    client = vlan.client(1)
    client.join()
    vlan.answers(client.address, client.mac)
    vlan.sleep(1)
    vlan.answers(client.address, client.mac)
    assert vlan.state(client.address) == "bound"
    assert client.renew().kind == "ack"


def test_answers_for_addresses_that_nobody_probes_mean_nothing() -> None:
    vlan = probed()
    (client,) = vlan.fill(1)
    vlan.sleep(10)
    for address in (client.address, "10.0.1.1", "10.0.1.50", "192.168.1.1"):
        vlan.answers(address, SQUATTER)
    assert vlan.state(client.address) == "bound"
    assert vlan.events() == ["granted"]


@pytest.mark.parametrize("speak", ["discover", "reboot"])
@pytest.mark.parametrize("before", [0, 1], ids=["being probed", "known to be silent"])
def test_nobody_loses_a_lease_to_a_station_that_answers_later(speak: str, before: int) -> None:
    """A device with two interfaces in one VLAN answers for its address with the MAC of either."""
    vlan = Vlan(probe=True)
    vlan.tick()
    vlan.sleep(before)
    client = vlan.client(1)
    if speak == "discover":
        client.select(client.discover(o50=packed("10.0.1.105")))
    else:
        client.reboot("10.0.1.105")
    assert vlan.sleep(FRESH_TIME + 10).count("10.0.1.105") == 0
    vlan.answers("10.0.1.105", SQUATTER)
    assert client.renew().kind == "ack"
    assert vlan.events() == ["granted", "renewed"]


def test_an_offer_is_watched_for_a_moment_only_whoever_looks_after_the_time() -> None:
    camera = Reservation("camera", macs=(mac(1),), address=ip("10.0.1.20"))
    vlan = Vlan(probe=True, pools=(), reservations=(camera,))
    client = vlan.client(1)
    client.join()
    vlan.now += ANSWER_TIME * ROUNDS
    vlan.answers("10.0.1.20", SQUATTER)
    assert client.renew().kind == "ack"


def test_who_answers_while_an_address_is_given_had_it_before() -> None:
    vlan = Vlan(probe=True)
    client = vlan.client(1)
    address = client.join()
    vlan.answers(address, SQUATTER)
    assert vlan.state(address) == "declined"
    assert client.renew().kind == "nak"


def test_one_conflict_is_told_once() -> None:
    vlan = probed()
    client = vlan.client(1)
    offer = client.discover(o50=packed("10.0.1.105"))
    vlan.answers(offer.yiaddr, SQUATTER)
    vlan.answers(offer.yiaddr, client.mac)
    vlan.answers(offer.yiaddr, mac(3))
    assert vlan.events() == ["conflict"]
    assert vlan.disk[ip(offer.yiaddr)].mac == SQUATTER


def test_the_old_holder_of_an_expired_address_that_still_uses_it_keeps_it() -> None:
    vlan = Vlan(probe=True, pools=("10.0.1.100-10.0.1.101",), lease_time=1000)
    one, two = vlan.fill(2)
    vlan.sleep(1000)
    newcomer = vlan.client(3)
    offer = newcomer.discover()
    assert (offer.yiaddr, offer.probes) == (one.address, (one.address,))
    vlan.answers(one.address, one.mac)
    assert newcomer.select(offer).kind == "nak"
    assert newcomer.join() == two.address
    assert one.renew().kind == "ack"


def test_a_station_that_answers_for_everything_does_not_empty_the_pool() -> None:
    vlan = Vlan(probe=True, pools=("10.0.1.100-10.0.1.200",))
    router = mac(0xFACE)
    vlan.sleep(0)
    for _ in range(10):
        for number in range(100, 201):
            vlan.answers(f"10.0.1.{number}", router)
        vlan.sleep(0.3)
    assert vlan.events().count("conflict") == MAX_CONFLICTS_PER_MAC
    assert vlan.events().count("proxy_arp") == 1
    assert vlan.notes[-1].fields["mac"] == "02:00:00:00:fa:ce"
    vlan.sleep(2)
    assert len(vlan.fill(101 - MAX_CONFLICTS_PER_MAC)) == 85


def test_a_station_that_is_not_believed_stays_so_with_another_configuration() -> None:
    vlan = Vlan(probe=True, pools=("10.0.1.100-10.0.1.200",))
    proxy = mac(0xFACE)
    for lease_time in (1000, 2000, 3000):
        old = vlan.engine
        vlan.reload(lease_time=lease_time)
        vlan.engine.inherit(old)
        for address in vlan.sleep(1):
            vlan.answers(address, proxy)
    assert vlan.engine.proxies() == [proxy]
    assert len(vlan.engine.book.declined) == MAX_CONFLICTS_PER_MAC


def test_a_flood_of_answering_stations_fills_no_memory() -> None:
    vlan = Vlan(probe=True, pools=("10.0.0.10-10.0.0.255", "10.0.2.0-10.0.40.255"))
    stations = 0
    while stations < 2 * MAX_REPORTERS:
        for address in vlan.sleep(1):
            stations += 1
            vlan.answers(address, mac(stations))
    assert len(vlan.engine._conflicts) <= MAX_REPORTERS


def test_after_a_loss_of_state_a_device_that_answered_keeps_its_address() -> None:
    """The probes find the devices that were bound before, and nobody can tell them from squatters until they renew."""
    vlan = Vlan(probe=True)
    clients = vlan.fill(5)
    vlan.lose_state()
    assert len(vlan.tick()) == 10
    for one in clients:
        vlan.answers(one.address, one.mac)
    assert [vlan.state(one.address) for one in clients] == ["declined"] * 5
    assert clients[0].renew().kind == "ack"
    assert clients[1].reboot(clients[1].address).kind == "ack"
    assert vlan.client(9).reboot(clients[2].address).kind == "nak"
    assert vlan.client(9).discover(o50=packed(clients[2].address)).yiaddr == "10.0.1.105"
    assert clients[2].select(clients[2].discover(o50=packed(clients[2].address))).yiaddr == clients[2].address
    assert clients[3].discover(o50=packed(clients[3].address)).yiaddr == clients[3].address
    vlan.sleep(60)
    assert [vlan.state(one.address) for one in clients[2:4]] == ["bound", "declined"]
    assert vlan.state(clients[0].address) == "bound"


def test_who_declined_an_address_does_not_get_it_in_quarantine() -> None:
    """RFC 2131 section 4.3.3; a client that starts again asks for the address that it remembers."""
    vlan = Vlan(quarantine=600)
    client = vlan.client(1)
    address = client.join()
    client.decline()
    for _ in range(2):
        assert client.reboot(address).kind == "nak"
        assert client.renew(address).kind == "nak"
        assert client.discover(o50=packed(address)).yiaddr == "10.0.1.101"
        vlan.restart()
    vlan.sleep(600)
    assert client.reboot(address).kind == "ack"


def test_a_client_that_declines_everything_does_not_empty_the_pool() -> None:
    vlan = Vlan(pools=("10.0.1.100-10.0.1.119",), quarantine=600)
    client, other = vlan.client(1), vlan.client(2)
    for _ in range(MAX_DECLINES_PER_MAC + 5):
        client.join()
        client.decline()
        old = vlan.engine
        vlan.reload()
        vlan.engine.inherit(old)
    assert len(vlan.engine.book.declined) == MAX_DECLINES_PER_MAC
    assert vlan.dropped == {"declines_too_often": 5}
    assert vlan.state(client.address) == "bound"
    other.join()
    other.decline()
    assert vlan.state(other.address) == "declined"
    vlan.sleep(600)
    client.decline()
    assert vlan.state(client.address) == "declined"


def test_a_flood_of_declining_clients_fills_no_memory() -> None:
    vlan = Vlan(pools=("10.0.0.10-10.0.0.255", "10.0.2.0-10.0.40.255"))
    for number in range(MAX_REPORTERS + 10):
        client = vlan.client(number)
        client.join()
        client.decline()
    assert len(vlan.engine.book.declined) == MAX_REPORTERS + 10
    assert len(vlan.engine._declines) <= MAX_REPORTERS


def test_a_reserved_address_that_a_squatter_has_is_not_given_for_now() -> None:
    reservation = Reservation("camera", macs=(mac(1),), address=ip("10.0.1.20"))
    vlan = Vlan(probe=True, reservations=(reservation,), quarantine=600)
    offer = vlan.client(1).discover()
    assert (offer.yiaddr, offer.probes) == ("10.0.1.20", ("10.0.1.20",))
    vlan.answers("10.0.1.20", SQUATTER)
    assert vlan.client(1).join() == "10.0.1.100"
    vlan.sleep(600)
    assert vlan.client(1).join() == "10.0.1.20"


def test_a_reservation_for_the_station_that_answers_ends_the_quarantine() -> None:
    """A printer of a fixed address is written down with it, and then told to ask."""
    vlan = squatted("10.0.1.100")
    vlan.reload(reservations=(Reservation("printer", macs=(SQUATTER,), address=ip("10.0.1.100")),))
    assert Client(vlan, SQUATTER).join() == "10.0.1.100"
    assert vlan.state("10.0.1.100") == "bound"


def test_probing_can_be_switched_off() -> None:
    vlan = Vlan(probe=False)
    assert vlan.sleep(10) == []
    assert vlan.client(1).discover().probes == ()
    vlan.answers("10.0.1.100", SQUATTER)
    assert vlan.client(1).join() == "10.0.1.100"


def test_bursts_are_probed_while_their_offers_stand() -> None:
    vlan = Vlan(probe=True, pools=("10.0.1.2-10.0.1.254",))
    vlan.sleep(1)
    offers = [vlan.client(number).discover() for number in range(100)]
    assert [one.yiaddr for one in offers] == [f"10.0.1.{number}" for number in range(2, 102)]
    assert [one.probes for one in offers[:64]] == [()] * 64
    assert [one.probes for one in offers[64:]] == [(one.yiaddr,) for one in offers[64:]]
    assert "10.0.1.102" in vlan.sleep(0)
