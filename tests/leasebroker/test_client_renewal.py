"""A lease is renewed, moves, and ends (RFC 2131 sections 4.4.4 and 4.4.5)."""

from __future__ import annotations

import random

import pytest

from leasebroker.states import State
from tests.dhcpd.script import START, ip, packed
from tests.leasebroker.script import LEASE, OTHER_SERVER, Lan, seconds

FIFTY, SIXTY = "10.0.1.50", "10.0.1.60"
T1, T2 = LEASE // 2, LEASE * 7 // 8


def bound(lease: int = LEASE, /, **options: bytes) -> Lan:
    lan = Lan()
    lan.bind("web", FIFTY, lease, **options)
    return lan


# -- renewal


def test_a_lease_is_renewed_at_half_its_time() -> None:
    lan = bound()
    assert lan.sleep(T1) == [(T1, f"confirm {FIFTY}")]
    assert lan.state("web") == State.RENEWING
    lan.ack("web", FIFTY)
    assert (lan.state("web"), lan.told, lan.events()) == (State.BOUND, [], ["granted", "renewed"])
    assert lan.lease("web").expires == lan.disk[ip(FIFTY)].expires == START + T1 + LEASE


def test_leases_that_were_bound_together_are_renewed_apart() -> None:
    lan = Lan(random=random.Random(1))
    for number in range(50):
        lan.bind(f"web{number}", f"10.0.1.{50 + number}")
    first = [at for at, _ in lan.sleep(T1)][:50]
    assert T1 * 15 / 16 <= min(first) < T1 * 0.95
    assert T1 * 0.98 < max(first) <= T1
    assert len(set(first)) == 50


def test_the_server_may_say_when() -> None:
    lan = bound(o58=seconds(100), o59=seconds(200))
    assert lan.sleep(100) == [(100, f"confirm {FIFTY}")]
    lan.sleep(100)
    assert lan.state("web") == State.REBINDING


@pytest.mark.parametrize(("t1", "t2"), [(200, 100), (LEASE, LEASE + 1), (1, LEASE), (0, 0), (3500, 0), (1 << 31, 9)])
def test_times_without_sense_are_passed_over(t1: int, t2: int) -> None:
    lan = bound(o58=seconds(t1), o59=seconds(t2))
    assert lan.sleep(T1) == [(T1, f"confirm {FIFTY}")]


def test_an_unanswered_renewal_is_repeated_after_half_of_what_is_left() -> None:
    """Section 4.4.5, down to a minute; any server from T2 on."""
    lan = bound()
    xids = set()
    times = []
    while lan.state("web") in {State.BOUND, State.RENEWING, State.REBINDING}:
        lan.now = lan.clients.deadline() or 0
        lan.tick()
        times.append((lan.state("web"), lan.now - START))
        xids.add(lan.messages["web"].xid)
    renewing = [at for state, at in times if state == State.RENEWING]
    assert renewing == [1800, 2475, 2812.5, 2981.25, 3065.625, 3125.625]
    assert [at for state, at in times if state == State.REBINDING] == [T2, 3375, 3487.5, 3547.5]
    assert times[-1] == (State.SELECTING, LEASE)
    assert len(xids) == len(times)


def test_a_short_lease_does_not_hang_on_a_single_packet() -> None:
    lan = bound(120)
    assert len(lan.sleep(119)) >= 5
    assert lan.address("web") == FIFTY


def test_a_renewed_lease_counts_from_the_message_that_was_answered() -> None:
    lan = bound()
    lan.sleep(2500)
    lan.ack("web", FIFTY)
    assert lan.lease("web").expires == START + 2475 + LEASE


def test_a_renewal_is_the_business_of_the_leases_server() -> None:
    lan = bound()
    lan.sleep(T1)
    lan.nak("web", o54=packed(OTHER_SERVER))
    lan.ack("web", FIFTY, o54=packed(OTHER_SERVER))
    assert (lan.state("web"), lan.dropped) == (State.RENEWING, {"another_server": 2})


def test_another_server_may_take_over_from_t2_on() -> None:
    lan = bound()
    lan.sleep(T2)
    lan.ack("web", FIFTY, o54=packed(OTHER_SERVER))
    assert (lan.state("web"), lan.told, lan.lease("web").server) == (State.BOUND, [], ip(OTHER_SERVER))
    lan.sleep(T1)
    lan.ack("web", FIFTY)
    assert lan.dropped == {"another_server": 1}


def test_another_server_may_give_another_address() -> None:
    lan = bound()
    lan.sleep(T2)
    lan.nak("web", o54=packed(OTHER_SERVER))
    lan.offer("web", SIXTY, o54=packed(OTHER_SERVER))
    lan.ack("web", SIXTY, o54=packed(OTHER_SERVER))
    assert lan.told == [f"changed web {SIXTY}"]


def test_an_ack_for_another_address_moves_the_container() -> None:
    lan = bound()
    lan.sleep(T1)
    lan.ack("web", SIXTY)
    assert (lan.told, list(lan.disk)) == ([f"changed web {SIXTY}"], [ip(SIXTY)])


def test_another_mtu_is_a_change() -> None:
    lan = bound(o26=b"\x05\x78")
    assert lan.lease("web").mtu == 1400
    lan.sleep(T1)
    lan.ack("web", FIFTY, o26=b"\x05\x14")
    assert (lan.told, lan.lease("web").mtu) == ([f"changed web {FIFTY}"], 1300)


@pytest.mark.parametrize("value", [None, b"", b"\x05", b"\x00\x43", b"\x00\x05\x78"])
def test_an_mtu_without_sense_is_none(value: bytes | None) -> None:
    lan = Lan()
    lan.bind("web", FIFTY, o26=value)
    assert lan.lease("web").mtu is None


def test_an_infinite_lease_is_kept() -> None:
    lan = bound(0xFFFFFFFF)
    assert lan.clients.deadline() is None
    assert (lan.lease("web").expires, lan.disk[ip(FIFTY)].expires) == (None, None)


# -- the end


def test_a_lease_is_kept_to_its_end_and_then_asked_for_again() -> None:
    lan = bound()
    lan.sleep(LEASE - 1)
    assert (lan.told, lan.address("web")) == ([], FIFTY)
    assert lan.sleep(1) == [(1, f"discover {FIFTY}")]
    assert (lan.told, lan.address("web"), lan.events()[-1]) == ([f"lost web {FIFTY}"], None, "lost")
    lan.sleep(1000)
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY)
    assert lan.told[1:] == [f"bound web {FIFTY}"]


def test_a_machine_that_slept_past_the_end_loses_the_lease() -> None:
    lan = bound()
    lan.now += LEASE + 5
    lan.tick()
    assert (lan.told, lan.said) == ([f"lost web {FIFTY}"], [f"discover {FIFTY}"])


def test_a_machine_that_slept_past_t2_asks_any_server() -> None:
    lan = bound()
    lan.now += T2 + 5
    lan.tick()
    assert (lan.state("web"), lan.said) == (State.REBINDING, [f"confirm {FIFTY}"])


def test_a_conflict_is_declined_and_another_address_got() -> None:
    lan = bound()
    lan.decline("web")
    assert lan.said == [f"decline {FIFTY}"]
    assert (lan.told, lan.disk, lan.events()[-1]) == ([f"lost web {FIFTY}"], {}, "declined")
    assert lan.sleep(10) == [(10, "discover")]
    lan.offer("web", SIXTY)
    lan.ack("web", SIXTY)
    assert lan.address("web") == SIXTY


def test_declining_nothing_does_nothing() -> None:
    lan = Lan()
    lan.decline("web")
    lan.want("web")
    lan.decline("web")
    assert lan.said == ["discover"]


def test_a_declined_wish_is_not_wished_again() -> None:
    lan = Lan()
    lan.want("web", wish=FIFTY)
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY)
    lan.decline("web")
    lan.sleep(10)
    assert lan.said[-1] == "discover"


def test_a_declined_wish_that_is_told_again_is_not_wished_again() -> None:
    """Whoever wants the lease says so at every look; a server that forgets a DECLINE would offer it for ever."""
    lan = Lan()
    lan.want("web", wish=FIFTY)
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY)
    lan.decline("web")
    lan.want("web", wish=FIFTY)
    lan.sleep(10)
    assert lan.said[-1] == "discover"
    lan.want("web", wish=SIXTY)
    lan.sleep(10)
    assert lan.said[-1] == f"discover {SIXTY}"
