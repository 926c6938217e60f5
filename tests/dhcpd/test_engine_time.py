"""Offers, leases and clocks."""

from __future__ import annotations

from dhcpd.offers import OFFER_TIME
from tests.dhcpd.script import Client, Vlan, ip, mac

ONE = ("10.0.1.100-10.0.1.100",)
THREE = ("10.0.1.100-10.0.1.102",)


def expire_one_by_one(vlan: Vlan, clients: list[Client]) -> None:
    """Let the leases of all clients end, in this order."""
    for client in clients:
        client.renew()
        vlan.sleep(1)
    vlan.sleep(vlan.scope.lease_time)


def test_an_offer_is_kept_for_a_minute() -> None:
    vlan = Vlan(pools=ONE)
    offer = vlan.client(1).discover()
    vlan.sleep(OFFER_TIME - 1)
    assert vlan.client(2).discover().kind == "silence"
    vlan.sleep(1)
    assert vlan.engine.offers == 0
    assert vlan.client(2).discover().yiaddr == offer.yiaddr


def test_lapsed_offers_are_the_first_to_go_out_again() -> None:
    vlan = Vlan()
    for number in range(3):
        vlan.client(number).discover()
    vlan.sleep(OFFER_TIME)
    assert [one.address for one in vlan.fill(4, first=10)] == [f"10.0.1.{number}" for number in range(100, 104)]


def test_the_oldest_offer_makes_room_for_a_new_one() -> None:
    vlan = Vlan(max_offers=3, pools=("10.0.1.100-10.0.1.200",))
    offers = [vlan.client(number).discover() for number in range(4)]
    assert vlan.engine.offers == 3
    assert vlan.client(9).discover().yiaddr == offers[0].yiaddr


def test_a_flood_of_discovers_harms_nobody_that_is_known() -> None:
    vlan = Vlan(max_offers=64, pools=("10.0.1.2-10.0.1.254",))
    clients = vlan.fill(20)
    for number in range(5000):
        vlan.client(1000 + number).discover()
    assert vlan.engine.offers <= 64
    assert len(vlan.engine._offers._owners) <= 64
    assert len(vlan.engine.book) == 20
    assert {one.renew().kind for one in clients} == {"ack"}
    vlan.sleep(1)
    assert vlan.client(99).join()


def test_a_client_gets_its_expired_address_again() -> None:
    vlan = Vlan(lease_time=1000)
    one, two = vlan.fill(2)
    vlan.sleep(100_000)
    vlan.restart()
    assert vlan.client(3).join() == "10.0.1.102"
    assert two.discover().yiaddr == two.address
    assert one.reboot(one.address).kind == "ack"


def test_expired_addresses_are_reused_last_and_oldest_first() -> None:
    vlan = Vlan(pools=("10.0.1.100-10.0.1.103",), lease_time=1000)
    clients = vlan.fill(3)
    expire_one_by_one(vlan, [clients[1], clients[2], clients[0]])
    assert [vlan.client(number).join() for number in range(11, 15)] == [
        "10.0.1.103", "10.0.1.101", "10.0.1.102", "10.0.1.100",
    ]  # fmt: skip


def test_the_order_of_reuse_survives_a_restart() -> None:
    vlan = Vlan(pools=THREE, lease_time=1000)
    clients = vlan.fill(3)
    expire_one_by_one(vlan, [clients[1], clients[2], clients[0]])
    vlan.restart()
    assert [vlan.client(number).discover().yiaddr for number in range(11, 14)] == [
        "10.0.1.101", "10.0.1.102", "10.0.1.100",
    ]  # fmt: skip


def test_a_lapsed_offer_of_an_old_address_keeps_its_turn() -> None:
    vlan = Vlan(pools=THREE, lease_time=1000)
    expire_one_by_one(vlan, vlan.fill(3))
    for number in (11, 12):
        vlan.client(number).discover()
    vlan.sleep(OFFER_TIME)
    assert [one.address for one in vlan.fill(3, first=20)] == ["10.0.1.100", "10.0.1.101", "10.0.1.102"]


def test_a_client_that_only_looks_at_its_old_address_is_no_less_remembered() -> None:
    vlan = Vlan(pools=THREE, lease_time=1000)
    clients = vlan.fill(3)
    expire_one_by_one(vlan, clients)
    clients[2].discover()
    vlan.sleep(OFFER_TIME)
    assert vlan.client(11).join() == "10.0.1.100"
    assert clients[2].reboot("10.0.1.102").kind == "ack"


def test_a_released_address_on_offer_is_free_again_when_the_offer_lapses() -> None:
    vlan = Vlan(pools=ONE)
    (client,) = vlan.fill(1)
    client.release()
    assert vlan.client(2).discover().yiaddr == "10.0.1.100"
    vlan.sleep(OFFER_TIME)
    assert vlan.client(3).join() == "10.0.1.100"


def test_the_old_holder_may_come_back_for_an_address_on_offer() -> None:
    vlan = Vlan(pools=ONE, lease_time=1000)
    (holder,) = vlan.fill(1)
    vlan.sleep(1000)
    newcomer = vlan.client(2)
    offer = newcomer.discover()
    assert holder.reboot("10.0.1.100").kind == "ack"
    assert newcomer.select(offer).kind == "nak"
    assert vlan.engine.offers == 0


def test_a_released_address_on_offer_is_offered_to_nobody_else_when_its_lease_would_end() -> None:
    vlan = Vlan(pools=ONE, lease_time=1000)
    (client,) = vlan.fill(1)
    vlan.sleep(990)
    client.release()
    client.discover()
    vlan.sleep(15)
    assert vlan.client(2).discover().kind == "silence"


def test_a_shorter_renewal_ends_in_time() -> None:
    vlan = Vlan(pools=ONE)
    (client,) = vlan.fill(1)
    client.renew(o51=(120).to_bytes(4, "big"))
    vlan.sleep(120)
    assert vlan.events()[-1] == "expired"
    assert vlan.client(2).join() == "10.0.1.100"


def test_expiry_is_told_once() -> None:
    vlan = Vlan(lease_time=1000)
    vlan.fill(3)
    vlan.sleep(5000)
    assert vlan.events().count("expired") == 3


def test_the_deadline_is_that_of_the_next_thing_to_do() -> None:
    vlan = Vlan(lease_time=1000)
    assert vlan.engine.deadline() is None
    vlan.fill(1)
    assert vlan.engine.deadline() == vlan.now + 1000
    vlan.client(2).discover()
    assert vlan.engine.deadline() == vlan.now + OFFER_TIME


def test_leases_granted_by_a_wrong_clock_move_along_when_it_is_set() -> None:
    vlan = Vlan(lease_time=1000)
    (client,) = vlan.fill(1)
    vlan.set_clock(50 * 365 * 86400)
    assert vlan.state(client.address) == "bound"
    assert vlan.disk[ip(client.address)].expires == vlan.now + 1000
    vlan.set_clock(-30 * 365 * 86400)
    vlan.sleep(999)
    assert vlan.state(client.address) == "bound"
    vlan.sleep(1)
    assert vlan.state(client.address) == "expired"


def test_leases_from_before_the_start_stay_where_they_were() -> None:
    vlan = Vlan(lease_time=1000)
    (client,) = vlan.fill(1)
    vlan.sleep(10)
    vlan.restart()
    vlan.set_clock(2000)
    assert vlan.state(client.address) == "expired"


def test_an_offer_of_an_address_whose_lease_is_live_again_is_void() -> None:
    vlan = Vlan(pools=("10.0.1.100-10.0.1.101",))
    (holder,) = vlan.fill(1)
    vlan.now += 5 * 86400
    vlan.restart()
    vlan.tick()
    taken, free = vlan.client(2), vlan.client(3)
    offers = {client.discover().yiaddr: client for client in (taken, free)}
    vlan.set_clock(-5 * 86400)
    assert vlan.state("10.0.1.100") == "bound"
    assert offers["10.0.1.100"].take("10.0.1.100").kind == "nak"
    assert offers["10.0.1.101"].take("10.0.1.101").kind == "ack"
    assert holder.renew().kind == "ack"
    assert not vlan.engine.book.idle


def test_offers_and_probes_go_on_after_the_clock_is_set_back() -> None:
    vlan = Vlan(probe=True, pools=("10.0.1.100-10.0.1.254",))
    vlan.client(1).discover()
    vlan.sleep(0)
    vlan.set_clock(-20 * 365 * 86400)
    assert "10.0.1.110" in vlan.sleep(1), "the second round of probes"
    vlan.sleep(OFFER_TIME)
    assert vlan.engine.offers == 0


def test_a_full_pool_is_still_warned_of_after_the_clock_is_set_back() -> None:
    vlan = Vlan(pools=ONE)
    vlan.fill(1)
    vlan.client(2).discover()
    vlan.set_clock(-20 * 365 * 86400)
    vlan.sleep(61)
    vlan.client(2).discover()
    assert vlan.events().count("pool_full") == 2


def test_a_restart_forgets_offers_and_nothing_else() -> None:
    vlan = Vlan()
    clients = vlan.fill(5)
    vlan.client(9).discover()
    before = vlan.engine.rows()
    vlan.restart()
    assert vlan.engine.rows() == before
    assert [one.renew().yiaddr for one in clients] == [one.address for one in clients]
    assert vlan.client(10).join() == "10.0.1.105"
    assert vlan.client(1).mac == mac(1)
