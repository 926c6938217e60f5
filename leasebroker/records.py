"""What is on disk of the leases of one VLAN's containers: at most one row for a container and one for an address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from dhcpd.identity import BY_CONTAINER
from dhcpd.leases import BOUND, FREE, Columns, Row

MAX_RECORDS = 4096
"""Rows of containers that may be gone for good; one more forgets the one that was granted or renewed longest ago."""


def is_live(row: Row, now: float) -> bool:
    return row.expires is None or row.expires > now


def moved(since: int, seconds: int, started: int, now: float) -> int:
    """By how much a lease moves when the clock was set by ``seconds`` to ``now``: one granted in this run was stamped
    by the wrong clock, an older one by a right one, but none in the future (as `dhcpd.leases.Book.shift`)."""
    return seconds if since >= started else min(0, int(now) - since)


class Records:
    """Rows by container, the one written longest ago first. Every change returns the rows to commit."""

    def __init__(self, rows: Iterable[Columns], is_ours: Callable[[str, Row], bool], now: float) -> None:
        """Load what the store has of a VLAN. Rows of devices are left out. A lease that ``is_ours`` denies, as one that
        our own server granted before the VLAN had another, counts as ended, and its address as a wish."""
        self._rows: dict[str, Row] = {}
        self._names: dict[int, str] = {}
        for row in sorted(map(Row._make, rows), key=lambda row: row.since):
            if row.state == BOUND and row.client[:1] == BY_CONTAINER:
                name = row.client[1:].decode(errors="replace")
                ends = is_live(row, now) and not is_ours(name, row)
                self.put(name, row._replace(expires=int(now)) if ends else row)

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        return iter(self._rows.items())

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, name: str) -> Row | None:
        return self._rows.get(name)

    def put(self, name: str, row: Row) -> list[Row]:
        """That container has this lease now, in place of what it or the address had before."""
        before = self._rows.pop(name, None)
        freed = [] if before is None or before.address == row.address else [self._free(before)]
        if (other := self._names.get(row.address)) is not None and other != name:
            del self._rows[other]
        self._rows[name] = row
        self._names[row.address] = name
        if len(self) > MAX_RECORDS:
            freed += self.drop(next(iter(self._rows)))
        return [*freed, row]

    def drop(self, name: str) -> list[Row]:
        """Its address is not that container's any more."""
        row = self._rows.pop(name, None)
        return [] if row is None else [self._free(row)]

    def shift(self, seconds: int, started: int, now: float) -> list[Row]:
        """The clock was set (`moved`)."""
        changed = []
        for name, row in self._rows.items():
            if move := moved(row.since, seconds, started, now):
                expires = None if row.expires is None else row.expires + move
                self._rows[name] = row._replace(since=row.since + move, expires=expires)
                changed.append(self._rows[name])
        return changed

    def _free(self, row: Row) -> Row:
        del self._names[row.address]
        return Row(row.address, FREE, b"", b"", b"", "", row.since, row.expires)
