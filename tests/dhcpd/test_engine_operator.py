"""Leases that an operator drops and quarantines that he ends."""

from __future__ import annotations

import pytest

from dhcpd.decision import Decision
from dhcpd.settings import Reservation
from tests.dhcpd.script import Vlan, ip, mac

FIRST = "10.0.1.100"


def drop(vlan: Vlan, address: str = FIRST) -> None:
    decision = vlan.engine.drop(ip(address))
    assert decision is not None
    vlan.carry_out(decision)


def clear(vlan: Vlan, address: str = FIRST) -> None:
    decision = vlan.engine.clear(ip(address))
    assert decision is not None
    vlan.carry_out(decision)


def test_a_dropped_lease_is_nobodys() -> None:
    vlan = Vlan()
    vlan.fill(1)
    drop(vlan)
    assert (vlan.state(FIRST), vlan.disk) == (None, {})
    note = vlan.notes[-1]
    assert (note.event, note.fields["address"], note.fields["mac"]) == ("lease_dropped", FIRST, mac(1).hex(":"))
    assert vlan.client(2).join() == FIRST
    assert vlan.client(1).join() == "10.0.1.101"


def test_a_dropped_lease_stays_dropped_after_a_restart() -> None:
    vlan = Vlan()
    vlan.fill(2)
    drop(vlan)
    vlan.restart()
    assert vlan.client(3).join() == FIRST


def test_a_device_that_is_still_there_has_its_address_again_when_it_renews() -> None:
    vlan = Vlan()
    (device,) = vlan.fill(1)
    drop(vlan)
    assert device.renew().kind == "ack"
    assert vlan.state(FIRST) == "bound"


def test_a_device_whose_address_went_to_another_moves() -> None:
    vlan = Vlan()
    (device,) = vlan.fill(1)
    drop(vlan)
    assert vlan.client(2).join() == FIRST
    assert device.renew().kind == "nak"
    assert device.join() == "10.0.1.101"


def test_an_ended_lease_is_dropped_as_well_and_not_remembered() -> None:
    vlan = Vlan()
    (device,) = vlan.fill(1)
    device.release()
    drop(vlan)
    assert vlan.client(2).join() == FIRST
    assert device.join() == "10.0.1.101"


def test_an_ended_lease_on_offer_to_another_stays_his() -> None:
    vlan = Vlan(pools=[f"{FIRST}-{FIRST}"])
    (device,) = vlan.fill(1)
    device.release()
    other = vlan.client(2)
    offer = other.discover()
    drop(vlan)
    assert vlan.client(3).discover().kind == "silence"
    assert other.select(offer).yiaddr == FIRST


def test_an_offer_to_the_holder_ends_with_the_lease() -> None:
    vlan = Vlan(pools=[f"{FIRST}-{FIRST}"])
    (device,) = vlan.fill(1)
    device.release()
    device.discover()
    drop(vlan)
    assert vlan.engine.offers == 0
    assert vlan.client(2).join() == FIRST


def test_a_dropped_address_is_probed_before_another_gets_it_and_its_user_is_noticed() -> None:
    vlan = Vlan(probe=True)
    vlan.sleep(1)
    (device,) = vlan.fill(1)
    drop(vlan)
    assert FIRST in vlan.tick()
    vlan.answers(FIRST, device.mac)
    vlan.sleep(1)
    assert vlan.state(FIRST) == "declined"
    assert vlan.client(2).join() == "10.0.1.101"
    assert device.renew().kind == "ack"


def test_a_reservation_outlives_its_lease() -> None:
    vlan = Vlan(reservations=(Reservation("camera", (mac(1),), address=ip("10.0.1.20")),))
    vlan.fill(1)
    drop(vlan, "10.0.1.20")
    assert vlan.client(2).join() == FIRST
    assert vlan.client(1).join() == "10.0.1.20"


def test_a_containers_lease_outside_the_pool_is_dropped() -> None:
    vlan = Vlan()
    assert vlan.container("web", wanted="10.0.1.50") == "10.0.1.50"
    drop(vlan, "10.0.1.50")
    assert vlan.container("web") == FIRST


@pytest.mark.parametrize("count", [1, 9, 10])
def test_dropping_all_frees_the_whole_pool(count: int) -> None:
    vlan = Vlan()
    for one in vlan.fill(count):
        drop(vlan, one.address)
    assert {one.address for one in vlan.fill(10, first=50)} == {f"10.0.1.{number}" for number in range(100, 110)}


def test_a_quarantine_is_ended() -> None:
    vlan = Vlan()
    (device,) = vlan.fill(1)
    device.decline()
    assert vlan.state(FIRST) == "declined"
    clear(vlan)
    assert (vlan.state(FIRST), vlan.disk) == (None, {})
    assert (vlan.notes[-1].event, vlan.notes[-1].fields["address"]) == ("quarantine_cleared", FIRST)
    assert vlan.client(2).join() == FIRST


def test_a_reserved_address_is_its_owners_again_when_its_quarantine_is_ended() -> None:
    vlan = Vlan(reservations=(Reservation("camera", (mac(1),), address=ip("10.0.1.20")),))
    (device,) = vlan.fill(1)
    device.decline()
    assert device.join() == FIRST
    clear(vlan, "10.0.1.20")
    assert device.join() == "10.0.1.20"


def test_a_squatter_that_stays_is_quarantined_again() -> None:
    vlan = Vlan(probe=True)
    assert FIRST in vlan.tick()
    for _ in range(3):
        vlan.answers(FIRST, mac(0xBAD))
        assert vlan.state(FIRST) == "declined"
        clear(vlan)
        assert FIRST in vlan.tick()
    assert vlan.events() == ["conflict", "quarantine_cleared"] * 3


def test_what_is_not_there_is_not_ended() -> None:
    vlan = Vlan()
    (device,) = vlan.fill(1)
    ended: list[Decision | None] = [vlan.engine.drop(ip("10.0.1.105")), vlan.engine.clear(ip("10.0.1.105"))]
    ended.append(vlan.engine.clear(ip(FIRST)))
    device.decline()
    ended.append(vlan.engine.drop(ip(FIRST)))
    assert ended == [None] * 4
