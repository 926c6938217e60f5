from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dhcpd.pool import Range, RangeSet, Supply
from tests.dhcpd.script import ip

SMALL = st.builds(lambda first, size: Range(first, first + size), st.integers(0, 60), st.integers(0, 9))


def supply_of(*ranges: tuple[int, int]) -> Supply:
    return Supply(RangeSet(Range(*one) for one in ranges))


def test_a_range_has_both_its_ends() -> None:
    one = Range(ip("10.0.1.100"), ip("10.0.1.109"))
    assert one.size == 10
    assert ip("10.0.1.100") in one
    assert ip("10.0.1.109") in one
    assert ip("10.0.1.110") not in one
    assert str(one) == "10.0.1.100-10.0.1.109"


def test_ranges_overlap_when_they_share_an_address() -> None:
    assert Range(1, 5).overlaps(Range(5, 9))
    assert Range(1, 9).overlaps(Range(3, 4))
    assert not Range(1, 5).overlaps(Range(6, 9))


@given(st.lists(SMALL, max_size=6))
def test_a_range_set_is_the_set_of_its_addresses(ranges: list[Range]) -> None:
    plain = {address for one in ranges for address in range(one.first, one.last + 1)}
    made = RangeSet(ranges)
    assert list(made) == sorted(plain)
    assert made.size == len(plain)
    assert {address for address in range(-2, 80) if address in made} == plain


def test_neighbouring_ranges_become_one() -> None:
    assert RangeSet([Range(5, 9), Range(1, 4)]).ranges == (Range(1, 9),)


def test_addresses_come_in_ascending_order_until_there_are_none() -> None:
    supply = supply_of((7, 8), (1, 2))
    assert [supply.take() for _ in range(5)] == [1, 2, 7, 8, None]


def test_a_returned_address_is_the_next_one() -> None:
    supply = supply_of((1, 9))
    assert [supply.take() for _ in range(3)] == [1, 2, 3]
    supply.give_back(3)
    supply.give_back(1)
    assert [supply.take() for _ in range(3)] == [1, 3, 4]


def test_an_address_that_was_not_handed_out_keeps_its_turn() -> None:
    supply = supply_of((1, 3))
    supply.give_back(2)
    assert [supply.take() for _ in range(4)] == [1, 2, 3, None]


def test_an_address_returned_twice_is_handed_out_once() -> None:
    supply = supply_of((1, 2))
    supply.take()
    for _ in range(100):
        supply.give_back(1)
    assert [supply.take() for _ in range(3)] == [1, 2, None]


def test_a_pool_of_a_whole_class_a_network_costs_nothing() -> None:
    supply = supply_of((ip("10.0.0.2"), ip("10.255.255.254")))
    assert supply.take() == ip("10.0.0.2")
