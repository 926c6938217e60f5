"""Service time: the seconds in which leases are stamped, on machines whose own clock may be wrong.

Many of them have no battery clock. The wall clock then starts in 1970, at the last shutdown, or at whatever date the
image was built, and is set right once the network is up, by the very service that hands out the addresses.
"""

from __future__ import annotations

EARLIEST = 1_735_689_600
"""2025-01-01: a wall clock before it was never set, since this program is younger."""

MAX_AHEAD = 30 * 86400
"""How far the stamp of the last lease may be ahead of a set wall clock before the stamp is taken for the wrong one:
longer than saved clocks lag behind (``fake-hwclock`` and ``systemd-timesyncd`` save at least daily) and than a machine
without a network drifts, shorter than a mistyped month."""

TOLERANCE = 2.0
"""Seconds by which wall and service time may differ between two calls of `Clock.step` before it counts as a step: more
than slewing and a late call cause, and less than any lease time."""


class Clock:
    """Service time: seconds since the epoch that follow the wall clock wherever it can be believed.

    ``monotonic`` everywhere is a reading of ``CLOCK_BOOTTIME``: it runs on while the machine sleeps, as the leases do
    at their clients, so that waking up is not a step. ``stamp`` is the latest ``since`` in the lease store, 0 when it
    is empty: real time was at least that late, unless the clock was wrong when the lease was stamped.

    Service time starts later than every stored lease, and leases keep the time they have left:

    - *Wall clock later than the stamp*: service time is wall time. This includes a clock that the last shutdown saved.
    - *Wall clock never set* (1970), or behind the stamp by less than `MAX_AHEAD`: service time starts one second after
      the stamp and runs on from there, so that leases neither expire nor come out of order while the machine does not
      know the time, and time goes on from boot to boot where nothing ever sets the clock. `step` jumps when the wall
      clock passes the stamp; leases that ended while the power was off expire then. (Was it the stamp that was ahead,
      leases from before it look expired until then, and as such keep their addresses to the last.)
    - *Wall clock set and far behind the stamp*: the last leases were granted under a clock that was set to the future
      by mistake. The wall clock wins; `settle` gives such leases an end.
    - *Set while running, forwards or backwards*: `step` says by how much. Leases granted at or after ``since`` were
      stamped by a clock that nobody vouched for, and move along; those from before were stamped by a right one and do
      not. A lease that looked expired under a clock that was too late is live again after the step.

    Only the kernel vouches for a clock: it knows whether something like NTP disciplines it, and forgets that when the
    clock is set. ``since`` is the start of the first run since it last did so, however often the service or the machine
    started in between: ``doubt`` is what has to be kept for the next run, and was kept by the last one. While the clock
    is right nothing that sets it can be about time that went by, and ``since`` is 0: all leases would move along.

    A clock in doubt that is set while the service does not run is taken for time that went by: nothing tells the two
    apart.
    """

    def __init__(self, wall: float, monotonic: float, stamp: int, doubt: int | None = None) -> None:
        self._stamp = stamp
        self._offset = (wall if self._believes(wall) else stamp + 1) - monotonic
        now = int(self.now(monotonic))
        self.since = now if doubt is None else min(doubt, now)
        self._is_right = False

    @property
    def doubt(self) -> int | None:
        """From which service second on leases were stamped by a clock that may be wrong; None while it is right."""
        return None if self._is_right else self.since

    def now(self, monotonic: float) -> float:
        return monotonic + self._offset

    def step(self, wall: float, monotonic: float) -> int:
        """Follow the wall clock; to be called about once a second. Returns the seconds that service time jumped, by
        which the leases granted at or after ``since`` (that of before the call) have to move along; 0 for drift, and
        while the wall clock is not believed."""
        if not self._believes(wall):
            return 0
        difference = wall - self.now(monotonic)
        self._offset += difference
        if abs(difference) <= TOLERANCE:
            return 0
        self._stamp = min(self._stamp, int(wall))  # no lease is later, once they have moved along
        self._is_right = False
        if self.since:
            self.since = max(0, self.since + round(difference))
        return round(difference)

    def vouch(self, wall: float, monotonic: float, *, is_right: bool) -> None:
        """What the kernel says of the wall clock; to be told after each `step`."""
        is_right = is_right and self._believes(wall)
        if is_right:
            self.since = 0
        elif self._is_right:
            self.since = int(self.now(monotonic))
        self._is_right = is_right

    def _believes(self, wall: float) -> bool:
        return wall >= self._stamp + 1 or EARLIEST <= wall < self._stamp - MAX_AHEAD


def settle(since: int, expires: int | None, now: int) -> tuple[int, int | None]:
    """``since`` and ``expires`` of a stored lease or quarantine, free of a clock that was ahead when it was stamped.

    One stamped later than ``now`` counts as stamped now: its full length is the most that can be left of it. Without
    this it would last until the wrong date. For every row when the store is loaded, and after a step backwards.
    """
    ahead = since - now
    if ahead <= 0:
        return since, expires
    return now, None if expires is None else expires - ahead
