"""The states of a client (RFC 2131 sections 4.3 and 4.4)."""

from __future__ import annotations

import pytest

from tests.dhcpd.script import Vlan, ip


def test_a_new_client_gets_the_first_address_of_the_pool() -> None:
    vlan = Vlan()
    client = vlan.client(1)
    offer = client.discover()
    assert (offer.kind, offer.yiaddr) == ("offer", "10.0.1.100")
    assert not vlan.disk
    ack = client.select(offer)
    assert (ack.kind, ack.yiaddr, ack.seconds(51)) == ("ack", "10.0.1.100", 12 * 3600)
    assert vlan.disk[ip("10.0.1.100")].mac == client.mac
    assert vlan.events() == ["granted"]


def test_new_clients_get_ascending_addresses() -> None:
    vlan = Vlan(pools=("10.0.1.150-10.0.1.151", "10.0.1.20-10.0.1.21"))
    assert [one.address for one in vlan.fill(4)] == ["10.0.1.20", "10.0.1.21", "10.0.1.150", "10.0.1.151"]


def test_a_repeated_discover_is_offered_the_same() -> None:
    vlan = Vlan()
    client = vlan.client(1)
    assert client.discover().yiaddr == client.discover().yiaddr
    assert vlan.engine.offers == 1


def test_a_client_gets_the_free_address_it_asks_for() -> None:
    assert Vlan().client(1).discover(o50=b"\x0a\0\1\x69").yiaddr == "10.0.1.105"


@pytest.mark.parametrize("wanted", [b"\x0a\0\1\x05", b"\x0a\0\2\x64", b"", b"\x0a", b"\xff" * 9])
def test_a_wish_that_cannot_be_had_is_passed_over(wanted: bytes) -> None:
    assert Vlan().client(1).discover(o50=wanted).yiaddr == "10.0.1.100"


def test_a_wish_for_the_address_of_another_is_passed_over() -> None:
    vlan = Vlan()
    vlan.client(1).join()
    vlan.client(2).discover()
    assert vlan.client(3).discover(o50=b"\x0a\0\1\x64").yiaddr == "10.0.1.102"
    assert vlan.client(4).discover(o50=b"\x0a\0\1\x65").yiaddr == "10.0.1.103"


def test_a_bound_client_that_starts_over_is_offered_its_own() -> None:
    vlan = Vlan()
    one, _ = vlan.fill(2)
    assert one.discover(o50=b"\x0a\0\1\x69").yiaddr == one.address
    assert vlan.engine.offers == 0


def test_a_client_that_selects_another_server_frees_its_offer() -> None:
    vlan = Vlan()
    one, two = vlan.client(1), vlan.client(2)
    offer = one.discover()
    assert one.take("10.0.1.77", "10.0.1.2").kind == "silence"
    assert vlan.dropped["other_server"] == 1
    assert two.discover().yiaddr == offer.yiaddr


def test_selecting_another_server_leaves_a_lease_alone() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    client.take("10.0.1.77", "10.0.1.2")
    assert vlan.state(client.address) == "bound"


def test_selecting_works_without_the_offer_when_the_address_is_free() -> None:
    vlan = Vlan()
    client = vlan.client(1)
    offer = client.discover()
    vlan.restart()
    assert client.select(offer).kind == "ack"


def test_selecting_an_address_that_went_to_another_is_refused() -> None:
    vlan = Vlan()
    one, two = vlan.client(1), vlan.client(2)
    offer = one.discover()
    vlan.sleep(61)
    two.join()
    assert one.select(offer).kind == "nak"
    assert one.join() != two.address


def test_a_client_that_takes_another_free_address_gives_its_offer_back() -> None:
    vlan = Vlan()
    client = vlan.client(1)
    client.discover()
    assert client.reboot("10.0.1.105").kind == "ack"
    assert vlan.client(2).join() == "10.0.1.100"


def test_init_reboot_of_a_known_client_confirms_its_address() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    ack = client.reboot(client.address)
    assert (ack.kind, ack.yiaddr, ack.message.ciaddr) == ("ack", client.address, 0)


def test_init_reboot_of_a_known_client_with_another_address_is_refused() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    assert client.reboot("10.0.1.105").kind == "nak"


def test_init_reboot_of_an_unknown_client_with_the_address_of_another_is_refused() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    assert vlan.client(2).reboot(client.address).kind == "nak"
    assert vlan.state(client.address) == "bound"


def test_init_reboot_in_the_wrong_network_is_refused() -> None:
    assert Vlan().client(1).reboot("10.0.2.100").kind == "nak"


@pytest.mark.parametrize("speak", ["reboot", "renew"])
def test_after_a_loss_of_state_clients_keep_their_addresses(speak: str) -> None:
    vlan = Vlan()
    clients = vlan.fill(10)
    vlan.lose_state()
    for client in reversed(clients):
        ack = getattr(client, speak)(client.address)
        assert (ack.kind, ack.yiaddr) == ("ack", client.address)


def test_after_a_loss_of_state_an_address_outside_the_pools_is_refused() -> None:
    assert Vlan().client(1).renew("10.0.1.55").kind == "nak"


def test_renewal_starts_the_lease_anew() -> None:
    vlan = Vlan(lease_time=1000)
    (client,) = vlan.fill(1)
    vlan.sleep(500)
    ack = client.renew()
    assert (ack.kind, ack.yiaddr) == ("ack", client.address)
    assert ack.message.ciaddr == ip(client.address)
    assert vlan.disk[ip(client.address)].expires == vlan.now + 1000
    assert vlan.events()[-1] == "renewed"


def test_an_expired_client_renews_all_the_same() -> None:
    vlan = Vlan(lease_time=1000)
    (client,) = vlan.fill(1)
    vlan.sleep(5000)
    assert client.renew().kind == "ack"
    assert vlan.events() == ["granted", "expired", "granted"]


def test_renewal_of_an_address_that_was_given_away_is_refused() -> None:
    vlan = Vlan(pools=("10.0.1.100-10.0.1.100",), lease_time=1000)
    (client,) = vlan.fill(1)
    vlan.sleep(1000)
    assert vlan.client(2).join() == client.address
    assert client.renew().kind == "nak"


def test_a_request_for_nothing_is_dropped() -> None:
    vlan = Vlan()
    assert vlan.client(1).say(3).kind == "silence"
    assert vlan.dropped == {"no_address": 1}


def test_release_ends_the_lease_and_remembers_the_client() -> None:
    vlan = Vlan()
    one, two = vlan.fill(2)
    assert one.release().kind == "silence"
    assert vlan.state(one.address) == "expired"
    assert vlan.disk[ip(one.address)].expires == vlan.now
    assert vlan.client(3).join() not in (one.address, two.address)
    assert one.join() == "10.0.1.100"
    assert vlan.events().count("released") == 1


def test_release_by_another_changes_nothing() -> None:
    vlan = Vlan()
    one, two = vlan.fill(2)
    two.release(one.address)
    vlan.client(3).release(one.address)
    assert vlan.dropped["not_the_holder"] == 2
    assert vlan.state(one.address) == "bound"


def test_release_meant_for_another_server_changes_nothing() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    client.release(server="10.0.1.2")
    assert vlan.dropped == {"other_server": 1}
    assert vlan.state(client.address) == "bound"


def test_a_second_release_writes_nothing() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    client.release()
    client.release()
    assert vlan.dropped == {"already_released": 1}


def test_decline_by_the_holder_quarantines_the_address() -> None:
    vlan = Vlan(quarantine=600)
    (client,) = vlan.fill(1)
    assert client.decline().kind == "silence"
    assert vlan.state("10.0.1.100") == "declined"
    assert vlan.notes[-1].event == "declined"
    assert vlan.notes[-1].level == "warning"
    assert client.join() == "10.0.1.101"


def test_a_quarantine_ends_in_time() -> None:
    vlan = Vlan(pools=("10.0.1.100-10.0.1.100",), quarantine=600)
    (client,) = vlan.fill(1)
    client.decline()
    vlan.sleep(599)
    assert client.discover().kind == "silence"
    vlan.sleep(1)
    assert vlan.events()[-1] == "quarantine_ended"
    assert ip("10.0.1.100") not in vlan.disk
    assert client.join() == "10.0.1.100"


def test_a_quarantine_survives_a_restart() -> None:
    vlan = Vlan(quarantine=600)
    (client,) = vlan.fill(1)
    client.decline()
    vlan.restart()
    assert vlan.state("10.0.1.100") == "declined"
    assert client.join() == "10.0.1.101"
    vlan.sleep(600)
    assert vlan.client(2).join() == "10.0.1.100"


def test_decline_by_another_changes_nothing() -> None:
    vlan = Vlan()
    one, two = vlan.fill(2)
    two.decline(one.address)
    vlan.client(3).decline(one.address)
    vlan.client(3).decline("10.0.1.105")
    assert vlan.dropped["not_the_holder"] == 3
    assert vlan.state(one.address) == "bound"
    assert vlan.state("10.0.1.105") is None


def test_decline_meant_for_another_server_changes_nothing() -> None:
    vlan = Vlan()
    (client,) = vlan.fill(1)
    client.decline(server="10.0.1.2")
    assert vlan.state(client.address) == "bound"


def test_inform_is_answered_without_a_lease() -> None:
    vlan = Vlan()
    ack = vlan.client(1).inform("10.0.1.77")
    assert (ack.kind, ack.yiaddr, ack.message.ciaddr) == ("ack", "0.0.0.0", ip("10.0.1.77"))
    assert (ack.to, ack.port) == ("10.0.1.77", 68)
    assert ack.codes == [53, 54, 1, 3, 6]
    assert not vlan.disk
    assert vlan.engine.rows() == []


def test_inform_of_a_bound_client_leaves_its_lease_alone() -> None:
    vlan = Vlan(lease_time=1000)
    (client,) = vlan.fill(1)
    before = dict(vlan.disk)
    vlan.sleep(500)
    assert client.inform(client.address).kind == "ack"
    assert vlan.disk == before


def test_inform_from_another_network_is_dropped() -> None:
    vlan = Vlan()
    assert vlan.client(1).inform("10.0.2.77").kind == "silence"
    assert vlan.dropped == {"foreign_address": 1}
