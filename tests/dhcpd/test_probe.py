from __future__ import annotations

from dhcpd.pool import Range, RangeSet, Supply
from dhcpd.probe import AHEAD, ANSWER_TIME, FRESH_TIME, LEAVE_TIME, MAX_LEFT, MAX_WATCHED, REFILL, ROUNDS, Prober
from tests.dhcpd.script import mac

PROBING = ANSWER_TIME * ROUNDS
STATION = mac(1)


class Bench:
    """A prober over addresses 0, 1, 2, ... of which ``taken`` are not free."""

    def __init__(self, size: int = 1000, *, enabled: bool = True) -> None:
        self.taken: set[int] = set()
        self.now = 0.0
        supply = Supply(RangeSet([Range(0, size - 1)]))
        self.prober = Prober(supply, lambda address: address not in self.taken, enabled=enabled)

    def sleep(self, seconds: float) -> list[int]:
        """The addresses probed meanwhile, by ticks at each deadline."""
        end, probed = self.now + seconds, []
        while (due := self.prober.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            probed += self.prober.tick(self.now)
        self.now = end
        return probed

    def take(self) -> tuple[int | None, bool]:
        address, probe = self.prober.take(self.now)
        if address is not None:
            self.taken.add(address)
        return address, probe

    def free(self, address: int) -> None:
        self.taken.discard(address)
        self.prober.give_back(address)


def test_a_fresh_prober_has_something_to_do_at_once() -> None:
    assert Bench().prober.deadline() == 0


def test_free_addresses_are_probed_ahead_each_in_every_round() -> None:
    bench = Bench()
    assert sorted(bench.sleep(PROBING)) == sorted(list(range(AHEAD)) * ROUNDS)


def test_silent_addresses_go_out_in_ascending_order_without_a_probe() -> None:
    bench = Bench()
    bench.sleep(PROBING)
    assert [bench.take() for _ in range(5)] == [(address, False) for address in range(5)]


def test_an_address_that_answers_is_passed_over() -> None:
    bench = Bench()
    bench.prober.tick(0)
    assert bench.prober.heard(0, STATION, bench.now)
    bench.sleep(PROBING)
    assert bench.prober.heard(1, STATION, bench.now)
    assert bench.take() == (2, False)


def test_nobody_waits_for_the_first_answer() -> None:
    bench = Bench()
    assert bench.take() == (0, True)
    bench.prober.tick(bench.now)
    assert bench.take() == (1, False)


def test_an_address_handed_out_unprobed_is_watched() -> None:
    bench = Bench()
    address, _ = bench.take()
    assert address is not None
    assert bench.prober.heard(address, STATION, bench.now)
    assert not bench.prober.heard(address, STATION, bench.now)


def test_an_address_taken_while_its_probe_is_under_way_is_watched() -> None:
    bench = Bench()
    bench.prober.tick(0)
    assert bench.take() == (0, False)
    assert bench.prober.heard(0, STATION, bench.now)


def test_an_address_that_nobody_probes_is_not_heard() -> None:
    assert not Bench().prober.heard(7, STATION, 0)


def test_the_watch_ends() -> None:
    bench = Bench()
    bench.take()
    bench.prober.tick(0)
    bench.sleep(2 * PROBING)
    assert not bench.prober.heard(0, STATION, bench.now)


def test_the_end_of_a_watch_is_waited_for() -> None:
    bench = Bench(1)
    bench.take()
    bench.prober.tick(0)
    assert bench.prober.deadline() == PROBING
    bench.prober.tick(PROBING)
    assert bench.prober.deadline() is None


def test_the_watch_ends_though_nobody_looks_after_the_time() -> None:
    bench = Bench()
    bench.take()
    assert not bench.prober.heard(0, STATION, PROBING)


def test_an_address_that_somebody_has_is_probed_no_more() -> None:
    bench = Bench(3)
    bench.prober.tick(0)
    bench.taken.add(0)
    bench.prober.taken(0)
    bench.sleep(PROBING)
    bench.taken.add(1)
    bench.prober.taken(1)
    assert 0 not in bench.sleep(FRESH_TIME + PROBING)
    assert not bench.prober.heard(0, STATION, bench.now)
    assert not bench.prober.heard(1, STATION, bench.now)
    assert bench.take() == (2, False)


def test_what_was_silent_long_ago_is_probed_again() -> None:
    bench = Bench()
    bench.sleep(PROBING)
    assert sorted(bench.sleep(FRESH_TIME + PROBING)) == sorted(list(range(AHEAD)) * ROUNDS)
    assert bench.take() == (0, False)


def test_the_stock_is_filled_up_as_soon_as_it_is_low() -> None:
    bench = Bench()
    bench.sleep(PROBING)
    for _ in range(AHEAD - REFILL):
        bench.take()
    assert bench.prober.deadline() != 0
    bench.take()
    assert bench.prober.deadline() == 0
    assert bench.prober.tick(bench.now)[0] == AHEAD


def test_a_small_pool_is_probed_once_and_then_there_is_peace() -> None:
    bench = Bench(3)
    assert bench.sleep(PROBING) == [0, 1, 2] * ROUNDS
    assert [bench.take()[0] for _ in range(4)] == [0, 1, 2, None]
    assert bench.prober.deadline() is None


def test_a_returned_address_is_probed_before_its_next_use() -> None:
    bench = Bench(3)
    bench.sleep(PROBING)
    for _ in range(3):
        bench.take()
    bench.free(1)
    assert bench.sleep(PROBING) == [1] * ROUNDS
    assert bench.take() == (1, False)


def test_without_probing_addresses_just_ascend() -> None:
    bench = Bench(enabled=False)
    assert bench.sleep(100) == []
    assert [bench.take() for _ in range(3)] == [(0, False), (1, False), (2, False)]
    assert not bench.prober.heard(1, STATION, bench.now)
    bench.free(1)
    assert bench.prober.deadline() is None
    assert bench.take() == (1, False)


def test_tables_keep_within_their_caps() -> None:
    bench = Bench(10_000)
    for _ in range(2 * MAX_WATCHED):
        bench.take()
    prober = bench.prober
    assert len(prober._watched) == MAX_WATCHED
    for _ in range(20):
        bench.sleep(FRESH_TIME)
    assert len(prober._silent) + len(prober._waiting) <= AHEAD
    assert len(prober._lowest) <= 3 * AHEAD


def test_a_step_of_the_clock_stops_nothing() -> None:
    bench = Bench()
    bench.now = 1e9
    bench.prober.tick(bench.now)
    bench.prober.shift(-1e9)
    bench.now = 0
    bench.sleep(PROBING)
    assert bench.take() == (0, False)


def test_who_leaves_an_address_may_answer_for_it_a_moment_longer() -> None:
    bench = Bench()
    bench.prober.left(0, STATION, bench.now)
    bench.prober.tick(bench.now)
    bench.sleep(ANSWER_TIME / 2)
    assert not bench.prober.heard(0, STATION, bench.now)
    assert bench.sleep(PROBING).count(0) == ROUNDS, "it is probed until it is silent"
    assert bench.take() == (1, False)
    bench.sleep(PROBING)
    assert bench.take() == (0, False)


def test_who_does_not_leave_an_address_is_heard() -> None:
    bench = Bench()
    bench.prober.left(0, STATION, bench.now - LEAVE_TIME)
    bench.prober.left(1, STATION, bench.now)
    bench.prober.tick(bench.now)
    assert bench.prober.heard(0, STATION, bench.now)
    assert bench.prober.heard(1, mac(2), bench.now), "another station"


def test_a_step_of_the_clock_changes_nothing_for_who_leaves() -> None:
    bench = Bench()
    bench.prober.left(0, STATION, bench.now)
    bench.prober.shift(1000)
    bench.prober.tick(1000)
    assert not bench.prober.heard(0, STATION, 1001)
    assert bench.prober.heard(0, STATION, 1000 + LEAVE_TIME)


def test_what_was_left_fills_no_memory() -> None:
    prober = Bench().prober
    for address in range(3 * MAX_LEFT):
        prober.left(address, STATION, 0)
    assert len(prober._left) <= MAX_LEFT
