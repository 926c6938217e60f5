"""How often a namespace is repaired."""

from __future__ import annotations

from leasebroker.repairs import BURST, EVERY_SECONDS, LOOK, Repairs


def test_some_repairs_in_a_row_cost_no_pause() -> None:
    repairs = Repairs()
    for _ in range(int(BURST) - 1):
        repairs.note(100)
        assert repairs.pause(100) == 0
        assert not repairs.is_fought(100)
    repairs.note(100)
    assert repairs.pause(100) == EVERY_SECONDS
    assert repairs.is_fought(100)


def test_then_each_waits_for_its_time() -> None:
    repairs = Repairs()
    now, made = 100.0, 0
    while now < 200:
        if not repairs.pause(now):
            repairs.note(now)
            made += 1
        now += 0.01
    assert BURST + 100 / EVERY_SECONDS - 2 <= made <= BURST + 100 / EVERY_SECONDS
    assert repairs.is_fought(now)


def test_a_fight_is_over_when_there_were_few_repairs_for_a_while() -> None:
    repairs = Repairs()
    for _ in range(int(BURST)):
        repairs.note(100)
    half = BURST / 2 * EVERY_SECONDS
    assert repairs.is_fought(100 + half - 1)
    assert not repairs.is_fought(100 + half)
    repairs.note(100 + half)
    assert not repairs.is_fought(100 + half)


def test_looks_that_find_nothing_wrong_are_limited_and_no_fight() -> None:
    repairs = Repairs()
    for _ in range(int(BURST / LOOK)):
        repairs.note(100, LOOK)
    assert repairs.pause(100) > 0
    assert not repairs.is_fought(100)
