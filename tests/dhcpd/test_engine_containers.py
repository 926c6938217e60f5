"""Containers have leases in the same book, by their names."""

from __future__ import annotations

from typing import Any

import pytest

from dhcpd.identity import container_key
from dhcpd.leases import BOUND, FREE, Row
from dhcpd.settings import INFINITE, Reservation
from tests.dhcpd.script import START, Vlan, ip, mac, span

LANDING = span("10.0.1.240-10.0.1.255")
WEB = Reservation("shop", container="web", address=ip("10.0.1.20"))
CAMERA = Reservation("camera", macs=(mac(1),), address=ip("10.0.1.30"))


def vlan(**changes: Any) -> Vlan:
    fields: dict[str, Any] = {"landing": LANDING, "lease_time": 1000}
    return Vlan(**(fields | changes))


# -- an address for good


def test_a_container_has_an_address_of_the_pool_and_it_is_on_disk() -> None:
    one = vlan()
    assert one.container("web", station=mac(7), hostname="shop") == "10.0.1.100"
    (row,) = one.disk.values()
    assert row == Row(ip("10.0.1.100"), BOUND, container_key("web"), mac(7), b"", "shop", START, START + 1000)
    assert one.events() == ["granted"]


def test_the_same_name_has_the_same_address_whatever_else_is_said() -> None:
    one = vlan()
    found = {one.container("web"), one.container("web", station=mac(7)), one.container("web", hostname="shop")}
    one.sleep(2000)
    found.add(one.container("web", station=mac(8)))
    one.restart()
    found.add(one.container("web"))
    assert found == {"10.0.1.100"}
    assert len(one.disk) == 1


def test_another_name_has_another_address() -> None:
    one = vlan()
    assert len({one.container(f"web{number}") for number in range(10)}) == 10
    assert one.container("one too many") is None
    assert one.events().count("pool_full") == 1
    assert one.dropped["pool_full"] == 1


def test_an_ended_lease_is_remembered_for_its_container() -> None:
    one = vlan()
    one.container("web")
    one.sleep(1000)
    assert one.state("10.0.1.100") == "expired"
    assert one.client(1).join() == "10.0.1.101"
    assert one.container("db") == "10.0.1.102"
    assert one.container("web") == "10.0.1.100"


def test_the_longest_unused_address_is_given_away_when_nothing_else_is_free() -> None:
    one = vlan(pools=("10.0.1.100-10.0.1.101",))
    one.container("old")
    one.sleep(10)
    one.container("older")
    one.sleep(2000)
    assert one.container("web") == "10.0.1.100"
    assert one.client(1).join() == "10.0.1.101"
    assert one.container("old") is None


# -- when it is written


def written(one: Vlan, name: str, station: bytes) -> int:
    """How many rows a call commits."""
    _, decision = one.engine.lease_container(name, station, "", None, one.now)
    one.carry_out(decision)
    return len(decision.rows)


def test_a_fresh_lease_is_not_written_again() -> None:
    one = vlan(t1=0.5)
    assert written(one, "web", mac(7)) == 1
    one.sleep(499)
    assert written(one, "web", mac(7)) == 0
    assert written(one, "web", b"") == 0
    one.sleep(1)
    assert written(one, "web", mac(7)) == 1
    assert one.disk[ip("10.0.1.100")].expires == START + 1500
    assert one.events() == ["granted", "renewed"]


def test_another_interface_is_written_at_once_and_an_unknown_one_keeps_the_last() -> None:
    one = vlan()
    assert written(one, "web", b"") == 1
    assert written(one, "web", mac(7)) == 1
    assert written(one, "web", mac(8)) == 1
    one.sleep(900)
    assert written(one, "web", b"") == 1
    assert one.disk[ip("10.0.1.100")].mac == mac(8)


def test_a_lease_that_never_ends_is_written_once() -> None:
    one = vlan(lease_time=INFINITE)
    assert written(one, "web", mac(7)) == 1
    one.sleep(10**8)
    assert written(one, "web", mac(7)) == 0
    assert one.disk[ip("10.0.1.100")].expires is None


# -- what it asks for


@pytest.mark.parametrize("wanted", ["10.0.1.105", "10.0.1.50", "10.0.1.239", "10.0.1.2"])
def test_it_gets_the_free_address_that_it_asks_for_and_keeps_it(wanted: str) -> None:
    one = vlan()
    assert one.container("web", wanted) == wanted
    assert one.container("web") == wanted
    assert one.container("db", wanted) != wanted
    one.sleep(2000)
    one.restart()
    assert one.container("db", wanted) != wanted
    assert one.container("web") == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        "10.0.1.1",
        "10.0.1.0",
        "10.0.1.255",
        "10.0.1.240",
        "10.0.1.254",
        "10.0.2.50",
        "0.0.0.0",
        "10.0.1.30",
        "10.0.1.20",
    ],
    ids=["router", "network", "broadcast", "landing", "landing's end", "elsewhere", "zero", "camera's", "web's"],
)
def test_it_does_not_get_what_is_not_to_be_had(wanted: str) -> None:
    one = vlan(reservations=(CAMERA, WEB))
    assert one.container("db", wanted) == "10.0.1.100"


def test_it_does_not_get_what_a_device_has_or_is_offered_or_had() -> None:
    one = vlan()
    device, offered = one.client(1), one.client(2)
    device.join()
    assert offered.discover().yiaddr == "10.0.1.101"
    assert one.container("web", "10.0.1.100") == "10.0.1.102"
    assert one.container("db", "10.0.1.101") == "10.0.1.103"
    one.sleep(2000)
    assert one.container("till", "10.0.1.100") == "10.0.1.101"


def test_it_moves_to_the_address_that_it_asks_for_later_and_its_old_one_is_free() -> None:
    one = vlan()
    one.container("web")
    assert one.container("web", "10.0.1.50") == "10.0.1.50"
    assert set(one.disk) == {ip("10.0.1.50")}
    assert one.client(1).join() == "10.0.1.100"


def test_it_keeps_its_address_when_the_one_that_it_asks_for_is_taken() -> None:
    one = vlan()
    one.client(1).join()
    one.container("web")
    assert one.container("web", "10.0.1.100") == "10.0.1.101"


def test_an_address_outside_the_pools_is_nobody_elses_afterwards() -> None:
    one = vlan(lease_time=200)
    one.container("web", "10.0.1.50")
    assert one.client(1).reboot("10.0.1.50").kind == "nak"
    one.sleep(300)
    assert one.client(1).reboot("10.0.1.50").kind == "nak"
    assert one.state("10.0.1.50") == "expired"
    assert "10.0.1.50" not in [one.client(number).join() for number in range(1, 11)]


def test_an_address_outside_the_pools_is_anothers_for_the_asking_when_it_was_dropped() -> None:
    one = vlan(lease_time=200)
    one.container("web-1", "10.0.1.50")
    one.sleep(300)
    assert one.container("web-2", "10.0.1.50") == "10.0.1.100"
    dropped = one.engine.drop(ip("10.0.1.50"))
    assert dropped is not None
    one.carry_out(dropped)
    assert one.container("web-2", "10.0.1.50") == "10.0.1.50"
    one.restart()
    assert one.container("web-1", "10.0.1.50") == "10.0.1.100"


def test_what_a_reload_makes_unaskable_is_left_for_an_address_of_the_pool() -> None:
    one = vlan()
    one.container("web", "10.0.1.50")
    one.reload(router=ip("10.0.1.50"))
    assert one.engine.allocator.strays(one.now) == [ip("10.0.1.50")]
    assert one.container("web") == "10.0.1.100"
    assert set(one.disk) == {ip("10.0.1.100")}


# -- reservations


def test_a_reservation_goes_before_a_wish() -> None:
    one = vlan(reservations=(WEB,))
    assert one.container("web", "10.0.1.50", hostname="other") == "10.0.1.20"
    assert one.disk[ip("10.0.1.20")].hostname == "shop"
    assert one.disk[ip("10.0.1.20")].client == container_key("web")


def test_a_reservation_goes_before_an_older_lease() -> None:
    one = vlan()
    assert one.container("web") == "10.0.1.100"
    assert one.client(1).join() == "10.0.1.101"
    one.reload(reservations=(Reservation("shop", container="web", address=ip("10.0.1.101")),))
    assert one.container("web") == "10.0.1.101"
    assert one.client(1).reboot("10.0.1.101").kind == "nak"
    assert set(one.disk) == {ip("10.0.1.101")}
    assert one.client(1).join() == "10.0.1.100"


def test_a_reserved_address_is_given_to_nobody_else() -> None:
    one = vlan(
        pools=("10.0.1.100-10.0.1.101",), reservations=(Reservation("shop", container="web", address=ip("10.0.1.100")),)
    )
    assert one.client(1).join() == "10.0.1.101"
    assert one.client(2).discover().kind == "silence"
    assert one.container("db", "10.0.1.100") is None
    assert one.container("web") == "10.0.1.100"


def test_a_reserved_address_that_a_squatter_has_is_not_given_for_now() -> None:
    one = vlan(probe=True, quarantine=600)
    one.sleep(0)
    one.answers("10.0.1.100", mac(0xBAD))
    one.reload(reservations=(Reservation("shop", container="web", address=ip("10.0.1.100")),))
    assert one.container("web") == "10.0.1.101"
    one.sleep(600)
    assert one.container("web") == "10.0.1.100"


def test_a_reservation_without_an_address_makes_a_container_known() -> None:
    one = vlan(known_only=True, reservations=(Reservation("shop", container="web"),))
    assert one.container("db") is None
    assert one.dropped["unknown_client"] == 1
    assert one.container("web", hostname="other") == "10.0.1.100"
    assert one.disk[ip("10.0.1.100")].hostname == "shop"


def test_a_device_of_the_same_name_is_somebody_else() -> None:
    """Its client identifier or MAC may spell the container's name."""
    one = vlan(reservations=(WEB,))
    device = one.client(1, hostname="web", client_id=container_key("web"))
    assert device.join() == "10.0.1.100"
    assert one.container("web") == "10.0.1.20"
    assert one.container("a" * 5) == "10.0.1.101"
    assert Vlan().client(1, client_id=b"cweb").join() == "10.0.1.100"


# -- conflicts


def test_a_new_address_is_probed_and_a_squatter_makes_it_another() -> None:
    one = vlan(probe=True)
    _, decision = one.engine.lease_container("web", mac(7), "", None, one.now)
    assert decision.probes == (ip("10.0.1.100"),)
    one.carry_out(decision)
    one.answers("10.0.1.100", mac(0xBAD))
    assert one.state("10.0.1.100") == "declined"
    assert one.container("web") == "10.0.1.101"
    assert one.container("db", "10.0.1.100") == "10.0.1.102"


def test_its_own_answer_is_no_conflict() -> None:
    one = vlan(probe=True)
    assert one.container("web", station=mac(7)) == "10.0.1.100"
    one.answers("10.0.1.100", mac(7))
    assert one.state("10.0.1.100") == "bound"


@pytest.mark.parametrize("again", [False, True])
def test_it_may_answer_for_its_old_address_until_it_has_moved(again: bool) -> None:
    """A reservation moves it, and the address that is free now is probed before the link has the new one."""
    one = vlan(probe=True)
    one.container("web", station=mac(7))
    one.reload(reservations=(WEB,))
    assert one.container("web", station=mac(7)) == "10.0.1.20"
    if again:
        old = one.engine
        one.reload(lease_time=2000)
        one.engine.inherit(old)
    assert "10.0.1.100" in one.tick()
    one.answers("10.0.1.100", mac(7))
    one.sleep(3)
    assert one.state("10.0.1.100") is None
    assert not {"conflict", "proxy_arp"} & set(one.events())
    assert one.container("db") == "10.0.1.100"


def test_a_wish_outside_the_pools_is_probed() -> None:
    one = vlan(probe=True)
    _, decision = one.engine.lease_container("web", mac(7), "", ip("10.0.1.50"), one.now)
    assert decision.probes == (ip("10.0.1.50"),)
    one.carry_out(decision)
    one.answers("10.0.1.50", mac(0xBAD))
    assert one.container("web", "10.0.1.50", station=mac(7)) == "10.0.1.100"
    one.sleep(3600)
    assert one.container("web", "10.0.1.50", station=mac(7)) == "10.0.1.50"


def test_a_standing_offer_is_not_disturbed() -> None:
    one = vlan()
    device = one.client(1)
    offer = device.discover()
    assert one.container("web") == "10.0.1.101"
    assert device.select(offer).yiaddr == "10.0.1.100"


# -- what the broker asks


def test_whose_an_address_is() -> None:
    one = vlan(reservations=(WEB, CAMERA))
    one.client(5).join()
    db = one.container("db")
    assert db is not None
    asked = {
        ("web", "10.0.1.20"): False,
        ("db", "10.0.1.20"): True,
        ("web", "10.0.1.30"): True,
        ("web", "10.0.1.100"): True,
        ("db", db): False,
        ("web", db): True,
        ("web", "10.0.1.240"): False,
        ("web", "10.0.1.109"): False,
        ("web", "192.0.2.1"): False,
    }
    assert {key: one.engine.is_anothers(key[0], ip(key[1])) for key in asked} == asked


def test_an_ended_lease_is_still_anothers_and_a_quarantine_is_nobodys() -> None:
    one = vlan(probe=True)
    (device,) = one.fill(1)
    one.sleep(2000)
    assert one.state(device.address) == "expired"
    assert one.engine.is_anothers("web", ip(device.address))
    one.answers("10.0.1.105", mac(0xBAD))
    assert one.state("10.0.1.105") == "declined"
    assert not one.engine.is_anothers("web", ip("10.0.1.105"))


def test_which_address_a_container_will_have() -> None:
    one = vlan(reservations=(WEB,))

    def known(name: str) -> str | None:
        address = one.engine.address_of_container(name)
        return None if address is None else ".".join(map(str, address.to_bytes(4, "big")))

    assert (known("web"), known("db")) == ("10.0.1.20", None)
    assert one.container("db", "10.0.1.50") == known("db") == "10.0.1.50"
    one.sleep(5000)
    assert known("db") == "10.0.1.50"
    assert one.events() == ["granted", "expired"]


def test_what_is_written_down_for_a_container() -> None:
    one = vlan(reservations=(WEB, Reservation("till", container="db")))
    written = {name: one.engine.is_reserved(name, ip("10.0.1.20")) for name in ("web", "db", "other")}
    assert written == {"web": True, "db": False, "other": False}
    assert not one.engine.is_reserved("web", ip("10.0.1.100"))


# -- where another server serves the VLAN


def test_what_another_server_has_granted_is_in_the_book_until_it_takes_it_back() -> None:
    one = vlan(pools=(), is_external=True)
    row = Row(ip("10.0.1.50"), BOUND, container_key("web"), mac(7), b"\0web", "web", START, START + 1000)
    moved = row._replace(address=ip("10.0.1.60"))
    one.engine.mirror([row])
    assert one.engine.rows() == [row]
    assert one.engine.address_of_container("web") == ip("10.0.1.50")
    assert one.engine.is_anothers("db", ip("10.0.1.50"))
    assert one.engine.allocator.strays(one.now) == []
    one.engine.mirror([row._replace(state=FREE), moved])
    assert one.engine.rows() == [moved]
    one.engine.mirror([moved._replace(state=FREE)])
    assert one.engine.rows() == []
