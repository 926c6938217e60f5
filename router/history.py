"""Who had an address when: the file of `router.periods`, written by a thread of its own.

What was not written yet when the power goes is lost, a second of it; the leases themselves are `dhcpd.store`'s.
"""

from __future__ import annotations

import marshal
import math
import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import Any

from dhcpd.database import is_damage, transaction
from dhcpd.leases import Row
from router.periods import FILE_NAME, Question, joined, merge, prepare, prune, read, shrink, values, vlan_number
from router.settings import Keep

GATHER_SECONDS = 0.5
"""Changes are written together: a disk that is a memory card wears by the page."""
MAX_WAITING = 50_000
"""Rows that may wait for a disk that is slow or full; what comes then is lost, and counted."""
BATCH = 256
STORM, MAX_GATHERS = 500, 20
"""Rows in `GATHER_SECONDS` that make a storm, and how often at most it is waited for its end."""
RETRY_SECONDS = 5.0
TEND_SECONDS, SETTLE_SECONDS = 86400, 3600
"""Between two looks for what is too old, and for how long a clock has to go on as it is before the first."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOG_PAGES = 512
_ROOM = 4 << 20
"""Bytes of ``max_size`` left for SQLite's log."""

Changes = tuple[float, str, int, bytes]
"""A service time, a VLAN, and so many of its rows that were on the disk then. They are packed: as objects they would be
four times as large, and Python's garbage collection would look at each again and again."""


class Tending:
    """When to look for what is too old, as a pure object. A clock that is years ahead for a while, at boot or by an
    error, would erase all, so it is believed when it has gone on as it is for some time."""

    def __init__(self) -> None:
        self._offset = -math.inf
        self._due = math.inf

    def is_due(self, now: float, monotonic: float) -> bool:
        """True once until the next time; ``now`` is service time, ``monotonic`` of a clock that is not set."""
        if abs(now - monotonic - self._offset) > SETTLE_SECONDS:
            self._offset, self._due = now - monotonic, monotonic + SETTLE_SECONDS
        if monotonic < self._due:
            return False
        self._due = monotonic + TEND_SECONDS
        return True


class History:
    """For the loop's thread; `answer` for any.

    ``problem`` says why nothing is written at the moment, ``lost`` counts changes that never were.
    """

    def __init__(self, folder: Path, keep: Keep) -> None:
        self.keep = keep
        self.problem: str | None = None
        self.lost = 0
        self.notes: deque[str] = deque()
        """For the log, from the writer's thread too."""
        self._path = folder / FILE_NAME
        self._queue: SimpleQueue[Changes | None] = SimpleQueue()
        self._put = self._taken = 0
        self._damage: str | None = None
        """Why the file has to be set aside."""
        self._closing = Event()
        self._database: sqlite3.Connection | None = None
        self._vlans: dict[str, int] = {}
        self._tending = Tending()
        self._thread = Thread(target=self._run, name="history-writer")

    def start(self) -> None:
        self._thread.start()

    def put(self, vlan: str, rows: Sequence[Row], now: float) -> None:
        """Leases that are on the disk. Never blocks."""
        if self._waiting + len(rows) > MAX_WAITING:
            self.lost += len(rows)
            return
        self._put += len(rows)
        self._queue.put((now, vlan, len(rows), marshal.dumps([tuple(row) for row in rows])))

    @property
    def _waiting(self) -> int:
        """Rows that were put and not written; each side counts its own."""
        return self._put - self._taken

    def close(self) -> None:
        """Write what waits."""
        self._closing.set()
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def size(self) -> int:
        """Bytes on the disk."""
        total = 0
        for one in (self._path, _beside(self._path, "-wal")):
            with suppress(FileNotFoundError):  # the writer may just be setting it aside
                total += one.stat().st_size
        return total

    def answer(self, question: Question) -> list[dict[str, Any]]:
        """`read`; a file that turns out to be damaged is set aside soon. Raises `sqlite3.Error`."""
        try:
            return read(self._path, question)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                self._damage = "it cannot be read"
            raise

    # -- on the writer's thread

    def _run(self) -> None:
        pending: deque[Changes] = deque()
        running = True
        with suppress(sqlite3.Error, OSError):
            self._opened()
        while running:
            running = self._gather(pending)
            while pending and self._attempt(part := _part(pending)):
                for _ in part:
                    self._taken += pending.popleft()[2]
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
        self.lost += sum(count for _, _, count, _ in pending)

    def _gather(self, pending: deque[Changes]) -> bool:
        """Add what came, waiting for the first of it and for a storm to pass; False when nothing more will come."""
        try:
            job = self._queue.get(timeout=RETRY_SECONDS if pending else None)
        except Empty:
            return True
        self._calm_down()
        while job is not None:
            pending.append(job)
            try:
                job = self._queue.get_nowait()
            except Empty:
                return True
        return False

    def _calm_down(self) -> None:
        """While leases are granted by the thousand, what is written here would take the processor from that."""
        for _ in range(MAX_GATHERS):
            before = self._waiting
            if self._closing.wait(GATHER_SECONDS) or not before + STORM < self._waiting < MAX_WAITING // 2:
                return

    def _attempt(self, changes: Sequence[Changes]) -> bool:
        """Write; False when that has to be done later."""
        for is_last in (False, True):
            try:
                if (why := self._damage) is not None:
                    self._damage = None
                    self._set_aside(why)
                self._write(changes)
                self._tend(changes[-1][0])
            except sqlite3.Error as error:
                if is_damage(error) and not is_last:
                    self._damage = str(error)
                    continue
                self.problem = f"{self._path}: {error}"
                return False
            except OSError as error:
                self.problem = f"{self._path}: {error.strerror or error}"
                return False
            self.problem = None
            return True
        return False

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
            try:
                self._set_up(database)
            except sqlite3.Error as error:
                database.close()
                if not is_damage(error):
                    raise
                self._set_aside(str(error))
                database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
                self._set_up(database)
            self._database = database
        return self._database

    def _set_up(self, database: sqlite3.Connection) -> None:
        for setting in (
            "cache_size = -512",
            "temp_store = MEMORY",
            "secure_delete = OFF",
            f"wal_autocheckpoint = {_LOG_PAGES}",
            f"journal_size_limit = {_ROOM // 2}",
        ):
            database.execute(f"PRAGMA {setting}")
        self._vlans = prepare(database)
        database.execute("PRAGMA synchronous = NORMAL")

    def _set_aside(self, why: str) -> None:
        """A damaged file makes room for a new one; the last such file is kept."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        aside = _beside(self._path, ".bad")
        self._path.replace(aside)
        for suffix in ("-wal", "-shm"):
            _beside(self._path, suffix).unlink(missing_ok=True)
        self.notes.append(f"{self._path} is damaged ({why}): it is {aside.name} now, and a new one was begun")

    def _write(self, changes: Iterable[Changes]) -> None:
        """Of the changes of one address that only lengthen what was before, the last one counts."""
        database = self._opened()
        vlans = dict(self._vlans)
        with transaction(database):
            batch: dict[int, tuple[Any, ...]] = {}
            for now, vlan, _, rows in changes:
                start, second = vlan_number(database, vlans, vlan) << 32, int(now)
                for row in map(Row._make, marshal.loads(rows)):  # noqa: S302 - our own bytes
                    made = values(start | row.address, row, second)
                    before = batch.get(made[0])
                    if before is not None and (both := joined(before, made)) is not None:
                        made = both
                    elif before is not None:
                        merge(database, list(batch.values()))
                        batch.clear()
                    batch[made[0]] = made
            merge(database, list(batch.values()))
        self._vlans = vlans

    def _tend(self, now: float) -> None:
        """Keep the bounds: what ended longest ago goes."""
        database = self._opened()
        if self._tending.is_due(now, monotonic()):
            prune(database, now - self.keep.max_age)
        shrink(database, max(self.keep.max_size - _ROOM, 0), now)


def _part(pending: Iterable[Changes]) -> list[Changes]:
    """The first of them, as many as are good for one transaction."""
    found: list[Changes] = []
    count = 0
    for one in pending:
        found.append(one)
        count += one[2]
        if count >= BATCH:
            break
    return found


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
