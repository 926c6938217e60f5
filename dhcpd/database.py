"""Opening the lease database: it opens with whatever can still be read of a damaged one, if there is room to keep that.

Without the room it does not, and the damaged one stays where it is: a service with an empty book could grant nothing,
and would give the addresses of those leases away as soon as it could.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from dhcpd.leases import DECLINED, FREE
from dhcpd.salvage import PAGE_SIZE, Record, has_lost_log, log_of, records

SCHEMA = 2

COLUMNS = 8
"""Of a lease: the key is the VLAN's number times 2^32 plus the address, the rest as in `dhcpd.leases.Row`. New rows go
to the end of the table ``recent``, so that a commit is few pages wherever its leases belong; the table ``lease`` has
one row for each key, and gets the recent ones many at a time."""

LATEST = 1 << 40
"""No time stamp of a sound row is as late: it would be tens of thousands of years away."""

_NAMES = ("key", "state", "client", "mac", "client_id", "hostname", "since", "expires")
_COLUMNS = ", ".join(_NAMES)

_VALUES = """state INTEGER NOT NULL, client BLOB NOT NULL, mac BLOB NOT NULL,
  client_id BLOB NOT NULL, hostname TEXT NOT NULL, since INTEGER NOT NULL, expires INTEGER"""

_TABLES = f"""
CREATE TABLE vlan (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
CREATE TABLE lease (key INTEGER PRIMARY KEY, {_VALUES}) STRICT;
CREATE TABLE recent (number INTEGER PRIMARY KEY, key INTEGER NOT NULL, {_VALUES}) STRICT;
CREATE VIEW readable AS SELECT name AS vlan,
  (key >> 24 & 255) || '.' || (key >> 16 & 255) || '.' || (key >> 8 & 255) || '.' || (key & 255) AS address,
  CASE state WHEN 1 THEN 'bound' WHEN 2 THEN 'declined' ELSE 'free' END AS state,
  lower(hex(mac)) AS mac, lower(hex(client_id)) AS client_id, hostname,
  datetime(since, 'unixepoch') AS since, datetime(expires, 'unixepoch') AS expires
  FROM (SELECT * FROM lease WHERE key NOT IN (SELECT key FROM recent) UNION ALL
    SELECT {_COLUMNS} FROM recent WHERE number IN (SELECT max(number) FROM recent GROUP BY key))
  LEFT JOIN vlan ON id = key >> 32;
"""  # noqa: S608 - constants

_CREATE = f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT"

_SOUND = f"""typeof(state) = 'integer' AND state BETWEEN {FREE} AND {DECLINED}
  AND typeof(client) = 'blob' AND typeof(mac) = 'blob' AND length(mac) <= 16 AND typeof(client_id) = 'blob'
  AND typeof(hostname) = 'text' AND typeof(since) = 'integer' AND since BETWEEN 0 AND {LATEST}
  AND (expires IS NULL OR typeof(expires) = 'integer' AND expires BETWEEN 0 AND {LATEST})"""
"""Whether a row may have been written by us, as far as types and ranges tell."""

_SALVAGE = f"""INSERT INTO lease SELECT * FROM (SELECT {", ".join(f"? AS {name}" for name in _NAMES)})
  WHERE {_SOUND} ON CONFLICT (key) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _NAMES[1:])}
  WHERE excluded.since >= lease.since"""  # noqa: S608 - constants

_FOLD = f"INSERT OR REPLACE INTO lease SELECT {_COLUMNS} FROM recent ORDER BY number"  # noqa: S608 - constants

LOG_PAGES = 4000
"""Length of the log at which it is moved into the database: long enough that a page that changed often is moved once,
short enough to be read back quickly at a start and to keep the pause of that one commit small."""

_BUSY = 1.0
"""Seconds to wait for another program that has the database open."""

_KEPT = 5
"""Bad databases kept for inspection; the oldest go first, since the disk is small."""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_DAMAGE_AT_OPENING = _DAMAGE | {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
"""A disk that fails while the service runs may recover; one that fails while opening keeps it from starting."""


class StoreError(Exception):
    """The state folder cannot be used: one sentence that says which and what to do."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that a running database is corrupt; a full or failing disk is no damage."""
    return _code(error) in _DAMAGE


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; an error of our own making says that the database is corrupt."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def lock_folder(folder: Path) -> IO[str]:
    """Create the folder if need be, and hold it for this process until the result is closed."""
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync(folder.parent)
        lock = (folder / "leases.lock").open("a+")
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}; name a state folder that can be written") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise StoreError(f"{folder} is in use by process {holder}; stop it or name another state folder") from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def open_database(path: Path, note: Callable[[str], object]) -> sqlite3.Connection:
    """The database at that path, created if need be, sound and of our version. A damaged one is set aside first, and
    what can be read of it is in the new one; ``note`` is told. Raises `StoreError`."""
    try:
        _adopt(path)
        try:
            return _open(path)
        except sqlite3.Error as error:
            if _code(error) not in _DAMAGE_AT_OPENING:
                raise
            note(f"{path} is damaged ({error}): it was set aside, and what could be read of it was kept")
        return _open(path)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path}: {error}; repair that or name another state folder") from error


def _open(path: Path, locking: str = "EXCLUSIVE") -> sqlite3.Connection:
    """Raises `sqlite3.Error`; when that is damage, the next call opens a new database.

    The lock is exclusive so that no operator's transaction can stop the service, and because that spares the shared
    memory file and some system calls per commit. When somebody has the database open already it is shared.
    """
    connection = None
    try:
        if log_of(path).exists() and not (path.exists() and path.stat().st_size):
            raise sqlite3.DatabaseError("there is only its log")
        connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            _set_up(connection, locking)
            _check(connection, path)
        except UnicodeDecodeError as error:  # the message quotes a broken definition of a table
            raise sqlite3.DatabaseError("its tables are broken") from error
    except sqlite3.Error as error:
        if _code(error) in _DAMAGE_AT_OPENING:
            _replace(path, error)  # before closing, which would empty the log
        if connection is not None:
            connection.close()
        if _code(error) == sqlite3.SQLITE_BUSY and locking == "EXCLUSIVE":
            return _open(path, "NORMAL")
        raise
    return connection


def _set_up(connection: sqlite3.Connection, locking: str) -> None:
    for setting in (
        f"locking_mode = {locking}",
        f"page_size = {PAGE_SIZE}",
        "journal_mode = WAL",
        "synchronous = FULL",
        f"wal_autocheckpoint = {LOG_PAGES}",
        "secure_delete = OFF",
    ):
        connection.execute(f"PRAGMA {setting}")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables of an empty database; raise `sqlite3.Error` for one that is not sound."""
    execute = connection.execute
    with suppress(sqlite3.OperationalError):  # the disk is full; the log is read all the same
        (_, used, _) = execute("PRAGMA wal_checkpoint").fetchone()
        if used >= 0 and has_lost_log(path, used):
            raise sqlite3.DatabaseError("its log is broken")
    (version,) = execute("PRAGMA user_version").fetchone()
    if not version and execute("SELECT * FROM sqlite_schema").fetchone() is None:
        connection.executescript(_CREATE)
        sync(path.parent)
        return
    if version != SCHEMA:
        raise sqlite3.DatabaseError(f"version {version} instead of {SCHEMA}")
    (verdict,) = execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(" ".join(verdict.split()))
    for table in ("lease", "recent"):
        execute(f"SELECT {_COLUMNS} FROM {table} LIMIT 0")  # noqa: S608 - constants
    execute("SELECT id, name FROM vlan LIMIT 0")
    with suppress(sqlite3.OperationalError):
        fold(connection)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """The block is carried out as a whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def fold(connection: sqlite3.Connection) -> None:
    """Move the recent leases to the others, within the transaction that there is or in one of its own."""
    if connection.execute("SELECT * FROM recent LIMIT 1").fetchone() is None:
        return
    with nullcontext() if connection.in_transaction else transaction(connection):
        connection.execute(_FOLD)
        connection.execute("DELETE FROM recent")


def _replace(path: Path, damage: sqlite3.Error) -> None:
    try:
        _salvage(path)
    except (sqlite3.Error, OSError) as error:
        what = f"{path} is damaged ({damage}), and what can be read of it cannot be written: {error}"
        raise StoreError(f"{what}; repair that or name another state folder") from error


def _salvage(path: Path) -> None:
    """Write what can be read of a damaged database into a new one, and put that in its place."""
    draft = path.with_name("leases.db.draft")
    draft.unlink(missing_ok=True)
    with closing(sqlite3.connect(draft, isolation_level=None)) as database:
        database.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        database.execute("PRAGMA journal_mode = OFF")
        database.executescript(_CREATE)
        database.execute("BEGIN")
        for record in records(path):
            _keep(database, record)
        database.execute("COMMIT")
    sync(draft)
    draft.rename(_salvaged(path))
    sync(path.parent)
    _adopt(path)


def _keep(database: sqlite3.Connection, record: Record) -> None:
    key, *values = record
    columns = values[1:]
    if len(columns) == 1 and isinstance(columns[0], str):
        database.execute("INSERT OR IGNORE INTO vlan VALUES (?, ?)", (key, *columns))
    elif len(columns) == len(_NAMES) - 1:
        database.execute(_SALVAGE, (key, *columns))
    elif len(columns) == len(_NAMES):
        database.execute(_SALVAGE, columns)


def _salvaged(path: Path) -> Path:
    """The complete replacement of a damaged database. As long as it is there, the damaged one still has to go."""
    return path.with_name("leases.db.salvaged")


def _adopt(path: Path) -> None:
    """Set the damaged database aside and put its replacement in its place, if there is one; also when a power cut came
    in between last time."""
    if not _salvaged(path).exists():
        return
    aside = _new_folder(path)
    for name in (path, log_of(path), Path(f"{path}-shm")):
        with suppress(FileNotFoundError):
            name.rename(aside / name.name)
    _salvaged(path).rename(path)
    sync(path.parent)


def _new_folder(path: Path) -> Path:
    """A folder ``leases.db.bad-<UTC time>`` for one more damaged database; the oldest go to make room for it."""
    from shutil import rmtree  # noqa: PLC0415 - a start without damage does not need it

    for old in sorted(path.parent.glob(f"{path.name}.bad-*"))[: 1 - _KEPT]:
        rmtree(old, ignore_errors=True)
    folder = path.with_name(f"{path.name}.bad-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    folder.mkdir()
    return folder


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
