"""What a damaged lease database still holds: its rows, read from the raw pages of the file and of its log.

SQLite refuses a table when one page above the rows is gone. The rows themselves lie in leaf pages that can be read one
by one, whatever became of the rest (https://www.sqlite.org/fileformat2.html, sections 1.6, 2.1 and 4.1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from struct import unpack
from typing import BinaryIO

PAGE_SIZE = 1024
"""Of every lease database. Small, because a commit writes and checksums every page that it touches as a whole."""

_SPARE = 8
"""How many times its own length the log leaves free on the disk when it takes its full length ahead of need."""

_LOG_HEADER, _FRAME_HEADER = 32, 24
_TABLE_LEAF = 13
_SIZES = (0, 1, 2, 3, 4, 6, 8)
"""Bytes of the record format's serial types 0 (null) and 1 to 6 (integers)."""

Value = int | str | bytes | None
Record = tuple[int, *tuple[Value, ...]]
"""A row's integer key, then its columns as stored (null in place of a column that is the key)."""


def records(database: Path) -> Iterator[Record]:
    """Every record that is still readable, oldest version of a row first: the file's pages, then its log's in the order
    in which they were written. Foreign tables and outdated versions are among them; the caller chooses."""
    for page in _chunks(database, 0, PAGE_SIZE):
        yield from leaf_records(page)
    for frame in _frames(log_of(database)):
        yield from leaf_records(frame[_FRAME_HEADER:])


def grow_log(database: Path, pages: int) -> None:
    """Give the log its full length now, so that a commit overwrites blocks that the file has: one that grows the file
    costs the file system a commit of its own. SQLite takes the zeros for what they are, the end. Does nothing on a disk
    that is nearly full. Raises OSError."""
    with log_of(database).open("ab", buffering=0) as log:
        missing = _LOG_HEADER + pages * (_FRAME_HEADER + PAGE_SIZE) - log.tell()
        disk = os.fstatvfs(log.fileno())
        if 0 < missing < disk.f_bavail * disk.f_frsize // _SPARE:
            log.write(bytes(missing))
            os.fsync(log.fileno())


def log_of(database: Path) -> Path:
    """Where SQLite keeps the write-ahead log of a database."""
    return Path(f"{database}-wal")


def has_lost_log(database: Path, used: int) -> bool:
    """Whether the log holds synced transactions behind the ``used`` frames that SQLite found good: it stops at the
    first broken checksum and drops the rest without a word. The last transaction does not count, since a power cut may
    have torn it, nor do frames from before the log's last reset."""
    log = log_of(database)
    header = next(_chunks(log, 0, _LOG_HEADER), b"")
    if len(header) == _LOG_HEADER and any(header) and not _is_log_header(header):
        return True
    return sum(frame[4:8] != bytes(4) for frame in _frames(log, used, header[16:24])) > 1


def _frames(log: Path, skip: int = 0, salts: bytes = b"") -> Iterator[bytes]:
    """The log's frames, header and page, of the generation with these salts. Without salts it is the first frame's,
    which is never a left-over; so the log's own header may be broken."""
    size = _FRAME_HEADER + PAGE_SIZE
    for frame in _chunks(log, _LOG_HEADER + skip * size, size):
        salts = salts or frame[8:16]
        if frame[8:16] != salts:
            return
        yield frame


def _is_log_header(header: bytes) -> bool:
    """Whether its checksum is right (file format section 4.2)."""
    order = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}.get(header[:4])
    if order is None:
        return False
    words = unpack(f"{order}6I", header[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return (first, second) == unpack(">2I", header[24:])


def leaf_records(page: bytes) -> Iterator[Record]:
    """The records of one page, none when it is no leaf of a table."""
    if len(page) < 8 or page[0] != _TABLE_LEAF:
        return
    for start in range(8, min(8 + 2 * int.from_bytes(page[3:5], "big"), len(page) - 1), 2):
        record = _record(page, int.from_bytes(page[start : start + 2], "big"))
        if record is not None:
            yield record


def _record(page: bytes, at: int) -> Record | None:
    """The cell at that offset, None when it is damaged or continues on another page."""
    try:
        length, at = _varint(page, at)
        key, start = _varint(page, at)
        header, at = _varint(page, start)
        types = []
        while at < start + header:
            kind, at = _varint(page, at)
            types.append(kind)
        bounds = list(accumulate((_size(kind) for kind in types), initial=start + header))
        if bounds[-1] != start + length or bounds[-1] > len(page):
            return None
        return key, *(_value(kind, page[low:high]) for kind, (low, high) in zip(types, pairwise(bounds), strict=True))
    except (IndexError, ValueError):
        return None


def _size(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    if kind in (8, 9):
        return 0
    return _SIZES[kind]


def _value(kind: int, raw: bytes) -> Value:
    if kind == 0:
        return None
    if kind in (8, 9):
        return kind - 8
    if kind < 12:
        return int.from_bytes(raw, "big", signed=True)
    return raw.decode() if kind % 2 else raw


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer and the offset behind it."""
    value = 0
    for offset in range(at, at + 8):
        value = value << 7 | data[offset] & 0x7F
        if data[offset] < 0x80:
            return value, offset + 1
    raise ValueError("longer than any key, length or type of this database")


def _chunks(path: Path, start: int, size: int) -> Iterator[bytes]:
    """A file in pieces of ``size``, without those that the disk does not give back; the last may be short."""
    try:
        with path.open("rb", buffering=0) as file:
            end = path.stat().st_size
            yield from filter(None, (_read(file, at, size) for at in range(start, end, size)))
    except OSError:
        return


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    try:
        file.seek(at)
        return file.read(size)
    except OSError:
        return b""
