"""Who had an address when: one SQLite file, written by a thread of its own.

A row is a period: an address of a VLAN, its holder, from when until when. A renewal makes the period longer, so that a
node that keeps its address for years is one row. Times are service seconds (``dhcpd.clock``): those of the wall clock
wherever that can be believed.

What was not written yet when the power goes is lost, a second of it; the leases themselves are `dhcpd.store`'s.
"""

from __future__ import annotations

import marshal
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple

from dhcpd.database import is_damage, transaction
from dhcpd.identity import BY_CLIENT_ID, container_of
from dhcpd.leases import DECLINED, FREE, Row
from dhcpd.pool import dotted
from dhcpd.values import address
from router.settings import Keep
from router.times import iso_time, point

FILE_NAME = "history.db"
GATHER_SECONDS = 0.5
"""Changes are written together: a disk that is a memory card wears by the page."""
MAX_WAITING = 50_000
"""Rows that may wait for a disk that is slow or full; what comes then is lost, and counted."""
BATCH = 256
STORM, MAX_GATHERS = 500, 20
"""Rows in `GATHER_SECONDS` that make a storm, and how often at most it is waited for its end."""
RETRY_SECONDS = 5.0
TEND_SECONDS = 86400
MAX_ROWS = 1000
"""Periods in one answer."""

_SCHEMA = 1
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FOREVER = 1 << 40
_LOG_PAGES = 512
_ROOM = 4 << 20
"""Bytes of ``max_size`` left for SQLite's log."""
_PRUNED = 1000
"""Rows that are removed at once, so that the log stays short."""

_TABLES = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE vlan (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE period (number INTEGER PRIMARY KEY, key INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL,
  state INTEGER NOT NULL, client BLOB NOT NULL, mac BLOB NOT NULL, hostname TEXT NOT NULL) STRICT;
CREATE INDEX by_key ON period (key, since);
PRAGMA user_version = {_SCHEMA};
COMMIT;
"""
_BATCH_TABLE = """CREATE TEMP TABLE batch (key INTEGER PRIMARY KEY, since INTEGER, until INTEGER, state INTEGER,
  client BLOB, mac BLOB, hostname TEXT, now INTEGER, last INTEGER, goes_on INTEGER)"""
_VALUES = "(?,?,?,?,?,?,?,?,NULL,NULL)"
_INSERT = {rows: f"INSERT INTO batch VALUES {','.join([_VALUES] * rows)}" for rows in (64, 8, 1)}  # noqa: S608
"""Few of them, since SQLite compiles each and keeps it."""

_MERGE = (
    """UPDATE batch SET last =
      (SELECT number FROM period WHERE period.key = batch.key ORDER BY since DESC, number DESC LIMIT 1)""",
    """UPDATE batch SET goes_on = EXISTS (SELECT * FROM period AS old WHERE old.number = batch.last
      AND old.state = batch.state AND old.client = batch.client AND (old.mac = batch.mac OR old.mac = x'')
      AND batch.since <= old.until)""",
    """UPDATE period SET until = batch.until, mac = batch.mac, hostname = batch.hostname
      FROM batch WHERE period.number = batch.last AND batch.goes_on""",
    """UPDATE period SET since = batch.since
      FROM batch WHERE period.number = batch.last AND batch.goes_on AND batch.since < period.since""",
    """UPDATE period SET until = batch.now FROM batch
      WHERE period.number = batch.last AND NOT batch.goes_on AND period.until > batch.now""",
    f"""INSERT INTO period (key, since, until, state, client, mac, hostname)
      SELECT key, since, until, state, client, mac, hostname FROM batch
      WHERE NOT goes_on AND state <> {FREE} AND until > since ORDER BY since""",  # noqa: S608 - constants
    "DELETE FROM batch",
)
"""A batch has one row for each key. The first finds the latest period of each address, the second says whether it is
that one which goes on; the rest lengthen, move (the clock was set), end and begin periods."""

_COLUMNS = "name, key, state, client, mac, hostname, since, until"
_FROM = "FROM period JOIN vlan ON vlan.id = key >> 32"


Changes = tuple[float, str, int, bytes]
"""A service time, a VLAN, and so many of its rows that were on the disk then. They are packed: as objects they would be
four times as large, and Python's garbage collection would look at each again and again."""


class Question(NamedTuple):
    """What is asked: all that is set has to hold. Times are seconds since the epoch."""

    address: int | None = None
    vlan: str | None = None
    node: str | None = None
    """A host name, a container's name or a MAC."""
    at: int | None = None
    since: int | None = None
    """Periods that go on after it."""
    limit: int = 100


def question(asked: Mapping[str, str]) -> Question:
    """``address``, ``vlan``, ``node``, ``at``, ``since`` and ``limit`` as text. Raises ValueError with one line."""
    known = {*Question._fields}
    if unknown := sorted(asked.keys() - known):
        raise ValueError(f"{unknown[0][:60]!r} is unknown: expected {', '.join(Question._fields)}")
    now = datetime.now().astimezone()
    limit = asked.get("limit", "100")
    if not (limit.isascii() and limit.isdecimal() and 0 < int(limit[:9]) <= MAX_ROWS):
        raise ValueError(f"limit: expected a number from 1 to {MAX_ROWS}, not {limit[:60]!r}")
    return Question(
        address(asked["address"]) if "address" in asked else None,
        asked.get("vlan"),
        asked.get("node"),
        int(point(asked["at"], now).timestamp()) if "at" in asked else None,
        int(point(asked["since"], now).timestamp()) if "since" in asked else None,
        int(limit),
    )


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
        self._tended: float | None = None
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
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if not version and database.execute("SELECT * FROM sqlite_schema").fetchone() is None:
            database.executescript(_TABLES)
        elif version != _SCHEMA:
            raise sqlite3.DatabaseError(f"version {version} instead of {_SCHEMA}")
        database.execute("PRAGMA synchronous = NORMAL")
        self._vlans = {name: number for number, name in database.execute("SELECT id, name FROM vlan")}
        database.execute("SELECT * FROM period ORDER BY number DESC LIMIT 1").fetchone()
        database.execute(_BATCH_TABLE)

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
                start, second = _vlan(database, vlans, vlan) << 32, int(now)
                for row in map(Row._make, marshal.loads(rows)):  # noqa: S302 - our own bytes
                    made = _values(start | row.address, row, second)
                    before = batch.get(made[0])
                    if before is not None and before[3:6] != made[3:6]:
                        _merge(database, list(batch.values()))
                        batch.clear()
                    elif before is not None and before[1] < made[1]:
                        made = (made[0], before[1], *made[2:])
                    batch[made[0]] = made
            _merge(database, list(batch.values()))
        self._vlans = vlans

    def _tend(self, now: float) -> None:
        """Keep the bounds: what ended longest ago goes."""
        database = self._opened()
        if self._tended is None or not 0 <= now - self._tended < TEND_SECONDS:
            self._tended = now
            while _remove(database, now - self.keep.max_age):
                pass
        limit = max(self.keep.max_size - _ROOM, 0)
        while _used(database) > limit and (_remove(database, now) or _remove(database, _FOREVER + 1)):
            database.execute(f"PRAGMA incremental_vacuum({_PRUNED})")


def _vlan(database: sqlite3.Connection, vlans: dict[str, int], name: str) -> int:
    """The number of a VLAN, which ``vlans`` has then."""
    if name not in vlans:
        (number,) = database.execute("SELECT coalesce(max(id), 0) + 1 FROM vlan").fetchone()
        database.execute("INSERT INTO vlan VALUES (?, ?)", (number, name))
        vlans[name] = number
    return vlans[name]


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


def _values(key: int, row: Row, now: int) -> tuple[Any, ...]:
    client = b"" if row.client == row.mac else row.client
    until = _FOREVER if row.expires is None else row.expires
    return key, row.since, until, row.state, client, row.mac, row.hostname, now


def _merge(database: sqlite3.Connection, batch: Sequence[tuple[object, ...]]) -> None:
    """In few statements, whatever the number of rows: each step of one hands the interpreter's lock over."""
    start = 0
    for size, statement in _INSERT.items():
        while len(batch) - start >= size:
            chunk = batch[start : start + size]
            database.execute(statement, [value for values in chunk for value in values])
            start += size
    for statement in _MERGE if batch else ():
        database.execute(statement)


def _remove(database: sqlite3.Connection, ended_before: float) -> bool:
    """Some of the periods that ended before then, those that began first; False when there are none."""
    query = "DELETE FROM period WHERE number IN (SELECT number FROM period WHERE until < ? ORDER BY number LIMIT ?)"
    return database.execute(query, (int(ended_before), _PRUNED)).rowcount > 0


def _used(database: sqlite3.Connection) -> int:
    (pages,), (free,), (size,) = (
        database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


# -- reading


def read(path: Path, question: Question) -> list[dict[str, Any]]:
    """The periods of a history file that answer a question, the latest first; nothing when there is no file.

    ``{"vlan", "address", "state", "mac", "client_id", "hostname", "container", "since", "until"}``; ``state`` is
    ``bound`` or ``declined``, times are ISO 8601 UTC, ``until`` null for a lease without end. Raises `sqlite3.Error`.
    """
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as database:
        if not database.execute("PRAGMA user_version").fetchone()[0]:
            return []  # just being made
        return [_shown(*found) for found in _find(database, question)]


def _find(database: sqlite3.Connection, asked: Question) -> Iterator[tuple[Any, ...]]:
    limit = max(1, min(asked.limit, MAX_ROWS))
    vlans = dict(database.execute("SELECT name, id FROM vlan"))
    wanted = list(vlans.values()) if asked.vlan is None else [vlans[asked.vlan]] if asked.vlan in vlans else []
    if not wanted:
        return
    tests, values = [], []
    if asked.address is not None:
        tests.append(f"key IN ({','.join('?' * len(wanted))})")
        values += [vlan << 32 | asked.address for vlan in wanted]
    elif asked.vlan is not None:
        tests.append("key BETWEEN ? AND ?")
        values += [wanted[0] << 32, wanted[0] << 32 | 0xFFFFFFFF]
    if asked.at is not None:
        tests.append("since <= ? AND until > ?")
        values += [asked.at, asked.at]
    if asked.since is not None:
        tests.append("until > ?")
        values.append(asked.since)
    if asked.node is not None:
        tests.append("(hostname = ? OR mac = ? OR client = ?)")
        name = asked.node.encode(errors="replace")
        values += [name.decode(), _mac(asked.node), b"c" + name]
    where = f"WHERE {' AND '.join(tests)}" if tests else ""
    query = f"SELECT {_COLUMNS} {_FROM} {where} ORDER BY since DESC, number DESC LIMIT ?"
    yield from database.execute(query, (*values, limit))


def _mac(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        return b""


def _shown(*found: Any) -> dict[str, Any]:
    vlan, key, state, client, mac, hostname, since, until = found
    is_identified = client[:1] == BY_CLIENT_ID
    return {
        "vlan": vlan,
        "address": dotted(key & 0xFFFFFFFF),
        "state": "declined" if state == DECLINED else "bound",
        "mac": mac.hex(":") or None,
        "client_id": client[1:].hex(":") if is_identified else None,
        "hostname": hostname or None,
        "container": container_of(client),
        "since": iso_time(since),
        "until": None if until >= _FOREVER else iso_time(until),
    }
