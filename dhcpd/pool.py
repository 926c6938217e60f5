"""Addresses as ranges of integers. Knows nothing of leases."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import NamedTuple


def dotted(address: int) -> str:
    """``10.0.1.1`` of an integer; several times faster than ``ipaddress``."""
    return f"{address >> 24 & 255}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


class Range(NamedTuple):
    """The addresses ``first`` to ``last``, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{dotted(self.first)}-{dotted(self.last)}"

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.first <= address <= self.last

    def overlaps(self, other: Range) -> bool:
        return self.first <= other.last and other.first <= self.last

    @property
    def size(self) -> int:
        return self.last - self.first + 1


class RangeSet:
    """An immutable set of addresses, kept as sorted disjoint ranges: membership is a bisection."""

    __slots__ = ("_firsts", "_lasts", "ranges", "size")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        merged: list[Range] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1].last + 1:
                merged[-1] = Range(merged[-1].first, max(last, merged[-1].last))
            else:
                merged.append(Range(first, last))
        self.ranges = tuple(merged)
        self.size = sum(one.size for one in merged)
        self._firsts = [one.first for one in merged]
        self._lasts = [one.last for one in merged]

    def __contains__(self, address: int) -> bool:
        index = bisect_right(self._firsts, address) - 1
        return index >= 0 and address <= self._lasts[index]

    def without(self, addresses: Iterable[int]) -> list[int]:
        """Those of ``addresses`` that are not in the set."""
        rest = list(addresses)
        for first, last in self.ranges:
            inside = range(first, last + 1)
            rest = [one for one in rest if one not in inside]
        return rest

    def __iter__(self) -> Iterator[int]:
        """Ascending, lazily: a /8 costs no memory."""
        for first, last in self.ranges:
            yield from range(first, last + 1)


class Supply:
    """Hands out the addresses of a `RangeSet` lowest first; one that is given back is handed out again.

    `take` is O(1), O(log n) while given-back addresses wait. The caller skips the addresses it knows to be taken.
    """

    __slots__ = ("_cursor", "_next", "_returned", "_waiting")

    def __init__(self, addresses: RangeSet) -> None:
        self._next = iter(addresses)
        self._cursor = -1
        self._returned: list[int] = []
        self._waiting: set[int] = set()

    def take(self) -> int | None:
        """The lowest address that was not handed out yet, None when there is none."""
        if self._returned:
            lowest = heappop(self._returned)
            self._waiting.discard(lowest)
            return lowest
        address = next(self._next, None)
        if address is not None:
            self._cursor = address
        return address

    def give_back(self, address: int) -> None:
        """An address of the set is free again; one that waits for its turn already keeps it."""
        if address <= self._cursor and address not in self._waiting:
            self._waiting.add(address)
            heappush(self._returned, address)
