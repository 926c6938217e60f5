"""What happens, as events for who watches: the log's notes, and every change of a lease.

For the loop's thread. What is not looked at is not rendered: a storm of leases costs a tuple each.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from dhcpd.decision import Note
from dhcpd.identity import container_of
from dhcpd.leases import BOUND, DECLINED, Row
from dhcpd.pool import dotted
from router.text import members
from router.times import iso_millis, iso_time

KEPT = 1000
"""Events that the bus remembers."""
MAX_SUBSCRIBERS = 32
SLICE = 8
"""Events rendered between two turns of the loop: an ACK that is due waits 0.1 ms for it."""

_ENDED = {"state": "expired", "hostname": None, "container": None}


class BusyError(Exception):
    """There are `MAX_SUBSCRIBERS` already."""


_OWN = {"id", "at", "level", "event"}


class Event(NamedTuple):
    """``at`` is wall clock time. ``what`` is a note, or (VLAN, row, service time) of a row that is on the disk."""

    id: int
    at: float
    what: Note | tuple[str, Row, float]

    @property
    def name(self) -> str:
        return self.what.event if isinstance(self.what, Note) else "lease"

    def text(self) -> str:
        """``{"id", "at", "level", "event", ...fields}`` in JSON on one line, as `GET /events` tells it."""
        if isinstance(self.what, Note):
            level, name, fields = self.what
            fields = {key: one for key, one in fields.items() if key not in _OWN}
        else:
            level, name, fields = "info", "lease", lease_fields(*self.what, self.at)
        head = f'{{"id": {self.id}, "at": "{iso_millis(self.at)}", "level": "{level}", "event": "{name}"'
        return f"{head}{members(fields)}}}"

    def block(self) -> bytes:
        """As a server-sent event."""
        return f"id: {self.id}\nevent: {self.name}\ndata: {self.text()}\n\n".encode()


def lease_fields(vlan: str, row: Row, now: float, at: float) -> dict[str, Any]:
    """``state``: ``bound``, ``expired`` (also: released), ``declined``, or ``free`` when the address is nobody's.
    ``expires`` as in ``/leases``. ``at``: the wall clock's time at ``now``."""
    state = "declined" if row.state == DECLINED else "free"
    if row.state == BOUND:
        state = "bound" if row.expires is None or row.expires > now else "expired"
    return {
        "vlan": vlan,
        "address": dotted(row.address),
        "state": state,
        "mac": row.mac.hex(":") or None,
        "hostname": row.hostname or None,
        "container": container_of(row.client),
        "expires": None if row.expires is None else iso_time(row.expires - now + at),
    }


class Bus:
    """Takes notes and changed leases, keeps the last `KEPT` of them, and tells its subscribers."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.news = asyncio.Event()
        """Set and cleared at once, for those who wait, when something has happened."""
        self.is_closed = False
        self.last = random.getrandbits(50)  # no id of a former run is mistaken for one of this, whatever the clock
        """The id of the last event; each has the next one."""
        self._clock = clock
        self._ring: deque[tuple[int, float, Note | tuple[str, Row, float]]] = deque(maxlen=KEPT)
        self._subscriptions: set[Subscription] = set()
        self._blocks: deque[bytes] = deque(maxlen=KEPT)
        self._rendered = self.last
        """The id of the last of the blocks."""

    def tee(self, log: Callable[[Note], None]) -> Callable[[Note], None]:
        """A log that writes to ``log``, and to the bus."""

        def both(note: Note) -> None:
            log(note)
            self.put(note)
            if note.event == "expired":  # the end that no row tells
                self.put(Note("info", "lease", _ENDED | note.fields))

        return both

    def put(self, note: Note) -> None:
        self.last += 1
        self._ring.append((self.last, self._clock(), note))
        self._wake()

    def changed(self, vlan: str, rows: Sequence[Row], now: float) -> None:
        """Leases of a VLAN are on the disk."""
        number, at = self.last, self._clock()
        for row in rows:
            number += 1
            self._ring.append((number, at, (vlan, row, now)))
        self.last = number
        self._wake()

    def _wake(self) -> None:
        if self._subscriptions:
            self.news.set()
            self.news.clear()

    def latest(self, most: int) -> list[Event]:
        """The last events, oldest first."""
        return [Event._make(self._ring[at]) for at in range(-min(most, len(self._ring)), 0)]

    async def blocks_after(self, number: int) -> tuple[list[bytes], int]:
        """The events after that id as server-sent ones, each rendered once for all who watch, and the id of the last:
        as many as are still there."""
        last = self.last
        first = max(number, last - len(self._ring))
        if first < self._rendered - len(self._blocks):
            self._blocks.clear()
            self._rendered = first
        while self._rendered < last:
            self._render(SLICE)
            await asyncio.sleep(0)
        count = min(self._rendered - number, len(self._blocks))
        return [self._blocks[at] for at in range(-count, 0)], self._rendered

    def _render(self, most: int) -> None:
        """The next blocks."""
        before = self.last - len(self._ring)
        if self._rendered < before:
            self._blocks.clear()
            self._rendered = before
        for number in range(self._rendered, min(self._rendered + most, self.last)):
            self._blocks.append(Event._make(self._ring[number - before]).block())
            self._rendered = number + 1

    def subscribe(self, after: int | None = None) -> Subscription:
        """What happens from now on, or after the event of that id. Raises `BusyError`."""
        if len(self._subscriptions) >= MAX_SUBSCRIBERS:
            raise BusyError(f"{MAX_SUBSCRIBERS} watch already: end one of them")
        has_gap = after is not None and not self.last - len(self._ring) <= after <= self.last
        seen = self.last if after is None or has_gap else after
        if not self._subscriptions:  # nobody wants what happened meanwhile
            self._blocks.clear()
            self._rendered = seen
        subscription = Subscription(self, seen, has_gap=has_gap)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End all subscriptions."""
        self.is_closed = True
        self.news.set()


class Subscription:
    """How far one reader has come: whoever is slow loses what the bus keeps no longer, and has nothing kept for it."""

    def __init__(self, bus: Bus, seen: int, *, has_gap: bool) -> None:
        self._bus = bus
        self._seen = seen
        self._lost = int(has_gap)

    async def take(self, seconds: float) -> tuple[list[bytes], int] | None:
        """What has happened since, as server-sent events, and how many were lost before that, as soon as there is some;
        nothing after so many seconds, None when nothing more will come."""
        bus = self._bus
        if not self._lost and bus.last == self._seen:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await bus.news.wait()
        if bus.is_closed:
            return None
        blocks, last = await bus.blocks_after(self._seen)
        lost = self._lost + last - self._seen - len(blocks)
        self._seen, self._lost = last, 0
        return blocks, lost
