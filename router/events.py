"""What happens, as events for who watches: the log's notes, and every change of a lease.

For the loop's thread. What is not looked at is not rendered: a storm of leases costs a tuple each.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from dhcpd.decision import Note
from dhcpd.identity import container_of
from dhcpd.leases import BOUND, DECLINED, Row
from dhcpd.pool import dotted
from router.times import iso_time

KEPT = 1000
"""Events that the bus remembers, and that may wait for one subscriber."""
MAX_SUBSCRIBERS = 32


_ENDED = {"state": "expired", "hostname": None, "container": None}


class BusyError(Exception):
    """There are `MAX_SUBSCRIBERS` already."""


class Change(NamedTuple):
    """A row that is on the disk, at a service time."""

    vlan: str
    row: Row
    now: float


@dataclass(slots=True)
class Event:
    """``at`` is wall clock time. All who watch have the same object: it is rendered once."""

    id: int
    at: float
    what: Note | Change
    _block: str = field(default="", repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.what.event if isinstance(self.what, Note) else "lease"

    def shown(self) -> dict[str, Any]:
        """``{"id", "at", "level", "event", ...fields}``, as `GET /events` tells it."""
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head: dict[str, Any] = {"id": self.id, "at": at, "level": "info", "event": self.name}
        if isinstance(self.what, Note):
            head["level"] = self.what.level
            return head | self.what.fields | head
        return head | lease_fields(*self.what, self.at)

    def text(self) -> str:
        """One JSON object on one line."""
        return json.dumps(self.shown(), default=str)

    def block(self) -> str:
        """As a server-sent event."""
        self._block = self._block or f"id: {self.id}\nevent: {self.name}\ndata: {self.text()}\n\n"
        return self._block


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


def _event(number: int, at: float, what: Note | tuple[str, Row, float]) -> Event:
    return Event(number, at, what if isinstance(what, Note) else Change(*what))


class Subscription:
    """The events that wait for one reader: the latest `KEPT`, older ones are lost and counted in ``lost``."""

    def __init__(self, backlog: Iterable[Event], *, has_gap: bool) -> None:
        self.lost = int(has_gap)
        self._waiting: deque[Event] = deque(backlog, maxlen=KEPT)
        self._news = asyncio.Event()
        self._is_closed = False
        if self._waiting or has_gap:
            self._news.set()

    def put(self, event: Event) -> None:
        self.lost += len(self._waiting) == KEPT
        self._waiting.append(event)
        self._news.set()

    def close(self) -> None:
        """Nothing more will come."""
        self._is_closed = True
        self._news.set()

    async def take(self, seconds: float) -> tuple[list[Event], int] | None:
        """What waits, and how many were lost before it, as soon as there is some; nothing after so many seconds, None
        when nothing more will come."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return [], 0
        if self._is_closed:
            return None
        self._news.clear()
        events, lost = list(self._waiting), self.lost
        self._waiting.clear()
        self.lost = 0
        return events, lost


class Bus:
    """Takes notes and changed leases, keeps the last `KEPT` of them, and gives them to its subscribers."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last = random.getrandbits(50)  # no id of a former run is mistaken for one of this, whatever the clock
        self._ring: deque[tuple[int, float, Note | tuple[str, Row, float]]] = deque(maxlen=KEPT)
        self._subscriptions: set[Subscription] = set()

    def tee(self, log: Callable[[Note], None]) -> Callable[[Note], None]:
        """A log that writes to ``log``, and to the bus."""

        def both(note: Note) -> None:
            log(note)
            self.put(note)
            if note.event == "expired":  # the end that no row tells
                self.put(Note("info", "lease", _ENDED | note.fields))

        return both

    def put(self, note: Note) -> None:
        self._last += 1
        self._ring.append((self._last, self._clock(), note))
        if self._subscriptions:
            self._deliver(1)

    def changed(self, vlan: str, rows: Sequence[Row], now: float) -> None:
        """Leases of a VLAN are on the disk."""
        number, at = self._last, self._clock()
        for row in rows:
            number += 1
            self._ring.append((number, at, (vlan, row, now)))
        self._last = number
        if self._subscriptions:
            self._deliver(len(rows))

    def _deliver(self, count: int) -> None:
        events = self.latest(count)
        for one in self._subscriptions:
            one.lost += count - len(events)
            for event in events:
                one.put(event)

    def latest(self, most: int) -> list[Event]:
        """The last events, oldest first."""
        start = max(0, len(self._ring) - most)
        return [_event(*one) for one in islice(self._ring, start, None)]

    def subscribe(self, after: int | None = None) -> Subscription:
        """What happens from now on, or after the event of that id. Raises `BusyError`."""
        if len(self._subscriptions) >= MAX_SUBSCRIBERS:
            raise BusyError(f"{MAX_SUBSCRIBERS} watch already: end one of them")
        oldest = self._ring[0][0] if self._ring else self._last + 1
        has_gap = after is not None and not oldest - 1 <= after <= self._last
        backlog = [] if after is None or has_gap else self.latest(self._last - after)
        subscription = Subscription(backlog, has_gap=has_gap)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End all subscriptions."""
        for one in self._subscriptions:
            one.close()
