from __future__ import annotations

from dhcpd.decision import Note
from dhcpd.throttle import Throttle


def note(number: int) -> Note:
    return Note("info", "refused", {"number": number})


def test_a_lonely_note_is_told_at_once_as_it_is() -> None:
    throttle = Throttle()
    assert throttle.put(note(1), 10.0) == note(1)
    assert throttle.tick(20.0) is None
    assert throttle.put(note(2), 11.0) == note(2)


def test_of_a_flood_one_a_second_is_told_and_all_are_counted() -> None:
    throttle = Throttle()
    told = [throttle.put(note(number), number / 1000) for number in range(3500)]
    assert throttle.tick(3.9) is None
    told.append(throttle.tick(4.0))
    assert [one.fields for one in told if one is not None] == [
        {"number": 0},
        {"number": 1000, "left_out": 999},
        {"number": 2000, "left_out": 999},
        {"number": 3000, "left_out": 999},
        {"number": 3499, "left_out": 498},
    ]
    assert throttle.tick(9.0) is None
