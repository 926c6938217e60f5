"""Service time on machines whose wall clock is wrong at boot.

Told as a timeline: true time is what a right clock would show, in seconds after `TRUE`; leases last an hour.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dhcpd.clock import EARLIEST, MAX_AHEAD, Clock, settle
from dhcpd.decision import Decision
from tests.conftest import SOAK
from tests.dhcpd.script import Vlan, ip

TRUE = 1_790_000_000
DAY = 86400


def test_right_clock_is_followed() -> None:
    clock = Clock(TRUE, 100.0, TRUE - DAY)
    assert clock.now(100.0) == TRUE
    assert clock.step(TRUE + 5, 105.0) == 0
    assert clock.now(105.0) == TRUE + 5


def test_empty_store_follows_any_clock() -> None:
    clock = Clock(17.0, 17.0, 0)
    assert clock.now(18.0) == 18
    assert clock.step(TRUE, 18.0) == TRUE - 18


def test_boot_in_1970_goes_on_after_the_last_lease_and_jumps_when_the_time_is_known() -> None:
    stamp = TRUE - 2 * DAY
    clock = Clock(3.0, 3.0, stamp)
    assert clock.now(3.0) == stamp + 1
    assert clock.step(4.0, 4.0) == 0
    assert clock.now(600.0) == stamp + 598
    assert clock.step(TRUE, 600.0) == 2 * DAY - 598
    assert clock.now(600.0) == TRUE


def test_clock_saved_at_an_hour_before_the_last_lease() -> None:
    clock = Clock(TRUE - 3600, 0.0, TRUE)
    assert clock.now(0.0) == TRUE + 1
    assert clock.step(TRUE - 3590, 10.0) == 0
    assert clock.step(TRUE + 7200, 20.0) == 7200 - 21


def test_without_a_network_the_wall_clock_takes_over_when_it_passes_the_stamp() -> None:
    clock = Clock(TRUE - 600, 0.0, TRUE)
    assert clock.step(TRUE, 600.0) == 0
    assert clock.step(TRUE + 1, 601.0) == -601
    assert clock.now(601.0) == TRUE + 1


def test_service_time_starts_behind_every_stored_lease() -> None:
    for wall in (TRUE + 0.0, TRUE + 0.9, TRUE - 5.0):
        assert int(Clock(wall, 0.0, TRUE).now(0.0)) > TRUE


def test_clock_set_to_the_future_and_corrected_while_running() -> None:
    clock = Clock(TRUE + 3650 * DAY, 0.0, TRUE - DAY)
    assert clock.step(TRUE + 60, 60.0) == -3650 * DAY
    assert clock.now(60.0) == TRUE + 60


def test_clock_set_to_the_future_and_corrected_while_off() -> None:
    wrong = TRUE + 3650 * DAY
    clock = Clock(TRUE, 0.0, wrong)
    assert clock.now(0.0) == TRUE
    assert settle(wrong, wrong + 3600, TRUE) == (TRUE, TRUE + 3600)


def test_clock_set_to_the_future_and_corrected_after_a_restart_under_it() -> None:
    wrong = TRUE + 3650 * DAY
    clock = Clock(wrong + 100, 0.0, wrong)
    assert clock.step(TRUE, 10.0) == TRUE - wrong - 110
    assert clock.now(10.0) == TRUE


def test_clock_that_is_set_to_1970_while_running_is_not_believed() -> None:
    clock = Clock(TRUE, 0.0, TRUE - DAY)
    assert clock.step(5.0, 5.0) == 0
    assert clock.now(5.0) == TRUE + 5


def test_slow_drift_is_absorbed() -> None:
    clock = Clock(TRUE, 0.0, 0)
    assert not any(clock.step(TRUE + 1.0005 * second, second) for second in range(100_000))
    assert clock.now(100_000) > TRUE + 100_049


def test_sleeping_is_no_step_because_boot_time_runs_on() -> None:
    clock = Clock(TRUE, 0.0, TRUE - 60)
    assert clock.step(TRUE + DAY, float(DAY)) == 0


def test_rows_of_the_past_are_left_alone() -> None:
    assert settle(TRUE - 60, TRUE + 3540, TRUE) == (TRUE - 60, TRUE + 3540)
    assert settle(TRUE - 60, None, TRUE) == (TRUE - 60, None)


def test_infinite_leases_stay_infinite() -> None:
    assert settle(TRUE + DAY, None, TRUE) == (TRUE, None)


walls = st.one_of(
    st.floats(0, 1e6),
    st.floats(EARLIEST, TRUE + 3650 * DAY),
    st.floats(-3.0, 3.0).map(lambda error: TRUE + error),
)


@given(walls, st.integers(0, TRUE - 1), st.lists(st.tuples(st.floats(1.0, 600.0), walls), max_size=20))
def test_lease_of_this_run_ends_an_hour_after_its_grant(
    wall: float, stamp: int, changes: list[tuple[float, float]]
) -> None:
    clock = Clock(wall, 0.0, stamp)
    monotonic, expires, absorbed = 0.0, clock.now(0.0) + 3600, 0.0
    for seconds, now in changes:
        monotonic += seconds
        expires += clock.step(now, monotonic)
        absorbed += 2.0
        left = expires - clock.now(monotonic)
        assert abs(left - (3600 - monotonic)) <= absorbed + 0.5


@given(walls, st.lists(walls, max_size=10), st.integers(1, 10 * DAY), st.integers(0, 20 * DAY))
def test_stored_lease_is_judged_by_true_time_once_the_clock_is_right(
    wall: float, wrong: list[float], age: int, off: int
) -> None:
    stamp = TRUE - off
    since = stamp - age
    clock = Clock(wall, 0.0, stamp)
    for second, value in enumerate(wrong, 1):
        clock.step(value, float(second))
    clock.step(TRUE + 30, 30.0)
    assert clock.now(30.0) == TRUE + 30
    assert settle(since, since + 3600, int(clock.now(30.0))) == (since, since + 3600)


@given(st.floats(0, EARLIEST - 3601), st.integers(EARLIEST, TRUE), st.floats(0, 3600))
def test_no_stored_lease_expires_before_the_clock_is_set(wall: float, stamp: int, elapsed: float) -> None:
    clock = Clock(wall, 0.0, stamp)
    clock.step(wall + elapsed, elapsed)
    assert stamp < clock.now(elapsed) <= stamp + 1 + elapsed


@given(walls, st.integers(0, TRUE + 3650 * DAY), st.integers(0, 2 * DAY))
def test_nothing_lives_longer_than_its_length_after_the_start(wall: float, since: int, length: int) -> None:
    now = int(Clock(wall, 0.0, since).now(0.0))
    stamped, expires = settle(since, since + length, now)
    assert expires is not None
    assert stamped <= now
    assert expires <= now + length
    assert expires - stamped == length


def test_a_stamp_is_believed_up_to_a_month() -> None:
    assert Clock(TRUE - MAX_AHEAD + 1, 0.0, TRUE).now(0.0) == TRUE + 1
    assert Clock(TRUE - MAX_AHEAD - 1, 0.0, TRUE).now(0.0) == TRUE - MAX_AHEAD - 1


def test_a_doubt_is_handed_on_until_the_kernel_vouches_for_the_clock() -> None:
    first = Clock(40.0, 40.0, 0)
    assert (first.since, first.doubt) == (40, 40)
    second = Clock(45.0, 45.0, 44, first.doubt)
    assert (second.since, second.doubt) == (40, 40)
    assert second.step(TRUE, 105.0) == TRUE - 105
    assert second.doubt == TRUE - 65
    second.vouch(TRUE, 105.0, is_right=True)
    assert second.since == 0
    assert Clock(TRUE + 5, 5.0, TRUE, second.doubt).since == TRUE + 5


def test_a_clock_that_nobody_vouches_for_any_more_is_in_doubt_from_then_on() -> None:
    clock = Clock(TRUE, 0.0, 0)
    clock.vouch(TRUE, 0.0, is_right=True)
    clock.vouch(TRUE + 60, 60.0, is_right=False)
    assert clock.doubt == TRUE + 60


def test_a_right_clock_that_is_set_moves_everything_along_and_back() -> None:
    clock = Clock(TRUE, 0.0, TRUE - DAY)
    clock.vouch(TRUE, 0.0, is_right=True)
    assert clock.step(TRUE + 400 * DAY, 1.0) == 400 * DAY - 1
    clock.vouch(TRUE + 400 * DAY, 1.0, is_right=False)
    assert clock.doubt == 0


def test_a_kernel_that_vouches_for_a_time_before_the_last_lease_is_not_believed() -> None:
    clock = Clock(TRUE - DAY, 0.0, TRUE)
    clock.vouch(TRUE - DAY, 0.0, is_right=True)
    assert clock.doubt == TRUE + 1


SLACK = 60
"""Seconds that a history of `Machine` may lose to rounding and to what counts as drift."""


def test_a_clock_that_was_set_far_back_is_followed_when_it_is_set_right() -> None:
    """Up to a little before the lease that was the latest: that has moved along, back and forth."""
    clock = Clock(TRUE + 1, 100.0, stamp=TRUE)
    assert clock.step(TRUE + 1 - MAX_AHEAD - 10, 100.0) == -MAX_AHEAD - 10
    assert clock.step(TRUE - 60, 100.0) == MAX_AHEAD - 51


class Machine(RuleBasedStateMachine):
    """A machine without a battery clock, its service, and clients that know the true time. The clock is late at a
    boot and as long as it was not right, and anything once it is set by hand from the right time. At a boot it is
    never later than it would be, had it gone on: one that is set while nobody looks cannot be told from time that
    went by."""

    def __init__(self) -> None:
        super().__init__()
        self.true, self.wall, self.booted = float(TRUE), 40.0, float(TRUE) - 40
        self.saved = self.wall
        self.is_right = self.was_right = False
        self.vlan = Vlan(pools=("10.0.1.100-10.0.1.102",), lease_time=3600)
        self.clients = [self.vlan.client(number) for number in range(6)]
        self.leases: dict[str, tuple[int, float]] = {}
        """By address: the client that has it, until when."""
        self.doubt: int | None = None
        self.start()

    def start(self) -> None:
        """What the composition root does, on the leases that are on the disk."""
        stamp = max((row.since for row in self.vlan.disk.values()), default=0)
        self.clock = Clock(self.wall, self.true - self.booted, stamp, self.doubt)
        self.doubt = self.clock.doubt
        self.vlan.now = self.clock.now(self.true - self.booted)
        for address, row in self.vlan.disk.items():
            since, expires = settle(row.since, row.expires, int(self.vlan.now))
            self.vlan.disk[address] = row._replace(since=since, expires=expires)
        self.vlan.restart()
        self.look()

    def look(self) -> None:
        uptime, since = self.true - self.booted, self.clock.since
        seconds = self.clock.step(self.wall, uptime)
        self.vlan.now = self.clock.now(uptime)
        if seconds:
            self.vlan.carry_out(Decision(self.vlan.engine.step(seconds, since, self.vlan.now)))
        self.clock.vouch(self.wall, uptime, is_right=self.is_right)
        self.doubt = self.clock.doubt
        self.vlan.tick()

    @rule(seconds=st.sampled_from((1, 20, 300, 3000)))
    def wait(self, seconds: int) -> None:
        self.true += seconds
        self.wall += seconds
        self.look()

    @rule()
    def save(self) -> None:
        self.saved = self.wall

    @rule(off=st.sampled_from((5, 600, 7200, 3 * DAY)), kept=st.booleans(), lag=st.integers(0, 4000))
    def boot(self, off: int, kept: bool, lag: int) -> None:
        """Without notice; the clock begins in 1970, or with what was saved before."""
        self.true += off
        self.booted = self.true - 10
        self.wall = min(max(self.saved - lag, 10.0), self.true, self.wall + off) if kept else 10.0
        self.is_right = self.was_right = False
        self.start()

    @rule()
    def restart(self) -> None:
        self.true += 1
        self.wall += 1
        self.start()

    @rule()
    def synchronize(self) -> None:
        self.wall = self.true
        self.is_right = True
        self.look()
        self.was_right = self.clock.doubt is None

    @rule(late=st.integers(0, 400 * DAY))
    def set_too_late(self, late: int) -> None:
        self.wall, self.is_right, self.was_right = self.true - late, False, False
        self.look()

    @precondition(lambda self: self.was_right)
    @rule(ahead=st.integers(0, 400 * DAY))
    def set_ahead(self, ahead: int) -> None:
        self.wall, self.is_right = self.true + ahead, False
        self.look()
        self.was_right = False

    @rule(number=st.integers(0, 5))
    def join(self, number: int) -> None:
        client = self.clients[number]
        offer = client.discover()
        if offer.kind != "offer":
            return
        ack = client.select(offer)
        holder, until = self.leases.get(ack.yiaddr, (number, 0.0))
        assert holder == number or until <= self.true + SLACK
        self.leases = {address: one for address, one in self.leases.items() if one[0] != number}
        self.leases[ack.yiaddr] = (number, self.true + 3600)

    @invariant()
    def no_lease_ends_early(self) -> None:
        for address, (_, until) in self.leases.items():
            if until > self.true + SLACK:
                assert self.vlan.engine.book.by_address[ip(address)].is_live(self.vlan.now)


def test_no_history_of_a_clock_ends_a_lease_early_or_gives_it_away(count: Callable[[int, int], int]) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=count(300, 5_000), stateful_step_count=30, deadline=None, derandomize=not SOAK,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
