"""Who asks too often, as a pure object: how much of a server's time one station, and all strangers together, may have.

Nodes that are known (they hold a lease, or a reservation names them) only have a bound that no sound client comes near.
A stranger's message costs a token of its VLAN; tokens come back with time, and at once when the stranger takes its
lease. So any number of newcomers may come at once as long as they finish, and a flood of invented MACs cannot take more
than its share of offers, processor and disk, while those that are known are served as ever.
"""

from __future__ import annotations

from typing import NamedTuple

WINDOW = 10.0
"""Seconds over which messages are counted."""
MAX_KNOWN = 2000
"""Messages of a known node in a window: 200 a second."""
MAX_STRANGER = 100
"""Messages of a stranger, and more than these are too often for anybody: boot loaders in stages need a tenth."""
TOKENS, TOKENS_PER_SECOND = 2048, 1000
"""A whole site that is switched on at once, and what comes back without a lease: so many offers cost little, and leave
newcomers a chance in a flood."""
MAX_STATIONS = 4096
"""Stations counted at once. More in one window, and counting starts over: the tokens bound strangers all the same."""
MAX_NOISY = 16
QUIET_SECONDS = 60.0
"""For so long a station has to be quiet until it is not one that asks too often any more."""


class Noisy(NamedTuple):
    """A station that asks too often: how often in a second when it was counted last, and when that was."""

    per_second: float
    last: float


class Limits:
    """For one VLAN. ``now`` is service time.

    The engine sees every message, so it counts in ``counts`` and takes tokens by itself where that is all there is to
    do; `admits` has the rest.
    """

    __slots__ = ("_began", "_crowded", "_filled", "_noisy", "counts", "end", "tokens")

    def __init__(self, now: float) -> None:
        self.counts: dict[bytes, int] = {}
        """Messages of a station (its MAC, or what stands for it) in this window."""
        self.tokens: float = TOKENS
        """A stranger's message takes one; a stranger that takes its lease gives back two, for it has sent two."""
        self.end = now + WINDOW
        """Of the window."""
        self._began = self._filled = now
        self._noisy: dict[bytes, Noisy] = {}
        self._crowded: float | None = None

    def admits(self, station: bytes, is_known: bool, now: float) -> bool:
        """Whether a message that has been counted is to be served."""
        count = self.counts[station]
        if not self._began <= now < self.end or len(self.counts) > MAX_STATIONS:
            self._turn(now)
            count = self.counts[station] = 1
        if count > MAX_STRANGER:
            self._note(station, count, now)
            if not is_known or count > MAX_KNOWN:
                return False
        if is_known:
            return True
        if self.tokens < 1:
            self._fill(now)
            if self.tokens < 1:
                self._crowded = now
                return False
        self.tokens -= 1
        return True

    def noisy(self, now: float) -> dict[bytes, Noisy]:
        """The stations that ask too often, at most `MAX_NOISY` of them."""
        self._noisy = {mac: one for mac, one in self._noisy.items() if 0 <= now - one.last < QUIET_SECONDS}
        return dict(self._noisy)

    def is_crowded(self, now: float) -> bool:
        """Whether a stranger had to wait lately."""
        return self._crowded is not None and 0 <= now - self._crowded < QUIET_SECONDS

    def _turn(self, now: float) -> None:
        """Begin a window."""
        self._fill(now)
        self.counts.clear()
        self._began, self.end = now, now + WINDOW

    def _fill(self, now: float) -> None:
        self.tokens = min(TOKENS, self.tokens + max(0.0, now - self._filled) * TOKENS_PER_SECOND)
        self._filled = now

    def _note(self, station: bytes, count: int, now: float) -> None:
        if station in self._noisy or len(self._noisy) < MAX_NOISY:
            self._noisy[station] = Noisy(count / WINDOW, now)
