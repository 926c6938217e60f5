"""Durations counted by size, as Prometheus wants them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds, each included: from a reply out of memory to a disk that hangs."""


class Histogram:
    """``sum`` is in seconds, ``count`` the number of observations."""

    __slots__ = ("_counts", "count", "sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0
        self.count = 0

    def observe(self, seconds: float, times: int = 1) -> None:
        """So many things took so long."""
        self._counts[bisect_left(BOUNDS, seconds)] += times
        self.sum += seconds * times
        self.count += times

    def buckets(self) -> Iterator[tuple[str, int]]:
        """(upper bound, how many took as long or less), the last bound ``+Inf``."""
        total = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            yield bound, total
