"""The lease database: one SQLite file for all VLANs, written by one thread, many leases to a commit.

The loop hands over batches and goes on. The writer takes all that wait as one transaction, and a batch counts as done
when its rows are synced to the disk. Where the disk is quick and nobody else waits, the loop writes by itself, which
spares two changes of thread. Reading happens at the start, and when a VLAN is added to a running service.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from time import monotonic
from zlib import crc32

from dhcpd.database import (
    COLUMNS,
    LATEST,
    LOG_PAGES,
    SCHEMA,
    StoreError,
    fold,
    is_damage,
    lock_folder,
    open_database,
    transaction,
)
from dhcpd.leases import BOUND, FREE, Columns, Row
from dhcpd.salvage import grow_log

__all__ = ["Store", "StoreError"]

Batch = Sequence[tuple[int, Row]]
"""Rows, each with its VLAN's id. Of two rows for one address the later one counts."""

Done = Callable[[Exception | None], object]
"""Called on the loop thread, once per batch and in the order of the batches: None when the batch is on the disk, else
why it is not. Must not raise."""

Job = tuple[Batch | None, Done]
"""None: write something, to see whether that works."""

CHUNK = 64
"""Rows in one statement. More would not be cheaper, and every smaller number is a statement that SQLite compiles once
and keeps."""

MAX_RECENT = 512
"""Rows before the recent ones are moved: enough that those of one VLAN share pages, few enough for a short pause."""

QUICK_SECONDS, MIN_QUICK = 0.002, 8
"""So many commits in a row that took less say that the disk is quick. One that falters holds up the loop once."""

_VLAN_IDS = 0xFFFFFF
"""24 bits, as many as leave a row's key at 8 bytes in SQLite's variable-length integers."""

_CLOCK = ""
"""No VLAN has this name: the one row under it says since when the clock is in doubt."""

_ROW = f"(NULL,{','.join('?' * COLUMNS)})"
_INSERT = [f"INSERT INTO recent VALUES {','.join([_ROW] * rows)}" for rows in range(CHUNK + 1)]  # noqa: S608 - constants
_VALUES = "key & 4294967295, state, client, mac, client_id, hostname, since, expires"
_SELECT = f"""SELECT {_VALUES} FROM lease
  WHERE key BETWEEN ? AND ? AND state <> {FREE} ORDER BY key LIMIT 1000"""  # noqa: S608 - constants
_SELECT_RECENT = f"SELECT {_VALUES} FROM recent WHERE key BETWEEN ? AND ? ORDER BY number"  # noqa: S608 - constants


class Store:
    """The leases in a folder. For one thread, the loop's, except where it says otherwise.

    ``notes`` collects what the operator should read in the log (a damaged file was set aside, say), also from the
    writer thread; the caller takes and logs them.
    """

    def __init__(self, folder: Path) -> None:
        """Open or create ``leases.db`` in that folder, whatever state it is in. Raises `StoreError` when the folder
        cannot be used or another service uses it."""
        self.notes: deque[str] = deque()
        self._path = folder / "leases.db"
        self._lock = lock_folder(folder)
        try:
            self._database = open_database(self._path, self.notes.append)
        except StoreError:
            self._lock.close()
            raise
        self._in_use = Lock()
        """Held while a thread uses the database after the start: a connection has one error, which the module asks for
        after the call, so that of two threads at once one may report the other's, or none (``SystemError``)."""
        self._names: dict[int, str] = dict(self._database.execute("SELECT id, name FROM vlan"))
        self._named = set(self._names)
        self._recent = 0
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._finished: deque[tuple[Done, Exception | None]] = deque()
        self._posted = False
        self._waiting = 0
        """Batches that the writer has."""
        self._quick = 0
        """Commits in a row that were; the first ones are the writer's, so it has begun by then."""
        self._writer: Thread | None = None

    def vlan_id(self, name: str) -> int:
        """The number under which that VLAN's rows are kept. It follows from the name, so that rows find their VLAN
        again when the table of names is lost."""
        number = crc32(name.encode()) & _VLAN_IDS
        while self._names.setdefault(number, name) != name:
            number = number + 1 & _VLAN_IDS
        return number

    def load(self, name: str) -> Iterator[Columns]:
        """That VLAN's rows without what is free, read as they are asked for: those that were moved to the others by
        ascending address, then the recent ones. Raises `StoreError` when they cannot be read."""
        start = self.vlan_id(name) << 32
        recent = {row[0]: row for row in self._rows(_SELECT_RECENT, start, start)}
        for rows in self._read(start):
            yield from [row for row in rows if row[0] not in recent] if recent else rows
        yield from (row for row in recent.values() if row[1] != FREE)

    def _read(self, start: int) -> Iterator[list[Columns]]:
        first = start
        while rows := self._rows(_SELECT, first, start):
            yield rows
            first = start + rows[-1][0] + 1

    def _rows(self, query: str, first: int, start: int) -> list[Columns]:
        """What a query finds among the keys from ``first`` on of the VLAN whose keys begin at ``start``."""
        keys = (first, start | 0xFFFFFFFF)
        with self._in_use:
            try:
                try:
                    return self._database.execute(query, keys).fetchall()
                except sqlite3.OperationalError:
                    if self._database.text_factory is not str:
                        raise
                    self._database.text_factory = _lenient  # a name with a flipped bit; only then, for it is slow
                    return self._database.execute(query, keys).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"{self._path} cannot be read: {error}") from error

    def latest(self) -> int:
        """The latest ``since`` of all VLANs, 0 when there is none: the stamp for `dhcpd.clock.Clock`."""
        return max(map(self._latest, ("lease", "recent")))

    def _latest(self, table: str) -> int:
        query = f"SELECT max(since) FROM {table} WHERE since BETWEEN 0 AND ?"  # noqa: S608 - constants
        (stamp,) = self._database.execute(query, (LATEST,)).fetchone()
        return int(stamp or 0)

    def doubt(self) -> int | None:
        """What `keep_doubt` was told last."""
        return next((row[7] for row in self.load(_CLOCK)), None)

    def keep_doubt(self, doubt: int | None, done: Done) -> None:
        """Keep what `dhcpd.clock.Clock` has to know at the next start, before the leases that are handed over later."""
        row = Row(0, FREE if doubt is None else BOUND, b"", b"", b"", "", 0, doubt)
        self.commit([(self.vlan_id(_CLOCK), row)], done)

    def start(self, post: Callable[[Callable[[], None]], object]) -> None:
        """Start the writer. ``post`` makes the loop thread call a function soon, and may be called from any thread
        (``loop.call_soon_threadsafe``)."""
        self._writer = Thread(target=self._run, args=(post,), name="lease-writer")
        self._writer.start()

    def commit(self, batch: Batch, done: Done, *, alone: bool = False) -> None:
        """Have the batch written; how many batches may wait is the caller's to bound. ``alone``: nobody waits for the
        loop, so it may be written, and ``done`` called, before this returns, if that is quick."""
        if alone and not self._waiting and self._quick >= MIN_QUICK and self._is_short(batch):
            done(self._attempt(batch))
        else:
            self._hand_over((batch, done))

    def _is_short(self, batch: Batch) -> bool:
        """Whether it is one statement."""
        is_due = self._recent + len(batch) >= MAX_RECENT
        return not is_due and len(batch) <= CHUNK and all(vlan in self._named for vlan, _ in batch)

    def _hand_over(self, job: Job) -> None:
        self._waiting += 1
        self._queue.put(job)

    def touch(self, done: Done) -> None:
        """Find out whether the disk takes what is written: a change that changes nothing, synced as all are."""
        self._hand_over((None, done))

    def close(self) -> None:
        """Write what waits, report it, and let go of the folder."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._deliver()
        with suppress(sqlite3.Error):
            self._database.close()
        self._lock.close()

    def _deliver(self) -> None:
        self._posted = False
        while self._finished:
            done, error = self._finished.popleft()
            self._waiting -= 1
            done(error)

    # -- on the writer thread

    def _run(self, post: Callable[[Callable[[], None]], object]) -> None:
        with self._in_use, suppress(OSError, sqlite3.Error):
            grow_log(self._path, LOG_PAGES)
            self._database.execute("DELETE FROM lease WHERE state = 0")
        running = True
        while running:
            jobs, running = self._wait()
            touches = any(batch is None for batch, _ in jobs)
            error = self._attempt([entry for batch, _ in jobs for entry in batch or ()], touches=touches)
            self._finished.extend((done, error) for _, done in jobs)
            if self._finished and not self._posted:
                self._posted = True
                with suppress(RuntimeError):  # the loop is closed: `close` delivers
                    post(self._deliver)
        with suppress(sqlite3.Error):
            fold(self._database)

    def _wait(self) -> tuple[list[Job], bool]:
        """All jobs that wait, at least one, and whether more may come."""
        jobs: list[Job] = []
        while not jobs or not self._queue.empty():
            job = self._queue.get()
            if job is None:
                return jobs, False
            jobs.append(job)
        return jobs, True

    # -- on the thread that writes

    def _attempt(self, rows: Batch, *, touches: bool = False) -> Exception | None:
        """Commit the rows; why that failed, or None."""
        began = monotonic()
        try:
            with self._in_use:
                self._write_somehow(rows, touches=touches)
        except Exception as error:  # noqa: BLE001 - whatever it was, the loop waits for an answer
            self._quick = 0
            return error
        self._quick = self._quick + 1 if monotonic() - began < QUICK_SECONDS else 0
        return None

    def _write_somehow(self, rows: Batch, *, touches: bool) -> None:
        """If need be to a new database after the present one turned out to be damaged."""
        try:
            if touches:
                self._database.execute(f"PRAGMA user_version = {SCHEMA}")
            self._write(rows)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self._database.close()
            self._database = open_database(self._path, self.notes.append)
            self._named.clear()
            self._recent = 0
            self._write(rows)

    def _write(self, rows: Batch) -> None:
        is_due = self._recent + len(rows) >= MAX_RECENT
        if self._is_short(rows):
            self._insert(rows)
        else:
            unnamed = {vlan for vlan, _ in rows} - self._named
            with transaction(self._database):
                for vlan in unnamed:
                    self._database.execute("INSERT OR REPLACE INTO vlan VALUES (?, ?)", (vlan, self._names[vlan]))
                for start in range(0, len(rows), CHUNK):
                    self._insert(rows[start : start + CHUNK])
                if is_due:
                    fold(self._database)
            self._named |= unnamed
        self._recent = 0 if is_due else self._recent + len(rows)

    def _insert(self, rows: Batch) -> None:
        """One statement: the interpreter's lock changes hands once per step of a statement, not once per row."""
        if rows:
            values: list[object] = []
            for vlan, row in rows:
                values.append(vlan << 32 | row[0])
                values += row[1:]
            self._database.execute(_INSERT[len(rows)], values)


def _lenient(raw: bytes) -> str:
    return raw.decode(errors="replace")
