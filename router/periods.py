"""The history's file: which address of a VLAN was whose, from when until when, in SQLite.

A row is such a period. A renewal makes it longer, so that a node that keeps its address for years is one row; with
another host name than before the node begins another. Times are service seconds (``dhcpd.clock``): those of the wall
clock wherever that can be believed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from dhcpd.identity import BY_CLIENT_ID, container_of
from dhcpd.leases import DECLINED, FREE, Row
from dhcpd.pool import dotted
from dhcpd.values import address
from router.text import hardware_address
from router.times import iso_time, point

FILE_NAME = "history.db"
MAX_ROWS = 1000
"""Periods in one answer."""


_SCHEMA = 1
_FOREVER = 1 << 40
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
      AND (old.hostname = batch.hostname OR '' IN (old.hostname, batch.hostname)) AND batch.since <= old.until)""",
    """UPDATE period SET until = batch.until, mac = batch.mac,
      hostname = iif(batch.hostname = '', period.hostname, batch.hostname)
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


# -- writing


def prepare(database: sqlite3.Connection) -> dict[str, int]:
    """Make the tables in a file that is empty, else see that they can be read; the numbers of its VLANs. Raises
    `sqlite3.Error`."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if not version and database.execute("SELECT * FROM sqlite_schema").fetchone() is None:
        database.executescript(_TABLES)
    elif version != _SCHEMA:
        raise sqlite3.DatabaseError(f"version {version} instead of {_SCHEMA}")
    database.execute("SELECT * FROM period ORDER BY number DESC LIMIT 1").fetchone()
    database.execute(_BATCH_TABLE)
    return {name: number for number, name in database.execute("SELECT id, name FROM vlan")}


def vlan_number(database: sqlite3.Connection, vlans: dict[str, int], name: str) -> int:
    """The number of a VLAN, which ``vlans`` has then."""
    if name not in vlans:
        (number,) = database.execute("SELECT coalesce(max(id), 0) + 1 FROM vlan").fetchone()
        database.execute("INSERT INTO vlan VALUES (?, ?)", (number, name))
        vlans[name] = number
    return vlans[name]


def values(key: int, row: Row, now: int) -> tuple[Any, ...]:
    """What `merge` takes for a row that is on the disk at ``now``: key, since, until, and whose it is."""
    client = b"" if row.client == row.mac else row.client
    until = _FOREVER if row.expires is None else row.expires
    return key, row.since, until, row.state, client, row.mac, row.hostname, now


def joined(before: tuple[Any, ...], later: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What stands for both of two such rows of one key; None when they are two periods."""
    key, since, until, *holder, name, now = later
    if list(before[3:6]) != holder or (name and before[6] and name != before[6]):
        return None
    return key, min(before[1], since), until, *holder, name or before[6], now


def merge(database: sqlite3.Connection, batch: Sequence[tuple[object, ...]]) -> None:
    """Begin, lengthen and end periods, in few statements, whatever the number of rows: each step of one hands the
    interpreter's lock over."""
    start = 0
    for size, statement in _INSERT.items():
        while len(batch) - start >= size:
            chunk = batch[start : start + size]
            database.execute(statement, [value for one in chunk for value in one])
            start += size
    for statement in _MERGE if batch else ():
        database.execute(statement)


def prune(database: sqlite3.Connection, ended_before: float) -> None:
    """Remove what ended before then."""
    while _remove(database, ended_before):
        pass


def shrink(database: sqlite3.Connection, size: int, now: float) -> None:
    """Remove what began first until the rest has room in ``size`` bytes: what has ended, and then what has not."""
    while _used(database) > size and (_remove(database, now) or _remove(database, _FOREVER + 1)):
        database.execute(f"PRAGMA incremental_vacuum({_PRUNED})")


def _remove(database: sqlite3.Connection, ended_before: float) -> bool:
    """Some of the periods that ended before then, those that began first; False when there are none."""
    query = "DELETE FROM period WHERE number IN (SELECT number FROM period WHERE until < ? ORDER BY number LIMIT ?)"
    return database.execute(query, (int(ended_before), _PRUNED)).rowcount > 0


def _used(database: sqlite3.Connection) -> int:
    (pages,), (free,), (size,) = (
        database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


# -- reading


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


def question(asked: Mapping[str, str], now: datetime) -> Question:
    """``address``, ``vlan``, ``node``, ``at``, ``since`` and ``limit`` as text; ``now``, in the machine's time zone, is
    what the simple forms of a time count from. Raises ValueError with one line."""
    known = {*Question._fields}
    if unknown := sorted(asked.keys() - known):
        raise ValueError(f"{unknown[0][:60]!r} is unknown: expected {', '.join(Question._fields)}")
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
        values += [name.decode(), hardware_address(asked.node), b"c" + name]
    where = f"WHERE {' AND '.join(tests)}" if tests else ""
    query = f"SELECT {_COLUMNS} {_FROM} {where} ORDER BY since DESC, number DESC LIMIT ?"
    yield from database.execute(query, (*values, limit))


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
