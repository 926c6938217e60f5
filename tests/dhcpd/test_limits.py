"""Who asks too often: bounds that no sound client meets, and that a flood cannot pass."""

from __future__ import annotations

import pytest

from dhcpd import limits
from dhcpd.engine import Engine
from dhcpd.limits import MAX_KNOWN, MAX_NOISY, MAX_STATIONS, MAX_STRANGER, QUIET_SECONDS, TOKENS, WINDOW, Limits
from dhcpd.offers import MAX_OFFERS_PER_MAC
from dhcpd.settings import Reservation
from dhcpd.wire import Message, Type, encode
from tests.dhcpd.script import START, Client, Vlan, ip, mac, scope


def served(one: Limits, station: bytes, times: int, now: float, *, is_known: bool = False) -> int:
    return sum(admits(one, station, now, is_known=is_known) for _ in range(times))


def admits(one: Limits, station: bytes, now: float, *, is_known: bool = False) -> bool:
    """Count a message, as the engine does, and ask."""
    one.counts[station] = one.counts.get(station, 0) + 1
    return one.admits(station, is_known, now)


def test_a_stranger_that_asks_without_end_is_cut_off_and_named() -> None:
    one = Limits(START)
    assert served(one, mac(1), 5000, START) == MAX_STRANGER
    assert one.noisy(START)[mac(1)].per_second == 5000 / WINDOW
    assert served(one, mac(2), 4, START) == 4
    assert list(one.noisy(START)) == [mac(1)]


def test_a_known_node_is_named_long_before_it_is_cut_off() -> None:
    one = Limits(START)
    assert served(one, mac(1), MAX_STRANGER + 1, START, is_known=True) == MAX_STRANGER + 1
    assert list(one.noisy(START)) == [mac(1)]
    assert served(one, mac(1), 5000, START, is_known=True) == MAX_KNOWN - MAX_STRANGER - 1


def test_a_station_that_became_quiet_is_served_in_the_next_window_and_forgotten_later() -> None:
    one = Limits(START)
    served(one, mac(1), 5000, START)
    assert served(one, mac(1), 4, START + WINDOW) == 4
    assert list(one.noisy(START + QUIET_SECONDS - 1)) == [mac(1)]
    assert one.noisy(START + QUIET_SECONDS) == {}


def test_invented_macs_share_what_strangers_get_and_known_nodes_do_not_notice() -> None:
    one = Limits(START)
    seconds, rate = 20, 10_000
    admitted = 0
    for number in range(seconds * rate):
        now = START + number / rate
        admitted += admits(one, mac(number), now)
        if number % 100 == 0:
            assert admits(one, b"known!", now, is_known=True)
    assert admitted <= TOKENS + seconds * limits.TOKENS_PER_SECOND + 1
    assert one.is_crowded(now)
    assert not one.is_crowded(now + QUIET_SECONDS)


def test_newcomers_that_take_their_leases_never_wait() -> None:
    one = Limits(START)
    for number in range(50_000):
        assert admits(one, mac(number), START)
        assert admits(one, mac(number), START)
        one.tokens += 2
    assert one.tokens == TOKENS


def test_the_tables_are_bounded() -> None:
    one = Limits(START)
    for number in range(3 * MAX_STATIONS):
        admits(one, mac(number), START, is_known=True)
    for number in range(3 * MAX_NOISY):
        served(one, mac(number), MAX_STRANGER + 1, START, is_known=True)
    assert len(one.counts) <= MAX_STATIONS
    assert len(one.noisy(START)) == MAX_NOISY


@pytest.mark.parametrize("step", [-1_000_000, 1_000_000])
def test_a_clock_that_is_set_stops_nobody(step: int) -> None:
    one = Limits(START)
    served(one, mac(1), 5000, START)
    for number in range(TOKENS):
        admits(one, mac(number), START)
    assert served(one, mac(1), 2, START + step) == 2 or step < 0
    assert served(one, mac(1), 2, START + step + 1) == 2


# -- in the engine


def discover(number: int) -> bytes:
    return encode(Message(chaddr=mac(number), xid=number, options={53: bytes((Type.DISCOVER,))}))


def test_a_reserved_node_is_known_before_its_first_lease() -> None:
    camera = Reservation("camera", macs=(mac(1),), address=ip("10.0.1.20"))
    engine = Engine(scope(reservations=(camera,)), (), START)
    replies = [engine.handle(discover(1), START).send for _ in range(MAX_STRANGER + 50)]
    assert all(replies)
    assert not engine.dropped


def test_what_is_not_served_is_counted_by_reason() -> None:
    vlan = Vlan(pools=("10.0.1.2-10.0.1.254",))
    known = vlan.client(1)
    known.join()
    for _ in range(MAX_KNOWN + 10):
        vlan.engine.handle(discover(1), START)
    of_known = vlan.engine.dropped["too_often"]
    assert of_known >= 10
    for _ in range(MAX_STRANGER + 10):
        vlan.engine.handle(discover(2), START)
    assert vlan.engine.dropped["too_often"] == of_known + 10
    assert "too_many_strangers" not in vlan.engine.dropped
    for number in range(3, 3 + TOKENS):
        vlan.engine.handle(discover(number), START)
    assert vlan.engine.dropped["too_many_strangers"] > 0


def test_a_station_that_invents_client_identifiers_leaves_addresses_for_others() -> None:
    vlan = Vlan()
    stages = [vlan.client(1, client_id=bytes((0, number))) for number in range(60)]
    offers = [one.discover() for one in stages]
    assert all(one.kind == "offer" for one in offers)
    assert vlan.engine.offers == MAX_OFFERS_PER_MAC
    assert len(vlan.fill(10 - MAX_OFFERS_PER_MAC, first=2)) == 6
    assert [one.select(offer).kind for one, offer in list(zip(stages, offers, strict=True))[-4:]] == ["ack"] * 4
    assert not vlan.engine._offers._counts


def test_of_too_many_offers_of_one_station_the_oldest_gives_way() -> None:
    vlan = Vlan()
    other = vlan.client(2).discover()
    stages = [vlan.client(1, client_id=bytes((0, number))) for number in range(MAX_OFFERS_PER_MAC + 1)]
    offers = [one.discover().yiaddr for one in stages[:-1]]
    assert stages[0].discover().yiaddr == offers[0], "it asks again, and is the latest"
    stages[-1].discover()
    standing = [offer.address for _, offer in vlan.engine.standing_offers()]
    assert standing == [ip(one) for one in (other.yiaddr, *offers[2:], offers[0])] + standing[-1:]


def test_stations_without_a_hardware_address_are_not_taken_for_one() -> None:
    """RFC 4390."""
    vlan = Vlan()
    clients = [Client(vlan, b"", client_id=bytes((0, number)), htype=32) for number in range(10)]
    assert len({one.discover().yiaddr for one in clients}) == vlan.engine.offers == 10


def test_a_reload_does_not_forgive() -> None:
    engine = Engine(scope(), (), START)
    for _ in range(MAX_STRANGER + 10):
        engine.handle(discover(2), START)
    after = Engine(scope(lease_time=77), (), START)
    after.inherit(engine)
    assert after.handle(discover(2), START).send is None
