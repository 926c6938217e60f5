"""Which free address comes next: the lowest that is known to be silent (RFC 2131 section 2.2, RFC 5227).

Free addresses are ARP-probed ahead of need, so that nobody waits for an answer that mostly does not come. When they
are handed out faster than they can be probed, an address goes out at once and is probed while its offer stands.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from dhcpd.pool import Supply

AHEAD = 64
"""Addresses kept probed: two racks of devices switched on at once."""
ROUNDS = 2
"""Probes of one address: broadcasts are not repeated by a lossy link."""
ANSWER_TIME = 0.4
"""Seconds to wait for an answer to each probe; sleeping Wi-Fi stations wake for a broadcast every 0.1 to 0.3 s."""
FRESH_TIME = 600
"""Seconds for which an address that was silent is taken to be silent still."""
REFILL = AHEAD // 2
"""Below so many, the next free addresses are due to be probed: one bout for many clients instead of one for each."""
MAX_WATCHED = 1024
"""Addresses probed while they are on offer. Beyond, offers go out unprobed: the client's own check remains."""
LEAVE_TIME = 10
"""Seconds in which who has another address now may answer for the old one."""
MAX_LEFT = 1024
"""Addresses that were left; with more of them it starts over."""


class Prober:
    """The order in which free addresses are given, and the probes due. ``is_free``: nobody's, offered to nobody.

    With ``enabled`` False it hands out ascending addresses and never probes.
    """

    def __init__(self, supply: Supply, is_free: Callable[[int], bool], *, enabled: bool = True) -> None:
        self._supply = supply
        self._is_free = is_free
        self._ahead = AHEAD if enabled else 0
        self._max_watched = MAX_WATCHED if enabled else 0
        self._silent: dict[int, float] = {}
        self._lowest: list[int] = []
        self._waiting: dict[int, tuple[float, int]] = {}
        self._watched: dict[int, float] = {}
        self._left: dict[int, tuple[bytes, float]] = {}
        self._is_dry = not enabled

    def take(self, now: float) -> tuple[int | None, bool]:
        """(the next address or None when there is none, whether it must be probed now)."""
        while self._lowest:
            address = heappop(self._lowest)
            if self._silent.pop(address, None) is not None and self._is_free(address):
                return address, False
        while self._waiting:
            address = next(iter(self._waiting))
            deadline, _ = self._waiting.pop(address)
            if self._is_free(address):
                self._watched[address] = deadline
                return address, False
        address_or_none = self._next_free()
        return address_or_none, address_or_none is not None and self.watch(address_or_none, now)

    def watch(self, address: int, now: float) -> bool:
        """An address goes on offer unprobed: True when it is to be probed now."""
        if len(self._watched) >= self._max_watched:
            return False
        self._watched[address] = now + ANSWER_TIME * ROUNDS
        return True

    def give_back(self, address: int) -> None:
        """An address is free again and needs a probe before its next use."""
        if address not in self._waiting and address not in self._silent:
            self._is_dry = not self._ahead
            self._supply.give_back(address)

    def taken(self, address: int) -> None:
        """An address is offered or leased: it is probed no more. A watch goes on, for its probe is under way."""
        self._waiting.pop(address, None)
        self._silent.pop(address, None)

    def left(self, address: int, mac: bytes, now: float) -> None:
        """``mac`` has another address than this one from now on."""
        if len(self._left) >= MAX_LEFT:
            self._left.clear()
        self._left[address] = mac, now + LEAVE_TIME

    def heard(self, address: int, mac: bytes, now: float) -> bool:
        """``mac`` answers for ``address``; True when that was on its way to a client, and is not just being left: then
        it is probed until it is silent."""
        leaver, until = self._left.get(address, (b"", now))
        if mac == leaver and now < until:
            if address in self._waiting:
                self._waiting[address] = self._waiting[address][0], 0
            return False
        is_watched = self._watched.pop(address, now) > now
        was_waiting = self._waiting.pop(address, None) is not None
        return self._silent.pop(address, None) is not None or was_waiting or is_watched

    def tick(self, now: float) -> list[int]:
        """The addresses to probe now; those that stayed silent become available."""
        due: list[int] = []
        while (address := _first(self._watched)) is not None and self._watched[address] <= now:
            del self._watched[address]
        while (address := _first(self._waiting)) is not None and self._waiting[address][0] <= now:
            _, rounds = self._waiting.pop(address)
            if rounds < ROUNDS:
                due.append(address)
                self._waiting[address] = (now + ANSWER_TIME, rounds + 1)
            else:
                self._silent[address] = now
                heappush(self._lowest, address)
        while (address := _first(self._silent)) is not None and self._silent[address] + FRESH_TIME <= now:
            del self._silent[address]
            self._ask(address, now, due)
        while len(self._silent) + len(self._waiting) < self._ahead and (address := self._next_free()) is not None:
            self._ask(address, now, due)
        if len(self._lowest) > 2 * self._ahead:
            self._lowest = sorted(self._silent)
        return due

    def deadline(self) -> float | None:
        """The earliest time at which `tick` has something to do; 0 when too few free addresses are probed."""
        if not self._is_dry and len(self._silent) + len(self._waiting) < REFILL:
            return 0
        times: list[float] = []
        if (address := _first(self._watched)) is not None:
            times.append(self._watched[address])
        if (address := _first(self._waiting)) is not None:
            times.append(self._waiting[address][0])
        if (address := _first(self._silent)) is not None:
            times.append(self._silent[address] + FRESH_TIME)
        return min(times, default=None)

    def shift(self, seconds: float) -> None:
        """The clock was set by so much."""
        self._silent = {address: since + seconds for address, since in self._silent.items()}
        self._watched = {address: until + seconds for address, until in self._watched.items()}
        self._waiting = {address: (due + seconds, rounds) for address, (due, rounds) in self._waiting.items()}
        self._left = {address: (mac, until + seconds) for address, (mac, until) in self._left.items()}

    def inherit(self, old: Prober) -> None:
        """Know who leaves an address, as the prober of the previous configuration did."""
        self._left = old._left

    def _ask(self, address: int, now: float, due: list[int]) -> None:
        due.append(address)
        self._waiting[address] = (now + ANSWER_TIME, 1)

    def _next_free(self) -> int | None:
        while (address := self._supply.take()) is not None:
            if self._is_free(address):
                return address
        self._is_dry = True
        return None


def _first(table: dict[int, float] | dict[int, tuple[float, int]]) -> int | None:
    return next(iter(table), None)
