"""The lease book of one VLAN: who holds which address, until when."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

FREE, BOUND, DECLINED = 0, 1, 2
"""The states a row is stored in. FREE: forgotten, nobody's again. DECLINED: quarantined."""

DECLINER = b"q"
"""In place of a key in the row of a quarantine after a DHCPDECLINE: the station at ``mac`` does not use the address."""

STALE_ENTRIES = 1000
"""Heap entries that may have outlived their binding before the heap is built anew."""

NEVER = 1 << 62
"""The expiry of an infinite lease: later than every service second."""


class Row(NamedTuple):
    """One address of one VLAN as it is kept on disk; the last one written for an address is the truth.

    Times are whole service seconds (``dhcpd.clock``): seconds since the epoch, UTC.
    """

    address: int
    state: int
    client: bytes
    """The node's own key, see ``dhcpd.identity``; for a quarantine ``b""`` or `DECLINER`."""
    mac: bytes
    client_id: bytes
    """Option 61 as sent, ``b""`` when the client sent none."""
    hostname: str
    since: int
    """The grant or its latest renewal."""
    expires: int | None
    """End of the lease or of the quarantine, None = never."""


Columns = tuple[int, int, bytes, bytes, bytes, str, int, int | None]
"""A `Row` as the store reads it: 50,000 of them at a start are not worth a type of their own each."""


class Binding:
    """The book's record of one address; fields as in `Row`, with ``expires`` `NEVER` for an infinite lease.

    ``owner`` is the key under which the book has it: the node's own, or that of its reservation.
    ``timed`` is the expiry under which the book's heap has it, 0 when it is not there.
    """

    __slots__ = ("address", "client", "client_id", "expires", "hostname", "mac", "owner", "since", "state", "timed")

    def __init__(self, row: Columns, owner: bytes) -> None:
        self.address, self.state, client, self.mac, self.client_id, self.hostname, self.since, expires = row
        # One copy of what is equal: most clients are known by their MAC, and there may be 100,000 of them.
        self.client = client = self.mac if client == self.mac else client
        self.owner = client if owner == client else owner
        self.expires = NEVER if expires is None else expires
        self.timed = 0

    def row(self) -> Row:
        expires = None if self.expires == NEVER else self.expires
        return Row(self.address, self.state, self.client, self.mac, self.client_id, self.hostname, self.since, expires)

    def is_live(self, now: float) -> bool:
        return self.state == BOUND and self.expires > now


class Book:
    """Bindings by owner and by address. Every change returns the rows to commit.

    An expired binding stays: its client gets the address again. ``idle`` holds the expired addresses, oldest first.
    Expiry is found by a heap with one entry per binding that renewals do not touch: an entry that comes due early is
    put back at the binding's present expiry, and one that is not its binding's ``timed`` is ignored.
    """

    def __init__(self) -> None:
        self.by_owner: dict[bytes, Binding] = {}
        self.by_address: dict[int, Binding] = {}
        self.declined: set[int] = set()
        """The addresses in quarantine."""
        self.ownerless: set[int] = set()
        """The addresses of live leases whose owner has another binding: nobody else's before they end."""
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._heap: list[int] = []
        self._loaded: float | None = None

    @property
    def idle(self) -> OrderedDict[int, None]:
        """The expired addresses, oldest first."""
        self._settle()
        return self._idle

    def __len__(self) -> int:
        return len(self.by_address)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self.by_address.values())

    def load(self, rows: Iterable[Columns], owner_of: Callable[[Columns], bytes], now: float) -> None:
        """Fill an empty book. Of two rows of one owner the one granted last is its binding; the other address stays
        remembered, as expired when its lease has ended. What is sorted by time is sorted when it is asked for: known
        clients are served first."""
        by_address, by_owner = self.by_address, self.by_owner
        for row in rows:
            address, state, _, _, _, _, _, _ = row
            if state not in (BOUND, DECLINED):
                continue
            owner = owner_of(row) if state == BOUND else b""
            binding = by_address[address] = Binding(row, owner)
            if state == DECLINED:
                self.declined.add(address)
            if owner and by_owner.setdefault(owner, binding) is not binding:
                self._claim(binding, now)
        self._loaded = now

    def _settle(self) -> None:
        if self._loaded is not None:
            now, self._loaded = self._loaded, None
            self._sort(now)

    def _claim(self, binding: Binding, now: float) -> None:
        """Two rows have one owner."""
        other = self.by_owner[binding.owner]
        older, newer = (other, binding) if binding.since >= other.since else (binding, other)
        if older.is_live(now):
            self.ownerless.add(older.address)
        self.by_owner[binding.owner] = newer

    def _sort(self, now: float) -> None:
        """Build ``idle`` and the heap anew."""
        expired: list[Binding] = []
        for one in self.by_address.values():
            one.timed = 0
            if one.expires <= now and one.state == BOUND:
                expired.append(one)
            elif one.expires != NEVER:
                one.timed = one.expires
        expired.sort(key=lambda one: (one.expires, one.address))
        self._idle = OrderedDict.fromkeys(one.address for one in expired)
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [one.timed << 32 | one.address for one in self.by_address.values() if one.timed]
        heapify(self._heap)

    def grant(self, row: Row, owner: bytes) -> list[Row]:
        """Bind an address to its owner, over whatever either of them had before."""
        rows = [row]
        binding = self.by_owner.get(owner)
        if binding is not None and binding.address == row.address:
            _, _, binding.client, binding.mac, binding.client_id, binding.hostname, binding.since, expires = row
            binding.expires = NEVER if expires is None else expires
        else:
            if binding is not None:
                rows.append(self.forget(binding))
            if (holder := self.by_address.get(row.address)) is not None:
                self.forget(holder)
            binding = Binding(row, owner)
            self.by_owner[owner] = self.by_address[row.address] = binding
        self.idle.pop(row.address, None)
        self._time(binding)
        return rows

    def release(self, binding: Binding, now: int) -> Row:
        """End a lease now; the address stays remembered for its client."""
        binding.expires = now
        self.idle[binding.address] = None
        return binding.row()

    def quarantine(self, address: int, mac: bytes, now: int, until: int, client: bytes = b"") -> list[Row]:
        """Give ``address`` to nobody until then. ``mac``: the one who squats on it, or with `DECLINER` declined it."""
        if (holder := self.by_address.get(address)) is not None:
            self.forget(holder)
        row = Row(address, DECLINED, client, mac, b"", "", now, until)
        binding = self.by_address[address] = Binding(row, b"")
        self.declined.add(address)
        self._time(binding)
        return [row]

    def forget(self, binding: Binding) -> Row:
        """Make an address nobody's."""
        del self.by_address[binding.address]
        self.declined.discard(binding.address)
        self.ownerless.discard(binding.address)
        self.idle.pop(binding.address, None)
        if self.by_owner.get(binding.owner) is binding:
            del self.by_owner[binding.owner]
        expires = None if binding.expires == NEVER else binding.expires
        return Row(binding.address, FREE, b"", b"", b"", "", binding.since, expires)

    def expire(self, now: float, limit: int = 1000) -> list[Binding]:
        """The bindings that ended since the last call, at most ``limit``: leases are idle from now on, quarantines are
        for the caller to `forget`."""
        self._settle()
        ended: list[Binding] = []
        while self._heap and self._heap[0] >> 32 <= now and len(ended) < limit:
            entry = heappop(self._heap)
            due, address = entry >> 32, entry & 0xFFFFFFFF
            binding = self.by_address.get(address)
            if binding is None or binding.timed != due:
                continue
            binding.timed = 0
            if binding.expires > now:
                self._time(binding)
            elif address not in self.idle:
                if binding.state == BOUND:
                    self.idle[address] = None
                    self.ownerless.discard(address)
                ended.append(binding)
        return ended

    def next_expiry(self) -> int | None:
        """The earliest second at which `expire` may have something to say."""
        self._settle()
        return self._heap[0] >> 32 if self._heap else None

    def shift(self, seconds: int, since: int, now: float) -> list[Row]:
        """Follow a step of the clock to ``now``: leases granted at or after ``since`` move along, older ones keep
        their time, but none was granted in the future (`dhcpd.clock.settle`)."""
        moved = []
        self._loaded = None
        for one in self:
            step = seconds if one.since >= since else min(0, int(now) - one.since)
            if step:
                one.since += step
                one.expires += step if one.expires != NEVER else 0
                moved.append(one.row())
        self._sort(now)
        return moved

    def _time(self, binding: Binding) -> None:
        self._settle()
        if binding.expires == NEVER or 0 < binding.timed <= binding.expires:
            return
        binding.timed = binding.expires
        heappush(self._heap, binding.expires << 32 | binding.address)
        if len(self._heap) > 2 * len(self.by_address) + STALE_ENTRIES:
            self._rebuild()
