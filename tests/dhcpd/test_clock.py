"""Service time on machines whose wall clock is wrong at boot.

Told as a timeline: true time is what a right clock would show, in seconds after `TRUE`; leases last an hour.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dhcpd.clock import EARLIEST, MAX_AHEAD, Clock, settle

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
