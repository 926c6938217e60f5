"""How often a namespace is looked into and repaired, as a pure object: one whose container undoes each repair waits.

``now`` is any clock that is not set.
"""

from __future__ import annotations

BURST = 20.0
"""Repairs in a row that cost no pause."""
EVERY_SECONDS = 2.0
"""For each one after those."""
LOOK = 0.2
"""What a look costs, in repairs."""


class Repairs:
    def __init__(self) -> None:
        self._left = BURST
        self._at = 0.0
        self._is_fought = False

    def note(self, now: float, cost: float = 1.0) -> None:
        """There was a repair, or a look."""
        self._refill(now)
        self._left -= cost
        self._is_fought |= self._left < 1 <= cost

    def pause(self, now: float) -> float:
        """Seconds until the next look."""
        self._refill(now)
        return max(0.0, 1 - self._left) * EVERY_SECONDS

    def is_fought(self, now: float) -> bool:
        """Whether there were too many repairs, until there were few for a while."""
        self._refill(now)
        self._is_fought &= self._left < BURST / 2
        return self._is_fought

    def _refill(self, now: float) -> None:
        self._left = min(BURST, self._left + max(0.0, now - self._at) / EVERY_SECONDS)
        self._at = now
